"""``python -m martlet.cli``: the command line where the script ``martlet`` is not on the PATH."""

import sys

from martlet.cli import main

sys.exit(main())
