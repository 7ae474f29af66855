"""Loading detectron2's lazy configs so that a failure names its cause and leaves nothing behind."""

import builtins
import os
import re
from collections.abc import Sequence
from importlib import resources
from pathlib import Path
from typing import Any

from detectron2.config import LazyConfig
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import ConfigTypeError, OmegaConfBaseException

from detrex.config.listing import configs_root
from detrex.config.safe_yaml import read_yaml
from detrex.errors import ConfigError, did_you_mean

_ABSENT_FILE = re.compile(r": (.+\.py) does not exist")


def load_config(path: str | os.PathLike[str], trusted: Sequence[str] = ()) -> DictConfig:
    """Load a lazy config file, as ``LazyConfig.load`` does.

    A config that fails inside detectron2's loader leaves Python's ``import`` patched for the rest
    of the process; here it is restored whatever happens.

    Args:
        path: a ``.py`` file, which is run, or a ``.yaml`` one such as a run saves, which is read as
            data; see `detrex.config.safe_yaml`.
        trusted: packages that a ``.yaml`` file may call beside those of `detrex.config.trust`.

    Returns:
        The config objects that the file defines, by name.

    Raises:
        ConfigError: if the file, or one that it imports, does not exist or fails to run; the cause
            is chained. Of a YAML file also, if it would run code or is too large.
    """
    path = Path(path)
    if not os.path.isfile(path):
        raise ConfigError(_absent(path))
    if path.suffix in (".yaml", ".yml"):
        return _as_config(read_yaml(path, trusted), path)
    if path.suffix != ".py":
        raise ConfigError(
            f"Config {_shown(path)} is no .py or .yaml file: name one, or a run's folder, and a "
            "checkpoint by --weights or train.init_checkpoint."
        )
    original_import = builtins.__import__
    try:
        return LazyConfig.load(str(path))
    except ConfigError:
        raise
    except (Exception, SystemExit) as error:
        absent = _ABSENT_FILE.search(str(error))
        reason = _absent(Path(absent.group(1))) if absent else _one_line(error)
        raise ConfigError(f"Config {_shown(path)} cannot be loaded. {reason}") from error
    finally:
        builtins.__import__ = original_import


def _as_config(content: dict[str, Any], path: Path) -> DictConfig:
    try:
        return OmegaConf.create(content, flags={"allow_objects": True})
    except (OmegaConfBaseException, RecursionError) as error:
        raise ConfigError(f"Config {_shown(path)} cannot be loaded. {_one_line(error)}") from error


def get_config(config_path: str) -> DictConfig:
    """Load one of the configs that come with the package, from wherever it is installed.

    Args:
        config_path: relative to the configs' root, such as ``"common/train.py"``.

    Returns:
        A fresh copy of the config, yours to edit.

    Raises:
        ConfigError: if there is no such config, with near names, or if it fails to load.

    Example:
        >>> get_config("common/train.py").train.max_iter
        90000
    """
    return _load_from(configs_root(), config_path, "detrex")


def get_detectron2_config(config_path: str) -> DictConfig:
    """Load one of the lazy configs that come with detectron2.

    Unlike ``detectron2.model_zoo.get_config`` it does not import ``detectron2.model_zoo``, which
    needs setuptools older than 82.

    Args:
        config_path: relative to the root of detectron2's configs, such as
            ``"common/models/mask_rcnn_fpn.py"``.

    Returns:
        A fresh copy of the config, yours to edit.

    Raises:
        ConfigError: if there is no such lazy config, with near names, or if it fails to load.

    Example:
        >>> get_detectron2_config("common/models/mask_rcnn_fpn.py").model.input_format
        'BGR'
    """
    root = Path(str(resources.files("detectron2"))) / "model_zoo" / "configs"
    return _load_from(root, config_path, "detectron2")


def _load_from(root: Path, config_path: str, owner: str) -> DictConfig:
    path = root / config_path
    if not path.is_file():
        available = [found.relative_to(root).as_posix() for found in sorted(root.rglob("*.py"))]
        hint = did_you_mean(config_path, available)
        raise ConfigError(
            f"{config_path!r} is not available in {owner} configs."
            f"{hint or f' There are {len(available)}, such as ' + ', '.join(available[:5]) + '.'}"
        )
    return load_config(path)


def try_get_key(cfg: Any, *keys: str, default: Any = None) -> Any:
    """Look a value up under the first of several dotted names that the config has.

    Args:
        cfg: a config or a part of one.
        keys: dotted names, e.g. ``"train.output_dir"``, tried in turn.
        default: what to return where none of them is there.

    Returns:
        The value, which is None where the config says None.
    """
    absent = object()
    for key in keys:
        try:
            value = OmegaConf.select(cfg, key, default=absent)
        except ConfigTypeError:  # a name under a list, which has none
            continue
        if value is not absent:
            return value
    return default


def require_keys(cfg: Any, *keys: str) -> None:
    """Check that a program's config has the parts that the program needs.

    Args:
        cfg: a config.
        keys: dotted names, e.g. ``"dataloader.train.dataset"``.

    Raises:
        ConfigError: some are missing or null; it names them all.
    """
    missing = [repr(key) for key in keys if try_get_key(cfg, key) is None]
    if missing:
        raise ConfigError(
            f"the config has no {', '.join(missing)}, which this program needs: name a config that "
            "has it, or import it from the common ones."
        )


def _one_line(error: BaseException) -> str:
    line = error.__cause__ if isinstance(error, SyntaxError) else None  # which detectron2 omits
    text = " ".join(f"{type(error).__name__}: {error} {line or ''}".split())
    text = text.encode("utf-8", "backslashreplace").decode()
    if isinstance(error, RecursionError):
        text += " (do two configs import each other?)"
    return text if len(text) <= 300 else text[:297] + "..."


def _shown(path: Path) -> str:
    """A path for a message: of a long one the end, and nothing that cannot be printed."""
    text = str(path) if str(path).isprintable() else ascii(str(path))
    return text if len(text) <= 150 else f"...{text[-150:]}"


def _absent(path: Path) -> str:
    """One sentence on a config file that is not there, with the names nearby that are."""
    name = _shown(path)
    try:
        path.stat()
        return f"Config {name} is no regular file: name a .py or .yaml file."
    except (FileNotFoundError, NotADirectoryError):
        if not path.parent.is_dir():
            return f"Config file {name} does not exist, nor does its folder."
    except (OSError, ValueError) as error:
        return f"Config {name} cannot be read: {getattr(error, 'strerror', None) or error}."
    names = [found.name for found in path.parent.glob("*.[py]*") if os.path.isfile(found)]
    return f"Config file {name} does not exist.{did_you_mean(path.name, names)}"
