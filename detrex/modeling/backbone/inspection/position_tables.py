"""Tables of relative positions that a forward reads by values, which ``meta`` does not see.

A table of n positions along a side has 2n - 1 rows, one for each difference of two positions.
A network that indexes it by differences that it computes from the image (MViTv2, arXiv:2112.01526)
raises for a larger image where there are values, and reads wrong rows for a smaller one; on
``meta`` both pass.
"""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

from .meta_run import SizeRefusedError


class RefuseOtherPositions(TorchDispatchMode):
    """Within it, a network is refused an image for which its tables have other than 2n - 1 rows.

    Only a parameter that is indexed by a whole grid of computed differences counts: an index that
    is a buffer of the network's belongs to a window of one size, and what is resampled first fits.

    Args:
        network: what runs within the ``with`` block.
    """

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self._tables = {id(table): name for name, table in network.named_parameters()}
        self._constants = {b.untyped_storage()._cdata for b in network.buffers()}

    def __torch_dispatch__(
        self, func: Any, types: Any, args: Sequence[Any] = (), kwargs: Any = None
    ) -> Any:
        """Run an operation, unless it is such a reading.

        Raises:
            SizeRefusedError: a table was made for another number of positions.
        """
        if func is torch.ops.aten.index.Tensor and id(args[0]) in self._tables:
            self._check(args[0], args[1])
        # On meta it is computed step by step, which takes longer than all of the rest.
        if func is torch.ops.aten.upsample_bicubic2d.default and args[0].is_meta:
            return args[0].new_empty((*args[0].shape[:2], *args[1]))
        return func(*args, **(kwargs or {}))

    def _check(self, table: Tensor, indices: Sequence[Tensor | None]) -> None:
        index = indices[0]
        if len(indices) != 1 or index is None or index.dim() != 2 or index.dtype != torch.int64:
            return
        if index.untyped_storage()._cdata in self._constants:
            return
        positions = max(index.shape)
        if len(table) != 2 * positions - 1:
            raise SizeRefusedError(
                f"the table {self._tables[id(table)]} has {len(table)} rows, and {positions} "
                f"positions along a side need {2 * positions - 1}"
            )
