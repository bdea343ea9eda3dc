"""Where code runs: one folder per language with data and a shim, and the catalogue that reads them.

``description`` is the schema of the data, ``places``, ``versions`` and ``discovery`` find the toolchains that it names,
and ``runtime`` is what comes of both.
"""

from martlet.runtimes.catalogue import Catalogue
from martlet.runtimes.discovery import Absent
from martlet.runtimes.interpreter import INTERPRETER
from martlet.runtimes.runtime import Runtime

__all__ = ["INTERPRETER", "Absent", "Catalogue", "Runtime"]
