"""The help pages, generated from the settings and the docstrings under their fields."""

from __future__ import annotations

import ast
import dataclasses
import inspect
import shutil
import sys
import textwrap
import types
from collections import ChainMap
from functools import cache
from itertools import pairwise
from typing import Annotated, Union, get_args, get_origin

from rtdetr_cli.config.fields import OneOf, Range, field_types, required_fields
from rtdetr_cli.config.settings.shared import Settings

GENERATED = "generated from rtdetr_cli/config/settings/ by `python -m rtdetr_cli.cli.generate`"
_WIDEST_TYPE = 40
_TYPES: dict[object, str] = {int: "int", float: "float", bool: "bool", str: "text"}


@dataclasses.dataclass(frozen=True)
class Key:
    """One row of a help page or of docs/settings.md."""

    name: str
    type: str
    default: str
    text: str


def keys_by_group(cls: type[Settings]) -> dict[str, list[Key]]:
    """Group the keys of a mode by help page heading.

    The headings of a class precede those of its bases; below a heading, inherited keys come first.
    """
    docs, required, hints = _field_docs(cls), required_fields(cls), field_types(cls)
    starts = ChainMap(*(base.groups for base in _settings_bases(cls)))
    headings = [heading for base in _settings_bases(cls) for heading in base.groups.values()]
    groups: dict[str, list[Key]] = {heading: [] for heading in headings}
    heading = ""
    for field in dataclasses.fields(cls):
        if field.name in hints:
            heading = starts.get(field.name, heading)
            default = "required" if field.name in required else _show(field.default)
            kind = _short_type(hints[field.name])
            groups[heading].append(Key(field.name, kind, default, docs[field.name]))
    return groups


def mode_help(cls: type[Settings], examples: tuple[str, ...], width: int | None = None) -> str:
    """Return the page of `rtdetr MODE --help`."""
    width = width or max(80, shutil.get_terminal_size((100, 24)).columns)
    groups = keys_by_group(cls)
    keys = [key for group in groups.values() for key in group]
    widths = [max(len(getattr(key, part)) for key in keys) for part in ("name", "type", "default")]
    lines = [f"rtdetr {cls.mode} key=value ...", "", inspect.cleandoc(cls.__doc__ or "")]
    for heading, group in groups.items():
        lines += ["", heading]
        for key in group:
            columns = zip((key.name, key.type, key.default), widths, strict=True)
            start = "  " + "".join(text.ljust(size + 2) for text, size in columns)
            lines += textwrap.wrap(
                key.text, width, initial_indent=start, subsequent_indent=" " * len(start)
            )
    lines += [
        "",
        "Any mode: cfg=my.yaml reads keys from a file; keys on the command line override it.",
    ]
    return "\n".join([*lines, "", "Examples", *(f"  {example}" for example in examples)])


def overview(modes: dict[str, type[Settings]], commands: dict[str, str]) -> str:
    """Return the page of `rtdetr --help`; `commands` are name and text of all that is no mode."""
    width = max(map(len, [*modes, *commands])) + 2
    return "\n".join(
        [
            "rtdetr MODE key=value ...",
            "",
            "RT-DETR, the NMS-free real-time detection transformer.",
            "",
            "Modes",
            *(f"  {mode.ljust(width)}{cls.__doc__}" for mode, cls in modes.items()),
            "",
            "Also",
            *(f"  {name.ljust(width)}{text}" for name, text in commands.items()),
            "",
            "`rtdetr MODE --help` lists the keys of a mode, `rtdetr --version` prints the version.",
            "A key may be given as key=value, --key value or --key=value; a bare key means true.",
        ]
    )


def settings_yaml(cls: type[Settings]) -> str:
    """Return the default settings of a mode as a YAML file with comments."""
    lines = [
        f"# Defaults of `rtdetr {cls.mode}`; use a copy with other values by cfg=my.yaml.",
        f"# {GENERATED.capitalize()}.",
    ]
    for heading, keys in keys_by_group(cls).items():
        lines += ["", f"# {heading}"]
        for key in keys:
            value = {"None": "null", "required": "null"}.get(key.default, key.default)
            needed = "Required. " if key.default == "required" else ""
            lines.append(f"{f'{key.name}: {value}':<26}# {needed}{key.text}")
    return "\n".join(lines) + "\n"


def _field_docs(cls: type[Settings]) -> dict[str, str]:
    """Read the docstring under each field, which Python keeps in the source only.

    A field that a subclass declares again without a docstring keeps that of the base.
    """
    docs = {}
    for base in reversed(_settings_bases(cls)):
        for field, text in pairwise(_definitions(base.__module__)[base.__name__].body):
            match field, text:
                case (
                    ast.AnnAssign(target=ast.Name(id=key)),
                    ast.Expr(value=ast.Constant(value=str(words))),
                ):
                    docs[key] = " ".join(words.split())
    return docs


def _settings_bases(cls: type[Settings]) -> list[type[Settings]]:
    """The class and its bases that are settings, in method resolution order."""
    return [base for base in cls.__mro__ if issubclass(base, Settings)]


@cache
def _definitions(module: str) -> dict[str, ast.ClassDef]:
    statements = ast.parse(inspect.getsource(sys.modules[module])).body
    return {node.name: node for node in statements if isinstance(node, ast.ClassDef)}


def _show(default: object) -> str:
    return str(default).lower() if isinstance(default, bool) else str(default)


def _short_type(hint: object) -> str:
    kind, items = get_origin(hint), get_args(hint)
    if kind is Annotated:
        return _limited_type(*items)
    if kind in {Union, types.UnionType}:
        return " or ".join(_short_type(item) for item in items if item is not type(None))
    if kind is tuple:
        many = "h,w" if len(items) == 2 else f"{len(items)} numbers"
        return "list" if items[-1] is Ellipsis else many
    return _TYPES[hint]


def _limited_type(plain: object, limit: Range | OneOf) -> str:
    if isinstance(limit, OneOf):
        values = " or ".join(limit.values)
        return values if len(values) <= _WIDEST_TYPE else "name"  # listed in the text
    is_wide = limit.high is None or limit.high >= 10**6  # effectively no limit
    return _short_type(plain) + ("" if is_wide else f" {limit.low:g}..{limit.high:g}")
