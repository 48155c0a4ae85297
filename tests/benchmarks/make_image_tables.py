"""Write cfg/datasets/coco8.txt and coco128.txt from the unpacked data sets.

    python tests/benchmarks/make_image_tables.py ../shared/data

Every image must be one of COCO train2017: its size is compared with the official annotations that
are beside coco128, and the images of coco8 must be the same bytes there.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

from PIL import Image

from rtdetr_cli.core.files import asset_dir, sha256

HEAD = """\
# {name}: {count} images of COCO train2017. Written by tests/benchmarks/make_image_tables.py.
# The annotations are by the COCO Consortium (https://cocodataset.org/#termsofuse), licensed under
# CC BY 4.0 (https://creativecommons.org/licenses/by/4.0/); here as fractions of width and height.
# The photographs are under the licences of their authors on Flickr and are not part of rtdetr.
# A line for each image: file, width, height, SHA-256. Below it its boxes: class cx cy w h.
"""


def write_table(root: Path, official: dict[str, tuple[int, int]], sums: dict[str, str]) -> None:
    """Write the table of one data set, images in the order of their names in each split."""
    images = sorted((root / "images").rglob("*.jpg"))
    lines = [HEAD.format(name=root.name.upper(), count=len(images))]
    for path in images:
        with Image.open(path) as image:
            assert image.size == official[path.name], path
            assert image.getexif().get(0x0112, 1) == 1, path
            width, height = image.size
        assert sums.setdefault(path.name, sha256(path)) == sha256(path), path
        place = path.relative_to(root)
        lines.append(f"{place.as_posix()} {width} {height} {sha256(path)}\n")
        label = root / "labels" / place.relative_to("images").with_suffix(".txt")
        if label.exists():
            rows = label.read_text("utf-8")
            assert rows.endswith("\n"), label
            assert all(len(row.split()) == 5 for row in rows.splitlines()), label
            lines.append(rows)
    target = asset_dir("cfg") / "datasets" / f"{root.name}.txt"
    target.write_text("".join(lines), encoding="utf-8", newline="\n")


def main(data: Path) -> None:
    """Write both tables."""
    path = data / "coco128" / "annotations" / "instances_train2017.json"
    images = json.loads(path.read_text("utf-8"))["images"]
    assert all("/train2017/" in one["coco_url"] for one in images)
    official = {one["file_name"]: (one["width"], one["height"]) for one in images}
    sums: dict[str, str] = {}
    for name in ("coco128", "coco8"):
        write_table(data / name, official, sums)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
