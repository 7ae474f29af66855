#!/usr/bin/env python
"""Train or evaluate a detector by Hydra's command line; `detrex.cli.hydra_train` shows how."""

import sys
from pathlib import Path

sys.path.append(str(Path(__file__).resolve().parents[1]))  # a checkout that is not installed

from detrex.cli.hydra_train import main
from detrex.errors import run_tool

if __name__ == "__main__":
    run_tool(main)
