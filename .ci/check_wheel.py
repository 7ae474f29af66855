"""Run by the Python of an environment that holds the wheel: what a user does first must work.

Outside of the checkout: shapes are drawn, and by the command `detrex` alone a project is made of
them, trained, evaluated, exported, and its detector finds something. Prints each step's seconds.
`--pictures 400 --iterations 1000` is the same in earnest, and tells the AP.
"""

import argparse
import json
import subprocess
import sys
import tempfile
import time
from importlib import resources
from pathlib import Path

import detrex
from detrex.config import get_config
from detrex.modeling.backbone import TimmBackbone

SIDE = 64
# A DINO that learns on a processor.
SMALL = (
    "model.transformer.encoder.num_layers=1",
    "model.transformer.decoder.num_layers=2",
    "model.num_queries=50",
    "model.select_box_nums_for_evaluation=50",
)


def check_package() -> None:
    """Assert that the wheel is whole."""
    installed = Path(detrex.__file__).resolve()
    assert Path(sys.prefix).resolve() in installed.parents, f"not the wheel: {installed}"
    assert resources.files("detrex").joinpath("py.typed").is_file(), "the wheel holds no py.typed"
    assert get_config("common/train.py").train.max_iter > 0
    assert "model" in get_config("dino/models/dino_r50.py")
    assert TimmBackbone("resnet18", out_indices=(2, 3, 4)).output_shape()
    print(f"{installed}: version {detrex.__version__}, configs found")


def run(folder: Path, *words: str) -> str:
    """Run the console script in a folder, and assert that it ends well."""
    start = time.monotonic()
    command = [str(Path(sys.executable).parent / "detrex"), *words]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True)
    shown = " ".join(word for word in words if not word.startswith("model."))
    print(f"{time.monotonic() - start:6.1f} s  detrex {shown}", flush=True)
    assert done.returncode == 0, f"status {done.returncode}:\n{done.stdout}\n{done.stderr}"
    return done.stdout


def draw_shapes(folder: Path, count: int) -> None:
    """Draw a data set in COCO's format, and lay it out once more in YOLO's."""
    words = [sys.executable, "-I", "-m", "detrex.data.demo.shapes", "shapes"]
    words += ["--train", str(count), "--val", str(max(4, count // 8)), "--size", str(SIDE)]
    words += ["--max-objects", "3"]
    subprocess.run(words, cwd=folder, check=True, capture_output=True)
    for split in ("train", "val"):
        source = folder / "shapes" / split
        content = json.loads((source / "annotations.json").read_text())
        rows: dict[int, list[str]] = {image["id"]: [] for image in content["images"]}
        for annotation in content["annotations"]:
            x, y, w, h = (value / SIDE for value in annotation["bbox"])
            values = (annotation["category_id"] - 1, x + w / 2, y + h / 2, w, h)
            rows[annotation["image_id"]].append(" ".join(map(str, values)))
        for kind in ("images", "labels"):
            (folder / "yolo" / kind / split).mkdir(parents=True)
        for image in content["images"]:
            name = Path(image["file_name"])
            picture = folder / "yolo" / "images" / split / name
            picture.write_bytes((source / "images" / name).read_bytes())
            label = folder / "yolo" / "labels" / split / name.with_suffix(".txt")
            label.write_text("\n".join(rows[image["id"]]))
    (folder / "yolo" / "data.yaml").write_text(
        "train: images/train\nval: images/val\nnames: [circle, square, triangle]\n"
    )


def check_commands(folder: Path, pictures: int, iterations: int) -> None:
    """Go from pictures to a detector and its file, with each file asserted."""
    draw_shapes(folder, pictures)
    options = ("--backbone", "resnet10t", "--weights", "none", "--size", str(SIDE))
    run(folder, "init", "of_coco", "--data", "shapes", "--detector", "fcos", *options)
    told = run(folder, "init", "of_yolo", "--data", "yolo", "--batch-size", "4", *options)
    for words in ("check of_yolo/config.py", "train of_yolo/config.py", "predict of_yolo/output"):
        assert f"detrex {words}" in told, told
    for split in ("train", "val"):
        files = (folder / f"of_yolo/{split}.json", folder / f"shapes/{split}/annotations.json")
        found, drawn = (
            [a["bbox"] for a in json.loads(f.read_text())["annotations"]] for f in files
        )
        assert [[round(value) for value in box] for box in found] == drawn, split
    changes = (f"train.max_iter={iterations}", "optimizer.lr=5e-4", "train.device=cpu")
    run(folder, "train", "of_yolo/config.py", *changes, *SMALL)
    output = folder / "of_yolo" / "output"
    for name in ("model_final.pth", "config.yaml", "metrics.json", "log.txt", "report.html"):
        assert (output / name).stat().st_size > 0, name
    evaluated = run(folder, "eval", "of_yolo/output", "--json", "metrics.json")
    assert "bbox" in json.loads((folder / "metrics.json").read_text()), evaluated
    print("\n".join(line for line in evaluated.splitlines() if line.startswith(("TASK ", "bbox "))))
    seen = ("yolo/images/val", "--output", "found", "--threshold", "0", "--device", "cpu")
    run(folder, "predict", "of_yolo/output", *seen, "--json", "found.json")
    drawn = sorted(path.name for path in (folder / "found").iterdir())
    assert drawn == sorted(path.name for path in (folder / "yolo/images/val").iterdir())
    assert json.loads((folder / "found.json").read_text())
    weights = ("--weights", "of_yolo/output/model_final.pth", "--output", "detector.onnx")
    run(folder, "export", "of_yolo/output/config.yaml", *weights, "--size", "64x64", "64x96")
    assert (folder / "detector.onnx").stat().st_size > 1e6


def main() -> None:
    """Check the package, then its commands."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--pictures", type=int, default=8, help="to learn from (%(default)s)")
    parser.add_argument("--iterations", type=int, default=3, help="of the training (%(default)s)")
    arguments = parser.parse_args()
    check_package()
    start = time.monotonic()
    with tempfile.TemporaryDirectory() as scratch:
        check_commands(Path(scratch), arguments.pictures, arguments.iterations)
    print(f"{time.monotonic() - start:6.1f} s  from pictures to a detector")


if __name__ == "__main__":
    main()
