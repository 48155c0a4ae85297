"""Pickles that want to do harm, as bytes: calls, bombs, tensors that lie. Used by hostile.py."""

from __future__ import annotations

import io
import pickle
import struct
import zipfile

import torch


def text(value):
    data = value.encode()
    return b"X" + struct.pack("<I", len(data)) + data


def number(value):
    data = pickle.encode_long(value)
    return b"\x8a" + bytes([len(data)]) + data


def archive(pickled, **entries):
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as file:
        file.writestr("archive/data.pkl", pickled)
        for key, data in entries.items():
            file.writestr(f"archive/data/{key.removeprefix('_')}", data)
    return buffer.getvalue()


def holding(value, key="model"):
    """A stream that gives {key: value}."""
    return b"\x80\x02}" + text(key) + value + b"s."


WANTED = (
    *("os system", "posix system", "nt system", "builtins eval", "builtins exec"),
    *("builtins getattr", "builtins __import__", "builtins open", "builtins compile"),
    *("__builtin__ eval", "importlib import_module", "subprocess Popen", "subprocess check_output"),
    *("pickle loads", "_pickle loads", "torch load", "torch.storage _load_from_bytes"),
    *("torch.hub load", "torch.nn.functional relu", "torch.nn.modules.module os.system"),
    *("torch.nn.init xavier_uniform_", "torch._utils _import_dotted_name"),
    *("torch._utils _rebuild_sparse_tensor", "torch.nn.modules.module.os system"),
    *("ultralytics.utils.downloads safe_download", "numpy load", "numpy.f2py.crackfortran myeval"),
    *("operator attrgetter", "functools partial", "types new_class", "types FunctionType"),
    *("runpy run_path", "shutil rmtree", "ctypes CDLL", "socket socket", "webbrowser open"),
    *("collections OrderedDict.__class__", "datetime sys", "pathlib os.system", "codecs open"),
)


def calls(wanted):
    """The ways in which a stream can ask for a call."""
    module, name = wanted.split(" ")
    argument = text("touch canary")
    named = f"c{module}\n{name}\n".encode()
    yield "reduce", named + argument + b"\x85R"
    yield "newobj", named + argument + b"\x85\x81"
    yield "newobj-ex", named + argument + b"\x85}\x92"
    yield "inst", b"(" + argument + f"i{module}\n{name}\n".encode()
    yield "obj", b"(" + named + argument + b"o"
    hidden = text(module) + b"q\x000" + text(name) + b"q\x010h\x00h\x01\x93"
    yield "memo", hidden + argument + b"\x85R"
    yield "build", b"ctorch.nn\nModule\n)\x81}" + text("__setstate__") + named + b"sb"


def nested(pickled):
    """A pickle in bytes, handed to what would load it."""
    return b"B" + struct.pack("<I", len(pickled)) + pickled


def laughs(levels=64):
    return b"]" + b"".join(b"q" + bytes([i]) + b"0](h" + bytes([i]) + b"2e" for i in range(levels))


LONG = b"\x8b" + struct.pack("<I", 300_000) + b"\x7f" * 300_000
EVIL = b"cos\nsystem\n" + text("touch canary") + b"\x85R"

STREAMS = {
    "nested-by-torch": b"ctorch.storage\n_load_from_bytes\n" + nested(b"\x80\x02" + EVIL + b".")
    + b"\x85R",
    "nested-inert": nested(b"\x80\x02" + EVIL + b"."),
    "ext1": b"\x82\x01",
    "ext4": b"\x84\x01\x00\x00\x00",
    "persid": b"Pos.system\n",
    "next-buffer": b"\x97",
    "bytearray": b"\x96" + struct.pack("<Q", 2**60),
    "bytes-of-2^60": b"\x8e" + struct.pack("<Q", 2**60),
    "text-of-2^32": b"X\xff\xff\xff\xff",
    "build-on-a-name": b"ctorch\nFloatStorage\n}" + text("__code__") + b"Nsb",
    "build-on-a-list": b"]}b",
    "call-of-a-record": b"ctorch.nn\nModule\n)\x81)R",
    "call-without-arguments": b"ctorch._utils\n_rebuild_tensor_v2\n)R",
    "call-with-a-list": b"ccollections\nOrderedDict\n]R",
    "ordered-dict-of-text": b"ccollections\nOrderedDict\n" + text("ab" * 1000) + b"\x85R",
    "subclassed-dict": b"ccollections\nOrderedDict\n)R}" + text("__class__") + b"cos\nsystem\nsb",
    "deep-tuple": b")" + b"\x85" * 1_000_000,
    "deep-list": b"]" * 400_000 + b"a" * 399_999,
    "deep-records": b"ctorch.nn\nModule\nq\x00)\x81" + b"q\x010h\x00)\x81h\x01b" * 100_000,
    "list-in-itself": b"]q\x00(h\x00h\x00e",
    "laughs": laughs(),
    "laughs-as-a-name": laughs() + laughs() + b"\x93",
    "laughs-as-a-key": b"}" + laughs() + b"Ns",
    "huge-int": LONG,
    "huge-int-as-a-key": b"}" + LONG + b"Ns",
    "huge-int-in-the-memo": b"Np" + b"9" * 5000 + b"\n",
    "colliding-keys": b"}" + b"".join(number((2**61 - 1) * i) + b"Ns" for i in range(1, 60_000)),
    "colliding-memo": b"N" + b"".join(b"p%d\n" % ((2**61 - 1) * i) for i in range(60_000)),
    "lists-of-a-list": b"(" + b"N" * 100_000 + b"lq\x000" + b"cbuiltins\nset\nh\x00\x85R" * 50_000,
    "list-of-a-text": b"cbuiltins\nset\n" + text("a" * 1_000_000) + b"\x85R",
    "many-dicts": b"(" + b"}" * 3_000_000 + b"l",
    "many-marks": b"(" * 3_000_000,
    "many-memos": b"N" + b"\x94" * 3_000_000,
    "wide-text": text("a" * 5_000_000 + "\U0001f4a3"),
    "pop-of-nothing": b"0000",
    "name-with-controls": b"cos\x1b[31m\nsystem\x07\n",
    "name-of-a-page": b"c" + b"o" * 50_000 + b"\nsystem\n",
}  # fmt: skip


def pickles(corpus):
    for wanted in WANTED:
        for way, stream in calls(wanted):
            corpus.add(f"{way}-{wanted.replace(' ', '.')}", archive(holding(stream)))
    for name, stream in STREAMS.items():
        corpus.add(f"pickle-{name}", archive(holding(stream)))
        if len(stream) < 10_000:
            corpus.add(f"pickle-{name}-alone", archive(b"\x80\x02" + stream + b"."))
        corpus.add(f"bare-pickle-{name}", b"\x80\x02" + stream + b".")


# --- tensors ------------------------------------------------------------------------------------


def tensor(size, stride, offset=0, key="0", length=4, kind="FloatStorage"):
    """A tensor as torch writes it; every field a stream of its own or a number."""

    def stream(value):
        if isinstance(value, bytes):
            return value
        if isinstance(value, tuple):
            return b"(" + b"".join(map(stream, value)) + b"t"
        return number(value)

    storage = b"(" + text("storage") + f"ctorch\n{kind}\n".encode() + text(key) + text("cpu")
    fields = storage + stream(length) + b"tQ" + stream(offset) + stream(size) + stream(stride)
    return b"ctorch._utils\n_rebuild_tensor_v2\n(" + fields + b"\x89NtR"


TENSORS = {
    "ten-gigabytes": tensor((2_500_000_000,), (1,), length=2_500_000_000),
    "a-yottabyte": tensor((2**80,), (1,), length=2**80),
    "stride-0": tensor((10**12,), (0,)),
    "stride-0-deep": tensor((10**6, 10**6), (0, 0)),
    "negative-size": tensor((-4,), (1,)),
    "negative-stride": tensor((4,), (-1,)),
    "negative-offset": tensor((2,), (1,), offset=-1),
    "offset-2^62": tensor((1,), (1,), offset=2**62),
    "overflow": tensor((2**32, 2**32), (1, 1)),
    "empty-2^40": tensor((2**40, 0), (1, 1)),
    "empty-overflow": tensor((2**61, 2**61, 0), (1, 1, 1)),
    "sixty-five-dimensions": tensor((1,) * 65, (1,) * 65),
    "odd-strides": tensor((2, 2), (1,)),
    "list-of-sizes": tensor(b"](K\x04e", (1,)),
    "huge-length": tensor((4,), (1,), length=LONG),
    "text-length": tensor((4,), (1,), length=text("4")),
    "key-elsewhere": tensor((4,), (1,), key="../../../../etc/passwd"),
    "key-with-controls": tensor((4,), (1,), key="\x1b[2J\n" * 1000),
    "untyped-storage": tensor((4,), (1,), kind="UntypedStorage"),
    "complex-storage": tensor((4,), (1,), kind="ComplexFloatStorage"),
    "size-of-a-bomb": tensor(b"(" + b"N" * 100_000 + b"t", (1,)),
}
HEADS = (
    *("encoder.input_proj.0.conv.weight", "decoder.enc_score_head.weight"),
    *("decoder.dec_score_head.0.weight", "decoder.dec_score_head.0.bias"),
)


def tensors(corpus, state):
    for name, stream in TENSORS.items():
        data = b"}(" + b"".join(text(key) + stream for key in HEADS) + b"u"
        corpus.add(f"tensor-{name}", archive(holding(data), _0=b"\x00" * 16), build=True)
    views = b"}(" + b"".join(
        text(f"w{i}") + tensor((250_000,), (1,), length=250_000) for i in range(1000)
    )
    corpus.add("tensor-thousand-views", archive(holding(views + b"u"), _0=bytes(1_000_000)))
    points = b"}(" + b"".join(
        text(f"w{i}") + tensor((1,), (1,), length=8_000_000) for i in range(3000)
    )
    corpus.add("tensor-read-thrice-thousand", archive(holding(points + b"u"), _0=bytes(32_000_000)))
    for name, values in {"0": 0.0, "nan": float("nan"), "-1": -1.0, "inf": float("inf")}.items():
        scales = {"decoder.decoder.layers.0.cross_attn.num_points_scale": torch.full((3,), values)}
        corpus.add(f"scale-{name}", corpus.saved({**state, **scales}), "any", build=True)
    for name in list(state)[::16]:
        for shape in ((), (0,), (10**9, 0)):
            if shape != tuple(state[name].shape):
                changed = {**state, name: torch.zeros(shape)}
                corpus.add(
                    f"shape-{name}-{shape}", corpus.saved({"model": changed}), "any", build=True
                )
