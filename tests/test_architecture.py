"""The house rules that can be read from the source: who imports whom, how long things are."""

from __future__ import annotations

import ast
from functools import cache
from graphlib import TopologicalSorter
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parents[1] / "rtdetr_cli"
FILES = sorted(PACKAGE.rglob("*.py"))
ROOMS = {
    "cli": {"api", "engine", "config", "core"},
    "api": {"engine", "config", "core"},
    "engine": {
        "backends",
        "nn",
        "loss",
        "data",
        "media",
        "evaluation",
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
    "config": {"core"},
    "core": set(),
    "__init__": {"api", "core"},  # the public names, resolved lazily
    "__main__": {"cli"},
}
RUNNING_READERS = {
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
RUNNING_ALLOWED = {"rtdetr_cli.engine.training.launch": {"pickle.loads"}}
MAX_FILE_LINES, MAX_FUNCTION_LINES, MAX_PARAMETERS = 400, 50, 7


@cache
def tree(path: Path) -> ast.Module:
    return ast.parse(path.read_text(encoding="utf-8"))


def module(path: Path) -> str:
    return ".".join(path.relative_to(PACKAGE.parent).with_suffix("").parts).removesuffix(
        ".__init__"
    )


def imports(path: Path, runtime: bool = False) -> set[str]:
    """Modules of the package that a file imports, anywhere in it.

    With `runtime` those under `if TYPE_CHECKING` and inside functions are left out.
    """
    known = {module(file) for file in FILES}
    found: set[str] = set()
    nodes = ast.walk(tree(path)) if not runtime else iter(tree(path).body)
    for node in nodes:
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


def functions(path: Path) -> list[ast.FunctionDef | ast.AsyncFunctionDef]:
    kinds = (ast.FunctionDef, ast.AsyncFunctionDef)
    return [node for node in ast.walk(tree(path)) if isinstance(node, kinds)]


@pytest.mark.parametrize("path", FILES, ids=module)
def test_imports_go_down_only(path: Path) -> None:
    here = room(module(path)) if module(path) != "rtdetr_cli" else "__init__"
    assert here in ROOMS, f"{path} lies in no room of the design"
    # `from rtdetr_cli import __version__` is open to all: that file holds no code
    used = {room(name) for name in imports(path)} - {here, "__init__"}
    assert used <= ROOMS[here], f"{path.relative_to(PACKAGE)} imports {sorted(used - ROOMS[here])}"


def test_no_import_circles_between_files() -> None:
    graph = {module(path): imports(path, runtime=True) - {"rtdetr_cli"} for path in FILES}
    tuple(TopologicalSorter(graph).static_order())  # CycleError names the circle


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
def test_no_file_is_given_to_a_reader_that_can_run_it(path: Path) -> None:
    """Nor to torch.load(weights_only=True): CVE-2025-32434, CVE-2026-24747 (docs/security.md)."""
    called = {ast.unparse(node.func) for node in ast.walk(tree(path)) if isinstance(node, ast.Call)}
    assert not called & RUNNING_READERS - RUNNING_ALLOWED.get(module(path), set())


@pytest.mark.parametrize("path", FILES, ids=module)
def test_every_file_says_its_job_and_catches_by_name(path: Path) -> None:
    assert ast.get_docstring(tree(path)), f"{path} has no docstring"
    for node in ast.walk(tree(path)):
        if isinstance(node, ast.ExceptHandler):
            caught = node.type.id if isinstance(node.type, ast.Name) else node.type
            assert caught not in {None, "Exception", "BaseException"}, f"{path}:{node.lineno}"
