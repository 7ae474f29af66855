"""Denoising queries, against their definitions."""

import pytest
import torch

from detrex.layers import GenerateDNQueries, apply_box_noise, apply_label_noise
from detrex.layers.denoising import (
    GenerateCDNQueries,
    apply_contrastive_box_noise,
    denoising_attention_mask,
    spread_over_images,
)
from detrex.utils import inverse_sigmoid
from tests.reference.predictions import random_boxes, random_targets

COUNTS = (3, 0, 5)


def _lists(counts=COUNTS):
    targets = random_targets(counts, num_classes=7)
    return [t["labels"] for t in targets], [t["boxes"] for t in targets]


def test_label_noise__leaves_its_input_alone():
    labels = torch.arange(5).repeat(1000)
    before = labels.clone()
    noised = apply_label_noise(labels, 0.5, num_classes=5)
    assert torch.equal(labels, before)
    assert ((noised >= 0) & (noised < 5)).all()
    # A fifth of those drawn anew get their own class again.
    assert 0.36 < (noised != labels).float().mean() < 0.44


@pytest.mark.parametrize(("number", "probability"), [(192, 0.25), (3, 0.01), (5, 1.0), (0, 0.5)])
def test_label_noise__draws_one_class_for_each_chosen_label(number, probability):
    """As one writes it down: the labels, and the generator's state after them, to the last bit."""
    labels = torch.arange(number) % 7
    for seed in range(5):
        torch.manual_seed(seed)
        places = (torch.rand(number) < probability).nonzero().flatten()
        expected = labels.clone()
        expected[places] = torch.randint(7, places.shape)
        state = torch.get_rng_state()
        torch.manual_seed(seed)
        assert torch.equal(apply_label_noise(labels, probability, 7), expected)
        assert torch.equal(torch.get_rng_state(), state)


@pytest.mark.parametrize(("counts", "slots"), [((3, 0, 5), None), ((0, 2), 4), ((0, 0), 3)])
def test_spread_over_images__equals_a_loop(counts, slots):
    copies, total = 4, sum(counts)
    queries = torch.randn(copies * total, 6, requires_grad=True)
    size = slots or max(counts)
    expected = torch.zeros(len(counts), copies * size, 6)
    for copy in range(copies):
        row = copy * total
        for image, count in enumerate(counts):
            expected[image, copy * size : copy * size + count] = queries[row : row + count]
            row += count
    spread = spread_over_images(queries, counts, copies, slots)
    assert torch.equal(spread, expected)
    seed = torch.randn_like(spread)
    gradients = [torch.autograd.grad(out, queries, seed) for out in (spread, expected)]
    assert torch.equal(*(gradient for (gradient,) in gradients))


@pytest.mark.parametrize("probability", [0.0, -1.0])
def test_label_noise__none(probability):
    labels = torch.arange(5)
    assert torch.equal(apply_label_noise(labels, probability, 7), labels)


def test_box_noise__stays_in_reach_and_leaves_its_input_alone():
    boxes = random_boxes(1000)
    before = boxes.clone()
    noised = apply_box_noise(boxes, 0.4)
    assert torch.equal(boxes, before)
    moved = (noised - boxes).abs() / boxes[:, [2, 3, 2, 3]]
    assert moved[:, :2].max() <= 0.2 + 1e-5
    assert moved[:, 2:].max() <= 0.4 + 1e-5
    assert moved.max(0).values.min() > 0.19
    assert torch.equal(apply_box_noise(boxes, 0.0), boxes)


def test_contrastive_box_noise__negatives_are_further_off():
    boxes = random_boxes(1000)
    negative = torch.arange(1000) % 2 == 1
    noised = apply_contrastive_box_noise(boxes, negative, 0.1)

    def corners(b):
        return torch.cat([b[:, :2] - b[:, 2:] / 2, b[:, :2] + b[:, 2:] / 2], 1)

    moved = (corners(noised) - corners(boxes)).abs() / boxes[:, [2, 3, 2, 3]] * 2
    assert moved[~negative].max() <= 0.1 + 1e-4
    assert moved[negative].min() >= 0.1 - 1e-4
    assert moved[negative].max() <= 0.2 + 1e-4
    assert torch.equal(apply_contrastive_box_noise(boxes, negative, 0.0), boxes)


def test_attention_mask__equals_definition():
    groups, size, queries = 2, 3, 5
    mask = denoising_attention_mask(groups, size, queries, "cpu")
    denoising = groups * size
    for row in range(denoising + queries):
        for column in range(denoising + queries):
            row_group = row // size if row < denoising else None
            hidden = column < denoising and row_group != column // size
            assert mask[row, column] == hidden


def test_dn_queries__without_noise_hold_the_objects():
    labels, boxes = _lists()
    generator = GenerateDNQueries(11, 7, 6, 2, label_noise_prob=0.0, box_noise_scale=0.0)
    content, reference, mask, groups, size = generator(labels, boxes)
    assert (groups, size) == (2, 5)
    assert content.shape == (3, 10, 6)
    assert reference.shape == (3, 10, 4)
    assert torch.equal(mask, generator.generate_query_masks(5, "cpu"))
    for image, count in enumerate(COUNTS):
        for group in range(2):
            here = slice(group * 5, group * 5 + count)
            expected = generator.label_encoder(labels[image])
            torch.testing.assert_close(content[image, here], expected)
            expected = inverse_sigmoid(boxes[image])
            torch.testing.assert_close(reference[image, here], expected)
            assert not content[image, group * 5 + count : group * 5 + 5].any()


def test_dn_queries__indicator():
    generator = GenerateDNQueries(11, 7, 6, 2, with_indicator=True)
    assert generator.label_encoder.weight.shape == (7, 5)
    content = generator(*_lists())[0]
    assert content[2, :, -1].tolist() == [1] * 10
    assert content[0, :, -1].tolist() == [1, 1, 1, 0, 0] * 2


def test_cdn_queries__halves_of_a_group():
    labels, boxes = _lists()
    generator = GenerateCDNQueries(11, 7, 6, denoising_nums=12, box_noise_scale=0.0)
    content, reference, mask, groups, size = generator(labels, boxes)
    assert (groups, size) == (2, 10)
    assert content.shape == (3, 20, 6)
    assert mask.shape == (31, 31)
    expected = inverse_sigmoid(boxes[2])
    for half in range(4):
        torch.testing.assert_close(reference[2, half * 5 : half * 5 + 5], expected)


def test_cdn_queries__first_half_is_nearer():
    labels, boxes = _lists((97, 53))
    generator = GenerateCDNQueries(11, 7, 6, denoising_nums=97, box_noise_scale=0.2)
    reference = generator(labels, boxes)[1]
    distance = (reference[0].sigmoid().view(2, 97, 4) - boxes[0]).abs().mean((1, 2))
    assert distance[0] < distance[1]


@pytest.mark.parametrize("kind", [GenerateDNQueries, GenerateCDNQueries])
def test_queries__batch_without_objects(kind):
    content, reference, mask, _, size = kind(num_queries=11, num_classes=7)(*_lists((0, 0)))
    assert content.shape == (2, 0, 256)
    assert reference.shape == (2, 0, 4)
    assert size == 0
    assert mask.shape == (11, 11)
    assert not mask.any()
