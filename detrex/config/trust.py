"""What a config that is no program may call: names from YAML files and from the command line.

A ``.py`` config runs as the program that it is. What comes as text instead can only name things of
the packages below, and there only what builds parts of detectors and of their training: what these
packages hold beside (shells, loaders of programs, downloads) is refused, as is what another package
defines, and the name is checked before anything is called.
"""

import inspect
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from detectron2.utils.registry import locate

from detrex.config.lazy_call import plain
from detrex.config.references import nodes_of
from detrex.errors import ConfigError, did_you_mean, first_line

TRUSTED_PACKAGES = ("torch", "torchvision", "timm", "detectron2", "detrex", "fvcore")
"""The packages whose classes and functions may be named."""

TRUSTED_BUILTINS = frozenset({"bool", "dict", "float", "int", "list", "range", "str", "tuple"})
"""The builtins that may be named beside them."""

TRUSTED_PARTS = (
    *("torch.nn", "torch.optim", "torch.utils.data", "torch.functional", "torch.distributions"),
    *("torch.device", "torch.Generator", "torch._C.Generator", "torch._VariableFunctionsClass"),
    *("torch._C._nn", "torch._C._special", "torch._C._linalg"),
    *("torchvision.models", "torchvision.ops", "torchvision.transforms"),
    *("torchvision.datasets.coco", "torchvision.datasets.imagenet.ImageNet"),
    *("timm.models", "timm.layers", "timm.optim", "timm.scheduler", "timm.loss"),
    *("timm.data.transforms", "timm.data.auto_augment", "timm.data.random_erasing"),
    *("detectron2.modeling", "detectron2.layers", "detectron2.solver", "detectron2.structures"),
    *("detectron2.evaluation", "detectron2.data.build", "detectron2.data.common"),
    *("detectron2.data.dataset_mapper", "detectron2.data.samplers", "detectron2.data.transforms"),
    "detectron2.data.detection_utils.create_keypoint_hflip_indices",
    "detectron2.data.datasets.coco.register_coco_instances",
    "detectron2.data.datasets.coco_panoptic.register_coco_panoptic",
    "detectron2.data.datasets.coco_panoptic.register_coco_panoptic_separated",
    "detectron2.data.datasets.lvis.register_lvis_instances",
    "detectron2.data.datasets.pascal_voc.register_pascal_voc",
    *("detrex.modeling", "detrex.layers", "detrex.data", "detrex.config.optim"),
    *("detrex.engine.evaluators", "detrex.engine.optimizer"),
    *("fvcore.common.param_scheduler", "fvcore.nn", "fvcore.transforms"),
)
"""The modules of these packages, and single names, that are for configs: where it is *defined*
counts, so that ``torch.nn.modules.module.os.system`` is none of them."""

REFUSED_PARTS = (
    *("torch.utils.data.datapipes", "torch.utils.data.graph", "torch.nn.attention"),
    *("torch._VariableFunctionsClass.from_file", "torchvision.models.feature_extraction"),
    # mmengine takes any dotted name for a class.
    *("detectron2.modeling.mmdet_wrapper", "detectron2.data.build.load_proposals_into_dataset"),
    "detectron2.evaluation.pascal_voc_evaluation.voc_eval",
    "detectron2.evaluation.sem_seg_evaluation.load_image_into_numpy_array",
    *("timm.models.repghost.repghost_model_convert", "timm.loss.class_weights"),
    *("detrex.data.coco", "detrex.data.drawing", "detrex.data.pictures", "detrex.data.preparation"),
    *("detrex.data.stored_records", "detrex.data.shards.ShardRecords", "detrex.data.tars"),
    *("detrex.data.shared_sets", "detrex.data.demo.pinned_wheel", "detrex.data.demo.shapes"),
    "detrex.data.demo.photographs.write_photograph_tiles",
    "detrex.layers.deform_sampling.installed",
)
"""What reads, writes or runs files of any name, though it is of a trusted part."""

# Private modules whose public functions configs call.
_PRIVATE_HOMES = (
    *("timm.models._factory", "timm.models._builder", "torchvision.models._api"),
    *("torch._C._nn", "torch._C._special", "torch._C._linalg", "torchvision.transforms.v2"),
    "torch._VariableFunctionsClass",
)
_UNPICKLED = ("proposal_files",)
# These make a config's text into calls that nobody checked.
_REFUSED_RESOLVERS = frozenset({"oc.create", "oc.decode"})
_LONGEST = 120


def locate_trusted(name: Any, where: str, trusted: Sequence[str] = ()) -> Any:
    """Import a class or function by its name, if it is one that text may name.

    Args:
        name: dotted, e.g. ``"torch.nn.GroupNorm"``.
        where: what names it, for messages, e.g. ``"model._target_"``.
        trusted: packages or modules that are trusted as a whole, beside `TRUSTED_PARTS`.

    Returns:
        The class or function.

    Raises:
        ConfigError: it is of another package, by its name or by where it was defined (as
            ``torch.os.system`` is), it is no part of a detector (as ``torch.hub.load``), or there
            is no such thing.

    Example:
        >>> locate_trusted("torch.nn.GroupNorm", "model._target_").__name__
        'GroupNorm'
    """
    where = where if len(where) <= _LONGEST else f"...{where[-_LONGEST:]}"
    if not isinstance(name, str) or not re.fullmatch(r"[^\W\d]\w*(\.[^\W\d]\w*)*", name):
        raise ConfigError(
            f"{where}={_short(name)} cannot be used: expected the name of a class or function, "
            "such as 'torch.nn.GroupNorm'."
        )
    _require_package(name, name, where, trusted)
    try:
        found = locate(name)
    except (Exception, SystemExit) as error:  # importing runs any code of the package
        reason = first_line(error, 150)
        raise ConfigError(
            f"{where}={_short(name)} cannot be imported: {reason}{_near(name)}"
        ) from error
    if not callable(found):
        raise ConfigError(
            f"{where}={_short(name)} is a {type(found).__name__}, which cannot be called."
            f"{_inside(found, name)}"
        )
    home = _home(found)
    _require_package(home, name, where, trusted)
    _require_part(home, found, name, where, trusted)
    return found


def check_named(value: Any, where: str = "", trusted: Sequence[str] = ()) -> None:
    """Check every ``_target_`` in plain containers, and that no interpolation makes up others.

    Args:
        value: what was read: dicts, lists and scalars.
        where: its dotted place in the config.
        trusted: see `locate_trusted`.

    Raises:
        ConfigError: see `locate_trusted`; or a file is named that is read by unpickling it.
    """
    for path, item in _leaves(value, where):
        keys = _keys(path)  # below one of these, too, where an override is for a part of it
        if "_target_" in keys:
            locate_trusted(item, path, trusted)
        elif item and not {*keys}.isdisjoint(_UNPICKLED):
            raise ConfigError(
                f"{path}={_short(item)} is refused: it is read by pickle, which runs what the file "
                "says; set it in a .py config."
            )
        elif isinstance(item, str) and "${" in item:
            _check_resolvers(item, path)


def _short(value: Any) -> str:
    text = ascii(value)
    return text if len(text) <= _LONGEST else f"{text[:_LONGEST]}..."


def _keys(path: str) -> list[str]:
    return re.split(r"[.\[\]]+", path.rstrip("]"))


def _is_of(name: str, parts: Sequence[str]) -> bool:
    return any(name == part or name.startswith(f"{part}.") for part in parts)


def _require_package(home: str, name: str, where: str, trusted: Sequence[str]) -> None:
    package, _, rest = home.partition(".")
    tops = [part.partition(".")[0] for part in trusted]
    if package in (*TRUSTED_PACKAGES, *tops):
        return
    if package == "builtins" and rest in TRUSTED_BUILTINS:
        return
    raise ConfigError(
        f"{where}={_short(name)} is refused: YAML and the command line may name things of "
        f"{', '.join(TRUSTED_PACKAGES)} only; call anything else in a .py config, or add --trust "
        "PACKAGE where you trust this one."
    )


def _require_part(home: str, found: Any, name: str, where: str, trusted: Sequence[str]) -> None:
    """Refuse what trusted packages hold beside parts of detectors."""
    if _is_of(home, trusted) or home.startswith("builtins."):
        return
    good = _is_of(home, TRUSTED_PARTS) and not _is_of(home, REFUSED_PARTS)
    is_public = not home.rpartition(".")[2].startswith("_")
    if "._" in home and not isinstance(found, type):
        good = good and _is_of(home, _PRIVATE_HOMES)
    if not (good and is_public and _is_class_or_function(found)):
        raise ConfigError(
            f"{where}={_short(name)} is refused: {home[:_LONGEST]} is not made for configs, and "
            "could run or read what this text names; call it in a .py config, or add --trust "
            f"{home.rpartition('.')[0][:_LONGEST]} where you trust this one."
        )


def _is_class_or_function(found: Any) -> bool:
    """Whether it is a class, a function, or a class's method, and no object's."""
    owner = getattr(found, "__self__", None)
    if inspect.ismethod(found):
        return isinstance(owner, type)
    return isinstance(found, type) or inspect.isfunction(found) or inspect.isbuiltin(found)


def _home(found: Any) -> str:
    """The dotted name under which an object was defined; of a builtin with that of its module."""
    owner = getattr(found, "__self__", None)
    module = getattr(found, "__module__", None) or getattr(owner, "__module__", None)
    name = getattr(found, "__qualname__", None) or getattr(found, "__name__", "")
    if "<locals>" in str(name):  # made by a decorator
        name = getattr(found, "__name__", "")
    return f"{module or ''}.{name}"


def _inside(module: Any, name: str) -> str:
    """Suggest what a module holds under its own name, which Python 3.13 no longer takes for it."""
    last = name.rpartition(".")[2].lower()
    if not inspect.ismodule(module):
        return ""
    held = [f"{name}.{key}" for key, value in vars(module).items() if callable(value)]
    return did_you_mean(f"{name}.{last}", [key for key in held if key.lower().endswith(f".{last}")])


def _near(name: str) -> str:
    parent, _, last = name.rpartition(".")
    try:
        return did_you_mean(last, dir(locate(parent)))
    except Exception:  # the hint is only for what can be imported
        return ""


def _leaves(value: Any, path: str) -> Iterator[tuple[str, Any]]:
    """Go through scalars, and whatever stands under ``_target_`` or is unpickled."""
    if _keys(path)[-1] in ("_target_", *_UNPICKLED):
        yield path, value
        return
    value = plain(value)
    if isinstance(value, Mapping):
        children = [
            (f"{path}.{name!s}" if path else str(name), item) for name, item in value.items()
        ]
    elif isinstance(value, list | tuple):
        children = [(f"{path}[{index}]", item) for index, item in enumerate(value)]
    else:
        yield path, value
        return
    for inner, item in children:
        yield from _leaves(item, inner)


def _check_resolvers(text: str, where: str) -> None:
    """Refuse interpolations that make a part of the config out of text."""
    for node in nodes_of(text):
        kind = type(node).__name__
        resolver = node.resolverName().getText() if kind == "InterpolationResolverContext" else ""
        refused = resolver in _REFUSED_RESOLVERS or "${" in resolver
        if refused or kind == "DictContainerContext":
            raise ConfigError(
                f"{where[-_LONGEST:]}={_short(text)} is refused: {resolver or 'this'} makes a part "
                "of the config out of text; write the part itself."
            )
