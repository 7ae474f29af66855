"""Seconds of one core to look at annotations of the size of COCO's train2017, and to read the JSON.

python benchmarks/inspect_annotations.py [--images 118287] [--objects 860001] [--mended]

The file is synthetic (a polygon of 20 points an object), and it and as many empty pictures are
written into a temporary folder. With `--mended`, it has no ids, areas and crowds, and category ids
that are texts: every record is mended.
"""

import argparse
import json
import tempfile
import time
from pathlib import Path

import numpy as np

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


def main() -> None:
    """Write the file, and time the steps from it to the records of training."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--images", type=int, default=118_287)
    parser.add_argument("--objects", type=int, default=860_001)
    parser.add_argument("--mended", action="store_true")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        file = write(Path(folder), args.images, args.objects, args.mended)
        print(f"{args.images:,} images, {args.objects:,} objects, {file.stat().st_size:,} bytes")
        start = time.process_time()
        document = read_document(file)
        read = time.process_time() - start
        del document
        start = time.process_time()
        document = inspect(file, file.parent / "images")
        both = time.process_time() - start
        start = time.process_time()
        with no_garbage_collection():
            standard_records(document, str(file.parent / "images"))
        records = time.process_time() - start
        print(f"read the JSON      {read:6.2f} s")
        print(f"inspect and mend   {both - read:6.2f} s beyond reading")
        print(f"training's records {records:6.2f} s")
        for finding in document.findings:
            print(finding.severity, finding.message)


if __name__ == "__main__":
    main()
