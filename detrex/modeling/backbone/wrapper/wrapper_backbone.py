"""What the wrappers around other libraries' networks share: the way of an image through them.

images -> fitted to the network (sizes.py) -> the network's maps (features.py)
       -> levels by stride (pyramid.py) -> cut to the image's size
"""

import logging
from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Any, Literal

import torch
from detectron2.modeling.backbone import Backbone
from torch import nn

from detrex.errors import BackboneError
from detrex.modeling.backbone.features.coverage import Size, round_up
from detrex.modeling.backbone.features.feature_info import FeatureInfo, FeatureMaps
from detrex.modeling.backbone.features.feature_pyramid import FeaturePyramid
from detrex.modeling.backbone.features.input_size import InputSize, pad_to
from detrex.modeling.backbone.features.output_levels import Level, padded_to_strides
from detrex.modeling.backbone.inspection.stages import Stage
from detrex.modeling.backbone.preprocess import Preprocess
from detrex.modeling.backbone.training.freezing import KeepsFrozen, parameter_table, plan_freezing

from .arguments import Source

logger = logging.getLogger(__name__)


class WrapperBackbone(KeepsFrozen, Backbone):
    """A network of another library as a backbone; the class that inherits runs the network.

    Attributes:
        features: the outputs, in the order of the output dict.
        input_size: what is done to images of a size that the network does not take.
        preprocess: statistics and channel order of the images that the weights expect.
        offered: every map that the network itself has, in the order of their computation.
        stages: what each ``freeze_at`` from 1 to 5 freezes of the network.
        parameter_table: frozen and trainable parameters by level, as text.
    """

    features: FeatureMaps
    input_size: InputSize
    preprocess: Preprocess
    offered: tuple[FeatureInfo, ...]
    stages: tuple[Stage, ...]
    parameter_table: str
    pyramid: FeaturePyramid | None
    _taps: FeatureMaps

    def _publish(
        self,
        features: Sequence[FeatureInfo],
        levels: Sequence[Level] | None,
        out_channels: int | None,
        input_size: InputSize,
    ) -> None:
        """Set what the backbone gives.

        Args:
            features: the network's maps.
            levels: what is made of them, or None where they are the outputs themselves.
            out_channels: channels of levels that are made; None for those of the network.
            input_size: what the network needs of image sizes.
        """
        self._taps = FeatureMaps(tuple(features))
        if levels is None and input_size.tile is not None:
            levels = [Level(feature.name, feature.stride, feature) for feature in features]
        self.input_size = input_size if levels is None else padded_to_strides(input_size, levels)
        if out_channels is not None and not any(level.learned for level in levels or ()):
            channels = ", ".join(f"{name}: {c}" for name, c in self._taps.channels.items())
            raise BackboneError(
                f"got out_channels={out_channels}, but every output is a map of the network itself "
                f"({channels}): leave it out; the neck brings levels to one width."
            )
        self.pyramid = None if levels is None else FeaturePyramid(levels, out_channels)
        self.features = self._taps if self.pyramid is None else self.pyramid.table
        self._out_features = self.features.names
        self._out_feature_channels = self.features.channels
        self._out_feature_strides = self.features.strides

    def _load_weights(
        self,
        source: Source,
        library: Literal["timm", "torchvision"],
        model_name: str,
        in_channels: int,
        keywords: Mapping[str, Any] = MappingProxyType({}),
    ) -> None:
        """Load what the user asked for into the network, and into the pyramid where it has that.

        The statistics that belong to it are taken over.
        """
        if source is None:
            return
        from detrex.modeling.backbone.weights.pretrained import find_weights, load_network_weights

        place = find_weights(
            source,
            library=library,
            model_name=model_name,
            network=self.network,
            keywords=keywords,
        )
        used = load_network_weights(
            self,
            place,
            library=library,
            model_name=model_name,
            in_channels=in_channels,
            keywords=keywords,
        )
        if used.preprocess is not None:
            self.preprocess = used.preprocess

    def _freeze(self, stages: Sequence[Stage], freeze_at: int) -> None:
        """Freeze the first stages of the network."""
        self.stages = tuple(stages)
        frozen = plan_freezing(stages, freeze_at).apply(self.network)
        (prefix,) = (name for name, child in self.named_children() if child is self.network)
        self.frozen_modules = tuple(f"{prefix}.{name}" for name in frozen)

    def _log(self, who: str) -> None:
        """Log once what was built: outputs, sizes, and what of it learns."""
        self.parameter_table = parameter_table(self.network, self.stages, self.pyramid)
        logger.info("%s: %s; %s\n%s", who, self.features, self.input_size, self.parameter_table)

    @property
    def size_divisibility(self) -> int:
        """Multiple of pixels to which images are best padded; 0 where any size is as good."""
        return self.input_size.size_divisibility

    @property
    def padding_constraints(self) -> dict[str, int]:
        """Padding that images need: ``size_divisibility`` and ``square_size`` (0 for none)."""
        return {"size_divisibility": self.size_divisibility, "square_size": 0}

    def fitted_size(self, image_size: Sequence[int]) -> Size:
        """Give the size to which an image is padded inside, without the rule's margin.

        Args:
            image_size: height and width in pixels.
        """
        grids = [1] if self.pyramid is None else [f.stride for f in self.features]
        whole = [max(round_up(side, grid) for grid in grids) for side in image_size]
        return self.input_size.fitted_size(whole)

    def _load_from_state_dict(self, state_dict: Mapping[str, Any], prefix: str, *args: Any) -> None:
        if not any(name.startswith(prefix) for name in state_dict):
            logger.warning(
                "nothing is named %s* among the weights that are loaded, so %s keeps its own: name "
                "a file of the network alone in its keyword weights, or load it by "
                "detrex.checkpoint.load_init_checkpoint",
                *(prefix, type(self).__name__),
            )
        super()._load_from_state_dict(state_dict, prefix, *args)

    def forward(self, x: torch.Tensor) -> dict[str, torch.Tensor]:
        """Map images to features.

        Args:
            x: images ``(N, in_channels, H, W)`` of any size; zeros are added at the right and the
                bottom where the network needs them.

        Returns:
            ``{name: (N, C, H / stride, W / stride)}``, sizes rounded up. (Fewer cells where
            convolutions without padding are asked for by index or node.)
        """
        if self.pyramid is None and self.input_size.is_free:
            return self._taps.to_maps(self._run(x), x.shape[-2:])
        fitted = self.fitted_size(x.shape[-2:])
        images = pad_to(x, fitted, self.input_size.coverage.margin)
        tiles = self.input_size.cut(images)
        maps = self._taps.to_maps(self._run(tiles), tiles.shape[-2:])
        strides = self._strides(maps, tiles)
        maps = {name: self.input_size.join(m, images.shape[-2:]) for name, m in maps.items()}
        if images.shape[-2:] != fitted:
            maps = {
                feature.name: self._inner(maps[feature.name], feature, fitted)
                for feature in self._taps
            }
        if self.pyramid is not None:
            maps = self.pyramid(maps, strides)
        if images.shape == x.shape:
            return maps
        return {f.name: _cut_off(maps[f.name], f, x.shape[-2:]) for f in self.features}

    def _inner(self, tap_map: torch.Tensor, feature: FeatureInfo, fitted: Size) -> torch.Tensor:
        """Cut off the cells of the margin."""
        height, width = tap_map.shape[-2:]
        row, column = self.input_size.first_cells((height, width), fitted, feature.stride)
        return _cut_off(tap_map[..., row:, column:], feature, fitted)

    def _strides(
        self, maps: Mapping[str, torch.Tensor], images: torch.Tensor
    ) -> dict[str, tuple[float, float]]:
        """Exact strides of the network's maps: of tiles as they are, else the nominal ones."""
        if self.input_size.tile is None:
            return {feature.name: (feature.stride, feature.stride) for feature in self._taps}
        height, width = images.shape[-2:]
        return {name: (height / m.shape[-2], width / m.shape[-1]) for name, m in maps.items()}

    @property
    def network(self) -> nn.Module:
        """The other library's network, which maps images to its own tensors."""
        raise NotImplementedError

    def _run(self, images: torch.Tensor) -> Mapping[str, torch.Tensor]:
        """Run the network: its own tensors by the names of its features."""
        raise NotImplementedError


def _cut_off(level_map: torch.Tensor, feature: FeatureInfo, size: Sequence[int]) -> torch.Tensor:
    """Cut off the cells that see nothing but padding."""
    height, width = (-(-side // feature.stride) for side in size)
    return level_map[..., :height, :width].contiguous()
