import pytest
import torch
from torch import nn

from detrex.layers import box_cxcywh_to_xyxy
from detrex.layers.denoising import (
    apply_contrastive_box_noise,
    apply_label_noise,
    denoising_attention_mask,
)
from detrex.modeling.dino.denoising import denoising_queries
from detrex.utils import inverse_sigmoid


def _targets(counts, num_classes=7):
    return [
        {
            "labels": torch.randint(num_classes, (count,)),
            "boxes": torch.rand(count, 4) * 0.3 + 0.3,
        }
        for count in counts
    ]


def _make(counts, dn_number=10, label_noise_ratio=0.0, box_noise_scale=0.0, num_queries=13):
    targets, embedding = _targets(counts), nn.Embedding(7, 6)
    queries = denoising_queries(
        targets,
        embedding,
        dn_number=dn_number,
        num_queries=num_queries,
        label_noise_ratio=label_noise_ratio,
        box_noise_scale=box_noise_scale,
    )
    return targets, embedding, queries


@pytest.mark.parametrize(("groups", "group_size", "matching"), [(1, 2, 3), (3, 4, 5), (2, 10, 1)])
def test_denoising_attention_mask__by_definition(groups, group_size, matching):
    mask = denoising_attention_mask(groups, group_size, matching, "cpu")
    denoising = groups * group_size
    assert mask.shape == (denoising + matching, denoising + matching)
    for row in range(len(mask)):
        for column in range(len(mask)):
            if column >= denoising:
                hidden = False
            elif row >= denoising:
                hidden = True
            else:
                hidden = row // group_size != column // group_size
            assert bool(mask[row, column]) == hidden


@pytest.mark.parametrize(
    ("dn_number", "counts", "groups"),
    [(10, (3, 5), 2), (10, (3, 0, 1), 3), (1, (5, 2), 1), (100, (1,), 100)],
)
def test_denoising_queries__layout_without_noise(dn_number, counts, groups):
    targets, embedding, queries = _make(counts, dn_number)
    most = max(counts)
    assert (queries.num_groups, queries.group_size) == (groups, 2 * most)
    assert queries.content.shape == (len(counts), groups * 2 * most, 6)
    assert queries.attention_mask.shape[0] == queries.num_queries + 13
    for image, target in enumerate(targets):
        for half in range(2 * groups):
            for slot in range(most):
                content = queries.content[image, half * most + slot]
                box = queries.boxes_unact[image, half * most + slot]
                if slot < counts[image]:
                    expected = embedding.weight[target["labels"][slot]]
                    torch.testing.assert_close(content, expected, rtol=0, atol=0)
                    expected = inverse_sigmoid(target["boxes"][slot])
                    torch.testing.assert_close(box, expected, rtol=1e-5, atol=1e-6)
                else:
                    assert not content.any()
                    assert not box.any()


@pytest.mark.parametrize(("dn_number", "counts"), [(0, (3, 5)), (-1, (2,)), (10, (0, 0)), (10, ())])
def test_denoising_queries__nothing_to_denoise(dn_number, counts):
    assert _make(counts, dn_number)[2] is None


def _play_other_process(monkeypatch, most):
    """Another process whose fullest image has that many objects; collects what it is told."""
    told = []
    monkeypatch.setattr(
        "detrex.modeling.dino.denoising.exchange", lambda own: [told.append(own) or own, most]
    )
    return told


@pytest.mark.parametrize(("counts", "most", "groups"), [((3, 5), 9, 2), ((3, 5), 0, 2)])
def test_denoising_queries__layout_follows_the_objects_of_the_process(
    monkeypatch, counts, most, groups
):
    told = _play_other_process(monkeypatch, most)
    _, _, queries = _make(counts)
    assert told == [5]
    assert (queries.num_groups, queries.group_size) == (groups, 10)


def test_denoising_queries__process_without_objects_pads_as_the_others_do(monkeypatch):
    told = _play_other_process(monkeypatch, 3)
    _, embedding, queries = _make((0, 0), label_noise_ratio=0.5, box_noise_scale=1.0)
    assert told == [0]
    assert (queries.num_groups, queries.group_size) == (3, 6)
    assert queries.content.shape == (2, 18, 6)
    assert queries.boxes_unact.shape == (2, 18, 4)
    assert not queries.content.any()
    assert not queries.boxes_unact.any()
    expected = denoising_attention_mask(3, 6, 13, "cpu")
    torch.testing.assert_close(queries.attention_mask, expected)
    queries.content.sum().backward()
    assert not embedding.weight.grad.any()


def test_denoising_queries__none_is_wanted_none_is_asked(monkeypatch):
    told = _play_other_process(monkeypatch, 3)
    assert _make((2,), dn_number=0)[2] is None
    assert not told


def test_denoising_queries__negative_half_lies_further_off():
    boxes = torch.rand(5, 4) * 0.2 + torch.tensor([0.4, 0.4, 0.2, 0.2])
    target = {"labels": torch.zeros(5, dtype=torch.int64), "boxes": boxes}
    queries = denoising_queries(
        [target], nn.Embedding(7, 6), dn_number=50, num_queries=3, box_noise_scale=0.4
    )
    noised = box_cxcywh_to_xyxy(queries.boxes_unact[0].sigmoid()).view(10, 2, 5, 4)
    half = boxes[:, [2, 3, 2, 3]] / 2
    share = (noised - box_cxcywh_to_xyxy(boxes)).abs() / half / 0.4
    assert share[:, 0].max() < 1.001
    assert share[:, 1].min() > 0.999
    assert share[:, 1].max() < 2.001


def test_denoising_queries__half_of_the_ratio_draws_labels_anew():
    target = {"labels": torch.full((50,), 3), "boxes": torch.rand(50, 4) * 0.3 + 0.3}
    embedding = nn.Embedding(7, 6)
    queries = denoising_queries(
        [target] * 40, embedding, dn_number=100, num_queries=1, label_noise_ratio=0.8
    )
    kept = (queries.content == embedding.weight[3]).all(-1).float().mean().item()
    # 8000 labels: a standard deviation of 0.005. A label drawn anew is another one six times of 7.
    assert kept == pytest.approx(1 - 0.4 * 6 / 7, abs=0.03)


def test_denoising_queries__gradient_reaches_the_embedding():
    _, embedding, queries = _make((2, 3), label_noise_ratio=0.5, box_noise_scale=1.0)
    queries.content.square().sum().backward()
    assert embedding.weight.grad.abs().sum() > 0


def test_apply_label_noise__share_and_purity():
    labels = torch.full((20000,), 3)
    flipped = apply_label_noise(labels, 0.25, 4)
    assert (labels == 3).all()
    assert pytest.approx((flipped != 3).float().mean().item(), abs=0.01) == 0.25 * 3 / 4
    assert flipped.unique().tolist() == [0, 1, 2, 3]


def test_apply_contrastive_box_noise__clamps_to_the_image():
    boxes = torch.tensor([[0.5, 0.5, 1.0, 1.0], [0.05, 0.9, 0.1, 0.2]]).repeat(500, 1)
    shifted = box_cxcywh_to_xyxy(
        apply_contrastive_box_noise(boxes, torch.ones(1000, dtype=torch.bool), 1.0)
    )
    assert shifted.min() >= -1e-6
    assert shifted.max() <= 1 + 1e-6


def test_metas__names_of_the_criterion():
    _, _, queries = _make((2, 1), dn_number=4)
    outputs = {"pred_logits": torch.zeros(1)}
    assert queries.metas(outputs) == {
        "single_padding": 4,
        "dn_num": 2,
        "output_known_lbs_bboxes": outputs,
    }
