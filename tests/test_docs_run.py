"""Every command block of README and docs runs, on tiny data, or says above it why it does not.

A page's blocks run in their order in a folder of its own, which has the files that the pages name
(`my.yaml`, `images/`, `bus.jpg`, `best.pt`, `runs/train`, ...). What a block needs in addition:

- a language: none is the shell (`rtdetr` commands), `python` is executed, `yaml` is a data set,
  `json` is parsed; `text` is output and `bibtex` is quoted;
- or a comment in the line above it, `<!-- not run: REASON -->`, with a reason of `REASONS`;
  `<!-- not run (format=engine|.engine): REASON -->` leaves out the lines with one of these texts.

Long settings are replaced: `SMALL` for commands, `SMALLER` for Python. Models that a page calls by
a published name (`rtdetr-l.pt`, `rtdetr-r18.yaml`) are tiny files of that name in the folder.
"""

from __future__ import annotations

import functools
import json
import re
import shlex
import shutil
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import cv2
import pytest
import yaml

from rtdetr_cli import RTDETR
from rtdetr_cli.cli.main import run
from rtdetr_cli.config.dataset import ShapesConfig, dataset_config_from_dict
from rtdetr_cli.config.load import model_config_to_dict
from rtdetr_cli.config.model import PResNetConfig
from rtdetr_cli.data.shapes import draw_shapes

ROOT = Path(__file__).resolve().parents[1]
PAGES = [
    page
    for page in [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
    if page.name not in {"cli.md", "settings.md"}  # generated: help pages, not command blocks
]
HEAVY = re.compile(r"\bexport\b|\bbenchmark\b|backend=|\.onnx|_openvino_model")
"""Commands and snippets with files for other runtimes, seconds each: only in the slow test."""

REASONS = {
    "installs packages",
    "downloads weights",
    "downloads a data set",
    "needs a GPU",
    "needs several GPUs",
    "needs your own data",
    "takes minutes",
    "takes hours",
    "another program",
}
SMALL = {"epochs": "1", "imgsz": "64", "batch": "2", "workers": "0", "plots": "false"}
"""Values that replace those of `rtdetr train`."""
QUICK = {"workers": "0", "plots": "false"}
"""Keys that `rtdetr val`, and `train` and `val` of Python, get unless they are given."""
FEW = {**QUICK, "runs": "1", "resamples": "100", "half": "false"}
"""Keys that `rtdetr tradeoff` gets unless they are given."""
SMALLER = {
    r"\bepochs=\d+": "epochs=1",
    r"\bbatch=\d+": "batch=2",
    r"\bimgsz=\d+": "imgsz=64",
    r"\b640\b": "64",
}
"""Replacements in Python blocks."""
NAMES = ["cat", "dog", "bird"]

BLOCK = re.compile(
    r"^(?:<!-- not run(?: \((?P<lines>[^\n]*)\))?: (?P<reason>[^\n]*?) -->\n)?"
    r"```(?P<language>\w*)\n(?P<code>.*?)^```$",
    re.M | re.S,
)


@dataclass(frozen=True)
class Block:
    """A fenced block of a page."""

    page: str
    line: int
    language: str
    code: str
    reason: str | None
    """Why it is not run; None: it is."""
    left_out: tuple[str, ...]
    """Texts of the lines to which the reason applies; empty: to all."""

    def __str__(self) -> str:
        return f"{self.page}:{self.line}"

    @property
    def is_run(self) -> bool:
        return self.reason is None or bool(self.left_out)

    @property
    def commands(self) -> list[str]:
        """Command lines of a shell block that are run."""
        lines = [line.strip() for line in self.code.replace("\\\n", " ").splitlines()]
        typed = [line for line in lines if line and not line.startswith("#")]
        return [line for line in typed if not any(text in line for text in self.left_out)]


def blocks_of(page: Path) -> list[Block]:
    """The fenced blocks of a page in their order."""
    text = page.read_text("utf-8")
    return [
        Block(
            page.name,
            text.count("\n", 0, found.start("language")) + 1,
            found["language"],
            found["code"],
            found["reason"],
            tuple((found["lines"] or "").split("|")) if found["lines"] else (),
        )
        for found in BLOCK.finditer(text)
    ]


BLOCKS = {page.name: blocks_of(page) for page in PAGES}


@pytest.fixture(scope="session")
def prepared(tiny_config: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with what the pages name: data, images, and a tiny detector in several formats."""
    folder = tmp_path_factory.mktemp("documented")
    shapes = draw_shapes(ShapesConfig(8, 4, 4, 96), folder)
    shapes.path.rename(folder / "my_data")
    splits = {split: f"images/{split}" for split in ("train", "val", "test")}
    text = yaml.safe_dump({"path": "my_data", **splits, "names": NAMES}, sort_keys=False)
    for name in ("my", "coco", "coco8", "shapes"):
        (folder / f"{name}.yaml").write_text(text)
    shutil.copytree(folder / "my_data/images/val", folder / "images")
    photo = next((folder / "images").iterdir())
    for name in ("bus", "query", "a", "b"):
        cv2.imwrite(str(folder / f"{name}.jpg"), cv2.resize(cv2.imread(str(photo)), (108, 144)))
    _write_models(folder, tiny_config)
    return folder


def _write_models(folder: Path, config: Any) -> None:
    """A short training of the tiny network, under the names by which pages call models."""
    backbone = PResNetConfig((1, 1, 1, 1), bottleneck=False, stem=(4, 4, 8), widths=(8, 12, 16, 20))
    decoder = replace(config.decoder, num_layers=4, num_queries=100, num_heads=8)
    encoder = replace(config.encoder, num_csp_blocks=3)
    tiny = replace(config, backbone=backbone, encoder=encoder, decoder=decoder)
    values = model_config_to_dict(tiny)
    architecture = yaml.safe_dump(
        {k: v for k, v in values.items() if k not in {"name", "norm_eps"}}
    )
    for path in (ROOT / "models").glob("*.yaml"):
        (folder / path.name).write_text(architecture)
    words = "model=rtdetr-n.yaml data=my.yaml imgsz=64 batch=4 epochs=4 val_every=4 workers=0"
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        assert run(["train", *words.split(), "device=cpu", "plots=false"]) == 0
        weights = folder / "runs/train/weights"
        for name in ("best.pt", "my.pt", "last.pt", "rtdetr-l.pt", "rtdetr-r18.pt"):
            shutil.copy(weights / "best.pt", folder / name)
        assert run(["convert", "model=best.pt", "format=official", "out=theirs.pth"]) == 0
        shutil.copy("theirs.pth", "rtdetr_r50vd_6x_coco_from_paddle.pth")
        assert run(["convert", "model=best.pt", "format=hf", "out=some-hugging-face-folder"]) == 0


@pytest.fixture(scope="session")
def exported(prepared: Path) -> None:
    """Adds the ONNX file to the prepared folder."""
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(prepared)
        assert run(["export", "model=best.pt", "format=onnx", "device=cpu"]) == 0
        shutil.copy("best.onnx", "runs/train/weights/best.onnx")


@pytest.fixture
def workplace(prepared: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of the prepared folder, as the current one."""
    folder = tmp_path / "work"
    shutil.copytree(prepared, folder)
    monkeypatch.chdir(folder)
    monkeypatch.setenv("MPLBACKEND", "agg")
    for name in ("train", "val"):
        monkeypatch.setattr(RTDETR, name, quick(getattr(RTDETR, name)))
    return folder


def quick(method: Callable[..., Any]) -> Callable[..., Any]:
    """A method of RTDETR with the keys of `QUICK`."""

    @functools.wraps(method)
    def with_quick_keys(*args: Any, **keys: Any) -> Any:
        return method(*args, **{**QUICK, **keys})

    return with_quick_keys


def small(words: list[str]) -> list[str]:
    """The command with the values of `SMALL`, on a CPU."""
    keys = [word.partition("=")[0].lstrip("-") for word in words]
    if "train" in words and "resume" not in keys and "help" not in keys:
        words = [word for word, key in zip(words, keys, strict=True) if key not in SMALL]
        words += [f"{key}={value}" for key, value in SMALL.items()]
    if "val" in words:
        words = [*words, *(f"{key}={QUICK[key]}" for key in QUICK if key not in keys)]
    if "tradeoff" in words:
        words = [*words, *(f"{key}={value}" for key, value in FEW.items() if key not in keys)]
    takes_device = {"train", "val", "predict", "benchmark", "tradeoff"} & set(words)
    return [*words, "device=cpu"] if takes_device and "device" not in keys else words


def run_command(block: Block, line: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Run one line of a shell block in this process; only `rtdetr` may be called."""
    words = shlex.split(line, comments=True)
    while words and re.fullmatch(r"[A-Z_]+=.*", words[0]):
        monkeypatch.setenv(*words.pop(0).split("=", 1))
    assert words[0] == "rtdetr", (
        f"{block}: `{line}` cannot be run here. Output belongs into ```text; for a command put "
        f"<!-- not run: REASON --> above the block, with one of {sorted(REASONS)}"
    )
    code = run(small(words[1:]))
    assert code == 0, f"{block}: `{line}` ended with {code}; it ran as {small(words[1:])}"


def run_python(block: Block, names: dict[str, Any]) -> None:
    """Execute a snippet with what earlier ones of the page defined."""
    code = block.code
    for pattern, value in SMALLER.items():
        code = re.sub(pattern, value, code)
    exec(compile(code, str(block), "exec"), names)


def is_heavy(code: str) -> bool:
    """Whether a line or snippet, without its comments, is for the slow test."""
    return bool(HEAVY.search(re.sub(r"#.*", "", code)))


def run_block(block: Block, names: dict[str, Any], is_slow: bool, patch: Any) -> None:
    """Run, execute or check a block, by its language; without heavy commands unless slow."""
    if block.language == "":
        for line in block.commands:
            if is_slow or not is_heavy(line):
                run_command(block, line, patch)
    elif block.language == "python" and (is_slow or not is_heavy(block.code)):
        run_python(block, names)
    elif block.language == "yaml":
        dataset_config_from_dict(yaml.safe_load(block.code), ROOT / "my.yaml")
    elif block.language == "json":
        json.loads(block.code)


def pages_that_run(pattern: str) -> list[str]:
    """Pages with a command or snippet of this pattern that is run."""
    return [
        name
        for name, blocks in BLOCKS.items()
        if any(block.is_run and re.search(pattern, block.code) for block in blocks)
    ]


@pytest.mark.parametrize("page", pages_that_run(""))
def test_the_blocks_of_a_page_run(page, workplace, monkeypatch):
    names: dict[str, Any] = {"__name__": "__main__"}
    for block in BLOCKS[page]:
        if block.is_run:
            run_block(block, names, False, monkeypatch)


@pytest.mark.slow
@pytest.mark.parametrize("page", pages_that_run(HEAVY.pattern))
@pytest.mark.usefixtures("exported")
def test_the_exports_of_a_page_run(page, workplace, monkeypatch):
    names: dict[str, Any] = {"__name__": "__main__"}
    for block in BLOCKS[page]:
        if block.is_run:
            run_block(block, names, True, monkeypatch)


def test_every_block_has_a_known_language_and_a_known_reason():
    for block in (block for page in BLOCKS.values() for block in page):
        known = {"", "python", "yaml", "json", "text", "bibtex"}
        assert block.language in known, f"{block}: ```{block.language} is none of {known}"
        assert block.reason is None or block.reason in REASONS, f"{block}: {block.reason}"


def test_most_blocks_are_run():
    """Of all pages but the benchmarks, whose commands take minutes."""
    pages = (page for name, page in BLOCKS.items() if name != "benchmarks.md")
    blocks = [block for page in pages for block in page]
    typed = [block for block in blocks if block.language in {"", "python", "yaml", "json"}]
    not_run = [str(block) for block in typed if not block.is_run]
    assert len(not_run) <= 0.3 * len(typed), f"of {len(typed)} blocks are not run: {not_run}"
