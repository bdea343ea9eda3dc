"""The Python that Martlet itself was installed with, without the packages of Martlet's environment."""

from __future__ import annotations

import sys
from pathlib import Path

INTERPRETER = Path(getattr(sys, "_base_executable", sys.executable))
"""What zygotes and install scripts run on: ``{interpreter}`` in a ``runtime.toml``."""
PREFIX = Path(sys.base_prefix)
"""The folder that it needs, which every sandbox shows."""
