import pytest
import timm
import torch
import torchvision

from detrex.checkpoint.matching.key_matching import (
    best_match,
    foreign_names,
    skipped_blocks,
    weight_names,
)
from detrex.errors import CheckpointError


def named(*names):
    return {name: torch.zeros(index + 1) for index, name in enumerate(names)}


def test_best_match__most_tensors_of_equal_shape():
    wanted = named("net.a.weight", "net.b.weight")
    file = {"x." + name.removeprefix("net."): value for name, value in wanted.items()}
    file |= {"y.a.weight": torch.zeros(9), "y.b.weight": torch.zeros(9)}
    pairing = best_match(wanted, file)
    assert pairing.pairs == {"net.a.weight": "x.a.weight", "net.b.weight": "x.b.weight"}
    assert str(pairing) == "same names, 'x.' taken off, 'net.' put on"
    assert pairing.score == 2


def test_best_match__shortest_prefixes_of_equal_ones():
    wanted = named("a.weight", "b.weight")
    pairing = best_match(wanted, wanted)
    assert str(pairing) == "same names"
    assert pairing.pairs == {name: name for name in wanted}


def test_best_match__nothing_in_common():
    pairing = best_match(named("a.weight", "b.weight"), {"x.y": torch.zeros(9)})
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


def test_foreign_names__of_a_network_that_ends_early():
    """As of a ViT whose first block's map is asked for alone; nothing of what is used differs."""
    tensor = torch.zeros(3)
    file = {f"blocks.{i}.{name}": tensor for i in range(12) for name in ("a", "mlp.0.weight")}
    assert foreign_names(file, ["blocks.0.a", "blocks.0.mlp.0.weight"]) == []
    file |= {f"blocks.{i}.gate.weight": tensor for i in range(12)}
    used = ["blocks.0.a", "blocks.0.mlp.0.weight", "blocks.1.a", "blocks.1.mlp.0.weight"]
    assert foreign_names(file, used) == ["blocks.0.gate.weight", "blocks.1.gate.weight"]


def test_skipped_blocks__of_a_file_in_alphabetical_order():
    """As safetensors' are; what the module has before its blocks comes behind them there."""
    blocks = [f"encoder.layers.{i}.a" for i in range(3)]
    file = [*blocks, "post_norm.weight", "pre_norm.weight"]
    assert skipped_blocks(file, ["pre_norm.weight", *blocks[:2]]) == []
    used = ["pre_norm.weight", *blocks[:2], "post_norm.weight"]
    assert skipped_blocks(file, used) == ["encoder.layers."]


def test_skipped_blocks__of_a_block_that_has_more():
    file = ["blocks.0.a", "blocks.0.mask_token", "blocks.1.a", "norm.weight"]
    assert skipped_blocks(file, [file[0], *file[2:]]) == []


def test_weight_names__without_counters_and_rotary_tables():
    names = ["a.weight", "a.num_batches_tracked", "rope_glb.freqs_cos", "b.rope.freqs_sin", "freqs"]
    assert weight_names(names) == ["a.weight", "freqs"]


def prefixed(prefix, value):
    return {f"{prefix}{name}": torch.full((3,), float(value)) for name in ("a.weight", "b.weight")}


@pytest.mark.parametrize("values", [(1, 2), (1, 2, 3)])
def test_best_match__several_networks_in_one_table(values):
    wanted = {name: torch.zeros(3) for name in ("a.weight", "b.weight")}
    file = {}
    for prefix, value in zip(("student.", "teacher.", "target."), values, strict=False):
        file |= prefixed(prefix, value)
    with pytest.raises(CheckpointError, match=r"holds . networks that fit, under .*'student.'"):
        best_match(wanted, file, source="w.pth")


@pytest.mark.parametrize(
    ("first", "second", "expected"),
    [("model.", "model_ema.", "model_ema."), ("net.", "ema.net.", "ema.net."), ("", "ema.", "")],
)
def test_best_match__average_in_one_table(first, second, expected):
    wanted = {name: torch.zeros(3) for name in ("a.weight", "b.weight")}
    pairing = best_match(wanted, prefixed(first, 1) | prefixed(second, 2))
    assert pairing.pairs["a.weight"] == f"{expected}a.weight"


def test_best_match__two_averages_in_one_table():
    wanted = {name: torch.zeros(3) for name in ("a.weight", "b.weight")}
    with pytest.raises(CheckpointError, match="holds 2 networks that fit"):
        best_match(wanted, prefixed("ema.x.", 1) | prefixed("ema.y.", 2))


def test_best_match__two_copies_of_the_same():
    wanted = {name: torch.zeros(3) for name in ("a.weight", "b.weight")}
    pairing = best_match(wanted, prefixed("x.", 1) | prefixed("y.", 1))
    assert pairing.score == 2


@pytest.mark.parametrize(
    ("ours", "theirs"),
    [
        ("a._orig_mod.b.weight", "a.b.weight"),
        ("a.b.weight", "module.a.module.b.weight"),
        ("a.module.b.weight", "x.a.b.weight"),
    ],
)
def test_best_match__wrappers_anywhere(ours, theirs):
    pairing = best_match({ours: torch.zeros(3)}, {theirs: torch.zeros(3)})
    assert pairing.pairs == {ours: theirs}


@pytest.mark.parametrize(
    ("theirs", "fits"), [("stages.0.b_c.weight", True), ("stages.0.b.c.weight", False)]
)
def test_best_match__separators_of_the_first_part_alone(theirs, fits):
    wanted = {"stages_0.b_c.weight": torch.zeros(3), "stem.weight": torch.zeros(3)}
    pairing = best_match(wanted, {theirs: torch.zeros(3), "stem.weight": torch.zeros(3)})
    assert ("stages_0.b_c.weight" in pairing.pairs) is fits


def test_foreign_names__blocks_of_another_kind():
    file = timm.create_model("seresnet18").state_dict()
    used = set(torchvision.models.resnet18().state_dict())
    assert {name.split(".")[2] for name in foreign_names(file, used)} == {"se"}
    assert foreign_names({name: file[name] for name in used if name in file}, used) == []


def test_foreign_names__network_cut_within_a_block():
    file = torchvision.models.resnet18().state_dict()
    used = [name for name in file if not name.startswith(("layer4", "layer3.1.conv2", "fc"))]
    assert foreign_names(file, used) == []


def test_best_match__thousands_of_prefixes():
    """Each of them is tried, in a time that grows with the names and not with their square."""
    wanted = {f"{i}.weight": torch.zeros(3) for i in range(5)}
    tensors = {f"p{n}.{name}": torch.zeros(4) for n in range(3000) for name in wanted}
    tensors |= {f"right.{name}": torch.ones(3) for name in wanted}
    match = best_match(wanted, tensors)
    assert (match.strip, match.score) == ("right.", 5)
    assert match.pairs == {name: f"right.{name}" for name in wanted}
