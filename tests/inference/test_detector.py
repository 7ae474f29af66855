import copy
import threading
from functools import partial

import numpy as np
import pytest
import torch
from detectron2.config import instantiate
from detectron2.data import transforms as T
from detectron2.structures import Instances
from omegaconf import OmegaConf
from PIL import Image
from torch import nn

from detrex.errors import ConfigError, PictureError
from detrex.inference import Detector, Result
from detrex.inference.video import VideoWriter
from tests.reference.detections import assert_same_detections
from tests.reference.tiny_detectors import tiny_detector
from tests.reference.tiny_run import images_of

GENERATOR = np.random.default_rng(0)


def noise(height=40, width=56):
    return GENERATOR.integers(0, 256, (height, width, 3), dtype=np.uint8)


@pytest.fixture(scope="module")
def retinanet():
    torch.manual_seed(0)
    model = instantiate(tiny_detector("retinanet"))
    return small(model, input_format="BGR")


def small(model, **keywords):
    keywords = {"augmentation": [T.ResizeShortestEdge(64, 96)], "threshold": 0.0, **keywords}
    return Detector(model, OmegaConf.create(), **keywords)


class Echo(nn.Module):
    """Finds one object in each picture, whose score tells how large the batch was."""

    def __init__(self, key="instances"):
        super().__init__()
        self.weight = nn.Parameter(torch.ones(1))
        self.key, self.seen = key, []

    def forward(self, batch):
        from detectron2.structures import Boxes

        self.seen.append(batch)
        outputs = []
        for sample in batch:
            size = sample["height"], sample["width"]
            boxes = Boxes(torch.tensor([[0.0, 0.0, size[1], size[0]], [1.0, 1.0, 2.0, 2.0]]))
            scores, classes = torch.tensor([0.2, 0.8]), torch.tensor([0, 1])
            found = Instances(size, pred_boxes=boxes, scores=scores, pred_classes=classes)
            outputs.append({self.key: found})
        return outputs


def echo(**keywords):
    keywords = {"augmentation": [], "optimize": False, "class_names": ("a", "b"), **keywords}
    return Detector(Echo(keywords.pop("key", "instances")), OmegaConf.create(), **keywords)


def test_predict__one_gives_a_result_several_a_list(detector, trained):
    (_, first), *_ = images_of(trained)
    assert isinstance(detector.predict(first), Result)
    assert [type(each) for each in detector.predict([first])] == [Result]
    assert len(detector.predict(first.parent)) == 3
    assert len(detector.predict(np.stack([noise(), noise()]))) == 2
    assert detector.predict([]) == []


def test_predict__every_kind_of_input_gives_the_same(detector, trained):
    (_, file), *_ = images_of(trained)
    image = Image.open(file).convert("RGB")
    pixels = np.asarray(image)
    tensor = torch.from_numpy(pixels.copy()).permute(2, 0, 1)
    expected = detector.predict(file)
    kinds = (image, pixels, tensor, tensor / 255)
    for kind in kinds:
        torch.testing.assert_close(detector.predict(kind).boxes, expected.boxes, rtol=0, atol=0)
    turned = detector.predict(pixels[:, :, ::-1], image_format="BGR")
    torch.testing.assert_close(turned.scores, expected.scores, rtol=0, atol=0)


@pytest.mark.parametrize("name", ["detector", "retinanet"])
def test_predict__batches_give_what_single_pictures_do(name, request):
    """Of mixed sizes, so that some pictures of a window go together and some do not."""
    batches = request.getfixturevalue(name)
    images = [noise(*size) for size in ((40, 56), (33, 47), (40, 56), (56, 40), (40, 56), (33, 47))]
    single = batches.predict(images)
    for batch_size in (2, 4):
        together = batches.predict(images, batch_size=batch_size)
        for one, other in zip(together, single, strict=True):
            assert len(one) > 3
            assert_same_detections(one.to_instances(), other.to_instances(), rtol=1e-4, atol=1e-3)


def test_predict__pictures_of_equal_size_share_a_batch_in_their_order():
    detector = echo()
    images = [noise(height, 40) for height in (30, 20, 30, 30, 20)]
    results = detector.predict(images, batch_size=2)
    assert [result.image.shape[0] for result in results] == [30, 20, 30, 30, 20]
    assert [len(batch) for batch in detector.model.seen] == [2, 1, 2]


def test_predict__the_optimized_copy_gives_what_the_model_does(retinanet):
    plain = small(retinanet.model, input_format="BGR", optimize=False)
    image = noise()
    one, other = retinanet.predict(image), plain.predict(image)
    assert_same_detections(one.to_instances(), other.to_instances(), rtol=1e-3, atol=1e-2)
    assert retinanet._faster is not None
    assert plain._faster is None
    assert retinanet.model.training is False


def _replace_head(model, state):
    model.head = copy.deepcopy(model.head)
    model.head.load_state_dict(
        {name.removeprefix("head."): value for name, value in state.items() if "head." in name}
    )


@pytest.mark.parametrize(
    "change",
    [
        nn.Module.load_state_dict,
        partial(nn.Module.load_state_dict, assign=True),
        _replace_head,
    ],
    ids=["loaded", "assigned", "another head"],
)
def test_predict__the_copy_follows_the_model(change):
    model = instantiate(tiny_detector("retinanet")).eval()
    detector, image = small(model, input_format="BGR"), noise()
    before = detector.predict(image)
    faster = detector._faster
    detector.predict(image)
    assert detector._faster is faster, "one that did not change is copied once"
    torch.manual_seed(1)
    other = instantiate(tiny_detector("retinanet")).state_dict()
    change(model, other)
    found, plain = (
        each.predict(image) for each in (detector, small(model, input_format="BGR", optimize=False))
    )
    assert_same_detections(found.to_instances(), plain.to_instances(), rtol=1e-3, atol=1e-2)
    assert not torch.equal(found.scores, before.scores)


def test_predict__threshold_and_classes():
    detector = echo()
    assert detector.predict(noise()).names == ["b"]  # by default from 0.5 on
    assert detector.predict(noise(), threshold=0).names == ["b", "a"]  # the surest first
    numbers = {"threshold": np.float32(0), "batch_size": np.int64(2), "classes": np.arange(2)}
    assert detector.predict(noise(), **numbers).names == ["b", "a"]
    assert detector.predict(noise(), threshold=0.1, classes="a").scores.tolist() == [
        pytest.approx(0.2)
    ]


@pytest.mark.parametrize(
    ("keywords", "message"),
    [
        ({"threshold": 7}, "threshold=7 is no score"),
        ({"classes": "c"}, "classes='c' is none of the detector's 2 classes"),
        ({"batch_size": 0}, "batch_size=0 is no whole number of at least 1"),
        ({"batch_size": 1.5}, r"batch_size=1\.5 is no"),
        ({"image_format": "RGBA"}, "image_format is RGB or BGR"),
    ],
)
def test_predict__wrong_options_are_said_at_once(keywords, message):
    for call in (echo().predict, echo().stream):
        with pytest.raises(ConfigError, match=message):
            call(noise(), **keywords)


@pytest.mark.parametrize(
    ("input_format", "expected"), [("RGB", [[10, 20, 30]]), ("BGR", [[30, 20, 10]]), ("L", [[18]])]
)
def test_predict__channels_come_as_the_model_takes_them(input_format, expected):
    detector = echo(input_format=input_format)
    detector.predict(np.full((8, 9, 3), (10, 20, 30), np.uint8))
    image = detector.model.seen[0][0]["image"]
    assert image[:, :1, 0].T.tolist() == expected
    assert image.shape[1:] == (8, 9)


@pytest.mark.parametrize("name", ["mask_rcnn_fpn", "keypoint_rcnn_fpn", "panoptic_fpn"])
def test_predict__masks_and_keypoints(name):
    torch.manual_seed(0)
    detector = small(instantiate(tiny_detector(name)), optimize=False)
    result = detector.predict(noise(31, 47))
    assert len(result)
    assert (result.masks is not None) == (name != "keypoint_rcnn_fpn")
    assert (result.keypoints is not None) == (name == "keypoint_rcnn_fpn")
    if result.masks is not None:
        assert result.masks.dtype == torch.bool
        assert result.masks.shape == (len(result), 31, 47)
    assert result.plot().size == (728, 480)


def test_predict__a_detector_of_something_else_is_said():
    with pytest.raises(ConfigError, match="gives sem_seg, not instances: only detectors of"):
        echo(key="sem_seg").predict(noise())


def test_predict__several_threads_at_once(retinanet):
    detector = small(retinanet.model, input_format="BGR")
    images = [noise() for _ in range(4)]
    expected = [retinanet.predict(image).boxes for image in images]
    found = {}
    threads = [
        threading.Thread(target=lambda i=i: found.update({i: detector.predict(images[i]).boxes}))
        for i in range(4)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for index, boxes in enumerate(expected):
        torch.testing.assert_close(found[index], boxes, rtol=1e-4, atol=1e-3)


def test_stream__few_pictures_are_in_memory():
    read = []

    def endless():
        while True:
            read.append(1)
            yield noise(20, 20)

    stream = echo().stream(endless(), batch_size=1)
    next(stream)
    assert len(read) == 1
    stream = echo().stream(endless(), batch_size=3)
    next(stream)
    assert len(read) == 1 + 12


def test_stream__goes_on_past_bad_pictures(tmp_path):
    (tmp_path / "bad.png").write_bytes(b"no picture")
    errors = []
    images = [noise(), tmp_path / "bad.png", noise(), np.zeros((4, 4), np.int64)]
    assert len(list(echo().stream(images, on_error=errors.append))) == 2
    assert len(errors) == 2
    assert "bad.png is no picture" in str(errors[0])
    with pytest.raises(PictureError):
        list(echo().stream(images))


def test_stream__frames_of_a_video(tmp_path):
    pytest.importorskip("cv2")
    with VideoWriter(tmp_path / "a.avi", 5.0) as writer:
        for _ in range(3):
            writer.write(noise(32, 48))
    results = list(echo().stream([tmp_path / "a.avi", noise()]))
    assert [result.frame for result in results] == [0, 1, 2, None]
    assert results[0].path == str(tmp_path / "a.avi")
    with pytest.raises(PictureError, match=r"detector\.stream"):
        echo().predict(tmp_path / "a.avi")


def test_detector__dtype_without_the_copy_is_refused():
    with pytest.raises(ConfigError, match="dtype=bfloat16 is for the faster copy"):
        echo(dtype="bfloat16")


def test_detector__an_unknown_order_is_said():
    with pytest.raises(ConfigError, match="input_format is RGB, BGR or L"):
        echo(input_format="HSV")


@pytest.mark.parametrize("value_range", ["abc", (5, 1), (0,)])
def test_detector__a_range_that_is_none_is_said(value_range):
    with pytest.raises(ConfigError, match="value_range is the least and the greatest value"):
        echo(value_range=value_range)


def test_detector__says_what_it_is():
    text = repr(echo(class_names=tuple("abcd"), origin="output/run"))
    assert text == "Detector(Echo, 4 classes: a, b, c, ..., on cpu, from output/run)"
    text = repr(echo(origin="output/run", checkpoint="output/run/model_best.pth"))
    assert text.endswith(", from output/run/model_best.pth)")
