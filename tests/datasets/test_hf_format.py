"""``--dataset hf``: tables of images, read as files are; offline, on sets that the tests make."""

import io
import json
import os
import pickle
import subprocess
import sys
import tarfile
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import tifffile
import torch
from data_trees import random_image, random_mask
from PIL import Image
from small_training import SmallRun
from street_trees import TINY

from eval_seg import evaluate
from segloss.config import PlanConfig, TrainConfig
from segloss.datasets import MissingSplitError, NoDataError, build_dataset
from segloss.datasets.bands import Bands, choose_bands
from segloss.datasets.cells import TarCells
from segloss.datasets.classes import ClassTable
from segloss.datasets.loading import EpochSampler, evaluation_loader, training_loader
from segloss.datasets.street_scenes import render_street
from segloss.doctor.command import main as doctor
from segloss.errors import InputError
from segloss.frequency import main as frequency
from segloss.pixel_counts import count_dataset
from segloss.plan.command import look
from segloss.plan.fingerprint import MachineFacts
from segloss.training import Splits
from segloss.training.data import training_data

datasets = pytest.importorskip("datasets")
ROOT = Path(__file__).resolve().parents[2]
NAMES = ["wall", "floor", "lamp"]
SIZE = (12, 17)
SPLITS = {"train": 6, "validation": 2}


@pytest.fixture(autouse=True)
def own_cache(tmp_path, monkeypatch):
    monkeypatch.setattr("datasets.config.HF_DATASETS_CACHE", tmp_path / "hf-cache")
    monkeypatch.setenv("SEGLOSS_CACHE", str(tmp_path / "cache"))


def png(pixels: np.ndarray) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "PNG")
    return buffer.getvalue()


def pixels_of(split: str, place: int) -> tuple[np.ndarray, np.ndarray]:
    seed = place + 100 * (split != "train")
    return random_image(seed, SIZE), random_mask(seed, SIZE)


def rows_of(split: str, count: int, named: bool = True) -> "datasets.Dataset":
    """Images and masks as PNG, with file names beside the images."""
    rows = []
    for place in range(count):
        image, mask = pixels_of(split, place)
        path = f"{split}_{place}.png" if named else None
        rows.append({"image": {"bytes": png(image), "path": path}, "label": {"bytes": png(mask), "path": None}})
    kinds = {"image": datasets.Image(), "label": datasets.Image()}
    return datasets.Dataset.from_list(rows, features=datasets.Features(kinds))


def undecoded(split: str, count: int) -> list[dict]:
    """Rows as :func:`rows_of` makes them, of bytes."""
    both = (map(png, pixels_of(split, place)) for place in range(count))
    return [
        {"image": {"bytes": i, "path": f"{n}.png"}, "label": {"bytes": m, "path": None}}
        for n, (i, m) in enumerate(both)
    ]


def parquet(root: Path, splits=SPLITS, classes=True, **options) -> Path:
    root.mkdir(parents=True)
    for split, count in splits.items():
        rows_of(split, count, **options).to_parquet(root / f"{split}-00000-of-00001.parquet", batch_size=2)
    if classes:
        (root / "classes.yaml").write_text(str(NAMES))
    return root


def on_disk(root: Path) -> Path:
    datasets.DatasetDict({split: rows_of(split, count) for split, count in SPLITS.items()}).save_to_disk(root)
    (root / "classes.yaml").write_text(str(NAMES))
    return root


def shards(root: Path) -> Path:
    """Two shards of training, with a file that is no column."""
    root.mkdir()
    for split, count in SPLITS.items():
        for place in range(count):
            image, mask = pixels_of(split, place)
            with tarfile.open(root / f"{split}-{place % 2:05d}.tar", "a") as shard:
                for ending, data in (("json", b"{}"), ("image", png(image)), ("label", png(mask))):
                    name = {"image": "image.png", "label": "label.png"}.get(ending, ending)
                    member = tarfile.TarInfo(f"{split}_{place}.{name}")
                    member.size = len(data)
                    shard.addfile(member, io.BytesIO(data))
    (root / "classes.yaml").write_text(str(NAMES))
    return root


def opened(root: Path, split: str = "train", **options):
    if any(root.glob("*.tar")):
        options = {"image_column": "image.png", "label_column": "label.png", **options}
    return build_dataset("hf", root, split, **options)


FORMS = {
    "parquet": (parquet, False),
    "save_to_disk": (on_disk, False),
    "tar": (shards, False),
    "parquet as it lies": (parquet, True),
    "tar as it lies": (shards, True),
}


@pytest.mark.parametrize("streaming", [False, True])
def test_tiff_of_any_bands_comes_from_tables_too(tmp_path, streaming):
    rows, bands = [], []
    for place in range(6):
        content = io.BytesIO()
        bands.append(np.random.default_rng(place).integers(0, 2**16, (*SIZE, 5)).astype(np.uint16))
        tifffile.imwrite(content, bands[-1], photometric="minisblack", planarconfig="contig")
        rows.append({"image": content.getvalue(), "label": png(pixels_of("train", place)[1])})
    (tmp_path / "set").mkdir()
    datasets.Dataset.from_list(rows).to_parquet(tmp_path / "set/train-00000-of-00001.parquet")
    (tmp_path / "set/classes.yaml").write_text(str(NAMES))
    dataset = opened(tmp_path / "set", streaming=streaming)
    assert choose_bands([dataset]) == Bands(5, "uint16")
    assert len(dataset.headers()) == (1 if streaming else len(dataset))
    for index, name in enumerate(dataset.names):
        np.testing.assert_array_equal(
            dataset.read_pair(index)[0], bands[int(name.rsplit("/")[-1].rsplit("_")[-1])], err_msg=name
        )
    assert len(dataset.images_state()) == 64


@pytest.mark.parametrize("form", FORMS)
def test_every_form_holds_the_same_samples(tmp_path, form):
    make, streaming = FORMS[form]
    root = make(tmp_path / "set")
    for split, key in (("train", "train"), ("val", "validation")):
        dataset = opened(root, split, streaming=streaming)
        assert sorted(dataset.names) == [f"{key}_{place}" for place in range(SPLITS[key])]
        assert dataset.classes.names == tuple(NAMES) and dataset.has_labels
        copy = pickle.loads(pickle.dumps(dataset))  # as workers get it where they are not forked
        for index, name in enumerate(dataset.names):
            image, labels = pixels_of(key, int(name.rsplit("_")[-1]))
            sample = copy[index]
            assert (sample["image"].numpy().transpose(1, 2, 0) == image[..., :3]).all()
            assert (sample["labels"].numpy() == labels).all() and sample["name"] == name
            assert dataset.image_size(index) == SIZE
        dataset.check_files()
        counts = count_dataset(dataset)
        expected = np.bincount(
            np.concatenate([pixels_of(key, place)[1].ravel() for place in range(SPLITS[key])]), minlength=256
        )
        assert counts.pixels == tuple(expected[:3]) and counts.ignored_pixels == expected[255]
        assert counts.fingerprint and counts.images_digest
    with pytest.raises(MissingSplitError, match="split 'test' is missing, there are train, validation"):
        opened(root, "test", streaming=streaming)


@pytest.mark.parametrize("streaming", [False, True])
@pytest.mark.parametrize(
    ("name", "told"),
    [
        ("train-00000-of-00001", ""),
        ("train-00001-of-00002", "train-00000-of-00002.parquet: is missing: its samples are left out; fetch it"),
        ("train-00000-of-00003", "train-00001-of-00003.parquet: is missing, and 1 more of 3: its samples are left out"),
    ],
)
def test_shards_that_are_counted_and_not_there_are_told(tmp_path, name, told, streaming):
    root = parquet(tmp_path / "hf")
    (root / "train-00000-of-00001.parquet").rename(root / f"{name}.parquet")
    doubts = [str(doubt) for doubt in build_dataset("hf", root, "val", streaming=streaming).found.doubts]
    assert len(doubts) == bool(told) and (not told or told in doubts[0])


def test_one_file_is_its_training_split(tmp_path):
    file = parquet(tmp_path / "set") / "train-00000-of-00001.parquet"
    (tmp_path / "names.txt").write_text("\n".join(NAMES))
    options = {"class_file": str(tmp_path / "names.txt"), "val_share": 0.3}
    for streaming in (False, True):
        train, val = (opened(file, split, streaming=streaming, **options) for split in ("train", "val"))
        assert sorted([*train.names, *val.names]) == [f"train_{place}" for place in range(6)] and val.names
        assert "30% of it for val by a hash of the name" in val.found.form


@pytest.mark.parametrize("streaming", [False, True])
def test_one_file_is_the_split_that_its_name_speaks_of(tmp_path, streaming):
    """It was scored on a fifth of itself."""
    file = parquet(tmp_path / "set", {"validation": 6}) / "validation-00000-of-00001.parquet"
    (tmp_path / "names.txt").write_text("\n".join(NAMES))
    options = {"class_file": str(tmp_path / "names.txt"), "streaming": streaming}
    assert len(opened(file, "val", **options)) == 6
    with pytest.raises(MissingSplitError, match=r"split 'train' is missing, there is val alone; .* is meant train"):
        opened(file, "train", **options)


@pytest.mark.parametrize(
    ("split", "folder", "held"),
    [
        *(("validation", "set", "val"), ("validation[:6]", "set", "val"), (None, "val", "val"), (None, "set", "train")),
        *(("train", "set", "train"), ("train+validation", "set", "train")),
    ],
)
def test_rows_saved_alone_are_of_the_split_that_they_say(tmp_path, split, folder, held):
    rows = datasets.Dataset.from_list(undecoded("train", 6), split=split and datasets.NamedSplit(split))
    rows.save_to_disk(tmp_path / folder)
    (tmp_path / folder / "classes.yaml").write_text(str(NAMES))
    assert (len(opened(tmp_path / folder, "val")) == 6) == (held == "val")
    if held == "train":
        assert sum(len(opened(tmp_path / folder, part, val_share=0.3)) for part in ("train", "val")) == 6


@pytest.mark.parametrize("streaming", [False, True])
@pytest.mark.parametrize("name", ["dev", "validation_matched", "eval"])
def test_a_validation_split_of_another_name_is_read(tmp_path, name, streaming):
    """A fifth of train validated in its place."""
    make = datasets.DatasetDict({part: rows_of(part, count) for part, count in (("train", 6), (name, 2))})
    make.save_to_disk(tmp_path / "set")
    if streaming:
        (tmp_path / "set").rename(tmp_path / "saved")
        (tmp_path / "set").mkdir()
        info = {"configs": [{"config_name": "default", "data_files": []}]}
        for part, rows in make.items():
            rows.to_parquet(tmp_path / f"set/{part}.parquet")
            info["configs"][0]["data_files"].append({"split": part, "path": f"{part}.parquet"})
        (tmp_path / "set/README.md").write_text(f"---\n{json.dumps(info)}\n---\n")
    (tmp_path / "set/classes.yaml").write_text(str(NAMES))
    train, val = (opened(tmp_path / "set", part, streaming=streaming) for part in ("train", "val"))
    assert (len(train), val.names) == (6, [f"{name}_0", f"{name}_1"])


def saved(root: Path, **parts: int) -> Path:
    datasets.DatasetDict({part: rows_of(part, count) for part, count in parts.items()}).save_to_disk(root)
    (root / "classes.yaml").write_text(str(NAMES))
    return root


def test_splits_that_may_be_val_are_told_of(tmp_path):
    root = saved(tmp_path / "two", train=6, val_seen=2, val_unseen=2)
    for part in ("train", "val"):
        with pytest.raises(InputError, match=r"has the splits train, .*, of which val_seen and val_unseen may be val"):
            opened(root, part)
    assert len(opened(root, "val_seen")) == 2
    form = opened(saved(tmp_path / "other", train=6, extra=2, test=1), "train", val_share=0.3).found.form
    assert "train, 30% of it for val by a hash of the name (extra: of neither)" in form


def test_a_test_split_of_another_name_needs_no_masks(tmp_path):
    parts = {"train": rows_of("train", 4), "test_a": rows_of("test_a", 2).remove_columns("label")}
    datasets.DatasetDict(parts).save_to_disk(tmp_path / "set")
    (tmp_path / "set/classes.yaml").write_text(str(NAMES))
    assert not opened(tmp_path / "set", "test").has_labels


def test_classes_come_from_the_features_of_label_arrays(tmp_path):
    kinds = {
        "image": datasets.Image(),
        "label": datasets.List(datasets.List(datasets.ClassLabel(names=["void", *NAMES]))),
    }
    rows = [
        {"image": {"bytes": png(pixels_of("train", place)[0]), "path": None}, "label": [[0, 1, 2], [3, 3, 3]]}
        for place in range(3)
    ]
    (tmp_path / "set").mkdir()
    table = datasets.Dataset.from_list(rows, features=datasets.Features(kinds))
    table.to_parquet(tmp_path / "set/train-0.parquet")
    for streaming in (False, True):
        dataset = opened(tmp_path / "set", streaming=streaming)
        assert dataset.classes.names == tuple(NAMES) and dataset.classes.ids == (1, 2, 3)
        assert dataset.read_labels(0).tolist() == [[255, 0, 1], [2, 2, 2]]
        assert all(len(name) == 6 and name.isdigit() for name in dataset.names)


def test_splits_whose_features_name_other_classes_are_refused(tmp_path, capsys):
    """Validation was scored with swapped classes. ``DIR/train`` is a folder, and the images in it are cells."""
    parts = {}
    for split, names in (("train", ["wall", "lamp", "floor"]), ("validation", NAMES)):
        kinds = {"image": datasets.Image(), "label": datasets.List(datasets.List(datasets.ClassLabel(names=names)))}
        images = [{"bytes": png(pixels_of(split, place)[0]), "path": None} for place in range(3)]
        labels = [(pixels_of(split, place)[1].astype(int) % 3).tolist() for place in range(3)]
        content = {"image": images, "label": labels}
        parts[split] = datasets.Dataset.from_dict(content, features=datasets.Features(kinds))
    datasets.DatasetDict(parts).save_to_disk(tmp_path / "set")
    told = "hf: class 1 is 'lamp' in train and 'floor' in val; save val with the classes of train, in their order"
    options = {"dataset": "hf", "data_path": str(tmp_path / "set")}
    for opens in (
        lambda: training_data(TrainConfig(**options), None),
        lambda: look(PlanConfig(**options), MachineFacts(1, 1.0)),
        lambda: frequency(["--dataset", "hf", "--data-path", options["data_path"], "--split", "train", "val"]),
    ):
        with pytest.raises(InputError, match=told):
            opens()
    with pytest.raises(SystemExit):
        doctor(["--dataset", "hf", "--data-path", options["data_path"]])
    assert told in " ".join(capsys.readouterr().out.split())


def test_names_of_the_hubs_file_and_what_a_missing_one_is_told(tmp_path):
    root = parquet(tmp_path / "set", classes=False)
    with pytest.raises(NoDataError, match="names no classes; give --class-file"):
        opened(root)
    (root / "id2label.json").write_text('{"0": "wall", "1": "floor", "2": "lamp"}')
    assert opened(root).classes.names == tuple(NAMES)


def test_the_names_of_the_hub_mean_the_same_in_a_folder(tmp_path, monkeypatch):
    """Unlabeled was a class of the file in a folder, and ignored of the file on the hub."""
    root, names = parquet(tmp_path / "set", classes=False), tmp_path / "id2label.json"
    names.write_text('{"0": "Unlabeled", "1": "wall", "2": "floor", "4": "lamp"}')
    monkeypatch.setattr("huggingface_hub.hf_hub_download", lambda *place, **kind: str(names))
    of_hub, of_option = opened(root).classes, opened(root, class_file=str(names)).classes
    names.rename(root / "id2label.json")
    of_folder = opened(root).classes
    assert of_hub == of_folder == of_option == ClassTable(("wall", "floor", "lamp"), (1, 2, 4), ignore_ids=(0,))


def test_a_wrong_column_is_told_those_there_are(tmp_path):
    root = parquet(tmp_path / "set")
    for streaming in (False, True):
        with pytest.raises(InputError, match=r"unknown --image-column 'picture'; choose one of image, label"):
            opened(root, image_column="picture", streaming=streaming)
        with pytest.raises(
            InputError, match=r"unknown --label-column 'labels'; choose one of image, label; did you mean"
        ):
            opened(root, label_column="labels", streaming=streaming)


def test_another_format_refuses_what_it_does_not_read(tmp_path):
    with pytest.raises(InputError, match=r"--streaming is not read with --dataset synthetic"):
        build_dataset("synthetic", None, "train", streaming=True)
    with pytest.raises(InputError, match=r"--label-column is not read with --dataset folder"):
        build_dataset("folder", tmp_path, "train", label_column="mask")


def test_a_mask_that_is_not_there_makes_a_lonely_image_and_none_a_split_without(tmp_path):
    root = parquet(tmp_path / "set")
    for split, empty in (("train", {1}), ("test", {0, 1})):
        rows = [
            {"image": {"bytes": png(pixels_of("train", n)[0]), "path": f"{split}{n}.png"}}
            | {"label": None if n in empty else {"bytes": png(pixels_of("train", n)[1]), "path": None}}
            for n in range(2)
        ]
        kinds = datasets.Features({"image": datasets.Image(), "label": datasets.Image()})
        datasets.Dataset.from_list(rows, features=kinds).to_parquet(root / f"{split}-00000-of-00001.parquet")
    for streaming in (False, True):
        with pytest.raises(InputError, match="image without mask"):
            opened(root, streaming=streaming)
        assert opened(root, lonely=True, streaming=streaming).names == ["train0"]
        assert not opened(root, "test", streaming=streaming).has_labels


def shard(path: Path, *names: str) -> str:
    path.parent.mkdir(exist_ok=True)
    with tarfile.open(path, "w") as file:
        for name in names:
            member = tarfile.TarInfo(name)
            member.size = len(name)
            file.addfile(member, io.BytesIO(name.encode()))
    return str(path)


@pytest.mark.parametrize(
    "order", [("0.png", "1.png", "0.mask.png", "1.mask.png"), ("0.png", "1.png", "1.mask.png", "0.mask.png")]
)
def test_a_shard_whose_images_and_masks_lie_apart_is_refused(tmp_path, order):
    """It was said that the images had no masks."""
    path = shard(tmp_path / "set/train.tar", *order)
    (tmp_path / "set/classes.yaml").write_text(str(NAMES))
    with pytest.raises(InputError, match=rf"{path}: the files of sample 0 do not lie together; write the shard sorted"):
        build_dataset("hf", tmp_path / "set", "train", image_column="png", label_column="mask.png", streaming=True)


def test_samples_of_one_name_are_several(tmp_path):
    names = ("0.png", "0.mask.png", "1.png", "1.mask.png", "0.png", "0.mask.png")
    cells = TarCells([shard(tmp_path / "a/0.tar", *names)], ("png", "mask.png"))
    assert cells.names == ["0", "1", "0"] and not cells.missing("mask.png")
    cells = TarCells([shard(tmp_path / f"a/{n}.tar", *names[:2]) for n in range(2)], ("png", "mask.png"))
    assert cells.names == ["0", "0"] and not cells.missing("png")


@pytest.mark.parametrize("streaming", [False, True])
def test_images_without_mask_are_told_of_where_train_alone_is_parted(tmp_path, streaming):
    root = parquet(tmp_path / "set", splits={"train": 10})
    rows = [{**row, "label": None if n in (2, 5) else row["label"]} for n, row in enumerate(undecoded("train", 10))]
    kinds = datasets.Features({"image": datasets.Image(), "label": datasets.Image()})
    datasets.Dataset.from_list(rows, features=kinds).to_parquet(root / "train-00000-of-00001.parquet")
    for split in ("train", "val"):
        with pytest.raises(InputError, match="image without mask"):
            opened(root, split, streaming=streaming)
    names = [name for split in ("train", "val") for name in opened(root, split, lonely=True, streaming=streaming).names]
    assert len({*names}) == len(names) == 8


@pytest.mark.parametrize("streaming", [False, True])
def test_a_damaged_image_is_named_with_its_row(tmp_path, streaming):
    root = parquet(tmp_path / "set")
    rows = [
        {"image": {"bytes": png(pixels_of("train", n)[0])[: 200 if n else None], "path": None}}
        | {"label": {"bytes": png(pixels_of("train", n)[1]), "path": None}}
        for n in range(2)
    ]
    kinds = datasets.Features({"image": datasets.Image(), "label": datasets.Image()})
    datasets.Dataset.from_list(rows, features=kinds).to_parquet(root / "train-00000-of-00001.parquet")
    dataset = opened(root, streaming=streaming)
    with pytest.raises(InputError, match=r"set/train/000001\.image: is cut off"):
        dataset[1]
    with pytest.raises(InputError, match=r"000001\.image: is cut off"):
        list(evaluation_loader(dataset, 1, workers=1))


@pytest.mark.parametrize("values", [[[0.5, 1]], [[-1, 0]], [[70000, 0]], [["a", "b"]]])
def test_arrays_that_are_no_ids_are_refused(tmp_path, values):
    root = tmp_path / "set"
    root.mkdir()
    (root / "classes.yaml").write_text(str(NAMES))
    row = {"image": {"bytes": png(pixels_of("train", 0)[0]), "path": None}, "label": values}
    table = datasets.Dataset.from_list([row] * 2).cast_column("image", datasets.Image())
    table.to_parquet(root / "train-0.parquet")
    for streaming in (False, True):
        train, val = (opened(root, split, val_share=0.5, streaming=streaming) for split in ("train", "val"))
        with pytest.raises(InputError, match=r"row \d, column label: is "):
            train.read_labels(0), val.read_labels(0)


@pytest.mark.parametrize("streaming", [False, True])
@pytest.mark.parametrize("shape", [(3, *SIZE), (*SIZE, 4), (*SIZE, 2), (1, *SIZE, 3), (0,)])
def test_an_image_array_whose_bands_are_not_known_is_refused(tmp_path, streaming, shape):
    """Four bands were read in another order, of others OpenCV's error was a traceback."""
    pixels = np.zeros(shape, int).tolist()
    rows = [{"image": pixels, "label": png(pixels_of("train", place)[1])} for place in range(2)]
    (tmp_path / "set").mkdir()
    datasets.Dataset.from_list(rows).to_parquet(tmp_path / "set/train-0.parquet")
    (tmp_path / "set/classes.yaml").write_text(str(NAMES))
    with pytest.raises(InputError, match=r"row \d, column image: is an array .* or \(H, W, 3\), other bands as TIFF"):
        opened(tmp_path / "set", val_share=0.5, streaming=streaming).read_image(0)


@pytest.mark.parametrize("streaming", [False, True])
def test_one_column_for_both_is_refused(tmp_path, streaming):
    with pytest.raises(InputError, match="--image-column and --label-column are both image"):
        opened(parquet(tmp_path / "set"), label_column="image", streaming=streaming)


def test_one_sample_alone_cannot_be_parted(tmp_path):
    """It was trained and validated on."""
    root = parquet(tmp_path / "set", {"train": 1})
    for split in ("train", "val"):
        with pytest.raises(InputError, match="is the only sample; a training and a validation image are needed"):
            opened(root, split, streaming=True)


def test_a_split_without_rows_is_named(tmp_path):
    root = parquet(tmp_path / "set", {"train": 2})
    datasets.Dataset.from_dict({"image": [], "label": []}).to_parquet(root / "validation-00000-of-00001.parquet")
    with pytest.raises(InputError, match="set/validation: holds no rows"):
        opened(root, "val", streaming=True)


@pytest.mark.parametrize("make", [parquet, shards])
def test_files_that_are_cut_off_are_named(tmp_path, make):
    """What pyarrow and tarfile raise was a traceback where files are read as they lie."""
    root = make(tmp_path / "set")
    path = sorted(root.glob("train-*"))[0]
    path.write_bytes(path.read_bytes()[:1800])
    with pytest.raises(InputError, match=rf"{path.name}: cannot be read: .*; write or fetch it anew"):
        opened(root, streaming=True)
    with pytest.raises(InputError, match=r"cannot be opened by Hugging Face's datasets: (?!An error occurred)"):
        opened(root)


def test_a_damaged_group_of_rows_is_named(tmp_path):
    root = parquet(tmp_path / "set")
    path = root / "train-00000-of-00001.parquet"
    content = bytearray(path.read_bytes())
    content[4:60] = b"\0" * 56
    path.write_bytes(content)
    dataset = opened(root, streaming=True)
    with pytest.raises(InputError, match=rf"{path.name}: cannot be read"):
        dataset.read_image(0)


def test_replaced_files_change_the_fingerprint(tmp_path):
    root = parquet(tmp_path / "set")
    before = [opened(root, streaming=streaming).fingerprint() for streaming in (False, True)]
    assert before == [opened(root, streaming=streaming).fingerprint() for streaming in (False, True)]
    rows_of("validation", 6).to_parquet(root / "train-00000-of-00001.parquet")
    assert {*before}.isdisjoint(opened(root, streaming=streaming).fingerprint() for streaming in (False, True))


def test_the_doctor_reads_tables_as_it_reads_files(tmp_path, capsys):
    root = parquet(tmp_path / "set")
    rows_of("train", 2).to_parquet(root / "validation-00000-of-00001.parquet")
    for flags in ([], ["--streaming"]):
        with pytest.raises(SystemExit):
            doctor(["--dataset", "hf", "--data-path", str(root), *flags])
        said = capsys.readouterr().out
        assert "the same image as" in said and "error" in said
    rows_of("validation", 2).to_parquet(root / "validation-00000-of-00001.parquet")
    for flags in ([], ["--streaming"]):
        doctor(["--dataset", "hf", "--data-path", str(root), "--check", "sample", *flags])
        assert "error" not in capsys.readouterr().out


# ---- streaming: whose turn it is


@pytest.mark.parametrize("repeated", [False, True])
@pytest.mark.parametrize("world_size", [1, 3])
def test_groups_are_taken_some_at_a_time_and_every_sample_once(world_size, repeated):
    groups = torch.arange(10).repeat_interleave(7)
    repeat = torch.full((70,), 1.5) if repeated else None
    options = {"shuffle": True, "seed": 3, "world_size": world_size, "groups": groups, "repeat": repeat}
    epochs = []
    for epoch in (0, 1):
        keys = []
        for rank in range(world_size):
            sampler = EpochSampler(70, rank=rank, **options)
            sampler.set_epoch(epoch)
            keys.append(list(sampler))
        dealt = [key for some in zip(*keys, strict=True) for key in some]
        assert len({*dealt}) == len(dealt) >= 70 - world_size + 1
        if not repeated:
            turns = [int(groups[index]) for _, index in dealt]
            windows = [{*turns[:28]}, {*turns[28:56]}, {*turns[56:]}]
            assert [len(window) for window in windows] == [4, 4, 2] and len(set.union(*windows)) == 10
            assert turns != sorted(turns)
        epochs.append(dealt)
    assert [key[1:] for key in epochs[0]] != [key[1:] for key in epochs[1]]


def test_no_sample_is_seen_twice_over_workers_and_ranks(tmp_path):
    root = parquet(tmp_path / "set", {"train": 13, "validation": 2})
    dataset = opened(root, streaming=True)
    assert dataset.groups is not None and int(dataset.groups.max()) >= 6
    seen: Counter[str] = Counter()
    for rank in range(2):
        for batch in training_loader(dataset, 2, seed=0, workers=2, rank=rank, world_size=2):
            seen.update(batch["name"])
    assert len(seen) == 12 and {*seen.values()} == {1}
    seen = Counter(s["name"] for batch in evaluation_loader(dataset, 2, workers=2) for s in batch)
    assert len(seen) == 13 and {*seen.values()} == {1}


def test_opening_a_stream_reads_no_image(tmp_path, monkeypatch):
    root = parquet(tmp_path / "set")

    def refuse(*args):
        raise AssertionError("read")

    monkeypatch.setattr("segloss.datasets.cells.ParquetCells._group", refuse)
    dataset = opened(root, streaming=True)
    dataset.check_files()
    assert dataset.fingerprint() and dataset.images_digest() and len(dataset) == 6


# ---- the commands


def street_set(root: Path) -> Path:
    root.mkdir()
    for split, count in (("train", 8), ("validation", 2)):
        rows = []
        for place in range(count):
            image, labels = render_street(3, split.replace("validation", "val"), place, 64, 96)
            rows.append({"image": {"bytes": png(image), "path": None}, "label": {"bytes": png(labels), "path": None}})
        kinds = datasets.Features({"image": datasets.Image(), "label": datasets.Image()})
        datasets.Dataset.from_list(rows, features=kinds).to_parquet(root / f"{split}-0.parquet", batch_size=3)
    from segloss.datasets.tables import CAMVID_11

    (root / "classes.yaml").write_text(str([*CAMVID_11.names]))
    return root


def command(tmp_path: Path, *words: object) -> subprocess.CompletedProcess:
    """From the root of the checkout, where our folder ``datasets`` is found first."""
    environment = {**os.environ, "HF_HOME": str(tmp_path / "hf"), "SEGLOSS_CACHE": str(tmp_path / "cache")}
    environment |= {"HF_HUB_OFFLINE": "1"}
    environment.pop("PYTHONPATH", None)
    run = [sys.executable, *map(str, words)]
    return subprocess.run(run, cwd=ROOT, capture_output=True, text=True, env=environment)


def test_the_commands_work_from_a_checkout(tmp_path, monkeypatch):
    root, folder = street_set(tmp_path / "set"), tmp_path / "run"
    tiny = [word if word != "0" else "1" for word in TINY]  # a worker
    flags = ["--dataset", "hf", "--data-path", root, "--output-dir", folder, *tiny, "--epochs", 1]
    done = command(tmp_path, "train_seg.py", *flags)
    assert done.returncode == 0, done.stderr
    assert done.stderr == "" and "Hugging Face, in Arrow files, train: image, label; 11 classes" in done.stdout
    monkeypatch.chdir(ROOT)
    evaluate(["--checkpoint", str(folder), "--split", "val", "--workers", "1", "--streaming", "--accelerator", "cpu"])
    scored, trained = (
        json.loads((folder / name).read_text()) for name in ("eval-val/metrics.json", "val_metrics.json")
    )
    assert abs(scored["runs"]["run"]["miou"] - trained["miou"]) < 1e-9


def test_class_statistics_of_a_table(tmp_path, capsys):
    root = parquet(tmp_path / "set")
    for flags in ([], ["--streaming"]):
        frequency(["--dataset", "hf", "--data-path", str(root), "--split", "train", "val", *flags])
        assert "floor" in capsys.readouterr().out


def test_a_name_that_is_not_there_is_one_line(tmp_path):
    done = command(tmp_path, "-m", "segloss.frequency", "--dataset", "hf", "--data-path", "nobody/nothing-at-all")
    assert done.returncode == 2 and done.stderr.count("\n") == 1, done.stderr
    assert done.stderr.startswith("error: nobody/nothing-at-all: cannot be opened by Hugging Face's datasets: ")


def test_without_the_package_there_is_one_line(tmp_path):
    code = (
        "import sys; sys.modules['datasets'] = None\n"
        "from segloss.errors import exit_on_input_error\nfrom segloss.frequency import main\n"
        "exit_on_input_error(lambda: main(['--dataset', 'hf', '--data-path', 'x']))"
    )
    done = command(tmp_path, "-c", code)
    told = 'error: Hugging Face\'s package datasets is missing; pip install "segloss-imbalanced[hf]"\n'
    assert (done.returncode, done.stderr) == (2, told)


def test_a_training_step_takes_what_a_stream_gives(tmp_path):
    dataset = opened(parquet(tmp_path / "set", {"train": 5, "validation": 2}), streaming=True)
    run = SmallRun(tmp_path / "run", dataset)
    run.data.splits = Splits(dataset, dataset, None, SIZE)
    assert len(run.fit().rows) == 1


def test_a_hub_name_is_kept_as_it_is_and_a_path_made_absolute(tmp_path, monkeypatch):
    from segloss.config import TrainConfig
    from segloss.flags import from_plain_dict
    from segloss.inference import find_machine
    from segloss.run_folder import Used

    monkeypatch.chdir(tmp_path)
    (tmp_path / "names.txt").write_text("a\nb")
    values = {"dataset": "hf", "data_path": "user/set", "class_file": "names.txt"}
    used = Used.of(from_plain_dict(TrainConfig, values), (32, 32), find_machine("cpu", "32-true", 0))
    assert (used.data_path, used.class_file) == ("user/set", str(tmp_path / "names.txt"))
