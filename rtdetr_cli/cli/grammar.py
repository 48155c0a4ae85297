"""Find the mode of a command line: `train ...`, `detect train ...`, `task=detect mode=train ...`.

What follows the mode is parsed by arguments.py.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

from rtdetr_cli.cli.commands import COMMANDS
from rtdetr_cli.cli.modes import RUN
from rtdetr_cli.core.console import say
from rtdetr_cli.core.errors import UsageError, nearest, printable
from rtdetr_cli.core.files import is_there

_SAME_AS = {
    "checks": "env",
    "--help": "help",
    "-h": "help",
    "--version": "version",
    "-V": "version",
    "-v": "version",
}
_OTHER_TASKS = {"segment", "semantic", "classify", "pose", "obb"}
_REFUSED = {
    "tune": "there is no search for hyperparameters; call `rtdetr train` with other values, for "
    "example lr=1e-4, or let a tool such as Optuna call RTDETR.train",
    "hub": "there is no account and no upload",
    "login": "there is no account and no upload",
    "logout": "there is no account and no upload",
    "solutions": "applications on video are not supported yet; `rtdetr track` follows objects",
}
_TASK_OR_MODE = re.compile(r"(?:--)?(task|mode)=(.*)", re.DOTALL)


def find_mode(arguments: Sequence[str]) -> tuple[str, list[str]]:
    """Return the mode or command, and the remaining arguments without task and mode.

    Raises:
        UsageError: another task than detection, an unknown mode, two modes, or none.
    """
    words, named = _without_task(_joined(arguments))
    first = words[0] if words else named or "help"
    first = _SAME_AS.get(first, first)
    if first in RUN or first in COMMANDS:
        if named and _SAME_AS.get(named, named) != first:
            raise UsageError(f"mode={named}, but the command is `rtdetr {first}`; give one mode")
        return first, words[1:]
    if named or ("=" not in first and not first.startswith("-")):
        mode = _SAME_AS.get(named or first, named or first)
        if mode in RUN or mode in COMMANDS:
            return mode, words
        raise UsageError(f"{printable(mode, 100)} is not a mode{_instead_of(mode)}")
    return _guess(words), words


def _joined(arguments: Sequence[str]) -> list[str]:
    """The arguments with `key = value`, `key =value` and `key= value` as one word each."""
    words: list[str] = []
    for word in arguments:
        is_open = bool(words) and words[-1].endswith("=") and words[-1].count("=") == 1
        is_value = words and not word.startswith("--") and "=" not in word[1:]
        if is_value and (word.startswith("=") != is_open):
            words[-1] += word
        else:
            words.append(word)
    return words


def _without_task(words: list[str]) -> tuple[list[str], str | None]:
    """The arguments without `detect`, `task=` and `mode=`, and the value of `mode=`."""
    if words and words[0] in {"detect", *_OTHER_TASKS}:
        _require_detection(words.pop(0))
    kept, mode = [], None
    for word in words:
        pair = _TASK_OR_MODE.fullmatch(word)
        if pair is None:
            kept.append(word)
        elif pair[1] == "task":
            _require_detection(pair[2])
        elif mode in {None, pair[2]}:
            mode = pair[2]
        else:
            raise UsageError(f"mode={mode} and mode={pair[2]}; give one mode")
    return kept, mode


def _require_detection(task: str) -> None:
    if task != "detect":
        shown = printable(task, 40)
        raise UsageError(f"task {shown} is not supported: RT-DETR detects objects (task=detect)")


def _instead_of(mode: str) -> str:
    """End of the message about a mode that does not exist: a reason, an example or a hint."""
    if mode in _REFUSED:
        return f": {_REFUSED[mode]}"
    if Path(mode).suffix and is_there(mode):
        return f"; a file needs a mode and a key, for example `rtdetr predict source={mode}`"
    return nearest(mode, [*RUN, *COMMANDS]) or f"; modes are {', '.join(RUN)}"


def _guess(words: list[str]) -> str:
    """The mode of a command line that names none: that of its cfg= file, or predict with a source.

    Raises:
        UsageError: neither says what to do.
    """
    pairs = dict(word.removeprefix("--").partition("=")[::2] for word in words)
    if pairs.get("cfg") and (mode := _mode_in(pairs["cfg"])):
        return mode
    if "source" in pairs:
        say("no mode is given; source= means predict")
        return "predict"
    mode = "train" if "epochs" in pairs else "val"
    example = " ".join(word for word in words if "=" in word) or "data=coco8.yaml"
    raise UsageError(
        f"no mode is given; write for example `rtdetr {mode} {example}` "
        f"(modes are {', '.join(RUN)})"
    )


def _mode_in(file: str) -> str | None:
    """The key `mode` of a settings file, as Ultralytics' files have it; None if it names none."""
    from rtdetr_cli.config.load import load_yaml  # yaml would slow --help

    mode = load_yaml(file).get("mode")
    if not isinstance(mode, str) or mode not in RUN:
        return None
    say(f"no mode is given; {file} says {mode}")
    return mode
