"""Which table of a checkpoint is meant: averages first, equal ones by name only."""

import numpy as np
import pytest
import torch

from detrex.checkpoint.reading.entries import (
    AVERAGE,
    holds_tensors,
    is_tensor,
    named_entry,
    same_tensors,
    split_entry,
    wanted_table,
)
from detrex.checkpoint.reading.state_dict import read_checkpoint, read_state_dict, tensors_of
from detrex.errors import CheckpointError


def table(value):
    return {"a.weight": torch.full((2, 3), float(value)), "a.bias": torch.zeros(2)}


RAW, AVERAGED = table(1), table(2)


@pytest.mark.parametrize(
    "content",
    [
        {"state_dict": RAW, "state_dict_ema": AVERAGED, "epoch": 3},
        {"state_dict_ema": AVERAGED, "state_dict": RAW, "optimizer": {"state": {0: RAW}}},
        {"model": RAW, "model_ema": AVERAGED},
        {"model": RAW, "ema": {"module": AVERAGED, "updates": 9}},
        {"model": RAW, "ema": AVERAGED},
        {"model": RAW, "ema_state": AVERAGED},
        {"model": RAW, "ema_state_dict": AVERAGED},
        {"ema": {"state_dict": AVERAGED}},
        {"net": RAW, "net_avg": AVERAGED},
        {"model": RAW, "swa_model": AVERAGED},
        {"model": {"state_dict": RAW, "state_dict_ema": AVERAGED}},
        {"ema_scheduler": table(3), "model": AVERAGED},
        {"state_dict": AVERAGED, "state_dict_ema": None},
        {"state_dict": AVERAGED, "model": RAW},
        {"state_dict_ema": AVERAGED, "model_ema": RAW, "model": RAW},
    ],
)
def test_wanted_table__an_average_is_taken(content):
    assert wanted_table(content, "w.pth") is AVERAGED


@pytest.mark.parametrize(
    "content",
    [
        RAW,
        {"model": RAW, "optimizer": {"state": {0: AVERAGED}}, "lr_scheduler": AVERAGED},
        {"weights_of_mine": RAW, "epoch": 1},
        {"teacher": RAW},
        {"model": {"net": RAW}},
        {"model": RAW, "trainer": {"optimizer": AVERAGED}, "iteration": 3},
        {"model": RAW, "discriminator": AVERAGED},
        {"a": RAW, "b": table(1)},
        {"blobs": RAW, "step": np.zeros(1)},
    ],
)
def test_wanted_table__the_only_one_that_it_can_be(content):
    got = wanted_table(content, "w.pth")
    assert same_tensors(got, RAW)


@pytest.mark.parametrize(
    ("content", "first", "second"),
    [
        ({"student": RAW, "teacher": AVERAGED}, "student", "teacher"),
        ({"model": RAW, "teacher": AVERAGED}, "model", "teacher"),
        ({"generator": RAW, "discriminator": AVERAGED}, "generator", "discriminator"),
        ({"model": {"online": RAW, "target": AVERAGED}}, "model.online", "model.target"),
        ({"ema_a": RAW, "ema_b": AVERAGED, "model": RAW}, "ema_a", "ema_b"),
    ],
)
def test_wanted_table__equal_ones_are_told_apart_by_name(content, first, second):
    with pytest.raises(
        CheckpointError, match=rf"w.pth holds several networks, '{first}', '{second}': name"
    ):
        wanted_table(content, "w.pth")
    assert same_tensors(named_entry(content, first, "w.pth"), RAW)
    assert same_tensors(named_entry(content, second, "w.pth"), AVERAGED)


def test_wanted_table__says_that_it_takes_an_average(caplog):
    with caplog.at_level("INFO"):
        wanted_table({"model": RAW, "model_ema": AVERAGED}, "w.pth")
    assert "w.pth: the average 'model_ema' is taken" in caplog.text
    assert "'#model'" in caplog.text


def test_named_entry__goes_on_into_the_names():
    content = {"model": {f"encoder_{k}.{n}": v for k in "qk" for n, v in table(k == "k").items()}}
    got = named_entry(content, "model.encoder_k", "w.pth")
    assert same_tensors(got, table(1))


@pytest.mark.parametrize(
    ("entry", "hint"),
    [("modle", "Did you mean 'model'"), ("model.x", "'model', 'ema', 'ema.module'"), ("epoch", "")],
)
def test_named_entry__not_there(entry, hint):
    content = {"model": RAW, "ema": {"module": AVERAGED}, "epoch": 3}
    with pytest.raises(CheckpointError, match=f"w.pth has no entry '{entry}' .*{hint}"):
        named_entry(content, entry, "w.pth")


def test_split_entry__of_paths_and_addresses(tmp_path):
    assert split_entry("a/w.pth#model.x") == ("a/w.pth", "model.x")
    assert split_entry("https://a/w.pth#teacher") == ("https://a/w.pth", "teacher")
    assert split_entry("a/w.pth") == ("a/w.pth", "")
    odd = tmp_path / "run#3"
    odd.touch()
    assert split_entry(str(odd)) == (str(odd), "")


def test_read_state_dict__names_its_entry(tmp_path):
    content = {"model": RAW, "model_ema": AVERAGED}
    torch.save(content, tmp_path / "w.pth")
    assert same_tensors(read_state_dict(tmp_path / "w.pth"), AVERAGED)
    assert same_tensors(read_state_dict(f"{tmp_path}/w.pth#model"), RAW)
    assert same_tensors(read_checkpoint(f"{tmp_path}/w.pth#model"), RAW)
    with pytest.raises(CheckpointError, match="Did you mean 'model_ema'"):
        read_state_dict(f"{tmp_path}/w.pth#model_em")


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("model_ema", True),
        ("EMA", True),
        ("ema.module", True),
        ("schema", False),
        ("avgpool", False),
    ],
)
def test_average__by_whole_words(name, expected):
    assert (AVERAGE.search(name) is not None) is expected


def test_holds_tensors__at_any_depth():
    assert holds_tensors({"a": {"b": np.zeros(1)}})
    assert not holds_tensors({"a": {"b": "c"}, "d": [torch.zeros(1)]})
    assert not is_tensor(np.array("text"))


def test_tensors_of__integer_keys_are_no_entries():
    with pytest.raises(CheckpointError, match="holds no tensors"):
        tensors_of({0: RAW})
