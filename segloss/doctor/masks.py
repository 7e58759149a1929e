"""Folders of predicted masks and their labels: what is wrong with either, every file looked at."""

from collections.abc import Callable
from pathlib import Path

import numpy as np

from segloss.config import DoctorConfig
from segloss.doctor.findings import Finding, more_files
from segloss.errors import InputError
from segloss.evaluation.mask_source import MaskSource
from segloss.evaluation.matching import class_table
from segloss.evaluation.results import Totals
from segloss.evaluation.score import measure_together
from segloss.evaluation.sources import distinct_names
from segloss.progress import Progress
from segloss.ranks import here


def examine_masks(
    config: DoctorConfig, progress: Callable[[str], Progress]
) -> tuple[list[Finding], list[dict[str, str]]]:
    """Findings of each ``--predictions`` against ``--labels``, errors first, and a row of the table for each.

    Raises:
        InputError: a folder is not there, or nothing says what the ids mean.
    """
    labels = Path(str(config.labels))
    classes = class_table(config.class_table, labels)
    findings: list[Finding] = []
    rows = []
    names = distinct_names(Path(path).resolve().name for path in config.predictions)
    for name, path in zip(names, config.predictions, strict=True):
        source = MaskSource(
            name,
            Path(path),
            labels,
            classes,
            prediction_ids=config.prediction_ids,
            label_ids=config.label_ids,
            skip_bad=True,
        )
        try:
            totals = measure_together(source, None, progress(f"examining {name}"))
        except InputError as error:  # a label that cannot be used, or no prediction that can
            if here().size > 1:  # which the others wait for
                raise
            findings.append(Finding("error", name, error))
            continue
        if totals is None:  # the first process has them
            continue
        if source.skipped:
            what = f"{source.skipped[0]}{more_files(source.skipped)}"
            findings.append(Finding("error", name, InputError(what, "--skip-bad leaves such images out of scores")))
        findings += source.findings(totals)
        rows.append(_row(source, totals))
    return sorted(findings, key=lambda finding: finding.severity != "error"), rows


def _row(source: MaskSource, totals: Totals) -> dict[str, str]:
    pixels = max(1, totals.matrix.sum() + totals.ignored)
    return {
        "name": source.name,
        "images": f"{len(source):,}",
        "examined": f"{totals.images:,}",
        "present": f"{np.count_nonzero(totals.present)} of {len(source.classes)}",
        "ignored": f"{totals.ignored / pixels:.1%}",
        "form": f"masks against {source.labels}",
    }
