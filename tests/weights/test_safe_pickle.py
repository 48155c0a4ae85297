from __future__ import annotations

import os
import pickle
import pickletools
import random
from collections import OrderedDict
from contextlib import suppress

import pytest

from rtdetr_cli.core.errors import WeightsError
from rtdetr_cli.weights.safe_pickle import Record, Reference, check_plain, load_inert

PLAIN = {
    "none": None,
    "truth": [True, False],
    "numbers": (0, -1, 255, 256, 70_000, 2**40, -(2**70), 0.5),
    "text": "käse",
    "bytes": b"\x00\xff",
    "nested": [{"a": ({},)}, [], ()],
    7: {"set": {1}, "frozen": frozenset({2})},
}


class Evil:
    """Asks the reader to run a command when it is opened."""

    def __init__(self, function, *arguments):
        self.asks_for = function, arguments

    def __reduce__(self):
        return self.asks_for


@pytest.mark.parametrize("protocol", range(2, 6))
def test_plain_values_equal_those_pickle_loads(protocol):
    expected = {**PLAIN, 7: {"set": [1], "frozen": [2]}}  # sets become lists
    tree = dict(PLAIN)
    if protocol == 2:
        del tree["bytes"], expected["bytes"]  # written as a call of _codecs.encode: a record
    assert load_inert(pickle.dumps(tree, protocol), "x.pt") == expected


def test_a_shared_list_stays_shared():
    shared = [1]
    first, second = load_inert(pickle.dumps([shared, shared], 2), "x.pt")
    assert first is second


def test_an_ordered_dict_with_attributes_becomes_a_dict():
    state = OrderedDict(a=1, b=2)
    state._metadata = {"": {"version": 1}}
    assert load_inert(pickle.dumps(state, 2), "x.pt") == {"a": 1, "b": 2}


@pytest.mark.parametrize(
    ("function", "arguments"),
    [
        (os.system, ("touch canary",)),
        (eval, ("open('canary', 'w')",)),
        (exec, ("open('canary', 'w')",)),
        (__import__, ("antigravity",)),
        (getattr, ("x", "upper")),
        (pickle.loads, (b"N.",)),
        (open, ("canary", "w")),
    ],
)
@pytest.mark.parametrize("protocol", [0, 2, 4])
def test_a_call_is_rejected_by_name_and_never_made(
    function, arguments, protocol, tmp_path, monkeypatch
):
    monkeypatch.chdir(tmp_path)
    stream = pickle.dumps({"model": Evil(function, *arguments)}, protocol)
    with pytest.raises(WeightsError, match=rf"wants \w+\.{function.__name__}, which no checkpoint"):
        load_inert(stream, "evil.pt")
    assert list(tmp_path.iterdir()) == []


def test_a_name_hidden_in_the_memo_is_rejected():
    stream = b"\x80\x04\x8c\x02os\x94\x8c\x06system\x940h\x00h\x01\x93."
    assert [op.name for op, *_ in pickletools.genops(stream)][-2:] == ["STACK_GLOBAL", "STOP"]
    with pytest.raises(WeightsError, match=r"evil\.pt wants os\.system"):
        load_inert(stream, "evil.pt")


def test_known_names_become_records_that_do_nothing():
    stream = (
        b"\x80\x02cultralytics.nn.tasks\nRTDETRDetectionModel\n)\x81}X\x01\x00\x00\x00aK\x05sb."
    )
    record = load_inert(stream, "x.pt")
    assert isinstance(record, Record)
    assert record.name == "ultralytics.nn.tasks.RTDETRDetectionModel"
    assert record.get("a") == 5
    assert record.get("b", 6) == 6


def test_a_name_alone_is_only_a_reference():
    assert load_inert(b"\x80\x02ctorch\nFloatStorage\n.", "x.pt") == Reference("torch.FloatStorage")


def test_a_name_cannot_have_state():
    stream = b"\x80\x02ctorch._utils\n_rebuild_tensor_v2\n}X\x08\x00\x00\x00__code__Nsb."
    with pytest.raises(WeightsError, match="damaged"):
        load_inert(stream, "x.pt")


@pytest.mark.parametrize(
    "stream",
    [
        b"]K\x00K\x01s.",  # a list
        b"](K\x00K\x01u.",
        b"ctorch._utils\n_rebuild_tensor_v2\n(NK\x00))tRK\x00K\x01s.",  # a tensor
    ],
)
def test_entries_are_set_on_dicts_only(stream):
    """On anything else they corrupt the memory of torch before 2.10 (CVE-2026-24747)."""
    with pytest.raises(WeightsError, match=r"damaged: .*entries for a (list|StoredTensor)"):
        load_inert(b"\x80\x02" + stream, "x.pt")


def test_deep_keys_are_rejected_before_hashing():
    stream = b"\x80\x02})" + b"\x85" * 100_000 + b"Ns."
    with pytest.raises(WeightsError, match="a key of type tuple"):
        load_inert(stream, "x.pt")


def test_every_truncation_is_a_one_line_error():
    stream = pickle.dumps(PLAIN, 2)
    for length in range(len(stream)):
        with pytest.raises(WeightsError, match=r"^x\.pt is damaged: .*"):
            load_inert(stream[:length], "x.pt")


def test_mutated_streams_load_or_are_rejected():
    stream = pickle.dumps({**PLAIN, "model": OrderedDict(a=1)}, 2)
    choice = random.Random(0)
    for _ in range(1000):
        mutated = bytearray(stream)
        for _ in range(choice.randint(1, 4)):
            mutated[choice.randrange(len(mutated))] = choice.randrange(256)
        with suppress(WeightsError):
            load_inert(bytes(mutated), "x.pt")


def test_getattr_is_allowed_only_for_forward_of_a_module():
    fused = b"\x80\x02c__builtin__\ngetattr\ncultralytics.nn.modules.conv\nConv\n)\x81X"
    own = load_inert(fused + b"\x0c\x00\x00\x00forward_fuse\x86R.", "x.pt")
    assert own.name == "builtins.getattr"
    with pytest.raises(WeightsError, match=r"x\.pt wants builtins\.getattr"):
        load_inert(fused + b"\x0b\x00\x00\x00__globals__\x86R.", "x.pt")


@pytest.mark.parametrize(
    "name",
    [
        "torch.nn.functional relu",
        "torch.nn.modules.module os.system",
        "torch.storage _load_from_bytes",
        "torch._utils _rebuild_sparse_tensor",
        "ultralytics.utils.downloads safe_download",
        "datetime sys",
    ],
)
def test_functions_of_known_modules_are_rejected(name):
    module, attribute = name.split()
    with pytest.raises(WeightsError, match=f"x.pt wants {module}.{attribute}, which no checkpoint"):
        load_inert(f"\x80\x02c{module}\n{attribute}\n.".encode("latin1"), "x.pt")


@pytest.mark.parametrize(
    "name",
    [
        "torch.nn.modules.activation SiLU",
        "torch.nn.parameter Parameter",
        "torch.storage UntypedStorage",
        "ultralytics.nn.modules.head RTDETRDecoder",
        "ultralytics.utils.loss v8DetectionLoss",
        "pathlib PosixPath",
        "pathlib._local PosixPath",
        "datetime datetime",
    ],
)
def test_classes_of_known_modules_become_references(name):
    module, attribute = name.split()
    found = load_inert(f"\x80\x02c{module}\n{attribute}\n.".encode("latin1"), "x.pt")
    assert found == Reference(f"{module}.{attribute}")


def test_a_tree_is_plain_however_often_it_is_shared():
    check_plain({"a": [1, 0.5, None, "text", (True,)]}, "x")
    laughs = []
    for _ in range(60):
        laughs = [laughs, laughs]
    for tree in (laughs, [0] * 10_001, "x" * 1001, 2**63, {1}, Reference("a")):
        with pytest.raises(WeightsError, match=r"^x (is larger than|holds)"):
            check_plain(tree, "x")
