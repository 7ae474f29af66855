"""What a detector is built from."""

from dataclasses import dataclass

from omegaconf import DictConfig

from detrex.inference.facts import Facts
from detrex.inference.pretrained import Pretrained


@dataclass(frozen=True)
class Source:
    """A config and its weights.

    Attributes:
        config: the whole config, with a ``model``; it is not changed.
        weights: checkpoints, of which the first that can be read is taken; none for random weights.
        origin: what the detector is called: the folder, the file or the address it is from.
        shared: the folder of a shared detector that all of this is from; None for any other.
    """

    config: DictConfig
    weights: tuple[str, ...]
    origin: str
    shared: Pretrained | None = None

    @property
    def facts(self) -> Facts:
        """What a shared detector's folder says of it; of any other nothing."""
        return self.shared.facts if self.shared else Facts()
