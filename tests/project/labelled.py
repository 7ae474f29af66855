"""Small labelled data sets for the tests, and naive readers of their formats."""

import json
from pathlib import Path

from PIL import Image

SIZE = (40, 30)  # width and height


def picture(file, size=SIZE, orientation=None):
    """Write a grey picture, which lies on its side where an orientation of EXIF says so."""
    file.parent.mkdir(parents=True, exist_ok=True)
    exif = Image.Exif()
    if orientation:
        exif[0x0112] = orientation
    form = {".png": "PNG"}.get(file.suffix.lower(), "JPEG")
    Image.new("L", size, 128).save(file, form, exif=exif)
    return file


def yolo(root, labels, names=("cat", "dog"), suffix=".png"):
    """Write ``images`` and ``labels`` below a folder; None leaves a label file out.

    Args:
        root: the folder.
        labels: text by path without suffix, such as ``"train/a"``.
        names: for data.yaml, None to write none.
        suffix: of the pictures.
    """
    for name, text in labels.items():
        picture(root / "images" / f"{name}{suffix}")
        file = root / "labels" / f"{name}.txt"
        file.parent.mkdir(parents=True, exist_ok=True)
        if text is not None:
            file.write_text(text)
    if names is not None:
        (root / "data.yaml").write_text(f"names: {json.dumps(list(names))}\n")
    return root


def voc_object(name, box, extra=""):
    tags = zip(("xmin", "ymin", "xmax", "ymax"), box, strict=True)
    corners = "".join(f"<{tag}>{value}</{tag}>" for tag, value in tags)
    return f"<object><name>{name}</name>{extra}<bndbox>{corners}</bndbox></object>"


def voc_xml(objects="", size=SIZE):
    width, height = size
    return (
        f"<annotation><size><width>{width}</width><height>{height}</height><depth>3</depth></size>"
        f"{objects}</annotation>"
    )


def voc(root, files):
    """Write ``JPEGImages`` and ``Annotations`` below a folder, XML by the picture's stem."""
    for stem, text in files.items():
        picture(root / "JPEGImages" / f"{stem}.jpg")
        file = root / "Annotations" / f"{stem}.xml"
        file.parent.mkdir(parents=True, exist_ok=True)
        if text is not None:
            file.write_text(text)
    return root


def coco(root, count=4, masks=False, name="annotations.json"):
    """Write ``images`` and a JSON file with a box on each."""
    root.mkdir(parents=True, exist_ok=True)
    images, annotations = [], []
    for number in range(1, count + 1):
        file = picture(root / "images" / f"{number}.png")
        images.append({"id": number, "file_name": file.name, "width": 40, "height": 30})
        entry = {"id": number, "image_id": number, "category_id": 1 + number % 2}
        entry |= {"bbox": [2, 3, 20, 10], "area": 200, "iscrowd": 0}
        if masks:
            entry["segmentation"] = [[2, 3, 22, 3, 22, 13, 2, 13]]
        annotations.append(entry)
    categories = [{"id": 1, "name": "cat"}, {"id": 2, "name": "dog"}]
    content = {"images": images, "annotations": annotations, "categories": categories}
    file = root / name
    file.write_text(json.dumps(content))
    return file


def boxes_of(part):
    """Boxes and names by path of a `Part` that is to be written, for comparison."""
    names = {c["id"]: c["name"] for c in part.content["categories"]}
    found = {str(part.image_root / i["file_name"]): [] for i in part.content["images"]}
    files = {i["id"]: str(part.image_root / i["file_name"]) for i in part.content["images"]}
    for entry in part.content["annotations"]:
        found[files[entry["image_id"]]].append((names[entry["category_id"]], entry["bbox"]))
    return found


def naive_yolo(root, names):
    """Read boxes of all pictures below a folder, line by line."""
    found = {}
    for file in sorted(Path(root, "images").rglob("*.*")):
        with Image.open(file) as image:
            width, height = image.size
        text = Path(str(file).replace("/images/", "/labels/")).with_suffix(".txt")
        rows = text.read_text().split("\n") if text.exists() else []
        found[str(file)] = []
        for row in filter(str.strip, rows):
            number, *values = map(float, row.split())
            if len(values) > 4:
                xs, ys = values[::2], values[1::2]
                box = [min(xs), min(ys), max(xs) - min(xs), max(ys) - min(ys)]
            else:
                x, y, w, h = values
                box = [x - w / 2, y - h / 2, w, h]
            scaled = [v * s for v, s in zip(box, (width, height) * 2, strict=True)]
            found[str(file)].append((names[int(number)], scaled))
    return found
