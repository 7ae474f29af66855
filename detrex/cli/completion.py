"""``detrex completion``: a shell's script that completes lines, and what it asks for then."""

import argparse
import os
from typing import Any

_EXAMPLES = """
detrex completion bash > ~/.local/share/bash-completion/completions/detrex
detrex completion zsh > ~/.zfunc/_detrex
detrex completion fish > ~/.config/fish/completions/detrex.fish
"""


def add_parser(commands: Any) -> None:
    """Add the command to the command line.

    Args:
        commands: argparse's subparsers.
    """
    parser = commands.add_parser(
        "completion",
        help="print a shell's script that completes command lines",
        description="Print a script by which a shell completes commands, options, configs and "
        'architectures. Try it in the running shell by `eval "$(detrex completion bash)"`.',
        examples=_EXAMPLES,
    )
    parser.add_argument("shell", choices=["bash", "zsh", "fish"])
    parser.set_defaults(run=run, parser=parser)


def run(arguments: argparse.Namespace) -> int:
    """Print the script.

    Args:
        arguments: as parsed.

    Returns:
        Exit status 0.
    """
    from argcomplete.shell_integration import shellcode

    print(shellcode(["detrex"], shell=arguments.shell))
    return 0


def complete(parser: argparse.ArgumentParser) -> None:
    """Answer the shell and end the process, where it was started for that.

    Args:
        parser: the whole command line's.
    """
    if "_ARGCOMPLETE" in os.environ:
        import argcomplete

        argcomplete.autocomplete(parser)


def complete_backbones(prefix: str, **_: Any) -> list[str]:
    """Give the architectures of the catalog whose names begin so.

    Args:
        prefix: what has been typed.
    """
    from detrex.catalog.table import read_catalog

    return [entry.name for entry in read_catalog().entries if entry.name.startswith(prefix)]
