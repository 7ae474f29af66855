"""Pictures that are bombs, cut short, changed at random, or no pictures at all.

What is read of one that is cut short must be the whole picture; what is read of another must be of
the size that its header says.
"""

import io
import os
import socket
import struct
import zlib
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from random import Random

import numpy as np
from PIL import Image

from tests.faults.trials import Trial, expect

HEIGHT, WIDTH = 48, 64
POSTSCRIPT = (
    b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n%%EndComments\n"
    b"(ran) (w) file pop\nshowpage\n"
)
ENCODINGS: dict[str, tuple[str, dict]] = {
    **{
        kind: (kind, {}) for kind in ("AVIF", "BMP", "GIF", "JPEG", "JPEG2000", "PCX", "PNG", "PPM")
    },
    **{kind: (kind, {}) for kind in ("QOI", "SGI", "TGA", "TIFF", "WEBP", "MPO", "DIB")},
    "progressive JPEG": ("JPEG", {"progressive": True}),
    "lossless WEBP": ("WEBP", {"lossless": True}),
    "tiled JPEG2000": ("JPEG2000", {"tile_size": (32, 32)}),
    "TGA of runs": ("TGA", {"compression": "tga_rle"}),
    **{
        f"TIFF by {name}": ("TIFF", {"compression": name})
        for name in ("tiff_lzw", "tiff_deflate", "packbits", "jpeg", "lzma", "zstd")
    },
}


def pixels() -> np.ndarray:
    """Colours with something smooth and something rough in them."""
    y, x = np.mgrid[:HEIGHT, :WIDTH]
    colours = np.stack([x * 3, y * 5, x + y], axis=-1).astype(np.uint8)
    colours[8:24, 8:24] = np.random.default_rng(0).integers(0, 256, (16, 16, 3))
    return colours


def encoded(name: str) -> bytes:
    """The picture in an encoding, nothing where this Pillow lacks it."""
    kind, options = ENCODINGS[name]
    stream = io.BytesIO()
    try:
        Image.fromarray(pixels()).save(stream, kind, **options)
    except (KeyError, OSError, ValueError):
        return b""
    return stream.getvalue()


def png(width: int, height: int, depth: int = 8, *more: tuple[bytes, bytes]) -> bytes:
    """A PNG whose header may say more than there is."""
    header = struct.pack(">IIBBBBB", width, height, depth, 0, 0, 0, 0)
    rows = zlib.compress(b"\0" * 90)
    chunks = [(b"IHDR", header), *more, (b"IDAT", rows), (b"IEND", b"")]
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
        for kind, data in chunks
    )


def tiff(*entries: tuple[int, int, int, int]) -> bytes:
    """A grey TIFF of 8 x 8 pixels, with other entries."""
    usual = {256: 8, 257: 8, 258: 8, 259: 1, 262: 1, 273: 400, 277: 1, 278: 8, 279: 64}
    table = {tag: (4, 1, value) for tag, value in usual.items()}
    table |= {tag: (kind, count, value) for tag, kind, count, value in entries}
    rows = (struct.pack("<HHII", tag, *values) for tag, values in sorted(table.items()))
    data = b"II*\0" + struct.pack("<IH", 8, len(table)) + b"".join(rows) + bytes(4)
    return data.ljust(400, b"\0") + bytes(64)


def resized(name: str, old: bytes, new: bytes) -> bytes:
    """An encoded picture with another size in its header."""
    return encoded(name).replace(old, new, 1)


def many_scans() -> bytes:
    """A JPEG that is passed over 50,000 times."""
    data = encoded("progressive JPEG")
    scan = data[data.rindex(b"\xff\xda") : -2]
    header = scan[: 2 + struct.unpack(">H", scan[2:4])[0]]
    return data[:-2] + (header + b"\0\0") * 50_000 + b"\xff\xd9"


def bombs() -> dict[str, bytes]:
    """Files that would take more than they are worth."""
    nothing = zlib.compress(bytes(200 << 20), 9)
    most = 2**31 - 1
    return {
        "a PNG of 60,000 pixels a side": png(60000, 60000),
        "a PNG of one bit": png(60000, 60000, 1),
        "a PNG of 2^31 pixels a side": png(most, most),
        "a PNG of no pixel": png(0, 0),
        "a PNG with 200 MB of text": png(8, 8, 8, (b"zTXt", b"k\0\0" + nothing)),
        "a PNG with 200 MB of words": png(8, 8, 8, (b"iTXt", b"k\0\1\0\0\0" + nothing)),
        "a PNG with 200 MB of colour": png(8, 8, 8, (b"iCCP", b"k\0\0" + nothing)),
        "a JPEG of 65,000 pixels a side": resized(
            "JPEG", struct.pack(">HH", HEIGHT, WIDTH), struct.pack(">HH", 65000, 65000)
        ),
        "a JPEG of 50,000 scans": many_scans(),
        "a GIF of 65,535 pixels a side": resized(
            "GIF", struct.pack("<HH", WIDTH, HEIGHT), struct.pack("<HH", 65535, 65535)
        ),
        "a BMP of 60,000 pixels a side": resized(
            "BMP", struct.pack("<ii", WIDTH, HEIGHT), struct.pack("<ii", 60000, -60000)
        ),
        "a PPM of 60,000 pixels a side": b"P6 60000 60000 255\n",
        "a PPM with 20 MB of remarks": b"P6\n#" + b"x" * (20 << 20),
        "a PPM of long numbers": b"P6 " + b"9" * 5000 + b" 9 255\n",
        "a QOI of 60,000 pixels a side": b"qoif" + struct.pack(">II", 60000, 60000) + b"\3\0",
        "a TGA of 65,535 pixels a side": b"\0\0\2"
        + bytes(9)
        + struct.pack("<HHBB", 65535, 65535, 24, 0),
        "a TIFF of 60,000 pixels a side": tiff((256, 4, 1, 60000), (257, 4, 1, 60000)),
        "a TIFF of 65,535 channels": tiff((277, 3, 1, 65535)),
        "a TIFF of 2^32 rows a strip": tiff((259, 3, 1, 5), (278, 4, 1, 2**32 - 1)),
        "a TIFF of 2^32 entries": tiff((256, 4, 2**32 - 1, 8)),
        "a TIFF of large tiles": tiff(
            *((259, 3, 1, 8), (322, 4, 1, 60000), (323, 4, 1, 60000), (324, 4, 1, 400)),
            (325, 4, 1, 64),
        ),
        "PostScript": POSTSCRIPT,
        "a PDF": b"%PDF-1.4\n",
        "a drawing": b"<svg xmlns='http://www.w3.org/2000/svg'/>",
        "nothing": b"",
        "NUL bytes": bytes(1000),
        "a program": b"\x7fELF" + bytes(100),
        "a pickle": b"\x80\x04\x95\x00",
    }


def read(data: bytes) -> None:
    """Read a picture; it must be of the size that its header says."""
    from detrex.data.pictures import read_image

    Path("photo.jpg").write_bytes(data)
    image = read_image("photo.jpg", "RGB", (0, 255))
    with Image.open("photo.jpg") as header:
        sides = {header.width, header.height}
    expect({*image.shape[:2]} == sides and image.shape[2] == 3, f"a picture of {image.shape}")


def read_cut(name: str, share: float) -> None:
    """Read a picture that is cut short."""
    from detrex.data.pictures import read_image

    data = encoded(name)
    Path("whole.jpg").write_bytes(data)
    whole = read_image("whole.jpg")
    Path("cut.jpg").write_bytes(data[: int(share * len(data))])
    expect(np.array_equal(read_image("cut.jpg"), whole), "a part was taken for the whole")


def read_special(kind: str, by_detectron2: bool) -> None:
    """Read what is no regular file, or has no name, through a mapper."""
    from detectron2.data import DatasetMapper

    from detrex.data import DetrDatasetMapper
    from detrex.data.bad_pictures import BadPicture, MarkBadPictures
    from detrex.errors import PictureError

    name = {"half of a character": "\ud800.png", "NUL": "a\0.png", "a long name": "x" * 300}.get(
        kind, "picture.png"
    )
    if kind == "a named pipe":
        os.mkfifo(name)
    elif kind == "a socket":
        socket.socket(socket.AF_UNIX).bind(name)
    elif kind == "a folder":
        os.mkdir(name)
    elif kind in ("a device", "a link to itself"):
        os.symlink({"a device": "/dev/zero"}.get(kind, name), name)
    elif kind == "PostScript":
        Path(name).write_bytes(POSTSCRIPT)
    elif kind == "no permission":
        Path(name).write_bytes(encoded("PNG"))
        os.chmod(name, 0)
    mapper = (
        DatasetMapper(is_train=False, augmentations=[], image_format="RGB")
        if by_detectron2
        else DetrDatasetMapper([], None, is_train=False)
    )
    sample = MarkBadPictures(mapper)({"file_name": name, "height": HEIGHT, "width": WIDTH})
    if isinstance(sample, BadPicture):
        raise PictureError(sample.error)


def changed(random: Random, data: bytes) -> bytes:
    """A picture with some bytes changed, more of them at its start."""
    result = bytearray(data)
    for _ in range(random.randint(1, 6)):
        place = random.randrange(min(len(result), random.choice((40, 300, len(result)))))
        result[place] = random.choice((0, 255, 127, 128, random.randrange(256)))
    return bytes(result)


def by_hand() -> Iterator[tuple[str, Callable[[], None], str]]:
    """Names, what is tried, and how it must end."""
    for name, data in bombs().items():
        yield name, partial(read, data), "sentence" if "PNG with" not in name else "either"
    kinds = ("a named pipe", "a socket", "a folder", "a device", "a link to itself", "PostScript")
    for kind in (*kinds, "half of a character", "NUL", "a long name", "no file"):
        for by_detectron2 in (False, True):
            name = f"{kind}, {'detectron2' if by_detectron2 else 'detrex'}'s mapper"
            yield name, partial(read_special, kind, by_detectron2), "sentence"


def trials(count: int, seed: int) -> Iterator[Trial]:
    """Give files made by hand, cut short and changed at random, in turns."""
    random = Random(seed)
    hand = list(by_hand())
    random.shuffle(hand)
    names = [name for name in ENCODINGS if encoded(name)]
    for number in range(count):
        name = random.choice(names)
        if number % 3 == 0 and hand:
            name, run, expected = hand.pop()
        elif number % 3 == 1:
            share = random.random()
            run, expected = partial(read_cut, name, share), "either"
            name = f"{number}: {name} cut at {share:.3f}"
        else:
            run, expected = partial(read, changed(random, encoded(name))), "either"
            name = f"{number}: {name} changed"
        yield Trial("pictures", name, run, expected, seconds=60, memory=2 << 30)
