"""YAML from outside: the core schema, and every limit."""

from __future__ import annotations

import pytest

from rtdetr_cli.core.bounded_yaml import MAX_ALIASES, BrokenYamlError, parse_yaml


def bomb(levels: int) -> str:
    """Aliases that expand to 10^levels strings."""
    lines = ["a0: &a0 [" + ",".join(["lol"] * 10) + "]"]
    lines += [f"a{n}: &a{n} [" + ",".join([f"*a{n - 1}"] * 10) + "]" for n in range(1, levels)]
    return "\n".join(lines)


def test_merged_keys_lose_against_the_mappings_own_whatever_its_depth() -> None:
    text = "b: &b {k: 1, l: 2}\nx: {y: &a {<<: *b, k: 3}}\nc: {<<: [*a, *b], m: 4}\n"
    found = parse_yaml(text)
    assert found["x"]["y"] == {"k": 3, "l": 2}
    assert found["c"] == {"k": 3, "l": 2, "m": 4}


def test_a_modest_number_of_aliases_is_read() -> None:
    assert parse_yaml(bomb(3))["a2"][9][9][9] == "lol"
    assert parse_yaml("- &a [x]\n" + "- *a\n" * MAX_ALIASES)[-1] == ["x"]


def test_numbers_are_numbers() -> None:
    text = "[1, -0123, 1e-4, .5, +.inf, !!float 5, !!str 5, 1_000, 0x10, 2024-01-01]"
    found = parse_yaml(text)
    infinite = float("inf")
    assert found == [1, -123, 1e-4, 0.5, infinite, 5.0, "5", "1_000", "0x10", "2024-01-01"]


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        (bomb(10), "line 5: aliases expand to more than 100000 values"),
        ("x: " + "[" * 3000 + "]" * 3000, "line 1: more than 32 levels deep"),
        ("- " * 3000, "line 1: more than 32 levels deep"),
        ("a: &a 1\nb: [" + "*a, " * 1001 + "]", "line 2: more than 1000 aliases"),
        ("a: &a [*a]", "line 1: *a refers to its own parent"),
        ("a: &a {<<: *a}", "line 1: *a refers to its own parent"),
        ("? [a, b]\n: 1", "line 1: a key must be a text or a whole number"),
        ("? {a: b}\n: 1", "line 1: a key must be a text or a whole number"),
        ("~: 1", "line 1: a key must be a text or a whole number"),
        ("x: !!int [1]", "line 1: the tag int is not supported"),
        ("x: !!int abc", "line 1: 'abc' is not a valid int"),
        ("x: !!bool maybe", "line 1: 'maybe' is not a valid bool"),
        ("x: !!binary YQ==", "line 1: the tag binary is not supported"),
        ("x: !!timestamp 2024-01-01", "line 1: the tag timestamp is not supported"),
        ("x: !!set {a}", "line 1: the tag set is not supported"),
        ("x: !!python/name:os.system", "line 1: the tag python/name:os.system is not supported"),
        ("x: " + "9" * 5000, "has more than 100 digits"),
        ("a: 1\nb: 2\na: 3", "line 3: a is a duplicate key"),
        ("{1: a, 01: b}", "line 1: 1 is a duplicate key"),
        ("a: &a {}\nb: {<<: *a, <<: *a}", "line 2: << is a duplicate key"),
        ("a: {<<: 3}", "line 1: << needs a mapping or a list of mappings"),
        ("a: 1\nb: \0", "line 2: U+0000 is not allowed"),
        ('a: "\\0"', "line 1: '\\x00' contains NUL or a lone surrogate"),
        ('a: "\\ud800"', "line 1: '\\ud800' contains NUL or a lone surrogate"),
        ("a: 1\n---\nb: 2", "line 2: but found another document"),
        ("a: *b", "line 1: found undefined alias 'b'"),
    ],
)
def test_what_is_not_read_is_named_with_its_line(text: str, sentence: str) -> None:
    with pytest.raises(BrokenYamlError) as caught:
        parse_yaml(text)
    assert sentence in str(caught.value)


def test_the_number_of_values_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("rtdetr_cli.core.bounded_yaml.MAX_NODES", 1000)
    assert len(parse_yaml("[" + "a," * 999 + "]")) == 999
    with pytest.raises(BrokenYamlError, match="more than 1000 values"):
        parse_yaml("[" + "a," * 100_000 + "]")
