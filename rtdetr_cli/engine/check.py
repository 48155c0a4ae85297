"""`rtdetr check`: find what is wrong with a data set, before training."""

from __future__ import annotations

from rtdetr_cli.config.settings.check import CheckSettings
from rtdetr_cli.config.settings.modes import size_hw
from rtdetr_cli.core.errors import DataError
from rtdetr_cli.core.findings import Finding, Severity
from rtdetr_cli.data.checks.files import check_images, check_label_files
from rtdetr_cli.data.checks.labels import check_labels
from rtdetr_cli.data.checks.splits import check_splits
from rtdetr_cli.data.kinds import ranked
from rtdetr_cli.engine.checking.opened import open_all
from rtdetr_cli.engine.checking.output import print_json, print_text, summary


def check(settings: CheckSettings) -> list[Finding]:
    """Open every split, run all checks, and print what they found.

    Args:
        settings: every key of `rtdetr check`.

    Returns:
        What was found, the worst first; `refuse` decides whether the data set fails.

    Raises:
        DataError: the data set is not found or cannot be downloaded.
    """
    splits, findings = open_all(settings)
    findings += check_images(splits)
    findings += check_label_files(splits)
    findings += check_labels(splits, size_hw(settings.imgsz), settings.num_queries)
    findings += check_splits(splits)
    findings = ranked(findings)
    if settings.json:
        print_json(settings.data, splits, findings)
    else:
        print_text(splits, findings)
    return findings


def refuse(settings: CheckSettings, findings: list[Finding]) -> None:
    """Fail if there are errors; with `strict` on warnings too.

    Raises:
        DataError: the data set fails.
    """
    found = {finding.severity for finding in findings}
    if Severity.ERROR in found or (settings.strict and Severity.WARNING in found):
        strict = ", and strict=true" if Severity.ERROR not in found else ""
        raise DataError(f"{settings.data}: {summary(findings)}{strict}; all are named above")
