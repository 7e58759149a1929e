"""A trained network and all it takes to use it, read back from a run folder or a checkpoint file."""

import os
import sys
from dataclasses import dataclass, field, replace
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from segloss.config import TrainConfig
from segloss.datasets import ClassTable, SegmentationDataset
from segloss.datasets.bands import RGB, Bands
from segloss.datasets.classes import ignored_in, map_dtype
from segloss.datasets.images import turn_of_picture
from segloss.datasets.opening import turned
from segloss.decisions import Decision, decide, read_decision
from segloss.encoder_weights import warn_of_old_torch
from segloss.errors import InputError
from segloss.files import write_bytes
from segloss.flags import from_plain_dict, to_plain_dict
from segloss.hub import fetched, is_given, is_on_hub, name_of, read_shared, shared_file
from segloss.inference import reader_of
from segloss.iou_rule import IoUDecision
from segloss.kept import OLD_FILE, Kept, fingerprint, kept_file, load_kept, save_kept
from segloss.label_maps import PilImage, is_pil
from segloss.losses import Criterion, build_criterion, class_prior
from segloss.losses.label_values import names_recipe
from segloss.models import SegmentationModel, evaluating, logits_at_size
from segloss.pixel_counts import PixelCounts
from segloss.run_folder import FOLDER_VARIABLE, Used
from segloss.weight_files import BEST, LAST, SHARED, WEIGHTS, require_whole, weights_file

CHECKPOINT_FORMAT = 1
Asked = Decision | IoUDecision | str | float


def criterion_of(config: TrainConfig, counts: PixelCounts) -> Criterion:
    """The criterion that a config and the training counts ask for; InputError if they do not fit."""
    try:
        counts = counts.complete
        options = dict(config.loss_options)
        if not names_recipe(options["label_values"], "power"):
            del options["label_power"]  # it does nothing, as train_seg.py has said
        return build_criterion(
            config.loss,
            counts.pixels,
            pixels_of_images=counts.pixels_of_images,
            ignore_index=ignored_in(len(counts.pixels)),
            **options,
        )
    except ValueError as error:
        raise InputError(str(error), where=f"--loss {config.loss}") from error


def checkpoint_content(
    config: TrainConfig,
    used: Used,
    classes: ClassTable,
    counts: PixelCounts,
    model: SegmentationModel,
    bands: Bands = RGB,
    val: PixelCounts | None = None,
) -> dict[str, Any]:
    """What a checkpoint needs beside its weights to be used alone: plain values only; of ``val`` its identity."""
    return {
        "format": CHECKPOINT_FORMAT,
        "config": to_plain_dict(config),
        "used": used.to_dict(),
        "classes": classes.to_dict(),
        "counts": counts.to_dict(),
        "normalisation": [model.mean.view(-1).tolist(), model.std.view(-1).tolist()],
        "bands": bands.to_dict(),
        **({} if val is None else {"val": identity_of_val(val)}),
    }


def identity_of_val(val: PixelCounts) -> dict[str, Any]:
    """What tells whether a run that goes on is scored on the images and labels that it was."""
    return {"pixels": list(val.pixels), "images_digest": val.images_digest}


@dataclass
class Run:
    """A trained model with all it takes to use it.

    Attributes:
        model: images ``(N, B, H, W)`` as their files hold them, RGB in 0..255, uint8 or float -> logits
            ``(N, C, H, W)``; in eval mode, in which the methods here see by it even where it is trained on.
        criterion: reads logits: ``criterion.decide(logits, tau)``, ``criterion.posterior(logits)``, before calibration.
        classes: names, ids and colours.
        counts: class statistics of the training split.
        config: every option of the run, as it was asked for.
        path: the checkpoint file.
        used: what became of the options that data and machine decide.
        bands: of the images, as :func:`segloss.datasets.bands.read_bands` reads them.
        val: identity of the val split that it was scored on; None: not known.
    """

    model: SegmentationModel
    criterion: Criterion
    classes: ClassTable
    counts: PixelCounts
    config: TrainConfig
    path: Path
    used: Used
    bands: Bands = RGB
    val: dict[str, Any] | None = None
    _of_weights: tuple[list[tuple[Any, ...]], str] | None = field(default=None, init=False, repr=False, compare=False)
    _kept: tuple[str, Kept] | None = field(default=None, init=False, repr=False, compare=False)

    @property
    def name(self) -> str:
        """The name of the run folder or of one that was given away, or the file's where it lies in neither."""
        if self.path.name == WEIGHTS and is_given(self.path.parent):
            return name_of(self.path.parent)
        in_run = self.path.parent.name == LAST.parent.name
        stem = "" if self.path.name == BEST.name else f"-{self.path.stem}"
        return f"{self.path.resolve().parent.parent.name}{stem}" if in_run else self.path.stem

    @property
    def folder(self) -> Path:
        """The run folder, or that of a checkpoint file that lies in none."""
        in_run = self.path.parent.name == LAST.parent.name and self.path.name != WEIGHTS
        return self.path.parent.parent if in_run else self.path.parent

    @property
    def weights(self) -> str:
        """Fingerprint of model and criterion as they are now; what is fitted to them is kept under it."""
        state = _versions(self.model, self.criterion)
        if self._of_weights is None or self._of_weights[0] != state:
            self._of_weights = state, fingerprint(self.model, self.criterion)
        return self._of_weights[1]

    @property
    def kept(self) -> Kept:
        """What was fitted to these weights; InputError for a damaged file."""
        if self._kept is None or self._kept[0] != self.weights:
            self._kept = self.weights, load_kept(self.folder, self.weights)
        return self._kept[1]

    @kept.setter
    def kept(self, kept: Kept) -> None:
        self._kept = self.weights, kept

    def keep(self, *, alone: bool = False, **items: Any) -> Path:
        """Write into the run folder what was fitted to these weights; see :func:`segloss.kept.save_kept`."""
        path = save_kept(self.folder, self.weights, self.path.name, items, alone=alone)
        self.kept = load_kept(self.folder, self.weights)
        return path

    @property
    def reader(self) -> Criterion:
        """Reads logits as the criterion does, the posterior calibrated where the run was."""
        return reader_of(self.criterion, calibration=self.kept.calibration)

    @property
    def decision(self) -> Decision:
        """The run's own, which ``--decision auto`` takes: the point that was chosen, else the IoU rule, or the plain
        argmax where labels said that it is better.

        Raises:
            InputError: neither was made for these weights.
        """
        if self.kept.decision is None:
            raise self._undecided()
        return self.kept.decision

    def _undecided(self) -> InputError:
        where, what = kept_file(self.folder), "no decision was fitted to or chosen for these weights"
        if self.kept.others:
            what = f"is of other weights, once in {', '.join(self.kept.others)}, than these"
        elif (self.folder / OLD_FILE).is_file():
            where, what = self.folder / OLD_FILE, "does not say for which weights it was chosen"
        command = f"run eval_seg.py --checkpoint {self.path} --decision iou"
        cure = f"{command}, or with --split val --sweep-tau --choose-metric miou"
        if self.kept.others:
            cure += "; of a run that you train on in Python give segloss.iou_decision of its posteriors"
        return InputError(what, cure, where)

    def decision_of(self, asked: Asked) -> Decision:
        """What a number (tau), a rule or words as of ``--decision`` mean here; InputError as :attr:`decision`."""
        if isinstance(asked, IoUDecision):
            return Decision("iou", terms=asked)
        if isinstance(asked, str):
            found = read_decision(asked.split())
            if found == "iou":
                if self.kept.rule is None:
                    raise self._undecided()
                return Decision("iou", terms=self.kept.rule)
            return found if isinstance(found, Decision) else self.decision
        return asked if isinstance(asked, Decision) else Decision("tau", asked)

    @torch.no_grad()
    def predict(self, image: np.ndarray | PilImage, decision: Asked | None = None, tau: float = 1.0) -> np.ndarray:
        """Class numbers ``(H, W)`` of an image, at the run's image scale: uint8, of more than 254 classes uint16.

        Args:
            image: ``(H, W, 3)`` uint8 RGB, or the run's bands ``(H, W, B)`` in the dtype of its files, NaN or masked
                for nothing; of one band ``(H, W)`` too; or an image of PIL, which is turned as its EXIF block says:
                classes are of the upright image.
                ``segloss.datasets.bands.read_bands(path, run.bands)[0]`` reads a file.
            decision: ``run.decision``, ``"auto"``, ``"prior 0.5"``, a rule of :func:`segloss.iou_decision` or a number
                tau; None: ``tau``, whose 1 is the plain argmax.

        Raises:
            ValueError: the image or the words do not fit. InputError: the run holds no decision.
        """
        return self.decode(self.scores(image), decision, tau)[0].cpu().numpy().astype(map_dtype(len(self.classes)))

    @torch.no_grad()
    def scores(self, image: np.ndarray | PilImage) -> Tensor:
        """Logits ``(1, C, H, W)`` of an image as :meth:`predict` takes it, which :meth:`decode` decides on; constants,
        on which a student can be trained."""
        from segloss.datasets.transforms import resize_image

        image = self._pixels(image)
        given = image[..., None] if image.ndim == 2 else image
        resized = resize_image(self.bands.filled(given), self.config.image_scale)
        if resized.dtype == np.uint16:
            resized = resized.astype(np.float32)  # which every device takes
        batch = torch.from_numpy(np.ascontiguousarray(resized.transpose(2, 0, 1)))[None].to(self.model.mean.device)
        with evaluating(self.model):
            return logits_at_size(self.model, batch, image.shape[:2])

    def _pixels(self, image: Any) -> np.ndarray:
        """As an array of the run's bands; of PIL's images gray, palettes, full opacity and turns as files are read, so
        none that was turned by hand and still holds its EXIF block: ``ImageOps.exif_transpose`` takes it out."""
        bands = self.bands
        if is_pil(image):
            opaque = "A" not in image.getbands() or image.getchannel("A").getextrema()[0] == 255
            colours = opaque and image.mode in ("1", "L", "LA", "P", "RGBA", "CMYK")
            pixels = np.array(image.convert("RGB") if colours and bands.is_rgb else image)
            image = turned(pixels, turn_of_picture(image))
        wanted = f"image must be {bands.dtype} {'RGB ' if bands.is_rgb else ''}of shape (H, W, {bands.count})"
        if not isinstance(image, np.ndarray):
            cure = "give an array, as image.cpu().numpy() of a tensor"
            if isinstance(image, str | os.PathLike):
                cure = "read the file: segloss.datasets.bands.read_bands(Path(image), run.bands)[0]"
            raise InputError(f"{wanted}, got {type(image).__name__}", cure)
        if cures := _cures(image, bands):
            raise InputError(f"{wanted}, got {image.dtype} {image.shape}", f"give {', and '.join(cures)}")
        if isinstance(image, np.ma.MaskedArray):  # as pixels without data of files
            fill = np.asarray(bands.fill if image.ndim == 3 else bands.fill[0])
            image = np.where(np.ma.getmaskarray(image), fill, image.data).astype(image.dtype)
        return np.asarray(image)

    def decode(self, logits: Tensor, decision: Asked | None = None, tau: float = 1.0) -> Tensor:
        """Class numbers ``(N, H, W)`` from the model's logits; decisions as in :meth:`predict`."""
        found = self.decision_of(tau if decision is None else decision)
        reader = self.criterion if found.rule == "tau" else self.reader
        return decide(reader, logits, class_prior(self.counts).to(logits.device), found)

    def posterior(self, images: Tensor) -> Tensor:
        """P(c|x), ``(N, C, H, W)``, of images as the model takes them; calibrated where the run was.

        These are 0 to 255 in RGB, and resized by ``config.image_scale``; :meth:`scores` resizes them and its answer.
        Constants, on which a student can be trained.
        """
        with torch.no_grad(), evaluating(self.model):
            return self.reader.posterior(self.model(images).float())


def _versions(*modules: nn.Module) -> list[tuple[Any, ...]]:
    """Where parameters and buffers lie, how often each was written to, and a value of it: torch does not count what is
    written through ``.data``, as many an average of weights is."""
    tensors = chain.from_iterable(chain(module.parameters(), module.buffers()) for module in modules)
    return [(each.data_ptr(), 0 if each.is_inference() else each._version, _middle(each)) for each in tensors]


def _middle(tensor: Tensor) -> str:
    """The value in the midst of it, as text, in which NaN is itself."""
    return str(tensor.detach()[tuple(side // 2 for side in tensor.shape)].item()) if tensor.numel() else ""


def _cures(image: np.ndarray, bands: Bands) -> list[str]:
    """What to give instead, by shape and by dtype; nothing of an image of these bands."""
    cures, shape = [], image.shape
    if len(shape) not in (2, 3):
        cures.append("one image at a time")
    elif (shape[2] if len(shape) == 3 else 1) != bands.count:
        if shape[0] == bands.count and len(shape) == 3:
            cures.append("image.transpose(1, 2, 0)")
        elif not bands.is_rgb:
            cures.append("the bands that the run was trained on")
        elif shape[2:] in ((), (1,)):
            cures.append("np.stack([image.squeeze()] * 3, -1)")
        else:
            cures.append("image[..., :3] without the fourth band" if shape[2] == 4 else "red, green and blue alone")
    if image.dtype not in (np.dtype(bands.dtype), bands.array_dtype):
        same = f"image.astype(np.{bands.dtype}) where it holds the same numbers"
        scaled = "(image * 255).round().astype(np.uint8) where 1 is white"
        cures.append(scaled if bands.dtype == "uint8" and image.dtype.kind == "f" else same)
    return cures


def load_run(path: str | Path) -> Run:
    """The model of a run folder (its best.ckpt, else best.safetensors or last.ckpt) or of one of these files.

    A folder that ``python -m segloss.export --hub`` wrote is read too, and ``hf:OWNER/NAME`` from Hugging Face's hub:
    of such only numbers and text, no pickle. ``demo``, where there is no such folder, is the small model that ships.

    >>> run = segloss.load_run("runs/demo")  # doctest: +SKIP
    >>> class_map = run.predict(image)       # doctest: +SKIP

    Raises:
        InputError: nothing is there, or it is no checkpoint of this toolkit.
    """
    file = fetched(str(path)) / WEIGHTS if is_on_hub(path) else weights_file(Path(path))
    if file.name == LAST.name and Path(path).is_dir():
        print(f"warning: {path} holds no {BEST.name}; these are the weights of {LAST.name}", file=sys.stderr)
    own = os.environ.get(FOLDER_VARIABLE) == str(file.parent.parent)  # else this process trains another run, or none
    if not own and file.suffix != SHARED.suffix:
        warn_of_old_torch(file)
    checkpoint = read_checkpoint(file)
    try:
        content = checkpoint["segloss"]
        config = from_plain_dict(TrainConfig, content["config"], file)
        used = Used.from_dict(content.get("used", content["config"]))
        classes = ClassTable.from_dict(content["classes"])
        counts = PixelCounts.from_dict(content["counts"])
        mean, std = content["normalisation"]
        network = replace(config, encoder_weights="none")  # its weights are in the checkpoint
        bands = Bands.from_dict(content.get("bands", {}))
        model = network.build(len(classes), normalisation=(tuple(mean), tuple(std)), in_channels=bands.count)
        criterion = criterion_of(config, counts)
        load_weights(model, criterion, checkpoint["state_dict"])
    except InputError:
        raise
    except (KeyError, TypeError, ValueError, AttributeError, RuntimeError) as error:
        damage = f"is damaged ({type(error).__name__}: {str(error)[:200]})"
        raise InputError(damage, "use another one", where=file) from error
    return Run(model.eval(), criterion, classes, counts, config, file, used, bands, content.get("val"))


def check_same_classes(run: Run, dataset: SegmentationDataset) -> None:
    """InputError unless the data set has the run's classes, by name and in the run's order."""
    ours, theirs = run.classes.names, dataset.classes.names
    if len(ours) != len(theirs):
        raise InputError(
            f"was trained on {len(ours)} classes, but {dataset.name} has {len(theirs)}",
            "choose the --dataset and --data-path it was trained on",
            where=run.path,
        )
    if ours != theirs:
        place = next(c for c in range(len(ours)) if ours[c] != theirs[c])
        raise InputError(
            f"class {place} is {ours[place]!r} there and {theirs[place]!r} in {dataset.name}",
            "give the data set the run's classes in the run's order",
            where=run.path,
        )


def load_weights(model: SegmentationModel, criterion: Criterion, state: dict[str, Tensor]) -> None:
    """Put the state of a training task back into its model and criterion, strictly."""
    for prefix, module in (("model.", model), ("criterion.", criterion)):
        module.load_state_dict({k.removeprefix(prefix): v for k, v in state.items() if k.startswith(prefix)})


def read_checkpoint(file: Path) -> dict[str, Any]:
    """A checkpoint of this toolkit on the CPU, or what :func:`share_weights` wrote; InputError if it is neither."""
    try:
        if file.suffix == SHARED.suffix:
            return _checked(read_shared(file), file)
        require_whole(file)
        checkpoint: dict[str, Any] = torch.load(file, map_location="cpu", weights_only=True)
    except InputError:
        raise
    except Exception as error:  # zip and pickle each raise their own kinds
        raise InputError(f"cannot be read as a checkpoint ({type(error).__name__})", "is it whole?", file) from error
    return _checked(checkpoint, file)


def _checked(checkpoint: Any, file: Path) -> dict[str, Any]:
    """As it is; InputError if this toolkit did not write it, or a newer one did."""
    content = checkpoint.get("segloss") if isinstance(checkpoint, dict) else None
    if not isinstance(content, dict) or not isinstance(content.get("format"), int):
        raise InputError("is no checkpoint of segloss", "for weights of an encoder use --encoder-weights", file)
    if content["format"] > CHECKPOINT_FORMAT:
        raise InputError(f"was written by a newer segloss (format {content['format']})", "update this one", file)
    return dict(checkpoint)


def share_weights(file: Path) -> Path:
    """Write the weights of a checkpoint beside it as safetensors, with all it takes to use them; its path.

    :func:`load_run` reads it. Paths of this machine are left out.
    """
    checkpoint = read_checkpoint(file)
    shared = shared_file(checkpoint["segloss"], checkpoint["state_dict"])
    write_bytes(file.with_suffix(SHARED.suffix), shared)
    return file.with_suffix(SHARED.suffix)
