"""The order of severities, which check and its page follow."""

from rtdetr_cli.core.findings import Severity


def test_severities_are_listed_with_the_worst_first() -> None:
    assert [one.value for one in Severity] == ["error", "warning", "note"]
