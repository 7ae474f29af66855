"""Files of a network alone that are to start a detector: whether they are of its network."""

import posixpath
import re
from collections.abc import Callable, Mapping

from torch import Tensor, nn

from detrex.checkpoint.report import LoadReport, examples, is_of_pyramid
from detrex.errors import CheckpointError

NETWORK_SHARE = 0.9
"""The share of a network's tensors that its weights must fill."""

# Relative positions, residual blocks behind attention and offsets of deformable convolutions start
# as nothing: a detector adds them to a network that was trained without.
_ADDED = re.compile(r"(^|\.)(rel_pos_[hw]|residual\..*|conv\d?_offset\.(weight|bias))$")
_MOST_NAMES = 2


def check_network(
    network: nn.Module,
    report: LoadReport,
    path: str,
    tensors: Mapping[str, Tensor],
    hint: Callable[[Mapping[str, Tensor]], str] | None = None,
) -> None:
    """Refuse the file of another network, such as a deeper or a wider one of the same family.

    Levels that the detector makes of the network's maps are not counted, nor what it adds to the
    network that starts as nothing (relative positions, offsets of deformable convolutions).

    Args:
        network: the part of a detector that maps images.
        report: how the file fits it.
        path: the network's name in the detector.
        tensors: the file's tensors by name.
        hint: says from them which network the file is of.

    Raises:
        CheckpointError: less than `NETWORK_SHARE` of the network's tensors get a value.
    """
    if not report.matched:
        return
    # A pyramid may hold the network under any name, which what fits then has in common.
    start = posixpath.commonpath([name.replace(".", "/") for name in report.matched])
    missing, mismatched, matched = (
        [name for name in names if _is_due(name, start.replace("/", "."))]
        for names in (report.missing, report.mismatched, report.matched)
    )
    missing = [name for name in missing if not _ADDED.search(name)]
    due = len(missing) + len(mismatched) + len(matched)
    if len(matched) >= NETWORK_SHARE * due:
        return
    said = [f"it has nothing for {examples(missing, _MOST_NAMES)}"] if missing else []
    if mismatched:
        theirs, ours = report.shapes[report.mismatched.index(mismatched[0])]
        said.append(
            f"other shapes for {examples(mismatched, _MOST_NAMES)} ({theirs} there, {ours} here)"
        )
    cure = "" if hint is None else hint(tensors)
    raise CheckpointError(
        f"{report.source} is of another network than {path}, {type(network).__name__}: "
        f"{len(matched)} of {due} tensors got a value and at least {NETWORK_SHARE:.0%} must; "
        f"{' and '.join(said)}: {cure or 'give a file of the same architecture'}"
    )


def _is_due(name: str, start: str) -> bool:
    return f"{name}.".startswith(f"{start}." if start else "") and not is_of_pyramid(name)
