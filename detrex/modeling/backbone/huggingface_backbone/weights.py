"""transformers' pretrained weights: where a network has them, and how transformers loads them."""

import dataclasses
import functools
import logging
import os
import re
from collections import Counter
from collections.abc import Collection, Iterator, Mapping
from pathlib import Path
from typing import Any

from torch import Tensor

from detrex.checkpoint.download import is_address, is_repository
from detrex.checkpoint.loading import Translation
from detrex.errors import BackboneError, CheckpointError, ConfigError, DownloadError
from detrex.modeling.backbone.weights.late_init import SkipRandomFills
from detrex.modeling.backbone.weights.origins import wrapper_for
from detrex.modeling.backbone.weights.source import WeightsSource, find_source
from detrex.modeling.pixel_statistics import PixelStatistics

from .builder import Recipe
from .naming import NamedNetwork, import_transformers, quiet, read_description

logger = logging.getLogger(__name__)

# The second is of a processor of images and text, of which the one of images is a part.
_PROCESSOR_FILES = ("preprocessor_config.json", "processor_config.json")
# Image processors of these names give BGR at the end, and no file of theirs says so.
_FLIPPING = ("PPLCNet", "PPOCRV5ServerDet", "PPOCRV6SmallRec", "UVDoc")
_BLOCK = re.compile(r"\.(\d+)\.")
_DOT = re.compile(r"\.")


def find_weights(
    weights: Any,
    named: NamedNetwork,
    recipe: Recipe,
    wanted: Collection[str],
    own: PixelStatistics | None = None,
) -> WeightsSource:
    """Find where weights for a network of transformers are; of them nothing is fetched.

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
        if isinstance(weights, str) and is_repository(weights):
            return WeightsSource((weights,), statistics=statistics_of(weights))
        if weights is not True:
            return None
        if named.home is None:
            raise BackboneError(
                f"{named.who} is a type of networks and has no weights of its own: name a "
                "repository or a folder, or a file as weights, or leave weights out."
            )
        return WeightsSource((named.home,), statistics=own)

    def translate(tensors: Mapping[str, Tensor]) -> Mapping[str, Tensor]:
        best: dict[str, Tensor] = {}
        for inner in _without_prefixes(tensors):
            loaded = load_by_transformers(recipe, inner)
            # Parts that were left out of the network are no part of the file either.
            loaded = {name: value for name, value in loaded.items() if name in wanted}
            best = max(best, loaded, key=len)
            if len(best) == len(wanted):
                break
        return best

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
    file, said = ("", {}) if home is None else _image_processor(home)
    if not said:
        return None
    steps = _steps(said)
    factor = steps.get("rescale_factor")
    scale = (1 / 255 if factor is None else factor) if steps.get("do_rescale") else 1.0
    mean: Any = [0.0, 0.0, 0.0]
    std: Any = [1.0, 1.0, 1.0]
    if steps.get("do_normalize"):
        mean, std = steps.get("image_mean"), steps.get("image_std")
    if mean is None or std is None:
        return None
    is_flipped = _processor_name(said).startswith(_FLIPPING) or steps.get("do_flip_channel_order")
    order = "BGR" if is_flipped else "RGB"
    try:
        mean, std = ([v] * 3 if isinstance(v, int | float) else v for v in (mean, std))
        if steps.get("rescale_offset"):  # EfficientNet's, to -1 and 1
            mean = [v + 1 for v in mean]
        if steps.get("include_top"):  # and then divides by the deviation twice
            std = [v * v for v in std]
        if is_flipped:  # after they are normalised
            mean, std = mean[::-1], std[::-1]
        unit = {"mean": [v / scale / 255 for v in mean], "std": [v / scale / 255 for v in std]}
        found = PixelStatistics.from_unit_range(unit)
        return dataclasses.replace(found, channel_order=order)
    except (ConfigError, TypeError, ZeroDivisionError) as error:
        raise CheckpointError(
            f"{file} of {home} says no statistics of images ({str(error)[:160]}): "
            "correct its image_mean, image_std and rescale_factor."
        ) from error


def _image_processor(home: str) -> tuple[str, Mapping[str, Any]]:
    """What a repository says of its images, and in which file; empty where it says nothing."""
    refusals = []
    for file in _PROCESSOR_FILES:
        if not is_address(home) and not os.path.isfile(Path(home) / file):
            continue
        try:
            said = read_description(home, file)
        except DownloadError as error:
            refusals.append(error)
            if error.__cause__ is None:  # the repository cannot be reached
                break
            continue
        said = said.get("image_processor", {}) if file == _PROCESSOR_FILES[1] else said
        if isinstance(said, Mapping) and said:
            return file, said
    if refusals:
        logger.warning("%s; taking ImageNet's statistics for its images", refusals[0])
    return "", {}


def _steps(said: Mapping[str, Any]) -> Mapping[str, Any]:
    """What an image processor does, with what its file leaves to its class."""
    name = _processor_name(said)
    is_known = name.endswith(("ImageProcessor", "ImageProcessorFast"))
    kind = getattr(import_transformers(), name, None) if is_known else None
    try:
        if kind is not None:
            with quiet():
                return dict(vars(kind.from_dict(dict(said))))
    except Exception as error:  # each class checks its values in its own way
        logger.debug("%s does not take its own file (%s)", name, error)
    return {"do_rescale": True, "do_normalize": True, **said}


def _processor_name(said: Mapping[str, Any]) -> str:
    name = str(said.get("image_processor_type") or said.get("feature_extractor_type"))
    return name.replace("FeatureExtractor", "ImageProcessor")


def load_by_transformers(recipe: Recipe, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Let transformers load weights by all that it knows of a network, and give what it loads.

    Names on the hub are not those of the network in every version of transformers, which renames,
    splits and joins tensors as ``from_pretrained`` does.

    Args:
        recipe: how the network is built.
        tensors: the weights by name.

    Returns:
        The network's tensors that got a value, by its names, and of those of another shape the
        file's own. For weights that it does not know, transformers raises what it likes.
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
    # Before version 5 of transformers the names alone, which are those of the file then.
    shapes = {m if isinstance(m, str) else m[0]: m[1] for m in info["mismatched_keys"]}
    absent = {*info["missing_keys"], *shapes}
    state = network.state_dict()
    found = {name: value for name, value in state.items() if name not in absent}
    for name, shape in shapes.items():
        alike = [
            value
            for other, value in kept.items()
            if other.endswith(name) or (_place(other) == _place(name) and value.shape == shape)
        ]
        if len(alike) == 1:
            found[name] = alike[0]
    return found


def _place(name: str) -> tuple[str, ...]:
    """What of a tensor's name stays when transformers renames it: its block, and its last part."""
    return *_BLOCK.findall(name), name.rpartition(".")[2]


def _without_prefixes(tensors: Mapping[str, Tensor]) -> Iterator[dict[str, Tensor]]:
    """The tensors as they are, then those of a network within, which has by far most of them."""
    yield dict(tensors)
    starts = Counter(name[: dot.end()] for name in tensors for dot in _DOT.finditer(name))
    for prefix in sorted(starts, key=len):
        if 3 * starts[prefix] >= 2 * len(tensors):  # not one of a student and a teacher
            inner = (name for name in tensors if name.startswith(prefix))
            yield {name.removeprefix(prefix): tensors[name] for name in inner}


def _channels_of(tensors: Mapping[str, Tensor]) -> int | None:
    """Channels of the image of the first kernel in a file, where these can be an image's."""
    first = next((value for value in tensors.values() if value.ndim == 4), None)
    channels = None if first is None else int(first.shape[1])
    return channels if channels in (1, 3) else None
