"""Class indices for the names or indices that a user gives as `classes=`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from rtdetr_cli.core.errors import UsageError, nearest


def class_indices(
    wanted: Sequence[int | str], names: Mapping[int, str], owner: str, key: str = "classes"
) -> list[int]:
    """Find classes by name or index; a class that is named like a number is found by its name.

    Args:
        wanted: names or indices.
        names: class index to name.
        owner: what has these classes, for the error, e.g. "data set".
        key: of the command, likewise.

    Raises:
        UsageError: one is neither a name nor an index.
    """
    backwards = reversed(list(names.items()))  # so that the first of two equal names wins
    index_of = {name: index for index, name in backwards}
    return [
        _index(one, index_of, names, f"{key}: {one} is neither a class of the {owner}")
        for one in wanted
    ]


def _index(
    one: int | str, index_of: Mapping[str, int], names: Mapping[int, str], complaint: str
) -> int:
    if str(one) in index_of:
        return index_of[str(one)]
    if isinstance(one, int) and one in names:
        return one
    shown = ", ".join(list(names.values())[:3]) + (", ..." if len(names) > 3 else "")
    raise UsageError(
        f"{complaint} ({shown}) nor an index from 0 to "
        f"{max(names, default=0)}{nearest(str(one), index_of)}"
    )
