"""The quickstart notebook runs from top to bottom, and what is kept in it is what it shows."""

import os
import re
import sys
from pathlib import Path

import pytest

nbclient = pytest.importorskip("nbclient")
nbformat = pytest.importorskip("nbformat")
pytest.importorskip("ipykernel")

ROOT = Path(__file__).resolve().parents[2]
NOTEBOOK = ROOT / "docs/quickstart.ipynb"
SECONDS = 600  # of one cell, beside other work


def kinds(cell) -> list[str]:
    """What a cell has put out: words and pictures, in order."""
    return [next((kind for kind in output.get("data", {}) if kind == "image/png"), "text") for output in cell.outputs]


def words(cell) -> set[str]:
    """The words of a cell's text, without numbers."""
    return {*re.findall(r"[a-z_]{3,}", "".join(output.get("text", "") for output in cell.outputs))}


@pytest.fixture(scope="module")
def done(tmp_path_factory):
    """The notebook, run anew in an empty folder."""
    folder = tmp_path_factory.mktemp("notebook")
    notebook = nbformat.read(NOTEBOOK, as_version=4)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYTHONPATH", str(ROOT))
        patch.setenv("SEGLOSS_CACHE", str(folder / "cache"))
        patch.setenv("OMP_NUM_THREADS", "1")
        patch.setenv("PATH", f"{Path(sys.executable).parent}:{os.environ['PATH']}")
        patch.delenv("SEGLOSS_RUN_FOLDER", raising=False)
        nbclient.NotebookClient(
            notebook, timeout=SECONDS, kernel_name="python3", resources={"metadata": {"path": str(folder)}}
        ).execute()
    assert (folder / "runs/quickstart/checkpoints/best.ckpt").exists()
    return notebook


@pytest.mark.slow
def test_every_cell_puts_out_what_is_kept_in_it(done):
    kept = [cell for cell in nbformat.read(NOTEBOOK, as_version=4).cells if cell.cell_type == "code"]
    ran = [cell for cell in done.cells if cell.cell_type == "code"]
    assert [{*kinds(cell)} for cell in ran] == [{*kinds(cell)} for cell in kept]
    for now, then in zip(ran[0:1] + ran[3:], kept[0:1] + kept[3:], strict=True):  # training's words may change
        assert words(now) == words(then)


def test_pictures_and_scores_are_kept_in_it_and_no_place_of_anybodys():
    notebook = nbformat.read(NOTEBOOK, as_version=4)
    nbformat.validate(notebook)
    shown = [kind for cell in notebook.cells if cell.cell_type == "code" for kind in kinds(cell)]
    assert shown.count("image/png") == 2 and shown.count("text") >= 3
    assert not re.search(r"/(?:home|root|work|tmp|Users)/", NOTEBOOK.read_text(encoding="utf-8"))


@pytest.mark.slow
def test_the_rule_is_the_best_of_the_decisions_for_mean_iou(done):
    code = [cell for cell in done.cells if cell.cell_type == "code"]
    said = "".join(output.get("text", "") for output in code[3].outputs)
    plain, tau_0, iou = (float(value) for value in re.search(r"mean IoU +(\S+) +(\S+) +(\S+)", said).groups())
    assert iou > max(plain, tau_0)
