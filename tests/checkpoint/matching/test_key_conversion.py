import re

import pytest
import torchvision

from detrex.checkpoint.matching.key_conversion import (
    detectron2_to_torchvision,
    flat,
    of_old_densenet,
    torchvision_to_detectron2,
)

PAIRS = [
    ("conv1.weight", "stem.conv1.weight"),
    ("bn1.running_var", "stem.conv1.norm.running_var"),
    ("layer1.0.conv2.weight", "res2.0.conv2.weight"),
    ("layer4.2.bn3.bias", "res5.2.conv3.norm.bias"),
    ("layer3.10.downsample.0.weight", "res4.10.shortcut.weight"),
    ("layer3.10.downsample.1.num_batches_tracked", "res4.10.shortcut.norm.num_batches_tracked"),
    ("fc.weight", "fc.weight"),
]


@pytest.mark.parametrize("prefix", ["", "backbone.0.body.", "encoder_q."])
@pytest.mark.parametrize(("torchvision_name", "detectron2_name"), PAIRS)
def test_resnet_names__both_ways_behind_any_prefix(prefix, torchvision_name, detectron2_name):
    assert torchvision_to_detectron2(prefix + torchvision_name) == prefix + detectron2_name
    assert detectron2_to_torchvision(prefix + detectron2_name) == prefix + torchvision_name


@pytest.mark.parametrize("name", ["mylayer1.0.conv2.weight", "layer5.0.conv2.bias", "xconv1.bias"])
def test_torchvision_to_detectron2__other_names_stay(name):
    assert torchvision_to_detectron2(name) == name


def test_resnet_names__round_trip_of_a_whole_network():
    names = list(torchvision.models.resnet18().state_dict())
    there = [torchvision_to_detectron2(name) for name in names]
    assert len(set(there)) == len(names)
    assert [detectron2_to_torchvision(name) for name in there] == names


def test_flat__separators_do_not_count():
    assert flat("stages.0.blocks.1.norm1.weight") == flat("stages_0.blocks.1.norm1.weight")


def test_of_old_densenet__as_torchvision_renames_it():
    network = torchvision.models.densenet121()
    names = list(network.state_dict())
    old = [re.sub(r"(denselayer\d+\.(?:norm|conv))([12])\.", r"\1.\2.", name) for name in names]
    assert old != names
    assert [of_old_densenet(name) for name in old] == names
    assert [of_old_densenet(name) for name in names] == names
