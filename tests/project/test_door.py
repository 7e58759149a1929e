"""What a newcomer meets before the code: forms, the workflow, hooks, the citation, and the parts of .ci/run."""

import os
import re
import subprocess
from configparser import ConfigParser
from pathlib import Path

import pytest
import yaml

import segloss

ROOT = Path(__file__).resolve().parents[2]
FORMS = [path for path in sorted((ROOT / ".github/ISSUE_TEMPLATE").glob("*.yml")) if path.stem != "config"]
PARTS = ["lint", "docs", "test", "camvid", "floor", "floor-train", "mmseg"]
TARGETS = {
    "test": "test",
    "lint": "lint",
    "docs": "docs",
    "floor": "test-floor",
    "floor-train": "test-floor-train",
    "mmseg": "test-mmseg",
    "camvid": "test-camvid",
}


def read(name: str) -> dict:
    return yaml.safe_load((ROOT / name).read_text(encoding="utf-8"))


@pytest.mark.parametrize("path", FORMS, ids=lambda path: path.stem)
def test_an_issue_form_has_what_github_asks_of_one(path):
    form = yaml.safe_load(path.read_text(encoding="utf-8"))
    assert form["name"] and form["description"]
    asked = [element for element in form["body"] if element["type"] != "markdown"]
    assert {element["type"] for element in asked} <= {"input", "textarea", "dropdown", "checkboxes"}
    assert all(element["attributes"]["label"] for element in asked)
    assert any(element.get("validations", {}).get("required") for element in asked)
    ids = [element["id"] for element in asked]
    assert len(ids) == len(set(ids)) and all(re.fullmatch(r"[\w-]+", name) for name in ids)


def test_there_are_forms_for_bugs_wrong_numbers_and_wishes():
    assert {path.stem for path in FORMS} == {"bug", "wrong_number", "feature"}


def test_the_workflow_runs_parts_that_there_are():
    workflow = read(".github/workflows/checks.yml")
    job = workflow["jobs"]["part"]
    parts = [row["part"] for row in job["strategy"]["matrix"]["include"]]
    assert parts == ["lint", "docs", "test", "floor", "floor-train", "mmseg"] and {*parts} <= {*PARTS}
    assert job["steps"][-1]["run"] == ".ci/run ${{ matrix.part }}"
    assert workflow["permissions"] == {"contents": "read"}


def test_the_hooks_are_the_tools_of_make_lint():
    hooks = [hook for repo in read(".pre-commit-config.yaml")["repos"] for hook in repo["hooks"]]
    linted = re.search(r"^lint:.*\n((?:\t.*\n)+)", (ROOT / "Makefile").read_text(), flags=re.MULTILINE)[1]
    for hook, line in zip(hooks, linted.splitlines(), strict=True):
        tool = line.strip().removeprefix("$(BIN)/").removesuffix(" .")
        assert hook["entry"].removesuffix(" --force-exclude") == f".venv/bin/{tool}"


def test_the_citation_is_complete_and_of_this_version():
    citation = read("CITATION.cff")
    assert {"cff-version", "message", "title", "authors"} <= citation.keys()  # what the format requires
    assert citation["version"] == segloss.__version__ and citation["license"] == "MIT"
    licence = (ROOT / "LICENSE").read_text()
    assert all(f"(c) 2026 {author['name']}" in licence for author in citation["authors"])
    for reference in citation["references"]:
        assert {"type", "title", "authors"} <= reference.keys()


@pytest.fixture
def ci(tmp_path):
    """Runs a copy of .ci/run where make only says what it was asked for."""
    for name, content in ((".ci/run", (ROOT / ".ci/run").read_text()), ("bin/make", '#!/bin/sh\necho "make $@"\n')):
        (tmp_path / name).parent.mkdir()
        (tmp_path / name).write_text(content)
        (tmp_path / name).chmod(0o755)
    (tmp_path / "bin/chromium").symlink_to(tmp_path / "bin/make")  # it is here already

    def run(*parts: str, **variables: str) -> subprocess.CompletedProcess:
        environment = {**os.environ, "SEGLOSS_CAMVID": "", **variables}
        environment["PATH"] = f"{tmp_path / 'bin'}:{environment['PATH']}"
        return subprocess.run([tmp_path / ".ci/run", *parts], capture_output=True, text=True, env=environment)

    return run


def test_without_arguments_every_part_runs_in_order(ci):
    done = ci(SEGLOSS_CAMVID="somewhere")
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines() == [f"make {TARGETS[part]}" for part in PARTS]


def test_camvid_is_left_out_with_a_word_where_it_is_not(ci):
    assert "CamVid is not at hand" in ci("camvid").stdout


@pytest.mark.parametrize("part", PARTS)
def test_each_part_runs_alone(ci, part):
    assert ci(part, SEGLOSS_CAMVID="somewhere").stdout == f"make {TARGETS[part]}\n"


def test_parts_run_in_the_order_asked_for(ci):
    assert ci("floor", "lint").stdout == "make test-floor\nmake lint\n"


def test_an_unknown_part_is_answered_with_the_known_ones_before_any_runs(ci):
    done = ci("lint", "flor")
    assert (done.returncode, done.stdout) == (2, "")
    assert "flor" in done.stderr and all(part in done.stderr for part in PARTS)


def test_a_part_that_fails_ends_the_run(ci, tmp_path):
    (tmp_path / "bin/make").write_text('#!/bin/sh\necho "make $@"\nexit 3\n')
    done = ci("lint", "floor")
    assert (done.returncode, done.stdout) == (3, "make lint\n")


MAKES_ENVIRONMENTS = """#!/bin/sh
case $1 in test-floor|test-floor-train|test-mmseg) used=.venv-${1#test-} ;; *) used=.venv ;; esac
mkdir -p $used && touch $used/.installed
echo $1 with $(ls -d .venv*)
"""


def test_an_environment_made_by_the_run_goes_with_the_last_part_that_needs_it(ci, tmp_path):
    (tmp_path / "bin/make").write_text(MAKES_ENVIRONMENTS)
    done = ci(SEGLOSS_CAMVID="somewhere")
    assert done.stdout.splitlines() == [
        *(f"{TARGETS[part]} with .venv" for part in PARTS[:4]),
        *(f"test-{part} with .venv-{part}" for part in ("floor", "floor-train", "mmseg")),
    ]
    assert not [*tmp_path.glob(".venv*")]
    assert ci("lint", "floor", "docs").stdout.splitlines()[1] == "test-floor with .venv .venv-floor"


def test_an_environment_that_was_there_stays(ci, tmp_path):
    (tmp_path / "bin/make").write_text(MAKES_ENVIRONMENTS)
    for used in (".venv", ".venv-mmseg"):
        (tmp_path / used).mkdir()
        (tmp_path / used / ".installed").touch()
    assert ci(SEGLOSS_CAMVID="somewhere").returncode == 0
    assert sorted(path.name for path in tmp_path.glob(".venv*")) == [".venv", ".venv-mmseg"]


def test_every_target_of_ci_is_one_of_the_makefile():
    makefile = (ROOT / "Makefile").read_text()
    for target in TARGETS.values():
        assert re.search(rf"^{target}:", makefile, flags=re.MULTILINE)


def test_the_core_is_tested_with_the_extra_of_that_name():
    setup = ConfigParser()
    setup.read(ROOT / "setup.cfg")
    small = {re.split(r"[>=<]", line)[0] for line in setup["options.extras_require"]["test"].split()}
    assert small == {"pytest", "pytest-xdist", "hypothesis"}
