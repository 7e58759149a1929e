"""``python -m segloss.doctor``: findings and a table of the splits, or of predictions, printed and as a page."""

import sys
from pathlib import Path

from segloss.config import DoctorConfig
from segloss.datasets import MissingSplitError, NoDataError, SegmentationDataset
from segloss.datasets.bands import choose_bands
from segloss.doctor.examination import examine
from segloss.doctor.findings import Finding, SplitFacts
from segloss.doctor.page import write_doctor_page
from segloss.errors import InputError
from segloss.flags import parse_config
from segloss.ranks import here


def open_splits(config: DoctorConfig) -> tuple[list[SegmentationDataset], list[Finding]]:
    """The splits there are, and an error for each that cannot be built at all."""
    datasets, findings = [], []
    for split in ("train", "val", "test"):
        try:
            datasets.append(config.open(split, lonely=True))
        except NoDataError:
            raise  # no split is at fault
        except InputError as error:
            if split != "test" or not isinstance(error, MissingSplitError):
                findings.append(Finding("error", split, error))
    return datasets, findings


def main(argv: list[str] | None = None) -> None:
    """``python -m segloss.doctor``: print the findings and a table of the splits; status 1 if there is an error."""
    from segloss.report.terminal import console, print_findings, progress_bar

    config = parse_config(DoctorConfig, "python -m segloss.doctor", argv)
    splits: list[SplitFacts] = []
    if config.predictions:
        from segloss.doctor.masks import examine_masks

        findings, rows = examine_masks(config, progress_bar)
    else:
        datasets, findings = open_splits(config)
        if any(dataset.made_up for dataset in datasets):
            raise InputError("made-up data has no files to examine", "choose another --dataset", config.dataset)
        bands = choose_bands(datasets, config.channels, config.show_bands)
        if not bands.is_rgb:
            console.print(f"bands: {bands.describe()}")
        found, splits = examine(datasets, config.check, progress_bar("examining"))
        findings = sorted([*findings, *found], key=lambda finding: finding.severity != "error")
        rows = [describe_split(facts) for facts in splits]
    if here().rank:
        return
    print_findings(findings, rows)
    if config.output:
        write_doctor_page(Path(config.output), config, findings, rows, splits)
        console.print(f"page: {config.output}", soft_wrap=True)
    if any(finding.severity == "error" for finding in findings):
        sys.exit(1)


def describe_split(facts: SplitFacts) -> dict[str, str]:
    """The row of a split in the tables."""
    counts, labelled = facts.histogram, facts.dataset.has_labels
    return {
        "name": facts.dataset.split,
        "images": f"{len(facts.dataset):,}",
        "examined": f"{len(facts.pairs):,}",
        "present": f"{int((counts[:-1] > 0).sum())} of {len(facts.dataset.classes)}" if labelled else "-",
        "ignored": f"{counts[-1] / max(1, counts.sum()):.1%}" if labelled else "-",
        "form": facts.dataset.found.form,
    }
