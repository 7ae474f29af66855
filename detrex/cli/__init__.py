"""The command ``detrex``: find a backbone, describe one, check a config before it costs time.

::

    main.py            the command line, and which file answers which command
    arguments.py       what stands behind options
    backbones.py       search the catalog of architectures
    backbones_show.py  one architecture, or torchvision's nodes
    check.py           the mistakes of a config, and a dry run of its model
    data_card.py       the data sets of a config
    export.py          a detector or backbone as a file that other programs run
"""

from detrex.cli.main import main

__all__ = ["main"]
