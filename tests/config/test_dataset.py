"""Data set YAMLs in the forms that people write."""

from pathlib import Path

import pytest

from rtdetr_cli.config.dataset import Download, ShapesConfig
from rtdetr_cli.config.load import load_dataset_config
from rtdetr_cli.core.errors import ConfigError, UsageError
from rtdetr_cli.core.files import asset_dir

LISTED = "images: {{table: {}, url: '{}://x.org', archive: 'http://x.org/a.zip'}}\n"


def write(folder: Path, text: str) -> Path:
    path = folder / "data.yaml"
    path.write_text(text)
    return path


def test_lists_mappings_and_roboflow(tmp_path: Path) -> None:
    text = "train: ../train/images\nval: [a, b.txt]\nnc: 2\nnames: ['cat', 2]\nroboflow: {x: 1}\n"
    config = load_dataset_config(write(tmp_path, text))
    assert config.path == tmp_path
    assert (config.train, config.val, config.test) == (("../train/images",), ("a", "b.txt"), None)
    assert config.names == {0: "cat", 1: "2"}
    named = "path: sub\ntrain: x\nnames: {1: dog, 0: cat}\n"
    (tmp_path / "sub").mkdir()
    config = load_dataset_config(write(tmp_path, named))
    assert config.path == tmp_path / "sub"
    assert list((config.names or {}).items()) == [(0, "cat"), (1, "dog")]


def test_quoted_indices_are_numbers_and_a_gap_gets_a_placeholder(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    config = load_dataset_config(write(tmp_path, 'train: x\nnames: {"3": dog, 0: cat, "1": b}\n'))
    assert config.names == {0: "cat", 1: "b", 2: "class_2", 3: "dog"}
    assert "names has no class 2; called class_2" in capsys.readouterr().err


def test_the_keypoints_of_a_pose_data_set_are_noted(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    text = "train: x\nnames: [a]\nkpt_shape: [17, 3]\nflip_idx: [0]\nkpt_names: {0: [nose]}\n"
    assert load_dataset_config(write(tmp_path, text)).keypoint_columns == 51
    assert "keypoints of a pose data set are not used" in capsys.readouterr().err


def test_coco_json_brings_its_names(tmp_path: Path) -> None:
    config = load_dataset_config(write(tmp_path, "train: a.json\nval: b.json\n"))
    assert config.names is None


def test_downloads_have_checksums(tmp_path: Path) -> None:
    entry = f"[{{url: 'https://example.org/a.zip', sha256: {'AB' * 32}, to: labels}}]"
    config = load_dataset_config(write(tmp_path, f"val: x\nnames: [a]\ndownload: {entry}\n"))
    assert config.download == (Download("https://example.org/a.zip", "ab" * 32, "labels"),)


@pytest.mark.parametrize(
    ("entry", "sentence"),
    [
        ("sha256: abc", "download[0].sha256 must be 64 hexadecimal digits, found 'abc'"),
        (f"sha256: /home/me/{'0' * 55}", "download[0].sha256 must be 64 hexadecimal digits"),
        (f"sha256: '{'٣' * 64}'", "download[0].sha256 must be 64 hexadecimal digits"),
        ("to: ../x", "download[0].to must be a folder below path; '../x' leads out of its folder"),
        ("to: /etc", "download[0].to must be a folder below path; '/etc' leads out of its folder"),
        ("to: a/con", "download[0].to must be a folder below path; 'a/con' is a name that Windows"),
        ("url: file:///etc/passwd", "download[0].url must begin with https:// or http://, found"),
        ("url: https:///x.zip", "download[0].url must name a server, found 'https:///x.zip'"),
        ("url: 'http://me:pw@x.org/a'", "download[0].url must not contain a user name or password"),
        ("url: 'http://[x/a.zip'", "download[0].url must be a web address"),
        ('url: "http://x.org/\\e[2J"', "download[0].url must not contain control characters"),
        (f"url: http://x.org/{'a' * 2000}", "download[0].url must have at most 2000 characters"),
    ],
)
def test_a_download_section_is_checked_when_it_is_read(
    tmp_path: Path, entry: str, sentence: str
) -> None:
    values = {"url": "https://example.org/a.zip", "sha256": "0" * 64}
    rest = ", ".join(f"{key}: '{value}'" for key, value in values.items() if key not in entry[:7])
    with pytest.raises(ConfigError) as caught:
        load_dataset_config(
            write(tmp_path, f"val: x\nnames: [a]\ndownload: [{{{entry}, {rest}}}]\n")
        )
    assert sentence in str(caught.value)


def test_drawn_data_set(tmp_path: Path) -> None:
    config = load_dataset_config(write(tmp_path, "source: shapes\nnum_train: 9\nsize: 64\n"))
    assert config.shapes == ShapesConfig(num_train=9, size=64)


def test_relative_root_is_looked_for_here_and_at_home(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RTDETR_HOME", str(tmp_path / "home"))
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    path = write(tmp_path, "path: zoo\ntrain: x\nnames: [a]\n")
    assert load_dataset_config(path).path == tmp_path / "zoo"
    (tmp_path / "home" / "datasets" / "zoo").mkdir(parents=True)
    assert load_dataset_config(path).path == tmp_path / "home" / "datasets" / "zoo"
    (tmp_path / "elsewhere" / "zoo").mkdir()
    assert load_dataset_config(path).path == tmp_path / "elsewhere" / "zoo"


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("train: x\nval: x\n", "data.yaml: names is missing"),
        ("names: [a]\n", "data.yaml: none of train, val and test is given"),
        ("train: x\nnames: {a: 1}\n", "names must have numbers from 0 before the names, found 'a'"),
        ("train: x\nnames: {1: a, '1': b}\n", "names has two names of class 1"),
        ("train: x\nnames: [a, b, a]\n", "names[2] is 'a', as is names[0]; join them, or rename"),
        ("train: x\nnames: {99999: a}\n", "names has a class 99999; the limit is 65536 classes"),
        ("train: x\nnames: cat\n", "names must list the classes, found 'cat'"),
        ("train: x\nnames: []\n", "names must list the classes, found []"),
        ("train: x\nnames: [a]\nnc: 3\n", "nc is 3, but names lists 1 classes"),
        ("train: x\nnames: [a]\nval: 3\n", "val must be a list of texts, found 3"),
        ("train: x\nnames: [a]\nvla: y\n", "vla is not a key; did you mean val?"),
        ("train: x\nnames: [a]\ndownload: 3\n", "download[0] must be a mapping of keys, found 3"),
        ("train: x\nnames: [a]\nchannels: 4\n", "channels must be 3 (images are read as RGB), fo"),
        (
            "train: x\nnames: [a]\nkpt_shape: 17\n",
            "kpt_shape must be two numbers such as [17, 3], found 17",
        ),
        ("train: x\nnc: 0\n", "nc must be a number from 1 to 65536, found 0"),
        ("train: x\nnc: cat\n", "nc must be a number from 1 to 65536, found 'cat'"),
        ("train: x\nnames: [a]\nimages: {table: x}\n", "images.url is missing"),
        (f"train: x\nnames: [a]\n{LISTED.format('../x.txt', 'x')}", "must be a table of cfg/data"),
        (f"train: x\nnames: [a]\n{LISTED.format('coco8.txt', 'ftp')}", "must begin with https://"),
        ("train: x\nnames: [a]\nmay_download: true\n", "may_download is not a key"),
        ("train: x\nnames: [a]\nscript: ls\n", "script is not a key"),
        ("source: shapes\nnum_trains: 3\n", "num_trains is not a key; did you mean num_train?"),
        ("path: loop/x\ntrain: x\nnames: [a]\n", "path cannot be a folder, found 'loop/x'"),
        ('path: "a\\0"\ntrain: x\nnames: [a]\n', "'a\\x00' contains NUL or a lone surrogate"),
        ("source: paintings\n", "source must be shapes, found 'paintings'"),
    ],
)
def test_mistakes_are_named(tmp_path: Path, text: str, sentence: str) -> None:
    (tmp_path / "loop").symlink_to(tmp_path / "loop")
    with pytest.raises(ConfigError) as caught:
        load_dataset_config(write(tmp_path, text))
    assert sentence in str(caught.value)


def test_an_unknown_home_is_named(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="the home folder of ~nobody-here is not known"):
        load_dataset_config(write(tmp_path, "path: ~nobody-here/x\ntrain: x\nnames: [a]\n"))


def test_unknown_data_set() -> None:
    with pytest.raises(ConfigError, match=r"data set coco9\.yaml does not exist"):
        load_dataset_config("coco9.yaml")


@pytest.mark.parametrize("path", sorted((asset_dir("cfg") / "datasets").glob("*.yaml")), ids=str)
def test_shipped_data_sets_open(path: Path) -> None:
    assert load_dataset_config(path.name).origin == path


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("train: x\nnames: [a, [b]]\n", "names[1] must be a text, found ['b']"),
        ("train: x\nnames: [a, ~]\n", "names[1] must be a text, found None"),
        ("train: x\nnames: {0: a, 1: {b: c}}\n", "names[1] must be a text, found {'b': 'c'}"),
        (f"train: x\nnames: [{'n' * 201}]\n", "names[0] has 201 characters; the limit is 200"),
        ("train: x\nnames: [a]\npath: [b]\n", "path must be a text, found ['b']"),
        (f"train: x\nnames: [a]\npath: {'p' * 300}\n", "path is not a valid file name: 'p"),
        (f"train: [x, {'t' * 300}]\nnames: [a]\n", "train is not a valid file name: 't"),
        ("train: x\nnames: [a]\nshapes: {num_train: 1}\npath: /\n", "shapes is not a key"),
        ("train: x\nnames: [a]\norigin: /etc/passwd\n", "origin is not a key"),
        ("source: shapes\nnum_train: 1000000000\n", "num_train must be at most 100000, found 1000"),
        ("source: shapes\nsize: 0\n", "size must be at least 32, found 0"),
        ("source: [shapes]\n", "source must be shapes, found ['shapes']"),
    ],
)
def test_values_that_no_data_set_has_are_named(tmp_path: Path, text: str, sentence: str) -> None:
    with pytest.raises(ConfigError) as caught:
        load_dataset_config(write(tmp_path, text))
    assert sentence in str(caught.value)


def test_a_loop_of_links_is_no_folder(tmp_path: Path) -> None:
    (tmp_path / "a").symlink_to("b")
    (tmp_path / "b").symlink_to("a")
    config = load_dataset_config(write(tmp_path, "path: c\ntrain: x\nnames: [a]\n"))
    assert config.path == tmp_path / "c"
    with pytest.raises(ConfigError, match="path cannot be a folder"):
        load_dataset_config(write(tmp_path, "path: a\ntrain: x\nnames: [a]\n"))


@pytest.mark.parametrize(
    ("entry", "urls"),
    [
        ("https://x.org/a.zip", ["https://x.org/a.zip"]),
        ("  https://x.org/a.zip  # 1 MB", ["https://x.org/a.zip"]),
        (
            "[https://x.org/a.zip, http://y.org/b.zip]",
            ["https://x.org/a.zip", "http://y.org/b.zip"],
        ),
        ("[{url: https://x.org/a.zip}]", ["https://x.org/a.zip"]),
        ("", None),
        ("[]", None),
    ],
)
def test_urls_of_other_tools_are_downloads_without_a_checksum(
    tmp_path: Path, entry: str, urls: list[str] | None
) -> None:
    text = f"train: x\nchannels: 3\nminival: y\nnames: [a]\ndownload: {entry}\n"
    config = load_dataset_config(write(tmp_path, text))
    found = config.download and [one.url for one in config.download]
    assert (found, config.script) == (urls, None)
    assert all(one.sha256 is None for one in config.download or ())


@pytest.mark.parametrize(
    "entry",
    ["bash data/get.sh", "|\n  from pathlib import Path\n  print(1)", "https://x.org/a.zip -O b"],
)
def test_a_script_is_kept_as_text(tmp_path: Path, entry: str) -> None:
    config = load_dataset_config(write(tmp_path, f"train: x\nnames: [a]\ndownload: {entry}\n"))
    assert config.download is None
    assert config.script
    assert config.script.startswith(entry.removeprefix("|\n  ")[:10])


def test_a_url_in_a_string_is_checked_like_a_listed_one(tmp_path: Path) -> None:
    text = "train: x\nnames: [a]\ndownload: http://me:pw@x.org/a.zip\n"
    with pytest.raises(ConfigError, match=r"download\[0\].url must not contain a user name"):
        load_dataset_config(write(tmp_path, text))


def test_classes_without_names_are_numbered(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert load_dataset_config(write(tmp_path, "train: x\nnc: 3\n")).names == {
        0: "0",
        1: "1",
        2: "2",
    }
    assert capsys.readouterr().err == "data.yaml: without names, the classes are called 0 to 2\n"
