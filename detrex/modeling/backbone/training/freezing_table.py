"""What of a backbone is frozen and what learns, counted by level, for the log."""

from collections.abc import Sequence

from torch import nn

from .freezing import FreezePlan

_STEM = "stem"
_REST = "other"
MADE = "made levels"


def freezing_table(
    network: nn.Module, stages: Sequence[FreezePlan], made: nn.Module | None = None
) -> str:
    """Count the parameters of each stage that are frozen and that are trainable.

    Args:
        network: the network, frozen as it is.
        stages: its stages, as `plan_stages` found them; names are the network's.
        made: what is made of its maps, a level of its own.

    Returns:
        Lines of a table: level, frozen parameters, trainable parameters; the buffers of frozen
        norms are no parameters and are not counted. Levels without parameters are left out.
    """
    names = [_STEM, *(f"stage {stage}" for stage in range(1, len(stages)))]
    counts = {name: [0, 0] for name in [*names, _REST, MADE]}
    for parameter_name, parameter in network.named_parameters():
        held = (n for n, stage in zip(names, stages, strict=True) if stage.holds(parameter_name))
        counts[next(held, _REST)][int(parameter.requires_grad)] += parameter.numel()
    for parameter in made.parameters() if made is not None else ():
        counts[MADE][int(parameter.requires_grad)] += parameter.numel()
    rows = [(name, *count) for name, count in counts.items() if sum(count)]
    total = ("all", *(sum(column) for column in zip(*(row[1:] for row in rows), strict=True)))
    lines = [("level", "frozen", "trainable")]
    lines += [(name, f"{cold:,}", f"{warm:,}") for name, cold, warm in [*rows, total]]
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    return "\n".join(
        "  ".join([line[0].ljust(widths[0]), *map(str.rjust, line[1:], widths[1:])])
        for line in lines
    )
