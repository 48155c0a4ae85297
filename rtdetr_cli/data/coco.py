"""COCO json: boxes in pixels, any category ids, crowd regions; also as exported by Roboflow.

coco_json.py parses the entries.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path, PurePosixPath
from typing import Any

from rtdetr_cli.core.errors import DataError, nearest
from rtdetr_cli.data.coco_json import (
    Annotation,
    Category,
    ClassList,
    Id,
    ImageEntry,
    Json,
    as_id,
    forget_json,
    load_json,
    parse_annotation,
    parse_category,
    parse_image,
    read_class_list,
)
from rtdetr_cli.data.dataset import (
    DetectionDataset,
    LabelledBox,
    Record,
    make_record,
    read_sizes,
)
from rtdetr_cli.data.problems import (
    CLIPPED,
    LabelError,
    Problems,
    check_overhang,
    check_size,
    unusable,
)

OUTSIDE_TOLERANCE_PIXELS = 1.0
"""Tolerated overhang of a box: published data sets round, and count from 0 or from 1."""


def read_coco(
    json_path: Path,
    image_folders: list[Path],
    names: dict[int, str] | None,
    bad_images: str | None = None,
) -> DetectionDataset:
    """Read a COCO json; the ground truth keeps its image and category ids if they are numbers.

    Args:
        json_path: the annotations.
        image_folders: candidate folders of each image.
        names: classes in the order of the model, found by name; None: those of the json, by id.
        bad_images: error or skip.

    Raises:
        DataError: broken json, missing images, unknown ids, invalid boxes; all of them are listed.
    """
    names = names or class_names([json_path], json_path)
    problems = Problems(bad_images)
    try:
        return _dataset(json_path, image_folders, names, problems)
    finally:
        forget_json()


def _dataset(
    json_path: Path, folders: list[Path], names: dict[int, str], problems: Problems
) -> DetectionDataset:
    content = load_json(json_path)
    categories = _categories(content["categories"], problems)
    entries = _image_entries(content["images"], json_path, problems)
    # With wrong ids, what follows has no meaning.
    problems.raise_if_any(f"{json_path}: ", is_fatal=True)
    images = _with_paths(entries, folders, json_path, problems)
    truth = _Truth(names, categories, images, problems, f"{json_path}: annotations[")
    for number, entry in enumerate(content["annotations"]):
        truth.add(number, entry)
    problems.raise_if_any(f"{json_path}: ")
    return replace(truth.dataset(), findings=problems.findings(f"{json_path}: "))


def class_names(jsons: Sequence[Path], own: Path) -> dict[int, str]:
    """Class names of a data set: those of the first json by id, then what others have besides.

    Left out is the category that Roboflow adds first: it is the parent of all others, and no json
    has a box of it.

    Args:
        jsons: of all splits, in the order of the splits.
        own: the json that is opened; others may be broken, which is reported when they are opened.
    """
    read: dict[Path, ClassList] = {}
    for path in sorted(jsons, key=lambda path: path == own):  # the last one read is kept
        try:
            read[path] = read_class_list(path)
        except DataError:
            if path == own:
                raise
    lists = [read[path] for path in jsons if path in read]
    used = {one.name for part in lists for one in part.categories if one.id in part.used}
    names = dict.fromkeys(
        one.name
        for part in lists
        for one in sorted(part.categories, key=lambda one: (isinstance(one.id, str), one.id))
        if one.name in used or not _is_empty_parent(one, part.categories)
    )
    return dict(enumerate(names))


def _is_empty_parent(category: Category, categories: list[Category]) -> bool:
    others = [one for one in categories if one.id != category.id]
    is_parent = bool(others) and all(one.parent == category.name for one in others)
    return category.id == 0 and category.parent != category.name and is_parent


def _categories(entries: list[Any], problems: Problems) -> dict[Id, str]:
    """Names by id; the same entry twice is one."""
    found: dict[Id, str] = {}
    for number, entry in enumerate(entries):
        try:
            one = parse_category(entry)
        except LabelError as error:
            problems.add("category-malformed", f"categories[{number}]", str(error))
            continue
        if found.setdefault(one.id, one.name) != one.name:
            what = f" is that of {found[one.id]} and of {one.name}"
            problems.add("category-id-repeated", f"category id {one.id}", what)
    for name, count in Counter(found.values()).items():
        if count > 1:
            what = f" have the same name, {name}"
            problems.add("category-name-repeated", "two categories", what)
    return found


def _image_entries(entries: list[Any], json_path: Path, problems: Problems) -> dict[Id, ImageEntry]:
    """Images by id."""
    if not entries:
        raise unusable("split-empty", str(json_path), "lists no images")
    found: dict[Id, ImageEntry] = {}
    for number, entry in enumerate(entries):
        try:
            image = parse_image(entry)
        except LabelError as error:
            problems.add("image-entry-malformed", f"images[{number}]", str(error))
            continue
        first = found.setdefault(image.id, image)
        if first.file_name != image.file_name:
            what = f" is that of {first.file_name} and {image.file_name}"
            problems.add("image-id-repeated", f"image id {image.id}", what)
        elif first is not image:
            what = "images listed twice under one id taken once"
            problems.mend("image-listed-twice", image.file_name, what)
    return found


def _with_paths(
    entries: dict[Id, ImageEntry], folders: list[Path], json_path: Path, problems: Problems
) -> dict[Id, tuple[ImageEntry, Path]]:
    """Entry and file of each image by id."""
    places = _find_images([image.file_name for image in entries.values()], folders)
    images = {key: (image, places[image.file_name]) for key, image in entries.items()}
    for path, count in Counter(path for _, path in images.values()).items():
        if count > 1:
            what = "files listed under several image ids"
            problems.mend("image-under-several-ids", str(path), what, path)
    if not any(_is_file(path) for _, path in images.values()):
        looked = ", ".join(map(str, folders))
        name = next(iter(entries.values())).file_name
        what = f"its first image {name} is in none of {looked}"
        raise unusable("images-missing", str(json_path), what)
    return images


def _find_images(names: list[str], folders: list[Path]) -> dict[str, Path]:
    """Files by listed name: below one of the folders, else there without the listed folders."""
    bare = Counter(PurePosixPath(name).name for name in names)
    found = {}
    for name in names:
        last = PurePosixPath(name).name
        variants = [name, last] if last != name and bare[last] == 1 else [name]
        places = (folder / variant for variant in variants for folder in folders)
        path = found[name] = next(filter(_is_file, places), folders[0] / name)
        # The folder that had this one is tried first for the next.
        used = next((folder for folder in folders if path == folder / name), None)
        if used is not None and used != folders[0]:
            folders = [used, *(folder for folder in folders if folder != used)]
    return found


def _is_file(path: Path) -> bool:
    try:
        return path.is_file()
    except (OSError, ValueError):  # a name that no file can have
        return False


@dataclass
class _Truth:
    """Collects the boxes of the images, and the annotations as evaluation reads them."""

    names: dict[int, str]
    categories: dict[Id, str]
    images: dict[Id, tuple[ImageEntry, Path]]
    problems: Problems
    source: str
    annotations: list[Json] = field(default_factory=list)

    def __post_init__(self) -> None:
        paths = [path for _, path in self.images.values()]
        sizes = dict(zip(paths, read_sizes(paths, self.problems), strict=True))
        self._size_of = {
            key: size for key, (_, path) in self.images.items() if (size := sizes.get(path))
        }
        for key, size in self._size_of.items():
            entry, path = self.images[key]
            if entry.size_hw is None:
                what = "sizes that are not stated, from the image"
                self.problems.mend("image-size-absent", entry.file_name, what, path)
            check_size(path, entry.size_hw, size, self.problems)
        self._boxes_of: dict[Id, list[LabelledBox]] = defaultdict(list)
        self._listed: dict[tuple[object, ...], None] = {}
        self._image_number = _numbers(self.images)
        self._category_number = _numbers(self.categories)
        self._label_of = {name: index for index, name in self.names.items()}

    def add(self, number: int, entry: object) -> None:
        """Add one annotation."""
        where = f"annotations[{number}]"
        try:
            self._add(number, parse_annotation(entry))
        except LabelError as error:
            key = as_id(entry.get("image_id")) if isinstance(entry, dict) else None
            if key in self.images:
                image = self.images[key][1]
                self.problems.reject(image, error.kind, where, f"{error} ({image.name})")
            else:
                self.problems.add(error.kind, where, str(error))

    def _add(self, number: int, found: Annotation) -> None:
        where = f"annotations[{number}]"
        if found.image_id not in self.images:
            what = f": image_id {found.image_id} is not among the images"
            raise LabelError(what, "annotation-without-image")
        name = self.categories.get(found.category_id)
        if name is None:
            what = f": category_id {found.category_id} is not in categories"
            raise LabelError(what, "class-unknown")
        label = self._label_of.get(name)
        if label is None:
            hint = nearest(name, self._label_of)
            raise LabelError(f": class {name} is not among names{hint}", "class-unknown")
        size_hw = self._size_of.get(found.image_id)
        if size_hw is None or self._is_repeated(where, found):
            return
        width, height = found.bbox[2:]
        if width == 0 or height == 0:
            what = "boxes without area ignored in training"
            path = self.images[found.image_id][1]
            self.problems.mend("box-without-area", where, what, path)
            box = found.bbox
        else:
            corners, box = self._inside(where, found, size_hw)
            one = LabelledBox(label, corners, found.iscrowd, number)
            self._boxes_of[found.image_id].append(one)
        self.annotations.append(
            {
                "id": found.id,
                "image_id": self._image_number[found.image_id],
                "category_id": self._category_number[found.category_id],
                "bbox": box,
                "area": found.area if found.area is not None else width * height,
                "iscrowd": int(found.iscrowd),
            }
        )

    def _inside(
        self, where: str, found: Annotation, size_hw: tuple[int, int]
    ) -> tuple[list[float], list[float]]:
        """Corners, and the box for evaluation, clipped if it overhangs by more than rounding."""
        left, top, width, height = box = found.bbox
        corners = [left, top, left + width, top + height]
        verdict = check_overhang(corners, size_hw, OUTSIDE_TOLERANCE_PIXELS)
        if verdict == "outside":
            shown = ", ".join(f"{edge:.5g}" for edge in corners)
            raise LabelError(
                f": box outside the image of {size_hw[1]}x{size_hw[0]} "
                f"(left, top, right, bottom = {shown})",
                "box-outside-image",
            )
        if verdict == "clipped":
            self.problems.mend("box-clipped", where, CLIPPED, self.images[found.image_id][1])
            box = _clipped(corners, size_hw)
        return corners, box

    def _is_repeated(self, where: str, found: Annotation) -> bool:
        """Whether an annotation with its own id and all its values was added before."""
        if found.id is None:
            return False
        key = (*found[:3], *found.bbox, found.iscrowd)
        if key in self._listed:
            what = "annotations listed twice under one id taken once"
            self.problems.mend("box-repeated", where, what, self.images[found.image_id][1])
            return True
        self._listed[key] = None
        return False

    def dataset(self) -> DetectionDataset:
        """The split of all images that are not left out."""
        skipped, records = self.problems.skipped, []
        for key, (_, path) in self.images.items():
            if path not in skipped:
                records.append(self._record(key, path))
        kept = {record.image_id for record in records}
        annotations = [one for one in self.annotations if one["image_id"] in kept]
        _number_annotations(annotations, self.problems)
        return DetectionDataset(
            self.names,
            self._category_ids(),
            records,
            self.problems.notes(),
            annotations,
            skipped,
            _texts(self._image_number),
            _texts(self._category_number),
            listed=frozenset(self.categories.values()),
        )

    def _record(self, key: Id, path: Path) -> Record:
        return make_record(
            self._image_number[key],
            path,
            self._size_of[key],
            self._boxes_of.get(key, []),
            self.source,
        )

    def _category_ids(self) -> list[int]:
        """Id of each class; a class that the json does not list gets an unused one."""
        number_of = {name: self._category_number[key] for key, name in self.categories.items()}
        unused = max(number_of.values(), default=0) + 1
        ids = []
        for index in range(len(self.names)):
            if self.names[index] not in number_of:
                number_of[self.names[index]] = unused
                unused += 1
            ids.append(number_of[self.names[index]])
        return ids


def _numbers(ids: Iterable[Id]) -> dict[Id, int]:
    """The ids as numbers: their own, and above all of them for texts."""
    ids = list(ids)
    unused = max((key for key in ids if isinstance(key, int)), default=0) + 1
    numbers: dict[Id, int] = {}
    for key in ids:
        numbers[key] = key if isinstance(key, int) else unused
        unused += isinstance(key, str)
    return numbers


def _texts(numbers: dict[Id, int]) -> dict[int, str]:
    return {number: key for key, number in numbers.items() if isinstance(key, str)}


def _clipped(corners: list[float], size_hw: tuple[int, int]) -> list[float]:
    left, top = max(corners[0], 0), max(corners[1], 0)
    return [left, top, min(corners[2], size_hw[1]) - left, min(corners[3], size_hw[0]) - top]


def _number_annotations(annotations: list[Json], problems: Problems) -> None:
    """Give numbers to annotations without one, and to all if some repeat.

    Evaluation finds annotations by their id, so that with two of one id only one counts.
    """
    known = [one["id"] for one in annotations if one["id"] is not None]
    if len(set(known)) < len(known):
        repeated = next(id_ for id_, count in Counter(known).items() if count > 1)
        count = len(known) - len(set(known))
        note = "annotation ids that repeat, so all are numbered again"
        problems.mend("annotation-id-repeated", f"id {repeated}", note, count=count)
        known = []
        for one in annotations:
            one["id"] = None
    unused = max(known, default=0) + 1
    for one in annotations:
        if one["id"] is None:
            one["id"] = unused
            unused += 1
