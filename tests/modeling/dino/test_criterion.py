import pytest
import torch
import torch.nn.functional as F
from omegaconf import DictConfig

from detrex.layers import box_cxcywh_to_xyxy, generalized_box_iou
from detrex.modeling.criterion import TwoStageCriterion
from detrex.modeling.dino import DINOCriterion
from detrex.modeling.dino.criterion import denoising_matches, expand_weight_dict
from detrex.modeling.matcher import HungarianMatcher

TERMS = {"loss_class": 1, "loss_bbox": 5.0, "loss_giou": 2.0}


def _original_expansion(base, layers):
    """The dict that configs of the original write out by hand."""
    weights = dict(base)
    weights.update({f"{name}_enc": value for name, value in base.items()})
    for layer in range(layers - 1):
        weights.update({f"{name}_{layer}": value for name, value in base.items()})
    return weights


def test_expand_weight_dict__equals_the_original_for_six_layers():
    base = {**TERMS, **{f"{name}_dn": value for name, value in TERMS.items()}}
    original = _original_expansion(base, 6)
    assert len(original) == 42
    expanded = expand_weight_dict(TERMS, 6)
    assert expanded == {k: v for k, v in original.items() if not k.endswith("_dn_enc")}
    assert expand_weight_dict(original, 6) == original


def test_expand_weight_dict__explicit_weights_win_and_denoising_inherits_its_own():
    given = DictConfig({**TERMS, "loss_bbox_dn": 3.0, "loss_bbox_1": 0.5, "loss_giou_enc": 0.0})
    expanded = expand_weight_dict(given, 4)
    assert expanded["loss_bbox_dn_2"] == 3.0
    assert (expanded["loss_bbox_0"], expanded["loss_bbox_1"], expanded["loss_bbox_2"]) == (
        5,
        0.5,
        5,
    )
    assert expanded["loss_giou_enc"] == 0.0
    assert expanded["loss_class_dn_0"] == 1


def test_expand_weight_dict__more_layers_than_the_config_wrote_out():
    expanded = expand_weight_dict(_original_expansion(TERMS, 3), 8)
    assert all(expanded[f"loss_bbox_{layer}"] == 5.0 for layer in range(7))


def test_expand_weight_dict__leaves_its_argument_alone():
    given = dict(TERMS)
    expand_weight_dict(given, 6)
    assert given == TERMS


def test_denoising_matches__positive_halves_of_all_groups():
    targets = [{"labels": torch.zeros(2)}, {"labels": torch.zeros(0)}, {"labels": torch.zeros(3)}]
    matches = denoising_matches(targets, num_groups=2, group_size=6)
    assert [(q.tolist(), o.tolist()) for q, o in matches] == [
        ([0, 1, 6, 7], [0, 1, 0, 1]),
        ([], []),
        ([0, 1, 2, 6, 7, 8], [0, 1, 2, 0, 1, 2]),
    ]


def _predictions(queries, layers=2):
    outputs = [
        {"pred_logits": torch.randn(2, queries, 5), "pred_boxes": torch.rand(2, queries, 4)}
        for _ in range(layers)
    ]
    return {**outputs[-1], "aux_outputs": outputs[:-1]}


def _outputs():
    return {**_predictions(11), "enc_outputs": _predictions(11, 1)}


def _targets(counts=(3, 1)):
    return [
        {"labels": torch.randint(5, (count,)), "boxes": torch.rand(count, 4)} for count in counts
    ]


def _criterion(cls=DINOCriterion, **kwargs):
    return cls(5, HungarianMatcher(2.0, 5.0, 2.0), TERMS, **kwargs)


def _naive_denoising_losses(outputs, targets, groups, group_size):
    """Every query of every group, one after the other."""
    total = sum(len(target["labels"]) for target in targets) * groups
    loss_class = loss_bbox = loss_giou = 0.0
    for image, target in enumerate(targets):
        for query in range(groups * group_size):
            logits, box = outputs["pred_logits"][image, query], outputs["pred_boxes"][image, query]
            slot, truth = query % group_size, torch.zeros(5)
            if slot < len(target["labels"]):
                truth[target["labels"][slot]] = 1
                gt_box = target["boxes"][slot]
                loss_bbox += (box - gt_box).abs().sum()
                corners = box_cxcywh_to_xyxy(torch.stack([box, gt_box]))
                loss_giou += 1 - generalized_box_iou(corners[:1], corners[1:])[0, 0]
            for logit, wanted in zip(logits, truth, strict=True):
                p = logit.sigmoid() if wanted else 1 - logit.sigmoid()
                alpha = 0.25 if wanted else 0.75
                loss_class += alpha * (1 - p) ** 2 * -F.logsigmoid(logit if wanted else -logit)
    return {
        "loss_class": loss_class / total,
        "loss_bbox": loss_bbox / total,
        "loss_giou": loss_giou / total,
    }


@pytest.mark.parametrize("counts", [(3, 1), (2, 0)])
def test_dino_criterion__denoising_losses_query_by_query(counts):
    groups, group_size = 2, 2 * max(counts)
    known, targets = _predictions(groups * group_size), _targets(counts)
    metas = {"single_padding": group_size, "dn_num": groups, "output_known_lbs_bboxes": known}
    losses = _criterion()(_outputs(), targets, metas)
    for suffix, layer in (("_dn", known), ("_dn_0", known["aux_outputs"][0])):
        for name, expected in _naive_denoising_losses(layer, targets, groups, group_size).items():
            torch.testing.assert_close(losses[name + suffix], expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("binary", [False, True])
def test_dino_criterion__other_losses_are_those_of_the_two_stage_criterion(binary):
    outputs, targets = _outputs(), _targets()
    losses = _criterion(two_stage_binary_cls=binary)(outputs, targets)
    expected = _criterion(TwoStageCriterion, two_stage_binary_cls=binary)(outputs, targets)
    rest = {name: loss for name, loss in losses.items() if "_dn" not in name}
    torch.testing.assert_close(rest, expected, rtol=0, atol=0)


@pytest.mark.parametrize("metas", [None, {}])
def test_dino_criterion__same_keys_without_denoising_queries(metas):
    losses = _criterion()(_outputs(), _targets(), metas)
    zero = {f"{name}{suffix}" for name in TERMS for suffix in ("_dn", "_dn_0")}
    assert losses.keys() == zero | {f"{n}{s}" for n in TERMS for s in ("", "_0", "_enc")}
    assert all(losses[name] == 0 for name in zero)


def test_dino_criterion__without_auxiliary_losses():
    outputs = _outputs()
    del outputs["aux_outputs"]
    losses = _criterion()(outputs, _targets())
    assert losses.keys() == {f"{n}{s}" for n in TERMS for s in ("", "_enc", "_dn")}
