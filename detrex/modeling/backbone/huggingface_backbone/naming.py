"""Which network a user names, and its description: what ``config.json`` says of it."""

import contextlib
import json
import os
import reprlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

from detrex.checkpoint.download import fetch, is_address, shown
from detrex.checkpoint.reading.folders import LOCAL_FOLDER
from detrex.errors import BackboneError, CheckpointError, did_you_mean
from detrex.modeling.backbone.wrapper.library_builder import plain

CONFIG_FILE = "config.json"
HUB = "hf-hub:"
_OF_TIMM = ("timm_backbone", "timm_wrapper")
# Says how a network was kept or run, not what it is; code of others (auto_map) is never run.
NO_PART = (
    *("architectures", "auto_map", "dtype", "torch_dtype", "transformers_version"),
    *("_name_or_path", "out_features", "out_indices", "quantization_config", "return_dict"),
    *("output_hidden_states", "output_attentions", "id2label", "label2id", "num_labels"),
    *("_attn_implementation", "_attn_implementation_autoset", "problem_type"),
)


@dataclass(frozen=True)
class NamedNetwork:
    """A network that a user named.

    Attributes:
        name: as the user wrote it, or its type; for messages.
        description: of its network of images, as in ``config.json``.
        home: folder or address of the repository that holds its files; None for none.
    """

    name: str
    description: Mapping[str, Any]
    home: str | None = None

    @property
    def who(self) -> str:
        """What to call it."""
        return f"Hugging Face's {self.name!r}"


def import_transformers() -> ModuleType:
    """Import transformers, or say how to get it."""
    try:
        import transformers
    except ImportError as error:
        raise ImportError(
            "HuggingFaceBackbone needs transformers, which is not installed: "
            "pip install transformers"
        ) from error
    return transformers


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Let transformers say nothing and draw no bars; what matters is said here."""
    logging = import_transformers().utils.logging
    level, has_bars = logging.get_verbosity(), logging.is_progress_bar_enabled()
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        logging.set_verbosity(level)
        if has_bars:
            logging.enable_progress_bar()


def named_network(model_name: Any) -> NamedNetwork:
    """Find the network that a user names.

    Args:
        model_name: a repository of the hub (``"owner/name"`` or ``"owner/name@revision"``, with or
            without ``hf-hub:``), a folder, a type of transformers (``"swin"``), or a config of one:
            a ``PretrainedConfig``, or a mapping with ``model_type``.

    Returns:
        Its description. Of a network of images and text it is that of the images.

    Raises:
        ImportError: transformers is not installed.
        TypeError: the name is of no kind known.
        BackboneError: there is no such type, or no such folder.
        CheckpointError: its description is damaged or is not transformers'.
        DownloadError: it cannot be fetched.
    """
    transformers = import_transformers()
    given = plain(model_name)
    if isinstance(given, transformers.PretrainedConfig):
        home = str(getattr(given, "name_or_path", "") or "")
        return _described(given.model_type, given.to_dict(), _home(home) if home else None)
    if isinstance(given, Mapping):
        return _described(str(given.get("model_type")), given, None)
    if not isinstance(given, str | os.PathLike) or not os.fspath(given):
        got = " ".join(reprlib.repr(given).split())
        raise TypeError(
            "model_name must be a repository such as 'facebook/dinov2-small', a folder, a type "
            f"such as 'swin' or a config of transformers, got {got}."
        )
    name = os.fspath(given)
    if name in transformers.CONFIG_MAPPING:
        return _described(name, {"model_type": name}, None)
    found = _home(name)
    if found is None:
        raise BackboneError(
            f"there is no folder {name!r}, and transformers has no type of that name: give a "
            "repository such as 'facebook/dinov2-small', a folder, or a type such as 'swin'."
            f"{did_you_mean(name, list(transformers.CONFIG_MAPPING.keys()))}"
        )
    return _described(name, read_description(found, CONFIG_FILE), found)


def read_description(home: str, file: str) -> dict[str, Any]:
    """Read a description beside a network's weights, fetching it where it is on the hub.

    Args:
        home: of a `NamedNetwork`.
        file: its name there.

    Raises:
        CheckpointError: it is not in the folder, or is no JSON of a mapping.
        DownloadError: it cannot be fetched.
    """
    where = f"{home}/{file}"
    path = fetch(where) if is_address(where) else Path(where)
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise CheckpointError(
            f"{shown(where)} cannot be read ({error.strerror}): name a folder that save_pretrained "
            "of transformers wrote, with config.json in it."
        ) from error
    except (ValueError, RecursionError) as error:
        raise CheckpointError(
            f"{shown(where)} is no JSON ({str(error)[:80]}): copy it again."
        ) from error
    if not isinstance(content, dict):
        raise CheckpointError(
            f"{shown(where)} holds a {type(content).__name__}, expected a mapping: copy it again."
        )
    return content


def _home(name: str) -> str | None:
    """Folder or address of a repository; None for a text that can be neither."""
    folder = os.path.expanduser(name.removeprefix(LOCAL_FOLDER))
    if os.path.isdir(folder):
        return folder
    if is_address(name):
        return name
    owner, slash, rest = name.partition("/")
    is_repository = slash and owner and rest and "/" not in rest and owner[0] not in ".~"
    return f"{HUB}{name}" if is_repository and LOCAL_FOLDER not in name else None


def _described(name: str, content: Mapping[str, Any], home: str | None) -> NamedNetwork:
    """Take from a config what describes its network of images."""
    mapping = import_transformers().CONFIG_MAPPING
    kind = content.get("model_type")
    if kind is None and {"architecture", "pretrained_cfg"} & content.keys():
        where = home if home is None or is_address(home) else f"{LOCAL_FOLDER}{home}"
        how = "" if where is None else f"({where!r})"
        raise BackboneError(f"{name!r} is a network of timm: use TimmBackbone{how}.")
    if not isinstance(kind, str) or kind not in mapping:
        hint = did_you_mean(kind, list(mapping.keys())) if isinstance(kind, str) else ""
        raise BackboneError(
            f"the config of {name!r} has the model_type {kind!r}, which this transformers does not "
            f"have: choose another network, or a newer transformers.{hint}"
        )
    whole = dict(content)
    parts = getattr(mapping[kind], "sub_configs", {})  # of a few types it is a property
    if whole.get("vision_config") or (isinstance(parts, Mapping) and "vision_config" in parts):
        whole = made_config(repr(name), whole).vision_config.to_dict()
    if whole["model_type"] in _OF_TIMM:
        raise BackboneError(f"Hugging Face's {name!r} is a network of timm: use TimmBackbone.")
    return NamedNetwork(name, {k: v for k, v in whole.items() if k not in NO_PART}, home)


def made_config(who: str, description: Mapping[str, Any]) -> Any:
    """Make transformers' config of a description.

    Args:
        who: what to call the network, for the message.
        description: as in ``config.json``.

    Raises:
        BackboneError: a value that it refuses.
    """
    kind = import_transformers().CONFIG_MAPPING[description["model_type"]]
    try:
        with quiet():
            return kind.from_dict(dict(description))
    except Exception as error:  # each config checks its values in its own way
        reason = " ".join(f"{type(error).__name__}: {error}".split())[:240]
        raise BackboneError(
            f"transformers makes no config of {who} from what is given ({reason}): correct that "
            "value."
        ) from error
