"""Pascal VOC: damaged annotations, document types with entities, odd encodings and lists."""

from __future__ import annotations

import random
from pathlib import Path

from PIL import Image

from rtdetr_cli.data.splits import load_data, open_split
from rtdetr_cli.evaluation.coco import CocoEvaluator

XML = (
    "<annotation><size><width>60</width></size><object><name>cat</name><difficult>0</difficult>"
    "<bndbox><xmin>1</xmin><ymin>1</ymin><xmax>60</xmax><ymax>40</ymax></bndbox></object>"
    "<object><name>dog</name><bndbox><xmin>5</xmin><ymin>6</ymin><xmax>9</xmax><ymax>9</ymax>"
    "</bndbox></object></annotation>"
)
BOMB = (
    '<!DOCTYPE a [<!ENTITY l0 "lol">'
    + "".join(f'<!ENTITY l{n} "{f"&l{n - 1};" * 10}">' for n in range(1, 12))
    + "]>"
)
HEADS = (
    *(BOMB, "<!DOCTYPE a>", '<!DOCTYPE a SYSTEM "file:///etc/passwd">'),
    '<!DOCTYPE a [<!ENTITY x SYSTEM "file:///dev/zero">]>',
    *('<?xml version="1.0" encoding="utf-7"?>', '<?xml version="1.0" encoding="zip"?>'),
    *('<?xml version="1.0" encoding="shift_jis"?>', '<?xml version="1.1"?>', "\ufeff", "<?a?>"),
)
ODD = (
    *("", "nan", "-1e999", "9" * 5000, "a", "<b>1</b>", "&l11;", "&x;", "&#27;", "&#0;", "&lt;"),
    *("1_0", "\u0663", "\ud7ff", "x" * 100_000, "<a>" * 20_000, "<a/>" * 20_000, "1.5", "-5", "70"),
)


def case(rng: random.Random, folder: Path) -> None:
    """Mutate the annotation or the list; open the folder as `data=`, score the split."""
    for name in ("Annotations", "JPEGImages", "ImageSets/Main"):
        (folder / name).mkdir(parents=True)
    Image.new("RGB", (60, 40)).save(folder / "JPEGImages" / "a.jpg")
    stem = rng.choice(("a",) * 10 + ("../a", "\0", "x" * 300, "b", "\x1b[31m", "a 1\n\na -1"))
    (folder / "ImageSets" / "Main" / "train.txt").write_text(stem)
    text = XML
    for _ in range(rng.choice((1, 1, 2, 3))):
        text = _mutate(rng, text)
    if rng.random() < 0.3:
        text = rng.choice(HEADS) + text
    encoding = rng.choice(("utf-8", "utf-8", "utf-8", "utf-16", "latin-1"))
    (folder / "Annotations" / "a.xml").write_bytes(text.encode(encoding, "replace"))
    split = open_split(load_data(folder), "train")
    CocoEvaluator(split.ground_truth(), split.category_ids).compute()


def _mutate(rng: random.Random, text: str) -> str:
    at = rng.randrange(len(text) + 1)
    kind = rng.random()
    if kind < 0.5:  # the text of a node
        start = text.find(">", at) + 1
        end = max(start, text.find("<", start))
        return text[:start] + rng.choice(ODD) + text[end:]
    if kind < 0.7:
        return text[:at] + text[at + rng.randrange(1, 40) :]
    if kind < 0.9:
        return (
            text[:at]
            + rng.choice(("<", ">", "&", "\0", "<![CDATA[", "<!--", "</object>"))
            + text[at:]
        )
    return text[:at]
