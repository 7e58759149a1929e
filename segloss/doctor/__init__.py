"""Looks at a data set before training does: what is wrong, where, and the cure.

python -m segloss.doctor --dataset folder --data-path DIR --check all --output doctor.html
python -m segloss.doctor --predictions masks/A masks/B --labels masks/true

An error means that training or scores would be wrong (exit status 1), a warning that somebody should look.
"""

from typing import TYPE_CHECKING

from segloss.lazy import names_from

if TYPE_CHECKING:
    from segloss.doctor.examination import check_before, examine, examine_pair
    from segloss.doctor.findings import Finding, PairFacts, SplitFacts

__getattr__, __dir__ = names_from(
    __name__,
    {
        "segloss.doctor.examination": ("check_before", "examine", "examine_pair"),
        "segloss.doctor.findings": ("Finding", "PairFacts", "SplitFacts"),
    },
)

__all__ = ["Finding", "PairFacts", "SplitFacts", "check_before", "examine", "examine_pair"]
