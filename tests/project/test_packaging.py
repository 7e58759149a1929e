"""Wheel and sdist, installed in a clean virtual environment away from the checkout."""

import ast
import os
import re
import subprocess
import sys
import sysconfig
import tarfile
import venv
import zipfile
from pathlib import Path

import pytest

pytestmark = pytest.mark.packaging
ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def archives(tmp_path_factory) -> tuple[Path, Path]:
    """The sdist, and the wheel that is built from it."""
    out = tmp_path_factory.mktemp("dist")
    checkout = tmp_path_factory.mktemp("checkout")
    tracked = subprocess.run(
        ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
        cwd=ROOT,
        capture_output=True,
        text=True,
    ).stdout.split("\0")
    names = [n for n in tracked if n] or [
        str(p.relative_to(ROOT)) for p in ROOT.rglob("*.*") if not any(part.startswith(".venv") for part in p.parts)
    ]
    for name in names:
        if (ROOT / name).is_symlink():
            (checkout / name).parent.mkdir(parents=True, exist_ok=True)
            (checkout / name).symlink_to((ROOT / name).readlink())
        elif (ROOT / name).is_file():
            (checkout / name).parent.mkdir(parents=True, exist_ok=True)
            (checkout / name).write_bytes((ROOT / name).read_bytes())
    build = [sys.executable, "-m", "build", "--no-isolation", "--outdir", out, checkout]
    done = subprocess.run(build, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    return next(out.glob("*.tar.gz")), next(out.glob("*.whl"))


@pytest.fixture(scope="module")
def clean_python(archives, tmp_path_factory) -> Path:
    """The interpreter of an environment that holds the wheel, with our dependencies lent but not our checkout."""
    folder = tmp_path_factory.mktemp("clean")
    venv.create(folder, with_pip=True)
    python = folder / "bin/python"
    subprocess.run([python, "-m", "pip", "install", "--quiet", "--no-deps", archives[1]], check=True)
    site = subprocess.run(
        [python, "-c", "import sysconfig; print(sysconfig.get_path('purelib'))"], capture_output=True, text=True
    )
    # A path file is not followed further, so the checkout's editable installation stays out of sight.
    Path(site.stdout.strip(), "lent.pth").write_text(sysconfig.get_path("purelib") + "\n")
    return python


def run(command: list, cwd: Path) -> subprocess.CompletedProcess:
    environment = {**os.environ, "SEGLOSS_CACHE": str(cwd / "cache")}
    environment.pop("PYTHONPATH", None)
    return subprocess.run(command, cwd=cwd, capture_output=True, text=True, env=environment)


def test_the_installed_package_is_the_wheels_and_every_room_imports(clean_python, tmp_path):
    code = (
        "import importlib, pkgutil, segloss\n"
        "for module in pkgutil.walk_packages(segloss.__path__, 'segloss.'):\n"
        "    if not module.name.endswith('__main__'):\n"
        "        print(importlib.import_module(module.name).__file__)\n"
        "import train_seg, eval_seg; print(train_seg.__file__)"
    )
    done = run([clean_python, "-c", code], tmp_path)
    assert done.returncode == 0, done.stderr
    files = done.stdout.split()
    assert len(files) > 50 and all(str(clean_python.parent.parent) in file for file in files)


def test_no_top_level_package_called_datasets_is_installed(clean_python, archives, tmp_path):
    names = {name.split("/")[0] for name in zipfile.ZipFile(archives[1]).namelist()}
    assert {"segloss", "train_seg.py", "eval_seg.py"} <= names and "datasets" not in names and "tests" not in names


def test_package_data_is_in_the_wheel(archives):
    names = {*zipfile.ZipFile(archives[1]).namelist()}
    page = {f"segloss/demo/page/{path.name}" for path in (ROOT / "segloss/demo/page").iterdir()}
    assert len(page) == 4 and {"segloss/py.typed", *page} <= names


def test_the_index_would_take_both(archives):
    """Their metadata are read, and the README is drawn, as the index does it."""
    done = run([sys.executable, "-m", "twine", "check", "--strict", *archives], archives[0].parent)
    assert done.returncode == 0, done.stdout
    assert done.stdout.count("PASSED") == 2


def test_the_wheel_holds_no_stray_file(archives):
    """Tests, caches, empty packages, modules beside the package that are not meant to be there."""
    asked = [Path(sys.executable).with_name("check-wheel-contents"), "--toplevel", "segloss,train_seg.py,eval_seg.py"]
    done = run([*asked, archives[1]], archives[1].parent)
    assert done.returncode == 0, done.stdout
    assert done.stdout.strip().endswith("OK")


def test_the_version_stands_in_one_place(archives):
    version = ast.literal_eval(re.search(r"^__version__ = (.*)$", (ROOT / "segloss/__init__.py").read_text(), re.M)[1])
    assert [path.name for path in archives] == [
        f"segloss_imbalanced-{version}.tar.gz",
        f"segloss_imbalanced-{version}-py3-none-any.whl",
    ]


def test_the_sdist_holds_what_it_takes_to_test(archives):
    with tarfile.open(archives[0]) as sdist:
        names = {name.split("/", 1)[1] for name in sdist.getnames() if "/" in name}
    for name in ("README.md", "LICENSE", "CHANGELOG.md", "Makefile", "setup.cfg", "pyproject.toml", "docs/demo.yaml"):
        assert name in names
    for name in ("mkdocs.yml", "docs/site/pages.py", "docs/quickstart.ipynb", "Dockerfile", "conda/meta.yaml"):
        assert name in names
    for name in ("CONTRIBUTING.md", "SECURITY.md", "CITATION.cff", ".pre-commit-config.yaml", ".ci/run"):
        assert name in names
    forms = {path.relative_to(ROOT).as_posix() for path in (ROOT / ".github").rglob("*.*")}
    assert len(forms) == 6 and forms <= names
    assert {f"datasets/{path.name}" for path in (ROOT / "datasets").glob("*.py")} <= names
    tests = {path.relative_to(ROOT).as_posix() for path in (ROOT / "tests").rglob("*.py")}
    assert len(tests) > 40 and tests <= names
    assert not [name for name in names if name.startswith("segloss/datasets")]  # the link, which would be copies


def test_both_commands_work_away_from_the_checkout(clean_python, tmp_path):
    bin_folder = clean_python.parent
    flags = ["--dataset", "synthetic", "--encoder", "resnet18", "--epochs", "1", "--image-scale", "0.25"]
    flags += ["--crop-size", "32", "32", "--batch-size", "16", "--workers", "0", "--output-dir", "run"]
    trained = run([bin_folder / "segloss-train", *flags], tmp_path)
    assert trained.returncode == 0, trained.stderr
    evaluated = run([bin_folder / "segloss-eval", "--checkpoint", "run", "--workers", "0"], tmp_path)
    assert evaluated.returncode == 0, evaluated.stderr
    assert (tmp_path / "run/eval-test/metrics.json").exists()


def test_both_commands_explain_themselves(clean_python, tmp_path):
    for command, flag in (("segloss-train", "--label-values"), ("segloss-eval", "--decision")):
        done = run([clean_python.parent / command, "--help"], tmp_path)
        assert done.returncode == 0 and flag in done.stdout
