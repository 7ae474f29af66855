"""The set criterion, against loops over the matched pairs."""

import pytest
import torch
import torch.nn.functional as F
from omegaconf import OmegaConf

from detrex.modeling.criterion import BaseCriterion, SetCriterion, TwoStageCriterion
from detrex.modeling.criterion.criterion import count_boxes, sigmoid_focal_loss
from detrex.modeling.matcher import HungarianMatcher
from tests.reference.loops import focal, giou, to_xyxy
from tests.reference.predictions import random_outputs, random_targets

CLASSES = 5


def _criterion(**kwargs):
    return SetCriterion(CLASSES, HungarianMatcher(2, 5, 2), {"loss_class": 1.0}, **kwargs)


def _expected(outputs, targets, indices):
    """Losses of one layer by loops, before they are divided by the number of objects."""
    loss_class = loss_bbox = loss_giou = 0.0
    for i, (target, (rows, columns)) in enumerate(zip(targets, indices, strict=True)):
        label_of = dict(zip(rows.tolist(), target["labels"][columns].tolist(), strict=True))
        for q, logits in enumerate(outputs["pred_logits"][i].tolist()):
            loss_class += sum(focal(x, label_of.get(q) == c, 0.25, 2) for c, x in enumerate(logits))
        for q, t in zip(rows.tolist(), columns.tolist(), strict=True):
            box, truth = outputs["pred_boxes"][i, q].tolist(), target["boxes"][t].tolist()
            loss_bbox += sum(abs(a - b) for a, b in zip(box, truth, strict=True))
            loss_giou += 1 - giou(to_xyxy(box), to_xyxy(truth))[0]
    return {"loss_class": loss_class, "loss_bbox": loss_bbox, "loss_giou": loss_giou}


def test_forward__equals_loop():
    outputs, targets = random_outputs(3, aux=2), random_targets((3, 0, 2))
    losses, indices = _criterion()(outputs, targets, return_indices=True)
    assert sorted(losses) == sorted(
        name + suffix
        for name in ("loss_class", "loss_bbox", "loss_giou")
        for suffix in ("", "_0", "_1")
    )
    layers = [*outputs["aux_outputs"], outputs]
    for layer, matches, suffix in zip(layers, indices, ("_0", "_1", ""), strict=True):
        for name, value in _expected(layer, targets, matches).items():
            assert losses[name + suffix].item() == pytest.approx(value / 5, rel=1e-4)


class _LayerByLayer(SetCriterion):
    def layer_losses(self, *scored):
        return super().layer_losses(*scored)


class _Doubled(SetCriterion):
    def loss_boxes(self, *scored):
        return {name: 2 * value for name, value in super().loss_boxes(*scored).items()}


@pytest.mark.parametrize("kind", ["focal_loss", "ce_loss"])
@pytest.mark.parametrize("counts", [(3, 0, 2), (0, 0)])
def test_forward__all_layers_at_once_equal_one_after_the_other(kind, counts):
    """One layer has other shapes, and the matcher gives each another number of pairs."""
    seen, gradients = [], []
    outputs = random_outputs(len(counts), aux=3, num_classes=CLASSES + (kind == "ce_loss"))
    outputs["aux_outputs"][2] = {
        name: value[:, 1:] for name, value in outputs.items() if name[:4] == "pred"
    }
    targets, matcher = random_targets(counts), HungarianMatcher(2, 5, 2)

    def first_pairs(layer, of_images):
        keep = len(seen) % 4
        seen.append(layer)
        return [(rows[keep:], columns[keep:]) for rows, columns in matcher(layer, of_images)]

    predictions = [outputs["pred_logits"], outputs["pred_boxes"]]
    predictions += [value for layer in outputs["aux_outputs"][:2] for value in layer.values()]
    found = []
    for cls in (SetCriterion, _LayerByLayer):
        criterion = cls(CLASSES, first_pairs, {}, loss_class_type=kind)
        found.append(criterion(outputs, targets))
        assert list(found[-1])[:4] == ["loss_class", "loss_bbox", "loss_giou", "loss_class_0"]
        total = sum(weight * loss for weight, loss in enumerate(found[-1].values(), 1))
        gradients.append(torch.autograd.grad(total, predictions, retain_graph=True))
    torch.testing.assert_close(*found, rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(*gradients, rtol=1e-5, atol=1e-6)


def test_forward__losses_of_a_subclass_or_an_object_are_those_of_every_layer():
    outputs, targets = random_outputs(2, aux=1), random_targets((2, 3))
    plain = _criterion()(outputs, targets)
    doubled = _Doubled(CLASSES, HungarianMatcher(2, 5, 2), {})(outputs, targets)
    own = _criterion()
    own.loss_labels = lambda *scored: {"loss_class": torch.tensor(7.0)}
    for suffix in ("", "_0"):
        torch.testing.assert_close(doubled["loss_bbox" + suffix], 2 * plain["loss_bbox" + suffix])
        torch.testing.assert_close(doubled["loss_class" + suffix], plain["loss_class" + suffix])
        assert own(outputs, targets)["loss_class" + suffix] == 7


def test_forward__gradients_reach_all_layers():
    outputs = random_outputs(2, aux=1)
    losses = _criterion()(outputs, random_targets((2, 3)))
    torch.stack(list(losses.values())).sum().backward()
    for layer in (outputs, *outputs["aux_outputs"]):
        assert layer["pred_logits"].grad.abs().sum() > 0
        assert layer["pred_boxes"].grad.abs().sum() > 0


@pytest.mark.parametrize("kind", ["focal_loss", "ce_loss"])
def test_forward__batch_without_objects(kind):
    outputs = random_outputs(2, num_classes=CLASSES + (kind == "ce_loss"))
    losses = _criterion(loss_class_type=kind)(outputs, random_targets((0, 0)))
    torch.stack(list(losses.values())).sum().backward()
    assert losses["loss_class"].item() > 0
    assert losses["loss_bbox"].item() == losses["loss_giou"].item() == 0
    assert outputs["pred_boxes"].grad.abs().sum() == 0


@pytest.mark.parametrize(("eos_coef", "weight"), [(0.3, 0.3), (None, 0.1)])
def test_forward__cross_entropy(eos_coef, weight):
    criterion = _criterion(loss_class_type="ce_loss", eos_coef=eos_coef)
    class_weight = torch.tensor([1.0] * CLASSES + [weight])
    torch.testing.assert_close(criterion.state_dict(), {"empty_weight": class_weight})
    outputs, targets = random_outputs(2, num_classes=CLASSES + 1), random_targets((2, 3))
    losses, (indices,) = criterion(outputs, targets, return_indices=True)
    classes = torch.full((2, 7), CLASSES)
    for i, (rows, columns) in enumerate(indices):
        classes[i, rows] = targets[i]["labels"][columns]
    expected = F.cross_entropy(
        outputs["pred_logits"].flatten(0, 1), classes.flatten(), class_weight
    )
    torch.testing.assert_close(losses["loss_class"], expected)


def test_forward__degenerate_predictions_are_finite():
    outputs = random_outputs(2)
    outputs["pred_boxes"].data[:] = torch.tensor([0.5, 0.5, 0.0, 0.0])
    losses = _criterion()(outputs, random_targets((2, 3)))
    torch.stack(list(losses.values())).sum().backward()
    assert outputs["pred_boxes"].grad.isfinite().all()


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_forward__half_precision_is_summed_in_float32(dtype):
    outputs, targets = random_outputs(2, queries=97), random_targets((2, 3))
    half = {name: tensor.detach().to(dtype) for name, tensor in outputs.items()}
    full = {name: tensor.float() for name, tensor in half.items()}
    torch.testing.assert_close(_criterion()(half, targets), _criterion()(full, targets))


@pytest.mark.parametrize(
    ("others", "mean"), [([], 3.0), ([0], 1.5), ([4], 3.5), ([0, 0, 0, 0], 3 / 5), ([1, 0], 4 / 3)]
)
def test_count_boxes__is_the_mean_over_the_processes(monkeypatch, others, mean):
    """The other processes are played; two real ones are in the integration tests."""
    monkeypatch.setattr(
        "detrex.modeling.criterion.criterion.exchange", lambda count: [*others, count]
    )
    assert count_boxes(random_targets((2, 0, 1))) == mean
    assert count_boxes(random_targets((0,))) == max(sum(others), 1) / (1 + len(others))


@pytest.mark.parametrize("cls", [SetCriterion, TwoStageCriterion, BaseCriterion])
@pytest.mark.parametrize("counts", [(3, 2), (0, 0)])
def test_forward__counts_boxes_once(monkeypatch, cls, counts):
    calls = []
    monkeypatch.setattr(
        "detrex.modeling.criterion.criterion.exchange", lambda count: [calls.append(count) or count]
    )
    criterion = cls(CLASSES) if cls is BaseCriterion else cls(CLASSES, HungarianMatcher(), {})
    criterion(
        {**random_outputs(2, aux=2), "enc_outputs": random_outputs(2)}, random_targets(counts)
    )
    assert calls == [sum(counts)]


def test_forward__mean_over_the_processes_divides_all_losses(monkeypatch):
    outputs = {**random_outputs(2, aux=1), "enc_outputs": random_outputs(2)}
    criterion, targets = TwoStageCriterion(CLASSES, HungarianMatcher(), {}), random_targets((3, 2))
    alone = criterion(outputs, targets)
    monkeypatch.setattr(
        "detrex.modeling.criterion.criterion.exchange", lambda count: [count, 4 * count]
    )
    shared = criterion(outputs, targets)
    expected = {name: loss / 2.5 for name, loss in alone.items()}
    torch.testing.assert_close(shared, expected, rtol=1e-6, atol=1e-7)


def test_forward__own_matcher_is_called_for_each_layer():
    layers = []

    def matcher(outputs, targets):
        layers.append(outputs)
        return [(torch.arange(len(t["labels"])), torch.arange(len(t["labels"]))) for t in targets]

    outputs, targets = random_outputs(2, aux=2), random_targets((2, 3))
    _, matches = SetCriterion(CLASSES, matcher, {})(outputs, targets, return_indices=True)
    assert layers == [outputs, *outputs["aux_outputs"]]
    assert [rows.tolist() for rows, _ in matches[0]] == [[0, 1], [0, 1, 2]]


@pytest.mark.parametrize("cls", [TwoStageCriterion, BaseCriterion])
def test_forward__matches_of_all_layers_are_read_back_together(monkeypatch, cls):
    calls, plain = [], torch.Tensor.cpu
    monkeypatch.setattr(torch.Tensor, "cpu", lambda tensor: calls.append(tensor) or plain(tensor))
    criterion = cls(CLASSES) if cls is BaseCriterion else cls(CLASSES, HungarianMatcher(), {})
    outputs = {**random_outputs(3, aux=2), "enc_outputs": random_outputs(3, queries=11)}
    criterion(outputs, random_targets((3, 0, 2)))
    assert len(calls) == 1


def test_get_loss__one_kind():
    criterion = _criterion()
    outputs, targets = random_outputs(2), random_targets((2, 3))
    indices = criterion.matcher(outputs, targets)
    losses = criterion.get_loss("boxes", outputs, targets, indices, 2.5)
    assert sorted(losses) == ["loss_bbox", "loss_giou"]
    expected = _expected(outputs, targets, indices)
    assert losses["loss_bbox"].item() == pytest.approx(expected["loss_bbox"] / 2.5, rel=1e-4)


def test_get_loss__unknown_kind():
    with pytest.raises(ValueError, match=r"There is no loss 'box'; .* Did you mean 'boxes'"):
        _criterion().get_loss("box", {}, [], [], 1)
    with pytest.raises(ValueError, match="There is no loss 'labels'"):
        _criterion(losses=["labels"])


def test_init__unknown_class_loss():
    with pytest.raises(ValueError, match="must be 'focal_loss' or 'ce_loss', got 'focal'"):
        _criterion(loss_class_type="focal")


def test_init__omegaconf_containers():
    criterion = SetCriterion(
        CLASSES,
        HungarianMatcher(),
        OmegaConf.create({"loss_class": 1.0}),
        losses=OmegaConf.create(["class"]),
    )
    assert type(criterion.weight_dict) is dict
    assert list(criterion(random_outputs(2), random_targets((2, 3)))) == ["loss_class"]


@pytest.mark.parametrize("matcher", [HungarianMatcher(), torch.nn.Identity(), lambda *_: []])
def test_repr__works_with_any_matcher(matcher):
    assert "losses=['class', 'boxes']" in repr(SetCriterion(CLASSES, matcher, {}))


def test_permutations__are_pairs_of_image_and_index():
    indices = [
        (torch.tensor([1, 4]), torch.tensor([1, 0])),
        (torch.tensor([2]), torch.tensor([0])),
    ]
    criterion = _criterion()
    image, source = criterion._get_src_permutation_idx(indices)
    assert image.tolist() == [0, 0, 1]
    assert source.tolist() == [1, 4, 2]
    assert criterion._get_tgt_permutation_idx(indices)[1].tolist() == [1, 0, 0]


def test_sigmoid_focal_loss__is_a_mean_over_queries():
    logits, targets = torch.randn(2, 7, 3), torch.randint(2, (2, 7, 3)).float()
    total = sum(
        focal(x, t, 0.25, 2)
        for x, t in zip(logits.flatten().tolist(), targets.flatten().tolist(), strict=True)
    )
    loss = sigmoid_focal_loss(logits, targets, num_boxes=4)
    assert loss.item() == pytest.approx(total / 7 / 4, rel=1e-4)
