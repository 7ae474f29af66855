"""Two processes whose images differ as much as they can, against one process that sees them all."""

import pytest
import torch

from tests.reference.torchrun import run_two_ranks
from tests.reference.two_dinos import CASES, FAILURES, reference_gradients, write_data


@pytest.fixture(scope="module")
def seen(tmp_path_factory):
    """What each rank wrote, by name; one launch for all, since it costs seconds."""
    folder = tmp_path_factory.mktemp("two_dinos")
    write_data(folder)
    run_two_ranks("tests.reference.two_dinos", folder)
    return lambda name: [torch.load(folder / f"{name}{rank}.pth") for rank in (0, 1)]


@pytest.mark.parametrize("case", CASES)
def test_gradients__equal_on_both_ranks_and_to_one_process(seen, case):
    first, second = (of_rank[case] for of_rank in seen("gradients"))
    torch.testing.assert_close(first["gradients"], second["gradients"], rtol=0, atol=0)
    expected = reference_gradients(case)
    torch.testing.assert_close(first["gradients"], expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("case", CASES)
def test_exchanges__are_as_many_on_both_ranks_whatever_their_images(seen, case):
    expected = 1 if "dn_number" in CASES[case][1] else 2
    assert [of_rank[case]["exchanges"] for of_rank in seen("gradients")] == [expected] * 2


def test_train__random_crops_without_objects(seen):
    first, second = seen("crops")
    assert len(first["counts"]) == len(second["counts"]) == 60
    empty = [(a == 0, b == 0) for a, b in zip(first["counts"], second["counts"], strict=True)]
    assert len(set(empty)) == 4, "each rank is without objects, alone and with the other"
    assert first["weights"] == second["weights"]
    torch.testing.assert_close(first["average"], second["average"], rtol=0, atol=0)
    assert first["losses"] == second["losses"]
    own = torch.tensor([first["own"], second["own"]]).view(2, 30, 2)
    recorded = torch.tensor([value for value, _ in first["losses"]["total_loss"]])
    torch.testing.assert_close(recorded, own.mean((0, 2)), rtol=1e-4, atol=0)


def test_evaluation__rank_without_images(seen):
    first, second = seen("metrics")
    assert "AP" in first["bbox"]
    assert second == {}


@pytest.mark.parametrize("steps", [1, 2])
@pytest.mark.parametrize("failure", FAILURES)
def test_train__error_of_one_rank_stops_both(seen, failure, steps):
    first, second = (of_rank[f"{failure.__name__} {steps}"] for of_rank in seen("failures"))
    own, sentence = {
        "_broken_file": ("OSError", "cannot read picture.png"),
        "_broken_record": ("ConfigError", "the record of picture.png has no boxes"),
        "_not_a_number": ("NonFiniteLossError", "on rank 1: The matcher got target boxes with 2 "),
        "_unknown_class": ("ValueError", "class 99"),
        "_infinite_image": ("NonFiniteLossError", "the loss loss_class became nan on rank 1"),
    }[failure.__name__]
    assert second[0] == own
    assert sentence in second[1]
    if own in ("OSError", "ValueError"):
        assert first[0] == "RuntimeError"
        assert first[1].startswith("Rank 1 stopped:\nTraceback")
        assert sentence in first[1]
    else:
        assert first == second


def test_train__losses_that_differ_between_ranks(seen):
    first, second = (of_rank["OtherNames"] for of_rank in seen("failures"))
    assert first == second
    assert "ranks 0 and 1 have different losses, loss_extra on one of them only" in first[1]


def test_train__error_that_is_wrapped_where_it_is_heard(seen):
    first, second = (of_rank["BrokenBeforeCounting"] for of_rank in seen("failures"))
    assert first == ("KeyError", "'wrapped'")
    assert second[0] == "NonFiniteLossError"
    assert second[1].endswith("on rank 1: the images are broken.")
