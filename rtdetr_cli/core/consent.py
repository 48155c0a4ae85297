"""Ask before something large is done: in a terminal a question, elsewhere a variable."""

from __future__ import annotations

import os
import sys

from rtdetr_cli.core.console import say
from rtdetr_cli.core.errors import printable

YES = "RTDETR_YES"


def says_yes() -> bool:
    """Whether the environment agrees to every question (`RTDETR_YES=1`)."""
    return os.environ.get(YES, "").lower() not in {"", "0", "false"}


def ask(question: str) -> bool | None:
    """Ask a question on stderr; only y and yes agree.

    Returns:
        The reply; None if nobody can reply: stdin or stderr is no terminal, or this is one of
        several workers.
    """
    if "RANK" in os.environ or sys.stdin is None:
        return None
    if not (sys.stdin.isatty() and sys.stderr.isatty()):
        return None
    sys.stderr.write(f"{printable(question, 1000)} [y/N] ")
    sys.stderr.flush()
    answer = sys.stdin.readline()
    if not answer.endswith("\n"):
        say("")  # the end of the input is shown in the line of the question
    return answer.strip().lower() in {"y", "yes"}
