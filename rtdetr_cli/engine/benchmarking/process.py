"""A process that runs worker.py, for `rtdetr benchmark` and `rtdetr tradeoff`."""

from __future__ import annotations

import json
import subprocess
import sys
from contextlib import suppress
from typing import Any


class WorkerProcess:
    """Sends requests to worker.py, one line of JSON each way."""

    def __init__(self) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-m", "rtdetr_cli.engine.benchmarking.worker"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def ask(self, request: dict[str, Any]) -> dict[str, Any]:
        """Send a request and wait for its reply; after a failure it has the reason as `error`."""
        stdin, stdout = self._process.stdin, self._process.stdout
        assert stdin
        assert stdout
        with suppress(BrokenPipeError):  # then the reply is empty too
            stdin.write(json.dumps(request) + "\n")
            stdin.flush()
        line = stdout.readline()
        reply: dict[str, Any] = json.loads(line) if line else {"error": "its process died"}
        return reply

    def close(self) -> None:
        """End the process."""
        with suppress(BrokenPipeError):  # it died before it has read its last request
            self._process.communicate()
