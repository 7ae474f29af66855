import re

import pytest
from detectron2.config import LazyCall as L
from omegaconf import OmegaConf
from torch import nn

from detrex.benchmark.analysis import (
    count_activations,
    count_flops,
    count_parameters,
    input_batches,
    structure,
)
from detrex.errors import ConfigError
from tests.reference.tiny_detectors import tiny_detector


class OneConvolution(nn.Module):
    def __init__(self, width):
        super().__init__()
        self.conv = nn.Conv2d(3, width, 3, padding=1, bias=False)
        self.frozen = nn.Linear(2, 3, bias=False).requires_grad_(False)

    def forward(self, batch):
        return self.conv(batch[0]["image"][None].float())


def _config(**parts):
    return OmegaConf.create({"train": {"device": "cpu"}, **parts}, flags={"allow_objects": True})


def _one(width):
    return _config(model=L(OneConvolution)(width=width))


def test_count_flops__of_random_pictures():
    told = "\n".join(count_flops(_one(10), input_batches(_one(10), 2, (7, 11))))
    multiply_adds = 7 * 11 * 3 * 10 * 3 * 3
    assert f"Mean of 2 pictures: {multiply_adds / 1e9:.3f} +- 0.000 GFLOPs" in told
    assert f"{multiply_adds / 1e3:.2f}K" in told


def test_count_activations__of_random_pictures():
    told = "\n".join(count_activations(_one(10), input_batches(_one(10), 1, (7, 11))))
    assert f"{7 * 11 * 10 / 1e6:.3f} million activations  conv" in told


def test_count_parameters__and_those_that_train():
    told = "\n".join(count_parameters(_one(5)))
    assert f"Parameters: {141 / 1e6:.3f} M, of which {135 / 1e6:.3f} M are trained" in told
    assert "conv.weight" in told


def test_structure__of_the_modules():
    assert "(conv): Conv2d(3, 5" in "\n".join(structure(_one(5)))


def test_input_batches__without_a_test_set_says_what_to_do():
    with pytest.raises(ConfigError, match=r"no dataloader\.test .*--input-size HEIGHT WIDTH"):
        next(input_batches(_one(5), 1))


def test_input_batches__with_an_absent_dataset_says_what_to_do():
    cfg = _config(dataloader={"test": L(open)(file="absent/annotations.json")})
    with pytest.raises(ConfigError, match=r"cannot be read \(.*absent.*--input-size HEIGHT WIDTH"):
        next(input_batches(cfg, 1))


def test_build_to_count__needs_a_model():
    with pytest.raises(ConfigError, match=r"has no `model`, only \['train'\]"):
        next(structure(_config()))


@pytest.mark.parametrize("name", ["panoptic_fpn", "mask_rcnn_c4", "retinanet"])
def test_counts__detectron2s_detectors(name):
    cfg = _config(model=tiny_detector(name))
    lines = [
        line
        for count in (count_flops, count_activations, count_parameters)
        for line in count(cfg, input_batches(cfg, 1, (61, 83)))
    ]
    told = "\n".join(lines)
    assert re.search(r"Mean of 1 pictures: \d\.\d*[1-9]\d* .* GFLOPs", told)
    assert re.search(r"Mean of 1 pictures: \d\.\d+ .* million activations", told)
