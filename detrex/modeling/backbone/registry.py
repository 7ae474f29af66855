"""Wrapped backbones for detectron2's YAML configs: their keys, and builders for its registry.

Importing this registers nothing; `register_backbones` does.
"""

import logging
from collections.abc import Callable, Sequence
from itertools import pairwise

from detectron2.config import CfgNode
from detectron2.layers import ShapeSpec
from detectron2.modeling.backbone import BACKBONE_REGISTRY, FPN, Backbone
from detectron2.modeling.backbone.fpn import LastLevelMaxPool, LastLevelP6P7

from detrex.errors import ConfigError, did_you_mean
from detrex.modeling.pixel_statistics import PixelStatistics

from .huggingface_backbone.backbone import HuggingFaceBackbone
from .timm_backbone.backbone import TimmBackbone
from .torchvision_backbone.backbone import TorchvisionBackbone

logger = logging.getLogger(__name__)

_Wrapped = TimmBackbone | TorchvisionBackbone | HuggingFaceBackbone
_WRAPPERS: dict[str, type[_Wrapped]] = {
    **{"TIMM": TimmBackbone, "TORCHVISION": TorchvisionBackbone},
    **{"HUGGINGFACE": HuggingFaceBackbone},
}
# All three are ResNet-50, and none needs the net.
_NAMES = {"TIMM": "resnet50", "TORCHVISION": "resnet50", "HUGGINGFACE": "resnet"}
_DEFAULTS = {
    "PRETRAINED": False,
    "WEIGHTS": "",
    "OUT_FEATURES": ["res4"],
    "OUT_CHANNELS": None,
    "NORM": None,
    "GRAD_CHECKPOINTING": False,
}


def add_backbone_config(cfg: CfgNode) -> None:
    """Add the keys of the wrapped backbones, before a file that uses them is merged.

    ``MODEL.TIMM``, ``MODEL.TORCHVISION`` and ``MODEL.HUGGINGFACE`` get, with their defaults:

    * ``NAME`` (``"resnet50"``; ``"resnet"`` of transformers): a network of the library; of
      transformers a repository, a folder, or a type, which has no weights.
    * ``PRETRAINED`` (False): load the library's default weights.
    * ``WEIGHTS`` (``""``): which weights instead: a tag, a file, an address; see ``weights`` of
      `TimmBackbone` and `HuggingFaceBackbone`.
    * ``OUT_FEATURES`` (``["res4"]``): the maps, ``res{log2 stride}``. Under an FPN
      ``MODEL.FPN.IN_FEATURES`` says it instead.
    * ``OUT_CHANNELS`` (None): channels of levels that the network lacks; by default its own.
    * ``NORM`` (None): ``"FrozenBN"``, ``"SyncBN"``, ``"GN"``, ...; by default the network's own.
    * ``GRAD_CHECKPOINTING`` (False): compute activations again instead of keeping them.
    * ``KWARGS`` (empty): more keywords of the wrapper or the library, such as ``img_size``, or
      values of a config of transformers.

    ``MODEL.BACKBONE.FREEZE_AT`` counts as for detectron2's ResNets, and the channels of the image
    are as many as ``MODEL.PIXEL_MEAN`` has.

    Args:
        cfg: a config of detectron2's ``get_cfg()``; changed in place. Keys that it has are kept.

    Raises:
        TypeError: `cfg` is no such config.
        ConfigError: it is frozen.
    """
    if not isinstance(cfg, CfgNode) or "MODEL" not in cfg:
        raise TypeError(
            "add_backbone_config expects a config of detectron2's get_cfg(), got "
            f"{type(cfg).__name__}: a lazy config takes L(TimmBackbone)(...) as its backbone."
        )
    _check_not_frozen(cfg, "add_backbone_config")
    for library, name in _NAMES.items():
        if library not in cfg.MODEL:
            cfg.MODEL[library] = CfgNode({"NAME": name, **_DEFAULTS})
            cfg.MODEL[library].KWARGS = CfgNode(new_allowed=True)


def register_backbones() -> None:
    """Add the builders below to detectron2's ``BACKBONE_REGISTRY``, for ``MODEL.BACKBONE.NAME``.

    Each stands under its own name: ``build_timm_backbone``, ``build_timm_fpn_backbone`` and
    ``build_retinanet_timm_fpn_backbone``, and the same three of torchvision and of huggingface.
    Calling it again changes nothing.

    Raises:
        ConfigError: another builder has one of the names; nothing is registered then.
    """
    taken = [
        name
        for name, builder in _BUILDERS.items()
        if name in BACKBONE_REGISTRY and BACKBONE_REGISTRY.get(name) is not builder
    ]
    if taken:
        owner = BACKBONE_REGISTRY.get(taken[0])
        raise ConfigError(
            f"{' and '.join(taken)} cannot be registered: detectron2's BACKBONE_REGISTRY has "
            f"another builder of that name, of {owner.__module__}: give that one another name."
        )
    for name, builder in _BUILDERS.items():
        if name not in BACKBONE_REGISTRY:
            BACKBONE_REGISTRY.register(builder)


def set_pixel_statistics(cfg: CfgNode) -> None:
    """Set ``PIXEL_MEAN``, ``PIXEL_STD`` and ``INPUT.FORMAT`` to what the backbone expects.

    The backbone of ``MODEL.BACKBONE.NAME`` is built for that, with its weights, since these may
    bring statistics of their own.

    Args:
        cfg: the whole config, not frozen; changed in place. The number of channels stays that of
            ``MODEL.PIXEL_MEAN``.

    Raises:
        ConfigError: ``MODEL.BACKBONE.NAME`` is none of `register_backbones`, or `cfg` is frozen.
        BackboneError, CheckpointError, DownloadError, TypeError: as of `TimmBackbone`.
        ImportError: the library is not installed.
    """
    _check_not_frozen(cfg, "set_pixel_statistics")
    name = cfg.MODEL.BACKBONE.NAME
    if name not in _BUILDERS:
        raise ConfigError(
            f"The statistics of MODEL.BACKBONE.NAME={name!r} are not known: set PIXEL_MEAN and "
            f"PIXEL_STD by hand, or name one of {', '.join(_BUILDERS)}."
            f"{did_you_mean(name, _BUILDERS)}"
        )
    library = next(library for library in _WRAPPERS if f"_{library.lower()}_" in name)
    channels = len(cfg.MODEL.PIXEL_MEAN)
    names = _fpn_features(cfg) if "_fpn_" in name else _options(cfg, library).OUT_FEATURES
    expected = _build(cfg, library, channels, names).preprocess
    cfg.MODEL.PIXEL_MEAN = list(expected.pixel_mean)
    cfg.MODEL.PIXEL_STD = list(expected.pixel_std)
    if channels == 3:
        cfg.INPUT.FORMAT = expected.channel_order


def build_timm_backbone(cfg: CfgNode, input_shape: ShapeSpec) -> Backbone:
    """Build the network of ``MODEL.TIMM`` alone; see `add_backbone_config`.

    Args:
        cfg: the whole config.
        input_shape: its ``channels`` are those of the image.

    Returns:
        A `TimmBackbone`.

    Raises:
        ConfigError: a key is missing or said twice, or the detector cannot take the maps.
        BackboneError, CheckpointError, DownloadError, TypeError: as of `TimmBackbone`.
        ImportError: the library is not installed.
    """
    return _build_alone(cfg, "TIMM", input_shape)


def build_timm_fpn_backbone(cfg: CfgNode, input_shape: ShapeSpec) -> FPN:
    """Build an FPN with p6 pooled from its last level over `build_timm_backbone`'s network."""
    return _build_fpn(cfg, "TIMM", input_shape, has_p7=False)


def build_retinanet_timm_fpn_backbone(cfg: CfgNode, input_shape: ShapeSpec) -> FPN:
    """Build an FPN with p6 and p7 computed from the network's last map; likewise."""
    return _build_fpn(cfg, "TIMM", input_shape, has_p7=True)


def build_torchvision_backbone(cfg: CfgNode, input_shape: ShapeSpec) -> Backbone:
    """Build the network of ``MODEL.TORCHVISION`` alone; as `build_timm_backbone`."""
    return _build_alone(cfg, "TORCHVISION", input_shape)


def build_torchvision_fpn_backbone(cfg: CfgNode, input_shape: ShapeSpec) -> FPN:
    """Build an FPN over the network of ``MODEL.TORCHVISION``; as `build_timm_fpn_backbone`."""
    return _build_fpn(cfg, "TORCHVISION", input_shape, has_p7=False)


def build_retinanet_torchvision_fpn_backbone(cfg: CfgNode, input_shape: ShapeSpec) -> FPN:
    """Build RetinaNet's FPN over it; as `build_retinanet_timm_fpn_backbone`."""
    return _build_fpn(cfg, "TORCHVISION", input_shape, has_p7=True)


def build_huggingface_backbone(cfg: CfgNode, input_shape: ShapeSpec) -> Backbone:
    """Build the network of ``MODEL.HUGGINGFACE`` alone; as `build_timm_backbone`."""
    return _build_alone(cfg, "HUGGINGFACE", input_shape)


def build_huggingface_fpn_backbone(cfg: CfgNode, input_shape: ShapeSpec) -> FPN:
    """Build an FPN over the network of ``MODEL.HUGGINGFACE``; as `build_timm_fpn_backbone`."""
    return _build_fpn(cfg, "HUGGINGFACE", input_shape, has_p7=False)


def build_retinanet_huggingface_fpn_backbone(cfg: CfgNode, input_shape: ShapeSpec) -> FPN:
    """Build RetinaNet's FPN over it; as `build_retinanet_timm_fpn_backbone`."""
    return _build_fpn(cfg, "HUGGINGFACE", input_shape, has_p7=True)


_BUILDERS: dict[str, Callable[[CfgNode, ShapeSpec], Backbone]] = {
    builder.__name__: builder
    for builder in (
        build_timm_backbone,
        build_timm_fpn_backbone,
        build_retinanet_timm_fpn_backbone,
        build_torchvision_backbone,
        build_torchvision_fpn_backbone,
        build_retinanet_torchvision_fpn_backbone,
        build_huggingface_backbone,
        build_huggingface_fpn_backbone,
        build_retinanet_huggingface_fpn_backbone,
    )
}


def _build_alone(cfg: CfgNode, library: str, input_shape: ShapeSpec) -> _Wrapped:
    names = _options(cfg, library).OUT_FEATURES
    backbone = _build(cfg, library, input_shape.channels, names)
    _warn_of_weights(cfg, library)
    _warn_of_statistics(cfg, backbone.preprocess)
    _check_res5_heads(cfg, backbone)
    _check_proposals(cfg, backbone)
    return backbone


def _build_fpn(cfg: CfgNode, library: str, input_shape: ShapeSpec, *, has_p7: bool) -> FPN:
    names = _fpn_features(cfg)
    bottom_up = _build(cfg, library, input_shape.channels, names)
    _warn_of_weights(cfg, library)
    _warn_of_statistics(cfg, bottom_up.preprocess)
    maps = bottom_up.features
    strides = [maps.strides[name] for name in names]
    if any(2 * fine != coarse for fine, coarse in pairwise(strides)):
        raise ConfigError(
            f"MODEL.FPN.IN_FEATURES={names} have strides {strides}, but an FPN takes maps each of "
            "which has twice the stride of the one before."
        )
    last, out_channels = names[-1], cfg.MODEL.FPN.OUT_CHANNELS
    pool = LastLevelMaxPool()
    pool.in_feature = f"p{strides[-1].bit_length() - 1}"  # the FPN's own level, not the map
    top = LastLevelP6P7(maps.channels[last], out_channels, last) if has_p7 else pool
    return FPN(
        bottom_up=bottom_up,
        in_features=names,
        out_channels=out_channels,
        norm=cfg.MODEL.FPN.NORM,
        top_block=top,
        fuse_type=cfg.MODEL.FPN.FUSE_TYPE,
    )


def _fpn_features(cfg: CfgNode) -> list[str]:
    names = list(cfg.MODEL.FPN.IN_FEATURES)
    if not names:
        raise ConfigError(
            "MODEL.FPN.IN_FEATURES is empty: name the maps of the backbone, such as "
            "['res2', 'res3', 'res4', 'res5']."
        )
    return names


def _check_not_frozen(cfg: CfgNode, function: str) -> None:
    if cfg.is_frozen():
        raise ConfigError(f"The config is frozen: call {function}(cfg) before cfg.freeze().")


def _options(cfg: CfgNode, library: str) -> CfgNode:
    if library not in cfg.MODEL:
        raise ConfigError(
            f"The config has no MODEL.{library}: call add_backbone_config(cfg) of "
            "detrex.modeling.backbone before the file is merged."
        )
    return cfg.MODEL[library]


def _build(cfg: CfgNode, library: str, in_channels: int, out_features: Sequence[str]) -> _Wrapped:
    options = _options(cfg, library)
    keywords = {
        "model_name": options.NAME,
        "weights": options.WEIGHTS or options.PRETRAINED,
        "in_channels": in_channels,
        "out_features": list(out_features),
        "out_channels": options.OUT_CHANNELS,
        "norm_layer": options.NORM,
        "freeze_at": cfg.MODEL.BACKBONE.FREEZE_AT,
        "grad_checkpointing": options.GRAD_CHECKPOINTING,
    }
    if twice := sorted(set(keywords) & set(options.KWARGS)):
        raise ConfigError(
            f"MODEL.{library}.KWARGS holds {', '.join(twice)}, for which there is a key of its own:"
            " see detrex.modeling.backbone.add_backbone_config."
        )
    return _WRAPPERS[library](**keywords, **options.KWARGS)


def _check_res5_heads(cfg: CfgNode, backbone: _Wrapped) -> None:
    """The heads that ``get_cfg()`` starts with are the last stage of a ResNet, of fixed channels.

    Raises:
        ConfigError: they are in use and do not take the backbone's map.
    """
    heads = cfg.MODEL.ROI_HEADS
    if cfg.MODEL.META_ARCHITECTURE != "GeneralizedRCNN" or heads.NAME != "Res5ROIHeads":
        return
    wanted = 4 * cfg.MODEL.RESNETS.RES2_OUT_CHANNELS
    channels = backbone.features.channels
    for name in heads.IN_FEATURES:
        if channels.get(name, wanted) != wanted:
            raise ConfigError(
                f"MODEL.ROI_HEADS.NAME is Res5ROIHeads, a ResNet's last stage that takes {wanted} "
                f"channels, and {name} of {cfg.MODEL.BACKBONE.NAME} has {channels[name]}: "
                "start from Base-RCNN-FPN.yaml with an FPN builder, or set StandardROIHeads."
            )


def _check_proposals(cfg: CfgNode, backbone: _Wrapped) -> None:
    """The region proposal network of detectron2's FPN files takes levels of an FPN.

    Raises:
        ConfigError: it is in use and takes what the network alone does not give.
    """
    wanted, given = cfg.MODEL.RPN.IN_FEATURES, backbone.features.names
    absent = [name for name in wanted if name.startswith("p") and name not in given]
    has_rpn = cfg.MODEL.META_ARCHITECTURE in ("GeneralizedRCNN", "ProposalNetwork")
    if absent and has_rpn and cfg.MODEL.PROPOSAL_GENERATOR.NAME == "RPN":
        name = cfg.MODEL.BACKBONE.NAME
        raise ConfigError(
            f"MODEL.RPN.IN_FEATURES={list(wanted)} names {absent[0]}, and {name} gives "
            f"{', '.join(given)}: name {name.removesuffix('backbone')}fpn_backbone, or these maps."
        )


def _warn_of_weights(cfg: CfgNode, library: str) -> None:
    """Warn where detectron2's files leave the network without weights, or freeze it so."""
    options, freeze_at = cfg.MODEL[library], cfg.MODEL.BACKBONE.FREEZE_AT
    is_bare = "ImageNetPretrained" in cfg.MODEL.WEIGHTS  # as in detectron2's files of ResNets
    if is_bare:
        logger.warning(
            "MODEL.WEIGHTS=%s is the file of a bare backbone: set it to '' and name the weights of "
            "%s as MODEL.%s.PRETRAINED or WEIGHTS.",
            *(cfg.MODEL.WEIGHTS, options.NAME, library),
        )
    given = options.PRETRAINED or options.WEIGHTS or (cfg.MODEL.WEIGHTS and not is_bare)
    if freeze_at > 0 and not given:
        logger.warning(
            "MODEL.BACKBONE.FREEZE_AT=%d freezes stages with random weights: set "
            "MODEL.%s.PRETRAINED or WEIGHTS, or FREEZE_AT to 0.",
            *(freeze_at, library),
        )


def _warn_of_statistics(cfg: CfgNode, expected: PixelStatistics) -> None:
    order = cfg.INPUT.FORMAT if cfg.INPUT.FORMAT in ("RGB", "BGR") else expected.channel_order
    given = PixelStatistics(cfg.MODEL.PIXEL_MEAN, cfg.MODEL.PIXEL_STD, order)
    if not given.is_close_to(expected):
        logger.warning(
            "The config normalises images by PIXEL_MEAN %s and PIXEL_STD %s in %s, and the "
            "backbone expects %s and %s in %s: call set_pixel_statistics(cfg) of "
            "detrex.modeling.backbone, or leave it if the weights come from elsewhere.",
            *(list(given.pixel_mean), list(given.pixel_std), cfg.INPUT.FORMAT),
            *(list(expected.pixel_mean), list(expected.pixel_std), expected.channel_order),
        )
