"""The rules of a plan as one table: of each option the first row that fits. Evidence changes rows, not code.

A row's source is a row of docs/evidence (``camvid-ce-s0``), a page of docs/, or ``convention``: nobody measured it
here.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from segloss.datasets.cache import SHARE_TO_FILL
from segloss.plan.fingerprint import ClassFacts, Fingerprint

Made = Mapping[str, Any]  # what the rows above decided
CONVENTION = "convention"
KEEP_WIDE = 2.5  # pixels in what the network sees, between classes that are lost and found at half size (CamVid)
FEW_LOST = 0.25  # of the classes, between one of CamVid's 11, for which full size does not pay, and one of two (cracks)
FEW_IMAGES, FEW_PIXELS = 5, 1000  # below either a class is not learnt
FILL = 0.6  # of the memory, by what a training step keeps; the rest is for the optimiser, the loss and the loaders
PIXELS_A_SECOND = (82_000, 120_000, 205_000)  # seen in training by one core: quartiles of the rows of evidence
MANY_CORES = 8  # more are not counted: nobody measured them
FEW_STEPS = 500
SMALL_SIDE = 128  # pixels: images are not made smaller than that
BALANCED = 3  # pixels of a class for each of another, up to which nothing is weighed
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
        when: asked of each class; what is of all data is told of the largest.
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


def learnable(each: ClassFacts, f: Fingerprint) -> bool:
    """Whether it has pixels and images enough; of few images half are."""
    return each.images >= min(FEW_IMAGES, max(1, f.images // 2)) and each.pixels >= FEW_PIXELS


def hoped_for(f: Fingerprint) -> list[ClassFacts]:
    """The classes that can be learnt; all that have pixels where fewer than two can: one alone outweighs nothing."""
    found = [each for each in f.present if learnable(each, f)]
    return found if len(found) > 1 else f.present


def too_little(each: ClassFacts, f: Fingerprint) -> bool:
    return each.pixels > 0 and not learnable(each, f)


def learnt(f: Fingerprint) -> int:
    """How many classes can be."""
    return sum(learnable(each, f) for each in f.classes)


def thinnest(f: Fingerprint) -> ClassFacts:
    return min(hoped_for(f), key=lambda each: each.width)


def by_pixels(f: Fingerprint) -> list[ClassFacts]:
    """The classes that can be learnt, rare to frequent; of several equal ones the first and the last are two."""
    return sorted(hoped_for(f), key=lambda each: each.pixels)


def rarest(f: Fingerprint) -> ClassFacts:
    return by_pixels(f)[0]


def most_frequent(f: Fingerprint) -> ClassFacts:
    return by_pixels(f)[-1]


def imbalance(f: Fingerprint) -> float:
    """Pixels of the most frequent class for each of the rarest, of those that can be learnt."""
    return most_frequent(f).pixels / rarest(f).pixels


def small_already(f: Fingerprint, made: Made) -> bool:
    return min(f.size) < 2 * SMALL_SIDE


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
    return lambda f, made: [min(most, to_32(side * made["image_scale"])) for side in f.size]


def to_32(side: float) -> int:
    """The multiple of 32 below, or above where that would leave out more than a quarter."""
    below = int(side) // 32 * 32
    return below if below >= 0.75 * side else below + 32


def kept_gib(pixels: int, made: Made) -> float:
    return pixels * kept_bytes(made) / 2**30


def step_gib(made: Made) -> float:
    """What a step of the plan keeps."""
    height, width = made["crop_size"]
    return kept_gib(made["batch_size"] * height * width, made)


def kept_bytes(made: Made) -> int:
    """Of a pixel; of networks that nobody measured the most of those that were."""
    return KEPT_BYTES.get((made["arch"], made["encoder"]), max(KEPT_BYTES.values()))


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
    seen = [min(crop, side * made["image_scale"]) for crop, side in zip(made["crop_size"], f.size, strict=True)]
    return int(f.images * seen[0] * seen[1])


def steps(f: Fingerprint, made: Made) -> int:
    return int(made["epochs"] * max(1, f.images // made["batch_size"]))


def millions(pixels: float) -> str:
    return f"{pixels / 1e6:,.0f}" if pixels >= 1e7 else f"{pixels / 1e6:.2g}"


def duration(minutes: float) -> str:
    """In words.

    >>> duration(0.2), duration(33.1), duration(187), duration(6000)
    ('less than a minute', '33 min', '3.1 h', '100 h')
    """
    if minutes < 1:
        return "less than a minute"
    return f"{minutes:.0f} min" if minutes < 90 else f"{minutes / 60:,.{1 if minutes < 600 else 0}f} h"


def fits_ram(f: Fingerprint, made: Made) -> bool:
    free = f.machine.cache_gib
    most = 0.25 * f.machine.memory_gib
    return f.bytes / 2**30 < (most if free is None else min(most, SHARE_TO_FILL * free))


def epochs(f: Fingerprint, made: Made) -> int:
    """So many that the budget of pixels is seen, between 10 and 300."""
    return min(300, max(10, round(BUDGET[on_gpu(f, made)] / epoch_pixels(f, made))))


DEFAULT_LOSS = "0.25*weighted_ce+0.75*jaccard"
FEW_SHARE = 0.05  # of the images: a class that is in fewer is looked for
OF_CCP = (
    "guided crops and repeated images together were 0.5 [0.3, 0.7] mIoU ahead of the default on ccp, one seed, on "
    "another machine, and 0.2 of the default's same seed"
)


def in_few_images(f: Fingerprint, made: Made) -> bool:
    return rarest(f).images < FEW_SHARE * f.images


RULES = (
    Rule(
        "image_scale",
        small_already,
        1.0,
        "images of {height}x{width} are small as they are",
    ),
    Rule("image_scale", longer_than(2048, 0.25), 0.25, "a crop sees more; {thin} stays {thin_at:.1f} pixels wide"),
    Rule("image_scale", longer_than(1024, 0.5), 0.5, "a crop sees more; {thin} stays {thin_at:.1f} pixels wide"),
    Rule("image_scale", on_gpu, 1.0, "a GPU has the time; {thin} is {thin_width:.1f} pixels wide"),
    Rule(
        "image_scale",
        stays_wide(0.5),
        0.5,
        "a crop sees more in the same time, and nothing gets too thin: {thin} stays {thin_at:.1f} pixels wide; on "
        "CamVid, where one class does get too thin, half size was 2.9 mIoU ahead of full size after as many pixels",
        "camvid-full_size-s0",
    ),
    Rule(
        "image_scale",
        few_lost(0.5),
        0.5,
        "a crop sees more in the same time; too thin: {lost} of {of} classes, {thin} with {half:.1f} pixels. On "
        "CamVid, with one of 11, full size was 2.9 mIoU behind after as many pixels and found the thin class no better "
        "(IoU 16, at half size 12 to 16)",
        "camvid-full_size-s0",
    ),
    Rule(
        "image_scale",
        always,
        1.0,
        "too thin at half size: {lost} of {of} classes, {thin} with {half:.1f} of its {thin_width:.1f} pixels; on "
        "CamVid a class of 1.5 pixels had an IoU of 17, two of 3 pixels 34 and 37",
        "camvid-weighted_ce-s0",
    ),
    Rule(
        "arch",
        lambda f, made: f.machine.gpu_memory_gib >= 12 and stays_wide(0.25 * made["image_scale"])(f, made),
        "deeplabv3plus",
        "sees far; its scores are a quarter of the size, in which nothing gets thinner than {keep:g} pixels",
    ),
    Rule("arch", always, "unet", "its decoder goes back to half the size: thin classes stay; all evidence is of it"),
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
        "the smallest here; all evidence is of it",
        "camvid-ce-s0",
    ),
    Rule(
        "encoder_weights",
        lambda f, made: "init_from" not in made,
        "none",
        "from scratch, as weights have to be downloaded; all mIoU of these reasons began from ImageNet's: expect less, "
        "or take encoder_weights: imagenet where there is a network",
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
    Rule("crop_size", always, crop_of(128), "as little as {memory:.2g} GiB take"),
    Rule("batch_size", batch_fits(8), 8, "as in all evidence; keeps {step:.1f} GiB", "camvid-ce-s0"),
    Rule("batch_size", batch_fits(4), 4, "8 crops do not fit, or there are fewer images"),
    Rule("batch_size", always, 2, "the least that a batch norm takes"),
    Rule(
        "epochs",
        on_gpu,
        epochs,
        "{seen} million pixels seen, aiming at the {budget} of protocol full in 10 to 300 epochs",
    ),
    Rule(
        "epochs",
        always,
        epochs,
        "{seen} million pixels seen, aiming at the {budget} of protocol long in 10 to 300 epochs: about {typical} with "
        "cores: {cores} (half of all rows: {fast} to {slow}); on CamVid four times as many as short brought 4.6 mIoU",
        "camvid-long-weighted_ce_jaccard-s0",
    ),
    Rule(
        "loss",
        lambda f, made: imbalance(f) < BALANCED,
        "ce",
        "no class has more than {imbalance:.1f} times the pixels of another: nothing to weigh",
    ),
    Rule(
        "loss",
        always,
        DEFAULT_LOSS,
        "{largest} has {imbalance:,.0f} times the pixels of {rare}; 56.2 mIoU on CamVid as it decides, mean of three "
        "seeds, weighted_ce alone 54.8; of two, cross entropy 47.2",
        "camvid-weighted_ce_jaccard-s0",
    ),
    Rule(
        "class_weights",
        lambda f, made: "weighted_" in made["loss"],
        "median_frequency",
        "as in the default; with inverse_sqrt it decides as well on facade (52.5 and 52.5 mIoU, three seeds), not on "
        "CamVid (53.5 and 55.5, seed 0)",
        "facade-weighted_ce_jaccard-inverse_sqrt-s0",
    ),
    Rule(
        "guided_crops",
        in_few_images,
        0.5,
        "{rare} is in {rare_images} of {images} images: half of the crops look for rare classes; " + OF_CCP,
        "ccp-plan-s0",
    ),
    Rule(
        "guided_crops",
        lambda f, made: rarest(f).share < 0.001,
        0.5,
        "{rare} has {rare_pixels:,} pixels in {rare_images} of {images} images: half of the crops look for rare "
        "classes",
    ),
    Rule(
        "repeat_threshold",
        in_few_images,
        FEW_SHARE,
        "{rare} is in {rare_images} of {images} images: those of rare classes come more often; " + OF_CCP,
        "ccp-plan-s0",
    ),
    Rule(
        "cache",
        fits_ram,
        "ram",
        "{data_gib:.2f} GiB decoded, of {all_memory:.0f}: each file is read once",
    ),
    Rule(
        "decision",
        lambda f, made: made["loss"] == "ce",
        "auto",
        "-0.2 to 3.7 points of mIoU over the plain argmax on four sets with cross entropy; nothing to set",
        "camvid-long-ce-s0",
    ),
    Rule(
        "decision",
        lambda f, made: made["loss"] == DEFAULT_LOSS,
        "auto",
        "0.2 to 4.0 points of mIoU over the plain argmax on four sets with this loss; nothing to set",
        "camvid-weighted_ce_jaccard-s0",
    ),
    Rule(
        "decision",
        always,
        "auto",
        "-0.2 to 13.6 points of mIoU over the plain argmax on four sets, more than 0 with most losses; nothing to set",
        "crackforest-power075-k3-s0",
    ),
)


SHORTFALLS = (
    Shortfall(
        lambda each, f, made: each.pixels == 0,
        "{name}",
        "no pixel in train, so never learnt: leave out of the class file",
    ),
    Shortfall(
        lambda each, f, made: too_little(each, f) and learnt(f) > 1,
        "{name}: {pixels:,} pixels in {images} image{s}",
        "will not be learnt: merge with a like class, or ignore",
    ),
    Shortfall(
        lambda each, f, made: too_little(each, f) and learnt(f) < 2,
        "{name}: {pixels:,} pixels in {images} image{s}",
        f"will not be learnt, and fewer than two classes can be: label more, of each class {FEW_PIXELS:,} pixels in "
        f"{FEW_IMAGES} images at least",
    ),
    Shortfall(
        lambda each, f, made: learnable(each, f) and each.width * made["image_scale"] < KEEP_WIDE,
        "{name}: {seen_width:.1f} pixels wide at image_scale {scale:g}",
        f"expect little under {KEEP_WIDE:g} pixels; more detailed images are the cure",
    ),
    Shortfall(
        lambda each, f, made: learnable(each, f) and each.val_images == 0,
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
    Shortfall(
        lambda each, f, made: each is f.largest_class and steps(f, made) < FEW_STEPS,
        "{steps:,} training steps",
        "few: cut large images into tiles that are a crop or two wide, or raise --epochs",
    ),
    Shortfall(
        lambda each, f, made: each is f.largest_class and step_gib(made) > FILL * memory_gib(f),
        "a training step keeps {step:.2g} GiB of {memory:.2g}",
        "does not fit: take more memory, or a smaller --crop-size, --batch-size or network",
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
        "height": f.size[0],
        "width": f.size[1],
        "rare": rare.name,
        "rare_images": rare.images,
        "rare_pixels": rare.pixels,
        "images": f.images,
        "largest": most_frequent(f).name,
        "imbalance": imbalance(f),
        "cores": f.machine.cores,
        "memory": memory_gib(f),
        "all_memory": f.machine.memory_gib,
        "data_gib": f.bytes / 2**30,
        "keep": KEEP_WIDE,
    }
    if made.keys() >= {"arch", "encoder"}:
        facts["kept"] = kept_bytes(made)
    if "image_scale" in made:
        facts |= {"thin_at": thin.width * made["image_scale"], "scale": made["image_scale"]}
    if made.keys() >= {"arch", "encoder", "crop_size", "batch_size"}:
        facts["step"] = step_gib(made)
    if made.keys() >= {"image_scale", "crop_size", "batch_size", "epochs"}:
        seen = made["epochs"] * epoch_pixels(f, made)
        times = [duration(seen / (rate * min(f.machine.cores, MANY_CORES) * 60)) for rate in PIXELS_A_SECOND]
        facts |= dict(zip(("slow", "typical", "fast"), times, strict=True))
        facts |= {"seen": millions(seen), "budget": millions(BUDGET[on_gpu(f, made)]), "steps": steps(f, made)}
    return facts
