"""What the kinds that write YAML share: odd values, odd syntax, odd bytes."""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

import yaml

ODD: tuple[Any, ...] = (
    None,
    "",
    "x",
    "x" * 5000,
    -1,
    0,
    1,
    2,
    3,
    1.5,
    1e30,
    1e-30,
    2**31,
    2**63,
    10**30,
    10**400,
    [],
    {},
    [[]],
    [None],
    [1, 2, 3, 4],
    ["a", "b", "c"],
    [[1, [2, [3]]]],
    {"a": 1},
    {1: 2, "b": {"c": []}},
    True,
    float("nan"),
    float("inf"),
    -float("inf"),
    "\x1b[31m\a",
    "\u202e\ufeff",
    "../../../../etc",
    "~nobody-here/x",
    "a/" * 3000,
    b"bytes",
    {"set"},
)
SYNTAX = (
    "[",
    "&a *a",
    "&a [*a]",
    "*a",
    "<<: *a",
    "<<: 3",
    "\0",
    "\x07",
    "\ufeff",
    "- {",
    "? [a, b]\n: 1\n",
    "? ",
    "!!int [1]",
    "!!int x",
    "!!bool x",
    "!!binary YQ==",
    "!!timestamp 2024-01-01",
    "!!set {a}",
    "!!python/object/apply:os.system [x]",
    "!<x> y",
    "%YAML 9.9\n---\n",
    "%TAG ! a\n---\n",
    "---\n",
    "...\n",
    "\t",
    '"\\0"',
    '"\\ud800"',
    '"\\UFFFFFFFF"',
    '"\\x"',
    "'",
    "|9\n x",
    ">-\n",
    "`",
    "@",
    "9" * 5000,
    "[" * 3000,
    "- " * 200,
    "{a: " * 100,
    "1e999",
    ".inf",
    "2024-01-01",
    "12:30:00",
    "\r",
    "\u2028",
)


def write_damaged(rng: random.Random, path: Path, values: dict[str, Any]) -> None:
    """Write values as YAML, some of them exchanged or the syntax or the bytes damaged."""
    for _ in range(rng.choice([0, 1, 1, 1, 2, 3])):
        _mutate(rng, values)
    text = yaml.dump(values, allow_unicode=rng.random() < 0.5, sort_keys=False)
    chance = rng.random()
    if chance < 0.2:
        text = _with_syntax(rng, text)
    elif chance < 0.23:
        text = text[: rng.randrange(len(text) + 1)]
    elif chance < 0.26:
        text = _bomb(rng) + text
    encoding = rng.choice(["utf-8"] * 40 + ["utf-16", "utf-8-sig"])
    content = text.encode(encoding, "surrogatepass")
    if chance > 0.96 and content:
        spot = rng.randrange(len(content))
        content = content[:spot] + rng.randbytes(rng.randint(1, 8)) + content[spot + 1 :]
    path.write_bytes(content)


def _mutate(rng: random.Random, values: Any) -> None:
    """Exchange, drop or repeat one value somewhere in a tree."""
    if not values:
        return
    key = rng.choice(list(values)) if isinstance(values, dict) else rng.randrange(len(values))
    inner, chance = values[key], rng.random()
    if isinstance(inner, dict | list) and inner and chance < 0.9:
        _mutate(rng, inner)
    elif chance < 0.93 or not isinstance(values, dict):
        values[key] = _near(rng, inner) if rng.random() < 0.7 else rng.choice(ODD)
    elif chance < 0.97:
        del values[key]
    else:
        values[rng.choice(["x", 1, "shapes", "origin", f"{key}s", "x" * 2000])] = inner


def _near(rng: random.Random, value: object) -> object:
    """Another value of the same type, which more often passes the first check."""
    if isinstance(value, bool):
        return not value
    if isinstance(value, int):
        return rng.choice(
            [1, 2, 3, 4, 5, 7, 8, 16, value + 1, value * 2, value * 1000, 10**6, -value]
        )
    if isinstance(value, float):
        return rng.choice([value * 10, value / 10, 0.0, 1.0, 0.3, 15.9, -value, 1e-20])
    if isinstance(value, str):
        return rng.choice([value.upper(), value[:-1], f"{value}/{value}", f" {value}", "a,b", "1"])
    return rng.choice([1, 0.5, True, "a", [1, 2]])


def _with_syntax(rng: random.Random, text: str) -> str:
    """Odd syntax at a random place, or instead of a value."""
    lines = text.split("\n")
    spot, odd = rng.randrange(len(lines)), rng.choice(SYNTAX)
    if rng.random() < 0.5:
        lines.insert(spot, odd)
    else:
        lines[spot] = lines[spot].partition(":")[0] + ": " + odd
    return "\n".join(lines)


def _bomb(rng: random.Random) -> str:
    """Aliases of aliases under keys that may be those of the file."""
    names = ["names", "train", "backbone", "decoder", "b", "c", "d", "e", "f"]
    rng.shuffle(names)
    first = f"{names[0]}: &a0 [{', '.join(['x'] * rng.randint(1, 12))}]\n"
    width = rng.randint(1, 12)
    rest = (
        f"{name}: &a{index} [{', '.join([f'*a{index - 1}'] * width)}]\n"
        for index, name in enumerate(names[1 : rng.randint(2, len(names))], 1)
    )
    return first + "".join(rest)
