"""How different libraries name the same weights.

Each function turns one tensor's name from one family into another and leaves alone what it does not
know, so that a name may stand behind any prefix (``backbone.body.layer1...``). Which family and
which prefix a file has is not asked of the user: `detrex.checkpoint.loading` tries them.
"""

import re
from collections.abc import Callable, Mapping

_TORCHVISION_BLOCK = re.compile(r"(^|\.)layer([1-4])\.(\d+)\.(.+)$")
_DETECTRON2_BLOCK = re.compile(r"(^|\.)res([2-5])\.(\d+)\.(.+)$")

# The separators only: timm's feature networks name the parts of a sequence `stages_0`, and its
# classifiers `stages.0`.
_SEPARATORS = str.maketrans(".", "_")


def same(name: str) -> str:
    """Keep a name as it is."""
    return name


def torchvision_to_detectron2(name: str) -> str:
    """Rename a tensor of a torchvision or timm ResNet as detectron2's ResNet has it.

    ``layer1.0.bn2.weight`` becomes ``res2.0.conv2.norm.weight``, ``layer1.0.downsample.0.weight``
    ``res2.0.shortcut.weight``, ``bn1.bias`` ``stem.conv1.norm.bias``.
    """
    if block := _TORCHVISION_BLOCK.search(name):
        start, stage, index, rest = block.groups()
        rest = re.sub(r"^bn(\d)\.", r"conv\1.norm.", rest)
        rest = re.sub(r"^downsample\.0\.", "shortcut.", rest)
        rest = re.sub(r"^downsample\.1\.", "shortcut.norm.", rest)
        return f"{name[: block.start()]}{start}res{int(stage) + 1}.{index}.{rest}"
    name = re.sub(r"(^|\.)conv1\.(weight|bias)$", r"\1stem.conv1.\2", name)
    return re.sub(r"(^|\.)bn1\.(\w+)$", r"\1stem.conv1.norm.\2", name)


def detectron2_to_torchvision(name: str) -> str:
    """Rename a tensor of detectron2's ResNet as torchvision and timm have it.

    The reverse of `torchvision_to_detectron2`.
    """
    if block := _DETECTRON2_BLOCK.search(name):
        start, stage, index, rest = block.groups()
        rest = re.sub(r"^conv(\d)\.norm\.", r"bn\1.", rest)
        rest = re.sub(r"^shortcut\.norm\.", "downsample.1.", rest)
        rest = re.sub(r"^shortcut\.(weight|bias)$", r"downsample.0.\1", rest)
        return f"{name[: block.start()]}{start}layer{int(stage) - 1}.{index}.{rest}"
    name = re.sub(r"(^|\.)stem\.conv1\.norm\.(\w+)$", r"\1bn1.\2", name)
    return re.sub(r"(^|\.)stem\.conv1\.(weight|bias)$", r"\1conv1.\2", name)


def of_old_densenet(name: str) -> str:
    """Rename a tensor of torchvision's DenseNet files, written by torch 0.2, as its network has it.

    ``features.denseblock1.denselayer1.norm.1.weight`` becomes ``...denselayer1.norm1.weight``.
    """
    return re.sub(r"(denselayer\d+\.(?:norm|conv))\.([12])\.", r"\1\2.", name)


KEY_CONVERSIONS: Mapping[str, Callable[[str], str]] = {
    "same names": same,
    "torchvision to detectron2 ResNet names": torchvision_to_detectron2,
    "detectron2 to torchvision ResNet names": detectron2_to_torchvision,
    "names of torchvision's old DenseNet files": of_old_densenet,
}


def flat(name: str) -> str:
    """Write a name without the difference between ``stages.0.`` and ``stages_0.``."""
    return name.translate(_SEPARATORS)
