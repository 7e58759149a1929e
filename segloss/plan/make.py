"""A plan: the rules applied to a fingerprint, as options, as a file with a reason a line, and as rows to print."""

import textwrap
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import yaml

from segloss.config import TrainConfig
from segloss.errors import InputError
from segloss.flags import keys_of
from segloss.plan.fingerprint import ClassFacts, Fingerprint
from segloss.plan.rules import RULES, SHORTFALLS, words

MOST_NAMED = 6


@dataclass(frozen=True)
class Advice:
    """One option, its value, and why; ``source`` is a row of docs/evidence or ``convention``."""

    option: str
    value: Any
    why: str
    source: str


@dataclass(frozen=True)
class Plan:
    """What is advised, and a line for everything that the data cannot give."""

    advice: tuple[Advice, ...]
    shortfalls: tuple[str, ...]

    @property
    def options(self) -> dict[str, Any]:
        """Of ``train_seg.py``, by name."""
        known = {key.name for key in keys_of(TrainConfig)}
        return {each.option: each.value for each in self.advice if each.option in known}

    def to_yaml(self, data: Mapping[str, Any]) -> str:
        """A file for ``train_seg.py --config``: the data options, then each option under its reason."""
        lines = [f"# {line}" for each in self.shortfalls for line in textwrap.wrap(each, 115)]
        lines += [yaml.safe_dump(dict(data), sort_keys=False).rstrip()]
        options = self.options
        for each in self.advice:
            lines += ["", *(f"# {line}" for line in textwrap.wrap(f"{each.why} [{each.source}]", 115))]
            line = f"{each.option}: {each.value}"
            lines += [line if each.option in options else f"# {line}, of eval_seg.py"]
        return "\n".join(lines) + "\n"


def make_plan(fingerprint: Fingerprint, given: Mapping[str, Any] | None = None) -> Plan:
    """The plan for data and machine, around options that are ``given``, which it does not advise on.

    Raises:
        InputError: no class has a labelled pixel.

    >>> plan = make_plan(fingerprint_of(train, val, MachineFacts.found()))  # doctest: +SKIP
    >>> plan.options["image_scale"]                                        # doctest: +SKIP
    1.0
    """
    if not fingerprint.present:
        raise InputError("no class has a labelled pixel", "look at the masks: python -m segloss.doctor")
    made: dict[str, Any] = dict(given or {})
    advice = []
    for rule in RULES:
        if rule.option in made or not rule.when(fingerprint, made):
            continue
        made[rule.option] = rule.value(fingerprint, made) if callable(rule.value) else rule.value
        why = rule.why.format_map(words(fingerprint, made))
        advice.append(Advice(rule.option, made[rule.option], why, rule.source))
    return Plan(tuple(advice), tuple(_shortfalls(fingerprint, made)))


def _shortfalls(fingerprint: Fingerprint, made: Mapping[str, Any]) -> Iterator[str]:
    facts = words(fingerprint, made)
    for row in SHORTFALLS:
        found = [each for each in fingerprint.classes if row.when(each, fingerprint, made)]
        texts = [row.each.format_map({**facts, **_of_class(each, fingerprint, made)}) for each in found]
        more = f" and {len(texts) - MOST_NAMED} more" if len(texts) > MOST_NAMED else ""
        if texts:
            yield f"{', '.join(texts[:MOST_NAMED])}{more}: {row.what}"


def _of_class(each: ClassFacts, fingerprint: Fingerprint, made: Mapping[str, Any]) -> dict[str, Any]:
    """What a line on a class may name beside the facts of all."""
    more = {"s": "" if each.images == 1 else "s", "seen_width": each.width * made["image_scale"]}
    return {**vars(each), **more, "all_images": fingerprint.images}
