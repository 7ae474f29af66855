"""``python -m detrex``: the command line of `detrex.cli`."""

import sys

from detrex.cli import main

if __name__ == "__main__":
    sys.exit(main())
