"""A network of another library as a backbone, and the way of an image through it.

images -> fitted to the network (input_size.py) -> the network's maps (feature_info.py)
       -> levels by stride (feature_pyramid.py) -> cropped to the image's size
"""

import logging
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import torch
from detectron2.modeling.backbone import Backbone
from jaxtyping import Float
from torch import nn

from detrex.modeling.backbone.features.coverage import Size
from detrex.modeling.backbone.features.feature_pyramid import FeaturePyramid
from detrex.modeling.backbone.features.network_spec import NetworkSpec
from detrex.modeling.backbone.features.output_levels import OutputSpec
from detrex.modeling.backbone.training.folded_norm import NormFolding
from detrex.modeling.backbone.training.freezing import KeepsFrozen, parameter_table
from detrex.modeling.backbone.training.plan import TrainingPlan
from detrex.modeling.backbone.weights.late_init import LateInit
from detrex.modeling.backbone.weights.origins import wrapper_for
from detrex.modeling.backbone.weights.pretrained import load_pretrained
from detrex.modeling.backbone.weights.source import WeightsSource

logger = logging.getLogger(__name__)


class WrapperBackbone(KeepsFrozen, Backbone):
    """A network of another library as a backbone; the class that inherits says how it is called.

    Args:
        network: maps images to its library's own tensors.
        spec: what it gives and needs.
        outputs: what is taken of that, and which levels come of it.
        plan: how it is to be trained.
        source: where its weights are, or those of the whole backbone; None for none.
        late: fills what `source` lacks; None for a network whose random values are there.
        **options: passed to `TrainingPlan.apply`.

    Attributes:
        network_name: attribute that holds the network, and so the prefix of its weights.
        spec: what the network gives and needs.
        features: the outputs, in the order of the output dict.
        input_size: what is done to images of a size that the network does not take.
        pyramid: makes levels of the network's maps; None where these are the outputs themselves.
        preprocess: statistics and channel order of the images that the weights expect.
        stages: what each ``freeze_at`` from 1 to 5 freezes of the network.
        parameter_table: frozen and trainable parameters by level, as text.

    Raises:
        BackboneError: `plan` cannot be followed.
        CheckpointError: weights that are not there, or of which too little fits.
        DownloadError: weights that cannot be fetched.
    """

    network_name: ClassVar[str]

    def __init__(
        self,
        network: nn.Module,
        spec: NetworkSpec,
        outputs: OutputSpec,
        plan: TrainingPlan,
        source: WeightsSource | None,
        late: LateInit | None = None,
        **options: Any,
    ) -> None:
        super().__init__()
        self.spec, self.features, self.input_size = spec, outputs.features, outputs.input_size
        self._maps = outputs.maps
        self._folding = NormFolding()
        self._out_features = self.features.names
        self._out_feature_channels = self.features.channels
        self._out_feature_strides = self.features.strides
        self.add_module(self.network_name, network)
        self.pyramid: FeaturePyramid | None = None
        if outputs.levels is not None:
            self.pyramid = FeaturePyramid(outputs.levels, outputs.out_channels)
        self.preprocess = spec.statistics
        if source is not None:
            loaded = load_pretrained(self, source, spec.in_channels)
            self.preprocess = loaded.statistics or self.preprocess
            if late is not None:
                named = self.state_dict(keep_vars=True)
                late.fill_rest(network, (named[name] for name in loaded.report.matched))
        self.stages, frozen = plan.apply(network, spec, **options)
        self.frozen_modules = tuple(f"{self.network_name}.{name}" for name in frozen)
        self.parameter_table = parameter_table(network, self.stages, self.pyramid)
        who = f"{type(self).__name__} of {spec.name}"
        logger.info("%s: %s; %s\n%s", who, self.features, self.input_size, self.parameter_table)

    @property
    def network(self) -> nn.Module:
        """The other library's network."""
        return self.get_submodule(self.network_name)

    @property
    def size_divisibility(self) -> int:
        """Multiple of pixels to which images are best padded; 0 where any size is as good."""
        return self.input_size.size_divisibility

    @property
    def padding_constraints(self) -> dict[str, int]:
        """Padding that images need: ``size_divisibility`` and ``square_size`` (0 for none)."""
        return {"size_divisibility": self.size_divisibility, "square_size": 0}

    def fitted_size(self, image_size: Sequence[int]) -> Size:
        """Give the size to which an image is padded inside, without a margin on every side.

        Args:
            image_size: height and width in pixels.
        """
        return self.input_size.fitted_size(image_size)

    def wrapper_for(self, tensors: Mapping[str, torch.Tensor]) -> str:
        """Say which wrapper a file fits that does not fit this one; empty where none is found.

        Args:
            tensors: the file's tensors by name.
        """
        library, _, model_name = self.spec.name.partition("'s ")
        return wrapper_for(tensors, library=library, model_name=model_name.strip("'"))

    def _load_from_state_dict(self, state_dict: Mapping[str, Any], prefix: str, *args: Any) -> None:
        if not any(name.startswith(prefix) for name in state_dict):
            logger.warning(
                "nothing is named %s* among the weights that are loaded, so %s keeps its own: name "
                "a file of the network alone in its keyword weights, or load it by "
                "detrex.checkpoint.load_init_checkpoint",
                *(prefix, type(self).__name__),
            )
        super()._load_from_state_dict(state_dict, prefix, *args)

    def forward(
        self, x: Float[torch.Tensor, "n c h w"]
    ) -> dict[str, Float[torch.Tensor, "n _ _ _"]]:
        """Map images to features.

        Args:
            x: images ``(N, in_channels, H, W)`` of any size; zeros are added at the right and the
                bottom where the network needs them.

        Returns:
            ``{name: (N, C, H / stride, W / stride)}``, sizes rounded up. (Fewer cells where
            convolutions without padding are asked for by index or node.)
        """
        if self.input_size.is_free:
            return self._maps.to_maps(self._extract(x), x.shape[-2:])
        fitted = self.input_size.fit(x)
        maps = self._maps.to_maps(self._extract(fitted.images), fitted.images.shape[-2:])
        strides = fitted.strides(maps, self._maps)
        maps = fitted.merge(maps, self._maps)
        if self.pyramid is not None:
            maps = self.pyramid(maps, strides)
        return fitted.crop(maps, self.features)

    def _extract(self, images: torch.Tensor) -> Mapping[str, torch.Tensor]:
        if torch.compiler.is_compiling() or torch.jit.is_tracing():
            return self.extract(images)
        with self._folding.during(self.network, images):
            return self.extract(images)

    def extract(self, images: torch.Tensor) -> Mapping[str, torch.Tensor]:
        """Run the network.

        Args:
            images: ``(N, in_channels, H, W)`` of a size that it takes.

        Returns:
            Its own tensors by the names of its maps that are taken.
        """
        raise NotImplementedError
