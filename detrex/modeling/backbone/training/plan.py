"""How a network is to be trained: said by a few keywords, checked before anything is built."""

from dataclasses import dataclass

from torch import nn

from detrex.modeling.backbone.arguments import check_switches
from detrex.modeling.backbone.features.network_spec import NetworkSpec
from detrex.modeling.backbone.inspection.findings import NetworkKey, recall
from detrex.modeling.backbone.inspection.meta_run import run_on_meta, unused_parameters
from detrex.modeling.backbone.inspection.stages import Stage, find_stages

from .activation_checkpointing import checkpoint_network
from .freezing import check_freeze_at
from .norms import Norm


@dataclass(frozen=True)
class TrainingPlan:
    """How a network is to be trained.

    Attributes:
        norm: what is done about its norms.
        freeze_at: number of stages to freeze, see `check_freeze_at`.
        grad_checkpointing: compute activations again in the backward pass.

    Raises:
        TypeError: `grad_checkpointing` is neither True nor False.
        BackboneError: `freeze_at` is no number of stages.
    """

    norm: Norm
    freeze_at: int = 0
    grad_checkpointing: bool = False

    def __post_init__(self) -> None:
        check_freeze_at(self.freeze_at)
        check_switches(grad_checkpointing=self.grad_checkpointing)

    def apply(
        self,
        network: nn.Module,
        spec: NetworkSpec,
        classifier: nn.Module | None = None,
        freeze_unused: bool = False,
        key: NetworkKey | None = None,
    ) -> tuple[tuple[Stage, ...], tuple[str, ...]]:
        """Convert norms, freeze stages and turn checkpointing on, in this order, in place.

        Args:
            network: has its weights.
            spec: what it gives and needs.
            classifier: what `network` was cut out of, which tells its stages; None for itself.
            freeze_unused: freeze parameters that no output depends on, too.
            key: of `network` and of `classifier`, under which to keep what is seen of their runs.

        Returns:
            What each ``freeze_at`` from 1 to 5 freezes, and the names of the modules that are
            frozen now.

        Raises:
            BackboneError: norms that cannot be frozen, or no blocks to checkpoint.
        """
        self.norm.convert(network, spec.name, spec.example_size, spec.in_channels)
        detail = ("stages", self.norm.frozen, self.norm.synced, freeze_unused)
        stages, unused = recall(
            key and key / detail, lambda: _seen_of(classifier or network, spec, freeze_unused)
        )
        frozen = stages[self.freeze_at - 1].freeze(network) if self.freeze_at > 0 else ()
        for name in unused:
            network.get_parameter(name).requires_grad_(False)
        if self.grad_checkpointing:
            checkpoint_network(network, spec.name)
        return stages, frozen


def _seen_of(
    network: nn.Module, spec: NetworkSpec, with_unused: bool
) -> tuple[tuple[Stage, ...], tuple[str, ...]]:
    """Find the stages of a network, and the parameters that no output depends on, by one run."""
    run = run_on_meta(network, [spec.example_size], spec.in_channels)
    unused = unused_parameters(run.twin, run.outputs) if with_unused else ()
    return tuple(find_stages(run)), tuple(unused)
