import torch
import torchvision

from detrex.checkpoint.pairing import best_pairing, skipped_blocks, without_counters


def named(*names):
    return {name: torch.zeros(index + 1) for index, name in enumerate(names)}


def test_best_pairing__most_tensors_of_equal_shape():
    wanted = named("net.a.weight", "net.b.weight")
    file = {"x." + name.removeprefix("net."): value for name, value in wanted.items()}
    file |= {"y.a.weight": torch.zeros(9), "y.b.weight": torch.zeros(9)}
    pairing = best_pairing(wanted, file)
    assert pairing.pairs == {"net.a.weight": "x.a.weight", "net.b.weight": "x.b.weight"}
    assert str(pairing) == "same names, 'x.' taken off, 'net.' put on"
    assert pairing.score == 2


def test_best_pairing__shortest_prefixes_of_equal_ones():
    wanted = named("a.weight", "b.weight")
    pairing = best_pairing(wanted, wanted)
    assert str(pairing) == "same names"
    assert pairing.pairs == {name: name for name in wanted}


def test_best_pairing__nothing_in_common():
    pairing = best_pairing(named("a.weight", "b.weight"), {"x.y": torch.zeros(9)})
    assert pairing.score == 0


def test_skipped_blocks__of_a_deeper_network():
    resnet101 = torchvision.models.resnet101().state_dict()
    resnet50 = torchvision.models.resnet50().state_dict()
    assert skipped_blocks(resnet101, resnet50) == ["layer3."]
    assert skipped_blocks(resnet50, resnet50) == []


def test_skipped_blocks__a_file_that_goes_on():
    file = ["stem.weight", "blocks.0.a", "blocks.1.a", "blocks.2.a", "head.0.weight"]
    assert skipped_blocks(file, file[:2]) == []
    assert skipped_blocks(file, [*file[:2], file[-1]]) == ["blocks."]


def test_without_counters__of_batches():
    assert without_counters(["a.weight", "a.num_batches_tracked"]) == ["a.weight"]
