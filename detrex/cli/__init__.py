"""The command ``detrex``: each command is a file of its own, and says what it does by ``--help``.

::

    main.py        the command line, and which file answers which command
    help.py        its parsers: help, and bad usage in one sentence
    terminal.py    tables and progress
    completion.py  what a shell asks for when it completes a line
    arguments.py   what stands behind options
"""

from detrex.cli.main import main

__all__ = ["main"]
