"""What a network of timm gives and needs, seen on the ``meta`` device."""

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import nn

from detrex.errors import BackboneError
from detrex.modeling.backbone.features.coverage import Coverage, Size
from detrex.modeling.backbone.features.feature_info import FeatureInfo, Layout
from detrex.modeling.backbone.features.network_spec import NetworkSpec
from detrex.modeling.backbone.inspection.feature_shapes import map_layout, map_size
from detrex.modeling.backbone.inspection.findings import NetworkKey, recall
from detrex.modeling.backbone.inspection.input_size_search import (
    Run,
    find_coverage,
    search_input_size,
)
from detrex.modeling.backbone.inspection.meta_run import SizeRefusedError, on_meta_or_cpu
from detrex.modeling.backbone.inspection.position_tables import RefuseOtherPositions
from detrex.modeling.backbone.training.norms import norm_kind
from detrex.modeling.pixel_statistics import PixelStatistics

from .builder import create_network, import_timm

# With it a network resamples its position tables to the image at hand.
_FREE_SIZE = "dynamic_img_size"
_EXAMPLE_SIDE = 256


def inspect_network(name: str, keywords: Mapping[str, Any]) -> NetworkSpec:
    """Run a network on the ``meta`` device: no weights, no memory.

    timm's own networks are run once for each set of plain keywords; see `network_key`.

    Args:
        name: as in `check_name`.
        keywords: what it is to be built with.

    Returns:
        What was seen.

    Raises:
        TypeError, BackboneError: see `create_network` and `search_input_size`.
    """

    def inspect(device: str) -> NetworkSpec:
        return _Inspector(name, keywords, device).spec()

    key = network_key(name, keywords)
    return recall(key and key / "spec", lambda: on_meta_or_cpu(inspect))


def network_key(name: str, keywords: Mapping[str, Any]) -> NetworkKey | None:
    """Say under what to keep what is found of a network; see `NetworkKey.of`.

    Args:
        name: as in `check_name`.
        keywords: what it is built with.
    """
    timm = import_timm()
    return (
        NetworkKey.of(timm.model_entrypoint(name), name, keywords) if timm.is_model(name) else None
    )


def native_norm(name: str, keywords: Mapping[str, Any]) -> str:
    """Name the norm that a network has most of when none is asked for; see `norm_kind`."""
    with torch.device("meta"):
        return norm_kind(_built_as_timm_chooses(name, keywords))


class _Inspector:
    """Builds of one network, each with every feature, run on empty images."""

    def __init__(self, name: str, keywords: Mapping[str, Any], device: str) -> None:
        self.name, self.keywords, self.device = name, keywords, device
        self.channels = int(keywords.get("in_chans", 3))
        with torch.device(device):
            built = _built_as_timm_chooses(name, keywords)
        feature_info: Any = built.feature_info
        rows = feature_info.info
        # TResNet lists a feature that no module gives.
        self.indices = [i for i, row in enumerate(rows) if row.get("module") != ""]
        self.strides = [int(rows[i]["reduction"]) for i in self.indices]
        self._built: dict[tuple[str, ...], nn.Module] = {}
        if list(getattr(feature_info, "out_indices", ())) == self.indices:
            self._built[()] = built.eval()
        self._shapes: dict[tuple[Size, tuple[str, ...]], list[Sequence[int]]] = {}
        self._layouts: dict[tuple[str, ...], list[Layout]] = {}

    def network(self, further: tuple[str, ...] = ()) -> nn.Module:
        """The network, built with some keywords set to True besides."""
        if further not in self._built:
            more = {**self.keywords, **dict.fromkeys(further, True)}
            with torch.device(self.device):
                built = create_network(self.name, more, self.indices)
            self._built[further] = built.eval()
        return self._built[further]

    def shapes(self, size: Size, further: tuple[str, ...] = ()) -> list[Sequence[int]]:
        """Shapes of all features for an image size."""
        if (size, further) not in self._shapes:
            image = torch.zeros(1, self.channels, *size, device=self.device)
            network = self.network(further)
            with torch.no_grad(), RefuseOtherPositions(network):
                features = network(image)
            self._shapes[size, further] = [feature.shape for feature in features]
        return self._shapes[size, further]

    def run(self, *further: str) -> Run:
        """Give the sizes of all maps for an image size."""

        def sizes(size: Size) -> list[Size]:
            try:
                self.network(further)
            except TypeError as error:
                if not further:
                    raise
                raise SizeRefusedError(str(error)) from error  # there is no such way to build it
            shapes = self.shapes(size, further)
            layouts = self.layouts(further, shapes, size)
            return list(map(map_size, shapes, layouts))

        return sizes

    def layouts(
        self, further: tuple[str, ...], shapes: Sequence[Sequence[int]], size: Size
    ) -> list[Layout]:
        """Layouts of all features, by the shapes of the first image, which is no tiny one."""
        if further not in self._layouts:
            claimed = getattr(self.network(further), "output_fmt", None)
            self._layouts[further] = [
                map_layout(shape, size) if claimed is None else claimed.value for shape in shapes
            ]
        return self._layouts[further]

    def spec(self) -> NetworkSpec:
        """Find the rule for images, then describe every feature."""
        config = dict(getattr(self.network(), "pretrained_cfg", None) or {})
        native = _native_size(config, self.keywords)
        variants: list[tuple[dict[str, Any], Run]] = [({}, self.run())]
        if _FREE_SIZE not in self.keywords:
            variants.append(({_FREE_SIZE: True}, self.run(_FREE_SIZE)))
        who = f"timm's {self.name!r}"
        input_size = search_input_size(who, variants, native, self.strides)
        size = input_size.tile or input_size.fitted_size(
            [min(side, _EXAMPLE_SIDE) for side in native]
        )
        further = tuple(input_size.keywords)
        coverages: list[Coverage | None] = [Coverage() for _ in self.indices]
        if input_size.tile is None:
            multiple = input_size.multiple
            coverages = find_coverage(who, self.run(*further), multiple, self.strides)
        shapes = self.shapes(size, further)
        layouts = self.layouts(further, shapes, size)
        features = tuple(
            FeatureInfo(
                *(str(index), index, int(shape[3 if layout == "NHWC" else 1]), stride, layout),
                coverage=coverage,
            )
            for index, shape, stride, layout, coverage in zip(
                self.indices, shapes, self.strides, layouts, coverages, strict=True
            )
        )
        statistics = PixelStatistics.from_unit_range(config).with_channels(self.channels)
        return NetworkSpec(who, features, input_size, size, self.channels, statistics)


def _built_as_timm_chooses(name: str, keywords: Mapping[str, Any]) -> nn.Module:
    """Build with timm's choice of features, which a network of few blocks does not have."""
    try:
        return create_network(name, keywords)
    except BackboneError as error:
        if not isinstance(error.__cause__, AssertionError | IndexError):
            raise
        return create_network(name, keywords, (0,))


def _native_size(config: Mapping[str, Any], keywords: Mapping[str, Any]) -> Size:
    """Image size that a network was made for, or that the user asks for."""
    asked = keywords.get("img_size")
    if asked is None:
        _, height, width = config.get("input_size") or (3, 224, 224)
    else:
        height, width = (asked, asked) if isinstance(asked, int) else asked
    return int(height), int(width)
