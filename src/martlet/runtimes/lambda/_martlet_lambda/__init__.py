"""The Lambda runtime: serves AWS Lambda's Runtime API (2018-06-01) to a program that was written for it.

The program runs in the sandbox beside this process and asks it over the loopback for invocations; to the platform this
process is an instance like any other. Standard library only, and what Martlet's Python shim knows of HTTP.

    cell ─ program        which program, and its environment
      ├── output          what the program prints
      ├── runtime_api     what the program asks ─ invocation
      └── front           what clients ask ─ event, reply
"""

import os
import sys

# The shim's package lies in the folder of the runtime `python`, beside this one's.
sys.path.insert(0, os.path.join(os.path.dirname(__file__), "..", "..", "python"))
from .cell import serve, warm

del sys.path[0]

__all__ = ["serve", "warm"]
