"""Draw the gallery's pictures from a run of the demo: ``python docs/make_gallery.py output/demo``.

Of each act it takes the curves and the first pictures with truth beside predictions, shrinks them
and writes them as WebP into ``docs/_static/gallery/``.
"""

import sys
from pathlib import Path

from PIL import Image

FOLDER = Path(__file__).parent / "_static" / "gallery"
PICTURES = 4
WIDTH = 720
MOST_BYTES = 400_000


def shrink(source: Path, target: Path, width: int = WIDTH) -> None:
    """Write a picture as WebP, at most ``width`` pixels wide."""
    picture = Image.open(source).convert("RGB")
    if picture.width > width:
        picture = picture.resize(
            (width, round(picture.height * width / picture.width)), Image.LANCZOS
        )
    picture.save(target, quality=70, method=6)


def draw(demo: Path) -> list[Path]:
    """Write the pictures of the acts that a demo's folder holds; those of others stay.

    Args:
        demo: as ``demo/run.py --output`` wrote it.

    Returns:
        The files.
    """
    FOLDER.mkdir(parents=True, exist_ok=True)
    written = []
    for act in sorted(path for path in demo.iterdir() if (path / "loss.png").is_file()):
        sources = {f"{act.name}_{name}": act / f"{name}.png" for name in ("loss", "ap")}
        pictures = sorted((act / "pictures").rglob("*.png"))[:PICTURES]
        sources |= {f"{act.name}_{place}": path for place, path in enumerate(pictures, 1)}
        for name, source in sources.items():
            written.append(FOLDER / f"{name}.webp")
            shrink(source, written[-1])
    return written


def main() -> None:
    """Write them, and say how large they are."""
    if len(sys.argv) != 2 or not Path(sys.argv[1]).is_dir():
        raise SystemExit(
            "usage: python docs/make_gallery.py FOLDER_OF_THE_DEMO, such as output/demo"
        )
    files = draw(Path(sys.argv[1]))
    if not files:
        raise SystemExit(f"{sys.argv[1]} holds no act of the demo: run `make demo` first.")
    size = sum(path.stat().st_size for path in FOLDER.glob("*.webp"))
    print(f"{len(files)} pictures; {FOLDER.name} holds {size / 1000:.0f} kB")
    if size > MOST_BYTES:
        raise SystemExit(f"that is more than {MOST_BYTES / 1000:.0f} kB: lower WIDTH or PICTURES.")


if __name__ == "__main__":
    main()
