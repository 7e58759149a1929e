"""The doctor's page: findings, splits, and labels painted over images."""

from pathlib import Path

from segloss.config import DoctorConfig
from segloss.doctor.findings import Finding, SplitFacts
from segloss.errors import InputError


def write_doctor_page(
    path: Path, config: DoctorConfig, findings: list[Finding], rows: list[dict], splits: list[SplitFacts]
) -> None:
    """The findings, the table of splits, and labels painted over some images of each."""
    from segloss.report.pages import write_page
    from segloss.report.painting import clear_class, jpeg, overlay

    pictures = []
    tables = [facts.dataset.classes for facts in splits[:1]]  # none where no split can be read
    names = tables[0].names if tables else ()
    clear = clear_class(names)
    for facts in splits if config.overlays else ():
        dataset = facts.dataset
        for place in facts.places[:: max(1, len(facts.places) // config.overlays)][: config.overlays]:
            try:
                image, labels = dataset.read_pair(place)
            except InputError:
                continue  # among the findings
            if labels is not None:
                picture = jpeg(overlay(dataset.bands.picture(image), labels, dataset.classes.colors, clear=clear))
                pictures.append({"picture": picture, "name": dataset.names[place], "split": dataset.split})
    try:
        write_page(
            path,
            "doctor.html",
            title=_title(config),
            findings=findings,
            errors=sum(finding.severity == "error" for finding in findings),
            examined=_examined(config, rows, splits),
            splits=rows,
            legend=[pair for table in tables for pair in zip(table.names, table.colors, strict=True)],
            clear=clear,
            hatched=any(facts.histogram[-1] for facts in splits),
            pictures=pictures,
        )
    except OSError as error:
        raise InputError(f"--output cannot be written: {error.strerror}", "choose another file", path) from error


def _title(config: DoctorConfig) -> str:
    if config.predictions:
        return f"predictions against {config.labels}"
    return f"{config.dataset}: {Path(config.data_path).name if config.data_path else 'data set'}"


def _examined(config: DoctorConfig, rows: list[dict], splits: list[SplitFacts]) -> str:
    if config.predictions:
        return f"Every mask of {len(rows)} folders of predictions read, and its label."
    return f"{sum(len(facts.pairs) for facts in splits):,} images and their masks read ({config.check})."
