"""Pixel counts: exact, found again, recounted when masks change, and the command that prints them."""

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from data_trees import folder_tree, listing, random_mask, write_png
from hypothesis import given, settings
from hypothesis import strategies as st

from segloss.datasets import build_dataset
from segloss.datasets.classes import ClassTable
from segloss.datasets.masks import class_histogram, label_histogram
from segloss.errors import InputError
from segloss.frequency import main
from segloss.pixel_counts import (
    PixelCounts,
    cache_folder,
    count_dataset,
    count_labels,
    load_or_count,
)

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(autouse=True)
def own_cache(tmp_path, monkeypatch) -> Path:
    monkeypatch.setenv("SEGLOSS_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.fixture
def data(tmp_path) -> Path:
    return folder_tree(tmp_path / "data", splits=("train",))


def train_split(data: Path):
    return build_dataset("folder", data, "train")


def expected_counts(maps: list[np.ndarray], num_classes: int, ignored=(255,)) -> dict:
    """The definition of each field, by np.unique in a loop."""
    expected = {
        "pixels": [0] * num_classes,
        "images": [0] * num_classes,
        "pixels_of_images": [0] * num_classes,
        "ignored_pixels": 0,
        "image_count": len(maps),
    }
    for labels in maps:
        present = dict(zip(*(part.tolist() for part in np.unique(labels, return_counts=True)), strict=True))
        expected["ignored_pixels"] += sum(present.pop(value, 0) for value in ignored)
        for c, count in present.items():
            expected["pixels"][c] += count
            expected["images"][c] += 1
            expected["pixels_of_images"][c] += sum(present.values())
    return expected


def assert_counts(counts: PixelCounts, expected: dict) -> None:
    content = counts.to_dict()
    assert {key: content[key] for key in expected} == expected


# ---- label tensors


@given(
    st.lists(st.tuples(st.integers(1, 9), st.integers(1, 9), st.integers(0, 10**6)), min_size=1, max_size=5),
    st.integers(2, 7),
    st.sampled_from([torch.uint8, torch.int16, torch.int32, torch.int64]),
)
@settings(deadline=None)
def test_label_tensors_are_counted_as_the_definition_says(shapes, num_classes, dtype):
    """Random classes only: often some class is absent, at times a whole image is ignored."""
    maps = [random_mask(seed, (h, w), (0, num_classes - 1, seed % num_classes, 255)) for h, w, seed in shapes]
    tensors, expected = [torch.from_numpy(m).to(dtype) for m in maps], expected_counts(maps, num_classes)
    if num_classes == 2 and {int(label) for m in maps for label in m.flat} == {0, 255}:
        with pytest.raises(
            InputError, match="where they are 0 and 255"
        ):  # the foreground may be among the ignored ones
            count_labels(tensors, num_classes)
        assert_counts(count_labels(tensors, num_classes, ignore_index=255), expected)
        return
    assert_counts(count_labels(tensors, num_classes), expected)


def test_a_batch_counts_as_its_images():
    maps = [random_mask(seed, (6, 5)) for seed in range(6)]
    batches = [torch.from_numpy(np.stack(maps[:4])), torch.from_numpy(np.stack(maps[4:]))]
    assert count_labels(batches, 3) == count_labels(map(torch.from_numpy, maps), 3)
    assert_counts(count_labels(batches, 3), expected_counts(maps, 3))


def test_another_ignored_index_is_left_out():
    labels = torch.tensor([[0, 1, -100], [-100, 1, 1]])
    counts = count_labels([labels], 2, ignore_index=-100)
    assert (counts.pixels, counts.ignored_pixels) == ((1, 3), 2)
    inside = count_labels([torch.tensor([[0, 1, 2], [2, 2, 2]])], 3, ignore_index=0)
    assert (inside.pixels, inside.ignored_pixels) == ((0, 1, 4), 1)


def test_labels_all_ignored_give_zeros():
    counts = count_labels([torch.full((3, 4), 255)], 3)
    assert_counts(counts, expected_counts([np.full((3, 4), 255)], 3))


@pytest.mark.parametrize(
    ("stray", "dtype"), [(3, torch.uint8), (254, torch.uint8), (-1, torch.int64), (3, torch.int64)]
)
def test_a_stray_label_is_named_with_its_tensor(stray, dtype):
    labels = torch.zeros(2, 4, 5, dtype=dtype)
    labels[1, 2, 3] = stray
    with pytest.raises(ValueError, match=rf"label tensor 1 holds {stray}, outside \[0, 3\) and not ignore_index=255"):
        count_labels([torch.zeros(4, 5, dtype=dtype), labels], 3)


def test_impossible_class_numbers_and_names_are_refused():
    with pytest.raises(ValueError, match="num_classes must be at least 2, got 1; a binary problem has two classes"):
        count_labels([], 1)
    with pytest.raises(ValueError, match="class_names must hold 3 names, got 2"):
        count_labels([], 3, class_names=["a", "b"])
    assert count_labels([[0, 1]], 2, class_names=["a", "b"]).class_names == ("a", "b")
    assert count_labels([[0, 1]], 2).class_names == ("class 0", "class 1")


# ---- one label map


def counted(labels: np.ndarray, classes: int) -> np.ndarray:
    both = (
        label_histogram(labels, ClassTable(tuple(f"c{i}" for i in range(classes))), Path()),
        class_histogram(labels, classes),
    )
    np.testing.assert_array_equal(*both)
    return both[0]


@pytest.mark.parametrize(("shape", "classes"), [((1, 1), 2), ((7, 13), 11), ((30, 40), 254)])
def test_a_histogram_is_np_bincount(shape, classes):
    labels = random_mask(1, shape, (*range(classes), 255))
    counts = np.bincount(labels.ravel(), minlength=256)
    assert counted(labels, classes).tolist() == [*counts[:classes].tolist(), counts[255]]


def test_a_histogram_of_a_part_of_an_array_counts_that_part():
    labels = random_mask(1, (20, 30), (0, 1, 2))[2:17:3, ::2]
    assert counted(labels, 3).tolist() == [*np.bincount(labels.ravel(), minlength=3).tolist(), 0]


def test_more_pixels_than_float32_can_count_are_counted_exactly():
    """OpenCV counts in float32, which has no odd numbers beyond 2^24."""
    labels = np.ones((4101, 4201), np.uint8)
    labels[0, :2] = (0, 255)
    assert labels.size > 2**24
    assert counted(labels, 2).tolist() == [1, labels.size - 2, 1]


# ---- data sets


def masks_of(data: Path) -> list[np.ndarray]:
    dataset = train_split(data)
    return [dataset.read_labels(index) for index in range(len(dataset))]


def test_a_data_set_is_counted_as_the_definition_says(data):
    write_png(data / "masks/train/a.png", np.zeros((12, 17), np.uint8))  # so that two classes miss one image
    write_png(data / "masks/train/c.png", np.full((12, 17), 255, np.uint8))
    dataset = train_split(data)
    counts = count_dataset(dataset)
    assert_counts(counts, expected_counts(masks_of(data), 3))
    assert counts.images == (3, 2, 2)
    assert (counts.dataset, counts.split, counts.class_names) == ("folder", "train", ("wall", "floor", "lamp"))
    assert counts.fingerprint == dataset.fingerprint()


def test_counts_of_a_data_set_are_those_of_its_items(data):
    dataset = train_split(data)
    by_items = count_labels([dataset[index]["labels"] for index in range(len(dataset))], 3)
    assert_counts(count_dataset(dataset), {key: by_items.to_dict()[key] for key in expected_counts([], 3)})


def test_the_number_of_workers_does_not_change_the_counts(data):
    dataset = train_split(data)
    assert count_dataset(dataset, workers=1) == count_dataset(dataset, workers=4)


def test_progress_sees_every_image(data):
    seen = []

    def progress(results, length):
        for result in results:
            seen.append(length)
            yield result

    count_dataset(train_split(data), progress=progress)
    assert seen == [4] * 4


def test_a_stray_id_stops_the_count_with_the_file_name(data):
    write_png(data / "masks/train/c.png", np.full((12, 17), 9, np.uint8))
    with pytest.raises(InputError, match=r"masks/train/c\.png: holds id 9"):
        count_dataset(train_split(data))


def test_a_split_without_masks_cannot_be_counted(data):
    (data / "images/train").rename(data / "images/test")
    with pytest.raises(InputError, match="split test has no masks"):
        count_dataset(build_dataset("folder", data, "test"))


# ---- kept and found again


def test_counts_survive_json(data, tmp_path):
    counts = count_dataset(train_split(data))
    counts.save(tmp_path / "deep/er/counts.json")
    assert PixelCounts.load(tmp_path / "deep/er/counts.json") == counts
    assert [path.name for path in (tmp_path / "deep/er").iterdir()] == ["counts.json"]  # nothing temporary is left


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b'{"pixels": [1, 2]}', b"\xff\xfe\x00", b'{"a": 1}'])
def test_what_holds_no_counts_is_refused_by_name(tmp_path, content):
    (tmp_path / "counts.json").write_bytes(content)
    with pytest.raises(
        InputError, match=r"counts\.json: cannot be read as pixel counts.*; give a run's pixel_counts\.json"
    ):
        PixelCounts.load(tmp_path / "counts.json")


def test_counts_that_are_not_there_are_said_to_be_missing(tmp_path):
    with pytest.raises(InputError, match=r"counts\.json: is missing; give a run's pixel_counts\.json"):
        PixelCounts.load(tmp_path / "counts.json")


def test_classes_of_one_name_are_refused(tmp_path):
    with pytest.raises(ValueError, match="class_names must differ, got wall, wall"):
        count_labels([torch.tensor([[0, 1]])], 2, class_names=["wall", "wall"])
    counts = count_labels([torch.tensor([[0, 1]])], 2, class_names=["wall", "floor"])
    counts.save(tmp_path / "counts.json")
    path = tmp_path / "counts.json"
    path.write_text(path.read_text().replace("floor", "wall"))
    with pytest.raises(InputError, match="a class is named twice"):
        PixelCounts.load(path)


def only_file(folder: Path) -> Path:
    (path,) = folder.iterdir()
    return path


def test_counts_are_found_again_in_the_cache(data, own_cache):
    counts, source = load_or_count(train_split(data))
    assert source == "counted"
    again, source = load_or_count(train_split(data))
    assert again == counts
    assert source == str(only_file(own_cache))


def test_counts_of_a_run_folder_come_before_the_cache(data, tmp_path):
    run = tmp_path / "run"
    counts, _ = load_or_count(train_split(data), run_folder=run)
    assert not run.exists()  # writing there is the run's own business
    counts.save(run / "pixel_counts.json")
    again, source = load_or_count(train_split(data), run_folder=run)
    assert (again, source) == (counts, str(run / "pixel_counts.json"))


def test_a_run_folder_of_other_masks_is_passed_over(data, tmp_path, own_cache):
    other = folder_tree(tmp_path / "other", images=("x", "y"), splits=("train",))
    count_dataset(train_split(other)).save(tmp_path / "run/pixel_counts.json")
    counts, source = load_or_count(train_split(data), run_folder=tmp_path / "run")
    assert source == "counted"
    assert counts.image_count == 4
    assert load_or_count(train_split(data), run_folder=tmp_path / "run") == (counts, str(only_file(own_cache)))


def test_counts_are_made_anew_when_a_mask_changes(data):
    before, _ = load_or_count(train_split(data))
    path = write_png(data / "masks/train/a.png", np.zeros((12, 17), np.uint8))
    status = path.stat()
    os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns + 1_000_000_000))
    after, source = load_or_count(train_split(data))
    assert source == "counted"
    assert after.pixels != before.pixels
    assert_counts(after, expected_counts(masks_of(data), 3))


@pytest.mark.parametrize("damage", ["", "{", "[]", '{"pixels": [1]}', "\x00\x00"])
def test_a_damaged_cache_file_costs_a_recount(data, own_cache, damage):
    counts, _ = load_or_count(train_split(data))
    only_file(own_cache).write_text(damage)
    assert load_or_count(train_split(data)) == (counts, "counted")
    assert load_or_count(train_split(data)) == (counts, str(only_file(own_cache)))  # and is mended


@pytest.mark.parametrize(("mark", "behind"), [(b"PK\1\2", 10), (b"PK\3\4", 68)])
def test_a_cache_file_with_changed_bytes_costs_a_recount(data, own_cache, mark, behind):
    """The kind of compression, and what is compressed: zipfile and zlib raise errors of their own."""
    counts, _ = load_or_count(train_split(data))
    content = bytearray(only_file(own_cache).read_bytes())
    start = content.rfind(mark) + behind
    content[start : start + 2] = b"cc"
    only_file(own_cache).write_bytes(content)
    assert load_or_count(train_split(data)) == (counts, "counted")
    assert load_or_count(train_split(data)) == (counts, str(only_file(own_cache)))


def test_counts_of_another_data_set_under_the_same_name_are_not_believed(data, own_cache):
    load_or_count(train_split(data))
    path = only_file(own_cache)
    np.savez(path, fingerprint="of something else", histograms=np.ones((4, 4), np.int64))
    counts, source = load_or_count(train_split(data))
    assert source == "counted"
    assert_counts(counts, expected_counts(masks_of(data), 3))


def test_a_cache_that_cannot_be_written_does_no_harm(data, tmp_path, monkeypatch):
    (tmp_path / "file").write_text("in the way")
    for path in (tmp_path / "file", tmp_path / "file/below"):
        monkeypatch.setenv("SEGLOSS_CACHE", str(path))
        counts, source = load_or_count(train_split(data))
        assert source == "counted"
        assert_counts(counts, expected_counts(masks_of(data), 3))
    assert (tmp_path / "file").read_text() == "in the way"


def test_nothing_is_written_into_the_data_folder(data):
    before = listing(data)
    load_or_count(train_split(data))
    load_or_count(train_split(data))
    assert listing(data) == before
    assert len(before) == 9


def test_the_cache_folder_follows_the_environment(monkeypatch, tmp_path):
    assert cache_folder() == tmp_path / "cache"
    monkeypatch.delenv("SEGLOSS_CACHE")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "xdg"))
    assert cache_folder() == tmp_path / "xdg/segloss"
    monkeypatch.delenv("XDG_CACHE_HOME")
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.setenv("USERPROFILE", str(tmp_path / "home"))
    assert cache_folder() == tmp_path / "home/.cache/segloss"
    monkeypatch.setenv("SEGLOSS_CACHE", "~/kept")  # quoted, or of a Dockerfile: no shell has read it
    assert cache_folder() == tmp_path / "home/kept"


# ---- the command


def run_command(*flags, encoding: str | None = None, **environment: str) -> subprocess.CompletedProcess:
    command = [sys.executable, "-m", "segloss.frequency", *map(str, flags)]
    own = {**os.environ, "COLUMNS": "100", **environment}
    return subprocess.run(command, capture_output=True, text=True, encoding=encoding, cwd=ROOT, env=own)


def test_the_command_names_the_split_without_labelled_pixels(tmp_path):
    root = folder_tree(tmp_path / "data", splits=("train", "val"))
    for path in (root / "masks/val").iterdir():
        write_png(path, np.full((8, 9), 255, np.uint8))
    done = run_command("--dataset", "folder", "--data-path", root, "--split", "train", "val")
    line = "error: folder: split 'val' has no labelled pixel; leave it out of --split\n"
    assert (done.returncode, done.stderr) == (2, line)


def test_the_command_prints_and_draws_the_class_table(data, tmp_path):
    before = listing(data)
    done = run_command("--dataset", "folder", "--data-path", data, "--alpha", "6", "--output", tmp_path / "x.png")
    assert (done.returncode, done.stderr) == (0, "")
    assert "folder train: 4 images" in done.stdout
    counts = count_dataset(train_split(data))
    rank = {c: place for place, c in enumerate(sorted(range(3), key=lambda c: -counts.pixels[c]), start=1)}
    rows = [
        line.split() for line in done.stdout.splitlines() if line.split()[:1] and line.split()[0] in counts.class_names
    ]
    assert [row[0] for row in rows] == list(counts.class_names)
    for c, row in enumerate(rows):
        share = 100 * counts.pixels[c] / sum(counts.pixels)
        assert row[1:6] == [
            str(counts.pixels[c]),
            f"{share:.2f}",
            str(counts.images[c]),
            str(rank[c]),
            str(6 * rank[c]),
        ]
    assert f"ignored: {counts.ignored_pixels} pixels; counts: counted" in done.stdout
    assert (tmp_path / "x.png").read_bytes().startswith(b"\x89PNG")
    assert listing(data) == before


@pytest.mark.parametrize(("encoding", "name"), [("cp1252", "Straße"), ("ascii", "Stra\\xdfe")])
def test_the_class_table_is_written_in_what_the_output_can_encode(tmp_path, encoding, name):
    root = folder_tree(tmp_path / "data", splits=("train",), classes="- Straße\n- car\n- tree\n")
    flags = ("--dataset", "folder", "--data-path", root)
    done = run_command(*flags, encoding=encoding, PYTHONIOENCODING=encoding, PYTHONUTF8="0")
    assert (done.returncode, done.stderr) == (0, "")
    pixels = count_dataset(build_dataset("folder", root, "train")).pixels
    for each, number in zip((name, "car", "tree"), pixels, strict=True):
        assert f"{each} " in done.stdout and f" {number:,} " in done.stdout
    assert "##########" in done.stdout


def stray_id(data: Path) -> list:
    write_png(data / "masks/train/c.png", np.full((12, 17), 9, np.uint8))
    return ["--data-path", data]


@pytest.mark.parametrize(
    ("flags", "parts"),
    [
        (lambda data: ["--data-path", data / "gone"], ("gone: data folder is missing", "--data-path")),
        (lambda data: ["--dataset", "camvit"], ("camvit", "choose one of bdd100k, camvid, cityscapes")),
        (stray_id, ("masks/train/c.png: holds id 9 on 100.00%", "add the id as a class")),
    ],
    ids=["missing folder", "unknown data set", "stray id"],
)
def test_the_command_answers_wrong_input_with_one_line_and_status_2(data, flags, parts):
    done = run_command("--dataset", "folder", *flags(data))
    assert done.returncode == 2
    assert done.stderr.count("\n") == 1 and done.stderr.startswith("error: ")
    for part in parts:
        assert part in done.stderr
    assert done.stdout == ""


def test_the_command_refuses_what_does_not_fit_the_counts(data, tmp_path):
    flags = ["--dataset", "folder", "--data-path", str(data)]
    with pytest.raises(InputError, match=r"folder train: label_values must have shape \(3,\), got \(2,\)"):
        main([*flags, "--label-values", "1", "2"])
    with pytest.raises(InputError, match=r"label_values must be positive and finite"):
        main([*flags, "--label-values", "1", "2", "-3"])
    with pytest.raises(InputError, match=r"--output .*classes\.yaml/x\.png cannot be written"):
        main([*flags, "--output", str(data / "classes.yaml/x.png")])
    for stem in "abcd":
        write_png(data / f"masks/train/{stem}.png", np.full((12, 17), 255, np.uint8))
    with pytest.raises(InputError, match="folder: split 'train' has no labelled pixel"):
        main(flags)


def test_the_command_counts_made_up_streets_without_any_folder(capsys):
    main(["--dataset", "synthetic", "--split", "val"])
    printed = capsys.readouterr().out
    assert "synthetic val: 40 images" in printed
    assert "bicyclist" in printed


def test_masks_of_0_and_255_among_masks_of_0_and_1_are_refused(tmp_path):
    root = folder_tree(tmp_path / "two", splits=("train",), ids=(0, 1), classes="- wall\n- crack\n")
    write_png(root / "masks/train/b.png", random_mask(0, (12, 17), (0, 255)))
    with pytest.raises(InputError, match="holds 0 and 255 alone, while other masks hold 0 and 1; save 255 as"):
        main(["--dataset", "folder", "--data-path", str(root)])


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ([[torch.zeros(4, 4).long(), torch.ones(4, 4).long()]], "sample 0 is a pair of maps of integers"),
        ([(np.zeros((4, 4), np.uint8), np.ones((4, 4), np.uint8))], "sample 0 is a pair of maps of integers"),
        ([torch.zeros(2, 3, 4, 4).long()], r"label tensor 0 must be \(H, W\) or \(N, H, W\), got \(2, 3, 4, 4\)"),
    ],
)
def test_what_may_be_two_label_maps_or_channels_is_not_guessed(given, message):
    with pytest.raises(InputError, match=message):
        count_labels(given, 2)


def test_a_batch_may_have_one_channel():
    assert count_labels([torch.ones(2, 1, 4, 4).long()], 2).pixels == (0, 32)
