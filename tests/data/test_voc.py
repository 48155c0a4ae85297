from __future__ import annotations

import numpy as np
import pytest
from PIL import Image

from rtdetr_cli.core.errors import DataError
from rtdetr_cli.data.splits import load_data, open_split
from rtdetr_cli.data.voc import read_voc


def voc_object(name="cat", box=(1, 1, 60, 40), difficult=0):
    edges = "".join(
        f"<{key}>{edge}</{key}>"
        for key, edge in zip(("xmin", "ymin", "xmax", "ymax"), box, strict=True)
    )
    return (
        f"<object><name>{name}</name><difficult>{difficult}</difficult>"
        f"<bndbox>{edges}</bndbox></object>"
    )


@pytest.fixture
def voc_list(tmp_path):
    def write(*objects, text=None):
        for folder in ("Annotations", "JPEGImages", "ImageSets/Main"):
            (tmp_path / folder).mkdir(parents=True)
        Image.fromarray(np.zeros((40, 60, 3), np.uint8)).save(tmp_path / "JPEGImages/a.jpg")
        content = text or f"<annotation>{''.join(objects)}</annotation>"
        (tmp_path / "Annotations/a.xml").write_text(content, "utf-8")
        path = tmp_path / "ImageSets/Main/train.txt"
        path.write_text("a  1\n", "utf-8")
        return path

    return write


def test_first_and_last_pixel_become_edges(voc_list):
    dataset = read_voc([voc_list(voc_object(), voc_object("dog", difficult=1))], None)
    assert dataset.names == {0: "cat", 1: "dog"}
    assert dataset.records[0].boxes_xyxy[0].tolist() == [0, 0, 60, 40]
    assert dataset.records[0].iscrowd.tolist() == [False, True]


@pytest.mark.parametrize(
    ("node", "sentence"),
    [
        (voc_object("cats"), r"object 0: class cats is not among names; did you mean cat\?"),
        (voc_object(box=(1, 1, 130, 40)), "outside the image of 60x40"),
        (voc_object(box=(1, 1, "nan", 40)), "NaN or infinity"),
        (voc_object(box=(1, 1, "", 40)), "is not four numbers"),
    ],
)
def test_wrong_object_is_named(voc_list, node, sentence):
    with pytest.raises(DataError, match=rf"a\.xml: .*{sentence}"):
        read_voc([voc_list(node)], {0: "cat"})


def test_objects_that_repeat_are_dropped_and_those_that_overhang_clipped(voc_list):
    odd = voc_object(name=" cat ", box=(31, 1, 70, 40))
    dataset = read_voc([voc_list(odd, odd, voc_object("dog"))], None)
    assert dataset.records[0].boxes_xyxy.tolist() == [[30, 0, 60, 40], [0, 0, 60, 40]]
    assert [note.partition(":")[0] for note in dataset.notes] == [
        "boxes that overhang the image clipped to it",
        "objects that repeat dropped",
    ]


def test_images_may_have_another_suffix(voc_list):
    path = voc_list(voc_object())
    folder = path.parents[2] / "JPEGImages"
    (folder / "a.jpg").rename(folder / "a.jfif")
    assert read_voc([path], None).records[0].path == folder / "a.jfif"


def test_every_mistake_is_listed_and_may_be_left_out(voc_list):
    path = voc_list(voc_object("cow"), voc_object(box=(1, 1, "x", 2)), voc_object())
    with pytest.raises(DataError) as caught:
        read_voc([path], {0: "cat"}, "error")
    assert [one.partition("object ")[2][0] for one in caught.value.problems] == ["0", "1"]
    dataset = read_voc([path], {0: "cat"}, "skip")
    assert (len(dataset), len(dataset.skipped)) == (0, 1)


def test_a_size_before_the_rotation_of_exif_is_an_error(voc_list):
    size = "<size><width>60</width><height>40</height></size>"
    path = voc_list(text=f"<annotation>{size}{voc_object()}</annotation>")
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.new("RGB", (60, 40)).save(path.parents[2] / "JPEGImages/a.jpg", exif=exif)
    with pytest.raises(DataError, match=r"annotations state 60x40 pixels, but its EXIF data turn"):
        read_voc([path], None)


def test_broken_xml_is_named(voc_list):
    with pytest.raises(DataError, match=r"a\.xml: broken XML, .*line 1"):
        read_voc([voc_list(text="<annotation>")], {0: "cat"})


def test_missing_annotation_is_named(voc_list):
    path = voc_list(voc_object())
    (path.parents[2] / "Annotations/a.xml").unlink()
    with pytest.raises(DataError, match=r"a\.xml: no such annotation"):
        read_voc([path], {0: "cat"})


def test_bccd_as_published_has_two_boxes_without_area(shared_data):
    config = load_data(shared_data / "bccd" / "voc")
    splits = [open_split(config, split) for split in ("train", "val", "test")]
    # README of the data: 205/87/72 images, 4886 boxes, zero-size ones in 00338 and 00343.
    assert [len(split) for split in splits] == [205, 87, 72]
    assert sum(split.num_boxes for split in splits) == 4886
    notes = [note.rpartition("/")[2] for split in splits for note in split.notes]
    expected = ["BloodImage_00338.xml: object 12)", "BloodImage_00343.xml: object 3)"]
    assert sorted(notes) == expected


def test_bccd_as_voc_has_the_boxes_of_its_yolo_labels(shared_data):
    """Those were made from the first pixel of VOC without counting it from 1."""
    voc = open_split(load_data(shared_data / "bccd" / "voc"), "val")
    yolo = open_split(load_data(shared_data / "bccd" / "data.yaml"), "val")
    of_image = {record.path.stem: record for record in yolo.records}
    for record in voc.records:
        other = of_image[record.path.stem]
        assert [voc.names[label] for label in record.labels.tolist()] == [
            yolo.names[label] for label in other.labels.tolist()
        ]
        first_pixels = record.boxes_xyxy + np.array([1, 1, 0, 0])
        np.testing.assert_allclose(first_pixels, other.boxes_xyxy, atol=1e-3)


@pytest.mark.parametrize(
    "head",
    [
        "<!DOCTYPE a>",
        '<!DOCTYPE a SYSTEM "file:///etc/passwd">',
        '<!DOCTYPE a [<!ENTITY a "lol"><!ENTITY b "&a;&a;&a;">]>',
    ],
)
def test_a_document_type_is_refused(voc_list, head):
    text = f"{head}<annotation>{voc_object()}</annotation>"
    with pytest.raises(
        DataError, match=r"a\.xml: broken XML, a document type \(DTD\) is not supported"
    ):
        read_voc([voc_list(text=text)], {0: "cat"})


@pytest.mark.parametrize("encoding", ["zip", "shift_jis", "undefined"])
def test_an_odd_encoding_is_a_sentence(voc_list, encoding):
    text = f'<?xml version="1.0" encoding="{encoding}"?><annotation/>'
    with pytest.raises(DataError, match=r"a\.xml: broken XML"):
        read_voc([voc_list(text=text)], {0: "cat"})


@pytest.mark.parametrize("stem", ["a\0", "x" * 300])
def test_a_name_that_no_file_can_have_is_a_sentence(voc_list, stem):
    listed = voc_list(voc_object())
    listed.write_text(stem, "utf-8")
    with pytest.raises(DataError):
        read_voc([listed], {0: "cat"})
