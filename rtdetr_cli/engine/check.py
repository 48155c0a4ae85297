"""`rtdetr check`: find what is wrong with a data set, before training."""

from __future__ import annotations

from rtdetr_cli.config.settings.check import CheckSettings
from rtdetr_cli.config.settings.modes import size_hw
from rtdetr_cli.config.settings.val import ValSettings
from rtdetr_cli.core.console import say
from rtdetr_cli.core.errors import DataError, UsageError
from rtdetr_cli.core.files import run_path
from rtdetr_cli.core.findings import Finding, Severity
from rtdetr_cli.data.checks.duplicates import check_duplicates
from rtdetr_cli.data.checks.files import check_images, check_label_files
from rtdetr_cli.data.checks.labels import check_labels
from rtdetr_cli.data.checks.splits import check_splits
from rtdetr_cli.data.kinds import ranked
from rtdetr_cli.data.workers import leave_if_importing_main
from rtdetr_cli.engine.checking.fix import open_source, write_fixed
from rtdetr_cli.engine.checking.label_suspects import Suspect, as_findings, find_suspects, usable
from rtdetr_cli.engine.checking.opened import certain, open_all
from rtdetr_cli.engine.checking.output import Splits, print_json, print_text, summary
from rtdetr_cli.engine.checking.page import write_report

DEFAULT_SPLITS = ("val", "test")
"""Splits whose labels a model searches: it has not learned them."""


def check(settings: CheckSettings) -> list[Finding]:
    """Open every split, run all checks, and print what they found.

    Args:
        settings: every key of `rtdetr check`.

    Returns:
        What was found, the worst first; `refuse` decides whether the data set fails.

    Raises:
        DataError: the data set is not found or cannot be downloaded.
    """
    leave_if_importing_main()
    copy = open_source(settings) if settings.fix else None
    run_path(settings.project, settings.name)  # reports a bad name before the work
    splits, findings = open_all(settings)
    of_images, signatures = check_images(splits)
    findings += of_images
    findings += check_duplicates(splits, signatures)
    findings += check_label_files(splits)
    findings += check_labels(splits, size_hw(settings.imgsz), settings.num_queries)
    findings += check_splits(splits)
    suspects = _search_labels(settings, splits, findings) if settings.model else []
    findings = ranked(certain(splits, findings))
    if settings.json:
        print_json(settings.data, splits, findings, suspects)
    else:
        print_text(splits, findings)
    if copy:
        write_fixed(*copy, settings.images, signatures)
    if settings.report:
        write_report(settings, splits, findings)
    return findings


def _search_labels(
    settings: CheckSettings, splits: Splits, findings: list[Finding]
) -> list[Suspect]:
    """Run a model over the chosen splits, and add what it finds about their labels.

    Raises:
        UsageError: the data set has none of the splits.
        WeightsError: the model cannot be opened.
        BackendError: its runtime or device is missing.
    """
    from rtdetr_cli.engine.exporting.runtime_cache import open_detector  # slow to import
    from rtdetr_cli.engine.val import run_detector

    wanted = (settings.split,) if settings.split else DEFAULT_SPLITS
    chosen = [split for split in wanted if split in splits]
    if not chosen and any(one.severity is Severity.ERROR for one in findings):
        say("the labels are not searched, as no split for it can be opened")
        return []
    if not chosen:
        raise UsageError(
            f"check: {settings.data} has no split {' or '.join(wanted)}; model can search "
            f"{', '.join(f'split={split}' for split in splits) or 'none'}"
        )
    inference = ValSettings(
        model=settings.model or "",
        imgsz=settings.imgsz if "imgsz" in settings.given else None,
        device=settings.device,
        batch=settings.batch,
        workers=settings.workers,
    )
    detector = open_detector(inference)
    say(f"{detector.description}; searching the labels of {' and '.join(chosen)}")
    suspects: list[Suspect] = []
    for split in chosen:
        dataset = usable(splits[split], split, findings)
        found = run_detector(inference, detector, dataset)
        more, differing = find_suspects(split, dataset, found, detector.names)
        suspects += more
        findings += differing
    suspects.sort(key=lambda one: -one.score)
    findings += as_findings(suspects)
    return suspects


def refuse(settings: CheckSettings, findings: list[Finding]) -> None:
    """Fail if there are errors; with `strict` on warnings too. A copy by `fix` has no errors.

    Raises:
        DataError: the data set fails.
    """
    found = set() if settings.fix else {finding.severity for finding in findings}
    if Severity.ERROR in found or (settings.strict and Severity.WARNING in found):
        strict = ", and strict=true" if Severity.ERROR not in found else ""
        raise DataError(f"{settings.data}: {summary(findings)}{strict}; all are named above")
