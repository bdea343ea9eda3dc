"""The command line, ``martlet``: one file per group of commands.

Commands import what they need when they run, so that ``martlet --help`` and ``martlet invoke`` are quick.
"""

from martlet.cli.app import main

__all__ = ["main"]
