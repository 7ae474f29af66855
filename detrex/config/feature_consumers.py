"""The parts of a detector's config that name the maps which its backbone gives.

They are found by how detectron2 writes them: lists ``*in_features``, with the pooler, the anchors
and the head's shapes beside them that have an entry for each map, and dicts ``input_shape``.
"""

import dataclasses
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from detectron2.layers import ShapeSpec
from omegaconf import DictConfig, ListConfig, OmegaConf

from detrex.config.backbone_node import Shapes, names_by_stride, stride_of_name
from detrex.config.lint import walk
from detrex.errors import ConfigError

_NAMES = "in_features"
_SHAPES = ("input_shape", "input_shapes")
_PER_MAP = ("sizes", "aspect_ratios", "angles")


@dataclasses.dataclass(frozen=True)
class Renaming:
    """How the maps of an old backbone are called in a new one.

    Attributes:
        old: the old backbone's maps.
        new: the new backbone's.
        names: old name to new name; None for a stride that the new one does not give.
    """

    old: Shapes
    new: Shapes
    names: Mapping[str, str | None]

    @classmethod
    def by_stride(cls, old: Shapes, new: Shapes) -> "Renaming":
        """Pair maps of one stride; a single map is paired with the coarsest where there is none."""
        there = names_by_stride(new)
        names = {name: there.get(shape.stride) for name, shape in old.items()}
        if len(old) == 1 and not any(names.values()):
            names = dict.fromkeys(old, there[max(there)])
        return cls(old, new, names)

    @property
    def changes_nothing(self) -> bool:
        """Whether every map keeps its name, stride and channels."""
        return all(
            name == new and self.old[name] == self.new[new]
            for name, new in self.names.items()
            if new
        ) and all(self.names.values())


def used_maps(model: DictConfig, skipped: str, names: Mapping[str, Any]) -> list[str]:
    """List the maps of a backbone that the rest of a detector names.

    Args:
        model: the detector's config.
        skipped: dotted name of the part that is the backbone itself.
        names: the backbone's maps.

    Returns:
        The names in use, in the order of `names`.
    """
    used: set[str] = set()
    for node in _rest(model, skipped):
        for key in node:
            used.update(_named(node, key, names))
    return [name for name in names if name in used]


def guessed_maps(model: DictConfig, skipped: str) -> Shapes:
    """Tell the maps of a backbone that cannot be built from the names that the detector has.

    Args:
        model: the detector's config.
        skipped: dotted name of the part that is the backbone itself.

    Returns:
        The maps whose names are detectron2's, such as ``res4``, with their strides alone.
    """
    names = {
        str(name): stride
        for node in _rest(model, skipped)
        for key in map(str, node)
        if key.endswith(_NAMES) and not OmegaConf.is_interpolation(node, key)
        for name in (node[key] if isinstance(node[key], ListConfig) else ())
        if (stride := stride_of_name(str(name))) is not None
    }
    return {name: ShapeSpec(stride=stride) for name, stride in names.items()}


def rename_maps(model: DictConfig, skipped: str, renaming: Renaming) -> None:
    """Let a detector take the maps of another backbone.

    Args:
        model: its config, changed in place.
        skipped: dotted name of the part that is the backbone itself.
        renaming: old and new maps.

    Raises:
        ConfigError: a part is left without any map.
    """
    if renaming.changes_nothing:
        return
    for node in list(_rest(model, skipped)):
        for key in list(node):
            if not _named(node, key, renaming.old):
                continue
            value = node[key]
            if isinstance(value, str):
                node[key] = _required(node, key, [value], renaming)[0][1]
            elif isinstance(value, DictConfig):
                node[key] = _renamed_shapes(value, renaming)
            else:
                kept = _required(node, key, list(value), renaming)
                _follow(node, str(key), len(value), kept, renaming)
                node[key] = [name for _, name in kept]


def _rest(model: DictConfig, skipped: str) -> Iterator[DictConfig]:
    for path, node in walk(model, references=False):
        is_backbone = path == skipped or path.startswith((f"{skipped}.", f"{skipped}["))
        if isinstance(node, DictConfig) and not is_backbone:
            yield node


def _named(node: DictConfig, key: Any, names: Mapping[str, Any]) -> list[str]:
    """The maps that one entry of a config names, none where it is about something else."""
    if OmegaConf.is_missing(node, key) or OmegaConf.is_interpolation(node, key):
        return []
    name, value = str(key), node[key]
    found: list[Any] = []
    if name == "in_feature" and isinstance(value, str):
        found = [value]
    elif name.endswith(_NAMES) and isinstance(value, ListConfig | list | tuple):
        found = list(value)
    elif name in _SHAPES and isinstance(value, DictConfig):
        found = [str(inner) for inner in value]
    return found if found and all(one in names for one in found) else []


def _required(
    node: DictConfig, key: Any, names: Sequence[str], renaming: Renaming
) -> list[tuple[int, str]]:
    """Places and new names of the maps that are still there."""
    kept = [(i, new) for i, name in enumerate(names) if (new := renaming.names[name])]
    if not kept:
        strides = ", ".join(str(renaming.old[name].stride) for name in names)
        offered = ", ".join(f"{n} ({shape.stride})" for n, shape in renaming.new.items())
        raise ConfigError(
            f"{node._get_full_key(key)}={list(names)} needs maps of stride {strides}, but the new "
            f"backbone gives {offered}: ask it for these strides by out_strides."
        )
    return kept


def _renamed_shapes(shapes: DictConfig, renaming: Renaming) -> dict[str, Any]:
    """Entries by the new names; numbers of the old maps become those of the new."""
    renamed = {}
    for name in shapes:
        new = renaming.names[str(name)]
        if new is None:
            continue
        entry, old, there = shapes[name], renaming.old[str(name)], renaming.new[new]
        for field in ("channels", "stride"):
            is_open = not isinstance(entry, DictConfig) or OmegaConf.is_interpolation(entry, field)
            if not is_open and entry.get(field) == getattr(old, field):
                entry[field] = getattr(there, field)
        renamed[new] = entry
    return renamed


def _follow(
    node: DictConfig, key: str, count: int, kept: list[tuple[int, str]], renaming: Renaming
) -> None:
    """Bring what has an entry for each map to the maps that are left."""
    shapes = [renaming.new[name] for _, name in kept]
    places = [place for place, _ in kept]
    pooler = node.get(f"{key.removesuffix(_NAMES)}pooler")
    if isinstance(pooler, DictConfig) and _count(pooler, "scales") == count:
        pooler.scales = [1.0 / shape.stride for shape in shapes]
    anchors = node.get("anchor_generator")
    if isinstance(anchors, DictConfig) and _count(anchors, "strides") == count:
        anchors.strides = [shape.stride for shape in shapes]
        for name in _PER_MAP:
            if _count(anchors, name) == count and isinstance(anchors[name][0], ListConfig):
                anchors[name] = [anchors[name][place] for place in places]
    head = node.get("head")
    if isinstance(head, DictConfig) and _count(head, "input_shape") == count:
        head.input_shape = [head.input_shape[place] for place in places]
    old = [shape.channels for shape in renaming.old.values()]
    for holder in (node, head):
        is_written = isinstance(holder, DictConfig) and _has_number(holder, "in_channels")
        if is_written and (holder.in_channels in old or None in old):
            holder.in_channels = shapes[-1].channels


def _has_number(node: DictConfig, key: str) -> bool:
    return not OmegaConf.is_interpolation(node, key) and isinstance(node.get(key), int)


def _count(node: DictConfig, key: str) -> int | None:
    """Length of a list that is written out, None for what is none."""
    if key not in node or OmegaConf.is_interpolation(node, key):
        return None
    value = node[key]
    return len(value) if isinstance(value, ListConfig | list | tuple) else None
