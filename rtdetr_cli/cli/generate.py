"""Generate cfg/*.yaml and pages of docs/: `python -m rtdetr_cli.cli.generate`.

A test fails when one of them does not match the settings.
"""

from __future__ import annotations

from pathlib import Path

from rtdetr_cli.cli.commands import COMMANDS
from rtdetr_cli.cli.help import GENERATED, keys_by_group, mode_help, overview, settings_yaml
from rtdetr_cli.cli.modes import RUN
from rtdetr_cli.config.foreign_keys import (
    FOREIGN_KEYS,
    FOREIGN_MODES,
    NoEffect,
    Renamed,
    Rule,
    Same,
)
from rtdetr_cli.config.settings.modes import MODES
from rtdetr_cli.core.files import asset_dir, atomic_write

_WITH_FILE = ("train", "val", "predict", "export")
_FOREIGN = "from-ultralytics.md"
_TABLE = "## All keys"
"""Heading of the generated part of docs/from-ultralytics.md; the text above it is kept."""
_GRAMMAR = """\
## Other ways to write a command

| written | means |
|---|---|
| `rtdetr detect train data=my.yaml` | `rtdetr train data=my.yaml` |
| `rtdetr task=detect mode=train data=my.yaml`, in any order | the same |
| `rtdetr model=best.pt source=bus.jpg` | `rtdetr predict ...`, said in one line |
| `rtdetr model=best.pt data=my.yaml` | an error: it could be train, val or export |
| `rtdetr cfg=default_copy.yaml` | the mode that the file names as `mode:`, said in one line |
| `rtdetr train data = my.yaml` | `rtdetr train data=my.yaml` |
| `rtdetr segment ...`, `task=pose` | an error: RT-DETR detects objects |
| `rtdetr checks` | `rtdetr env` |
| `rtdetr -V`, `-v`, `--version`, `rtdetr version` | the version |
| `rtdetr predict bus.jpg` | an error that says `source=bus.jpg` |

`rtdetr copy-cfg train` writes `train_copy.yaml`; edit it and use it with
`cfg=train_copy.yaml`. There is no settings file: `rtdetr settings` lists the environment variables.

Completion of modes, keys and values: `eval "$(rtdetr completion bash)"` in `~/.bashrc`, the same
with `zsh` in `~/.zshrc` after `compinit`, or for fish
`rtdetr completion fish > ~/.config/fish/completions/rtdetr.fish`.
"""
_EXIT_CODES = """\
## Exit codes

| code | meaning |
|---|---|
| 0 | done |
| 1 | `fail_if` is met, `tradeoff` finds no setting; or a bug: the message names a details file |
| 2 | a key, a value or a settings file is invalid |
| 3 | a data set or an image cannot be used |
| 4 | a checkpoint cannot be used |
| 5 | a device, a runtime, an export, the disk or stdout failed; a name is too long |
| 129, 130, 143 | interrupted by SIGHUP (in training), SIGINT, SIGTERM |
| 141 | the program that reads stdout has exited, as `head` does |

Results go to stdout, everything else to stderr. An error is one line. Control characters in names,
keys and messages are printed as text (`\\x1b`) and escaped in JSON.
`RTDETR_DEBUG=1` shows the traceback of an error.
"""


def generated_files() -> dict[str, str]:
    """Return the generated files: path relative to the repository root, and content."""
    files = {f"cfg/{mode}.yaml": settings_yaml(MODES[mode]) for mode in _WITH_FILE}
    pages = {"settings.md": _settings_page(), "cli.md": _cli_page(), _FOREIGN: _foreign_page()}
    return {**files, **{f"docs/{name}": text for name, text in pages.items()}}


def _settings_page() -> str:
    lines = ["# Settings", "", f"All keys of all modes, {GENERATED}."]
    lines += ["`None`: a default that is explained in the last column."]
    for mode, cls in MODES.items():
        lines += ["", f"## {mode}", "", str(cls.__doc__)]
        for heading, keys in keys_by_group(cls).items():
            lines += ["", f"**{heading}**", "", "| key | type | default | meaning |"]
            lines += ["|---|---|---|---|"]
            lines += [f"| `{k.name}` | {k.type} | `{k.default}` | {k.text} |" for k in keys]
    return "\n".join(lines) + "\n"


def _cli_page() -> str:
    front = overview(MODES, {name: text for name, (_, text) in COMMANDS.items()})
    lines = ["# Command line", "", f"The help pages, {GENERATED}.", "", "```", front, "```"]
    lines += ["", _GRAMMAR]
    for mode, (_, examples) in RUN.items():
        page = mode_help(MODES[mode], examples, width=100)
        lines += ["", f"## rtdetr {mode}", "", "```", page, "```"]
    return "\n".join([*lines, "", _EXIT_CODES])


def _foreign_page() -> str:
    page = (asset_dir("cfg").parent / "docs" / _FOREIGN).read_text(encoding="utf-8")
    lines = [page.split(f"{_TABLE}\n")[0] + _TABLE, ""]
    lines += [
        "Generated from rtdetr_cli/config/foreign_keys.py by `python -m rtdetr_cli.cli.generate`."
    ]
    for mode in FOREIGN_MODES:
        rows = {key: row for (name, key), row in FOREIGN_KEYS.items() if name == mode}
        lines += ["", f"### {mode}", ""]
        lines += ["| key | here | |", "|---|---|---|"]
        lines += [f"| `{key}` | {' | '.join(_rule(rows[key]))} |" for key in sorted(rows)]
    return "\n".join(lines) + "\n"


def _rule(row: Rule) -> tuple[str, str]:
    """What a key of Ultralytics does here, and why or how it differs."""
    if isinstance(row, Same):
        return "the same", row.difference
    if isinstance(row, Renamed):
        return f"`{row.to}`", row.difference
    values = row.only if isinstance(row, NoEffect) else row.neutral
    only = ", ".join(f"`{value}`" for value in values if value is not None)
    none = "no effect" if isinstance(row, NoEffect) else "refused"
    return f"only {only}" if only else none, row.why


def main() -> None:
    """Write all generated files to the checkout."""
    root = asset_dir("cfg").parent
    for name, text in generated_files().items():
        with atomic_write(Path(root, name)) as temporary:
            temporary.write_text(text, encoding="utf-8", newline="\n")


if __name__ == "__main__":
    main()
