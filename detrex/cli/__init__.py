"""The command ``detrex``: find a backbone, look at one, check a config before it costs time.

::

    main.py         the command line, and which file answers which command
    backbones.py    search the catalogue
    catalogue.py    the table that is searched; it imports nothing heavy
    show.py         one architecture, or torchvision's nodes, looked at afresh
    rebuild.py      make the table anew from the libraries that are installed
    check.py        a dry run of a config
"""

from detrex.cli.main import main

__all__ = ["main"]
