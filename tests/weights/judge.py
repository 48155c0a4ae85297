"""Opens hostile files in processes of their own, and writes what came of it as JSON.

    python judge.py FOLDER crafted|truncated|MUTATIONS...

The processes are forked from one that has opened good files, so that nothing needs importing any
more: what an audit hook sees then is the file's doing. The files share processes; one that ends a
process is named and the others continue.
"""

from __future__ import annotations

import ctypes
import gc
import hashlib
import json
import os
import pickle
import resource
import signal
import sys
import time
import zipfile
from pathlib import Path

import hostile

from rtdetr_cli.backends.load import load_detector
from rtdetr_cli.backends.torch import shipped_states
from rtdetr_cli.core.errors import RTDETRError
from rtdetr_cli.weights.reader import open_weights

SECONDS = 10  # of CPU time, so that a busy machine is no finding
BATCH = 200
LINUX = sys.platform == "linux"
LIBC = ctypes.CDLL(None)
MOST_MEMORY = 2 * 2**30  # the backstop; what may be used is judged by test_hostile.py
FORBIDDEN = (
    *("exec", "compile", "import", "pickle.", "marshal.", "code.", "ctypes.", "socket."),
    *("os.system", "os.exec", "os.spawn", "os.posix_spawn", "os.fork", "subprocess.", "os.remove"),
    *("os.rename", "os.mkdir", "os.chmod", "os.link", "os.symlink", "shutil.", "tempfile."),
    *("webbrowser.", "urllib.", "ftplib.", "sys._getframe", "sys.setprofile", "sys.settrace"),
)

events: list[str] = []


def watch(event, arguments):
    if event == "open":
        path, mode, flags = arguments
        if (mode and set(mode) & set("wax+")) or (flags or 0) & (os.O_WRONLY | os.O_RDWR):
            events.append(f"open {path} for writing")
    elif event.startswith(FORBIDDEN):
        events.append(f"{event} {str(arguments)[:100]}")


def digest(checkpoint):
    sha = hashlib.sha256(repr((checkpoint.config, checkpoint.names)).encode())
    for name, tensor in sorted(checkpoint.weights.items()):
        sha.update(name.encode() + tensor.contiguous().view(-1).numpy().tobytes())
    return sha.hexdigest()


def attempt(work):
    """Outcome of a call: a result, a WeightsError, or an unexpected error."""
    try:
        return {"result": work()}
    except RTDETRError as error:
        return {"sentence": str(error)}
    except BaseException as error:  # noqa: BLE001  (whatever it is, it is a finding)
        return {"crash": f"{type(error).__name__}: {str(error)[:200]}"}


class Memory:
    """The most memory between two moments; Linux only, elsewhere 0."""

    def __init__(self):
        LIBC.malloc_trim(0)
        Path("/proc/self/clear_refs").write_text("5")  # forgets the peak
        self.before = self.read("VmRSS")

    def peak(self):
        return self.read("VmHWM") - self.before

    def read(self, what):
        status = Path("/proc/self/status").read_text()
        return int(status.split(f"{what}:")[1].split()[0]) * 1024


class NoMemory:
    """Where it cannot be measured."""

    def peak(self):
        return 0


def limit_memory():
    mapped = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (mapped + MOST_MEMORY,) * 2)


def unsafe_door(path):
    """What we must not do: it shows that the judge would see it."""
    with zipfile.ZipFile(path) as file:
        return pickle.loads(file.read("archive/data.pkl"))


def judge(case):
    """What opening the file did."""
    memory = Memory() if LINUX else NoMemory()
    events.clear()
    start = time.process_time()
    signal.setitimer(signal.ITIMER_PROF, SECONDS)  # ends the process
    door = unsafe_door if case.name == "running" else open_weights
    opened = attempt(lambda: door(case.path))
    report = {"memory": memory.peak(), "opened": "result" in opened, "events": list(events)}
    report |= {key: value for key, value in opened.items() if key != "result"}
    if report["opened"] and door is open_weights:
        report["digest"] = digest(opened["result"])
        events.clear()
        if case.build:
            built = attempt(lambda: load_detector(case.path, "cpu"))
            report["built"] = {k: v if k != "result" else "" for k, v in built.items()}
            report |= {"built_memory": memory.peak(), "events": report["events"] + events}
    signal.setitimer(signal.ITIMER_PROF, 0)
    return {**vars(case), **report, "seconds": time.process_time() - start}


def size_of(path):
    files = [path] if path.is_file() else path.iterdir()
    return sum(file.stat().st_size for file in files)


def run(cases):
    """Fork, judge one file after the other, and return the reports until the process ends."""
    receiver, sender = os.pipe()
    child = os.fork()
    if child == 0:
        os.close(receiver)
        if LINUX:
            limit_memory()
        with os.fdopen(sender, "w") as out:
            for case in cases:
                out.write(json.dumps(judge(case)) + "\n")
                out.flush()
        os._exit(0)
    os.close(sender)
    with os.fdopen(receiver) as pipe:
        reports = [json.loads(line) for line in pipe]
    _, status = os.waitpid(child, 0)
    if status:
        case = cases[len(reports)]
        reports.append({**vars(case), "opened": False, "seconds": SECONDS, **_ended(status)})
    return reports


def _ended(status):
    return {"crash": f"the process ended with status {status}", "memory": 0, "events": []}


def build(folder, parts):
    folder.mkdir()
    corpus = hostile.Corpus(folder)
    builders = {
        "crafted": hostile.crafted,
        "truncated": hostile.truncated,
        "running": hostile.running,
    }
    for part in parts:
        if part in builders:
            builders[part](corpus)
        else:
            hostile.mutated(corpus, int(part))
    return corpus.cases


def warm_up(cases):
    """Open good files, so that everything is imported; codecs are at their first use."""
    for case in cases[: len(hostile.GOOD)]:
        load_detector(case.path, "cpu")
    list(shipped_states(2))  # which an error names the nearest of
    for encoding in ("raw-unicode-escape", "unicode-escape", "ascii", "cp437"):
        b"a".decode(encoding)
    gc.collect()
    gc.freeze()


def main(folder, *parts):
    Path(folder, "cwd").mkdir()
    os.chdir(Path(folder, "cwd"))  # where canaries would appear
    cases = build(Path(folder, "files"), parts)
    warm_up(cases)
    sys.addaudithook(watch)
    reports: list[dict] = []
    while len(reports) < len(cases):
        reports += run(cases[len(reports) :][:BATCH])
    for report in reports:
        report["size"] = size_of(Path(report["path"]))
    left = sorted(str(path) for path in Path.cwd().iterdir())
    sys.stdout.write(json.dumps({"reports": reports, "left": left}))


if __name__ == "__main__":
    main(*sys.argv[1:])
