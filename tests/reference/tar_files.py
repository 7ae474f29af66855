"""Shards of small pictures for the tests."""

import io
import json
import tarfile

import numpy as np
from PIL import Image


def picture(seed, height=20, width=30):
    """Random pixels, and the bytes of a PNG of them."""
    pixels = np.random.default_rng(seed).integers(0, 256, (height, width, 3), np.uint8)
    stream = io.BytesIO()
    Image.fromarray(pixels).save(stream, "PNG")
    return pixels, stream.getvalue()


def record(number, **changes):
    """What stands in an image's JSON file."""
    annotations = [
        {"bbox": [1, 2, 3 + number % 5, 4], "category_id": 1 + number % 2},
        {"bbox": [5, 5, 0, 4], "category_id": 1},
    ]
    return {"width": 30, "height": 20, "image_id": number, "annotations": annotations} | changes


def write_tar(path, members, mode="w"):
    """Write members, bytes or what becomes JSON by their names."""
    with tarfile.open(path, mode) as archive:
        for name, content in members.items():
            data = content if isinstance(content, bytes) else json.dumps(content).encode()
            member = tarfile.TarInfo(name)
            member.size = len(data)
            archive.addfile(member, io.BytesIO(data))
    return path


def write_shards(folder, counts):
    """Write shards with so many images each, numbered through."""
    number = 0
    for shard, count in enumerate(counts):
        members = {}
        for _ in range(count):
            members[f"{number:06d}.png"] = picture(number)[1]
            members[f"{number:06d}.json"] = record(number)
            number += 1
        write_tar(folder / f"part-{shard:02d}.tar", members)
    return f"{folder}/part-{{00..{len(counts) - 1:02d}}}.tar"
