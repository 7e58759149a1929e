"""The tables of the questions, data sets side by side, written into docs/results.md between marks of their names.

A mark is ``<!-- table NAME -->`` in a line of its own, and ends with ``<!-- end -->``; what stands between is made anew
by ``evidence.py tables``, the sentences around it are written by hand.
"""

import re
from collections.abc import Mapping, Sequence
from pathlib import Path

from evidence_tables import (
    CHOSEN_BY,
    DECIDED,
    OF_DEFAULT,
    SIZES,
    Rows,
    called,
    comparisons,
    percent,
    read_rows,
    table,
)

TITLES = {"camvid": "CamVid", "crackforest": "crackforest", "facade": "facade", "ccp": "ccp"}
LONG = ("camvid", "long")
MARK = re.compile(r"(<!-- table ([\w-]+) -->\n).*?(<!-- end -->)", flags=re.DOTALL)


class Page:
    """Tables of rows for the page; ``default``: the arm that ``train_seg.py`` trains without loss flags."""

    def __init__(self, rows: Rows, ours: Mapping[str, str], rivals: Mapping[str, str], default: str):
        self.rows, self.default = rows, default
        self.found = {p: comparisons(rows, p, ours, rivals, default) for p in rows.distinct("protocol")}
        self.arms = [default, *(arm for arm in (*rivals, *ours) if arm != default)]

    def called(self, arm: str) -> str:
        """An arm in words, or as one writes it."""
        name = called(arm, self.default)
        return name if " " in name else f"`{name}`"

    def asked(self, question: str, protocol: str = CHOSEN_BY, **fixed: str) -> dict[str, list[dict]]:
        """Data set -> its comparisons of a question that have these values."""
        found = [r for r in self.found.get(protocol, []) if r["question"] == question]
        found = [r for r in found if all(r[key] == value for key, value in fixed.items())]
        return {d: [r for r in found if r["dataset"] == d] for d in TITLES}

    def line(self, label: str, found: Mapping[str, Sequence[dict]], named: str | None = None) -> list[str] | None:
        """A line of a table, or None without rows; ``named``: the sides of a pair that its cell names."""
        cells = ["; ".join(self.cell(r, named) for r in found[d]) for d in TITLES]
        return [label, *cells] if any(cells) else None

    def cell(self, row: dict, named: str | None = None) -> str:
        limits = "" if row["low"] is None else f" [{percent(row['low'])}, {percent(row['high'])}]"
        text = percent(row["estimate"]).replace("-0.0", "0.0") + limits.replace("-0.0", "0.0")
        bold = row["seeds"] > 1 and row["low"] is not None and row["low"] > 0
        text = f"**{text}**" if bold else text
        signs = ("°" if row["seeds"] == 1 else "") + ("" if row["machines"] else "‡")
        names = [self.called(row[side].split()[0]) for side in named or ""]
        return f"{' - '.join(names)}: {text}{signs}" if names else f"{text}{signs}"

    def decision(self, decision: str) -> list[str]:
        """Question a: a decision less the plain argmax of the same networks."""
        pairs = [(arm, {"a": f"{arm} {decision}", "b": f"{arm} plain"}) for arm in self.arms if arm not in OF_DEFAULT]
        return self.sets("loss", [self.line(self.called(arm), self.asked("a", **pair)) for arm, pair in pairs])

    def papers_form(self) -> list[str]:
        ways = {"plain": "both plain", "iou": "both by the rule without labels", DECIDED: "both as a run decides"}
        said = [self.line(ways[how], self.asked("b", a=f"rank {how}", b=f"ce {how}")) for how in ways]
        return self.sets("rank - `ce`", said)

    def squared(self) -> list[str]:
        found = [("c: the best squared loss of the set", "c", "ab"), ("d: one squared loss on all sets", "d", "ab")]
        found.append(("d: as above, the rival's plain argmax", "d, as others decide", "ab"))
        return self.sets("a - b", [self.line(label, self.asked(question), sides) for label, question, sides in found])

    def of_default(self) -> list[str]:
        """The default as a run decides, less what others could have instead."""
        arms = ("weighted_ce", "ce", "smp_recipe")
        lines = [self.line(f"{self.called(arm)}, plain", self.asked("default", b=f"{arm} plain")) for arm in arms]
        found = self.asked("default")
        plain = {d: rows[:1] for d, rows in found.items()}  # the best argmax stands first in comparisons
        decided = {d: [r for r in rows if r["b"].endswith(DECIDED)][:1] for d, rows in found.items()}  # likewise
        lines.append(self.line("the best plain argmax", plain, "b"))
        lines.append(self.line("the best other loss, as a run decides", decided, "b"))
        lines.append(self.line("`weighted_ce`, as a run decides", self.asked("default", b=f"weighted_ce {DECIDED}")))
        return self.sets("the default, as a run decides, less", lines)

    def options(self) -> list[str]:
        """The default's loss with other options, less the default, both as a run decides."""
        pair = {"b": f"{self.default} {DECIDED}"}
        lines = [self.line("the plan's options", self.asked("plan", **pair))]
        lines += [
            self.line(called(arm).split(", ")[1], self.asked("size", a=f"{arm} {DECIDED}", **pair)) for arm in SIZES
        ]
        return self.sets("less the default", lines)

    def long(self) -> list[str]:
        """Seed 0 after 15 and 60 epochs on CamVid, plain and as a run decides."""
        dataset, protocol = LONG
        lines = []
        for arm in self.arms:
            ways = [(how, p) for how in ("plain", DECIDED) for p in (CHOSEN_BY, protocol)]
            found = [self.rows.of(dataset, p, arm, "test", how).get((dataset, 0)) for how, p in ways]
            if all(found):
                cells = [percent(scores["miou"]) for scores in found if scores]
                lines.append([self.called(arm), *(f"{a} → {b}" for a, b in (cells[:2], cells[2:])), self.gain(arm)])
        return table(["loss", "plain argmax", "as a run decides", "decided - plain, after 60 epochs"], lines)

    def gain(self, arm: str) -> str:
        pair = {"a": f"{arm} {DECIDED}", "b": f"{arm} plain"}
        return "".join(map(self.cell, self.asked("a", LONG[1], **pair)[LONG[0]]))

    def long_pairs(self) -> list[str]:
        """Questions b to d and the default's lead after long training."""
        dataset, protocol = LONG
        found = []
        for question in ("b", "c", "d", "default"):
            for row in self.asked(question, protocol)[dataset]:
                sides = [self.called(row[side].split()[0]) + how(row[side]) for side in "ab"]
                found.append([f"{sides[0]} - {sides[1]}", self.cell(row), question])
        pairs = {cells[0]: [cells[1], ", ".join(q for name, _, q in found if name == cells[0])] for cells in found}
        return table(["a - b, after 60 epochs", "mIoU", "question"], [[name, *cells] for name, cells in pairs.items()])

    def sets(self, head: str, lines: Sequence[list[str] | None]) -> list[str]:
        return table([head, *TITLES.values()], [line for line in lines if line])

    def tables(self) -> dict[str, list[str]]:
        return {
            "a-without-labels": self.decision("iou"),
            "a-decided": self.decision(DECIDED),
            "b": self.papers_form(),
            "c-d": self.squared(),
            "default": self.of_default(),
            "options": self.options(),
            "e": self.long(),
            "e-pairs": self.long_pairs(),
        }


def how(side: str) -> str:
    """The decision of a side of a pair, in words."""
    words = {"plain": ", plain", "iou": ", rule without labels", DECIDED: ", decided"}
    return words[side.split()[1].rstrip(",")]


def filled(page: str, tables: Mapping[str, Sequence[str]]) -> str:
    """A page with its marked tables made anew; KeyError for a mark that is none of them."""
    return MARK.sub(lambda mark: "\n".join([mark[1], *tables[mark[2]], mark[3]]), page)


def write_questions(folder: Path, ours: Mapping[str, str], rivals: Mapping[str, str], default: str) -> None:
    """The tables of the questions of a folder's rows into results.md beside the folder, if there is one."""
    page = folder.absolute().parent / "results.md"
    if page.is_file():
        text = page.read_text(encoding="utf-8")
        page.write_text(filled(text, Page(Rows(read_rows(folder)), ours, rivals, default).tables()), encoding="utf-8")
        print(f"tables of the questions: {page}")
