"""The names of Detectron's Caffe2 files, as detectron2's model zoo has them."""

import re
from collections.abc import Iterable, Mapping

import torch
from torch import Tensor

_FROZEN_NORM_EPS = 1e-5


def is_caffe2(names: Iterable[object]) -> bool:
    """Tell Detectron's Caffe2 names (``res2_0_branch2a_w``), which have no dots."""
    texts = [str(name) for name in names]
    ends = re.compile(r"_(w|b|s|rm|riv)$")
    return not any("." in text for text in texts) and any(map(ends.search, texts))


def from_caffe2(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Rename Detectron's Caffe2 weights as detectron2 does.

    Args:
        tensors: weights with names such as ``res2_0_branch2a_w`` and ``res2_0_branch2a_bn_s``.

    Returns:
        The weights under detectron2's names, momenta left out. Such files hold batch norms folded
        to a scale and a shift; they get the statistics of the identity (mean 0, variance
        1 - 1e-5), which give the same numbers with detectron2's frozen batch norm.
    """
    from detectron2.checkpoint.c2_model_loading import convert_c2_detectron_names

    kept = {name: value for name, value in tensors.items() if not name.endswith("_momentum")}
    renamed, origins = convert_c2_detectron_names(kept)
    result = dict(renamed)
    for name, value in renamed.items():
        if origins[name].endswith("_bn_s"):
            stem = name.removesuffix("weight")
            result.setdefault(f"{stem}running_mean", torch.zeros_like(value))
            result.setdefault(f"{stem}running_var", torch.full_like(value, 1 - _FROZEN_NORM_EPS))
    return result
