"""Nodes found by a look, against the tensors that torchvision's modules give."""

import pytest
import torchvision

from detrex.errors import BackboneError
from detrex.modeling.backbone.torchvision_backbone.nodes import (
    DEFAULT_RETURN_NODES,
    cut_at,
    node_names,
    nodes_by_mode,
)


def classifier(name, **kwargs):
    return torchvision.models.get_model(name, weights=None, **kwargs).eval()


@pytest.mark.parametrize("nodes", ["layer1", 3])
def test_nodes_by_mode__neither_dictionary_nor_list(nodes):
    with pytest.raises(TypeError, match="return nodes must be a dictionary such as"):
        nodes_by_mode(nodes, None, None)


@pytest.mark.parametrize("nodes", [[], ["layer1", "layer1"], {"layer1": "a", "layer2": "a"}])
def test_nodes_by_mode__each_output_once(nodes):
    with pytest.raises(BackboneError, match="at least one output, and each output once"):
        nodes_by_mode(nodes, None, None)


def test_nodes_by_mode__contradictions():
    nodes = {"layer1": "a"}
    assert nodes_by_mode(DEFAULT_RETURN_NODES, nodes, {"layer2": "a"}) == (nodes, {"layer2": "a"})
    with pytest.raises(BackboneError, match="belong together, got only one"):
        nodes_by_mode(None, nodes, None)
    with pytest.raises(BackboneError, match="leave one kind out"):
        nodes_by_mode({"layer3": "b"}, nodes, nodes)
    with pytest.raises(BackboneError, match="must give the same output names"):
        nodes_by_mode(None, nodes, {"layer1": "b"})
    with pytest.raises(BackboneError, match="each output once"):
        nodes_by_mode({"layer1": "a", "layer2": "a"}, None, None)


def test_cut_at__names_near_nodes():
    wrong = {"layer5": "p5"}
    with pytest.raises(BackboneError, match=r"'resnet18' has no node 'layer5'\. Did you mean"):
        cut_at("resnet18", classifier("resnet18"), (wrong, wrong), None, False)


def test_node_names__of_both_modes():
    training, evaluation = node_names(classifier("resnet18"))
    assert training == evaluation
    assert training[0] == "x"
