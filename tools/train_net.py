#!/usr/bin/env python
"""Train or evaluate a detector (``--help`` shows how); the loop itself is in ``detrex.engine``."""

import sys
import warnings
from pathlib import Path

sys.path.append(str(Path(__file__).resolve().parents[1]))  # a checkout that is not installed

from detrex.threads import prepare_threads

if __name__ == "__main__":
    prepare_threads()  # before torch is imported, which reads them once

if __name__ in ("__main__", "__mp_main__"):  # the second in the processes of --num-gpus
    # fvcore remarks on PyTorch's plans when it is imported.
    warnings.filterwarnings("ignore", "`torch.jit", FutureWarning)

from detrex.engine import run

if __name__ == "__main__":
    run()
