"""Where code runs: one folder per language with data and a shim, and the catalogue that reads them."""

from martlet.runtimes.catalogue import Catalogue, Runtime

__all__ = ["Catalogue", "Runtime"]
