import torch

from detrex.export.comparison import DETECTION_TOLERANCE
from detrex.export.reference import Reference, TokenChoice
from detrex.export.tensor_modules import tensor_module
from tests.reference.tiny_dino import tiny_dino


def _other_ranks(reference, tokens):
    choice = TokenChoice(tokens)
    with torch.no_grad(), choice:
        return reference.module(reference.image), choice.tokens


def test_difference__ranks_of_near_equals_are_not_the_files_fault():
    torch.manual_seed(2)
    module = tensor_module(tiny_dino(layers=1, levels=1, queries=100).eval())
    reference = Reference(module, torch.rand(1, 3, 130, 190) * 255)
    own, scores = reference.choice.tokens, reference.choice.scores
    assert reference.difference(*_other_ranks(reference, own)) < 1e-5
    place = int((scores[own][:-1] - scores[own][1:]).argmin())  # two that are nearly equal
    swapped = own.clone()
    swapped[[place, place + 1]] = own[[place + 1, place]]
    outputs, tokens = _other_ranks(reference, swapped)
    assert reference.difference(outputs, own) > 10 * DETECTION_TOLERANCE
    assert reference.difference(outputs, tokens) < DETECTION_TOLERANCE
    assert reference.difference(*_other_ranks(reference, own.flip(0))) > 100 * DETECTION_TOLERANCE
