"""`import segloss` needs torch alone, and imports go downwards only."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

HEAVY = [
    *("segmentation_models_pytorch", "timm", "torchvision", "albumentations"),
    *("cv2", "lightning", "rich", "yaml"),
]
ROOT = Path(__file__).resolve().parent.parent

# What each room of the house may import of segloss; `pixel_counts` and `config` serve both worlds.
ROWS = [
    {"errors", "files", "losses"},
    {"flags", "metrics", "adapters", "plots"},
    {"pixel_counts"},
    {"datasets"},
    {"config", "models"},
    {"runs", "inference", "results", "summary", "comparison"},
    {"operating_point", "mask_folders"},
    {"report", "frequency"},
    {"pages", "doctor"},
    {"evaluation", "training", "export"},
    {"sources"},
]


def loaded_by(code: str, among: list[str]) -> set[str]:
    """Which of the modules a fresh interpreter has loaded after running the code."""
    program = f"{code}\nimport sys\nprint(*[m for m in {among!r} if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    return set(done.stdout.split())


def test_importing_the_loss_loads_none_of_the_training_packages():
    code = (
        "import torch, segloss\n"
        "from segloss import OutlyingMSELoss, ConfusionMatrix, PixelCounts, count_labels\n"
        "counts = count_labels([torch.tensor([[0, 1], [1, 255]])], 2)\n"
        "OutlyingMSELoss.from_counts(counts.pixels)(torch.zeros(1, 2, 2, 2), torch.zeros(1, 2, 2).long())"
    )
    assert loaded_by(code, HEAVY) == set()


@pytest.mark.parametrize("name", ["cv2", "rich"])
def test_the_check_above_sees_a_heavy_import(name):
    assert name in loaded_by(f"import segloss, {name}", HEAVY)


def rooms_imported_at_the_top(path: Path) -> set[str]:
    """Rooms of segloss that a file imports when it is itself imported (function bodies run later)."""
    rooms = set()
    for node in ast.parse(path.read_text(encoding="utf-8")).body:
        if isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] == "segloss":
            rooms.add([*node.module.split("."), "__init__"][1])
        elif isinstance(node, ast.Import):
            rooms |= {alias.name.split(".")[1] for alias in node.names if alias.name.startswith("segloss.")}
    return rooms


def row_of(room: str) -> int:
    return next(row for row, rooms in enumerate(ROWS) if room in rooms)


def rooms_with_files() -> list[tuple[str, Path]]:
    plain = [(path.stem, path) for path in (ROOT / "segloss").glob("*.py") if path.stem != "__init__"]
    losses = [("losses", path) for path in (ROOT / "segloss/losses").glob("*.py")]
    return plain + losses + [("datasets", path) for path in (ROOT / "datasets").glob("*.py")]


@pytest.mark.parametrize(("room", "path"), rooms_with_files(), ids=lambda value: getattr(value, "stem", value))
def test_imports_go_downwards_only(room, path):
    upwards = {other for other in rooms_imported_at_the_top(path) if row_of(other) > row_of(room)}
    assert not upwards, f"{path.name} imports {upwards} from above it"


def test_data_sets_know_only_errors_and_the_ignored_label():
    for path in (ROOT / "datasets").glob("*.py"):
        assert rooms_imported_at_the_top(path) <= {"datasets", "errors", "losses"}


def test_metrics_know_only_the_ignored_label():
    tree = ast.parse((ROOT / "segloss/metrics.py").read_text(encoding="utf-8"))
    modules = [node.module for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)]
    assert [m for m in modules if m.startswith("segloss")] == ["segloss.losses.reduction"]


def test_setup_cfg_lists_every_package_folder():
    listed = (ROOT / "setup.cfg").read_text(encoding="utf-8")
    folders = {path.parent.relative_to(ROOT) for path in (ROOT / "segloss").rglob("__init__.py")}
    for folder in folders:
        assert f"\n    {'.'.join(folder.parts)}\n" in listed
    assert not [path for path in (ROOT / "datasets").rglob("__init__.py") if path.parent != ROOT / "datasets"]
