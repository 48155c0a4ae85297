"""Generate cfg/*.yaml, docs/settings.md and docs/cli.md: `python -m rtdetr_cli.cli.generate`.

A test fails when one of them does not match the settings.
"""

from __future__ import annotations

from pathlib import Path

from rtdetr_cli.cli.help import keys_by_group, mode_help, overview
from rtdetr_cli.cli.modes import RUN
from rtdetr_cli.config.settings.modes import MODES
from rtdetr_cli.config.settings.shared import Settings
from rtdetr_cli.core.files import asset_dir, atomic_write

_WITH_FILE = ("train", "val", "predict", "export")
_NOTE = "generated from rtdetr_cli/config/settings/ by `python -m rtdetr_cli.cli.generate`"
_EXIT_CODES = """\
## Exit codes

| code | meaning |
|---|---|
| 0 | done |
| 1 | a bug in rtdetr; the message names a file with details |
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
    files = {f"cfg/{mode}.yaml": _settings_yaml(MODES[mode]) for mode in _WITH_FILE}
    return {**files, "docs/settings.md": _settings_page(), "docs/cli.md": _cli_page()}


def _settings_yaml(cls: type[Settings]) -> str:
    lines = [
        f"# Defaults of `rtdetr {cls.mode}`; use a copy with other values by cfg=my.yaml.",
        f"# {_NOTE.capitalize()}.",
    ]
    for heading, keys in keys_by_group(cls).items():
        lines += ["", f"# {heading}"]
        for key in keys:
            value = {"None": "null", "required": "null"}.get(key.default, key.default)
            needed = "Required. " if key.default == "required" else ""
            lines.append(f"{f'{key.name}: {value}':<26}# {needed}{key.text}")
    return "\n".join(lines) + "\n"


def _settings_page() -> str:
    lines = ["# Settings", "", f"All keys of all modes, {_NOTE}."]
    lines += ["`None`: a default that is explained in the last column."]
    for mode, cls in MODES.items():
        lines += ["", f"## {mode}", "", str(cls.__doc__)]
        for heading, keys in keys_by_group(cls).items():
            lines += ["", f"**{heading}**", "", "| key | type | default | meaning |"]
            lines += ["|---|---|---|---|"]
            lines += [f"| `{k.name}` | {k.type} | `{k.default}` | {k.text} |" for k in keys]
    return "\n".join(lines) + "\n"


def _cli_page() -> str:
    lines = ["# Command line", "", f"The help pages, {_NOTE}.", "", "```", overview(MODES), "```"]
    for mode, (_, examples) in RUN.items():
        page = mode_help(MODES[mode], examples, width=100)
        lines += ["", f"## rtdetr {mode}", "", "```", page, "```"]
    return "\n".join([*lines, "", _EXIT_CODES])


def main() -> None:
    """Write all generated files to the checkout."""
    root = asset_dir("cfg").parent
    for name, text in generated_files().items():
        with atomic_write(Path(root, name)) as temporary:
            temporary.write_text(text, encoding="utf-8", newline="\n")


if __name__ == "__main__":
    main()
