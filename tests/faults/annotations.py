"""Annotation files in COCO's format, broken by hand and at random.

What is read in spite of it must be right: every record goes through a mapper, and the truth itself,
given as detections, must score an AP of 1 against the file that an evaluation would read.
"""

import contextlib
import copy
import io
import json
import math
import sys
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from random import Random
from typing import Any

import numpy as np
from PIL import Image

from tests.faults.trials import Trial, expect

WIDTH, HEIGHT = 64, 48
POINTS = ("left_eye", "right_eye", "nose")
_DEEP: Any = "ends"
for _ in range(600):
    _DEEP = [_DEEP]
VALUES: tuple[Any, ...] = (
    *(None, True, False, 0, -1, 1, 0.5, -0.0, 1e-320, 1e300, math.nan, math.inf, -math.inf),
    *(2**31, 2**53, 2**63, 2**64, 10**30, -(10**30), 10**400, 7.0, 1e15),
    *("", " ", "1", "-1", "1e400", "nan", "a\nb", "\0", "\ud800", "\u2028", "x" * 5000, "9" * 400),
    *([], {}, [[]], [None], [[1, 2]], [1, 2, 3, 4], [1, 2, 3, 4, 5, 6], ["1", "2", "3", "4"]),
    *({"": 1}, {"size": [HEIGHT, WIDTH], "counts": "0"}, [math.nan] * 4, [1e308] * 6, _DEEP),
    *("../../etc/passwd", "/etc/passwd", "/dev/zero", "http://127.0.0.1:9/a.png", "b\\0.png"),
)


def content() -> dict[str, Any]:
    """A right file: three pictures, an object of each kind of outline, keypoints, a crowd."""
    images = [
        {"id": 7 + i, "file_name": f"{i}.png", "width": WIDTH, "height": HEIGHT} for i in range(3)
    ]
    annotations = []
    for i in range(8):
        x, y, w, h = 3 + 5 * (i % 4), 4 + 6 * (i // 4), 20 + i, 15 + i
        box = np.zeros((HEIGHT, WIDTH), np.uint8)
        box[y : y + h, x : x + w] = 1
        runs = [int(n) for n in _runs(box)]
        polygon = [[x, y, x + w, y, x + w, y + h, x, y + h]]
        annotations.append(
            {
                "id": 11 + i,
                "image_id": 7 + i % 3,
                "category_id": 2 + 3 * (i % 2),
                "bbox": [x, y, w, h],
                "area": w * h,
                "iscrowd": int(i == 5),
                "segmentation": polygon if i % 3 else {"size": [HEIGHT, WIDTH], "counts": runs},
                "keypoints": [x + 1, y + 1, 2, x + 2, y + 1, 2, 0, 0, 0],
                "num_keypoints": 2,
            }
        )
    categories = [
        {"id": 2, "name": "cat", "keypoints": list(POINTS), "skeleton": [[1, 2]]},
        {"id": 5, "name": "dög", "keypoints": list(POINTS), "skeleton": [[1, 2]]},
    ]
    info = {"info": {"year": 2017}, "licenses": [{"id": 1}]}
    return {**info, "images": images, "annotations": annotations, "categories": categories}


def _runs(mask: np.ndarray) -> Iterator[int]:
    """Lengths of the runs of 0 and 1 in turns, by columns."""
    flat = mask.T.ravel()
    places = np.flatnonzero(np.diff(flat)) + 1
    starts = [0, *places, flat.size]
    if flat[0]:
        yield 0
    yield from np.diff(starts)


def written(value: Any) -> bytes:
    """JSON as it stands in a file, with what Python alone would write."""
    return json.dumps(value).encode()


def with_segmentation(value: Any) -> bytes:
    """A file whose first object has another outline."""
    file = content()
    file["annotations"][0]["segmentation"] = value
    return written(file)


def with_sizes(side: Any) -> bytes:
    """A file whose images say that they are squares of this side, run lengths and all."""
    file = content()
    for image in file["images"]:
        image |= {"width": side, "height": side}
    for annotation in file["annotations"]:
        annotation["segmentation"] = {"size": [side, side], "counts": [side * side]}
    return written(file)


def with_value(part: str, key: str, value: Any) -> bytes:
    """A file with another value in the first record of a part."""
    file = content()
    file[part][0][key] = value
    return written(file)


def with_many(number: int, **changes: Any) -> bytes:
    """A file with so many copies of each image and object, no two of them alike."""
    file = content()
    for part in ("images", "annotations"):
        file[part] = [
            {**record, "made": i, **(changes if part == "annotations" else {})}
            for record in file[part]
            for i in range(number)
        ]
    for i, annotation in enumerate(file["annotations"]):
        annotation["bbox"] = [*annotation["bbox"][:2], 10 + i / 10**6, 10]
    return written(file)


def by_hand() -> dict[str, bytes]:
    """Files that were broken on purpose, by what was done to them."""
    good = written(content())
    size = [HEIGHT, WIDTH]
    zigzag = [float(i % 2 * 60 + i % 7) for i in range(2 * 10**6)]
    return {
        "images of 10^9 pixels a side": with_sizes(10**9),
        "images of 40000 pixels a side": with_sizes(40000),
        "run lengths of another picture": with_segmentation({"size": [10**9] * 2, "counts": [1]}),
        "run lengths beyond the picture": with_segmentation({"size": size, "counts": [10**18]}),
        "negative run lengths": with_segmentation({"size": size, "counts": [-1, 3073]}),
        "fractions in run lengths": with_segmentation({"size": [48.0, 64.0], "counts": [3072]}),
        "run lengths of truths": with_segmentation({"size": size, "counts": [True] * 3072}),
        "endless compressed run lengths": with_segmentation({"size": size, "counts": "o" * 10**5}),
        "padded compressed runs": with_segmentation({"size": size, "counts": "P" * 99 + "0"}),
        "compressed run lengths of no letters": with_segmentation({"size": size, "counts": "é\0"}),
        "a polygon of a million corners": with_segmentation([zigzag]),
        "a polygon far outside": with_segmentation([[0, 0, 1e8, 0, 1e8, 1e8]]),
        "a polygon of NaN": with_segmentation([[math.nan] * 6]),
        "a polygon of texts": with_segmentation([["1", "2", "3", "4", "5", "6"]]),
        "a polygon of huge integers": with_segmentation([[10**400] * 6]),
        "an outline nested deeply": with_segmentation(_DEEP),
        "an address as a picture": with_value("images", "file_name", "http://127.0.0.1:9/a.png"),
        "a name with NUL": with_value("images", "file_name", "a\0/b.png"),
        "a name of half a character": with_value("images", "file_name", "\ud800/0.png"),
        "a name of 5000 letters": with_value("images", "file_name", "x" * 5000),
        "an image id of 2^70": with_value("images", "id", 2**70),
        "an annotation id of 10^400": with_value("annotations", "id", 10**400),
        "a category named by half a character": with_value("categories", "name", "\udfff"),
        "5000 of each image, all objects of one id": with_many(5000, id=1),
        "20,000 categories of 10,000 names": written(
            {**content(), "categories": [{"id": i, "name": str(i // 2)} for i in range(20000)]}
        ),
        "a key twice among 200,000": good[:-1]
        + b"".join(b', "k%d": 1' % i for i in range(200000))
        + b', "k199999": 2}',
        "a key twice": good.replace(b'"iscrowd": 0', b'"iscrowd": 1, "iscrowd": 0'),
        "a list twice": good[:-1] + b', "annotations": []}',
        "brackets without end": b"[" * 10**6,
        "brackets in brackets": b'{"info": ' + b"[" * 900 + b"]" * 900 + b", " + good[1:],
        "braces in braces": b'{"a": ' * 5000 + b"1" + b"}" * 5000,
        "an integer of 10,000 digits": good.replace(b'"area": 300', b'"area": ' + b"9" * 10**4),
        "1e400": good.replace(b'"area": 300', b'"area": 1e400'),
        "BOM": b"\xef\xbb\xbf" + good,
        "UTF-16": json.dumps(content(), ensure_ascii=False).encode("utf-16"),
        "Latin-1": json.dumps(content(), ensure_ascii=False).encode("latin-1"),
        "NUL bytes": good.replace(b"cat", b"c\0t"),
        "two documents": good + good,
        "nothing": b"",
        "a list": b"[]",
        "null": b"null",
        "no annotations": written({**content(), "annotations": None}),
        "pickle": b"\x80\x04\x95\x00",
        "gzip": b"\x1f\x8b\x08\x00",
    }


def places(value: Any, path: tuple = ()) -> Iterator[tuple]:
    """All places in a file, as keys one after the other."""
    children = value.items() if isinstance(value, dict) else enumerate(value)
    for key, child in children:
        yield (*path, key)
        if isinstance(child, dict | list):
            yield from places(child, (*path, key))


@contextlib.contextmanager
def _deep() -> Iterator[None]:
    """Let what is nested deeply be written; what reads it has the usual limit."""
    limit = sys.getrecursionlimit()
    sys.setrecursionlimit(10 * limit)
    try:
        yield
    finally:
        sys.setrecursionlimit(limit)


def broken(random: Random) -> bytes:
    """A file with one to three things changed in it, or some bytes."""
    file = content()
    if random.random() < 0.25:
        data = bytearray(written(file))
        for _ in range(random.randint(1, 4)):
            start = random.randrange(len(data))
            end = min(start + random.choice((1, 1, 1, 5, 300)), len(data))
            data[start:end] = random.choice(
                (b"", random.randbytes(1), b'"', b"}", b"[", b"-", b"e9", b",")
            )
        return bytes(data)
    for _ in range(random.randint(1, 3)):
        *path, key = random.choice(list(places(file)))
        node: Any = file
        for step in path:
            node = node[step]
        action = random.random()
        if action < 0.15:
            del node[key]
        elif action < 0.25 and isinstance(node, list):
            node.insert(key, copy.deepcopy(node[key]))
        elif action < 0.35:
            *other, last = random.choice(list(places(file)))
            source: Any = file
            for step in other:
                source = source[step]
            node[key] = copy.deepcopy(source[last])
        else:
            node[key] = random.choice(VALUES)
    return written(file)


def read(data: bytes, masks: bool, keypoints: bool) -> None:
    """Use a file as training and evaluation do, and look at what comes of it."""
    from detrex.data.coco.inspection import inspect
    from detrex.data.coco.records import evaluation_file, metadata_of, standard_records
    from detrex.data.detr_dataset_mapper import DetrDatasetMapper

    Path("a.json").write_bytes(data)
    for i in range(3):
        Image.new("RGB", (WIDTH, HEIGHT)).save(f"{i}.png")
    document = inspect("a.json", ".", masks=masks, keypoints=keypoints)
    document.raise_errors()
    metadata = metadata_of(document)
    mapper = DetrDatasetMapper(
        [], None, mask_on=masks, keypoint_on=keypoints, keypoint_hflip_indices=[1, 0, 2]
    )
    for record in standard_records(document, "."):
        boxes = mapper(record)["instances"].gt_boxes.tensor
        inside = (boxes >= 0).all() and (boxes <= boxes.new_tensor([WIDTH, HEIGHT] * 2)).all()
        expect(inside, f"a box outside of its picture: {boxes}")
    classes = len(metadata["thing_classes"])
    expect(classes == len(metadata["thing_dataset_id_to_contiguous_id"]), "classes of one id")
    if document.has_annotations:
        _score_truth(evaluation_file(document, "copies", "a"), "segm" if masks else "bbox")


def _score_truth(file: str, kind: str) -> None:
    """Score the objects of a file as detections against it."""
    from pycocotools.coco import COCO
    from pycocotools.cocoeval import COCOeval

    with contextlib.redirect_stdout(io.StringIO()):
        truth = COCO(file)
        copies = [{**a, "score": 0.9} for a in truth.dataset["annotations"] if not a["iscrowd"]]
        if kind == "segm" and not all(truth.annToMask(copy).any() for copy in copies):
            return  # an object of no pixel is found by nobody
        if not copies:
            return
        evaluation = COCOeval(truth, truth.loadRes(copies), kind)
        evaluation.evaluate()
        evaluation.accumulate()
        evaluation.summarize()
    # Objects of the same place and class are exchangeable; those of a crowd's are not counted.
    expect(evaluation.stats[0] > 0.99 or evaluation.stats[0] == -1, f"AP {evaluation.stats[0]}")


def trials(count: int, seed: int) -> Iterator[Trial]:
    """Give files broken by hand, in turns with files broken at random."""
    random = Random(seed)
    hand = list(by_hand().items())
    random.shuffle(hand)
    for number in range(count):
        masks, keypoints = bool(number % 4 < 2), number % 5 == 0
        if number % 3 == 0 and hand:
            name, data = hand.pop()
            if name in ("a polygon of a million corners",):
                masks = True
        else:
            name = f"random {seed}.{number}"
            with _deep():
                data = broken(random)
        yield Trial(
            "annotations",
            f"{name}{', masks' * masks}{', keypoints' * keypoints}",
            partial(read, data, masks, keypoints),
            "either",
            seconds=60,
            memory=2 << 30,
        )
