"""The static runtime: an instance that serves the files of its package, and runs nothing of theirs.

Standard library only, and what Martlet's Python shim knows of HTTP.

    cell ─ site           which file a path means
      └── answer          conditional requests, ranges, HEAD ─ types
"""

import os
import sys

# The shim's package lies in the folder of the runtime `python`, beside this one's.
sys.path.insert(0, os.path.join(os.path.dirname(__file__), "..", "..", "python"))
from .cell import serve, warm

del sys.path[0]

__all__ = ["serve", "warm"]
