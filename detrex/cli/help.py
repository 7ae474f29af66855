"""Parsers of the command line: coloured help on a terminal, and mistakes in one sentence."""

import argparse
import re
import shutil
import textwrap
from collections.abc import Iterable, Sequence
from typing import Any, NoReturn

from rich_argparse import RawDescriptionRichHelpFormatter

from detrex.errors import did_you_mean, printable

_CHOICE = re.compile(r"invalid choice: '?(.*?)'? \(choose from (.*)\)$")


class HelpFormatter(RawDescriptionRichHelpFormatter):
    """Help whose examples keep their lines and brackets."""

    text_markup = False
    help_markup = False
    group_name_formatter = str.lower

    def __init__(self, prog: str, max_help_position: int = 32, **options: Any) -> None:
        super().__init__(prog, max_help_position=max_help_position, **options)

    def add_argument(self, action: argparse.Action) -> None:
        """Make room for an action in the column of names; argparse forgets how far commands are in.

        Args:
            action: of the parser.
        """
        super().add_argument(action)
        if action.nargs == argparse.PARSER:
            self._action_max_length += self._indent_increment


class Parser(argparse.ArgumentParser):
    """A parser whose help ends with examples, and that refuses in one sentence.

    Args:
        examples: command lines that work, one a line; shown at the end of the help.
        **options: of argparse's parser.
    """

    def __init__(self, *, examples: str = "", **options: Any) -> None:
        if examples:
            lines = examples.strip().splitlines()
            options["epilog"] = "\n".join(["examples:", *(f"  {line}" for line in lines)])
        if text := options.get("description"):
            width = shutil.get_terminal_size().columns - 2
            options["description"] = textwrap.fill(text, width, break_on_hyphens=False)
        super().__init__(**{**options, "formatter_class": HelpFormatter})

    @property
    def examples(self) -> list[str]:
        """Command lines of the help's end; a backslash continues one."""
        text = (self.epilog or "").partition("examples:\n")[2].replace("\\\n", " ")
        lines = (line.partition("  #")[0].strip() for line in text.splitlines())
        return [line for line in lines if line.startswith("detrex ")]

    @property
    def option_strings(self) -> list[str]:
        """All options, such as ``"--json"``."""
        return [text for action in self._actions for text in action.option_strings]

    def add_subparsers(self, **options: Any) -> Any:
        """Add commands, whose names stand behind this parser's; see argparse.

        Args:
            options: argparse's. It would ask rich for `prog`, which takes long to import.
        """
        return super().add_subparsers(**{"prog": self.prog, **options})

    def error(self, message: str) -> NoReturn:
        """End the process with status 2, and say why in one sentence.

        Args:
            message: what was wrong.
        """
        command = self.prog.partition(" ")[2]
        if choice := _CHOICE.search(message):
            hint = did_you_mean(choice[1], re.findall(r"[^\s',]+", choice[2]))
            message += hint and f".{hint}"
        sentence = printable(f"{command}: {message}" if command else message)
        end = "" if sentence.endswith(("?", ".")) else ";"
        self.exit(2, f"detrex: {sentence}{end} `{self.prog} --help` shows how.\n")

    def refuse_empty(self, words: Sequence[str]) -> None:
        """Refuse a word that is empty, which would count as not given, or as the folder one is in.

        Args:
            words: of the command line.
        """
        for before, word in zip(["", *words], words, strict=False):
            option = word.removesuffix("=") if word.endswith("=") else ""
            if not word.strip() or option in self.option_strings:
                name = option or (before if before.startswith("-") else "an argument")
                self.error(
                    f"{name} is empty, as a variable of a shell is that was never set: give a "
                    "value, or leave it out"
                )

    def refuse_unknown(self, words: Sequence[str]) -> NoReturn:
        """Refuse what no option or argument takes.

        Args:
            words: of the command line; near options are suggested for the first that is one.
        """
        option = next((word for word in words if word.startswith("-")), "")
        hint = did_you_mean(option.partition("=")[0], self.option_strings) if option else ""
        self.error(f"nothing takes {' '.join(words)}{hint and '.' + hint}")


def require_known(parser: Parser, name: str, choices: Iterable[str]) -> None:
    """Refuse the name of a command that is not there.

    Args:
        parser: whose commands.
        name: as given.
        choices: the commands.
    """
    choices = list(choices)
    if name not in choices:
        hint = did_you_mean(name, choices) or f" There are {', '.join(choices)}."
        parser.error(f"there is no command {name[:100]!r}.{hint}")
