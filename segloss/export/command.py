"""Writing and checking what :mod:`segloss.export` describes, and its command."""

import json
import logging
import math
import os
import sys
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from segloss.config import ExportConfig
from segloss.decisions import Decision
from segloss.errors import InputError
from segloss.flags import parse_config
from segloss.hub import WEIGHTS, give_away, is_given, require_free
from segloss.kept import FILE, entry_of, fingerprint
from segloss.losses import class_prior
from segloss.runs import Run, checkpoint_content, load_run

LARGEST_BATCH = 16
LONGEST_SIDE = 2**15  # pixels, of what torch.export makes; a trace has no bounds
SIZES = ((2.3, 3), (5, 3.8), (0.1, 1.1))  # height and width of images that are compared, in strides
TOLERANCE = 1e-4  # of the largest logit: float32, summed in another order


class _Network(nn.Module):
    """Model and decision, the padding in terms that stay variable in a graph."""

    def __init__(self, run: Run, decision: Decision):
        super().__init__()
        self.run, self.decision = run, decision
        self.model = run.model

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        height, width = images.shape[-2:]
        normalised = (images / 255 - self.model.mean) / self.model.std
        padded = F.pad(normalised, (0, self._padded(width) - width, 0, self._padded(height) - height))
        logits = self.model.of_padded(padded)[0][..., :height, :width]
        return logits, self.run.decode(logits, self.decision)

    def _padded(self, side: Any) -> Any:
        """A side as :class:`segloss.models.SegmentationModel` pads it; when traced, a tensor."""
        stride, least = self.model.stride, self.model.smallest_side // self.model.stride
        strides = (side + stride - 1) // stride
        if least > 1:
            strides = strides.clamp(min=least) if isinstance(strides, Tensor) else torch.sym_max(strides, least)
        return strides * stride


def metadata_of(run: Run, decision: Decision | None = None) -> dict[str, str]:
    """What a reader of the logits must know, each as JSON; ``decision``: of the class numbers, default plain."""
    tilt, decision = run.criterion.tilt, decision or Decision()
    terms, calibration = decision.terms, run.kept.calibration
    content = {
        "classes": list(run.classes.names),
        "ids": list(run.classes.ids),
        "colors": [list(color) for color in run.classes.colors],
        "loss": run.config.loss,
        "posterior": run.criterion.posterior_formula,
        "tilt": None if tilt is None else tilt.tolist(),
        "prior": class_prior(run.counts).tolist(),
        "decision": "plain" if decision == Decision() else str(decision),
        "iou_rule": terms and {"slope": terms.slope, "offset": terms.offset},
        "calibration": calibration and {key: getattr(calibration, key) for key in ("temperature", "bias", "floor")},
        "image_scale": run.config.image_scale,
        "stride": run.model.stride,
        "bands": run.bands.to_dict(),
    }
    return {key: json.dumps(value) for key, value in content.items()}


@contextmanager
def _quiet() -> Iterator[None]:
    """Without the exporters' own running commentary, that of their C++ included: one line says what came of it."""
    sys.stdout.flush()
    saved = os.dup(1), os.dup(2)
    with (
        Path(os.devnull).open("w") as nowhere,
        warnings.catch_warnings(),
        redirect_stdout(nowhere),
        redirect_stderr(nowhere),
    ):
        warnings.simplefilter("ignore")
        logging.disable(logging.CRITICAL)
        for stream in (1, 2):
            os.dup2(nowhere.fileno(), stream)
        try:
            yield
        finally:
            logging.disable(logging.NOTSET)
            for stream, copy in zip((1, 2), saved, strict=True):
                os.dup2(copy, stream)
                os.close(copy)


def export_onnx(run: Run, path: Path, decision: Decision | None = None) -> float:
    """Write the file, whole or not at all; the largest difference from the model, relative to its largest logit.

    ``decision`` gives the output ``classes``; None: the run's own, else the plain argmax.

    Raises:
        InputError: onnx, onnxscript or onnxruntime is missing, or no file gives the model's logits.
    """
    try:
        import onnx
        import onnxruntime  # noqa: F401
        import onnxscript  # noqa: F401
    except ImportError as error:
        cure = "pip install onnx onnxscript onnxruntime"
        what = (
            f"{error.name}, which is not installed"
            if isinstance(error, ModuleNotFoundError)
            else f"what fails: {error}"
        )
        raise InputError(f"export needs {what}", cure) from error
    decision = decision or run.kept.decision or Decision()
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        if path.is_dir():
            raise IsADirectoryError(None, "is a folder")
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary.touch()
    except OSError as error:
        raise InputError(f"cannot be written: {error.strerror}", "choose another --output", path) from error
    reasons = []
    try:
        # Tracing takes seconds, torch.export minutes (400 s for a UNet); but a trace may fix the size of its example.
        for write in (_write_traced, _write_exported):
            try:
                with _quiet():
                    write(_Network(run, decision).eval(), temporary, run)
                content = onnx.load(str(temporary))
                onnx.helper.set_model_props(content, metadata_of(run, decision))
                onnx.save(content, str(temporary))
                difference = check_onnx(run, temporary, decision)
            except Exception as error:  # each exporter and the runtime raise their own kinds
                reasons.append(f"{type(error).__name__}: {' '.join(str(error).split())[:200]}")
                continue
            if difference <= TOLERANCE:
                temporary.replace(path)
                return difference
            reasons.append(f"differs by {difference:.1e} of the largest logit")
        cure = "load the run in Python (segloss.load_run), or train another --arch"
        what = f"{run.config.arch} cannot be exported: {'; '.join(reasons)}"
        if decision != Decision():
            what = f"{run.config.arch} with classes by {decision} cannot be exported: {'; '.join(reasons)}"
            cure = f"take --decision plain, {cure}"
        raise InputError(what, cure, path)
    finally:
        temporary.unlink(missing_ok=True)


def _write_traced(network: nn.Module, path: Path, run: Run) -> None:
    axes = {0: "n", 2: "h", 3: "w"}
    torch.onnx.export(
        network,
        (_example(run),),
        str(path),
        dynamo=False,
        opset_version=17,
        input_names=["images"],
        output_names=["logits", "classes"],
        dynamic_axes={"images": axes, "logits": axes, "classes": {0: "n", 1: "h", 2: "w"}},
    )


def _write_exported(network: nn.Module, path: Path, run: Run) -> None:
    dims = {0: torch.export.Dim("n", min=1, max=LARGEST_BATCH)}
    dims |= {axis: torch.export.Dim(name, min=1, max=LONGEST_SIDE) for axis, name in ((2, "h"), (3, "w"))}
    program = torch.onnx.export(
        network,
        (_example(run),),
        dynamo=True,
        dynamic_shapes=(dims,),
        input_names=["images"],
        output_names=["logits", "classes"],
    )
    if program is None:
        raise RuntimeError("torch.onnx.export returned no program")
    program.save(str(path), external_data=False)


def _example(run: Run) -> Tensor:
    return torch.zeros(2, run.bands.count, *_size(SIZES[0], run.model.stride))


def _size(strides: tuple[float, float], stride: int) -> tuple[int, int]:
    return int(strides[0] * stride), int(strides[1] * stride)


@torch.inference_mode()
def check_onnx(run: Run, path: Path, decision: Decision | None = None) -> float:
    """Largest difference of the file's logits from the model's on random batches of several sizes, relative.

    Infinite where more than one pixel in a thousand is decided otherwise; fewer may lie within rounding of two classes.
    """
    import onnxruntime

    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    generator = torch.Generator().manual_seed(0)
    worst = 0.0
    for count, strides in enumerate(SIZES, start=1):
        size = (count, run.bands.count, *_size(strides, run.model.stride))
        images = torch.randint(0, 256, size, generator=generator).float()
        if not run.bands.is_rgb:  # two std around each band's mean
            images = 255 * (images / 64 - 2).mul(run.model.std).add(run.model.mean)
        expected = run.model(images)
        found, classes = session.run(["logits", "classes"], {"images": images.numpy()})
        decided = run.decode(torch.from_numpy(found), decision or run.kept.decision)
        if float((torch.from_numpy(classes) != decided).float().mean()) > 1e-3:
            return math.inf
        worst = max(worst, float((torch.from_numpy(found) - expected).abs().max() / expected.abs().max()))
    return worst


def export_hub(run: Run, folder: Path, half: bool = False) -> list[str]:
    """Write the run as a folder to give away, whole or not at all; a line for each file of scores that is not in it.

    Args:
        half: weights of the network in float16, half the size; who loads them has float32 of these values. What was
            fitted to the run goes with them.

    Raises:
        InputError: it is such a folder already, the place is not free, or a weight is too large for float16.
    """
    from segloss.report.kept_scores import kept_scores
    from segloss.report.model_card import model_card

    if run.path.name == WEIGHTS and is_given(run.folder):
        raise InputError("was given away already", "copy it", run.folder)
    content = checkpoint_content(run.config, run.used, run.classes, run.counts, run.model, run.bands)
    modules = {"model": run.model, "criterion": run.criterion}
    scores, passed_over = kept_scores(run)
    card = model_card(run, scores, run.name)
    entry, weights = entry_of(run.folder, run.weights), run.weights
    if half:
        weights = _round_to_half(run)
        card += "\nThe weights are float16: rounded after what stands here was fitted and measured.\n"
    state = {f"{name}.{key}": tensor for name, module in modules.items() for key, tensor in module.state_dict().items()}
    if half:
        state |= {f"model.{name}": as_half(tensor) for name, tensor in run.model.state_dict().items()}
    give_away(folder, content, state, weights, entry, card)
    return passed_over


def as_half(tensor: Tensor) -> Tensor:
    return tensor.half() if tensor.is_floating_point() else tensor


@torch.no_grad()
def _round_to_half(run: Run) -> str:
    """Give the network the values of its weights in float16; the fingerprint of these."""
    for name, tensor in run.model.state_dict().items():
        rounded = as_half(tensor)
        if not bool(rounded.isfinite().all()):
            raise InputError(f"{name} holds values beyond those of float16", "leave --half out", run.path)
        tensor.copy_(rounded)
    return fingerprint(run.model, run.criterion)


def _warn_of_other_weights(run: Run) -> None:
    """Tell that what the folder keeps was fitted to other weights, so that these go without a decision."""
    if run.kept.others and run.kept.decision is None:
        what = f"{FILE} is of other weights, once in {', '.join(run.kept.others)}, and not used"
        print(f"warning: {what}; eval_seg.py --checkpoint {run.path} --decision iou fits it to these")


def main(argv: list[str] | None = None) -> None:
    """``python -m segloss.export``."""
    config = parse_config(ExportConfig, "python -m segloss.export", argv)
    if config.hub is not None:
        require_free(Path(config.hub))
        run = load_run(config.checkpoint)
        _warn_of_other_weights(run)
        for line in export_hub(run, Path(config.hub), config.half):
            print(f"left out: {line}")
        mib = (Path(config.hub) / WEIGHTS).stat().st_size / 2**20
        print(f"{config.hub}: {mib:.1f} MiB; load_run reads it, hf upload OWNER/NAME {config.hub} gives it away")
        return
    run, path = load_run(config.checkpoint), Path(config.output)
    words = " ".join(config.decision)
    if words == "auto":
        _warn_of_other_weights(run)
    decision = run.kept.decision or Decision() if words == "auto" else run.decision_of(words)
    difference = export_onnx(run, path, decision)
    mib = path.stat().st_size / 2**20
    told = f"largest difference from the model {difference:.1e} of its largest logit; classes by {decision}"
    print(f"{path}: {mib:.1f} MiB, {told}")
    if (scale := run.config.image_scale) != 1:
        print(f"its images must be resized by {scale:g} first, as in training, and its classes back; it does not do so")
