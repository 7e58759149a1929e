"""``python -m segloss.plan``: a configuration for data and machine, printed and as a file for ``--config``."""

import os
from pathlib import Path
from typing import Any

import yaml

from segloss.config import DataOptions, PlanConfig, TrainConfig
from segloss.datasets.bands import choose_bands
from segloss.datasets.base import require_same_classes
from segloss.doctor.examination import check_histograms
from segloss.errors import InputError
from segloss.files import write_text
from segloss.flags import flag_of, keys_of, parse_config, to_plain_dict
from segloss.pixel_counts import counts_of, image_histograms, require_two_classes
from segloss.plan.fingerprint import Fingerprint, MachineFacts, fingerprint_of
from segloss.plan.make import Plan, make_plan
from segloss.plan.rules import RULES
from segloss.ranks import agreed


def look(config: DataOptions, machine: MachineFacts) -> Fingerprint:
    """The fingerprint of the data that options name; InputError where train or val is missing or has one class."""
    from segloss.report.terminal import progress_bar

    splits = train, val = config.open("train"), config.open("val")
    require_same_classes(splits)
    choose_bands(splits, config.channels)
    for dataset in splits:
        dataset.check_partners()
        dataset.check_files()
    progress = progress_bar("looking at masks")
    histograms = [image_histograms(dataset, progress=progress)[0] for dataset in splits]
    for dataset, found in zip(splits, histograms, strict=True):
        check_histograms(dataset, found.numpy(), has_switch=False)
    require_two_classes(counts_of(train, histograms[0]))
    return fingerprint_of(train, val, machine, progress)


def show(plan: Plan) -> None:
    """Print it: a row an option, a line for what the data cannot give."""
    from segloss.report.terminal import print_advice

    rows = [(each.option, each.value, f"{each.why} [{each.source}]") for each in plan.advice]
    print_advice(rows, plan.shortfalls)


def given_by(config: TrainConfig, names: set[str]) -> dict[str, Any]:
    """The options that a plan would choose, but that somebody did, among ``names``; null leaves it to the plan."""
    chosen = names & {rule.option for rule in RULES}
    return {name: value for name, value in to_plain_dict(config).items() if name in chosen and value is not None}


def say_kept(given: dict[str, Any]) -> None:
    """A line on the options that were given and therefore are not the plan's."""
    from segloss.report.terminal import console

    if given:
        words = ", ".join(f"{flag_of(name)} {value}" for name, value in given.items())
        console.print(f"given, and planned around: {words}", soft_wrap=True)


def planned(config: TrainConfig, names: set[str]) -> dict[str, Any]:
    """The options of the plan for a run's data on this machine, of several processes on that of the first; printed.

    ``names`` are those of the options that were given.
    """

    def make() -> dict[str, Any]:
        given = given_by(config, names)
        begun = {} if config.init_from is None else {"init_from": config.init_from}
        plan = make_plan(look(config, MachineFacts.found(config.accelerator)), {**given, **begun})
        if os.environ.get("LOCAL_RANK", "0") == "0":
            show(plan)
            say_kept(given)
        return plan.options

    return agreed("PLAN", make)


def _write(text: str, target: Path) -> None:
    """Write a plan; InputError where a file lies that says something else, as one that was edited."""
    if target.is_file():
        try:
            there = yaml.safe_load(target.read_text(encoding="utf-8"))
        except (UnicodeDecodeError, yaml.YAMLError):
            there = None
        if there != yaml.safe_load(text):
            raise InputError("is there already, and says other things", "choose another --output, or remove it", target)
    write_text(target, text)


def main(argv: list[str] | None = None) -> None:
    """``python -m segloss.plan``: look at data and machine, print the plan and write it."""
    from segloss.report.terminal import console

    config = parse_config(PlanConfig, "python -m segloss.plan", argv)
    if Path(config.output).is_dir():
        raise InputError("cannot be written: is a folder", "choose another --output", config.output)
    found = MachineFacts.found(config.accelerator if config.gpu_memory_gib is None else "auto")
    machine = MachineFacts(
        config.cores or found.cores,
        config.memory_gib or found.memory_gib,
        found.gpu_memory_gib if config.gpu_memory_gib is None else config.gpu_memory_gib,
        None if config.memory_gib else found.cache_gib,
    )
    plan = make_plan(look(config, machine))
    show(plan)
    data = {key.name: key.of(config) for key in keys_of(DataOptions) if key.of(config) != key.option.default}
    data = {"dataset": config.dataset, **data}
    if config.data_path and Path(config.data_path).exists():
        data["data_path"] = str(Path(config.data_path).absolute())
    _write(plan.to_yaml(data), Path(config.output))
    console.print(f"plan: {config.output}; train with: train_seg.py --config {config.output}", soft_wrap=True)
