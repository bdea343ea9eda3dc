"""Martlet: hand it a function, it answers HTTP requests with it in milliseconds."""

__version__ = "0.1.0"
