"""A model and a data set -> predictions and a confusion matrix, at the labels' own resolution."""

from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from segloss.config import DataOptions, EvalConfig
from segloss.datasets import SegmentationDataset
from segloss.datasets.loading import evaluation_loader
from segloss.datasets.transforms import EvalTransform
from segloss.errors import InputError
from segloss.files import write_bytes
from segloss.losses import Criterion
from segloss.metrics import ConfusionMatrix
from segloss.models import logits_at_size
from segloss.runs import Run

Progress = Callable[[Iterable, int], Iterable]


def pick_device(accelerator: str) -> torch.device:
    """``auto`` takes CUDA, then MPS, then the CPU; InputError for an accelerator that is not there."""
    has_mps = torch.backends.mps.is_available()
    if accelerator == "cpu":
        return torch.device("cpu")
    if torch.cuda.is_available() and accelerator in ("auto", "gpu", "cuda"):
        return torch.device("cuda")
    if has_mps and accelerator in ("auto", "gpu", "mps"):
        return torch.device("mps")
    if accelerator == "auto":
        return torch.device("cpu")
    raise InputError(f"--accelerator {accelerator}: there is no such device here; use cpu or auto")


def resolve_precision(precision: str, device: torch.device) -> str:
    """``auto`` is bfloat16 autocast where the hardware computes in it, float16 on older GPUs, else float32."""
    if precision == "16-mixed" and device.type == "cpu":
        raise InputError("--precision 16-mixed needs a GPU; use bf16-mixed or 32-true on the CPU")
    if precision != "auto":
        return precision
    if device.type == "cuda":
        return "bf16-mixed" if torch.cuda.is_bf16_supported(including_emulation=False) else "16-mixed"
    checks = (getattr(torch.cpu, name, None) for name in ("_is_avx512_bf16_supported", "_is_amx_tile_supported"))
    if device.type == "cpu" and any(check() for check in checks if check is not None):
        return "bf16-mixed"
    return "32-true"


def autocast(precision: str, device: torch.device) -> AbstractContextManager:
    """The autocast of a precision's name."""
    kind = {"bf16-mixed": torch.bfloat16, "16-mixed": torch.float16}.get(precision)
    return nullcontext() if kind is None else torch.autocast(device.type, dtype=kind)


def same_shape_groups(samples: list[dict]) -> Iterator[list[dict]]:
    """Runs of neighbouring samples that can be stacked: equal image shape and equal label size."""
    group: list[dict] = []
    for sample in samples:
        if group and (sample["image"].shape, sample["size"]) != (group[0]["image"].shape, group[0]["size"]):
            yield group
            group = []
        group.append(sample)
    if group:
        yield group


@torch.inference_mode()
def predict(
    model: nn.Module,
    criterion: Criterion,
    batches: Iterable[list[dict]],
    *,
    device: torch.device,
    precision: str = "32-true",
    decision_tau: float = 1.0,
) -> Iterator[tuple[dict, Tensor]]:
    """Yield each sample with its predicted class numbers, int64 ``size`` on the CPU.

    Args:
        model: in whatever mode; it is put into eval mode and left there.
        criterion: whose decision rule is used.
        batches: lists of samples, as :func:`segloss.datasets.loading.evaluation_loader` makes them.
        device, precision: where and how the network runs; decisions are made in float32.
        decision_tau: operating point, as in :meth:`Criterion.decide`.
    """
    model.to(device).eval()
    criterion.to(device)
    for samples in batches:
        for group in same_shape_groups(samples):
            images = torch.stack([sample["image"] for sample in group]).to(device)
            with autocast(precision, device):
                logits = logits_at_size(model, images, group[0]["size"])
            yield from zip(group, criterion.decide(logits, decision_tau).cpu(), strict=True)


def evaluate(
    predictions: Iterable[tuple[dict, Tensor]],
    num_classes: int,
    *,
    length: int,
    progress: Progress | None = None,
    on_sample: Callable[[dict, Tensor], None] | None = None,
) -> ConfusionMatrix:
    """Confusion matrix of everything :func:`predict` yields.

    Args:
        predictions: samples with ``labels``, and predicted class numbers of the same size.
        num_classes: C.
        length: number of samples, for ``progress``.
        progress: wraps the iteration, see :func:`segloss.report.progress_bar`.
        on_sample: called with each sample and prediction, for instance to save or draw them.
    """
    confusion = ConfusionMatrix(num_classes)
    for sample, predicted in progress(predictions, length) if progress else predictions:
        confusion.update(predicted, sample["labels"])
        if on_sample is not None:
            on_sample(sample, predicted)
    return confusion


def save_index_png(folder: Path, ids: tuple[int, ...]) -> Callable[[dict, Tensor], None]:
    """A callback for :func:`evaluate` that writes ``folder/NAME.png``, in the data set's own ids, 8 or 16 bit."""
    import cv2

    table = np.asarray(ids, dtype=np.uint8 if max(ids) < 256 else np.uint16)

    def save(sample: dict, predicted: Tensor) -> None:
        encoded = cv2.imencode(".png", table[predicted.numpy()])[1]
        write_bytes(folder / f"{sample['name']}.png", encoded.tobytes())

    return save


class KeepSome:
    """A callback for :func:`evaluate` that keeps evenly spaced samples for a picture.

    Attributes:
        samples: (name, image, labels, predicted) at the label's own resolution, uint8.
    """

    def __init__(self, dataset: SegmentationDataset, count: int):
        self.dataset = dataset
        count = min(count, len(dataset))
        self.wanted = {(2 * place + 1) * len(dataset) // (2 * count) for place in range(count)}
        self.seen = 0
        self.samples: list[tuple[str, np.ndarray, np.ndarray, np.ndarray]] = []

    def __call__(self, sample: dict, predicted: Tensor) -> None:
        if self.seen in self.wanted:
            labels = sample["labels"].numpy().astype(np.uint8)
            image = self.dataset.read_image(self.seen)
            self.samples.append((sample["name"], image, labels, predicted.numpy().astype(np.uint8)))
        self.seen += 1


def no_labels(dataset: SegmentationDataset) -> InputError:
    return InputError(f"{dataset.name}: split {dataset.split!r} has no labels to score against; choose another --split")


def score(
    model: nn.Module,
    criterion: Criterion,
    dataset: SegmentationDataset,
    *,
    device: torch.device,
    precision: str = "32-true",
    decision_tau: float = 1.0,
    batch_size: int = 8,
    workers: int = 0,
    progress: Progress | None = None,
    on_sample: Callable[[dict, Tensor], None] | None = None,
) -> tuple[dict, ConfusionMatrix]:
    """Score a model on a data set with labels.

    Returns:
        The metrics schema of docs/metrics.md, and the confusion matrix it was read from.

    Raises:
        InputError: the split has no labels.
    """
    if not dataset.has_labels:
        raise no_labels(dataset)
    loader = evaluation_loader(dataset, batch_size, workers=workers)
    predictions = predict(model, criterion, loader, device=device, precision=precision, decision_tau=decision_tau)
    confusion = evaluate(predictions, len(dataset.classes), length=len(dataset), progress=progress, on_sample=on_sample)
    metrics = {
        "dataset": dataset.name,
        "split": dataset.split,
        "images": confusion.images,
        "ignored_pixels": confusion.ignored,
        "protocol": "cityscapes",
        "decision_tau": decision_tau,
        **confusion.compute().to_dict(list(dataset.classes.names)),
    }
    return metrics, confusion


def dataset_for_run(run: Run, config: EvalConfig) -> SegmentationDataset:
    """The split that ``config`` asks for, read as ``run`` needs it.

    Raises:
        InputError: the data set cannot be had, has no labels, or has other classes than the run was trained on.
    """
    same = config.dataset in (None, run.config.dataset)
    own = {name: getattr(run.config, name) for name in ("data_path", "classes")} if same else {}
    given = {name: getattr(config, name) for name in ("dataset", "data_path", "classes", "val_share")}
    given = {name: value for name, value in given.items() if value is not None}
    options = DataOptions(**{"dataset": run.config.dataset, "val_share": run.config.val_share, **own, **given})
    image_scale = run.config.image_scale if config.image_scale is None else config.image_scale
    dataset = options.open(config.split, EvalTransform(image_scale))
    check_same_classes(run, dataset)
    if not dataset.has_labels:
        raise no_labels(dataset)
    dataset.check_files()
    return dataset


def check_same_classes(run: Run, dataset: SegmentationDataset) -> None:
    """InputError unless the data set has the run's classes, by name and in the run's order."""
    ours, theirs = run.classes.names, dataset.classes.names
    if len(ours) != len(theirs):
        raise InputError(
            f"{run.path}: was trained on {len(ours)} classes, but {dataset.name} has {len(theirs)}; "
            "choose the --dataset and --data-path it was trained on"
        )
    if ours != theirs:
        place = next(c for c in range(len(ours)) if ours[c] != theirs[c])
        raise InputError(
            f"{run.path}: class {place} is {ours[place]!r} there and {theirs[place]!r} in {dataset.name}; "
            "give the data set the run's classes in the run's order"
        )


def distinct_names(runs: list[Run]) -> list[str]:
    """One name per run, told apart by number where two are the same."""
    names: list[str] = []
    for run in runs:
        name, number = run.name, 2
        while name in names:
            name, number = f"{run.name}-{number}", number + 1
        names.append(name)
    return names
