"""Commands that are not modes: help, version, settings, cfg, copy-cfg, completion.

They print or copy what is shipped; none of them imports torch.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from pathlib import Path

from rtdetr_cli.cli.completion import completion
from rtdetr_cli.cli.help import mode_help, overview, settings_yaml
from rtdetr_cli.cli.modes import RUN
from rtdetr_cli.config.settings.modes import MODES
from rtdetr_cli.config.settings.shared import Settings
from rtdetr_cli.core.console import result, say
from rtdetr_cli.core.errors import UsageError, nearest
from rtdetr_cli.core.files import atomic_write, rtdetr_home, tilde
from rtdetr_cli.core.version import VERSION

_VARIABLES = {
    "RTDETR_HOME": "folder of weights, data sets and downloads",
    "RTDETR_OFFLINE": "1: no network",
    "RTDETR_MIRROR": "address of a mirror of the published files",
    "RTDETR_YES": "1: download without asking",
    "RTDETR_MAX_MEGAPIXELS": "size of the largest image that is decoded; 178 by default",
    "RTDETR_DEBUG": "1: show the traceback of an error",
}


def help_page(arguments: Sequence[str]) -> None:
    """`rtdetr help [MODE]`."""
    if arguments:
        cls = _mode_of("help", arguments)
        page = mode_help(cls, RUN[cls.mode][1])
    else:
        page = overview(MODES, {name: text for name, (_, text) in COMMANDS.items()})
    result(*page.splitlines())


def _version(arguments: Sequence[str]) -> None:
    result(VERSION)


def _settings(arguments: Sequence[str]) -> None:
    """`rtdetr settings`: where settings come from."""
    if arguments:
        raise UsageError(
            f"{arguments[0]}: there is no settings file to change; give keys on the command line, "
            "in cfg=my.yaml, or set a variable that `rtdetr settings` lists"
        )
    result(
        "There is no settings file. A value comes from the command line, else from cfg=FILE, else",
        "from recipe=FILE, else it is the default that `rtdetr MODE --help` and `rtdetr cfg` show.",
        "",
        f"home folder      {tilde(rtdetr_home())}",
    )
    for name, meaning in _VARIABLES.items():
        value = os.environ.get(name) or "not set"
        result(f"{name:<16} {tilde(value)} ({meaning})")


def _cfg(arguments: Sequence[str]) -> None:
    """`rtdetr cfg [MODE]`: print the default settings of a mode."""
    result(*settings_yaml(_mode_of("cfg", arguments)).splitlines())


def _copy_cfg(arguments: Sequence[str]) -> None:
    """`rtdetr copy-cfg [MODE]`: write the default settings to a new file in this folder."""
    cls = _mode_of("copy-cfg", arguments)
    path = Path(f"{cls.mode}_copy.yaml")
    if path.exists():
        raise UsageError(f"{path} exists already; rename it, or use it: cfg={path}")
    with atomic_write(path) as temporary:
        temporary.write_text(settings_yaml(cls), encoding="utf-8", newline="\n")
    say(f"edit it, then use it: rtdetr {cls.mode} cfg={path}")
    result(str(path))


def _mode_of(command: str, arguments: Sequence[str]) -> type[Settings]:
    """The settings of the mode that is named, or those of train.

    Raises:
        UsageError: there is no such mode.
    """
    mode = arguments[0] if arguments else "train"
    if mode not in MODES:
        hint = nearest(mode, MODES) or f"; modes are {', '.join(MODES)}"
        raise UsageError(f"rtdetr {command}: {mode} is not a mode{hint}")
    if not arguments:
        others = ", ".join(other for other in MODES if other != mode)
        say(f"the settings of train; `rtdetr {command} MODE` for {others}")
    return MODES[mode]


COMMANDS: dict[str, tuple[Callable[[Sequence[str]], None], str]] = {
    "help": (help_page, "This page; `rtdetr help MODE` is `rtdetr MODE --help`."),
    "version": (_version, "Print the version, as --version and -V do."),
    "settings": (_settings, "Print the home folder and the environment variables in use."),
    "cfg": (_cfg, "Print the default settings of a mode as YAML."),
    "copy-cfg": (_copy_cfg, "Write them to MODE_copy.yaml in this folder, to edit."),
    "completion": (completion, "Print the completion script of a shell: bash, zsh or fish."),
}
"""Function and meaning of each command."""
