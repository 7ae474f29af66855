"""What a detector is built from."""

from dataclasses import dataclass, field

from omegaconf import DictConfig

from detrex.inference.pretrained import Pretrained


@dataclass(frozen=True)
class Source:
    """A config and its weights.

    Attributes:
        config: the whole config, with a ``model``; it is not changed.
        weights: checkpoints, of which the first that can be read is taken; none for random weights.
        origin: what the detector is called: the folder, the file or the address it is from.
        class_names: by class index; by default those of the checkpoint, else of the config's data.
        category_ids: the data set's id of each class; empty where they are not known.
        shared: the folder of a shared detector that all of this is from; None for any other.
    """

    config: DictConfig
    weights: tuple[str, ...]
    origin: str
    class_names: tuple[str, ...] = ()
    category_ids: tuple[int, ...] = field(default=())
    shared: Pretrained | None = None
