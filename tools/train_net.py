#!/usr/bin/env python
"""Train or evaluate a detector (``--help`` shows how); the loop itself is in ``detrex.engine``."""

import sys
from pathlib import Path

sys.path.append(str(Path(__file__).resolve().parents[1]))  # a checkout that is not installed

from detrex.quiet import quiet_libraries
from detrex.threads import prepare_threads

if __name__ == "__main__":  # before torch is imported
    prepare_threads()
    quiet_libraries()

from detrex.engine import run

if __name__ == "__main__":
    run()
