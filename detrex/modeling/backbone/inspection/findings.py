"""What was found of networks, kept in this process and in detrex's cache folder.

Only networks of a library itself are kept, under everything that could change what is found of
them: the library's version, the keywords, and the code of this package that looks. A file that is
damaged, or that cannot be written, costs no more than the time to look again.
"""

import dataclasses
import functools
import hashlib
import json
import logging
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

import torch

from detrex.files import keep, read_kept, stamp
from detrex.modeling.backbone.features.coverage import Coverage
from detrex.modeling.backbone.features.feature_info import FeatureInfo
from detrex.modeling.backbone.features.input_size import InputSize
from detrex.modeling.backbone.features.network_spec import NetworkSpec
from detrex.modeling.pixel_statistics import PixelStatistics

from .stages import Stage

logger = logging.getLogger(__name__)
T = TypeVar("T")

_CLASSES: dict[str, type] = {
    kind.__name__: kind
    for kind in (Coverage, FeatureInfo, InputSize, NetworkSpec, PixelStatistics, Stage)
}
_FOLDER = "networks"
_KEPT: dict[tuple[Any, str], Any] = {}


@dataclasses.dataclass(frozen=True)
class NetworkKey:
    """A network that is the same whenever it is built.

    Attributes:
        builder: the library's function that builds it.
        text: what it is built with, and whatever else matters.
    """

    builder: Callable[..., Any]
    text: str

    @classmethod
    def of(
        cls, builder: Callable[..., Any], name: str, keywords: Mapping[str, Any]
    ) -> "NetworkKey | None":
        """Give the key of a network.

        Args:
            builder: function that builds it.
            name: which of those that the function builds.
            keywords: what it is built with.

        Returns:
            None where it could be another one next time: a function of a user's, or a keyword that
            holds a class, a function or another object.
        """
        library = builder.__module__.partition(".")[0]
        if library not in ("timm", "torchvision", "transformers"):
            return None
        try:
            plain = _frozen_value(dict(keywords))
        except TypeError:
            return None
        file = Path(str(sys.modules[builder.__module__].__file__))
        version = sys.modules[library].__version__
        return cls(builder, repr((name, plain, library, version, stamp(file))))

    def __truediv__(self, detail: object) -> "NetworkKey":
        """Give the key of something that depends on a further detail, told by its ``repr``."""
        return NetworkKey(self.builder, f"{self.text}/{detail!r}")


def recall(key: NetworkKey | None, find: Callable[[], T]) -> T:
    """Give what was found of a network, or find it.

    Args:
        key: of the network and of what is to be found; None for what must not be kept.
        find: finds it: dataclasses of this package in tuples, and plain values.

    Returns:
        What `find` gives, or gave before.
    """
    if key is None:
        return find()
    kept = key.builder, key.text
    if kept not in _KEPT:
        text = f"{key.text} {_code()}"
        found = _read(text)
        if found is None:
            found = find()
            _write(text, found)
        _KEPT[kept] = found
    return _KEPT[kept]


@functools.cache
def _code() -> str:
    """Version of torch, and a digest of what changes with the code of the backbones."""
    files = sorted(Path(__file__).resolve().parents[1].rglob("*.py"))
    stamps = repr([*map(stamp, files)])
    return f"torch {torch.__version__}, {hashlib.sha256(stamps.encode()).hexdigest()[:16]}"


def _read(text: str) -> Any:
    kept = read_kept(_FOLDER, text)
    if not kept:
        return None
    try:
        content = json.loads(kept)
        return _decoded(content["found"]) if content["of"] == text else None
    except (RecursionError, ValueError, LookupError, TypeError, AttributeError) as error:
        logger.debug("a finding is read as nothing (%s: %s)", type(error).__name__, error)
        return None


def _write(text: str, found: Any) -> None:
    keep(_FOLDER, text, json.dumps({"of": text, "found": _encoded(found)}))


def _encoded(value: Any) -> Any:
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        fields = {f.name: _encoded(getattr(value, f.name)) for f in dataclasses.fields(value)}
        return {"class": type(value).__name__, "fields": fields}
    if isinstance(value, Mapping):
        return {"mapping": {name: _encoded(item) for name, item in value.items()}}
    return [_encoded(item) for item in value] if isinstance(value, tuple | list) else value


def _decoded(value: Any) -> Any:
    if isinstance(value, list):
        return tuple(_decoded(item) for item in value)
    if not isinstance(value, dict):
        return value
    if "mapping" in value:
        return {name: _decoded(item) for name, item in value["mapping"].items()}
    return _CLASSES[value["class"]](**{n: _decoded(v) for n, v in value["fields"].items()})


def _frozen_value(value: Any) -> Any:
    """A value whose ``repr`` is equal for equal plain values of one type only."""
    if value is None or type(value) in (bool, int, float, str):
        return value
    if isinstance(value, Mapping):
        return {name: _frozen_value(value[name]) for name in sorted(value)}
    if isinstance(value, Sequence):
        return type(value).__name__, *map(_frozen_value, value)
    raise TypeError(f"{type(value).__name__} is no plain value")
