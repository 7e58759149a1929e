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
ROOT = Path(__file__).resolve().parents[2]

# The house from the ground up: a room imports what stands in its own row or in a lower one.
ROWS = [
    {"errors", "files", "launchers", "lazy", "options", "progress", "ranks", "synonyms"},
    # the core: torch alone
    {
        *("losses", "metrics", "decisions", "label_maps", "pixel_counts", "adapters"),
        *("schema", "pixel_sample", "iou_rule", "calibration"),
    },
    {"datasets", "flags", "measures", "written_options"},
    {"early", "completion", "commands"},
    {"config", "models", "band_statistics", "encoder_weights", "weight_files", "hub"},
    {"inference", "kept", "run_folder", "runs", "resume"},
    {"report"},
    {"evaluation"},
    {"doctor"},
    {"plan"},
    {"training"},
    {"frequency", "export", "rasterise", "demo"},
    {"described"},
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


def imported_by(source: str) -> set[str]:
    """Modules of segloss that a file imports, in functions too; what only readers of types see is left out."""
    found: set[str] = set()
    waiting = [ast.parse(source)]
    while waiting:
        node = waiting.pop()
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.dump(node.test):
            waiting += node.orelse
            continue
        waiting += ast.iter_child_nodes(node)
        if isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] == "segloss":
            found |= {node.module} if "." in node.module else {f"segloss.{alias.name}" for alias in node.names}
        elif isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names if alias.name.startswith("segloss.")}
    return found


def room_of(module: str) -> str:
    return module.split(".")[1]


def row_of(room: str) -> int:
    return next(row for row, rooms in enumerate(ROWS) if room in rooms)


def upward_imports(room: str, source: str) -> set[str]:
    return {module for module in imported_by(source) if row_of(room_of(module)) > row_of(room)}


FILES = {
    ".".join(path.relative_to(ROOT).with_suffix("").parts): path
    for path in sorted((ROOT / "segloss").glob("**/*.py"))
    if path.parent != ROOT / "segloss" or path.stem not in ("__init__", "__main__")
} | {f"segloss.datasets.{path.stem}": path for path in sorted((ROOT / "datasets").glob("*.py"))}


@pytest.mark.parametrize("module", FILES)
def test_imports_go_downwards_only(module):
    upwards = upward_imports(room_of(module), FILES[module].read_text(encoding="utf-8"))
    assert not upwards, f"{module} imports {upwards} from above it"


@pytest.mark.parametrize(
    "planted",
    [
        "from segloss.evaluation.score import score",
        "def late():\n    from segloss.training import build_trainer",
        "class Late:\n    def method(self):\n        import segloss.report.pages",
    ],
)
def test_a_forbidden_import_is_seen_wherever_it_is_planted(planted):
    source = FILES["segloss.runs"].read_text(encoding="utf-8")
    assert upward_imports("runs", f"{source}\n{planted}\n")


def test_no_two_modules_import_each_other_in_a_circle():
    arrows = {name: imported_by(path.read_text(encoding="utf-8")) & {*FILES} for name, path in FILES.items()}
    while leaves := {name for name, found in arrows.items() if not found}:
        arrows = {name: found - leaves for name, found in arrows.items() if name not in leaves}
    assert not arrows, f"among these is a circle: {sorted(arrows)}"


def test_the_package_itself_imports_nothing():
    imported = imported_by((ROOT / "segloss/__init__.py").read_text(encoding="utf-8"))
    assert imported == {"segloss.lazy"}  # but for readers of types: what is asked for is imported then


def test_data_sets_know_only_errors_how_names_are_compared_and_the_ignored_label():
    for module, path in FILES.items():
        if room_of(module) == "datasets":
            own = {m for m in imported_by(path.read_text(encoding="utf-8")) if room_of(m) != "datasets"}
            assert own <= {"segloss.errors", "segloss.files", "segloss.losses.labels"}, module


def test_metrics_know_only_labels_and_kinds_of_numbers():
    imported = imported_by((ROOT / "segloss/metrics.py").read_text(encoding="utf-8"))
    assert imported == {"segloss.losses.labels", "segloss.losses.ranges"}


def test_setup_cfg_lists_every_package_folder():
    listed = (ROOT / "setup.cfg").read_text(encoding="utf-8")
    folders = {path.parent.relative_to(ROOT) for path in (ROOT / "segloss").glob("**/__init__.py")}
    for folder in folders:
        assert f"\n    {'.'.join(folder.parts)}\n" in listed
    assert not [path for path in (ROOT / "datasets").rglob("__init__.py") if path.parent != ROOT / "datasets"]
