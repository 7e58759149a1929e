"""The rules of a plan as one table: of each option the first row that fits. Evidence changes rows, not code.

A row's source is a row of docs/evidence (``camvid-ce-s0``), a page of docs/, or ``convention``: nobody measured it
here.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from segloss.plan.fingerprint import ClassFacts, Fingerprint

Made = Mapping[str, Any]  # what the rows above decided
CONVENTION = "convention"
KEEP_WIDE = 2.5  # pixels in what the network sees, between classes that are lost and found at half size (CamVid)
FEW_LOST = 0.25  # of the classes, between one of CamVid's 11, for which full size does not pay, and one of two (cracks)
FEW_IMAGES, FEW_PIXELS = 5, 1000  # below either a class is not learnt
FILL = 0.6  # of the memory, by what a training step keeps; the rest is for the optimiser, the loss and the loaders
PIXELS_A_SECOND = 180_000  # seen in training by one core: 15 epochs x 360 crops of 160x224 in 942 to 1168 s
BUDGET = {False: 790_000_000, True: 7_600_000_000}  # pixels seen by a CPU, as protocol long; a GPU, as protocol full
# Bytes that a training step in float32 keeps of each pixel (saved tensors, 2x160x224).
KEPT_BYTES = {
    ("unet", "tu-tf_efficientnet_lite0"): 2350,
    ("unet", "resnet34"): 1480,
    ("deeplabv3plus", "resnet50"): 2430,
}


@dataclass(frozen=True)
class Rule:
    """One row.

    Attributes:
        option: of ``train_seg.py``, or ``decision`` of ``eval_seg.py``.
        when: whether it fits fingerprint and what is made so far.
        value: of the option, or what makes it.
        why: a line in words, which may name ``{facts}`` of :func:`words`.
        source: where it was measured, or ``convention``.
    """

    option: str
    when: Callable[[Fingerprint, Made], bool]
    value: Any
    why: str
    source: str = CONVENTION


@dataclass(frozen=True)
class Shortfall:
    """One row on what the data cannot give.

    Attributes:
        when: asked of each class.
        each: how a class that it fits is named, by its facts.
        what: what follows for all of them, and the cure.
    """

    when: Callable[[ClassFacts, Fingerprint, Made], bool]
    each: str
    what: str


def always(f: Fingerprint, made: Made) -> bool:
    return True


def on_gpu(f: Fingerprint, made: Made) -> bool:
    return f.machine.gpu_memory_gib > 0


def learnable(each: ClassFacts) -> bool:
    return each.images >= FEW_IMAGES and each.pixels >= FEW_PIXELS


def hoped_for(f: Fingerprint) -> list[ClassFacts]:
    """The classes that can be learnt; all that have pixels where none can."""
    return [each for each in f.present if learnable(each)] or f.present


def thinnest(f: Fingerprint) -> ClassFacts:
    return min(hoped_for(f), key=lambda each: each.width)


def rarest(f: Fingerprint) -> ClassFacts:
    return min(hoped_for(f), key=lambda each: each.pixels)


def stays_wide(scale: float) -> Callable[[Fingerprint, Made], bool]:
    return lambda f, made: thinnest(f).width * scale >= KEEP_WIDE


def lost_at(scale: float, f: Fingerprint) -> int:
    """How many classes become too thin."""
    return sum(each.width * scale < KEEP_WIDE for each in hoped_for(f))


def few_lost(scale: float) -> Callable[[Fingerprint, Made], bool]:
    return lambda f, made: lost_at(scale, f) < FEW_LOST * len(hoped_for(f))


def longer_than(side: int, scale: float) -> Callable[[Fingerprint, Made], bool]:
    """Images of so many pixels in their longer side, in which nothing becomes too thin at the scale."""
    return lambda f, made: max(f.size) > side and stays_wide(scale)(f, made)


def memory_gib(f: Fingerprint) -> float:
    return f.machine.gpu_memory_gib or f.machine.memory_gib


def crop_of(most: int) -> Callable[[Fingerprint, Made], list[int]]:
    """The image at its scale, down to multiples of 32 that networks take without padding, at most ``most`` a side."""
    return lambda f, made: [max(32, min(most, int(side * made["image_scale"]) // 32 * 32)) for side in f.size]


def kept_gib(pixels: int, made: Made) -> float:
    return pixels * KEPT_BYTES[made["arch"], made["encoder"]] / 2**30


def crop_fits(most: int, batch: int = 4) -> Callable[[Fingerprint, Made], bool]:
    def fits(f: Fingerprint, made: Made) -> bool:
        height, width = crop_of(most)(f, made)
        return kept_gib(batch * height * width, made) <= FILL * memory_gib(f)

    return fits


def batch_fits(batch: int) -> Callable[[Fingerprint, Made], bool]:
    def fits(f: Fingerprint, made: Made) -> bool:
        height, width = made["crop_size"]
        return batch <= f.images and kept_gib(batch * height * width, made) <= FILL * memory_gib(f)

    return fits


def epoch_pixels(f: Fingerprint, made: Made) -> int:
    height, width = made["crop_size"]
    return int(f.images * height * width)


def epochs(f: Fingerprint, made: Made) -> int:
    """So many that the budget of pixels is seen, between 10 and 300."""
    return min(300, max(10, round(BUDGET[on_gpu(f, made)] / epoch_pixels(f, made))))


RULES = (
    Rule(
        "arch",
        lambda f, made: f.machine.gpu_memory_gib >= 12 and stays_wide(0.25)(f, made),
        "deeplabv3plus",
        "sees far; its scores are a quarter of the size, in which nothing gets thinner than {keep:g} pixels",
    ),
    Rule("arch", always, "unet", "its decoder goes back to half the size: thin classes stay", "camvid-weighted_ce-s0"),
    Rule(
        "encoder",
        lambda f, made: made["arch"] == "deeplabv3plus",
        "resnet50",
        "fits {memory:.0f} GiB; {kept:,} bytes a pixel are kept",
    ),
    Rule("encoder", lambda f, made: f.machine.gpu_memory_gib >= 4, "resnet34", "fits {memory:.0f} GiB of a GPU"),
    Rule(
        "encoder",
        always,
        "tu-tf_efficientnet_lite0",
        "small enough for {cores} cores; all evidence is of it",
        "camvid-ce-s0",
    ),
    Rule("image_scale", longer_than(2048, 0.25), 0.25, "{thin} stays {thin_at:.1f} pixels wide; a crop sees more"),
    Rule("image_scale", longer_than(1024, 0.5), 0.5, "{thin} stays {thin_at:.1f} pixels wide; a crop sees more"),
    Rule("image_scale", on_gpu, 1.0, "a GPU has the time; {thin} is {thin_width:.1f} pixels wide"),
    Rule(
        "image_scale",
        stays_wide(0.5),
        0.5,
        "a quarter of the time; {thin} stays {thin_at:.1f} pixels wide",
        "camvid-weighted_ce-s0",
    ),
    Rule(
        "image_scale",
        few_lost(0.5),
        0.5,
        "a quarter of the time; too thin: {lost} of {of} classes, {thin} with {half:.1f} pixels. On CamVid, with one "
        "of 11, full size was 2.9 mIoU behind after as many pixels and the thin class hardly better (IoU 16, at half "
        "size 12 to 16); if {thin} is what matters: image_scale 1",
        "camvid-full_size-s0",
    ),
    Rule(
        "image_scale",
        always,
        1.0,
        "{thin} is {thin_width:.1f} pixels wide and would be lost at half size, {half:.1f} there, as would {lost} of "
        "{of} classes: on CamVid a class of 1.5 pixels had an IoU of 17, two of 3 pixels 34 and 37",
        "camvid-weighted_ce-s0",
    ),
    Rule(
        "crop_size",
        lambda f, made: on_gpu(f, made) and crop_fits(512)(f, made),
        crop_of(512),
        "at most 512 a side, multiples of 32, 4 of which fit {memory:.0f} GiB",
    ),
    Rule(
        "crop_size",
        crop_fits(256),
        crop_of(256),
        "at most 256 a side, multiples of 32, 4 of which fit {memory:.0f} GiB",
    ),
    Rule("crop_size", always, crop_of(128), "as little as {memory:.0f} GiB take"),
    Rule("batch_size", batch_fits(8), 8, "as in all evidence; keeps {step:.1f} GiB", "camvid-ce-s0"),
    Rule("batch_size", batch_fits(4), 4, "8 crops do not fit, or there are fewer images"),
    Rule("batch_size", always, 2, "the least that a batch norm takes"),
    Rule(
        "epochs",
        on_gpu,
        epochs,
        "{seen:.1f} G pixels seen, aiming at the 7.6 of protocol full in 10 to 300 epochs",
    ),
    Rule(
        "epochs",
        always,
        epochs,
        "{seen:.1f} G pixels seen, aiming at the 0.8 of protocol long in 10 to 300 epochs: about {minutes:,.0f} min on "
        "{cores} cores",
        "camvid-weighted_ce-s0",
    ),
    Rule(
        "loss",
        lambda f, made: f.imbalance < 3,
        "ce",
        "{largest} has {imbalance:.1f} times the pixels of {rare}: nothing to weigh",
    ),
    Rule(
        "loss",
        always,
        "0.25*weighted_ce+0.75*jaccard",
        "{largest} has {imbalance:,.0f} times the pixels of {rare}; 56.2 mIoU on CamVid as it decides, "
        "weighted_ce alone 54.8, cross entropy 47.2",
        "camvid-weighted_ce_jaccard-s0",
    ),
    Rule(
        "class_weights",
        lambda f, made: "weighted_" in made["loss"],
        "median_frequency",
        "of all evidence but one row, in which inverse_sqrt was level (cracks, held-out data)",
        "camvid-weighted_ce_jaccard-s0",
    ),
    Rule(
        "guided_crops",
        lambda f, made: rarest(f).images < 0.5 * f.images or rarest(f).share < 0.001,
        0.5,
        "{rare} is in {rare_images} of {images} images, {rare_pixels:,} pixels: half of the crops look for "
        "rare classes",
    ),
    Rule(
        "repeat_threshold",
        lambda f, made: rarest(f).images < 0.05 * f.images,
        0.05,
        "{rare} is in {rare_images} of {images} images: those of rare classes come more often",
    ),
    Rule(
        "cache",
        lambda f, made: f.bytes < 0.25 * f.machine.memory_gib * 2**30,
        "ram",
        "{data_gib:.2f} GiB decoded, of {all_memory:.0f}: each file is read once",
    ),
    Rule(
        "decision",
        always,
        "iou",
        "1 to 6 points of mIoU over the plain argmax on CamVid, 2 on facades, 0 to 10 on cracks; nothing to set",
        "camvid-ce-s0",
    ),
)


SHORTFALLS = (
    Shortfall(
        lambda each, f, made: each.pixels == 0,
        "{name}",
        "no pixel in train, so never learnt: leave out of the class file",
    ),
    Shortfall(
        lambda each, f, made: each.pixels > 0 and not learnable(each),
        "{name}: {pixels:,} pixels in {images} image{s}",
        "will not be learnt: merge with a like class, or ignore",
    ),
    Shortfall(
        lambda each, f, made: learnable(each) and each.width * made["image_scale"] < KEEP_WIDE,
        "{name}: {seen_width:.1f} pixels wide at image_scale {scale:g}",
        f"expect little under {KEEP_WIDE:g} pixels: enlarge with --image-scale, or take more detailed images",
    ),
    Shortfall(
        lambda each, f, made: learnable(each) and each.val_images == 0,
        "{name}: {images} images in train, none in val",
        "best.ckpt and decision are chosen without: move some images to val",
    ),
    Shortfall(
        lambda each, f, made: each.share > 0.9,
        "{name}: {share:.1%} of all pixels",
        "look at the IoU of each class, not at pixel accuracy; loss and decision above are for the others",
    ),
    Shortfall(
        lambda each, f, made: each is f.largest_class and f.images < 100,
        "{all_images} training images",
        "few: begin with pretrained weights, --encoder-weights imagenet, and watch val",
    ),
)


def words(f: Fingerprint, made: Made) -> dict[str, Any]:
    """What reasons may name, as far as it is known."""
    thin, rare = thinnest(f), rarest(f)
    facts: dict[str, Any] = {
        "thin": thin.name,
        "thin_width": thin.width,
        "half": thin.width / 2,
        "lost": lost_at(0.5, f),
        "of": len(hoped_for(f)),
        "rare": rare.name,
        "rare_images": rare.images,
        "rare_pixels": rare.pixels,
        "images": f.images,
        "largest": f.largest_class.name,
        "imbalance": f.largest_class.pixels / rare.pixels,
        "cores": f.machine.cores,
        "memory": memory_gib(f),
        "all_memory": f.machine.memory_gib,
        "data_gib": f.bytes / 2**30,
        "keep": KEEP_WIDE,
    }
    if "encoder" in made:
        facts["kept"] = KEPT_BYTES[made["arch"], made["encoder"]]
    if "image_scale" in made:
        facts["thin_at"] = thin.width * made["image_scale"]
    if "batch_size" in made:
        height, width = made["crop_size"]
        facts["step"] = kept_gib(made["batch_size"] * height * width, made)
    if "epochs" in made:
        seen = made["epochs"] * epoch_pixels(f, made)
        facts |= {"seen": seen / 1e9, "minutes": seen / (PIXELS_A_SECOND * f.machine.cores * 60)}
    return facts
