"""BatchPredictor: one row per image whatever is wrong with it, from every kind of batch."""

import json
import pickle
import re
import shutil
import sys
import types
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from rtdetr_cli import RTDETR, BatchPredictor
from rtdetr_cli.core.errors import UsageError, WeightsError
from rtdetr_cli.core.results import Results
from rtdetr_cli.engine import batch_predictor as module
from rtdetr_cli.media import readers

PAGE = Path(__file__).parents[2] / "docs/at-scale.md"
KEYS = {"imgsz": 64, "conf": 0.001, "max_det": 3, "device": "cpu"}


@pytest.fixture
def predict(checkpoint):
    module._opened.cache_clear()
    yield BatchPredictor(str(checkpoint), **KEYS)
    module._opened.cache_clear()


@pytest.fixture
def paths(squares):
    return [str(path) for path in sorted((squares / "images/train").iterdir())[:4]]


def same(found, expected):
    assert list(found) == list(expected)
    for key in expected:
        assert [list(np.atleast_1d(one)) for one in found[key]] == [
            list(np.atleast_1d(one)) for one in expected[key]
        ]


def test_columns_hold_the_results_of_predict(predict, checkpoint, paths):
    columns = predict(paths)
    assert columns["path"].tolist() == paths
    assert (columns["width"].tolist(), columns["height"].tolist()) == ([80] * 4, [64] * 4)
    results = RTDETR(str(checkpoint))(paths, **KEYS)
    for place, result in enumerate(results):
        rows = [{**one, **one["box"]} for one in result.summary()]
        assert len(rows) == 3
        for key in Results.columns:
            assert columns[key][place] == [row[key] for row in rows]


def test_every_kind_of_batch_gives_the_same(predict, paths):
    expected = predict(paths)
    content = [Path(path).read_bytes() for path in paths]
    batches = [
        np.array(paths),
        [Path(path) for path in paths],
        {"path": paths, "id": [1, 2, 3, 4]},
        {"path": np.array(paths, object), "bytes": content},
    ]
    for batch in batches:
        same(predict(batch), expected)
    assert predict(content)["path"].tolist() == [f"image{n}.jpg" for n in range(4)]
    assert predict(content)["x1"].tolist() == expected["x1"].tolist()


def test_large_images_have_rows_too(predict, paths, monkeypatch):
    expected = predict(paths)
    monkeypatch.setattr(readers, "LARGE_BYTES", 1)
    same(predict(paths), expected)


def test_an_item_that_cannot_be_read_has_its_row(predict, paths, tmp_path):
    frames = [Image.new("RGB", (9, 7), (n * 50, 0, 0)) for n in range(3)]
    frames[0].save(tmp_path / "a.gif", save_all=True, append_images=frames[1:])
    (tmp_path / "a.mp4").write_bytes(b"")
    batch = ["absent.jpg", b"", None, str(tmp_path / "a.gif"), paths[0], 5, "a\0b"]
    columns = predict([*batch, str(tmp_path / "a.mp4"), str(tmp_path)])
    assert [bool(error) for error in columns["error"]] == [1, 1, 1, 0, 0, 1, 1, 1, 1]
    assert "absent.jpg" in columns["error"][0]
    assert columns["width"].tolist() == [0, 0, 0, 9, 80, 0, 0, 0, 0]
    assert columns["name"][0] == []
    assert columns["width"].dtype == np.int64


def test_an_empty_batch_is_a_table_without_rows(predict):
    assert {key: len(value) for key, value in predict([]).items()} == {
        key: 0 for key in ("path", "width", "height", "error", *Results.columns)
    }


def test_json_rows_are_those_of_the_files(predict, paths):
    rows = [json.loads(text) for text in predict.json_rows({"path": paths[:2]})]
    assert [row["path"] for row in rows] == paths[:2]
    assert [len(row["detections"]) for row in rows] == [3, 3]
    assert "speed" not in rows[0]


def test_a_copy_opens_the_model_where_it_is_called(checkpoint, paths, monkeypatch):
    module._opened.cache_clear()
    opened = []
    monkeypatch.setattr(
        module, "outcomes_of", lambda settings: opened.append(1) or (lambda source: iter(()))
    )
    copies = [pickle.loads(pickle.dumps(BatchPredictor(str(checkpoint), **KEYS))) for _ in "ab"]
    assert opened == []
    for copy in copies:
        copy(paths)
        copy(paths)
    assert opened == [1]  # once per process
    module._opened.cache_clear()


def test_a_model_that_does_not_exist_is_an_error_of_the_call():
    predict = BatchPredictor("absent.pt")
    with pytest.raises(WeightsError, match=r"absent\.pt does not exist"):
        predict(["a.jpg"])


@pytest.mark.parametrize("key", ["save", "out", "json", "shard", "source", "show_conf", "name"])
def test_keys_of_files_have_no_effect(key):
    with pytest.raises(UsageError, match=f"{key} has no effect on BatchPredictor"):
        BatchPredictor("a.pt", **{key: "x"})


def test_keys_are_checked_at_once():
    with pytest.raises(UsageError, match="did you mean conf"):
        BatchPredictor("a.pt", confi=0.5)


def test_a_table_without_images_is_refused(predict):
    with pytest.raises(UsageError, match="needs a column bytes or path; its columns: image, id"):
        predict({"image": [], "id": []})


def test_a_data_frame_is_a_table(predict, paths):
    frame = type("Frame", (dict,), {"columns": property(lambda self: list(self))})
    same(predict(frame(path=paths)), predict(paths))
    pandas = pytest.importorskip("pandas")
    same(predict(pandas.DataFrame({"path": paths})), predict(paths))
    same(predict(pandas.Series(paths)), predict(paths))


def test_an_arrow_table_gives_an_arrow_table(predict, paths):
    arrow = pytest.importorskip("pyarrow")
    found = predict(arrow.table({"path": paths}))
    assert isinstance(found, arrow.Table)
    assert found.to_pydict() == {key: value.tolist() for key, value in predict(paths).items()}
    absent = predict(arrow.table({"path": ["absent.jpg"]}))
    assert absent.schema == found.schema


def test_it_is_a_public_name():
    import rtdetr_cli

    assert rtdetr_cli.BatchPredictor is BatchPredictor
    assert isinstance(sys.modules["rtdetr_cli"], types.ModuleType)
    with pytest.raises(UsageError, match="out is a key of the command"):
        RTDETR("rtdetr-n.yaml").predict("a.jpg", out="results")


@pytest.fixture
def recipe(checkpoint, squares, tmp_path, monkeypatch):
    """Runs the block of docs/at-scale.md that has a text, with best.pt and images/ beside it."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PYSPARK_PYTHON", sys.executable)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    monkeypatch.setenv("PYTHONPATH", str(PAGE.parents[1]))
    shutil.copy(checkpoint, "best.pt")
    shutil.copytree(squares / "images/train", "images")
    Path("images/9.png").write_bytes(b"no image")

    def run(text):
        blocks = re.findall(r"```python\n(.*?)```", PAGE.read_text("utf-8"), re.S)
        code = next(block for block in blocks if text in block)
        names = {"__name__": "__main__"}
        exec(compile(code, str(PAGE), "exec"), names)
        return names

    return run


def expected_rows():
    """What BatchPredictor returns for images/, called directly."""
    paths = sorted(str(path.resolve()) for path in Path("images").iterdir())
    found = BatchPredictor("best.pt")(paths)
    assert [bool(error) for error in found["error"]] == [False] * 9 + [True]
    return found


def sorted_rows(folder):
    rows = pytest.importorskip("pyarrow.parquet").read_table(folder).to_pylist()
    rows = [{**row, "path": row["path"].removeprefix("file:")} for row in rows]
    return sorted(rows, key=lambda row: row["path"])


def assert_rows(found, expected):
    assert [row["path"] for row in found] == expected["path"].tolist()
    for key in ("width", "height", "name", "class"):
        assert [row[key] for row in found] == expected[key].tolist()
    for key in ("confidence", "x1", "y1", "x2", "y2"):
        for row, values in zip(found, expected[key], strict=True):
            assert row[key] == pytest.approx(values, abs=1e-4)


# Ray and Spark are no dependencies, and warn about themselves and each other.
@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
def test_the_recipe_for_ray_data_gives_the_same_rows(recipe):
    ray = pytest.importorskip("ray")
    ray.init(num_cpus=2, include_dashboard=False, log_to_driver=False)
    try:
        recipe("import ray")
    finally:
        ray.shutdown()
    assert_rows(sorted_rows("ray-results"), expected_rows())


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
def test_the_recipe_for_spark_gives_the_same_rows(recipe):
    pytest.importorskip("pandas")
    sql = pytest.importorskip("pyspark.sql")
    builder = sql.SparkSession.builder.master("local[1]").config("spark.ui.enabled", "false")
    spark = builder.getOrCreate()
    try:
        recipe("mapInPandas")
    finally:
        spark.stop()
    expected = expected_rows()
    assert_rows(sorted_rows("spark-results"), expected)
    texts = [json.loads(row["row"]) for row in sorted_rows("spark-json")]
    scores = [[one["confidence"] for one in row.get("detections", ())] for row in texts]
    assert scores == [pytest.approx(one, abs=1e-4) for one in expected["confidence"]]


def test_a_large_image_has_its_row_in_its_place(predict, paths, monkeypatch):
    expected = predict(paths)
    monkeypatch.setattr("rtdetr_cli.media.readers.LARGE_BYTES", 1)
    same(predict(paths), expected)
