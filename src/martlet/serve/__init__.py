"""The composition root: what runs in which process, wired by hand."""

from martlet.serve.supervisor import serve

__all__ = ["serve"]
