"""Networks of segmentation_models_pytorch that take images of any size, as they are, and give scores of that size."""

import copy
import logging
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, fields, replace
from difflib import get_close_matches
from numbers import Integral
from pathlib import Path
from types import MethodType
from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from segloss.encoder_weights import encoder_weights_file, load_encoder_weights
from segloss.errors import InputError, unknown_name
from segloss.flags import Options, from_plain_dict, option
from segloss.losses.ranges import NOT_NEGATIVE
from segloss.losses.tracing import is_transformed

# Used where no pretraining says otherwise; for weights files of encoders that are not timm's too.
IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)
MINIMAL_STRIDE = 32  # decoders of smp halve and double five times, whatever their encoder's stride
FrozenNorms = Literal["none", "encoder", "all"]
NORMALISED = 6.0  # the most of images in standard deviations; of 255, resizing alone leaves less than 0
SMALLEST_SIDES = {"pan": 128}  # its attention halves three times what the encoder has left of a sixteenth


class SegmentationModel(nn.Module):
    """A network with its normalisation, and with padding to the network's stride.

    Args:
        network: maps ``(N, B, h, w)`` with h, w divisible by ``stride`` to logits ``(N, C, h, w)``.
        mean, std: of the normalisation, B numbers each, for intensities divided by 255.
        stride: images are padded to a multiple of it by the mean colour; the logits are cropped back, so padded
            pixels never meet the loss.
        smallest_side: images are padded to it too; a multiple of ``stride``.
    """

    mean: Tensor
    std: Tensor
    _looked = False  # at the range of the first images
    _held: Sequence[nn.Parameter] = ()  # that :meth:`freeze` keeps still

    def __init__(
        self,
        network: nn.Module,
        mean: tuple[float, ...] = IMAGENET_MEAN,
        std: tuple[float, ...] = IMAGENET_STD,
        stride: int = MINIMAL_STRIDE,
        smallest_side: int = 0,
    ):
        super().__init__()
        self.network = network
        self.stride = stride
        self.smallest_side = smallest_side
        self.still: list[nn.Module] = []
        self.register_buffer("mean", torch.tensor(mean).view(1, -1, 1, 1))
        self.register_buffer("std", torch.tensor(std).view(1, -1, 1, 1))

    @property
    def encoder(self) -> nn.Module:
        encoder = self.network.encoder
        assert isinstance(encoder, nn.Module)
        return encoder

    def freeze(self, *, encoder: bool = False, batch_norm: FrozenNorms = "none") -> None:
        """Neither the weights nor the statistics of these move in training, and their dropout is off; what was still
        before and is not among them moves again."""
        for parameter in self._held:
            parameter.requires_grad_(True)
        among = {"none": [], "encoder": [self.encoder], "all": [self.network]}[batch_norm]
        norms = [module for of in among for module in of.modules() if isinstance(module, _BatchNorm)]
        self.still = [*([self.encoder] if encoder else []), *norms]
        self._held = [each for module in self.still for each in module.parameters() if each.requires_grad]
        for module in self.still:
            module.requires_grad_(False)
        self.train(self.training)

    def train(self, mode: bool = True) -> "SegmentationModel":
        super().train(mode)
        for module in self.still:
            module.eval()
        return self

    def forward(self, images: Tensor) -> Tensor:
        """Images ``(N, B, H, W)``, as their files hold them (RGB: 0..255), any dtype -> logits ``(N, C, H, W)``."""
        return self.with_presence(images)[0]

    def with_presence(self, images: Tensor) -> tuple[Tensor, Tensor | None]:
        """Logits as :meth:`forward`, and ``(N, C)`` of which classes an image holds; None without ``--auxiliary``."""
        self._require_bands(images)
        self._look_at(images)
        height, width = images.shape[-2:]
        normalised = (images.to(self.mean.dtype) / 255 - self.mean) / self.std
        padded = F.pad(normalised, (0, self._missing(width), 0, self._missing(height)))
        padded = padded.contiguous(memory_format=torch.channels_last)
        logits, presence = self.of_padded(padded)
        return logits[..., :height, :width], presence

    def of_padded(self, images: Tensor) -> tuple[Tensor, Tensor | None]:
        """What :meth:`with_presence` gives, of images that are normalised and padded."""
        found: Any = self.network(images)
        logits, presence = found if isinstance(found, tuple) else (found, None)
        return logits, presence

    def _require_bands(self, images: Tensor) -> None:
        """InputError unless these are the model's bands; one image ``(B, H, W)`` is a batch, gray is taken as RGB."""
        if torch.jit.is_tracing():  # type: ignore[no-untyped-call]  # sizes are no numbers there
            return
        bands, shape = self.mean.numel(), tuple(images.shape)
        if len(shape) in (3, 4) and shape[-3] in ((1, 3) if bands == 3 else (bands,)):
            return
        cure = "give the bands that it was trained on"
        if len(shape) in (3, 4) and shape[-1] == bands:
            cure = "bring them to the front: images.movedim(-1, -3)"
        elif bands == 3 and len(shape) == 3:
            cure = "give gray images as images[:, None]"
        raise InputError(f"images must have shape (N, {bands}, H, W), got {shape}", cure)

    def _look_at(self, images: Tensor) -> None:
        """Warn, once, of images that were scaled to 0..1, or normalised: to the network they are black."""
        if torch.compiler.is_compiling() or torch.jit.is_tracing() or self._looked:  # type: ignore[no-untyped-call]
            return
        if is_transformed(images) or images.device.type == "meta" or not images.numel():
            return
        self._looked = True
        if self.mean.numel() != 3 or not images.is_floating_point():
            return
        least, most = (float(end) for end in images.detach().aminmax())
        if least < 0 and most <= NORMALISED:
            what = f"images hold {least:.3g} to {most:.3g}, the model expects 0 to 255 and normalises them itself"
            warnings.warn(f"{what}: give them before Normalize", stacklevel=4)
        elif 0 < most <= 1:
            warnings.warn("images hold 0 to 1, the model expects 0 to 255: give images * 255", stacklevel=4)

    def _missing(self, side: int) -> int:
        """Pixels that a side lacks."""
        return max(-side % self.stride, self.smallest_side - side)


def forward(depthwise: nn.Conv2d, images: Tensor) -> Tensor:
    """Of a depthwise convolution: float32 under the CPU's autocast, where oneDNN's gradients in bfloat16 are slow.

    Has the name of the method it stands in for, so that a pickled network finds the class's own.
    """
    if images.device.type != "cpu" or not torch.is_autocast_enabled("cpu"):
        return type(depthwise).forward(depthwise, images)
    with torch.autocast("cpu", enabled=False):
        return type(depthwise).forward(depthwise, images.float())


def logits_at_size(model: Callable[[Tensor], Tensor], images: Tensor, size: tuple[int, int]) -> Tensor:
    """float32 logits ``(N, C, *size)`` of images ``(N, 3, h, w)``: resized (bilinear) first, decided on later."""
    logits = model(images).float()
    if tuple(logits.shape[-2:]) == size:
        return logits
    # align_corners=False: cv2.resize, which shrank the image, keeps pixel areas and not corner centres in place.
    return F.interpolate(logits, size=size, mode="bilinear", align_corners=False)


@contextmanager
def evaluating(model: nn.Module) -> Iterator[None]:
    """A network in eval mode; afterwards each part of it is in the mode that it was in."""
    in_training = [module for module in model.modules() if module.training]
    model.eval()
    try:
        yield
    finally:
        for module in in_training:
            module.training = True  # of this part alone, and not of those in it


_Unets = Literal["unet", "unetplusplus", "manet", "linknet", "fpn", "pspnet"]
Architecture = Literal[_Unets, "deeplabv3", "deeplabv3plus", "pan", "upernet", "segformer", "dpt"]


@dataclass(frozen=True)
class ModelOptions(Options):
    """Network of segmentation_models_pytorch: --arch deeplabv3plus --encoder tu-convnext_tiny"""

    arch: Architecture = option("unet", "architecture")
    encoder: str = option("resnet34", "an encoder of smp; tu-NAME for timm's", canonical=str.lower)
    encoder_weights: str = option(
        "none", "none, imagenet (downloads), or a .safetensors or .pth file, or a run of segloss", path=True
    )
    frozen_batch_norm: FrozenNorms = option("none", "batch norms whose weights and statistics stay as they are")
    auxiliary: float = option(
        0.0, "weight of a second loss in training: which classes an image holds, read from the encoder", *NOT_NEGATIVE
    )

    def build(
        self,
        num_classes: int,
        *,
        normalisation: tuple[tuple[float, ...], tuple[float, ...]] | None = None,
        in_channels: int = 3,
    ) -> SegmentationModel:
        """The network; arguments and errors are those of :func:`build_model`."""
        import segmentation_models_pytorch as smp

        for name, number in (("num_classes", num_classes), ("in_channels", in_channels)):
            if isinstance(number, bool) or not isinstance(number, Integral) or number < 1:
                raise InputError(f"{name} must be an integer of at least 1, got {number!r}", "give how many there are")
        _require_encoder(self.encoder)
        download = self.encoder_weights == "imagenet"
        logging.getLogger("huggingface_hub").setLevel(logging.ERROR)  # its retries are not news; their end is reported
        try:
            network = smp.create_model(
                self.arch,
                self.encoder,
                encoder_weights="imagenet" if download else None,
                in_channels=in_channels,
                classes=num_classes,
                **_any_size_options(self.encoder),
                **({"aux_params": {"classes": num_classes}} if self.auxiliary else {}),
            )
            plain = ((0.0,) * in_channels, (1.0,) * in_channels)  # of bands that nobody has counted
            mean, std = normalisation or (
                _normalisation(self.encoder, self.encoder_weights) if in_channels == 3 else plain
            )
        except Exception as error:  # smp, timm and the hub each raise their own kinds
            raise _build_error(self.arch, self.encoder, download, error) from error
        if self.encoder_weights not in ("none", "imagenet"):
            trained_with = load_encoder_weights(network.encoder, Path(self.encoder_weights))
            if normalisation is None and trained_with is not None and len(trained_with[0]) == in_channels:
                mean, std = trained_with
        stride = int(network.encoder.output_stride)
        stride = MINIMAL_STRIDE if MINIMAL_STRIDE % stride == 0 else stride
        model = SegmentationModel(network, tuple(mean), tuple(std), stride, SMALLEST_SIDES.get(self.arch, 0))
        _require_any_size(model, self.encoder, in_channels)
        for module in model.modules():
            if isinstance(module, nn.Conv2d) and 1 < module.groups == module.in_channels:
                module.forward = MethodType(forward, module)  # type: ignore[method-assign]
        return model.to(memory_format=torch.channels_last)  # faster on CPU and GPU, the same numbers

    def require_buildable(self, in_channels: int = 3) -> None:
        """InputError where :meth:`build` would raise one, but for a download; the default pair is known to exist."""
        trial = ModelOptions(**{f.name: getattr(self, f.name) for f in fields(ModelOptions)})
        if trial.encoder_weights == "imagenet":
            trial = replace(trial, encoder_weights="none")
        elif trial.encoder_weights != "none":
            encoder_weights_file(Path(trial.encoder_weights))
        if trial != ModelOptions():
            with torch.random.fork_rng(devices=[]):  # who builds the network later starts from the seed
                trial.build(2, in_channels=in_channels)


def build_model(
    arch: str,
    encoder: str,
    num_classes: int,
    *,
    encoder_weights: str | None = "none",
    normalisation: tuple[tuple[float, ...], tuple[float, ...]] | None = None,
    in_channels: int = 3,
    **options: Any,
) -> SegmentationModel:
    """Any pair of architecture and encoder that segmentation_models_pytorch accepts, by its names in any case.

    Args:
        arch: ``unet``, ``deeplabv3plus``, ``segformer`` ...
        encoder: ``resnet34``, ``mit_b0``, ``tu-NAME`` for timm's ...
        num_classes: C.
        encoder_weights: ``"none"`` or None (random), ``"imagenet"`` (downloads), or a .safetensors / .pth file whose
            keys are the encoder's; keys that the encoder has no use for (a classifier) are passed over.
        normalisation: (mean, std) of a saved model; None: what the encoder was pretrained with; of other bands
            than three 0 and 1.
        in_channels: bands of the images. Weights of RGB are repeated over the bands and scaled by 3 / bands, so that
            equal bands give about what gray RGB gave; of one band they are added up.
        options: the others of :class:`ModelOptions`.

    Raises:
        InputError: unknown name, a pair that does not exist, weights that cannot be had or do not fit.
    """
    given = {"arch": arch, "encoder": encoder, "encoder_weights": encoder_weights or "none", **options}
    return from_plain_dict(ModelOptions, given).build(num_classes, normalisation=normalisation, in_channels=in_channels)


def _any_size_options(encoder: str) -> dict[str, bool]:
    """timm's transformers are built for one input size unless told otherwise; each family has its own word."""
    name = encoder.removeprefix("tu-")
    if encoder == name:
        return {}
    if name.startswith(("vit_", "deit", "eva", "beit")):
        return {"dynamic_img_size": True}
    if name.startswith("swin"):
        return {"strict_img_size": False}
    return {}


@torch.no_grad()
def _require_any_size(model: SegmentationModel, encoder: str, in_channels: int) -> None:
    """InputError for an encoder that is tied to one input size: a trial at a size that no encoder is tied to."""
    import timm

    settings = timm.models.get_pretrained_cfg(encoder[3:], allow_unregistered=True) if encoder[:3] == "tu-" else None
    if settings is None or not settings.fixed_input_size:
        return
    side = 2 * model.stride
    try:
        model.eval()(torch.zeros(1, in_channels, side, 2 * side))
    except Exception as error:  # whatever the encoder asserts
        raise InputError(
            f"takes images of {settings.input_size[1]}x{settings.input_size[2]} only",
            "choose one that takes any size, such as tu-convnext_tiny or mit_b0",
            where=f"encoder {encoder}",
        ) from error
    model.train()


def _require_encoder(encoder: str) -> None:
    import segmentation_models_pytorch as smp
    import timm

    if encoder.startswith("tu-"):
        if not timm.is_model(encoder[3:].split(".")[0]):
            near = get_close_matches(encoder[3:].split(".")[0], timm.list_models(), 5)
            cure = f"near it: {', '.join('tu-' + name for name in near)}" if near else "see timm.list_models()"
            raise InputError(f"unknown encoder {encoder!r}: timm has no such model", cure)
    elif encoder not in smp.encoders.encoders and not encoder.startswith("timm-"):
        raise unknown_name("encoder", encoder, [*sorted(smp.encoders.encoders), "tu-NAME for any of timm's"])


def _normalisation(encoder: str, encoder_weights: str) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Mean and std that go with the weights. Only ``imagenet`` may ask the network."""
    if encoder_weights == "none":
        return IMAGENET_MEAN, IMAGENET_STD
    if encoder.startswith("tu-"):
        import timm

        settings = timm.models.get_pretrained_cfg(encoder[3:], allow_unregistered=True)
        return (tuple(settings.mean), tuple(settings.std)) if settings else (IMAGENET_MEAN, IMAGENET_STD)
    if encoder_weights == "imagenet":
        import segmentation_models_pytorch as smp

        settings = smp.encoders.get_preprocessing_params(encoder)
        return tuple(settings["mean"]), tuple(settings["std"])
    return IMAGENET_MEAN, IMAGENET_STD


def _build_error(arch: str, encoder: str, download: bool, error: Exception) -> InputError:
    reason = " ".join(str(error).split())[:200]
    if download:
        return InputError(
            f"imagenet weights of {encoder} cannot be downloaded ({type(error).__name__}: {reason})",
            "give a local file with --encoder-weights FILE, or train from scratch with --encoder-weights none",
        )
    return InputError(
        f"segmentation_models_pytorch has no {arch} with encoder {encoder} ({reason})", "choose another pair"
    )


def parameter_count(module: nn.Module, trainable: bool = False) -> int:
    """Number of all parameters, or of those that are trained."""
    return sum(parameter.numel() for parameter in module.parameters() if parameter.requires_grad or not trainable)


def require_batch_statistics(
    model: SegmentationModel,
    batch_size: int,
    crop_size: Sequence[int],
    images: int | None = None,
    in_channels: int = 3,
    devices: int = 1,
) -> None:
    """InputError where training batches of one image leave a batch norm one value per channel to normalise.

    ``images`` is how many each of the ``devices`` has, which may be less than ``batch_size``; None: enough.
    """
    if (batch_size > 1 and images != 1) or _takes_one_image(model, crop_size, in_channels):
        return
    few, cures = f"one training image{' a device' if devices > 1 else ''}", []
    if images == 1:
        cures.append(f"add images{' or take fewer --devices' if devices > 1 else ''}")
    if batch_size == 1:
        few = "--batch-size 1"
        cures.append("--batch-size 2 or more")
    cure = f"take {' and '.join(cures)}" if images != 1 else " and ".join(cures)
    cure += ", or --frozen-batch-norm all"
    if _takes_one_image(model, [2 * side for side in crop_size], in_channels):
        cure += ", or a larger --crop-size"
    raise InputError(f"{few} leaves a batch norm of the network one value per channel", cure)


@torch.no_grad()
def _takes_one_image(model: SegmentationModel, size: Sequence[int], in_channels: int) -> bool:
    """Whether a training batch of one image of this size leaves every batch norm something to normalise."""
    try:
        copy.deepcopy(model).train()(torch.zeros(1, in_channels, *size))
    except ValueError as error:
        if "per channel" not in str(error):
            raise
        return False
    return True
