"""Convert plain values to typed dataclass fields, for architectures and settings.

The limits of a field are in its annotation: `Annotated[float, Range(0, 1)]`.
"""

from __future__ import annotations

import dataclasses
import math
import types
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, TypeVar, Union, get_args, get_origin, get_type_hints

from rtdetr_cli.core.bounded_text import show, show_key
from rtdetr_cli.core.errors import nearest

T = TypeVar("T")
_field_types: dict[type, dict[str, object]] = {}
_NAMES: dict[object, str] = {
    int: "a whole number",
    float: "a number",
    bool: "true or false",
    str: "a text",
}


@dataclass(frozen=True)
class Range:
    """Inclusive limits of a number; `besides` is a special value outside of the limits."""

    low: float | None = None
    high: float | None = None
    multiple_of: int | None = None
    besides: int | None = None

    def complaint(self, value: object) -> str | None:
        """Explain what is wrong with a value; None if it is valid."""
        if not isinstance(value, int | float) or isinstance(value, bool) or value == self.besides:
            return None
        if self.low is not None and not value >= self.low:
            more = "" if self.besides is None else f", or {self.besides}"
            return f"must be at least {_plain(self.low)}{more}"
        if self.high is not None and not value <= self.high:
            return f"must be at most {_plain(self.high)}"
        if self.multiple_of and value % self.multiple_of:
            close = max(1, round(value / self.multiple_of)) * self.multiple_of
            return f"must be a multiple of {self.multiple_of}, for example {close}"
        return None


def _plain(number: float) -> str:
    return str(int(number)) if number == int(number) else f"{number:g}"


@dataclass(frozen=True)
class OneOf:
    """The allowed values of a string; `refused` lists known other values with a reason."""

    values: tuple[str, ...]
    refused: tuple[tuple[str, str], ...] = ()

    def complaint(self, value: object) -> str | None:
        """Explain what is wrong with a value; None if it is valid."""
        if value in self.values:
            return None
        why = dict(self.refused).get(str(value))
        return f"must be one of {', '.join(self.values)}{f' ({why})' if why else ''}"


MAX_SIDE = 2**14
"""Limit in pixels of a side of the input; networks are trained at 640."""
ImageSize = Annotated[int | tuple[int, int], Range(32, MAX_SIDE, multiple_of=32)]
Fraction = Annotated[float, Range(0, 1)]
Count = Annotated[int, Range(1, 10**9)]
CountFromZero = Annotated[int, Range(0, 10**9)]
Batch = Annotated[int, Range(1, 2**16)]
Workers = Annotated[int, Range(0, 1024)]
Family = Annotated[str, OneOf(("dfine", "deim", "rtdetrv4"))]
BadImages = Annotated[str, OneOf(("error", "skip"))]
Queries = Annotated[int, Range(1, 2**14)]
NonNegative = Annotated[float, Range(0)]
Seconds = Annotated[float, Range(0.001, 1e6)]


class FieldError(Exception):
    """A value does not fit its field: `key` is the field, `complaint` ends the sentence."""

    def __init__(self, key: str, complaint: str) -> None:
        super().__init__(f"{key} {complaint}")
        self.key = key
        self.complaint = complaint


def field_types(cls: type) -> dict[str, object]:
    """Return the resolved annotation of every key, limits included."""
    if cls not in _field_types:  # cached: resolving takes milliseconds
        hints = get_type_hints(cls, include_extras=True)
        keys = (one.name for one in dataclasses.fields(cls) if one.metadata.get("is_key", True))
        _field_types[cls] = {key: hints[key] for key in keys}
    return _field_types[cls]


def required_fields(cls: type) -> list[str]:
    """Return the names of the fields without a default."""
    missing = dataclasses.MISSING
    return [
        field.name
        for field in dataclasses.fields(cls)
        if field.default is missing and field.default_factory is missing
    ]


def build(cls: type[T], values: object) -> T:
    """Build a (nested) dataclass from a (nested) mapping.

    Raises:
        FieldError: an unknown or missing key, a wrong type, a value out of range.
    """
    if not isinstance(values, Mapping):
        raise FieldError("", f"must be a mapping of keys, found {show(values)}")
    hints = field_types(cls)
    for key in values:
        if key not in hints:
            raise FieldError(show_key(key), f"is not a key{nearest(show_key(key), hints)}")
    for key in required_fields(cls):
        if key not in values:
            raise FieldError(key, "is missing")
    return cls(**{key: convert(key, value, hints[key]) for key, value in values.items()})


def convert(key: str, value: object, hint: object) -> object:
    """Convert a value to the type of its field.

    Lists become tuples, integers floats, one item a list of one, and numbers and arrays of NumPy
    and PyTorch those of Python.

    Raises:
        FieldError: the type is wrong or a limit is exceeded.
    """
    value = unwrap(value)
    if get_origin(hint) is Annotated:
        plain, *limits = get_args(hint)
        return _check_limits(key, convert(key, value, plain), limits)
    if get_origin(hint) in {Union, types.UnionType}:
        return _convert_union(key, value, get_args(hint))
    if get_origin(hint) is tuple:
        item, *_, last = get_args(hint)
        is_one = last is Ellipsis and type(value) in {int, float} and accepts(item, type(value))
        value = (value,) if is_one else value
        if isinstance(value, list | tuple | range):
            return _convert_tuple(key, value, hint)
    if isinstance(hint, type) and dataclasses.is_dataclass(hint) and not isinstance(value, hint):
        return _build_nested(key, value, hint)
    if hint is float and isinstance(value, int | float) and not isinstance(value, bool):
        return _finite(key, value)
    kind = get_origin(hint) or hint
    if isinstance(value, kind) and (kind is bool or not isinstance(value, bool)):  # type: ignore[arg-type]
        return value
    raise FieldError(key, f"must be {describe(hint)}, found {show(value)}")


def unwrap(value: object) -> object:
    """A number or an array of NumPy or PyTorch as a number or lists of Python; others are kept."""
    to_list = getattr(value, "tolist", None)
    return to_list() if callable(to_list) else value


def _finite(key: str, value: float) -> float:
    try:
        number = float(value)
    except OverflowError:  # an integer beyond 1e308
        number = math.inf
    if not math.isfinite(number):
        raise FieldError(key, f"must be a finite number, found {show(value)}")
    return number


def _build_nested(key: str, value: object, cls: type) -> object:
    try:
        return build(cls, value)
    except FieldError as error:
        raise FieldError(f"{key}.{error.key}".rstrip("."), error.complaint) from None


def _convert_union(key: str, value: object, members: tuple[object, ...]) -> object:
    if value is None and type(None) in members:
        return None
    plain = [member for member in members if member is not type(None)]
    errors = []
    for member in plain:
        try:
            return convert(key, value, member)
        except FieldError as error:
            errors.append(error)
    kinds = {int, float} if type(value) is int else {type(value)}
    of_kind = [
        error
        for member, error in zip(plain, errors, strict=True)
        if any(accepts(member, kind) for kind in kinds)
    ]
    if len(plain) == 1 or len(of_kind) == 1:  # the type fits, a limit does not
        raise (of_kind or errors)[0]
    described = " or ".join(map(describe, plain))
    raise FieldError(key, f"must be {described}, found {show(value)}")


def _convert_tuple(key: str, values: Sequence[object], hint: object) -> tuple[object, ...]:
    items = get_args(hint)
    if items[-1] is Ellipsis:
        items = items[:1] * len(values)
    if len(items) != len(values):
        raise FieldError(key, f"must be {describe(hint)}, found {show(values)}")
    return tuple(
        convert(f"{key}[{index}]", value, item)
        for index, (value, item) in enumerate(zip(values, items, strict=True))
    )


def _check_limits(key: str, value: object, limits: list[Range | OneOf]) -> object:
    for item in value if isinstance(value, tuple) else (value,):
        for limit in limits:
            complaint = None if item is None else limit.complaint(item)
            if complaint:
                explained = isinstance(limit, OneOf) and str(item) in dict(limit.refused)
                known = limit.values if isinstance(limit, OneOf) and not explained else ()
                raise FieldError(
                    key, f"{complaint}, found {show(value)}{nearest(show_key(item), known)}"
                )
    return value


def parse(text: str, hint: object) -> object:
    """Parse command line text as the type of its field; text that does not parse is kept."""
    kind, items = get_origin(hint), get_args(hint)
    if kind is Annotated:
        return parse(text, items[0])
    if kind in {Union, types.UnionType}:
        members = (member for member in items if member is not type(None))
        none = type(None) in items and text.lower() in {"none", "null"}
        parsed = (parse(text, member) for member in members)
        return None if none else next((v for v in parsed if not isinstance(v, str)), unquote(text))
    if kind is tuple:
        values = [parse(item.strip(), items[0]) for item in text.strip("[]()").split(",")]
        is_text = not accepts(items[0], str) and any(isinstance(value, str) for value in values)
        return text if is_text else tuple(values)
    if hint is bool:
        return {"true": True, "false": False}.get(text.lower(), text)
    try:
        return hint(text) if hint in {int, float} else unquote(text)
    except ValueError:
        return text


def unquote(text: str) -> str:
    """Remove one pair of quotes."""
    quoted = len(text) >= 2 and text[0] == text[-1] and text[0] in "'\""
    return text[1:-1] if quoted else text


def accepts(hint: object, kind: type) -> bool:
    """Whether a field accepts a value of type `kind`."""
    members = () if get_origin(hint) is tuple else get_args(hint)
    return hint is kind or any(accepts(member, kind) for member in members)


def allowed_texts(hint: object) -> list[OneOf]:
    """Return the `OneOf` limits of a field."""
    found = [item for item in get_args(hint) if isinstance(item, OneOf)]
    return [*found, *(one for item in get_args(hint) for one in allowed_texts(item))]


def describe(hint: object) -> str:
    """Describe a type for users: `a whole number`, `a list of 3 whole numbers`."""
    kind, items = get_origin(hint), get_args(hint)
    if kind is Annotated:
        return describe(items[0])
    if kind in {Union, types.UnionType}:
        return " or ".join(describe(item) for item in items if item is not type(None))
    if kind is tuple:
        number = "" if items[-1] is Ellipsis else f"{len(items)} "
        plurals = (f"{one.removeprefix('a ')}s" for one in describe(items[0]).split(" or "))
        return f"a list of {number}{' or '.join(plurals)}"
    return _NAMES.get(hint, "a mapping of keys")
