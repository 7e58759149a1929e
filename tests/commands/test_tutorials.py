"""The tutorials, done as they are written: files, commands, and what they print."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
PAGES = sorted((ROOT / "docs/tutorials").glob("*.md"))
BLOCK = re.compile(r"^```(\w*)\n(.*?)^```", flags=re.DOTALL | re.MULTILINE)
NAMED = re.compile(r"\A# (\S+\.\w+)\n")
SHOWN = re.compile(r"`((?:[\w.-]+/)+[\w.-]+\.\w+)`")
NUMBER = re.compile(r"[-+]?\d[\d.,]*")


def unlike_in_numbers_alone(line: str) -> str:
    """A line of output with its numbers hidden and its spaces alike: numbers differ from machine to machine."""
    return " ".join(NUMBER.sub("#", line).split())


def do(page: str, folder: Path, path: str) -> list[str]:
    """Write a page's files, run its shell blocks, and compare outputs; the commands' outputs."""
    outputs = []
    for language, block in BLOCK.findall(page):
        if language in ("python", "yaml"):
            name = NAMED.match(block)
            assert name, f"a block of {language} begins with the name of its file: {block[:60]!r}"
            (folder / name[1]).write_text(block, encoding="utf-8")
        elif language == "text":
            said = {unlike_in_numbers_alone(line) for line in outputs[-1].splitlines()}
            missing = [line for line in block.splitlines() if unlike_in_numbers_alone(line) not in {*said, "", "..."}]
            assert not missing, f"not said: {missing}\nbut:\n{outputs[-1]}"
        else:
            environment = {**os.environ, "PATH": path, "PYTHONPATH": str(ROOT), "COLUMNS": "100"}
            environment |= {"SEGLOSS_CACHE": str(folder / "cache"), "OMP_NUM_THREADS": "1"}
            environment.pop("SEGLOSS_RUN_FOLDER", None)
            asked = ["bash", "-euo", "pipefail", "-c", block]
            done = subprocess.run(asked, cwd=folder, capture_output=True, text=True, env=environment)
            assert done.returncode == 0, block + done.stdout + done.stderr
            outputs.append(done.stdout + done.stderr)
    return outputs


@pytest.fixture
def place(tmp_path):
    """A folder where the clone's scripts and pages are, and a path on which `python` is this one."""
    for name in ("train_seg.py", "eval_seg.py", "docs"):
        (tmp_path / name).symlink_to(ROOT / name)
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin/python").write_text(f'#!/bin/sh\nexec "{sys.executable}" "$@"\n')
    (tmp_path / "bin/python").chmod(0o755)
    return tmp_path, f"{tmp_path / 'bin'}:{os.environ['PATH']}"


@pytest.mark.slow
@pytest.mark.parametrize("path", PAGES, ids=lambda path: path.stem)
def test_a_tutorial_can_be_done_as_it_is_written(path, place):
    folder, executables = place
    page = path.read_text(encoding="utf-8")
    assert do(page, folder, executables)
    for name in {*SHOWN.findall(page)}:
        assert (folder / name).exists(), f"{path.name} speaks of {name}"


def test_there_is_a_tutorial_for_each_who_comes():
    assert [path.stem for path in PAGES] == ["camvid", "loss", "masks", "photographs"]


@pytest.mark.parametrize(
    ("page", "complaint"),
    [
        ("```\nfalse\n```\n", "false"),
        ("```\necho mIoU 3.5\n```\n\n```text\nmIoU of 4.5\n```\n", "not said"),
        ("```python\nprint(1)\n```\n", "name of its file"),
    ],
)
def test_a_tutorial_that_cannot_be_done_is_seen(page, complaint, place):
    with pytest.raises(AssertionError, match=complaint):
        do(page, *place)


def test_numbers_may_differ_and_words_may_not(place):
    assert do("```\necho 'mIoU  3.5 of  11'\n```\n\n```text\nmIoU 4.25 of 11\n...\n```\n", *place) == [
        "mIoU  3.5 of  11\n"
    ]
