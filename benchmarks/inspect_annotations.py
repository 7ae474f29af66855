"""Seconds of one core to look at annotations of the size of COCO's train2017, and to read the JSON.

    python -m benchmarks.inspect_annotations [--images 118287] [--objects 860001] [--mended]

The file is synthetic (a polygon of 20 points an object), and it and as many empty pictures are
written into a temporary folder. With `--mended`, it has no ids, areas and crowds, and category ids
that are texts: every record is mended.
"""

import json
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from benchmarks.protocol import Results, parse, parser
from detrex.data.coco.inspection import inspect
from detrex.data.coco.reading import no_garbage_collection, read_document
from detrex.data.coco.records import standard_records

WIDTH, HEIGHT, CLASSES = 640, 480, 80


def write(folder: Path, images: int, objects: int, mended: bool) -> Path:
    """Write annotations and pictures without content."""
    rng = np.random.default_rng(0)
    corner = rng.random((objects, 2)) * [WIDTH - 50, HEIGHT - 50]
    boxes = np.concatenate([corner, 1 + 49 * rng.random((objects, 2))], axis=1).round(2)
    outlines = (boxes[:, None, :2] + boxes[:, None, 2:] * rng.random((objects, 20, 2))).round(2)
    crowd, image = rng.random(objects) < 0.01, rng.integers(0, images, objects)
    category = rng.integers(1, CLASSES + 1, objects).tolist()
    annotations = [
        {"image_id": int(image[i]) + 1, "bbox": box, "segmentation": [outline]}
        for i, (box, outline) in enumerate(
            zip(boxes.tolist(), outlines.reshape(objects, -1).tolist(), strict=True)
        )
    ]
    for i, annotation in enumerate(annotations):
        annotation["category_id"] = str(category[i]) if mended else category[i]
        if not mended:
            annotation |= {"id": i + 1, "area": 100.0, "iscrowd": int(crowd[i])}
    (folder / "images").mkdir()
    names = [f"{i:012d}.jpg" for i in range(1, images + 1)]
    for name in names:
        (folder / "images" / name).touch()
    content = {
        "images": [
            {"id": i, "file_name": name, "width": WIDTH, "height": HEIGHT}
            for i, name in enumerate(names, start=1)
        ],
        "categories": [{"id": i, "name": f"class {i}"} for i in range(1, CLASSES + 1)],
        "annotations": annotations,
    }
    file = folder / "annotations.json"
    file.write_text(json.dumps(content))
    return file


def main(words: Sequence[str] | None = None) -> None:
    """Write the file, and time the steps from it to the records of training."""
    options = parser(__doc__)
    options.add_argument("--images", type=int, default=118_287)
    options.add_argument("--objects", type=int, default=860_001)
    options.add_argument("--mended", action="store_true")
    options.set_defaults(repeats=3)
    arguments = parse(options, words)
    share = 20 if arguments.quick else 1
    images, objects = arguments.images // share, arguments.objects // share
    results = Results("inspect_annotations", arguments)
    with tempfile.TemporaryDirectory() as folder:
        file = write(Path(folder), images, objects, arguments.mended)
        pictures = file.parent / "images"
        document = inspect(file, pictures)

        def records() -> None:
            with no_garbage_collection():
                standard_records(document, str(pictures))

        calls = {
            "read the JSON": lambda: read_document(file),
            "read, inspect and mend": lambda: inspect(file, pictures),
            "records of training": records,
        }
        case = f"{images:,} images, {objects:,} objects"
        results.compare(case, calls, warmup=0, clock=time.process_time)
        for finding in document.findings:
            print(finding.severity, finding.message)


if __name__ == "__main__":
    main()
