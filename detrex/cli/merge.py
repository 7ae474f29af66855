"""``detrex merge``: a checkpoint in parts as one file."""

import argparse
from typing import Any

_EXAMPLES = """
detrex merge output/model_0004999.dcp --output model.pth
detrex merge output/model_final.dcp --output shared/detector.pth
"""


def add_parser(commands: Any) -> None:
    """Add the command to the command line.

    Args:
        commands: argparse's subparsers.
    """
    parser = commands.add_parser(
        "merge",
        help="write a checkpoint in parts, of a run with train.fsdp, as one file",
        description="Write the checkpoint that the ranks of a run have written in parts as one "
        "file, with everything that it holds. No process group, no GPU and no config is needed, "
        "and no code in the folder is run.",
        examples=_EXAMPLES,
    )
    parser.add_argument("checkpoint", help="a folder, such as output/model_0004999.dcp")
    parser.add_argument("--output", required=True, metavar="FILE", help="a new .pth file")
    parser.set_defaults(run=run, parser=parser)


def run(arguments: argparse.Namespace) -> int:
    """Merge a checkpoint, and say what was written.

    Args:
        arguments: as parsed.

    Returns:
        Exit status 0.

    Raises:
        DetrexError: the folder is no checkpoint in parts or is damaged, or the file is there
            already or cannot be written.
    """
    from pathlib import Path

    import torch

    from detrex.checkpoint.digests import write_with_digest
    from detrex.checkpoint.reading.sharded_folders import is_sharded_folder, read_sharded
    from detrex.errors import CheckpointError
    from detrex.files import writing

    folder, file = Path(arguments.checkpoint), Path(arguments.output)
    if not is_sharded_folder(folder):
        raise CheckpointError(
            f"{folder} is no checkpoint in parts, expected a folder with a file .metadata, such as "
            "output/model_0004999.dcp: give the folder itself"
        )
    if file.exists() or file.is_dir():
        raise CheckpointError(f"{file} is there already: give --output a new name")
    content = read_sharded(folder)
    with writing(file):
        file.parent.mkdir(parents=True, exist_ok=True)
        write_with_digest(file, lambda stream: torch.save(content, stream))
    print(f"{file}  {file.stat().st_size / 2**20:.1f} MiB: {', '.join(sorted(content))}")
    return 0
