"""The code blocks of docs/integrate.md, run as they stand."""

import re
from pathlib import Path

import pytest
import torch

PAGE = Path(__file__).resolve().parents[2] / "docs/integrate.md"


def documented_blocks() -> dict[str, str]:
    """Python code by the heading of its section."""
    blocks = {}
    for section in PAGE.read_text(encoding="utf-8").split("\n## ")[1:]:
        heading = section.split("\n", 1)[0]
        code = re.findall(r"^```python\n(.*?)^```", section, flags=re.DOTALL | re.MULTILINE)
        assert len(code) == 1, f"section {heading!r} has {len(code)} python blocks; one is run"
        blocks[heading] = code[0]
    return blocks


def check_trained_and_read(names: dict) -> None:
    """A block leaves falling losses behind, scores, and both readings of them."""
    losses, logits, probabilities = names["losses"], names["logits"], names["probabilities"]
    assert len(losses) >= 4 and losses[-1] < losses[0], losses
    assert torch.equal(names["class_map"], names["criterion"].decide(logits))
    assert names["class_map"].shape == (logits.shape[0], *logits.shape[2:])
    assert probabilities.shape == logits.shape
    torch.testing.assert_close(probabilities.sum(1), torch.ones_like(probabilities[:, 0]))


def run_block(heading: str, folder: Path) -> None:
    """Run a section's block in ``folder`` and check what it leaves behind."""
    names = {"__name__": "block"}
    torch.manual_seed(0)
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        exec(compile(documented_blocks()[heading], f"{PAGE.name}: {heading}", "exec"), names)
    check_trained_and_read(names)
