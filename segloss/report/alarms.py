"""What a person must not overlook in the scores of a network: classes that it does not find."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

from segloss.report.wording import percent
from segloss.schema import RunScores

if TYPE_CHECKING:
    from segloss.metrics import Scores

TOLD = 3  # rarest classes

NOT_FOUND = 0.05  # recall below which a class counts as hardly found, and IoU below which the rule does not find it
NOT_FOUND_CURE = (
    "train longer, begin with pretrained weights (--encoder-weights), show it more often (--guided-crops 0.5), or "
    "weigh it more (--loss weighted_ce, unless the loss has class weights already)"
)


def gain_by_rule(scores: RunScores, by_rule: "Scores") -> str:
    """What the IoU rule makes of the same scores of the network: the mean, and the rarest classes.

    Args:
        scores: of the plain decision. by_rule: of the rule, with the protocol of ``scores``.
    """
    there = [place for place, row in enumerate(scores.classes) if row.pixels]
    rarest = sorted(there, key=lambda place: scores.classes[place].pixels)[:TOLD]
    classes = ", ".join(
        f"{scores.classes[c].name} {percent(scores.classes[c].iou)} -> {percent(float(by_rule.iou[c]))}" for c in rarest
    )
    means = f"mIoU {percent(scores.miou)} -> {percent(by_rule.miou)}"
    return f"decided for mean IoU (--decision iou): {means}; IoU of the rarest: {classes}"


def not_found(
    scores: RunScores,
    by_rule: "Scores | None" = None,
    *,
    before: str = "",
    training_pixels: Sequence[int] | None = None,
) -> list[str]:
    """A line on each kind of classes that have pixels and of whose pixels fewer than 5 % are found.

    Args:
        before: what to do before anything else.
        by_rule: under the IoU rule, where that is known: what it finds, at an IoU of 5 % or more, needs another
            decision, not another training.
        training_pixels: of each class, where they are known: what was never seen needs labels, and no other training.
    """
    lost = [
        place
        for place, row in enumerate(scores.classes)
        if row.pixels and row.recall is not None and row.recall < NOT_FOUND
    ]
    unseen = [place for place in lost if training_pixels is not None and not training_pixels[place]]
    lost = [place for place in lost if place not in unseen]
    saved = [place for place in lost if by_rule is not None and float(by_rule.iou[place]) >= NOT_FOUND]
    lines = []
    if unseen:
        named = ", ".join(scores.classes[c].name for c in unseen)
        cure = "give train images that hold it, or ignore it in the class file"
        lines.append(f"not found, as no pixel of train is labelled so: {named}; {cure}")
    if by_rule is not None and saved:
        found = ", ".join(
            f"{scores.classes[c].name} ({percent(float(by_rule.recall[c]))} % of its pixels)" for c in saved
        )
        lines.append(f"found by the decision for mean IoU alone: {found}; use --decision iou")
    if gone := [scores.classes[c].name for c in lost if c not in saved]:
        cure = f"{before}{NOT_FOUND_CURE}; python -m segloss.plan tells what the data can give"
        lines.append(f"hardly found, with fewer than 5 % of the pixels recalled: {', '.join(gone)}; {cure}")
    return lines
