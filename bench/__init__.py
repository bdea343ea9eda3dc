"""Measures what SPECIFICATION.md promises. Run with ``make bench``, or ``python -m bench --quick``."""
