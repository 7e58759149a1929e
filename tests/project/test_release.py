"""What a release is made of: floors with reasons, the recipe for conda, the Dockerfile, one version."""

import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from floors import SETUP, floors

import segloss

ROOT = Path(__file__).resolve().parents[2]
HADOLINT = shutil.which("hadolint", path=str(Path(sys.executable).parent)) or shutil.which("hadolint")
CONDA_NAMES = {"torch": "pytorch", "opencv-python-headless": "py-opencv", "matplotlib": "matplotlib-base"}


def test_every_package_of_core_and_training_has_a_floor_with_its_reason():
    text = SETUP.read_text(encoding="utf-8")
    for name, floor in floors("train").items():
        assert floor, f"{name} has no oldest version"
        before = re.search(rf"^(.*)\n    {re.escape(name)}>=", text, flags=re.MULTILINE)[1]
        assert before.strip().startswith("#") and len(before.strip()) > 12, f"{name}: the line above says why"


@pytest.mark.parametrize("extra", ["export", "hf", "rasterise", "docs"])
def test_every_package_of_the_other_extras_has_a_floor(extra):
    assert all(floors(extra).values())


def test_constraints_are_the_floors():
    said = subprocess.run([sys.executable, "tests/support/floors.py"], cwd=ROOT, capture_output=True, text=True).stdout
    assert said.splitlines() == [f"{name}=={floor}" for name, floor in floors("train").items()]
    assert said.startswith("torch==2.")


def recipe() -> dict:
    """The recipe of conda-build, its one variable put in."""
    text = (ROOT / "conda/meta.yaml").read_text(encoding="utf-8")
    version = re.search(r'{% set version = "(.*)" %}', text)[1]
    plain = re.sub(r"{%.*?%}", "", text).replace("{{ version }}", f'"{version}"').replace("{{ PYTHON }}", "python")
    return yaml.safe_load(plain)


def test_the_recipe_of_conda_asks_for_what_setup_cfg_asks_for():
    found = recipe()
    assert found["package"] == {"name": "segloss-imbalanced", "version": segloss.__version__}
    asked = {line.split(" ")[0]: line.split(">=")[1].split(",")[0] for line in found["requirements"]["run"]}
    assert asked.pop("python") == re.search(r"python_requires = >=(.*)", SETUP.read_text())[1]
    expected = {CONDA_NAMES.get(name, name): floor for name, floor in floors("train").items()}
    expected["py-opencv"] = expected["py-opencv"].rsplit(".", 1)[0]  # the wheel's fourth number is not OpenCV's
    assert asked == expected


def test_the_recipe_of_conda_has_the_commands():
    commands = re.search(r"console_scripts =\n((?:    .*\n)+)", SETUP.read_text())[1]
    assert recipe()["build"]["entry_points"] == [line.strip() for line in commands.splitlines()]


@pytest.mark.skipif(not HADOLINT, reason="no hadolint here")
def test_the_dockerfile_is_linted():
    done = subprocess.run([HADOLINT, "--no-color", "Dockerfile"], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout


@pytest.mark.skipif(not HADOLINT, reason="no hadolint here")
def test_a_dockerfile_with_a_fault_is_seen(tmp_path):
    (tmp_path / "Dockerfile").write_text("FROM debian\nRUN cd /tmp\nRUN sudo true\n")
    done = subprocess.run([HADOLINT, "--no-color", tmp_path / "Dockerfile"], capture_output=True, text=True)
    assert done.returncode != 0 and "DL3004" in done.stdout


def test_the_dockerfile_copies_what_is_there_and_leaves_out_what_is_large():
    text = (ROOT / "Dockerfile").read_text(encoding="utf-8")
    assert re.search(r"^ARG BASE=\S+\nFROM \$\{BASE\}$", text, flags=re.MULTILINE)
    extras = re.search(r"/opt/segloss\[(.*?)\]", text)[1].split(",")
    assert all(f"\n{extra} =\n" in SETUP.read_text() for extra in extras)
    assert {".git", ".venv*", ".data", "runs"} <= {*(ROOT / ".dockerignore").read_text().split()}


def test_the_name_on_the_index_is_the_one_that_messages_give():
    name = re.search(r"^name = (\S+)$", SETUP.read_text(), flags=re.MULTILINE)[1]
    assert name == "segloss-imbalanced"
    for path in [*(ROOT / "datasets").glob("*.py"), *(ROOT / "segloss/rasterise").glob("*.py"), ROOT / "docs/data.md"]:
        for asked in re.findall(r'pip install "([\w-]+)\[', path.read_text(encoding="utf-8")):
            assert asked == name, path
