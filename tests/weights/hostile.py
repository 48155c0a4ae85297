"""Builds files that want to do harm: crafted ones, truncated ones, mutated ones. Runs nothing.

judge.py opens them in processes of their own; test_hostile.py says what must be true of it.
"""

from __future__ import annotations

import io
import json
import random
import struct
import sys
import zipfile
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import torch
from conftest import LayerNumbered
from hostile_pickles import EVIL, archive, holding, pickles, tensors
from safetensors.torch import save

from rtdetr_cli.config.model import (
    DecoderConfig,
    EncoderConfig,
    HGNetv2Config,
    HGStage,
    ModelConfig,
)
from rtdetr_cli.nn.rtdetr import RTDETRNetwork
from rtdetr_cli.weights.checkpoint import Checkpoint, save_checkpoint

SMALL = ModelConfig(
    name="small",
    backbone=HGNetv2Config(
        stem=(2, 4),
        stages=tuple(HGStage(mid=2, out=4, blocks=1, layers=1) for _ in range(4)),
    ),
    encoder=EncoderConfig(hidden_dim=8, ffn_dim=8, num_csp_blocks=1),
    decoder=DecoderConfig(hidden_dim=8, ffn_dim=8, num_layers=1, num_points=(1, 1, 1)),
)


@dataclass
class Case:
    """A file, and what must come of it: `same` (as the good one), `refuse`, `any` of the two."""

    name: str
    path: str
    expect: str = "refuse"
    good: str = ""
    build: bool = False


class Corpus:
    """Writes files into a folder and keeps the list of them."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.cases: list[Case] = []
        self.good = {name: make() for name, make in GOOD.items()}
        for name, data in self.good.items():
            self.add(f"good-{name}", data, "same", good=name, build=True)

    def add(self, name, data, expect="refuse", good="", build=False):
        path = self.folder / f"{len(self.cases):05}-{name}.pt"
        path.write_bytes(data)
        self.cases.append(Case(name, str(path), expect, good, build))

    def saved(self, content):
        return saved(content)

    def folder_with(self, name, files, expect="any"):
        path = self.folder / f"{len(self.cases):05}-{name}"
        path.mkdir()
        for file, data in files.items():
            (path / file).write_bytes(data)
        self.cases.append(Case(name, str(path), expect, build=True))


@cache
def state():
    torch.manual_seed(0)
    return RTDETRNetwork(SMALL, 2).state_dict()


def ours():
    path = Path.cwd() / "ours.pt"
    save_checkpoint(path, Checkpoint(SMALL, {0: "cat", 1: "dog"}, state()))
    data = path.read_bytes()
    path.unlink()
    return data


def saved(content):
    buffer = io.BytesIO()
    torch.save(content, buffer)
    return buffer.getvalue()


class Patch:
    """What LayerNumbered needs of pytest's monkeypatch."""

    def setitem(self, mapping, key, value):
        mapping[key] = value


def ultralytics():
    torch.manual_seed(0)
    builder = LayerNumbered(Patch())
    data = saved({"model": builder.model(SMALL, ["cat", "dog"]).half(), "version": "8.3"})
    del sys.modules["ultralytics"], sys.modules["ultralytics.nn"]
    return data


GOOD = {
    "ours": ours,
    "official": lambda: saved({"ema": {"module": state()}, "last_epoch": 3}),
    "ultralytics": ultralytics,
    "safetensors": lambda: save(state()),
}


# --- our own format -----------------------------------------------------------------------------

NAMES = {i: "n" for i in range(100_000)}
LIES = [
    {"version": 2},
    {"version": [[]] * 9},
    {"version": 10**5000},
    {"names": {10**9: "x"}},
    {"names": NAMES},
    {"names": {0: "cat", 1: ["dog"] * 1000}},
    {"names": ["cat", 1]},
    {"names": {"0": "cat", "1": "dog"}},
    {"preprocessing": {"size_hw": [10**9, 10**9], "antialias": True}},
    {"preprocessing": {"size_hw": [-32, 32], "antialias": True}},
    {"preprocessing": {"size_hw": [33, 32], "antialias": True}},
    {"preprocessing": 5},
    {"weights": {}},
    {"weights": {"a": torch.zeros(10**9, 0)}},
    {"weights": None},
    {"architecture": None},
    {"architecture": [[[[[[[[[[[[[]]]]]]]]]]]]]},
    {"architecture": {"name": "x" * 10**5}},
    {"architecture": {"x" * 10**5: 1}},
    {"notes": 7},
    {"origin": ["\x1b[2J"]},
]
FIELDS = {
    "encoder": ["hidden_dim", "ffn_dim", "num_layers", "num_heads", "num_csp_blocks", "expansion"],
    "decoder": ["hidden_dim", "ffn_dim", "num_layers", "num_heads", "num_points", "eval_layers"],
}


def own_format(corpus):
    def good():
        return torch.load(io.BytesIO(corpus.good["ours"]), weights_only=True)

    for index, lie in enumerate(LIES):
        corpus.add(f"lie-{index}-{next(iter(lie))}", saved({**good(), **lie}), build=True)
    for part, fields in FIELDS.items():
        for field in fields:
            for value in (10**9, -1, 0, {"x": [10**400]}):
                content = good()
                content["architecture"][part][field] = value
                corpus.add(f"lie-{part}-{field}-{str(value)[:10]}", saved(content), build=True)
    for field in ("mid", "out", "blocks", "kernel", "layers"):
        content = good()
        content["architecture"]["backbone"]["stages"][1][field] = 10**9
        corpus.add(f"lie-stage-{field}", saved(content), build=True)
    presnet = {"type": "presnet", "blocks": [10**9] * 4, "bottleneck": True}
    content = good()
    content["architecture"]["backbone"] = presnet
    corpus.add("lie-presnet", saved(content), build=True)


# --- zip archives -------------------------------------------------------------------------------


def rezip(data, names=None, twice=(), **options):
    buffer = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(data)) as old, zipfile.ZipFile(buffer, "w", **options) as new:
        for name in old.namelist():
            for target in [(names or {}).get(name, name)] + [name] * (name in twice):
                new.writestr(target, old.read(name))
    return buffer.getvalue()


def replaced(data, old, new, count=-1):
    assert old in data
    return data.replace(old, new, count)


def zips(corpus):
    import warnings

    warnings.simplefilter("ignore")  # zipfile warns about duplicate names
    good = corpus.good["official"]
    pkl = next(n for n in zipfile.ZipFile(io.BytesIO(good)).namelist() if n.endswith("data.pkl"))
    end = good.rindex(b"PK\x05\x06")
    first = good.index(b"PK\x01\x02")

    def patched(at, data):
        return good[:at] + data + good[at + len(data) :]

    corpus.add("zip-in-zip", archive(good))
    corpus.add("zip-in-entry", archive(holding(b"N"), _0=good))
    corpus.add("zip-dots", rezip(good, {pkl: "../../canary/data.pkl"}))
    corpus.add("zip-absolute", rezip(good, {pkl: "/tmp/canary/data.pkl"}))
    corpus.add("zip-twice", rezip(good, twice=[pkl]))
    corpus.add("zip-again", rezip(good), "same", "official")
    for method in (zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA):
        corpus.add(f"zip-method-{method}", rezip(good, compression=method))
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as file:
        file.writestr("archive/data.pkl", holding(b"N"))
        file.writestr("archive/data/0", bytes(50_000_000))
    corpus.add("zip-bomb", buffer.getvalue())
    corpus.add("zip-encrypted", patched(first + 8, b"\x01\x08"))
    corpus.add("zip-wrong-sum", patched(first + 16, b"\x00\x00\x00\x00"))
    corpus.add("zip-size-2^32", patched(first + 20, b"\xfe\xff\xff\xff" * 2))
    corpus.add("zip-size-64", patched(first + 20, b"\xff\xff\xff\xff" * 2))
    corpus.add("zip-longer-than-stored", patched(first + 24, b"\x00\x00\x10\x00"))
    corpus.add("zip-offset", patched(first + 42, b"\xff\xff\xff\x7f"))
    corpus.add("zip-method-99", patched(first + 10, b"\x63\x00"))
    corpus.add("zip-version-99", patched(first + 6, b"\x63\x63"))
    for field in range(4, 20, 2):  # torch writes a second, 64-bit end, which counts
        lie = patched(end + field, b"\xff\x7f")
        corpus.add(f"zip-end-{field}", lie, "same-or-refuse", "official")
    locator = b"PK\x06\x07" + struct.pack("<IQI", 0, 2**60, 1)
    corpus.add("zip-locator-64", good[:end] + locator + good[end:])
    entry = struct.pack("<4s4B4HL2L5H2L", b"PK\x01\x02", *(20, 0, 20, 0), *[0] * 14)
    many = entry * 200_000
    tail = struct.pack("<4s4H2LH", b"PK\x05\x06", 0, 0, 65535, 65535, len(many), 4, 0)
    corpus.add("zip-many-entries", b"PK\x03\x04" + many + tail)
    overlapping = list(zipfile.ZipFile(io.BytesIO(good)).infolist())[3].header_offset
    corpus.add("zip-overlap", patched(first + 42, struct.pack("<L", overlapping)))


# --- safetensors --------------------------------------------------------------------------------


def safe(header, data=bytes(64), size=None):
    header = header if isinstance(header, bytes) else json.dumps(header).encode()
    return struct.pack("<Q", len(header) if size is None else size) + header + data


def entry(shape, offsets, dtype="F32"):
    return {"dtype": dtype, "shape": shape, "data_offsets": offsets}


def safetensors(corpus):
    head = "decoder.dec_score_head.0.weight"
    both = (head, "decoder.enc_score_head.weight", "encoder.input_proj.0.conv.weight")
    headers = {
        "size-2^60": safe({}, size=2**60),
        "size-2^63": safe({}, size=2**63 + 9),
        "size-3-million": safe(b"{" + b" " * 3_000_000 + b"}"),
        "overlap": safe({"a": entry([16], [0, 64]), "b": entry([16], [0, 64])}),
        "hole": safe({"a": entry([4], [48, 64])}),
        "beyond": safe({"a": entry([10**9], [0, 4 * 10**9])}),
        "backwards": safe({"a": entry([4], [16, 0])}),
        "negative": safe({"a": entry([-4], [0, 16])}),
        "overflow": safe({"a": entry([2**32, 2**32], [0, 64])}),
        "no-values": safe({key: entry([10**12, 0], [0, 0]) for key in both}, b""),
        "dtype": safe({"a": entry([16], [0, 64], "F64")}),
        "dtype-unknown": safe({"a": entry([16], [0, 64], "os.system")}),
        "dtype-list": safe({"a": entry([16], [0, 64], [[]])}),
        "twice": safe(b'{"a":' + b"%s," % json.dumps(entry([16], [0, 64])).encode() + b'"a":{}}'),
        "deep": safe(b'{"a":' + b"[" * 100_000 + b"]" * 100_000 + b"}"),
        "list": safe(b"{[1]}"),
        "no-text": safe(b'{"\xff\xfe":1}'),
        "controls": safe({"\x1b[2J\n" * 100: entry([16], [0, 64])}),
        "many": safe(
            {str(i): entry([1], [4 * i, 4 * i + 4]) for i in range(20_000)}, bytes(80_000)
        ),
    }
    for name, data in headers.items():
        corpus.add(f"safetensors-{name}", data, build=True)
    for name, text in CONFIGS.items():
        files = {"model.safetensors": corpus.good["safetensors"], "config.json": text}
        corpus.folder_with(f"config-{name}", files)


CONFIGS = {
    "empty": b"",
    "deep": b"[" * 200_000,
    "deep-names": b'{"id2label":' + b'{"0":' * 50_000 + b"1" + b"}" * 50_001,
    "large": b'{"id2label": {}, "x": "' + b"x" * 3_000_000 + b'"}',
    "list": b"[1]",
    "no-text": b"\xff\xfe\x00",
    "names-list": b'{"id2label": ["cat", "dog"]}',
    "names-odd": b'{"id2label": {"0": ["cat"], "x": "dog"}}',
    "names-gap": b'{"id2label": {"7": "cat", "1000000000": "dog"}}',
    "names-controls": b'{"id2label": {"0": "\\u001b[2J", "1": "\\n../../dog"}}',
    "huge-int": b'{"num_queries": 1' + b"0" * 5000 + b"}",
    "queries-2^62": b'{"num_queries": 4611686018427387904}',
    "queries-negative": b'{"num_queries": -5}',
    "queries-text": b'{"num_queries": "many"}',
    "heads-0": b'{"decoder_attention_heads": 0}',
    "heads-negative": b'{"decoder_attention_heads": -8}',
    "heads-list": b'{"decoder_attention_heads": [8]}',
    "heads-7": b'{"decoder_attention_heads": 7}',
    "eps-text": b'{"batch_norm_eps": "1e-5"}',
    "eps-nan": b'{"batch_norm_eps": NaN}',
    "eps-negative": b'{"batch_norm_eps": -1.0}',
    "eps-huge": b'{"batch_norm_eps": 1e308}',
}


def crafted(corpus):
    pickles(corpus)
    tensors(corpus, state())
    for write in (own_format, zips, safetensors):
        write(corpus)


def running(corpus):
    """For the judge's own test: what a door that runs pickles would be caught at."""
    corpus.add("running", archive(holding(EVIL)))


# --- damage -------------------------------------------------------------------------------------


def truncated(corpus):
    for name, data in corpus.good.items():
        for length in range(0, len(data), 1024):
            corpus.add(f"cut-{name}-{length}", data[:length])
    for size in (1, 8, 16, 100, 5000):
        noise = random.Random(size).randbytes(size)
        for head in (b"", b"PK\x03\x04", b"\x80\x02", b"\x10\0\0\0\0\0\0\0{"):
            corpus.add(f"noise-{size}", head + noise)


def mutate(data, choice):
    """One to four flips, inserts, deletes or splices."""
    data = bytearray(data)
    for _ in range(choice.randint(1, 4)):
        at, length = choice.randrange(len(data)), choice.randint(1, 16)
        other = choice.randrange(len(data))
        match choice.randrange(4):
            case 0:
                data[at] ^= 1 << choice.randrange(8)
            case 1:
                data[at:at] = choice.randbytes(length)
            case 2:
                del data[at : at + length]
            case 3:
                data[at : at + length] = data[other : other + length]
        data = data or bytearray(1)
    return bytes(data)


def mutated(corpus, number):
    """Half of the archives are mutated in their pickle only, with a checksum that fits again."""
    choice = random.Random(0)
    for index in range(number):
        name = choice.choice(list(corpus.good))
        data, build = corpus.good[name], index % 10 == 0
        if name == "safetensors":
            corpus.add(f"mutated-{name}-{index}", mutate(data, choice), "any", build=build)
        elif index % 2:
            changed = mutate(data, choice)
            corpus.add(f"mutated-{name}-{index}", changed, "same-or-refuse", name)
        else:
            changed = repickled(data, choice)
            corpus.add(f"repickled-{name}-{index}", changed, "any", build=build)


def repickled(data, choice):
    buffer = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(data)) as old, zipfile.ZipFile(buffer, "w") as new:
        for name in old.namelist():
            content = old.read(name)
            is_pickle = name.endswith("data.pkl")
            new.writestr(name, mutate(content, choice) if is_pickle else content)
    return buffer.getvalue()
