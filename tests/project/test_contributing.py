"""The three walks of CONTRIBUTING.md, done in a copy of the library: one new file, and everything knows it."""

import json
import os
import re
import shutil
import subprocess
import sys
from functools import cache
from pathlib import Path

import numpy as np
import pytest
import yaml
from data_trees import random_image, random_mask, write_png

ROOT = Path(__file__).resolve().parents[2]
PAGE = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
HEADINGS = ("Add a loss", "Add a data set", "Add a metric")
PATH_LINE = re.compile(r"^# (\S+\.py)\n")


def example(heading: str) -> tuple[str, str]:
    """Path and content of the module that a walk writes."""
    section = PAGE.split(f"\n## {heading}\n")[1].split("\n## ")[0]
    (code,) = re.findall(r"^```python\n(.*?)^```", section, flags=re.DOTALL | re.MULTILINE)
    return PATH_LINE.match(code)[1], PATH_LINE.sub("", code)


@pytest.fixture(scope="module")
def house_after(tmp_path_factory):
    """A copy of the library after a walk: one module more, nothing else changed."""

    @cache
    def build(heading: str) -> Path:
        root = tmp_path_factory.mktemp("house")
        ignore = shutil.ignore_patterns("__pycache__")
        shutil.copytree(ROOT / "segloss", root / "segloss", symlinks=True, ignore=ignore)
        shutil.copytree(ROOT / "datasets", root / "datasets", ignore=ignore)
        for script in ("train_seg.py", "eval_seg.py"):
            shutil.copy(ROOT / script, root)
        path, code = example(heading)
        assert not (root / path).exists() and (root / path).parent.is_dir()
        (root / path).write_text(code, encoding="utf-8")
        return root

    return build


def run(house: Path, *command: str) -> str:
    environment = {**os.environ, "PYTHONPATH": str(house), "SEGLOSS_CACHE": str(house / "cache")}
    done = subprocess.run([sys.executable, *command], cwd=house, capture_output=True, text=True, env=environment)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.mark.parametrize("heading", HEADINGS)
def test_a_walk_names_its_module_and_one_page_and_its_code_is_in_style(heading, tmp_path):
    section = PAGE.split(f"\n## {heading}\n")[1].split("\n## ")[0]
    path, code = example(heading)
    assert f"1. Write `{path}`" in section
    assert len(set(re.findall(r"docs/\w+\.md", section))) == 1
    (tmp_path / "module.py").write_text(code, encoding="utf-8")
    linted = ["ruff", "check", "--config", str(ROOT / "pyproject.toml"), str(tmp_path / "module.py")]
    done = subprocess.run([sys.executable, "-m", *linted], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout


def test_the_loss_has_its_flag_its_config_key_its_sums_and_its_equation(house_after):
    house = house_after("Add a loss")
    said = run(
        house,
        "-c",
        """
import json, torch
from segloss.losses import LOSSES, build_criterion, unused_options
logits, labels = torch.randn(2, 3, 4, 5, dtype=torch.float64), torch.randint(0, 3, (2, 4, 5))
labels[0, 0, 0] = 255
loop = []
for n, y, x in labels.ne(255).nonzero().tolist():
    p = logits[n, :, y, x].softmax(0)[labels[n, y, x]]
    loop.append(-p.log() + 2 * (1 - p))
counts = [900, 90, 10]
loss = build_criterion("poly1", counts, poly_epsilon=2)(logits, labels)
print(json.dumps({
    "known": "poly1" in LOSSES,
    "error": abs(loss.item() - sum(loop).item() / len(loop)),
    "sum": type(build_criterion("ce+0.5*weighted_poly1", counts)).__name__,
    "unused": unused_options("ce", ["poly_epsilon"]),
}))
""",
    )
    found = json.loads(said.splitlines()[-1])
    assert found.pop("error") < 1e-12  # float64
    assert found == {"known": True, "sum": "SumLoss", "unused": {"poly_epsilon": ["poly1"]}}
    shown = run(house, "train_seg.py", "--help")
    assert "--poly-epsilon" in shown and "weight of the miss" in " ".join(shown.split())
    asked = ("--dataset", "synthetic", "--loss", "poly1", "--poly-epsilon", "2")
    config = yaml.safe_load(run(house, "train_seg.py", *asked, "--print_config"))
    assert (config["loss"], config["poly_epsilon"]) == ("poly1", 2)


def test_the_example_loss_reads_its_posterior_at_its_optimum(house_after):
    house = house_after("Add a loss")
    said = run(
        house,
        "-c",
        """
import torch
from segloss.losses import build_criterion
criterion = build_criterion("weighted_poly1", [900, 90, 10], poly_epsilon=2.0)
share = torch.tensor([0.6, 0.3, 0.1])  # of the labels at one place, seen ten times
labels = torch.tensor([[0] * 6 + [1] * 3 + [2]])
z = torch.zeros(1, 3, 1, requires_grad=True)
optimiser = torch.optim.LBFGS([z], max_iter=200, line_search_fn="strong_wolfe", tolerance_grad=1e-9)
def closure():
    optimiser.zero_grad()
    loss = criterion(z.expand(1, 3, 10), labels)
    loss.backward()
    return loss
optimiser.step(closure)
print((criterion.posterior(z)[0, :, 0] - share).abs().max().item())
""",
    )
    assert float(said) < 1e-3  # of float32's optimum


def test_the_data_set_is_opened_listed_and_examined(house_after, tmp_path):
    house = house_after("Add a data set")
    for split in ("Train", "Val", "Test"):
        for place, area in enumerate(("Urban", "Rural")):
            seed = 10 * len(split) + place
            write_png(tmp_path / split / area / f"images_png/{seed}.png", random_image(seed, (32, 48)))
            if split != "Test":
                write_png(tmp_path / split / area / f"masks_png/{seed}.png", random_mask(seed, (32, 48), range(8)))
    said = run(
        house,
        "-c",
        f"""
import json
from segloss.datasets import TABLES, build_dataset
train, test = (build_dataset("loveda", {str(tmp_path)!r}, split) for split in ("train", "test"))
print(json.dumps([train.names, test.has_labels, sorted(set(train[0]["labels"].unique().tolist())), [*TABLES]]))
""",
    )
    names, labelled, values, tables = json.loads(said.splitlines()[-1])
    assert names == ["Urban/50", "Rural/51"] and not labelled
    assert values == [0, 1, 2, 3, 4, 5, 6, 255] and "loveda" in tables
    for script in ("train_seg.py", "eval_seg.py"):
        assert "loveda" in run(house, script, "--help")
    place = ("--dataset", "loveda", "--data-path", str(tmp_path))
    assert yaml.safe_load(run(house, "train_seg.py", *place, "--print_config"))["dataset"] == "loveda"
    assert "agriculture" in run(house, "-m", "segloss.frequency", *place)


def test_the_metric_is_in_help_files_terminal_and_page(house_after, tmp_path):
    house = house_after("Add a metric")
    generator = np.random.default_rng(0)
    for place in range(4):
        labels = generator.choice(np.array([0, 1, 255], np.uint8), (16, 16))
        labels[:4, :4] = 2 * (place % 2)  # class 2 is in every other image
        predicted = np.where(labels == 255, 0, labels).astype(np.uint8)
        if place == 1:
            predicted[predicted == 2] = 0  # and is missed in one
        write_png(tmp_path / f"true/{place}.png", labels)
        write_png(tmp_path / f"predicted/{place}.png", predicted)
    folders = ["--predictions", str(tmp_path / "predicted"), "--labels", str(tmp_path / "true")]
    (tmp_path / "true/classes.txt").write_text("wall\nfloor\nlamp\n")
    said = run(house, "eval_seg.py", *folders, "--presence", "--output-dir", str(tmp_path / "out"))
    (metrics,) = json.loads((tmp_path / "out/metrics.json").read_text())["runs"].values()
    assert [row["presence_f1"] for row in metrics["classes"]] == pytest.approx([1, 1, 2 / 3])
    assert metrics["presence_mean_f1"] == pytest.approx(8 / 9)
    header, *rows = (tmp_path / "out/per_class.csv").read_text().splitlines()
    assert "presence_f1" in header and len(rows) == 3
    assert "presence" in said and "presence F1" in (tmp_path / "out/report.html").read_text()
    assert "--presence" in run(house, "eval_seg.py", "--help")
