"""README and docs: every command parses, every link resolves, every snippet compiles."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import pytest
import yaml

from rtdetr_cli.cli.arguments import parse_arguments
from rtdetr_cli.config.dataset import dataset_config_from_dict
from rtdetr_cli.config.from_pairs import settings_from_pairs
from rtdetr_cli.config.settings.modes import MODES

ROOT = Path(__file__).resolve().parents[1]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
TYPED = [*PAGES, ROOT / "Makefile"]
OTHER_WORDS = {"--help", "--version", "help", "version", "checks", "settings", "detect"}
"""First words that are no modes; tests/test_docs_run.py runs them."""


def blocks(page: Path, language: str) -> list[str]:
    """Fenced code of one language; the empty one is the shell."""
    return re.findall(rf"^```{language}\n(.*?)^```$", page.read_text("utf-8"), re.M | re.S)


def commands() -> list[tuple[str, str]]:
    """Page and line of every `rtdetr ...` command in the shell blocks."""
    found = []
    for page in PAGES:
        if page.name != "cli.md":  # help pages, generated
            lines = "\n".join(blocks(page, "")).replace("\\\n", " ").splitlines()
            found += [(page.name, line.strip()) for line in lines if line.startswith("rtdetr ")]
    makefile = (ROOT / "Makefile").read_text("utf-8").replace("\\\n", " ")
    makefile = re.sub(r"\$\(DEMO_EPOCHS\)", "3", makefile).replace("$(DEMO)", "best")
    found += [
        ("Makefile", f"rtdetr {line}")
        for line in re.findall(r"^\t\$\(RTDETR\) (.*)$", makefile, re.M)
    ]
    return found


@pytest.mark.parametrize(("page", "line"), commands())
def test_every_documented_command_is_valid(page, line):
    _, mode, *words = shlex.split(line, comments=True)
    assert mode in MODES or mode in OTHER_WORDS, f"{page}: {line}"
    if mode in MODES and words != ["--help"]:
        settings_from_pairs(MODES[mode], parse_arguments(MODES[mode], words))


def test_the_readme_shows_the_four_commands():
    shown = {line.split()[1] for page, line in commands() if page == "README.md"}
    assert {"train", "val", "predict", "export"} <= shown


def anchors(page: Path) -> set[str]:
    """Anchors of a page's headings, as GitHub forms them."""
    titles = re.findall(r"^#+ (.*)$", page.read_text("utf-8"), re.M)
    return {re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-") for title in titles}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_inside_the_repository_resolve(page):
    for link in re.findall(r"\]\(([^)\s]+)\)", page.read_text("utf-8")):
        if not link.startswith(("https://", "http://")):
            name, _, anchor = link.partition("#")
            target = page.parent / name if name else page
            assert target.exists(), f"{page.name}: {link}"
            assert not anchor or anchor in anchors(target), f"{page.name}: {link}"


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_lines_outside_tables_have_at_most_400_characters(page):
    lines = page.read_text("utf-8").splitlines()
    assert not [line for line in lines if len(line) > 400 and not line.startswith("|")]


def test_the_index_links_to_every_page():
    index = (ROOT / "docs" / "index.md").read_text("utf-8")
    for page in PAGES[1:]:
        assert page.name == "index.md" or f"({page.name})" in index


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_python_and_yaml_snippets_are_valid(page):
    for snippet in blocks(page, "python"):
        compile(snippet, page.name, "exec")
    for snippet in blocks(page, "yaml"):
        dataset_config_from_dict(yaml.safe_load(snippet), ROOT / "my.yaml")


def test_documented_make_targets_exist():
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text("utf-8"), re.M))
    for page in TYPED:
        named = set(re.findall(r"`make ([a-z-]+)`", page.read_text("utf-8")))
        assert named <= targets, page.name
    assert (
        set(re.findall(r"^make ([a-z-]+)", (ROOT / ".ci" / "run").read_text("utf-8"), re.M))
        <= targets
    )
