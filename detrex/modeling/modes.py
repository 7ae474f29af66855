"""Training and evaluation mode of each module by itself."""

from collections.abc import Iterable

from torch import fx, nn


def set_modes(modes: Iterable[tuple[nn.Module, bool]]) -> None:
    """Put modules into modes of their own, where ``train()`` gives one to all that are inside.

    Args:
        modes: modules and whether they are to train, each before those inside it, as
            ``model.modules()`` lists them.
    """
    for module, training in modes:
        if isinstance(module, fx.GraphModule):  # torchvision's have a graph for each mode
            module.train(training)
        module.training = training
