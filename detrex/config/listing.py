"""The configs that come with the package: where they are, what they train, how they are named.

What they say of themselves is read from the docstrings at their heads; nothing is imported or run.
"""

import ast
import os
import re
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from importlib import resources
from pathlib import Path

from detrex.errors import ConfigError, did_you_mean, printable

SUFFIXES = (".py", ".yaml", ".yml")
"""How the names of configs end."""

_NOT_RUN = {"common", "models"}  # folders of parts
_ENTRY = re.compile(r"^(\w+|\w+ AP):[ ]+(.*(?:\n[ ]{4,}.*)*)", re.MULTILINE)
_NUMBER = re.compile(r"(\d+(?:\.\d+)?) on ")
_PUBLISHER = re.compile(r"published by (.*?)(?:;|$)")


@dataclass(frozen=True)
class ConfigCard:
    """What a config of the package says of itself.

    Attributes:
        name: its place among the configs, such as ``"dino/dino_r50_4scale_12ep.py"``.
        path: the file.
        summary: the first sentence of its docstring.
        detector: such as ``"DINO, 4 scales"``.
        backbone: such as ``"ResNet-50"``.
        paper: titles and numbers of arXiv.
        command: the line, or lines, that train it.
        hardware: what that needs.
        box_ap: published AP of boxes on COCO val2017 in percent; None where there is none.
        mask_ap: that of masks.
        trained: who published the AP; ``""`` where there is none.
        remark: what the header says of the AP, such as ``"not trained here"``.
        docstring: all of it.
    """

    name: str
    path: Path
    summary: str = ""
    detector: str = ""
    backbone: str = ""
    paper: str = ""
    command: str = ""
    hardware: str = ""
    box_ap: float | None = None
    mask_ap: float | None = None
    trained: str = ""
    remark: str = ""
    docstring: str = field(default="", repr=False)


def configs_root() -> Path:
    """Where the package's own configs lie.

    Returns:
        ``detrex/config/configs`` of an installed wheel, else ``configs/`` beside the package in a
        checkout.

    Raises:
        ConfigError: if neither folder exists.
    """
    packaged = Path(str(resources.files("detrex.config"))) / "configs"
    checkout = Path(str(resources.files("detrex"))).parent / "configs"
    for folder in (packaged, checkout):
        if (folder / "common").is_dir():
            return folder
    raise ConfigError(
        f"The configs of detrex are neither at {packaged} nor at {checkout}: "
        "reinstall the package with `pip install .` from its checkout."
    )


def config_names() -> list[str]:
    """Name the configs of the package that can be trained.

    Returns:
        Their places among the configs, sorted; parts such as ``common/train.py`` are left out.
    """
    root = configs_root()
    places = (path.relative_to(root) for path in root.rglob("*.py"))
    return sorted(
        place.as_posix()
        for place in places
        if not _NOT_RUN & set(place.parts) and not place.name.startswith("_")
    )


def list_configs(pattern: str = "") -> list[ConfigCard]:
    """Describe the configs of the package that can be trained.

    Args:
        pattern: part of a name, a detector or a backbone, or a pattern such as ``"dino/*swin*"``,
            in small or capital letters; all of them by default.

    Returns:
        What each says of itself, sorted by name.
    """
    cards = [read_card(name) for name in config_names()]
    return [card for card in cards if _fits(card, pattern.lower())]


def _fits(card: ConfigCard, pattern: str) -> bool:
    texts = [text.lower() for text in (card.name, card.detector, card.backbone)]
    return any(pattern in text or fnmatchcase(text, pattern) for text in texts)


def read_card(name: str) -> ConfigCard:
    """Read what a config of the package says of itself.

    Args:
        name: its place among the configs.
    """
    path = configs_root() / name
    docstring = ast.get_docstring(ast.parse(path.read_text(encoding="utf-8"))) or ""
    entries: dict[str, str] = {key: text.strip() for key, text in _ENTRY.findall(docstring)}
    remark = " ".join(entries.get("box AP", "").split())
    box_ap = _number(remark)
    publisher = _PUBLISHER.search(remark)
    return ConfigCard(
        name,
        path,
        summary=" ".join(docstring.partition("\n\n")[0].split()),
        detector=entries.get("detector", ""),
        backbone=entries.get("backbone", ""),
        paper=entries.get("paper", ""),
        command=entries.get("command", ""),
        hardware=entries.get("hardware", ""),
        box_ap=box_ap,
        mask_ap=_number(entries.get("mask AP", "")),
        trained=publisher[1] if publisher and box_ap is not None else "",
        remark=remark,
        docstring=docstring,
    )


def _number(said: str) -> float | None:
    found = _NUMBER.match(said)
    return float(found[1]) if found else None


def find_config(name: str | os.PathLike[str]) -> Path:
    """Find a config by its path, or by its place among those of the package.

    Args:
        name: a file, such as ``"my_config.py"``, which goes first; or a config of the package, such
            as ``"dino/dino_r50_4scale_12ep.py"``, or the last part of one that no other has. The
            end ``.py`` may be left out, and a ``configs/`` before it is allowed.

    Returns:
        The file.

    Raises:
        ConfigError: there is none; near names are suggested. Or several of the package have that
            last part.
    """
    text = os.fspath(name)
    for suffix in ("", *SUFFIXES):
        if os.path.isfile(path := Path(f"{text}{suffix}")):
            return path
    inside = text and not Path(text).is_absolute()
    if inside and (found := _of_package(Path(text).as_posix().removeprefix("configs/"))):
        return found
    raise ConfigError(_absent(text))


def _of_package(place: str) -> Path | None:
    root = configs_root()
    for path in (root / place, root / f"{place}.py"):
        if ".." not in path.parts and os.path.isfile(path):
            return path
    last = [
        name for name in config_names() if "/" not in place and Path(name).stem == Path(place).stem
    ]
    if len(last) > 1:
        raise ConfigError(
            f"{printable(place)} names {len(last)} configs of the package: give one of "
            f"{' and '.join(last)}."
        )
    return root / last[0] if last else None


def _absent(text: str) -> str:
    """One sentence on a config that is not there, with names that are near."""
    shown = printable(text if len(text) <= 150 else f"...{text[-150:]}")
    path = Path(text)
    if os.path.isdir(path):
        return f"Config {shown or repr(text)} is a folder: name a .py or .yaml file in it."
    if not path.suffix and os.path.isfile(project := path.parent / "config.py"):
        train = f"detrex train {printable(str(project))}"
        return f"{shown} does not exist: `{train}` has to write it first."
    if "=" in path.name:
        return f"{shown} stands where the config is named: put it behind a config's name."
    try:
        beside = [p.name for p in path.parent.glob("*.[py]*") if os.path.isfile(p)]
    except (OSError, ValueError):
        beside = []
    names = config_names()
    near = did_you_mean(path.name, beside) if path.parent != Path() or path.suffix else ""
    near = near or did_you_mean(text.removeprefix("configs/"), [*names, *(n[:-3] for n in names)])
    near = near or did_you_mean(path.stem, [Path(n).stem for n in names])
    listed = " `detrex train --list` shows those of the package."
    return f"Config file {shown} does not exist.{near or listed}"
