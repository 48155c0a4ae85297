"""Build the settings of a mode from keys and values, a `cfg` file and a recipe."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, TypeVar

from rtdetr_cli.config.fields import (
    accepts,
    allowed_texts,
    field_types,
    parse,
    required_fields,
    unwrap,
)
from rtdetr_cli.config.foreign_values import (
    foreign_modes,
    is_foreign,
    is_foreign_file,
    is_foreign_switch,
    translate,
    without_defaults,
)
from rtdetr_cli.config.settings.modes import MODES
from rtdetr_cli.config.settings.shared import Settings
from rtdetr_cli.core.bounded_text import show, show_key
from rtdetr_cli.core.errors import UsageError, nearest

S = TypeVar("S", bound=Settings)
_EXAMPLES = {
    "source": ", an image, a folder or a pattern, for example source=bus.jpg",
    "data": ", a data set, for example data=coco8.yaml",
    "model": ", for example model=rtdetr-l.pt",
}
"""What to give for a required key."""


def settings_from_pairs(cls: type[S], pairs: Mapping[str, Any]) -> S:
    """Build the settings of a mode from keys and values; strings are parsed as the field's type.

    Keys and values of Ultralytics are translated, or refused with a reason (foreign_keys.py).

    Args:
        cls: the settings class of the mode.
        pairs: keys and values of the user. They override those of the YAML file `cfg`, which
            override those of `recipe`.

    Raises:
        UsageError: an unknown or missing key, a wrong type, a value out of range.
    """
    user = {key: unwrap(value) for key, value in pairs.items() if key != "cfg"}
    file = _file(cls, pairs.get("cfg"))
    context, origin = {**file, **user}, f"{pairs.get('cfg')}: "
    file = _known(cls, translate(cls.mode, file, context, origin), origin)
    user = _known(cls, translate(cls.mode, user, context), "")
    given = {**_recipe(cls, {**file, **user}), **file, **user}
    for key in required_fields(cls):
        if given.get(key) is None:
            example = _EXAMPLES.get(key, "")
            raise UsageError(
                f"{cls.mode} needs {key}={example}; `rtdetr {cls.mode} --help` lists all keys"
            )
    return cls(**given, given=frozenset(user))


def _file(cls: type[Settings], path: object) -> dict[str, Any]:
    """Read a file of `cfg`; of one of Ultralytics what differs from its default values."""
    if path is None or path == "":
        return {}
    if not isinstance(path, str | Path):
        raise UsageError(f"{cls.mode}: cfg must be the path of a YAML file, found {show(path)}")
    from rtdetr_cli.config.load import load_yaml  # yaml would slow --help

    values = load_yaml(path)
    return without_defaults(cls.mode, values, str(path)) if is_foreign_file(values) else values


def _recipe(cls: type[Settings], given: Mapping[str, Any]) -> dict[str, Any]:
    """Read the values of the recipe, unless all keys are given, as for a resumed run."""
    keys, recipe = field_types(cls).keys(), given.get("recipe")
    is_named = isinstance(recipe, str | Path) and recipe != ""
    if "recipe" not in keys or not is_named or not keys - given.keys():
        return {}
    from rtdetr_cli.config.load import load_recipe

    name, values = load_recipe(str(recipe))
    if "recipe" in values:
        raise UsageError(f"{name}: a recipe cannot name another recipe")
    return _known(cls, values, f"{name}: ")


def require_key(cls: type[Settings], key: str, origin: str = "") -> None:
    """Check that a mode has a key; the error names the nearest key or the modes that have it.

    Raises:
        UsageError: `key` is neither a key of `cls`, nor one that is translated, nor `cfg`.
    """
    if not is_foreign(cls.mode, key) and (key != "cfg" or origin):
        _require_own(cls, key, origin)


def is_switch(cls: type[Settings], key: str) -> bool:
    """Whether a key without a value means true."""
    hints = field_types(cls)
    return accepts(hints[key], bool) if key in hints else is_foreign_switch(key)


def _require_own(cls: type[Settings], key: str, origin: str) -> None:
    hints = field_types(cls)
    if key in hints:
        return
    owners = [mode for mode, other in MODES.items() if key in field_types(other)]
    hint = f"; it is one of {', '.join(owners)}" if owners else nearest(show_key(key), hints)
    if not owners and (elsewhere := foreign_modes(key)):
        hint = f"; Ultralytics uses it in {', '.join(elsewhere)}"
    raise UsageError(f"{origin}{show_key(key)} is not a key of {cls.mode}{hint}")


def _known(cls: type[Settings], values: Mapping[str, Any], origin: str) -> dict[str, Any]:
    """Check that the mode has the keys and parse their values; None is the default."""
    hints = field_types(cls)
    for key in values:
        _require_own(cls, key, origin)
    read = {key: _read(value, hints[key]) for key, value in values.items()}
    return {key: value for key, value in read.items() if not _is_default(value, hints[key])}


def _is_default(value: object, hint: object) -> bool:
    is_text = isinstance(value, str) and not accepts(hint, str)
    is_none = value is None or (is_text and str(value).lower() in {"none", "null"})
    return is_none and not accepts(hint, type(None))


def _read(value: object, hint: object) -> object:
    """Parse strings (`640`), and convert values to strings for string fields (`device: 0`)."""
    if value is False and any("off" in one.values for one in allowed_texts(hint)):
        return "off"  # YAML reads a bare off as false
    if isinstance(value, str):
        return parse(value, hint)
    if value is None or isinstance(value, bool) or not accepts(hint, str):
        return value
    if isinstance(value, int | float) and accepts(hint, float):
        return value
    items = value if isinstance(value, list | tuple) else [value]
    if any(isinstance(item, Mapping | list | tuple | set | None) for item in items):
        return value  # not a string; reported by the check of the field
    return ",".join(map(str, items))
