"""A plan: facts of data and machine, rules that are a table, a file that training takes, and what data cannot give."""

import shlex
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import yaml
from data_trees import random_image, write_png

import segloss.datasets.base as base
from segloss.config import TrainConfig
from segloss.datasets import build_dataset
from segloss.errors import InputError
from segloss.flags import from_plain_dict, keys_of, parse_config
from segloss.pixel_counts import load_or_count
from segloss.plan import ClassFacts, Fingerprint, MachineFacts, fingerprint_of, make_plan
from segloss.plan.command import main
from segloss.plan.fingerprint import BINS, components_of, kept_components
from segloss.plan.rules import CONVENTION, KEPT_BYTES, RULES
from segloss.resume import parse_train_config
from train_seg import _planned

ROOT = Path(__file__).resolve().parents[2]
LAPTOP, CARD = MachineFacts(2, 16.0), MachineFacts(16, 64.0, 24.0)
ROAD = ClassFacts("road", 9_000_000, 0.97, 100, 5000.0, 60.0, 20)
POLE = ClassFacts("pole", 90_000, 0.01, 90, 40.0, 2.7, 20)
CAR = ClassFacts("car", 180_000, 0.02, 80, 900.0, 20.0, 20)


def facts(*classes: ClassFacts, machine: MachineFacts = LAPTOP, **other) -> Fingerprint:
    size = other.pop("size", (360, 480))
    defaults = {"images": 100, "val_images": 20, "largest": size, "bands": 3, "bytes": 10**8}
    return Fingerprint(classes or (ROAD, CAR), size=size, machine=machine, **{**defaults, **other})


def advised(fingerprint: Fingerprint) -> dict:
    return {each.option: (each.value, each.why) for each in make_plan(fingerprint).advice}


@pytest.fixture(autouse=True)
def own_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("SEGLOSS_CACHE", str(tmp_path / "cache"))
    monkeypatch.chdir(tmp_path)


def street(root: Path, rare_images: int = 2, images: int = 14) -> Path:
    """Images of 96x64: a wall, in each a pole of 2x40 pixels, in some a lamp of 3x3."""
    root.mkdir()
    (root / "classes.yaml").write_text("- wall\n- pole\n- lamp\n- ghost\n")
    for split in ("train", "val"):
        for i in range(images):
            labels = np.zeros((64, 96), np.uint8)
            labels[10:50, 6 * i + 5 : 6 * i + 7] = 1
            if i < rare_images and split == "train":
                labels[54:57, 80:83] = 2
            write_png(root / f"images/{split}/{i}.png", random_image(i, (64, 96)))
            write_png(root / f"masks/{split}/{i}.png", labels)
    return root


def fingerprint(root: Path, machine: MachineFacts = LAPTOP) -> Fingerprint:
    return fingerprint_of(build_dataset("folder", root, "train"), build_dataset("folder", root, "val"), machine)


# ---- what is seen


@pytest.mark.parametrize("width", [1, 2, 3, 4, 7, 12, 30])
def test_the_width_of_a_strip_is_found_to_half_a_pixel_or_a_tenth(width):
    labels = np.zeros((200, 64), np.uint8)
    labels[5:195, 10 : 10 + width] = 1
    found = components_of(labels, [1], 2)
    assert found[0].sum() == 0 and found[1, 0].sum() == 1 and found[1, 1].sum() == 1
    least = max(2, width)  # one pixel and two are all edge
    assert abs(2 ** (found[1, 1].argmax() / 8 + 1 / 16) - least) <= max(0.5, 0.1 * width)
    assert abs(2 ** (found[1, 0].argmax() / 8 + 1 / 16) / (190 * width) - 1) < 0.1


def test_many_crumbs_beside_a_wide_region_do_not_make_it_thin():
    labels = np.zeros((100, 100), np.uint8)
    labels[10:60, 10:60] = 1
    labels[70:98:4, 2:98:4] = 1
    labels[72:74, 0:2] = 1
    assert 2 ** (components_of(labels, [1], 2)[1, 1].argmax() / 8) > 25


def test_shares_images_and_sizes_are_those_of_the_masks(tmp_path):
    root = street(tmp_path / "data")
    found = fingerprint(root)
    counts, _ = load_or_count(build_dataset("folder", root, "train"))
    assert [each.pixels for each in found.classes] == [*counts.pixels] == [14 * 64 * 96 - 1120 - 18, 1120, 18, 0]
    assert [each.images for each in found.classes] == [14, 14, 2, 0]
    assert [each.val_images for each in found.classes] == [14, 14, 0, 0]
    assert sum(each.share for each in found.classes) == pytest.approx(1)
    _, pole, lamp, ghost = found.classes
    assert 1.5 < pole.width < 2.5 and 75 < pole.median_pixels < 90
    assert 8 <= lamp.median_pixels < 10 and (ghost.median_pixels, ghost.width) == (0, 0)
    assert (found.size, found.largest, found.bands) == ((64, 96), (64, 96), 3)
    assert found.bytes == 28 * 64 * 96 * 4


def test_a_class_of_crumbs_alone_is_a_pixel_wide(tmp_path):
    root = street(tmp_path / "data")
    labels = np.zeros((64, 96), np.uint8)
    labels[10:50:4, 5:90:4] = 1
    for path in (root / "masks/train").iterdir():
        write_png(path, labels)
    wall, dots, lamp, ghost = fingerprint(root).classes
    assert (dots.width, dots.median_pixels) == (1, 0) and (ghost.width, lamp.width) == (0, 0) and wall.width > 1


def test_a_second_plan_reads_no_mask_and_training_finds_the_counts(tmp_path, monkeypatch):
    root = street(tmp_path / "data")
    first = fingerprint(root)
    monkeypatch.setattr(base, "read_mask", None)
    assert fingerprint(root) == first
    assert load_or_count(build_dataset("folder", root, "train"))[1] != "counted"


def test_of_each_class_a_few_images_are_looked_at(tmp_path, monkeypatch):
    dataset = build_dataset("folder", street(tmp_path / "data"), "train")
    monkeypatch.setattr("segloss.plan.fingerprint.SAMPLE", 2)
    read = []
    monkeypatch.setattr(dataset, "read_labels", lambda i, own=dataset.read_labels: (read.append(i), own(i))[1])
    held = np.array([[True, True, i < 2, False] for i in range(14)])
    assert kept_components(dataset, held).shape == (4, 2, BINS)
    assert sorted(read) == [0, 1, 13]  # both ends of the frequent, both of the rare


# ---- the rules


def test_every_rule_names_an_option_with_a_value_it_takes_and_a_row_of_evidence_or_convention():
    known = {key.name for key in keys_of(TrainConfig)} | {"decision"}
    for rule in RULES:
        assert rule.option in known
        assert rule.source == CONVENTION or (ROOT / f"docs/evidence/{rule.source}.json").is_file(), rule


@pytest.mark.parametrize("machine", [LAPTOP, CARD, MachineFacts(1, 2.0), MachineFacts(64, 500.0, 80.0)])
@pytest.mark.parametrize("size", [(20, 30), (360, 480), (1024, 2048), (5000, 5000)])
@pytest.mark.parametrize("classes", [(ROAD, POLE), (ROAD, CAR), (CAR, replace(CAR, name="bus"))])
def test_every_plan_is_a_config_of_training_that_fits_the_memory(machine, size, classes):
    options = make_plan(facts(*classes, machine=machine, size=size)).options
    config = from_plain_dict(TrainConfig, options)
    config.validate()
    assert config.unused_options() == []
    height, width = config.crop_size
    assert height % 32 == 0 == width % 32
    step = config.batch_size * height * width * KEPT_BYTES[config.arch, config.encoder] / 2**30
    assert step <= 0.6 * (machine.gpu_memory_gib or machine.memory_gib)
    assert 10 <= config.epochs <= 300


def test_a_thin_class_keeps_the_images_at_full_size_and_is_named():
    scale, why = advised(facts(ROAD, POLE))["image_scale"]
    assert scale == 1 and "pole with 1.4 of its 2.7 pixels" in why
    assert advised(facts(ROAD, CAR))["image_scale"][0] == 0.5
    assert advised(facts(ROAD, POLE, size=(2000, 3000), machine=CARD))["image_scale"][0] == 1
    assert advised(facts(ROAD, CAR, size=(2000, 3000), machine=CARD))["image_scale"][0] == 0.25


@pytest.mark.parametrize(("classes", "scale"), [(2, 1), (4, 1), (5, 0.5), (11, 0.5)])
def test_half_size_stays_where_less_than_a_quarter_of_the_classes_is_too_thin_for_it(classes, scale):
    street = (ROAD, *(replace(CAR, name=f"car{i}") for i in range(classes - 2)), POLE)
    said, why = advised(facts(*street))["image_scale"]
    assert said == scale and f" 1 of {classes} classes" in why
    assert advised(facts(*street, machine=CARD))["image_scale"][0] == 1
    warned = any(
        line.startswith("pole: 1.4 pixels wide at image_scale 0.5") for line in make_plan(facts(*street)).shortfalls
    )
    assert warned == (scale == 0.5)


def test_a_thin_class_that_cannot_be_learnt_anyway_decides_nothing():
    ring = ClassFacts("ring", 171, 1e-6, 4, 31.0, 1.2, 1)
    assert advised(facts(ROAD, CAR, ring))["image_scale"][0] == 0.5
    bus = replace(CAR, name="bus", pixels=170_000)
    assert advised(facts(CAR, bus, ring))["loss"] == advised(facts(CAR, bus))["loss"]
    assert advised(facts(CAR, bus, ring))["loss"][0] == "ce"


@pytest.mark.parametrize("lesions", [ClassFacts("lesion", 900, 1e-4, 60, 15.0, 4.0, 12), replace(POLE, images=3)])
def test_where_the_background_alone_can_be_learnt_the_others_are_still_weighed(lesions):
    assert advised(facts(ROAD, lesions))["loss"][0] == TrainConfig().loss
    assert advised(facts(ROAD, lesions))["guided_crops"][0] == 0.5
    assert any("will not be learnt" in line for line in make_plan(facts(ROAD, lesions)).shortfalls)


def test_of_few_images_half_are_enough():
    tiles = [replace(ROAD, images=4), replace(CAR, images=3), replace(POLE, images=1)]
    lines = make_plan(facts(*tiles, images=4, size=(10_000, 10_000))).shortfalls
    assert [line for line in lines if "will not be learnt" in line] == [
        "pole: 90,000 pixels in 1 image: will not be learnt: merge with a like class, or ignore"
    ]
    assert any(line.startswith("300 training steps: few: cut large images into tiles") for line in lines)


def test_small_images_are_not_made_smaller_and_crops_keep_most_of_them():
    scale, why = advised(facts(ROAD, CAR, size=(28, 63)))["image_scale"]
    assert scale == 1 and "images of 28x63 are small" in why
    plan = make_plan(facts(ROAD, CAR, size=(28, 63)))
    assert plan.options["crop_size"] == [32, 64]
    assert plan.options["epochs"] == 300  # the rim of a crop is no pixel seen
    assert advised(facts(ROAD, CAR, size=(255, 400)))["image_scale"][0] == 1
    assert advised(facts(ROAD, CAR, size=(256, 400)))["image_scale"][0] == 0.5


def test_a_network_that_sees_a_quarter_is_for_classes_that_stay_wide_at_the_scale_chosen():
    bus = replace(CAR, name="bus", width=20.0)
    found = advised(facts(ROAD, bus, size=(2000, 3000), machine=CARD))
    assert (found["image_scale"][0], found["arch"][0]) == (0.25, "unet")
    found = advised(facts(ROAD, replace(bus, width=41.0), size=(2000, 3000), machine=CARD))
    assert (found["image_scale"][0], found["arch"][0]) == (0.25, "deeplabv3plus")


def test_options_that_are_given_are_planned_around():
    given = {"image_scale": 1.0, "arch": "fpn", "encoder": "mit_b0", "batch_size": 2}
    plan = make_plan(facts(ROAD, CAR), given)
    assert not plan.options.keys() & given.keys()
    assert plan.options["crop_size"] == [256, 256] and make_plan(facts(ROAD, CAR)).options["crop_size"] == [160, 224]
    assert plan.options["epochs"] == round(790_000_000 / (100 * 256 * 256))
    many = make_plan(facts(ROAD, CAR, machine=MachineFacts(2, 1.0)), {"crop_size": [2048, 2048]}).options
    assert many["batch_size"] == 2


def test_a_machine_with_little_shared_memory_keeps_no_images_there():
    assert "cache" not in advised(facts(machine=replace(LAPTOP, cache_gib=0.06)))
    assert advised(facts(machine=replace(LAPTOP, cache_gib=8.0)))["cache"][0] == "ram"


def test_data_without_a_labelled_pixel_cannot_be_planned_for():
    with pytest.raises(InputError, match="no class has a labelled pixel"):
        make_plan(facts(replace(ROAD, pixels=0), replace(CAR, pixels=0)))


def test_balanced_classes_are_not_weighed():
    assert advised(facts(CAR, replace(CAR, name="bus", pixels=170_000)))["loss"][0] == "ce"
    assert "class_weights" not in advised(facts(CAR, replace(CAR, name="bus", pixels=170_000)))
    loss, why = advised(facts(ROAD, POLE))["loss"]
    assert loss == TrainConfig().loss and "100 times the pixels of pole" in why


def test_images_of_a_rare_class_are_looked_for():
    tiny = replace(CAR, share=9e-4, pixels=5000)
    assert "5,000 pixels in 80 of 100 images" in advised(facts(ROAD, tiny))["guided_crops"][1]
    assert "repeat_threshold" not in advised(facts(ROAD, tiny))
    seldom = advised(facts(ROAD, replace(CAR, images=20), images=500))
    assert (seldom["repeat_threshold"][0], seldom["guided_crops"][0]) == (0.05, 0.5)
    assert all("0.5 [0.3, 0.7]" in seldom[name][1] for name in ("repeat_threshold", "guided_crops"))
    for images in (80, 40, 5):  # facade's doors are in 40 of 85: level with the default
        assert not {"guided_crops", "repeat_threshold"} & advised(facts(ROAD, replace(CAR, images=images))).keys()


def test_a_plan_without_pretrained_weights_says_what_its_figures_began_from():
    for classes in ((ROAD, CAR), (ROAD, POLE), (CAR, replace(CAR, name="bus"))):
        for machine in (LAPTOP, CARD):
            value, why = advised(facts(*classes, machine=machine))["encoder_weights"]
            assert (
                value == "none"
                and "ImageNet" in why
                and "take encoder_weights: imagenet" in why
                and "expect less" in why
            )
    for given in ({"encoder_weights": "imagenet"}, {"encoder_weights": "w.safetensors"}, {"init_from": "runs/a"}):
        assert "encoder_weights" not in make_plan(facts(), given).options


@pytest.mark.parametrize("pixels", [180_000, 90_000])
def test_equal_classes_and_classes_of_few_images_have_reasons_that_can_be_read(pixels):
    bus = replace(CAR, name="bus", pixels=pixels)
    _, why = advised(facts(CAR, bus))["loss"]
    assert f"more than {180_000 / pixels:.1f} times the pixels of another" in why
    crumb = replace(CAR, images=2, pixels=220)
    plan = make_plan(facts(crumb, replace(crumb, name="bus"), images=2, size=(14, 16)))
    (told,) = [line for line in plan.shortfalls if "will not be learnt" in line]
    assert told.startswith("car: 220 pixels in 2 images, bus: 220 pixels in 2 images: ") and "label more" in told
    assert "merge" not in told
    whys = {each.option: each.why for each in plan.advice}
    assert whys["epochs"].startswith("0.13 million pixels seen") and "less than a minute" in whys["epochs"]


def test_minutes_become_hours_and_more_cores_make_them_less():
    whys = [advised(facts(machine=MachineFacts(cores, 16.0)))["epochs"][1] for cores in (1, 8, 64)]
    assert "about 1.8 h with cores: 1 (half of all rows: 64 min to 2.7 h)" in whys[0]
    assert "about 14 min" in whys[1] and "about 14 min" in whys[2]


@pytest.mark.parametrize("loss", ["ce", TrainConfig().loss, "focal"])
def test_the_decision_has_the_reason_of_the_loss(loss):
    why = make_plan(facts(), {"loss": loss}).advice[-1].why
    assert ("cross entropy" in why, "this loss" in why) == (loss == "ce", loss == TrainConfig().loss)


@pytest.mark.parametrize(
    ("machine", "given"),
    [
        (MachineFacts(2, 0.05), {}),
        (MachineFacts(2, 16.0, 0.1), {}),
        (LAPTOP, {"crop_size": [4096, 4096]}),
        (LAPTOP, {"batch_size": 512}),
    ],
)
def test_a_plan_that_does_not_fit_the_memory_says_so(machine, given):
    assert any("does not fit" in line for line in make_plan(facts(machine=machine), given).shortfalls)
    assert not any("does not fit" in line for line in make_plan(facts()).shortfalls)


def test_a_small_card_takes_smaller_steps_and_networks():
    small = advised(facts(ROAD, POLE, machine=MachineFacts(8, 32, 2.0), size=(1024, 2048)))
    assert (small["encoder"][0], small["batch_size"][0]) == ("tu-tf_efficientnet_lite0", 8)
    assert small["crop_size"][0] == [256, 256]
    assert advised(facts(ROAD, POLE, machine=CARD, size=(1024, 2048)))["crop_size"][0] == [512, 512]
    assert advised(facts(ROAD, CAR, machine=CARD))["arch"][0] == "deeplabv3plus"
    assert advised(facts(ROAD, POLE, machine=CARD))["arch"][0] == "unet"


def test_data_larger_than_the_memory_is_not_kept_there():
    assert advised(facts())["cache"][0] == "ram"
    assert "cache" not in advised(facts(bytes=10 * 2**30))


# ---- what the data cannot give


def test_classes_that_will_not_be_learnt_are_told_with_their_pixels_and_images():
    earrings = ClassFacts("earrings", 134, 1e-6, 1, 61.0, 3.8, 0)
    lines = make_plan(facts(CAR, replace(CAR, name="bus"), earrings)).shortfalls
    assert lines == ("earrings: 134 pixels in 1 image: will not be learnt: merge with a like class, or ignore",)


@pytest.mark.parametrize(
    ("each", "said"),
    [
        (ClassFacts("clogs", 0, 0, 0, 0, 0, 0), "clogs: no pixel in train"),
        (replace(CAR, width=1.2), "car: 1.2 pixels wide at image_scale 1: expect little"),
        (replace(CAR, val_images=0), "car: 80 images in train, none in val"),
        (ROAD, "road: 97.0% of all pixels: look at the IoU of each class"),
    ],
)
def test_other_things_that_data_cannot_give(each, said):
    bus = replace(CAR, name="bus")
    assert any(line.startswith(said) for line in make_plan(facts(bus, each)).shortfalls)
    assert make_plan(facts(bus, CAR)).shortfalls == ()


def test_many_classes_are_named_in_one_line():
    empty = [ClassFacts(f"c{i}", 0, 0, 0, 0, 0, 0) for i in range(9)]
    (line,) = make_plan(facts(CAR, replace(CAR, name="bus"), *empty)).shortfalls
    assert "c5 and 3 more: no pixel" in line


# ---- the commands


def test_the_file_is_a_config_of_training_with_a_reason_above_each_line(tmp_path, capsys):
    root = street(tmp_path / "data")
    main(shlex.split(f"--dataset folder --data-path {root} --output my.yaml --cores 2 --memory-gib 8"))
    out = capsys.readouterr().out
    assert max(len(line) for line in out.splitlines()) <= 80
    words = " ".join(out.split())
    assert "images of 64x96 are small" in words and "lamp: 18 pixels in 2 images: will not be learnt" in words
    text = Path("my.yaml").read_text()
    config = parse_config(TrainConfig, "train_seg.py", ["--config", "my.yaml"])
    assert config.data_path == str(root) and config.dataset == "folder" and config.image_scale == 1.0
    lines = text.splitlines()
    for name in yaml.safe_load(text):
        if name not in ("dataset", "data_path"):
            place = next(i for i, line in enumerate(lines) if line.startswith(f"{name}:"))
            assert lines[place - 1].startswith("# ") and lines[place - 1].endswith("]")


def test_the_plan_is_for_the_machine_that_is_named(tmp_path):
    root = street(tmp_path / "data")
    main(shlex.split(f"--dataset folder --data-path {root} --gpu-memory-gib 24 --accelerator gpu --output a.yaml"))
    main(shlex.split(f"--dataset folder --data-path {root} --gpu-memory-gib 0 --accelerator cpu --output b.yaml"))
    encoders = [yaml.safe_load(Path(name).read_text())["encoder"] for name in ("a.yaml", "b.yaml")]
    assert encoders == ["resnet34", "tu-tf_efficientnet_lite0"]


def test_a_file_that_says_other_things_is_not_replaced(tmp_path):
    words = ["--dataset", "folder", "--data-path", str(street(tmp_path / "data")), "--accelerator", "cpu"]
    main(words)
    main(words)  # the same again
    plan = Path("plan.yaml")
    plan.write_text(plan.read_text().replace("batch_size: 8", "batch_size: 7"))
    for target in (plan, tmp_path / "data/classes.yaml"):
        held = target.read_bytes()
        with pytest.raises(InputError, match="is there already, and says other things; choose another --output"):
            main([*words, "--output", str(target)])
        assert target.read_bytes() == held


def test_made_up_data_can_be_planned_for():
    main(["--dataset", "synthetic", "--output", "plan.yaml"])
    assert parse_config(TrainConfig, "train_seg.py", ["--config", "plan.yaml"]).dataset == "synthetic"


def test_flags_and_files_stand_over_the_plan(tmp_path, capsys):
    root = street(tmp_path / "data")
    Path("own.yaml").write_text("batch_size: 3\n")
    words = f"--plan auto --dataset folder --data-path {root} --accelerator cpu --epochs 2 --config own.yaml"
    config = parse_train_config(shlex.split(words), _planned)
    assert (config.epochs, config.batch_size) == (2, 3)
    assert "given, and planned around: --epochs 2, --batch-size 3\n" in capsys.readouterr().out
    assert (config.encoder, config.loss, config.crop_size) == ("tu-tf_efficientnet_lite0", TrainConfig().loss, (64, 96))


def test_an_option_that_is_given_as_its_default_is_planned_around_and_null_is_left_to_the_plan(tmp_path, capsys):
    root = street(tmp_path / "data")
    Path("own.yaml").write_text("arch: unet\ncrop_size: null\n")
    words = f"--plan auto --dataset folder --data-path {root} --accelerator cpu --image-scale 1 --batch-size 8"
    config = parse_train_config([*words.split(), "--config", "own.yaml"], _planned)
    assert "given, and planned around: --arch unet, --batch-size 8, --image-scale 1.0\n" in capsys.readouterr().out
    assert config.crop_size == (64, 96) and config.batch_size == 8


def test_a_run_that_goes_on_is_not_planned_anew(tmp_path):
    Path("run").mkdir()
    Path("run/config.yaml").write_text("dataset: synthetic\noutput_dir: run\nloss: focal\nplan: auto\n")
    config = parse_train_config(["--resume", "--output-dir", "run", "--plan", "auto"], lambda *_: 1 / 0)
    assert config.loss == "focal"


def test_without_the_flag_nothing_is_planned():
    assert parse_train_config([], lambda *_: 1 / 0) == TrainConfig()


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ("--gpu-memory-gib -1", "--gpu-memory-gib must be"),
        ("--cores 0", "--cores must be at least 1"),
        ("--data-path nowhere", "nowhere"),
        ("--gpu-memory-gib 8 --accelerator cpu", "--gpu-memory-gib 8 contradicts --accelerator cpu; leave one of"),
        ("--gpu-memory-gib 0 --accelerator gpu", "--gpu-memory-gib 0 contradicts --accelerator gpu"),
        ("--output .", r"^\.: cannot be written: is a folder; choose another --output"),
    ],
)
def test_bad_input_is_one_line(tmp_path, words, said):
    root = street(tmp_path / "data")
    with pytest.raises(InputError, match=said):
        main(shlex.split(f"--dataset folder --data-path {root} {words}"))


def test_masks_of_one_class_are_refused_before_anything_is_planned(tmp_path):
    root = street(tmp_path / "data")
    for path in (root / "masks/train").iterdir():
        write_png(path, np.zeros((64, 96), np.uint8))
    with pytest.raises(InputError, match="wall alone has pixels"):
        main(shlex.split(f"--dataset folder --data-path {root}"))
