"""Learning-rate factors by parameter name, as named functions, so that saved configs load again."""


def backbone_lr_factor(name: str, factor: float = 0.1) -> float:
    """Slow the backbone down: what DETR and its kin do (arXiv 2005.12872).

    Args:
        name: a parameter's name in the detector, e.g. ``"backbone.res2.0.conv1.weight"``.
        factor: the share of the learning rate that the backbone gets.

    Returns:
        ``factor`` where the name contains ``"backbone"``, else 1.

    Example:
        >>> backbone_lr_factor("backbone.stem.conv1.weight")
        0.1
    """
    return factor if "backbone" in name else 1.0
