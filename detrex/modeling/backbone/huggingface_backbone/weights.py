"""transformers' pretrained weights: where a network has them, and how transformers loads them."""

import dataclasses
import functools
import logging
import os
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

from torch import Tensor

from detrex.checkpoint.download import is_address
from detrex.checkpoint.loading import Translation
from detrex.errors import BackboneError, CheckpointError, ConfigError, DownloadError
from detrex.modeling.backbone.weights.late_init import SkipRandomFills
from detrex.modeling.backbone.weights.origins import wrapper_for
from detrex.modeling.backbone.weights.source import WeightsSource, find_source
from detrex.modeling.pixel_statistics import PixelStatistics

from .builder import Recipe, quiet
from .naming import NamedNetwork, read_description

logger = logging.getLogger(__name__)

_PROCESSOR_FILE = "preprocessor_config.json"


def find_weights(
    weights: Any,
    named: NamedNetwork,
    recipe: Recipe,
    wanted: Collection[str],
    own: PixelStatistics | None = None,
) -> WeightsSource:
    """Find where weights for a network of transformers are; nothing of them is fetched.

    Args:
        weights: True for the network's own, or what `find_source` takes besides.
        named: the network.
        recipe: how it is built.
        wanted: names of the tensors that it has.
        own: of the images of the network's own weights; see `statistics_of`.

    Returns:
        Where they are, and how transformers would load them.

    Raises:
        TypeError, BackboneError: see `find_source`; or the network is a type without weights.
        CheckpointError, DownloadError: what is said of its images cannot be read.
    """

    def of_transformers() -> WeightsSource | None:
        if isinstance(weights, str | Path) and os.path.isdir(os.path.expanduser(weights)):
            folder = os.path.expanduser(weights)
            return WeightsSource((folder,), statistics=statistics_of(folder))
        if weights is not True:
            return None
        if named.home is None:
            raise BackboneError(
                f"{named.who} is a type of networks and has no weights of its own: name a "
                "repository or a folder, or a file as weights, or leave weights out."
            )
        return WeightsSource((named.home,), statistics=own)

    def translate(tensors: Mapping[str, Tensor]) -> Mapping[str, Tensor]:
        loaded = load_by_transformers(recipe, tensors)
        # Parts that were left out of the network are no part of the file either.
        return {name: value for name, value in loaded.items() if name in wanted}

    def translations(_: str) -> Mapping[str, Translation]:
        return {"transformers' own loading": translate}

    return dataclasses.replace(
        find_source(weights, named.who, (), of_transformers),
        translations=translations,
        hint=functools.partial(
            wrapper_for, library="Hugging Face", model_name=str(named.description["model_type"])
        ),
    )


def statistics_of(home: str | None) -> PixelStatistics | None:
    """Read the statistics of the images that a network was trained on.

    Args:
        home: folder or address of its repository; None for none.

    Returns:
        What its image processor does; None where nothing describes that.

    Raises:
        CheckpointError: the description is damaged, or holds no statistics of images.
    """
    if home is None:
        return None
    if not is_address(home) and not os.path.isfile(Path(home) / _PROCESSOR_FILE):
        return None
    try:
        said = read_description(home, _PROCESSOR_FILE)
    except DownloadError as error:
        logger.warning("%s; taking ImageNet's statistics for its images", error)
        return None
    scale = said.get("rescale_factor", 1 / 255) if said.get("do_rescale", True) else 1.0
    is_normalised = said.get("do_normalize", True)
    mean = said.get("image_mean") if is_normalised else [0.0, 0.0, 0.0]
    std = said.get("image_std") if is_normalised else [1.0, 1.0, 1.0]
    if mean is None or std is None:
        return None
    order = "BGR" if said.get("do_flip_channel_order") else "RGB"
    try:
        unit = {"mean": [v / scale / 255 for v in mean], "std": [v / scale / 255 for v in std]}
        found = PixelStatistics.from_unit_range(unit)
        return dataclasses.replace(found, channel_order=order)
    except (ConfigError, TypeError, ZeroDivisionError) as error:
        raise CheckpointError(
            f"{_PROCESSOR_FILE} of {home} says no statistics of images ({str(error)[:160]}): "
            "correct its image_mean, image_std and rescale_factor."
        ) from error


def load_by_transformers(recipe: Recipe, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Let transformers load weights by all that it knows of a network, and give what it loads.

    Names on the hub are not those of the network in every version of transformers, which renames,
    splits and joins tensors as ``from_pretrained`` does.

    Args:
        recipe: how the network is built.
        tensors: the weights by name.

    Returns:
        The network's tensors that got a value, by its names. For weights that it does not know,
        transformers raises what it likes.
    """
    kept = dict(tensors)
    with quiet(), SkipRandomFills():
        network, info = recipe.kind.from_pretrained(
            None,
            config=recipe.full_config(_channels_of(kept)),
            state_dict=kept,
            ignore_mismatched_sizes=True,
            output_loading_info=True,
        )
    names = (name if isinstance(name, str) else name[0] for name in info["mismatched_keys"])
    absent = {*info["missing_keys"], *names}
    state = network.state_dict()
    return {name: value for name, value in state.items() if name not in absent}


def _channels_of(tensors: Mapping[str, Tensor]) -> int | None:
    """Channels of the image of the first kernel in a file, where these can be an image's."""
    first = next((value for value in tensors.values() if value.ndim == 4), None)
    channels = None if first is None else int(first.shape[1])
    return channels if channels in (1, 3) else None
