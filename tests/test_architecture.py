"""Structure rules checked on the source: imports, circles, sizes, a test file for each module."""

from __future__ import annotations

import ast
import re
from functools import cache
from graphlib import TopologicalSorter
from pathlib import Path

import pytest

PAGE = Path(__file__).parents[1] / "docs" / "architecture.md"
PACKAGE = Path(__file__).parents[1] / "rtdetr_cli"
FILES = sorted(PACKAGE.rglob("*.py"))
ROOMS = {
    "cli": {"engine", "config", "core"},
    "api": {"engine", "config", "core"},
    "engine": {
        "backends",
        "nn",
        "loss",
        "data",
        "media",
        "evaluation",
        "report",
        "weights",
        "config",
        "core",
    },
    "backends": {"nn", "weights", "config", "core"},
    "nn": {"config", "core"},
    "loss": {"config", "core"},
    "data": {"config", "core"},
    "weights": {"config", "core"},
    "media": {"core"},
    "evaluation": {"core"},
    "report": {"core"},
    "config": {"core"},
    "core": set(),
    "__init__": {"api", "engine", "core"},  # the public names, resolved lazily
    "__main__": {"cli"},
}
"""The rooms that the files of a room may import, besides their own."""
FOLDERS = {
    "engine": {
        "engine.training",
        "engine.validating",
        "engine.exporting",
        "engine.benchmarking",
        "engine.checking",
        "engine.tradeoffs",
        "engine.predicting",
        "engine.session",
    },
    "engine.predicting": {"engine.session"},
    "engine.session": set(),
    "engine.checking": set(),
    "engine.training": {"engine.session"},
    "engine.validating": set(),
    "engine.exporting": set(),
    "engine.benchmarking": {"engine.exporting"},  # it times the files that export writes
    "engine.tradeoffs": {"engine.benchmarking"},  # it times in the same worker processes
    "backends": {"backends.onnx", "backends.openvino", "backends.tensorrt"},  # load.py opens them
    "backends.onnx": {"backends"},
    # Both are built from an ONNX graph: FORMAT_VERSION and TOP_PAIRS are those of the graph, and
    # OpenVINO's int8 names the same blocks.
    "backends.openvino": {"backends", "backends.onnx"},
    "backends.tensorrt": {"backends", "backends.onnx"},
    "data": set(),
    "data.checks": {"data"},
    "config": {"config.settings"},
    "config.settings": {"config"},
    "nn": {"nn.backbones"},
    "nn.backbones": {"nn"},
}
"""The folders of the same room that the files of a folder may import, besides their own."""
UPWARD_IMPORTS = {
    ("engine.benchmarking.rows", "engine.export"),  # a row is a file of `rtdetr export` itself
}
"""Exceptions to FOLDERS. This set may only shrink: an entry without its import fails."""
PUBLIC_FACE = {"rtdetr_cli", "rtdetr_cli.api"}
WITHOUT_TESTS = {
    "backends/onnx/session.py",
    "backends/openvino/float32.py",
    "backends/openvino/int8.py",
    "backends/openvino/package.py",
    "backends/tensorrt/build.py",
    "cli/help.py",
    "cli/modes.py",
    "config/model.py",
    "config/settings/benchmark.py",
    "config/settings/export.py",
    "config/settings/predict.py",
    "config/settings/shared.py",
    "config/settings/train.py",
    "config/settings/val.py",
    "core/box_ops.py",
    "core/lock.py",
    "core/structures.py",
    "core/urls.py",
    "core/version.py",
    "data/dataset.py",
    "data/fingerprint.py",
    "data/unpack.py",
    "engine/benchmarking/rows.py",
    "engine/benchmarking/timing.py",
    "engine/benchmarking/worker.py",
    "engine/exporting/images.py",
    "engine/exporting/onnx.py",
    "engine/exporting/report.py",
    "engine/exporting/request.py",
    "engine/training/ema.py",
    "engine/training/failures.py",
    "engine/training/muon.py",
    "engine/training/prepare.py",
    "engine/training/run.py",
    "engine/training/signals.py",
    "weights/ultralytics.py",
    "weights/ultralytics_module.py",
}
"""Modules without a test file of their name. This set may only shrink: an entry with one fails."""
CODE_RUNNING_READERS = {
    *(
        "torch.load",
        "torch.jit.load",
        "torch.hub.load",
        "torch.export.load",
        "load_state_dict_from_url",
    ),
    *("pickle.load", "pickle.loads", "pickle.Unpickler", "marshal.loads", "shelve.open"),
    *("np.load", "numpy.load", "yaml.load", "yaml.unsafe_load", "yaml.full_load"),
    *("eval", "exec", "os.system"),
}
READERS_ALLOWED = {"rtdetr_cli.engine.training.launch": {"pickle.loads"}}
MAX_FILE_LINES, MAX_FUNCTION_LINES, MAX_PARAMETERS = 400, 50, 7


@cache
def tree(path: Path) -> ast.Module:
    return ast.parse(path.read_text(encoding="utf-8"))


def module(path: Path) -> str:
    return ".".join(path.relative_to(PACKAGE.parent).with_suffix("").parts).removesuffix(
        ".__init__"
    )


@cache
def imports(path: Path) -> set[str]:
    """Modules of the package that a file imports, in functions and under TYPE_CHECKING too."""
    known = {module(file) for file in FILES}
    found: set[str] = set()
    for node in ast.walk(tree(path)):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}:{node.lineno} relative import"
            inner = {f"{node.module}.{alias.name}" for alias in node.names}
            found |= (inner & known) or {str(node.module)}
    return {name for name in found if name.split(".")[0] == "rtdetr_cli"}


def room(name: str) -> str:
    parts = name.split(".")
    return parts[1] if len(parts) > 1 else "__init__"


def folder(name: str) -> str:
    """`engine.training` for rtdetr_cli.engine.training.step, `engine` for rtdetr_cli.engine.val."""
    parts = name.split(".")[1:]
    return ".".join(parts[:2]) if ".".join(parts[:2]) in FOLDERS else parts[0]


def functions(path: Path) -> list[ast.FunctionDef | ast.AsyncFunctionDef]:
    kinds = (ast.FunctionDef, ast.AsyncFunctionDef)
    return [node for node in ast.walk(tree(path)) if isinstance(node, kinds)]


@pytest.mark.parametrize("path", FILES, ids=module)
def test_imports_go_down_only(path: Path) -> None:
    here = room(module(path))
    assert here in ROOMS, f"{path.relative_to(PACKAGE)} is in no room"
    used = {room(name) for name in imports(path)} - {here}
    assert used <= ROOMS[here], f"{path.relative_to(PACKAGE)} imports {sorted(used - ROOMS[here])}"


@pytest.mark.parametrize("path", FILES, ids=module)
def test_folders_of_a_room_import_each_other_one_way(path: Path) -> None:
    name = module(path)
    inside = {other for other in imports(path) if room(other) == room(name) != "__init__"}
    allowed = FOLDERS.get(folder(name), set()) | {folder(name)} if inside else set()
    upward = {
        (name.partition(".")[2], other.partition(".")[2])
        for other in inside
        if folder(other) not in allowed
    }
    assert upward == {pair for pair in UPWARD_IMPORTS if f"rtdetr_cli.{pair[0]}" == name}


def test_every_folder_has_its_rule() -> None:
    folders = {module(path) for path in FILES if path.name == "__init__.py"} - {"rtdetr_cli"}
    assert {name.partition(".")[2] for name in folders} <= FOLDERS.keys() | ROOMS.keys()


def test_no_import_circles_between_files() -> None:
    """Lazy and TYPE_CHECKING imports count: a circle behind them is still a circle to a reader."""
    graph = {module(path): imports(path) for path in FILES}
    tuple(TopologicalSorter(graph).static_order())  # CycleError names the circle


@pytest.mark.parametrize("path", FILES, ids=module)
def test_no_file_inside_imports_the_public_face(path: Path) -> None:
    assert module(path) in PUBLIC_FACE or not imports(path) & PUBLIC_FACE


def test_tests_mirror_the_package() -> None:
    """tests/nn/test_decoder.py tests rtdetr_cli/nn/decoder.py, and so on for every module."""
    modules = [path.relative_to(PACKAGE) for path in FILES if not path.name.startswith("__")]
    tests = PACKAGE.parent / "tests"
    untested = {
        path.as_posix()
        for path in modules
        if not (tests / path.with_name(f"test_{path.name}")).exists()
    }
    assert untested == WITHOUT_TESTS


@pytest.mark.parametrize("path", FILES, ids=module)
def test_sizes(path: Path) -> None:
    lines = len(path.read_text(encoding="utf-8").splitlines())
    assert lines <= MAX_FILE_LINES, f"{path.relative_to(PACKAGE)} has {lines} lines"
    for function in functions(path):
        length = (function.end_lineno or 0) - function.lineno + 1
        assert length <= MAX_FUNCTION_LINES, f"{path}:{function.lineno} has {length} lines"
        arguments = function.args
        names = [a.arg for a in arguments.posonlyargs + arguments.args + arguments.kwonlyargs]
        number = len([name for name in names if name not in {"self", "cls"}])
        assert number <= MAX_PARAMETERS, f"{path}:{function.lineno} has {number} parameters"


@pytest.mark.parametrize("path", FILES, ids=module)
def test_no_file_is_opened_by_a_reader_that_can_run_code(path: Path) -> None:
    """torch.load(weights_only=True) is one: CVE-2025-32434, CVE-2026-24747 (docs/security.md)."""
    called = {ast.unparse(node.func) for node in ast.walk(tree(path)) if isinstance(node, ast.Call)}
    assert not called & CODE_RUNNING_READERS - READERS_ALLOWED.get(module(path), set())


@pytest.mark.parametrize("path", FILES, ids=module)
def test_every_file_has_a_docstring_and_catches_errors_by_name(path: Path) -> None:
    assert ast.get_docstring(tree(path)), f"{path} has no docstring"
    for node in ast.walk(tree(path)):
        if isinstance(node, ast.ExceptHandler):
            caught = node.type.id if isinstance(node.type, ast.Name) else node.type
            assert caught not in {None, "Exception", "BaseException"}, f"{path}:{node.lineno}"


def table(heading: str) -> list[list[str]]:
    """The cells of the tables below a heading of docs/architecture.md, without their heads."""
    section = PAGE.read_text("utf-8").split(f"\n## {heading}\n")[1].split("\n## ")[0]
    rows = [line.strip("| ").split(" |") for line in section.splitlines() if line.startswith("| ")]
    return [[cell.strip(" |") for cell in row] for row in rows if "`" in row[0] + row[-1]]


def test_the_page_lists_every_room_with_its_docstring_and_its_imports() -> None:
    rows = {}
    for name, purpose, *imported in table("Rooms"):
        rows[name.strip("`")] = (purpose, set(filter(None, ", ".join(imported).split(", "))))
    rooms = [path for path in sorted(PACKAGE.iterdir()) if path.is_dir() and path.name[0] != "_"]
    assert rows == {
        path.name: (ast.get_docstring(tree(path / "__init__.py")), ROOMS[path.name])
        for path in rooms
    }


def defined(path: Path) -> set[str]:
    """Names that a file defines: functions, classes, constants, and `Class.member`."""
    found: set[str] = set()
    for node in tree(path).body:
        found |= names(node)
        if isinstance(node, ast.ClassDef):
            found |= {f"{node.name}.{name}" for inner in node.body for name in names(inner)}
    return found


def names(node: ast.stmt) -> set[str]:
    if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)):
        return {node.name}
    targets = node.targets if isinstance(node, ast.Assign) else [getattr(node, "target", None)]
    return {target.id for target in targets if isinstance(target, ast.Name)}


def test_every_file_and_name_on_the_page_exists() -> None:
    places = re.findall(r"`([\w./]+/[\w.]*|\w+\.py)(?:::([\w.]+))?`", PAGE.read_text("utf-8"))
    assert len([name for _, name in places if name]) > 40
    for place, name in places:
        if "NAME" in place:  # a file that the reader adds
            continue
        path = next((p for p in (PACKAGE / place, PACKAGE.parent / place) if p.exists()), None)
        assert path, f"no {place}"
        assert not name or name in defined(path), f"{place} defines no {name}"


def test_every_section_of_the_papers_has_its_code() -> None:
    rows = table("From the papers to the code")
    assert all("::" in code for *_, code in rows)
    sections = {
        match for source, *_ in rows for match in re.findall(r"^RT-DETR(?:v2)? [\d.]+", source)
    }
    assert sections >= {"RT-DETR 4.1", "RT-DETR 4.2", "RT-DETR 4.3", "RT-DETR 4.4"}
    assert sections >= {"RT-DETRv2 2.1", "RT-DETRv2 2.2"}
