"""A run of one epoch on made-up streets, for tests of what is made of a run."""

from pathlib import Path

import pytest
from street_trees import TINY, street_tree

import train_seg


def tiny_run(root: Path, *flags: str) -> Path:
    """The run folder; its data lie in ``root / "data"``."""
    data = street_tree(root / "data")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SEGLOSS_CACHE", str(root / "cache"))
        patch.delenv("SEGLOSS_RUN_FOLDER", raising=False)
        where = ["--dataset", "camvid", "--data-path", str(data), "--output-dir", str(root / "run")]
        train_seg.train([*where, *TINY, "--epochs", "1", *flags])
    return root / "run"
