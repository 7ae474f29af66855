"""``python -m detrex``: the command line of `detrex.cli`."""

from detrex.cli import main

if __name__ == "__main__":
    raise SystemExit(main())
