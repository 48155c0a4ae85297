"""The command line `rtdetr`: run a mode, and convert errors to a message and an exit code."""

from __future__ import annotations

import gc
import os
import sys
import tempfile
import traceback
from collections.abc import Callable, Sequence
from pathlib import Path
from types import TracebackType

import typer
import typer.main

from rtdetr_cli.cli.arguments import parse_arguments
from rtdetr_cli.cli.commands import COMMANDS
from rtdetr_cli.cli.grammar import find_mode
from rtdetr_cli.cli.help import mode_help
from rtdetr_cli.cli.modes import RUN
from rtdetr_cli.config.from_pairs import settings_from_pairs
from rtdetr_cli.config.settings.modes import MODES
from rtdetr_cli.core import console
from rtdetr_cli.core.errors import DataError, RTDETRError, StorageError, printable
from rtdetr_cli.core.files import is_refusal, reason_of
from rtdetr_cli.core.termination import Terminated

HELP = {"--help", "-h"}
MAX_PROBLEMS = 20
"""Errors of a data set that are printed before the last line; `rtdetr check` prints all."""


def main() -> None:
    """Run the command line of this process; __main__.py imports and calls it."""
    if not os.environ.get("RTDETR_DEBUG"):
        sys.excepthook = _keep_traceback
    console.open_streams()
    try:
        sys.exit(run(sys.argv[1:]))
    finally:
        console.close_streams()
        gc.freeze()  # the search for cycles at the end takes 0.5 s where torch is imported


def run(arguments: Sequence[str]) -> int:
    """Run one command line and return its exit code.

    Args:
        arguments: what was typed after `rtdetr`.
    """
    try:
        return _run(arguments)
    except (RTDETRError, OSError) as error:
        is_known = isinstance(error, RTDETRError) or is_refusal(error)
        if os.environ.get("RTDETR_DEBUG") or not is_known:
            raise
        return _explain(error)
    except console.ReaderGone:
        return 128 + 13  # as if killed by SIGPIPE
    except (KeyboardInterrupt, typer.Abort):
        return 130


def _run(arguments: Sequence[str]) -> int:
    mode, rest = find_mode(arguments)
    if mode in COMMANDS:
        command, _ = COMMANDS[mode]
        command(rest)
        return 0
    return typer.main.get_command(_app())([mode, *rest], standalone_mode=False) or 0


def _explain(error: RTDETRError | OSError) -> int:
    """Print an error; returns its exit code."""
    if isinstance(error, RTDETRError):
        if isinstance(error, DataError) and len(error.problems) > 1:
            for problem in error.problems[:MAX_PROBLEMS]:
                console.warn(problem)
            if len(error.problems) > MAX_PROBLEMS:
                console.warn("... ; `rtdetr check ... json` lists up to 1000 of each kind")
        console.error(str(error))
        return error.exit_code
    what = f"{error.filename}: " if error.filename else ""
    console.error(f"{what}{reason_of(error)}")
    return StorageError.exit_code


def _app() -> typer.Typer:
    """Build the Typer application: one command per mode, which parses its own arguments.

    Declared parameters and Typer's help flag would cost 0.25 s per start, through pydantic.
    """
    raw = {
        "allow_extra_args": True,
        "ignore_unknown_options": True,
        "allow_interspersed_args": False,
        "help_option_names": [],
    }
    app = typer.Typer(add_completion=False, context_settings=raw)
    for mode in RUN:
        app.command(mode, context_settings=raw)(_command(mode))
    return app


def _command(mode: str) -> Callable[[typer.Context], None]:
    def command(context: typer.Context) -> None:
        run_mode, examples = RUN[mode]
        if HELP & set(context.args):
            console.result(*mode_help(MODES[mode], examples).splitlines())
            return
        _require_folder()
        settings = settings_from_pairs(MODES[mode], parse_arguments(MODES[mode], context.args))
        try:
            code = run_mode(settings)
        except Terminated as ended:  # Typer would exit with 130
            code = 128 + ended.number
        raise typer.Exit(code)

    return command


def _require_folder() -> None:
    """Check the current folder; some libraries abort if it does not exist."""
    try:
        Path.cwd()
    except OSError as error:
        raise StorageError(f"the current folder cannot be used: {reason_of(error)}") from error


def _keep_traceback(
    kind: type[BaseException], error: BaseException, trace: TracebackType | None
) -> None:
    """Handle an unexpected exception: write the traceback to a file and print one line."""
    text = "".join(traceback.format_exception(kind, error, trace))
    try:
        number, name = tempfile.mkstemp(prefix="rtdetr-", suffix=".log")  # mode 0600, a new file
        with os.fdopen(number, "w", encoding="utf-8", errors="backslashreplace") as file:
            file.write(text)
        where = f"details are in {name}"
    except OSError as refused:
        where = f"no file for details: {reason_of(refused)}; RTDETR_DEBUG=1 shows them"
    first_line = (str(error).splitlines() or [""])[0]
    console.error(f"{kind.__name__}: {printable(first_line)} (a bug; {where})")
