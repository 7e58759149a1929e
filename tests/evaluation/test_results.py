"""What evaluation keeps of each image: counted right, kept whole on disk, added up as if never kept."""

import os
import signal
import sqlite3
import subprocess
import sys
import tracemalloc
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch

from segloss.datasets.masks import counts_of_runs, id_histogram
from segloss.errors import InputError
from segloss.evaluation.counting import BINS, confusion_of, pair_histogram
from segloss.evaluation.results import ImageResult, Totals
from segloss.evaluation.store import AT_ONCE, ResultStore
from segloss.measures.boundary import boundary_of
from segloss.metrics import ConfusionMatrix

KEY = {"model": "a", "images": 3}


def made_up(place, *, classes=4, optional=True):
    """A result of random counts."""
    generator = np.random.default_rng(place)
    result = ImageResult(f"city/{place:05}", generator.integers(0, 50, (classes, classes + 1)), int(place % 7))
    if optional:
        result.counted["boundary"] = generator.integers(0, 90, (classes, 2))
        result.calibration = generator.random((BINS, 3))
        result.brier = float(generator.random())
        result.sweep = {rule: generator.integers(0, 9, (5, classes, 2)) for rule in ("tau", "prior")}
    return result


def require_same(a, b):
    assert (a.name, a.ignored, a.brier) == (b.name, b.ignored, b.brier)
    for key in ("matrix", "calibration"):
        np.testing.assert_array_equal(getattr(a, key), getattr(b, key), strict=getattr(a, key) is not None)
    require_same_by_name(a, b)


def require_same_by_name(a, b):
    for key in ("counted", "sweep"):
        ours, theirs = getattr(a, key), getattr(b, key)
        assert list(ours) == list(theirs)
        for name in ours:
            np.testing.assert_array_equal(ours[name], theirs[name], strict=True)


def require_same_totals(a, b):
    assert a.names == b.names and (a.images, a.ignored) == (b.images, b.ignored)
    for key in ("matrix", "present", "counts"):
        np.testing.assert_array_equal(getattr(a, key), getattr(b, key), strict=True)
    # Kept and added up in the same order: the same floats.
    assert a.brier == b.brier
    np.testing.assert_array_equal(a.calibration, b.calibration)
    require_same_by_name(a, b)


# One image.


@pytest.mark.parametrize("missing", [(), ("counted",), ("calibration",), ("sweep",), ("counted", "sweep")])
def test_a_result_survives_being_written(missing):
    result = made_up(3)
    for key in missing:
        setattr(result, key, None if key == "calibration" else {})
    require_same(result, ImageResult.from_bytes(result.name, result.to_bytes()))


def test_counts_beyond_int32_survive_being_written():
    matrix = np.zeros((3, 4), np.int64)
    matrix[1, 3], matrix[2, 2] = 2**40 + 1, 2**53 + 1
    result = ImageResult("x", matrix, 2**40 + 3, brier=2.0**60)
    require_same(result, ImageResult.from_bytes("x", result.to_bytes()))


def test_a_result_without_a_labelled_pixel_survives_being_written():
    result = ImageResult("x", np.zeros((150, 151), np.int64), 12)
    require_same(result, ImageResult.from_bytes("x", result.to_bytes()))


@pytest.mark.parametrize("shape", [(1, 1), (1, 37), (41, 1), (31, 53)])
@pytest.mark.parametrize("values", [(0, 1, 2, 255), (0, 1, 2, 3, 4, 200, 254, 255), (255,), (2,)], ids=str)
def test_confusion_of_equals_the_confusion_matrix(shape, values):
    generator = np.random.default_rng(7)
    predicted = generator.choice(np.array(values, np.uint8), shape)
    labels = generator.choice(np.array([0, 1, 2, 255], np.uint8), shape)
    expected = ConfusionMatrix(3)
    expected.update(torch.from_numpy(predicted), torch.from_numpy(labels))
    matrix, ignored = confusion_of(predicted, labels, 3)
    np.testing.assert_array_equal(matrix, expected.matrix.numpy(), strict=True)
    assert ignored == expected.ignored


def test_pair_histogram_counts_every_pair_of_values():
    generator = np.random.default_rng(0)
    predicted, labels = (generator.integers(0, 256, (60, 70), dtype=np.uint8) for _ in range(2))
    expected = np.zeros((256, 256), np.int64)
    np.add.at(expected, (labels.ravel(), predicted.ravel()), 1)
    np.testing.assert_array_equal(pair_histogram(predicted, labels), expected, strict=True)


@pytest.mark.parametrize("block", [1, 2, 8, 64, 200])
def test_runs_and_single_pixels_are_counted_alike(block):
    """Long runs of one pair are counted by their lengths, short ones pixel by pixel."""
    generator = np.random.default_rng(block)
    small = generator.integers(0, 256, (2, 256, -(-256 // block)), dtype=np.uint8)
    labels, predicted = np.repeat(small, block, axis=2)[..., :256]
    runs = counts_of_runs(labels, predicted)
    assert (runs is None) == (block < 16)
    expected = np.bincount((labels.astype(np.int64) * 256 + predicted).ravel(), minlength=2**16).reshape(256, 256)
    np.testing.assert_array_equal(pair_histogram(predicted, labels), expected, strict=True)
    np.testing.assert_array_equal(id_histogram(labels), np.bincount(labels.ravel(), minlength=256), strict=True)
    if runs is not None:
        np.testing.assert_array_equal(runs, expected, strict=True)


def test_pair_histogram_takes_maps_that_are_no_block_of_memory():
    generator = np.random.default_rng(0)
    predicted, labels = (generator.integers(0, 4, (40, 60), dtype=np.uint8) for _ in range(2))
    strided = pair_histogram(predicted.T[::2, 1::3], labels.T[::2, 1::3])
    np.testing.assert_array_equal(strided, pair_histogram(predicted.T[::2, 1::3].copy(), labels.T[::2, 1::3].copy()))
    assert strided.sum() == 30 * 13


def test_more_pixels_than_float32_counts_are_exact():
    labels = np.zeros((4099, 4100), np.uint8)  # 2^24 + 28,684 pixels of one pair
    labels[0, 0] = 1
    raw = pair_histogram(np.zeros_like(labels), labels)
    assert (raw[0, 0], raw[1, 0], raw.sum()) == (4099 * 4100 - 1, 1, 4099 * 4100)


# Boundary bands.


def official_boundary(mask, dilation_ratio=0.02):
    """``mask_to_boundary`` of the Boundary IoU authors' code, for one binary mask."""
    height, width = mask.shape
    dilation = max(1, round(float(dilation_ratio * np.sqrt(height**2 + width**2))))
    padded = cv2.copyMakeBorder(mask, 1, 1, 1, 1, cv2.BORDER_CONSTANT, value=0)
    eroded = cv2.erode(padded, np.ones((3, 3), np.uint8), iterations=dilation)
    return mask - eroded[1 : height + 1, 1 : width + 1]


def expected_boundary(predicted, labels, num_classes):
    """Per class: the official bands of truth and prediction, ignored pixels belonging to no mask."""
    rows = []
    for c in range(num_classes):
        true = official_boundary((labels == c).astype(np.uint8))
        found = official_boundary(((predicted == c) & (labels != 255)).astype(np.uint8))
        rows.append([int((true & found).sum()), int((true | found).sum())])
    return np.array(rows, np.int64)


def blobs(seed, size, values):
    """A smooth random partition into the values given."""
    noise = np.random.default_rng(seed).random((len(values), *size)).astype(np.float32)
    return np.array(values, np.uint8)[np.argmax([cv2.GaussianBlur(plane, (0, 0), 5) for plane in noise], axis=0)]


@pytest.mark.parametrize("size", [(97, 131), (60, 61), (25, 300), (5, 7), (1, 9), (1, 1), (200, 150)], ids=str)
@pytest.mark.parametrize("ignored", [False, True], ids=["all labelled", "some ignored"])
def test_boundary_counts_equal_the_official_ones(size, ignored):
    labels = blobs(1, size, (0, 1, 2, 255) if ignored else (0, 1, 2))
    for seed in range(2, 5):
        near = np.roll(labels, (seed - 2, 1), (0, 1))
        for predicted in (near, blobs(seed, size, (0, 1, 2)), blobs(seed, size, (0, 2, 3, 254, 255)), labels):
            actual = boundary_of(predicted, labels, 3)
            np.testing.assert_array_equal(actual, expected_boundary(predicted, labels, 3), strict=True)


def test_boundary_counts_of_single_pixels_equal_the_official_ones():
    generator = np.random.default_rng(0)
    labels, predicted = (generator.choice(np.array([0, 1, 255], np.uint8), (40, 50), p=[0.9, 0.05, 0.05]) for _ in "ab")
    np.testing.assert_array_equal(boundary_of(predicted, labels, 2), expected_boundary(predicted, labels, 2))


@pytest.mark.parametrize(("true", "found"), [(0, 0), (0, 1), (255, 0), (1, 255)])
def test_boundary_counts_of_one_class_images_equal_the_official_ones(true, found):
    labels, predicted = np.full((70, 81), true, np.uint8), np.full((70, 81), found, np.uint8)
    actual = boundary_of(predicted, labels, 2)
    np.testing.assert_array_equal(actual, expected_boundary(predicted, labels, 2))
    if true == found:
        assert actual[0, 0] == actual[0, 1] == 70 * 81 - (70 - 4) * (81 - 4)  # the frame, 2 % of 107 pixels wide


def test_a_right_prediction_has_boundary_iou_one():
    labels = blobs(0, (90, 110), (0, 1, 2, 255))
    counts = boundary_of(labels, labels, 3)
    assert (counts[:, 0] == counts[:, 1]).all() and counts.min() > 0


# All images.


def test_totals_equal_the_confusion_matrix_and_the_sums():
    expected, every, kept = ConfusionMatrix(3), [], []
    for seed in range(5):
        generator = np.random.default_rng(seed)
        labels = generator.choice(np.array([0, 1, 255] if seed else [2, 255], np.uint8), (12, 9))
        predicted = generator.choice(np.array([0, 1, 2, 3], np.uint8), (12, 9))
        expected.update(torch.from_numpy(predicted), torch.from_numpy(labels))
        result = made_up(seed, classes=3)
        result.matrix, result.ignored = confusion_of(predicted, labels, 3)
        kept.append(result)
        valid = labels != 255
        rows = [valid & (labels == predicted), valid, valid]
        maps = [labels, labels, predicted]
        every.append([[np.sum(row & (ids == c)) for c in range(3)] for row, ids in zip(rows, maps, strict=True)])
    totals = Totals.of(iter(kept))
    np.testing.assert_array_equal(totals.matrix, expected.matrix.numpy())
    assert (totals.images, totals.ignored) == (expected.images, expected.ignored)
    assert totals.present.tolist() == [4, 4, 1] and totals.names == [result.name for result in kept]
    np.testing.assert_array_equal(totals.counts, every)
    np.testing.assert_array_equal(totals.counted["boundary"], sum(result.counted["boundary"] for result in kept))
    np.testing.assert_allclose(totals.calibration, np.sum([result.calibration for result in kept], axis=0), rtol=1e-14)
    assert totals.brier == pytest.approx(sum(result.brier for result in kept), rel=1e-14)
    for rule in ("tau", "prior"):
        np.testing.assert_array_equal(totals.sweep[rule], np.sum([result.sweep[rule] for result in kept], axis=0))


def test_adding_up_leaves_the_results_unchanged():
    kept = [made_up(place) for place in range(3)]
    Totals.of(kept)
    for place, result in enumerate(kept):
        require_same(result, made_up(place))


def test_totals_of_no_image_are_refused():
    with pytest.raises(InputError, match="there is no image to score"):
        Totals.of([])


# On disk.


def fill(path, count, key=KEY):
    with ResultStore(path, key) as store:
        store.add_all((place, made_up(place)) for place in range(count))


def totals_of(path, key=KEY):
    with ResultStore(path, key) as store:
        return Totals.of(store)


def test_results_come_back_in_their_places_whatever_order_they_came_in(tmp_path):
    order = np.random.default_rng(0).permutation(150).tolist()
    with ResultStore(tmp_path / "deep/er/x.sqlite", KEY) as store:
        store.add_all((place, made_up(place)) for place in order)
        assert len(store) == 150 and store.names() == {made_up(place).name for place in range(150)}
        for place, result in enumerate(store):
            require_same(result, made_up(place))


def test_totals_from_disk_are_those_from_memory(tmp_path):
    fill(tmp_path / "x.sqlite", 100)
    require_same_totals(totals_of(tmp_path / "x.sqlite"), Totals.of(made_up(place) for place in range(100)))


def test_names_are_kept_as_they_are(tmp_path):
    names = ["it's", 'a "b"', "a; DROP TABLE results", "städte/東京/é", "%s ?", "a\nb", ""]
    with ResultStore(tmp_path / 'x\'s "y" %20?.sqlite', KEY) as store:
        store.add_all((place, ImageResult(name, np.eye(2, 3, dtype=np.int64), 0)) for place, name in enumerate(names))
    with ResultStore(tmp_path / 'x\'s "y" %20?.sqlite', KEY) as store:
        assert [result.name for result in store] == names and store.names() == set(names)
    assert [path.name for path in tmp_path.iterdir()] == ['x\'s "y" %20?.sqlite']


def test_an_image_scored_again_counts_once(tmp_path):
    fill(tmp_path / "x.sqlite", 5)
    fill(tmp_path / "x.sqlite", 5)
    assert totals_of(tmp_path / "x.sqlite").images == 5


@pytest.mark.parametrize("other", [{}, {**KEY, "images": 4}, {**KEY, "more": None}])
def test_another_key_drops_the_results(tmp_path, other):
    fill(tmp_path / "x.sqlite", 5)
    with ResultStore(tmp_path / "x.sqlite", dict(reversed(KEY.items()))) as store:
        assert len(store) == 5  # the order of a key's entries says nothing
    with ResultStore(tmp_path / "x.sqlite", other) as store:
        assert len(store) == 0 and store.names() == set()
    with ResultStore(tmp_path / "x.sqlite", KEY) as store:
        assert len(store) == 0


def test_what_came_before_an_error_is_kept(tmp_path):
    def some():
        for place in range(AT_ONCE + 5):
            yield place, made_up(place)
        raise InputError("a bad mask")

    with ResultStore(tmp_path / "x.sqlite", KEY) as store:
        with pytest.raises(InputError, match="a bad mask"):
            store.add_all(some())
        assert len(store) == AT_ONCE + 5


KILLED = """
import os, signal, sys
sys.path[:0] = {path!r}
from test_results import KEY, made_up
from segloss.evaluation.store import ResultStore

def some():
    for place in range(200):
        if place == {at}:
            {kill}
        yield place, made_up(place)

with ResultStore({file!r}, KEY) as store:
    store.add_all(some())
"""


@pytest.mark.parametrize(("kill", "code"), [("os._exit(9)", 9), ("os.kill(os.getpid(), signal.SIGKILL)", -9)])
def test_a_killed_evaluation_leaves_whole_results_and_goes_on(tmp_path, kill, code):
    if code == -9 and not hasattr(signal, "SIGKILL"):
        pytest.skip("no SIGKILL here")
    file, at = tmp_path / "x.sqlite", 2 * AT_ONCE + 10
    script = KILLED.replace("{file!r}", f"__import__('pathlib').Path({str(file)!r})").replace("{at}", str(at))
    script = script.replace("{kill}", kill).replace("{path!r}", repr([str(Path(__file__).parent), *sys.path]))
    assert subprocess.run([sys.executable, "-c", script], timeout=60).returncode == code
    with ResultStore(file, KEY) as store:
        done = store.names()
        assert done == {made_up(place).name for place in range(2 * AT_ONCE)}
        for place, result in enumerate(store):
            require_same(result, made_up(place))
        store.add_all((place, made_up(place)) for place in range(200) if made_up(place).name not in done)
        require_same_totals(Totals.of(store), Totals.of(made_up(place) for place in range(200)))


HARM = {
    "random bytes": lambda data: np.random.default_rng(0).bytes(len(data)),
    "empty": lambda data: b"",
    "text": lambda data: b"name,iou\n" * 100,
    "cut in half": lambda data: data[: len(data) // 2],
    "cut by one page": lambda data: data[:-4096],
    "cut within a page": lambda data: data[:-1000],
    "zeros in the middle": lambda data: data[: len(data) // 2] + bytes(3000) + data[len(data) // 2 + 3000 :],
}


@pytest.mark.parametrize("harm", HARM.values(), ids=HARM.keys())
def test_a_damaged_file_is_begun_anew(tmp_path, harm):
    file = tmp_path / "x.sqlite"
    fill(file, 70)
    file.write_bytes(harm(file.read_bytes()))
    with ResultStore(file, KEY) as store:
        assert len(store) == 0
        store.add_all((place, made_up(place)) for place in range(70))
    require_same_totals(totals_of(file), Totals.of(made_up(place) for place in range(70)))


def test_a_changed_byte_is_never_counted(tmp_path):
    file = tmp_path / "x.sqlite"
    fill(file, 20)
    whole, right = file.read_bytes(), Totals.of(made_up(place) for place in range(20))
    generator, anew = np.random.default_rng(0), 0
    for at in generator.integers(0, len(whole), 60).tolist():
        damaged = bytearray(whole)
        damaged[at] ^= int(generator.integers(1, 256))
        file.write_bytes(damaged)
        with ResultStore(file, KEY) as store:
            if len(store) == 0:
                anew += 1
            else:  # the byte was of no consequence
                require_same_totals(Totals.of(store), right)
    assert anew > 20


def test_a_file_of_another_program_is_begun_anew(tmp_path):
    file = tmp_path / "x.sqlite"
    with sqlite3.connect(file) as connection:
        connection.execute("CREATE TABLE meta (other TEXT, columns TEXT)")
    connection.close()
    fill(file, 3)
    assert totals_of(file).images == 3


def test_a_folder_that_cannot_be_written_is_one_input_error(tmp_path):
    (tmp_path / "file").write_text("")
    (tmp_path / "folder.sqlite").mkdir()
    for path in (tmp_path / "file/x.sqlite", tmp_path / "file/below/x.sqlite", tmp_path / "folder.sqlite"):
        with pytest.raises(InputError, match=rf"{path}: cannot be written: .*; choose another --output-dir"):
            ResultStore(path, KEY)
    assert (tmp_path / "folder.sqlite").is_dir() and (tmp_path / "file").is_file()


@pytest.mark.skipif(os.name == "nt" or os.geteuid() == 0, reason="root may write everywhere")
def test_a_folder_without_permission_is_one_input_error(tmp_path):
    tmp_path.chmod(0o500)
    with pytest.raises(InputError, match="cannot be written"):
        ResultStore(tmp_path / "x.sqlite", KEY)


def test_a_second_evaluation_into_the_same_file_is_refused_and_harms_nothing(tmp_path):
    file = tmp_path / "x.sqlite"
    with ResultStore(file, KEY) as store:
        store.add_all((place, made_up(place)) for place in range(AT_ONCE))
        for key in (KEY, {"model": "b"}):
            with pytest.raises(InputError, match=r"locked; another evaluation is writing there; wait for it or choose"):
                ResultStore(file, key)
        store.add_all((place, made_up(place)) for place in range(AT_ONCE, 100))
    require_same_totals(totals_of(file), Totals.of(made_up(place) for place in range(100)))


def test_a_full_disk_is_one_input_error_and_keeps_what_was_written(tmp_path):
    file = tmp_path / "x.sqlite"
    with ResultStore(file, KEY) as store:
        store.add_all((place, made_up(place)) for place in range(AT_ONCE))
        pages = store.connection.execute("PRAGMA page_count").fetchone()[0]
        store.connection.execute(f"PRAGMA max_page_count = {pages + 2}")
        with pytest.raises(InputError, match=r"x\.sqlite: cannot be written: database or disk is full"):
            store.add_all((place, made_up(place)) for place in range(AT_ONCE, 300))
    assert totals_of(file).images == AT_ONCE


def test_memory_does_not_grow_with_the_results(tmp_path):
    """What is kept of an image is 3 C counts and its name, 0.6 KiB of 19 classes; its matrix alone has 3 KiB."""
    images, content = 2000, made_up(0, classes=19, optional=False).matrix
    peaks = []
    with ResultStore(tmp_path / "x.sqlite", KEY) as store:
        tracemalloc.start()
        try:
            store.add_all((place, ImageResult(f"{place:05}", content.copy(), 1)) for place in range(images))
            peaks.append(tracemalloc.get_traced_memory()[1] / 2**20)
            tracemalloc.reset_peak()
            totals = Totals.of(store)
            peaks.append(tracemalloc.get_traced_memory()[1] / 2**20)
        finally:
            tracemalloc.stop()
    np.testing.assert_array_equal(totals.matrix, images * content)
    # MiB. Writing holds one transaction; reading ends in the counts twice (list and array), 2 x 2000 x 456 bytes.
    assert peaks[0] < 1.5 and peaks[1] < 4, peaks


def test_results_counted_in_another_way_are_not_gone_on_from(tmp_path, monkeypatch):
    result = ImageResult("a", np.array([[3, 0, 0], [1, 2, 0]]), 1)
    with ResultStore(tmp_path / "r.sqlite", {"data": 1}) as store:
        store.add_all([(0, result)])
    with ResultStore(tmp_path / "r.sqlite", {"data": 1}) as store:
        assert store.names() == {"a"}
    monkeypatch.setattr("segloss.evaluation.store.COUNTED_AS", -1)
    with ResultStore(tmp_path / "r.sqlite", {"data": 1}) as store:
        assert store.names() == set()
