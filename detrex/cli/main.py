"""The command line: ``detrex COMMAND ...``, also as ``python -m detrex``."""

import argparse
import errno
import os
import sys
import warnings
from collections.abc import Sequence

from detrex.cli import backbones, check, export, merge
from detrex.errors import DetrexError
from detrex.threads import prepare_threads

_EXAMPLES = """examples:
  detrex backbones --strides 8,16,32 --max-params 40M --sort gflops
  detrex backbones 'vit_*dinov3*'
  detrex backbones show convnext_tiny
  detrex backbones nodes resnet50
  detrex check configs/dino/dino_r50_4scale_12ep.py train.max_iter=1000
  detrex export configs/dino/dino_r50_4scale_12ep.py --weights model.pth --output dino.onnx
  detrex merge output/model_0004999.dcp --output model.pth
"""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command.

    Args:
        arguments: words of the command line; those of the process by default.

    Returns:
        Exit status: 0, or 1 for a mistake of the user's, told in one sentence. Bad usage ends the
        process with 2, as argparse does.
    """
    prepare_threads()  # before a command imports torch
    parser = argparse.ArgumentParser(
        prog="detrex",
        description="Find backbones for detectors, check configs before they cost time, and bring "
        "detectors to other programs.",
        epilog=_EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    backbones.add_parser(commands)
    check.add_parser(commands)
    export.add_parser(commands)
    merge.add_parser(commands)
    parsed, further = parser.parse_known_args(arguments)
    if further and hasattr(parsed, "overrides") and not any(w.startswith("-") for w in further):
        parsed.overrides += further  # key=value after an option
    elif further:
        parser.error(f"unrecognized arguments: {' '.join(further)}")
    # detectron2 and timm remark on PyTorch's plans when they are imported.
    warnings.filterwarnings("ignore", category=FutureWarning)
    try:
        status: int = parsed.run(parsed)
        if sys.stdout is not None:  # as it is where a shell's `>&-` has closed it
            sys.stdout.flush()
    except DetrexError as error:
        print(f"detrex: {error}", file=sys.stderr)
        return 1
    except BrokenPipeError:  # the reader, such as `head`, has seen enough
        _drop_output()
        return 0
    except OSError as error:
        if error.errno not in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
            raise
        _drop_output()
        where = error.filename or "the standard output"
        print(f"detrex: {where} cannot be written ({error.strerror}): make room", file=sys.stderr)
        return 1
    return status


def _drop_output() -> None:
    """Forget what the standard output still holds: the interpreter would try to write it."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
