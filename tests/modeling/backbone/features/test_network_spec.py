"""What both libraries say of a network in one form: the same network has the same."""

from detrex.modeling.backbone.timm_backbone import spec as of_timm
from detrex.modeling.backbone.torchvision_backbone import spec as of_torchvision
from detrex.modeling.backbone.torchvision_backbone.builder import build_classifier


def test_network_spec__is_that_of_the_network_and_not_of_its_library():
    ours = of_timm.inspect_network("resnet18", {"in_chans": 4})
    network = build_classifier("resnet18").requires_grad_(False)
    network.conv1.weight.data = network.conv1.weight.data[:, [0, 1, 2, 0]]
    network.conv1.in_channels = 4
    theirs = of_torchvision.inspect_network(network, "torchvision's 'resnet18'", in_channels=4)
    last = [{f.stride: (f.channels, f.layout) for f in s.features} for s in (ours, theirs)]
    assert last[0] == last[1]
    assert ours.input_size == theirs.input_size
    assert ours.statistics == theirs.statistics
    assert ours.in_channels == theirs.in_channels == 4
    assert (ours.name, theirs.name) == ("timm's 'resnet18'", "torchvision's 'resnet18'")
