"""Rows of evidence.py -> intervals, paired comparisons, tables in Markdown and pictures.

**Intervals** (95 %) hold for other images and other seeds: segloss.evaluation.intervals, a jackknife over the B blocks
of consecutive images with Student's t, and the spread of the S seeds. Decisions on the same networks are subtracted
seed by seed. The seeds of two arms have nothing to do with each other: their variances add up, while the images are
the same ones. With one seed the interval is of the images alone, and the tables say so; below 6 blocks there is none.
Of two settings all seeds of each are compared; the tables say how many the one with fewer has.
How often they cover is in docs/metrics.md.
"""

import fnmatch
from collections.abc import Collection, Iterable, Mapping, Sequence
from pathlib import Path

import numpy as np
from evidence_runs import OF_RUN, read_row
from evidence_scores import AUTO, DECISIONS

from segloss.evaluation import intervals
from segloss.evaluation.comparison import block_sums, mean_and_ious

CHOSEN_BY = "short"  # the protocol whose held-out scores choose arms, for the others too
SHOWN = ("plain", "tau0", "prior", "iou", "labels")
DECIDED = "auto"  # what train_seg.py does, by which questions b to d compare
SIZES = ("full_size", "half_size")  # arms of the default's loss at the other size than in the protocol short
OF_DEFAULT = ("plan", *SIZES)
ASKED = ("a", "b", "c", "d")  # in every protocol
MEANS = ("mean_accuracy", "pixel_accuracy", "tail")


def read_rows(folder: Path, needed: Mapping[str, type] = OF_RUN) -> list[dict]:
    """All rows of a folder, in the order of their names."""
    return [read_row(file, needed) for file in sorted(folder.glob("*.json"))]


# ---- Intervals ----------------------------------------------------------------------------------------------------


def interval(a: Sequence, b: Sequence | None = None, *, same_networks: bool = False) -> dict:
    """Mean mIoU of a setting's runs, or its difference a - b, with a 95 % interval.

    Args:
        a, b: ``(S, B, 3, C)`` right, true and predicted pixels of S seeds in B blocks of the same images.
        same_networks: a and b are decisions of the same runs, in the same order.

    Returns:
        ``estimate``, ``low``, ``high`` (None where :mod:`segloss.evaluation.intervals` gives no interval) and
        ``seeds``, the smaller number of the two.
    """
    runs = [[block_sums(np.asarray(blocks), 1) for blocks in setting] for setting in (a, b) if setting is not None]
    if same_networks:  # one run is both decisions of a network
        both = [np.concatenate(pair, axis=1) for pair in zip(*runs, strict=True)]
        found = intervals.interval(both, difference_of_halves, shares=shares_of_halves, scale="identity")
    elif b is not None:
        found = intervals.difference_interval(*runs, mean_and_ious, shares=intervals.union_shares)
    else:
        found = intervals.interval(*runs, mean_and_ious, shares=intervals.union_shares)
    ends = [None if np.isnan(end[0]) else float(end[0]) for end in (found.low, found.high)]
    seeds = min(len(setting) for setting in runs)
    return {"estimate": float(found.estimate[0]), "low": ends[0], "high": ends[1], "seeds": seeds}


def difference_of_halves(sums: np.ndarray) -> np.ndarray:
    """Means and IoUs of the first half of the sums less those of the second."""
    first, second = np.split(sums, 2, axis=-1)
    return mean_and_ious(first) - mean_and_ious(second)


def shares_of_halves(sums: np.ndarray, variances: np.ndarray) -> np.ndarray:
    return intervals.union_shares(sum(np.split(sums, 2, axis=-1)), variances)


class Rows:
    """Rows by data set, protocol and arm, with what tables ask of them."""

    def __init__(self, rows: Iterable[dict]):
        self.rows = list(rows)

    def of(self, dataset: str, protocol: str, arm: str, split: str, decision: str) -> dict[tuple[str, int], dict]:
        """(data set, seed) -> an arm's scores under a decision; ``camvid/*`` are its folds."""
        found = {}
        for row in self.rows:
            of_set = fnmatch.fnmatch(row["dataset"], dataset)
            name = row.get("auto") if decision == "auto" else decision
            if of_set and (row["protocol"], row["arm"]) == (protocol, arm) and name in row["scores"].get(split, {}):
                found[row["dataset"], row["seed"]] = row["scores"][split][name]
        return dict(sorted(found.items()))

    def machines(self, dataset: str, protocol: str, arm: str) -> set[tuple[str | None, str | None]]:
        """Devices and precisions that an arm was trained with."""
        key = {"dataset": dataset, "protocol": protocol, "arm": arm}
        rows = [row for row in self.rows if all(row[k] == v for k, v in key.items())]
        return {(row.get("device"), row.get("precision")) for row in rows}

    def counts(self, *key: str) -> np.ndarray:
        """``(S, B, 3, C)``: what intervals are made from."""
        return np.array([scores["blocks"] for scores in self.of(*key).values()])

    def distinct(self, key: str, *, whole: bool = False, **fixed: str) -> list[str]:
        """The values of a key in the rows that have these others, in order of appearance; ``whole``: but of folds."""
        rows = [row for row in self.rows if all(row[k] == v for k, v in fixed.items())]
        return list(dict.fromkeys(row[key] for row in rows if not (whole and "/" in row["dataset"])))

    def held_out(
        self, dataset: str, protocol: str, arm: str, decision: str, seeds: Collection[tuple[str, int]] | None = None
    ) -> float:
        """Mean mIoU on the val split over the seeds, and over the folds of ``camvid/*``; NaN without rows.

        ``seeds``: these (data set, seed) alone.
        """
        rows = self.of(dataset, protocol, arm, "val", decision).items()
        found = [scores["miou"] for key, scores in rows if seeds is None or key in seeds]
        return float(np.mean(found)) if found else float("nan")

    def shared_seeds(self, dataset: str, protocol: str, arms: Iterable[str], decision: str) -> set[tuple[str, int]]:
        """The (data set, seed) that all of the arms with rows have: a mean of three says less than the best of one."""
        every = [set(self.of(dataset, protocol, arm, "val", decision)) for arm in arms]
        return set.intersection(*(each for each in every if each)) if any(every) else set()

    def best(self, datasets: Sequence[str], protocol: str, arms: Iterable[str], decision: str) -> str | None:
        """The arm with the highest held-out mIoU, averaged over data sets, of those that were run on all of them.

        On the seeds that all arms have.
        """
        arms = list(arms)
        seeds = {d: self.shared_seeds(d, protocol, arms, decision) for d in datasets}
        scores = {arm: np.mean([self.held_out(d, protocol, arm, decision, seeds[d]) for d in datasets]) for arm in arms}
        known = {arm: score for arm, score in scores.items() if not np.isnan(score)}
        return max(known, key=lambda arm: known[arm]) if known else None


# ---- The questions ------------------------------------------------------------------------------------------------


def choices(rows: Rows, ours: Iterable[str], rivals: Iterable[str]) -> dict[str, tuple[str | None, ...]]:
    """The best arm of ours and of the rivals on each set's held-out data, and under ``all`` on all sets."""
    sets = rows.distinct("dataset", whole=True, protocol=CHOSEN_BY)
    groups = {**{name: [name] for name in sets}, "all": sets}
    return {
        name: tuple(rows.best(sets, CHOSEN_BY, arms, DECIDED) for arms in (ours, rivals))
        for name, sets in groups.items()
    }


def comparisons(
    rows: Rows, protocol: str, ours: Iterable[str], rivals: Iterable[str], default: str | None = None
) -> list[dict]:
    """The questions fixed in advance, as differences of mIoU on test; what has no rows yet is left out.

    ``default``: the arm with the loss of `train_seg.py` without loss flags.
    """
    chosen = choices(rows, ours, rivals)
    found = []

    def add(question: str, dataset: str, a: tuple[str, str], b: tuple[str, str], other: str = protocol) -> None:
        """a - b; b of the ``other`` protocol."""
        first, second = (rows.of(dataset, p, each[0], "test", each[1]) for p, each in ((protocol, a), (other, b)))
        same = a[0] == b[0] and other == protocol
        if a[0] == b[0]:  # the networks, or seeds, that both have
            first, second = ({key: x[key] for key in first.keys() & second.keys()} for x in (first, second))
        if first and second:
            counts = ([x[key]["blocks"] for key in sorted(x)] for x in (first, second))
            said = {"question": question, "dataset": dataset, "a": " ".join(a), "b": " ".join(b)}
            said["b"] += f", {other}" if other != protocol else ""
            said["machines"] = rows.machines(dataset, protocol, a[0]) == rows.machines(dataset, other, b[0])
            found.append(said | interval(*counts, same_networks=same))

    one, _ = chosen["all"]
    for dataset in rows.distinct("dataset", whole=True, protocol=protocol):
        for arm in rows.distinct("arm", protocol=protocol, dataset=dataset):
            for decision in ("iou", DECIDED):
                add("a", dataset, (arm, decision), (arm, "plain"))
        for decision in ("plain", "iou", DECIDED):
            add("b", dataset, ("rank", decision), ("ce", decision))
        mine, rival = chosen.get(dataset, (None, None))
        if mine and rival:
            add("c", dataset, (mine, DECIDED), (rival, DECIDED))
        if one and rival:
            add("d", dataset, (one, DECIDED), (rival, DECIDED))
        for arm, decision in ((default, DECIDED), ("weighted_ce", DECIDED), ("smp_recipe", "plain")):
            if arm:
                add("plan", dataset, ("plan", DECIDED), (arm, decision))
        plain_rival = rows.best([dataset], CHOSEN_BY, rivals, "plain")
        if default:
            for arm in SIZES:
                add("size", dataset, (arm, DECIDED), (default, DECIDED))
            every = [*ours, *rivals]
            best_plain = rows.best([dataset], CHOSEN_BY, every, "plain")
            other = rows.best([dataset], CHOSEN_BY, [arm for arm in every if arm != default], DECIDED)
            others = [(arm, "plain") for arm in (best_plain, "weighted_ce", "ce", "smp_recipe")]
            others += [(other, DECIDED), ("weighted_ce", DECIDED)]
            for arm, decision in dict.fromkeys(others):
                if arm:
                    add("default", dataset, (default, DECIDED), (arm, decision))
        if one and plain_rival:
            add("d, as others decide", dataset, (one, DECIDED), (plain_rival, "plain"))
        for arm in rows.distinct("arm", protocol=protocol, dataset=dataset) if protocol != CHOSEN_BY else ():
            for decision in ("plain", DECIDED):
                add("e", dataset, (arm, decision), (arm, decision), CHOSEN_BY)
    return sorted(found, key=lambda row: row["question"])


# ---- Tables and pictures ------------------------------------------------------------------------------------------


def percent(value: float | None) -> str:
    return "" if value is None or np.isnan(value) else f"{100 * value:.1f}"


def with_interval(row: dict) -> str:
    limits = "" if row["low"] is None else f" [{percent(row['low'])}, {percent(row['high'])}]"
    alone = "" if row["seeds"] > 1 else " (images only)" if limits else " (one seed)"
    return percent(row["estimate"]) + limits + alone


def table(header: Sequence[str], lines: Iterable[Sequence[str]]) -> list[str]:
    return [f"| {' | '.join(cells)} |" for cells in (header, ["---"] * len(header), *lines)] + [""]


def test_table(rows: Rows, dataset: str, protocol: str) -> list[str]:
    """A line for each arm and decision, best first, with intervals of mIoU and means of the rest over the seeds."""
    lines = []
    for arm in rows.distinct("arm", protocol=protocol, dataset=dataset):
        for decision in (*SHOWN, DECIDED):
            scores = rows.of(dataset, protocol, arm, "test", decision).values()
            if scores:
                means = [percent(np.array([s[key] for s in scores], dtype=float).mean()) for key in MEANS]
                row = interval([s["blocks"] for s in scores])
                lines.append((row["estimate"], [arm, decision, str(len(scores)), with_interval(row), *means]))
    ranked = [cells for _, cells in sorted(lines, key=lambda line: -line[0])]
    header = ["arm", "decision", "seeds", "mIoU, 95 % interval", "mean accuracy", "pixel accuracy", "tail mIoU"]
    best = rows.best([dataset], protocol, rows.distinct("arm", protocol=protocol, dataset=dataset), DECIDED)
    of_best = next((cells for cells in ranked if cells[:2] == [best, DECIDED]), None)
    said = [f"Best on val, as a run decides: {best}, on test {of_best[3]}.", ""] if of_best else []
    return [f"### {dataset}, test", "", *said, *table(header, ranked)] if ranked else []


def class_table(rows: Rows, dataset: str, protocol: str) -> list[str]:
    """IoU of each class, mean of the seeds, plain and as decided; not of sets with many classes."""
    names = next((row["classes"] for row in rows.rows if row["dataset"] == dataset), [])
    columns = []
    for arm in rows.distinct("arm", protocol=protocol, dataset=dataset):
        for decision in ("plain", DECIDED):
            if scores := rows.of(dataset, protocol, arm, "test", decision):
                values = np.array([s["iou"] for s in scores.values()], dtype=float)
                columns.append((f"{arm} {decision}", [percent(value) for value in values.mean(0)]))
    lines = [[name, *(values[c] for _, values in columns)] for c, name in enumerate(names)]
    return table(["IoU", *(name for name, _ in columns)], lines) if columns and len(names) < 20 else []


def search_table(rows: Rows, protocol: str, arms: Iterable[str]) -> list[str]:
    """Held-out mIoU of each arm on each set, on which arms are chosen, and on CamVid's folds."""
    every = rows.distinct("dataset", protocol=protocol)
    sets = rows.distinct("dataset", whole=True, protocol=protocol) + sorted({"camvid/*" for d in every if "/" in d})
    decisions = ("plain", "iou", "labels")
    lines = []
    for arm in arms:
        cells = [percent(rows.held_out(dataset, protocol, arm, d)) for dataset in sets for d in decisions]
        if any(cells):
            lines.append([arm, *cells])
    header = ["arm", *(f"{dataset} {d}" for dataset in sets for d in decisions)]
    return ["### Held-out data", "", *table(header, lines)] if lines else []


def comparison_table(found: Sequence[dict]) -> list[str]:
    lines = [
        [
            r["question"],
            r["dataset"],
            r["a"],
            r["b"],
            str(r["seeds"]),
            with_interval(r),
            "" if r["machines"] else "other",
        ]
        for r in found
    ]
    header = ["question", "set", "a", "b", "seeds", "mIoU of a - b, 95 % interval", "machines"]
    unasked = [question for question in ASKED if question not in {r["question"] for r in found}]
    said = [f"No rows in this protocol yet for the questions {', '.join(unasked)}.", ""] if unasked else []
    return ["### Questions", "", *table(header, lines), *said] if lines else []


# Decisions in the pictures: what they are called there, and their marks.
DRAWN = {
    "plain": ("plain argmax", "o"),
    "tau0": ("argmax of the posterior", "s"),
    "prior": ("exponent of the prior, by val's labels", "D"),
    "iou": ("IoU rule", "^"),
    "labels": ("IoU rule by labels", "v"),
    DECIDED: ("as train_seg.py decides", "*"),
}
CALLED = {  # arms in pictures and on the results page; others by their own names
    "rank": "rank (the paper's)",
    "power075": "power 0.75",
    "power05": "power 0.5",
    "power075-k3": "power 0.75, k 3",
    "power025-jaccard": "power 0.25 + Jaccard",
    "ce-bias-jaccard": "ce + late Jaccard",
    "ce_jaccard": "0.25*ce+0.75*jaccard",
    "weighted_ce_jaccard-inverse_sqrt": "milder weights + Jaccard",
    "smp_recipe": "smp's example",
    "plan": "the default, planned",
    "full_size": "the default, full size",
    "half_size": "the default, half size",
}


def called(arm: str, default: str | None = None) -> str:
    """An arm in a picture."""
    return "the default" if arm == default else CALLED.get(arm, arm)


def draw(rows: Rows, protocol: str, path: Path, default: str | None = None) -> bool:
    """A panel for each data set: mIoU of each arm on test, a mark for each decision, with its interval; a hollow mark
    has none."""
    import matplotlib

    matplotlib.use("agg")
    from matplotlib import pyplot as plt

    sets = {d: rows.distinct("arm", protocol=protocol, dataset=d) for d in rows.distinct("dataset", protocol=protocol)}
    sets = {d: [a for a in arms if rows.of(d, protocol, a, "test", "plain")] for d, arms in sets.items()}
    sets = {d: arms for d, arms in sets.items() if arms}
    if not sets:
        return False
    height = 0.65 * max(len(arms) for arms in sets.values()) + 1.6
    figure, axes = plt.subplots(
        1, len(sets), figsize=(1.5 + 3.6 * len(sets), height), squeeze=False, layout="constrained"
    )
    for ax, (dataset, arms) in zip(axes[0], sets.items(), strict=True):
        arms = sorted(arms, key=lambda arm: interval(rows.counts(dataset, protocol, arm, "test", "plain"))["estimate"])
        for place, (decision, (name, mark)) in enumerate(DRAWN.items()):
            color = "black" if decision == DECIDED else f"C{place}"
            points = [(y, rows.counts(dataset, protocol, arm, "test", decision)) for y, arm in enumerate(arms)]
            found = [(y + 0.35 - 0.14 * place, interval(counts)) for y, counts in points if len(counts)]
            for y, row in found:
                known = row["low"] is not None
                if known:
                    ax.plot([100 * row["low"], 100 * row["high"]], [y, y], color=color, linewidth=1.5, alpha=0.6)
                face = {} if known else {"markerfacecolor": "white"}
                ax.plot(100 * row["estimate"], y, mark, color=color, markersize=7 if mark == "*" else 5, **face)
            if found:
                ax.plot([], [], mark, color=color, label=name)
        ax.set_yticks(range(len(arms)), [called(arm, default) for arm in arms])
        ax.set_xlabel("mIoU on test (%)")
        most = max(len(rows.of(dataset, protocol, arm, "test", "plain")) for arm in arms)
        ax.set_title(f"{dataset}: " + ("1 seed" if most == 1 else f"up to {most} seeds"))
        ax.set_ylim(-0.5, len(arms) - 0.5)
        for y in range(1, len(arms)):
            ax.axhline(y - 0.5, color="0.85", linewidth=0.8)
        ax.grid(axis="x", alpha=0.3)
    handles = {name: line for ax in axes[0] for line, name in zip(*ax.get_legend_handles_labels(), strict=True)}
    look = {"ncols": len(DRAWN)} if len(sets) > 2 else {"ncols": 2, "fontsize": "small"}
    figure.legend(handles.values(), handles.keys(), loc="outside lower center", title="hollow: no interval", **look)
    figure.savefig(path, dpi=110)
    plt.close(figure)
    return True


HEAD = """# Evidence

Made by `python benchmarks/evidence.py tables` from the rows beside this page, one JSON file a run with its command.
mIoU in percent, mean over the seeds. Intervals (95 %) hold for other images and other seeds; how they are made stands
in the head of `benchmarks/evidence_tables.py`. Where none stands, too few blocks of images hold the pixels of a class
that moves the mean. Arms are chosen on the val split alone, on the seeds that all of them have (CamVid's is a part of
one drive; `camvid/*` are folds that hold out one drive each, where they were run); best.ckpt is chosen there too, and
decisions are fitted there (for held-out scores on every other image, and scored on those between: of CamVid's clip
these are neighbouring frames, so that labels and prior look better there than they would on another drive). No arm has
been run on the folds so far: all that was chosen of CamVid was chosen on that one clip.

To make a row anew: `python benchmarks/evidence.py run --again --only NAME --runs DIR --data SET=DIR --weights FILE`
trains and scores it beside ours, into `DIR/rows`, and prints both. The sets in the form that is read, and ImageNet's
weights of EfficientNet-Lite0 (`tf_efficientnet_lite0.in1k` of timm as safetensors), must be at hand.
"""
FIELDS = {
    "command": "of `train_seg.py`; `benchmarks/evidence_scores.py` makes the scores",
    "commit": "that it was trained at; `-changed`: with changes that were not committed, as ten rows of the first day, "
    "the first seed of the default on each set among them; before b415306 the labels of training lay half a pixel off",
    "adopted": "trained by this command, but not by `evidence.py run`",
    "device, threads, torch, precision": "of the training: an Intel Xeon in bfloat16 or an AMD EPYC in float32",
    "seconds, epochs": "of the training, whatever else ran beside it",
    "history": "of newer rows: IoU on val after each epoch, plain argmax, classes from frequent to rare",
    "scored": "the commit at which it was scored",
    "weights": "a hash of the weights that were scored",
    "auto, decisions": "which decision a run takes, and what each was fitted to",
    "scores": "on val held out, on test with the pixels of each block of images",
}
QUESTIONS = {
    "a": "a decision against plain argmax of the same networks",
    "b": "the paper's form against cross entropy",
    "c": "the best squared loss against the best cross entropy of each set",
    "d": "one squared loss for all sets against the best cross entropy of each, under the same decision and (*as "
    "others decide*) against the best plain argmax of cross entropy",
    "e": "what is left of these when training is long, and what long training adds to an arm, on the seeds of both",
    "default": "the loss that `train_seg.py` has without loss flags, decided as it does, against the plain argmax of "
    "whatever arm has the best one on that set's val in `short` (its own, if that is it), of `weighted_ce`, of `ce` "
    "and of the recipe of smp's multiclass example, and against the best other arm and `weighted_ce` under the same "
    "decision; network, sizes and epochs are the protocol's, not `train_seg.py`'s defaults",
    "plan": "what `python -m segloss.plan` said of a set then (of camvid and crackforest: the options that the "
    "protocol has already), its epochs cut to the same pixels seen, against the default, `weighted_ce` and smp's "
    "recipe",
    "size": "the default at full size against half (camvid), at half against full (crackforest), after as many pixels",
}
CAUTIONS = """Everything else is exploratory. "Images only" and "one seed" mark one seed, which says nothing of a
setting; "other" under machines: a and b were not trained on the same ones, which alone changed 0.3 to 0.4 points
where it was looked at. The arms weighted_ce, power075, ce, rank and power05 were listed after early figures that had
seen CamVid's test split with seed 0, so that seed 0 of these on CamVid confirms nothing new; other seeds and sets do.
The question **default** was added after its arm's first seed had been looked at on test on all four sets: seed 0 chose
it together with val, the other seeds confirm it or not.
"""


def write_tables(
    folder: Path,
    ours: dict[str, str],
    rivals: dict[str, str],
    default: str | None = None,
    said: Mapping[str, str] | None = None,
) -> None:
    """README.md, and a picture for each protocol, of the rows in a folder; ``said``: what each protocol is."""
    rows = Rows(read_rows(folder))
    best = [f"{name}: {' and '.join(a or 'none' for a in arms)}" for name, arms in choices(rows, ours, rivals).items()]
    fields = table(["in a row", "what it is"], FIELDS.items())
    ways = table(["decision", "what it is"], {**DECISIONS, "auto": AUTO}.items())
    asked = table(["question", "what is compared"], ((f"**{name}**", what) for name, what in QUESTIONS.items()))
    chosen = f"Chosen on held-out data of `{CHOSEN_BY}`, ours and rival ({DECIDED}): {'; '.join(best)}."
    page = [HEAD, *fields, *ways, *asked, CAUTIONS, chosen, ""]
    for protocol in rows.distinct("protocol"):
        page += [f"## Protocol `{protocol}`", "", *([said[protocol], ""] if said and protocol in said else [])]
        if draw(rows, protocol, folder / f"{protocol}.png", default):
            page += [f"![mIoU of every arm under every decision]({protocol}.png)", ""]
        page += comparison_table(comparisons(rows, protocol, ours, rivals, default))
        for dataset in rows.distinct("dataset", whole=True, protocol=protocol):
            page += test_table(rows, dataset, protocol) + class_table(rows, dataset, protocol)
        page += search_table(rows, protocol, [*ours, *rivals, *OF_DEFAULT])
    (folder / "README.md").write_text("\n".join(page).rstrip() + "\n")
    print(f"{len(rows.rows)} rows: {folder / 'README.md'}")
