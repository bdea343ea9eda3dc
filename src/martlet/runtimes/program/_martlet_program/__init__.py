"""The warden: what stands in a cell for the program that serves a runtime's functions.

It lives the life of a cell, starts the program, gives it its specification and answers what that says of the code
(docs/design.md, "The program protocol"). Then it only waits for the program, or carries bytes to one that cannot take
connections itself. Standard library only, and what Martlet's Python shim knows of HTTP.

    warden ─ child        the program: its descriptors, its environment, its end
      │    └ answer       what it says of the code
      └── ways            how requests reach it
            ├── waiting       it takes the connections itself
            ├── relay         it listens elsewhere ─ port
            └── stdio         it serves over stdin and stdout ─ exchange, assignments
"""

import os
import sys

# The shim's package lies beside this one's folder, in the folder of all runtimes.
sys.path.insert(0, os.path.join(os.path.dirname(__file__), "..", "..", "python"))
from .warden import serve, warm

del sys.path[0]

__all__ = ["serve", "warm"]
