"""Read the pickle streams of checkpoints without executing any code in them.

A pickle is a small program. Python's unpicklers run it with real classes and functions; this one
runs it on a stack of inert values: a name becomes a `Reference`, an object a `Record` with its
state, a tensor a `StoredTensor` that describes the location of its bytes. Nothing is imported or
called. archive.py reads the tensors.

Memory and time are bounded: every opcode is charged for what it may allocate, and none formats,
hashes or copies a value of unchecked size.
"""

from __future__ import annotations

import pickletools
import re
import sys
import warnings
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, NoReturn, TypeAlias

from rtdetr_cli.core.errors import WeightsError, printable

Inert: TypeAlias = Any
"""A tree of plain values, lists, tuples, dicts, `Reference`, `Record` and `StoredTensor`."""

MAX_PICKLE_BYTES = 8 * 2**20
"""The pickle of a module with 950 tensors takes 0.26 MB."""

MAX_TREE_BYTES = 48 * 2**20
"""Memory limit of a tree; that module takes 6.5 MB."""

MAX_PLAIN_NODES = 10_000
MAX_PLAIN_DEPTH = 32
MAX_PLAIN_TEXT = 1000

# Names that a stream may contain. They become references and records and are never run. Of
# torch.nn, torch.storage and ultralytics only classes (a capital letter in the last part).
_KNOWN_NAMES = re.compile(
    r"torch\.(\w+Storage|Size|Tensor|device|dtype|b?float\d+|u?int\d+|bool)"
    r"|torch\._utils\._rebuild_(tensor(_v2)?|parameter(_with_state)?)"
    r"|torch\.nn\.(modules\.\w+\.|parameter\.)?\w*[A-Z]\w*"
    r"|torch\.storage\.\w*Storage"
    r"|torch\._tensor\._rebuild_from_type_v2"
    r"|ultralytics(\.\w+)*\.\w*[A-Z]\w*"
    r"|collections\.(OrderedDict|defaultdict)"
    r"|builtins\.(set|frozenset|list|dict|tuple|slice|int|float|bool|str|complex|bytes|bytearray)"
    r"|builtins\.getattr"  # a bound method of a fused module; see `_is_own_method`
    r"|pathlib(\._local)?\.\w*Path"
    r"|datetime\.(datetime|date|time|timedelta|timezone)"
    r"|argparse\.Namespace"
    r"|types\.SimpleNamespace"
    r"|_codecs\.encode"
    r"|numpy\.(dtype|ndarray|_?core\.multiarray\.(scalar|_reconstruct))"
)


@dataclass(frozen=True)
class Reference:
    """A class or function named in the stream."""

    name: str


@dataclass(slots=True)
class Record:
    """An object of a third-party class: class name, constructor arguments, state."""

    name: str
    arguments: tuple[Any, ...] = field(default=(), repr=False)
    state: Any = field(default=None, repr=False)

    def get(self, key: str, default: Inert = None) -> Inert:
        """An attribute of the object."""
        return self.state.get(key, default) if isinstance(self.state, dict) else default


@dataclass(frozen=True, repr=False, eq=False)
class StoredTensor:
    """A tensor as described in the stream, unchecked; archive.py checks it against the file."""

    storage: Any
    offset: Any
    size: Any
    stride: Any


def shown(value: Inert) -> str:
    """Format a value of a tree for a message: a short text, or the name of its type."""
    if isinstance(value, str):
        return printable(value, 60)
    if value is None or isinstance(value, float) or (isinstance(value, int) and fits(value)):
        return str(value)
    return f"a {type(value).__name__} there"


def fits(value: Inert) -> bool:
    """Whether a value is an integer of at most 64 bits; Python integers are unbounded."""
    return isinstance(value, int) and -(2**63) <= value < 2**63


def check_plain(tree: Inert, what: str, max_text: int = MAX_PLAIN_TEXT) -> None:
    """Check that a tree is small and plain, counting shared nodes each time they occur.

    Raises:
        WeightsError: `what` is deep, large, or contains values that YAML does not have.
    """
    waiting, count = [(tree, 0)], 0
    while waiting:
        node, depth = waiting.pop()
        inner = node.values() if isinstance(node, dict) else node
        if isinstance(node, dict | list | tuple):
            count += len(node)
            if count > MAX_PLAIN_NODES or depth > MAX_PLAIN_DEPTH:
                raise WeightsError(f"{what} is larger than any that rtdetr writes")
            waiting.extend((value, depth + 1) for value in inner)
        elif not (
            node is None
            or isinstance(node, float)
            or fits(node)
            or (isinstance(node, str) and len(node) <= max_text)
        ):
            raise WeightsError(f"{what} holds {shown(node)}, which rtdetr never writes")


def load_inert(stream: bytes, origin: str, limit: int = MAX_PICKLE_BYTES) -> Inert:
    """Read a pickle stream into a tree of plain values, containers, records and stored tensors.

    Args:
        stream: the pickle.
        origin: the file's name, for messages.
        limit: maximum size of the stream in bytes.

    Raises:
        WeightsError: The stream is damaged, or names something that no checkpoint needs.
    """
    if len(stream) > limit:
        raise WeightsError(f"{origin}: its pickle has {len(stream)} bytes, more than any model has")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # pickletools warns about escapes in damaged names
            # A larger limit is for files whose pickle contains the weights.
            budget = MAX_TREE_BYTES + (len(stream) if limit > MAX_PICKLE_BYTES else 0)
            return _Machine(origin, budget).run(stream)
    except (ValueError, IndexError, KeyError, TypeError, OverflowError) as error:
        raise WeightsError(f"{origin} is damaged: its pickle stream is invalid ({error})") from None


class _Machine:
    """The pickle stack machine (PEP 307, PEP 3154) on inert values."""

    def __init__(self, origin: str, budget: int) -> None:
        self.origin = origin
        self.stack: list[Any] = []
        self.frames: list[list[Any]] = []  # stacks saved by MARK
        self.memo: dict[int, Any] = {}
        self.unspent = budget  # bytes left for the tree

    def run(self, stream: bytes) -> Inert:
        """Execute the stream up to STOP."""
        for opcode, argument, _ in pickletools.genops(stream):
            name = opcode.name
            self.charge(_COSTS.get(name, _LEAST_COST))
            if name in _TEXTS:
                self.charge(
                    sys.getsizeof(argument)
                )  # CPython stores every letter as wide as the widest
            if name in _CONSTANTS:
                self.push(_CONSTANTS[name])
            elif name in _VALUES:
                self.push(argument)
            elif name == "STOP":
                break
            elif name in _ACTIONS:
                _ACTIONS[name](self, argument)
            elif name not in {"PROTO", "FRAME"}:
                raise WeightsError(
                    f"{self.origin} holds the pickle opcode {name}, which is not supported"
                )
        return self.stack.pop()

    def charge(self, count: int) -> None:
        """Charge the bytes that an opcode may allocate."""
        self.unspent -= count
        if self.unspent < 0:
            raise WeightsError(f"{self.origin}: its pickle expands to more than any model needs")

    def push(self, value: Inert) -> None:
        self.stack.append(value)

    def mark(self, _: object) -> None:
        self.frames.append(self.stack)
        self.stack = []

    def since_mark(self) -> list[Any]:
        items, self.stack = self.stack, self.frames.pop()
        return items

    def pop(self, count: int) -> tuple[Any, ...]:
        items = tuple(self.stack.pop() for _ in range(count))
        return items[::-1]

    def put(self, index: int | None) -> None:
        index = len(self.memo) if index is None else int(index)
        if not 0 <= index < 2**32:  # larger ones can be made to collide
            raise ValueError("a memo index out of range")
        self.memo[index] = self.stack[-1]

    def get(self, index: int) -> None:
        if int(index) not in self.memo:
            raise ValueError("a memo index that was never stored")
        self.push(self.memo[int(index)])

    def extend(self, items: list[Any]) -> None:
        target = self.stack[-1]
        if not isinstance(target, list):
            raise TypeError(f"items for a {type(target).__name__}")
        target.extend(items)

    def set_items(self, items: list[Any]) -> None:
        target = self.stack[-1]
        if not isinstance(target, dict):
            raise TypeError(f"entries for a {type(target).__name__}")
        target.update(_pairs(items))

    def name(self, name: str) -> None:
        module, _, attribute = name.partition(" ")
        module = "builtins" if module == "__builtin__" else module
        full = f"{module}.{attribute}"
        if not _KNOWN_NAMES.fullmatch(full):
            self.refuse(full)
        self.push(Reference(full))

    def refuse(self, name: str) -> NoReturn:
        raise WeightsError(
            f"{self.origin} wants {printable(name, 120)}, which no checkpoint needs; "
            "nothing in it was run"
        )

    def stack_name(self, _: object) -> None:
        module, attribute = self.pop(2)
        if not isinstance(module, str) or not isinstance(attribute, str):
            raise TypeError("a name is not a string")
        self.name(f"{module} {attribute}")

    def call(self, _: object) -> None:
        function, arguments = self.pop(2)
        if not isinstance(function, Reference) or not isinstance(arguments, tuple):
            raise TypeError("a call of something that is not a name")
        if function.name == "builtins.getattr" and not _is_own_method(arguments):
            self.refuse(function.name)
        rebuild = _REBUILDERS.get(function.name)
        made = rebuild(*arguments) if rebuild else Record(function.name, arguments)
        if isinstance(made, list | tuple | dict):
            self.charge(
                _COSTS["PUT"] * len(made)
            )  # copied again each time it is fetched from the memo
        self.push(made)

    def build(self, _: object) -> None:
        target, state = self.pop(2)
        if isinstance(target, Record):
            target.state = state
        elif not isinstance(
            target, dict | StoredTensor
        ):  # the `_metadata` of state dicts is unused
            raise TypeError(f"a state for a {type(target).__name__}")
        self.push(target)


def _is_own_method(arguments: tuple[Any, ...]) -> bool:
    """Whether this is `module.forward_fuse`, which fused Ultralytics modules contain.

    The call becomes a record like any other.
    """
    match arguments:
        case (Record(name=owner), str(method)):
            return owner.startswith("ultralytics.") and method.startswith("forward")
    return False


def _pairs(items: list[Any]) -> dict[Any, Any]:
    """A dict from alternating keys and values.

    Only plain keys: hashing a deep tuple is unbounded, and large integers can be chosen to collide,
    which takes hours.
    """
    keys, values = items[::2], items[1::2]
    for key in keys:
        if not isinstance(key, str | float | None) and not fits(key):
            raise TypeError(f"a key of type {type(key).__name__}")
    return dict(zip(keys, values, strict=True))


def _ordered_dict(entries: Inert = ()) -> dict[Any, Any]:
    return _pairs([part for key, value in _items(entries) for part in (key, value)])


def _items(entries: Inert) -> list[Any]:
    """A copy of a list or tuple, no larger than a container that the tree already has."""
    if not isinstance(entries, list | tuple):
        raise TypeError(f"a {type(entries).__name__} instead of a list")
    return list(entries)


def _tensor(storage: Inert, offset: Inert, size: Inert, stride: Inert, *_: Inert) -> StoredTensor:
    return StoredTensor(storage, offset, size, stride)


# Calls with a result of ours; a call of any other known name becomes a record.
_REBUILDERS: dict[str, Callable[..., Any]] = {
    "collections.OrderedDict": _ordered_dict,
    "builtins.set": lambda items=(): _items(items),
    "builtins.frozenset": lambda items=(): _items(items),
    "torch.Size": lambda items=(): tuple(_items(items)),
    "torch._utils._rebuild_tensor": _tensor,
    "torch._utils._rebuild_tensor_v2": _tensor,
    "torch._utils._rebuild_parameter": lambda data, *_: data,
    "torch._utils._rebuild_parameter_with_state": lambda data, *_: data,
}

_CONSTANTS = {"NONE": None, "NEWTRUE": True, "NEWFALSE": False}

_TEXTS = frozenset(
    {"STRING", "BINSTRING", "SHORT_BINSTRING"}
    | {"UNICODE", "BINUNICODE", "SHORT_BINUNICODE", "BINUNICODE8"}
)

_VALUES = _TEXTS | frozenset(
    {"INT", "BININT", "BININT1", "BININT2", "LONG", "LONG1", "LONG4", "FLOAT", "BINFLOAT"}
    | {"BINBYTES", "SHORT_BINBYTES", "BINBYTES8"}
)

# Upper bounds of what CPython allocates per opcode, including growth of tables.
_LEAST_COST = 40
_COSTS = {
    **dict.fromkeys(("PUT", "BINPUT", "LONG_BINPUT", "MEMOIZE"), 104),
    **dict.fromkeys(("MARK", "EMPTY_LIST", "EMPTY_DICT", "EMPTY_SET"), 88),
    **dict.fromkeys(("TUPLE1", "TUPLE2", "TUPLE3", "REDUCE", "NEWOBJ"), 88),
}

_ACTIONS: dict[str, Callable[[_Machine, Any], Any]] = {
    "MARK": _Machine.mark,
    "POP": lambda machine, _: machine.pop(1),
    "POP_MARK": lambda machine, _: machine.since_mark(),
    "DUP": lambda machine, _: machine.push(machine.stack[-1]),
    "EMPTY_LIST": lambda machine, _: machine.push([]),
    "EMPTY_DICT": lambda machine, _: machine.push({}),
    "EMPTY_SET": lambda machine, _: machine.push([]),
    "EMPTY_TUPLE": lambda machine, _: machine.push(()),
    "TUPLE1": lambda machine, _: machine.push(machine.pop(1)),
    "TUPLE2": lambda machine, _: machine.push(machine.pop(2)),
    "TUPLE3": lambda machine, _: machine.push(machine.pop(3)),
    "TUPLE": lambda machine, _: machine.push(tuple(machine.since_mark())),
    "LIST": lambda machine, _: machine.push(machine.since_mark()),
    "FROZENSET": lambda machine, _: machine.push(machine.since_mark()),
    "DICT": lambda machine, _: machine.push(_pairs(machine.since_mark())),
    "APPEND": lambda machine, _: machine.extend(list(machine.pop(1))),
    "APPENDS": lambda machine, _: machine.extend(machine.since_mark()),
    "ADDITEMS": lambda machine, _: machine.extend(machine.since_mark()),
    "SETITEM": lambda machine, _: machine.set_items(list(machine.pop(2))),
    "SETITEMS": lambda machine, _: machine.set_items(machine.since_mark()),
    "PUT": _Machine.put,
    "BINPUT": _Machine.put,
    "LONG_BINPUT": _Machine.put,
    "MEMOIZE": _Machine.put,
    "GET": _Machine.get,
    "BINGET": _Machine.get,
    "LONG_BINGET": _Machine.get,
    "GLOBAL": _Machine.name,
    "STACK_GLOBAL": _Machine.stack_name,
    "REDUCE": _Machine.call,
    "NEWOBJ": _Machine.call,
    "BUILD": _Machine.build,
    "BINPERSID": lambda machine, _: None,  # the tuple that describes the storage stays on the stack
}
