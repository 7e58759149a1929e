"""A data set format is one module: registered there, known to ``build_dataset``, flags, help and class tables."""

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from segloss.datasets import DATASETS, FORMATS, OPTIONS_HELP, TABLES, build_dataset
from segloss.datasets.tables import ADE20K, CAMVID_11, CAMVID_32, CITYSCAPES, VOC
from segloss.errors import InputError

ROOT = Path(__file__).resolve().parents[2]
MODULE = '''
"""Noise, in two classes."""

from segloss.datasets.base import Format, SegmentationDataset
from segloss.datasets.missing import require_folder
from segloss.datasets.pairing import Pairing
from segloss.datasets.classes import ClassTable

QUIET = ClassTable(names=("quiet", "loud"), ids=(3, 4))


def noise(root, split, transform=None):
    found = Pairing("noise", [(root / "a.png", root / "b.png")], ["a"])
    return SegmentationDataset("noise", split, found, QUIET, transform)


FORMATS = (Format("noise", "as it is heard", noise, tables={"noise": QUIET, "noise-again": QUIET}),)
'''
PROGRAM = """
import contextlib, io, json, sys
from pathlib import Path
from segloss.config import TrainConfig, EvalConfig
from segloss.datasets import build_dataset
from segloss.doctor.command import main
from segloss.evaluation.matching import class_table
from segloss.flags import parse_config

config = parse_config(TrainConfig, "train_seg.py", ["--dataset", "noise", "--data-path", "here"])
helps = []
for kind in (TrainConfig, EvalConfig):
    with contextlib.redirect_stdout(io.StringIO()) as text, contextlib.suppress(SystemExit):
        parse_config(kind, "x", ["--help"])
    helps.append(" ".join(text.getvalue().split()))
print(json.dumps({
    "dataset": config.dataset,
    "names": config.open("train").names,
    "classes": build_dataset("NOISE", "here", "val").classes.names,
    "helps": helps,
    "table": class_table("noise-again", Path("nowhere")).ids,
    "heavy": [name for name in ("albumentations", "lightning") if name in sys.modules],
}))
"""


def test_a_format_is_one_new_module(tmp_path):
    for folder in ("segloss", "datasets"):
        shutil.copytree(ROOT / folder, tmp_path / folder, symlinks=True, ignore=shutil.ignore_patterns("__pycache__"))
    (tmp_path / "datasets/noise.py").write_text(MODULE)
    run = [sys.executable, "-c", PROGRAM]
    done = subprocess.run(run, cwd=tmp_path, env={"PYTHONPATH": str(tmp_path)}, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    said = json.loads(done.stdout)
    assert (said["dataset"], said["names"]) == ("noise", ["a"])
    assert (said["classes"], said["table"]) == (["quiet", "loud"], [3, 4])
    assert said["heavy"] == []
    assert all("noise (as it is heard)" in text for text in said["helps"])
    assert "noise, noise-again" in " ".join(said["helps"][1].split())  # of --class-table


def test_every_format_and_table_is_there_in_the_order_that_help_names_them():
    own = ("bdd100k", "camvid", "cityscapes", "cityscapes-coarse", "ade20k", "voc", "folder", "synthetic", "vistas")
    assert tuple(name for name in DATASETS if name in own) == own
    tables = {"camvid": CAMVID_11, "camvid-32": CAMVID_32, "cityscapes": CITYSCAPES, "ade20k": ADE20K, "voc": VOC}
    assert [item for item in TABLES.items() if item[0] in tables] == list(tables.items())
    assert {*OPTIONS_HELP} >= {"classes", "val_share"}
    assert all(form.help and name == name.lower() for name, form in FORMATS.items())


def test_docs_have_a_row_for_every_format():
    text = (ROOT / "docs/data.md").read_text(encoding="utf-8")
    assert {*re.findall(r"^\| `([a-z0-9-]+)` \|", text, re.MULTILINE)} >= {*DATASETS}


def test_names_are_matched_in_capitals_too():
    assert len(build_dataset("Synthetic", None, "val")) == 40
    with pytest.raises(InputError, match="unknown dataset 'Camvit'; choose one of bdd100k, camvid"):
        build_dataset("Camvit", None, "val")


HIDDEN = """
import sys
try:
    import datasets
except ModuleNotFoundError as error:
    print(error, "segloss" in sys.modules)
else:
    from datasets import part
    print(datasets.KIND, part.KIND)
"""


@pytest.mark.parametrize("installed", [False, True])
def test_the_folder_does_not_hide_hugging_faces_package(tmp_path, installed):
    """From the root of a checkout, where the folder of that name is found first."""
    elsewhere = tmp_path / "site/datasets"
    elsewhere.mkdir(parents=True)
    if installed:
        (elsewhere / "__init__.py").write_text("KIND = 'package'\n")
        (elsewhere / "part.py").write_text("from datasets import KIND\n")
    else:
        elsewhere.rmdir()
    run = [sys.executable, "-S", "-c", HIDDEN]  # without the packages of this environment
    done = subprocess.run(run, cwd=ROOT, env={"PYTHONPATH": str(tmp_path / "site")}, capture_output=True, text=True)
    assert done.stdout == ("package package\n" if installed else "No module named 'datasets' False\n"), done.stderr


@pytest.mark.parametrize("module", ["mirroring", "transforms"])
def test_albumentations_does_not_ask_the_network_for_a_newer_release(module):
    program = (
        "import importlib, os, sys\n"
        "class Watch:\n"
        "    def find_spec(self, name, *_):\n"
        "        if name == 'albumentations': print(os.environ.get('NO_ALBUMENTATIONS_UPDATE'))\n"
        "sys.meta_path.insert(0, Watch())\n"
        f"importlib.import_module('segloss.datasets.{module}')\n"
    )
    environment = {name: value for name, value in os.environ.items() if name != "NO_ALBUMENTATIONS_UPDATE"}
    environment["PYTHONPATH"] = str(ROOT)
    done = subprocess.run([sys.executable, "-c", program], env=environment, capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["1"]
