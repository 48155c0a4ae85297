"""Parse untrusted YAML with limits on depth, number of values and expanded aliases.

YAML 1.2 core schema (`1e-4` is a number, `no` and dates are strings): nulls, booleans, numbers,
strings, lists and mappings, nothing else.
"""

from __future__ import annotations

import re
from typing import Any

from yaml import (
    AliasEvent,
    CollectionNode,
    Event,
    MappingNode,
    MarkedYAMLError,
    Node,
    SafeLoader,
    ScalarNode,
    SequenceNode,
    YAMLError,
)
from yaml.reader import ReaderError

from rtdetr_cli.core.bounded_text import MAX_DEPTH, MAX_DIGITS, MAX_NODES, show, show_key

MAX_ALIASES = 1000
"""Limit of aliases (`*name`) per file."""

_TAG = "tag:yaml.org,2002:"
_PATTERNS = {
    "null": re.compile(r"~|null|Null|NULL|"),
    "bool": re.compile(r"true|True|TRUE|false|False|FALSE"),
    "int": re.compile(r"[-+]?[0-9]+"),
    "float": re.compile(
        r"[-+]?(\.[0-9]+|[0-9]+\.?[0-9]*)([eE][-+]?[0-9]+)?|[-+]?\.(inf|Inf|INF)|\.(nan|NaN|NAN)"
    ),
    "merge": re.compile(r"<<"),
    "str": re.compile(".*", re.DOTALL),
}
_UNPRINTABLE = re.compile("[\0\ud800-\udfff]")


class BrokenYamlError(ValueError):
    """Invalid YAML, or YAML beyond a limit; `line` counts from 1."""

    def __init__(self, problem: str, line: int | None = None) -> None:
        super().__init__(f"line {line}: {problem}" if line else problem)
        self.problem = problem
        self.line = line


def parse_yaml(text: str) -> Any:  # noqa: ANN401  (whatever it holds)
    """Decode one YAML document; aliases are copied, not shared.

    Raises:
        BrokenYamlError: it is invalid, exceeds a limit, or has a duplicate key or a custom tag.
    """
    try:
        root = _Composer(text).get_single_node()
        return None if root is None else _value(root)
    except BrokenYamlError:
        raise
    except ReaderError as error:
        line = text.count("\n", 0, error.position) + 1
        raise BrokenYamlError(f"U+{error.character:04X} is not allowed", line) from None
    except MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        problem = show_key(error.problem or error.context or "")
        raise BrokenYamlError(problem, mark.line + 1 if mark else None) from None
    except (YAMLError, ValueError, OverflowError, IndexError) as error:
        raise BrokenYamlError(show_key(str(error))) from None


class _Composer(SafeLoader):
    """Composes nodes without constructing values and checks each of them."""

    yaml_implicit_resolvers = {}  # noqa: RUF012  (typed by the base class)

    def __init__(self, text: str) -> None:
        super().__init__(text)
        self._depth = self._aliases = 0
        self._sizes: dict[int, int] = {}
        self._num_nodes = 0

    def compose_node(self, parent: Node | None, index: int) -> Node | None:
        """Compose a node and its children."""
        event: Event = self.peek_event()  # type: ignore[no-untyped-call]  # not in the stubs
        self._depth += 1
        self._aliases += isinstance(event, AliasEvent)
        self._num_nodes += 1
        _require(self._depth <= MAX_DEPTH, f"more than {MAX_DEPTH} levels deep", event)
        _require(self._aliases <= MAX_ALIASES, f"more than {MAX_ALIASES} aliases", event)
        _require(self._num_nodes <= MAX_NODES, f"more than {MAX_NODES} values", event)
        node = super().compose_node(parent, index)
        self._depth -= 1
        if isinstance(event, AliasEvent):
            _require(id(node) in self._sizes, f"*{event.anchor} refers to its own parent", event)
        elif node is not None:
            _check(node)
            self._sizes[id(node)] = self._size(node)
        return node

    def _size(self, node: Node) -> int:
        """Count the values of a node with aliases expanded."""
        if not isinstance(node, CollectionNode):
            return 1
        pairs = node.value if isinstance(node, MappingNode) else [(item,) for item in node.value]
        size = 1 + sum(self._sizes[id(item)] for pair in pairs for item in pair)
        _require(size <= MAX_NODES, f"aliases expand to more than {MAX_NODES} values", node)
        return size


for _name, _first in (
    ("null", ["~", "n", "N", ""]),
    ("bool", list("tTfF")),
    ("int", list("-+0123456789")),
    ("float", list("-+.0123456789")),
    ("merge", ["<"]),
):
    _whole = re.compile(f"^(?:{_PATTERNS[_name].pattern})$")
    _Composer.add_implicit_resolver(f"{_TAG}{_name}", _whole, _first)


def _require(holds: bool, problem: str, place: Node | Event) -> None:
    if not holds:
        mark = place.start_mark
        raise BrokenYamlError(problem, mark.line + 1 if mark else None)


def _check(node: Node) -> None:
    """Reject a tag that does not fit its node, a number that is too long, a duplicate key."""
    tag = node.tag.removeprefix(_TAG)
    if isinstance(node, SequenceNode):
        _require(tag == "seq", f"the tag {show_key(tag)} is not supported", node)
    elif isinstance(node, MappingNode):
        _require(tag == "map", f"the tag {show_key(tag)} is not supported", node)
        _check_keys(node)
    else:
        _require(tag in _PATTERNS, f"the tag {show_key(tag)} is not supported", node)
        text = node.value
        _require(bool(_PATTERNS[tag].fullmatch(text)), f"{show(text)} is not a valid {tag}", node)
        _require(
            not _UNPRINTABLE.search(text), f"{show(text)} contains NUL or a lone surrogate", node
        )
        is_short = tag != "int" or len(text.lstrip("-+").lstrip("0")) <= MAX_DIGITS
        _require(is_short, f"{show_key(text)} has more than {MAX_DIGITS} digits", node)


def _check_keys(node: MappingNode) -> None:
    """Require unique keys, strings or integers; YAML would silently use the last one."""
    seen = set()
    for key, _ in node.value:
        is_plain = isinstance(key, ScalarNode) and key.tag.removeprefix(_TAG) in _KEY_TAGS
        _require(is_plain, "a key must be a text or a whole number", key)
        value = _scalar(key)
        _require(value not in seen, f"{show_key(value)} is a duplicate key", key)
        seen.add(value)


_KEY_TAGS = {"str", "int", "merge"}


def _value(node: Node) -> Any:  # noqa: ANN401  (whatever it holds)
    if isinstance(node, SequenceNode):
        return [_value(item) for item in node.value]
    return _mapping(node) if isinstance(node, MappingNode) else _scalar(node)


def _mapping(node: MappingNode) -> dict[str | int, Any]:
    """Keys and values; the mapping's own keys override those of `<<`."""
    merged: dict[str | int, Any] = {}
    for key, value in node.value:
        if key.tag == f"{_TAG}merge":
            sources = value.value if isinstance(value, SequenceNode) else [value]
            for source in reversed(sources):
                is_mapping = isinstance(source, MappingNode)
                _require(is_mapping, "<< needs a mapping or a list of mappings", key)
                merged |= _mapping(source)
    own = {_scalar(key): _value(value) for key, value in node.value if key.tag != f"{_TAG}merge"}
    return {**merged, **own}


def _scalar(node: Node) -> Any:  # noqa: ANN401  (whatever it holds)
    text: str = node.value
    match node.tag.removeprefix(_TAG):
        case "null":
            return None
        case "bool":
            return text.lower() == "true"
        case "int":
            return int(text)
        case "float":
            return float(text.lower().replace(".inf", "inf").replace(".nan", "nan"))
        case _:
            return text
