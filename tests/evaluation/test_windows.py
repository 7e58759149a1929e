"""Windows: blended without a seam, read from files by rows, the same numbers as from whole images."""

import json

import cv2
import numpy as np
import pytest
import torch
from band_trees import NODATA, band_tree
from data_trees import random_image, write_png
from street_trees import TINY, street_tree
from torch import nn

import eval_seg
import segloss
import train_seg
from segloss.datasets import base, build_dataset
from segloss.datasets.bands import choose_bands
from segloss.datasets.rows import sliced
from segloss.datasets.transforms import EvalTransform
from segloss.doctor.pairs import examine_pair
from segloss.errors import InputError
from segloss.evaluation import mask_source, run_source
from segloss.evaluation.png_rows import PngRows
from segloss.evaluation.run_source import RunSource
from segloss.inference import Views, blend_weights, infer_dataset, score_rows, window_starts, windows
from segloss.losses import build_criterion

COUNTS = (1000, 100, 10)


@pytest.mark.parametrize(("length", "window"), [(10, 10), (37, 16), (101, 33), (20, 7), (64, 32)])
@pytest.mark.parametrize("overlap", [0.0, 0.25, 0.5, 0.9])
def test_blend_weights_add_up_to_one_and_vanish_nowhere(length, window, overlap):
    starts = window_starts(length, window, overlap)
    weights, total, seen = blend_weights(length, window, starts), np.zeros(length), np.zeros(length)
    for start, of_window in zip(starts, weights, strict=True):
        total[start : start + window] += of_window
        seen[start : start + window] += 1
    np.testing.assert_allclose(total, 1, rtol=1e-12)
    assert weights.min() > 0
    assert (weights[0][seen[:window] == 1] == 1).all()  # at the edge, too


def scores_of(network, image, tile, overlap, at_once=1):
    """All rows together, in float64."""

    def see(windows):
        return network(torch.from_numpy(windows.transpose(0, 3, 1, 2)).double())

    with torch.inference_mode():
        return torch.cat([*score_rows(see, sliced(image), image.shape[:2], tile, overlap, at_once)], dim=-2)


@pytest.mark.parametrize("tile", [(16, 16), (40, 9), (64, 64)])
@pytest.mark.parametrize("overlap", [0.0, 0.3, 0.5, 0.8])
def test_a_constant_stays_constant_to_rounding(tile, overlap):
    scores = scores_of(lambda x: torch.full_like(x, 3.7), random_image(0, (41, 53)), tile, overlap, at_once=4)
    torch.testing.assert_close(scores, torch.full((1, 3, 41, 53), 3.7, dtype=torch.float64), rtol=1e-12, atol=0)


def test_a_small_receptive_field_leaves_almost_no_seam():
    torch.manual_seed(0)
    network = nn.Conv2d(3, 2, 3, padding=1).double()
    image = random_image(0, (75, 101))
    with torch.inference_mode():
        whole = network(torch.from_numpy(image.transpose(2, 0, 1)).double()[None])
    blended = scores_of(network, image, (32, 32), 0.5)
    worst = float((blended - whole).abs().max() / whole.abs().max())
    # What zero padding does at a window's border counts sin^2(pi / 64) = 0.0024 there; in a plain mean 0.5.
    assert worst < 0.005


@pytest.mark.parametrize("piece", [1, 200, 10**6])
def test_pieces_come_from_the_top_down_and_hold_every_row_once(monkeypatch, piece):
    monkeypatch.setattr(windows, "PIECE", piece)
    image = random_image(0, (43, 37))
    scores = scores_of(nn.Identity(), image, (16, 16), 0.5)[0]
    torch.testing.assert_close(scores, torch.from_numpy(image.transpose(2, 0, 1)).double())


def test_rows_are_read_once_and_in_order():
    image, asked = random_image(0, (90, 40)), []

    def read(top, bottom):
        asked.append((top, bottom))
        return image[top:bottom]

    rows = [*score_rows(lambda w: torch.from_numpy(w.transpose(0, 3, 1, 2)).double(), read, (90, 40), (32, 32), 0.5)]
    assert asked == [(0, 32), (32, 48), (48, 64), (64, 80), (80, 90)] and sum(r.shape[-2] for r in rows) == 90


# ---- data sets: a network that looks at single pixels sees the same in windows as in the whole image


class Local(nn.Module):
    def __init__(self, bands=3):
        super().__init__()
        self.head, self.seen = nn.Conv2d(bands, 3, 1), []

    def forward(self, images):
        self.seen.append(tuple(images.shape))
        return self.head(images.float() / 255)


@pytest.fixture
def dataset(tmp_path):
    for name, size in (("a", (150, 210)), ("b", (40, 30)), ("c", (90, 260))):
        write_png(tmp_path / f"images/val/{name}.png", random_image(len(name) + size[0], size))
        write_png(tmp_path / f"masks/val/{name}.png", np.random.default_rng(0).integers(0, 3, size).astype(np.uint8))
    (tmp_path / "classes.yaml").write_text("- x\n- y\n- z\n")
    return build_dataset("folder", tmp_path, "val")


def by_name(model, dataset, views, **options):
    """Scores and labels of every image, its pieces put together."""
    criterion = build_criterion("ce", COUNTS)
    found: dict[str, list] = {}
    how = {"device": torch.device("cpu"), "views": views, **options}
    for sample, scores in infer_dataset(model, criterion, dataset, **how):
        pieces = found.setdefault(sample["name"], [])
        assert sample.get("top", 0) == sum(len(labels) for _, labels in pieces)
        assert sample["labels"].shape == scores.shape[-2:]
        pieces.append((scores[0], sample["labels"]))
    return {
        name: (torch.cat([s for s, _ in p], dim=-2), torch.cat([y for _, y in p])) for name, p in sorted(found.items())
    }


@pytest.mark.parametrize("large", [False, True])
@pytest.mark.parametrize("views", [{}, {"flip": True}, {"overlap": 0.0}, {"flip": True, "scales": (1.0, 1.0)}])
def test_windows_of_a_data_set_are_its_whole_images(dataset, monkeypatch, large, views):
    monkeypatch.setattr(windows, "PIECE", 1000)
    torch.manual_seed(0)
    model = Local()
    whole = by_name(model, dataset, Views(**{**views, "overlap": 0.5}))
    if large:
        monkeypatch.setattr(base, "LARGE", 5000)  # pixels, of which b has fewer
        monkeypatch.setattr(dataset, "read_pair", lambda index: pytest.fail("decoded") if index != 1 else b)
        b = base.SegmentationDataset.decode_pair(dataset, 1)
    for name, (scores, labels) in by_name(model, dataset, Views(tile=(64, 48), **views)).items():
        torch.testing.assert_close(scores, whole[name][0])
        assert torch.equal(labels, whole[name][1])


def test_one_image_is_held_and_windows_are_seen_in_batches(dataset):
    model = Local()
    by_name(model, dataset, Views(tile=(64, 48)), batch_size=2)
    assert (1, 3, 40, 30) in model.seen  # fits into a window
    in_windows = {shape for shape in model.seen if shape[-1] != 30}
    assert (2, 3, 64, 48) in in_windows <= {(n, 3, 64, 48) for n in (1, 2)}


@pytest.mark.parametrize("scale", [0.5, 2.0])
def test_windows_have_their_size_as_the_network_sees_them_whatever_the_image_scale(dataset, scale):
    model, dataset.transform = Local(), EvalTransform(scale)
    whole = by_name(model, dataset, None)
    model.seen.clear()
    found = by_name(model, dataset, Views(tile=(64, 48)))
    assert all(h <= 64 and w <= 48 for *_, h, w in model.seen)
    for name, (scores, _) in found.items():
        difference = (scores - whole[name][0]).abs()
        assert float(difference.max()) < 0.05 * float(whole[name][0].abs().max())  # resampled in another phase


def test_an_image_and_mask_of_other_sizes_are_refused_by_rows_too(dataset, tmp_path, monkeypatch):
    monkeypatch.setattr(base, "LARGE", 5000)
    write_png(tmp_path / "masks/val/a.png", np.zeros((150, 209), np.uint8))
    with pytest.raises(InputError, match=r"a\.png: mask is 209x150 but its image a\.png is 210x150"):
        by_name(Local(), dataset, Views(tile=(64, 48)))


@pytest.mark.parametrize(("count", "dtype"), [(5, "uint16"), (2, "float32"), (4, "uint8")])
def test_windows_of_any_bands_are_the_whole_images_and_none_is_read_by_rows(tmp_path, monkeypatch, count, dtype):
    monkeypatch.setattr(base, "LARGE", 1000)
    nodata = 3 if dtype == "uint8" else NODATA
    dataset = build_dataset("folder", band_tree(tmp_path, nodata=nodata, count=count, dtype=dtype), "val")
    assert choose_bands([dataset]).count == count and not dataset.is_large(0)
    torch.manual_seed(0)
    model = Local(count)
    whole = by_name(model, dataset, None)
    model.seen.clear()
    for name, (scores, labels) in by_name(model, dataset, Views(tile=(32, 48), flip=True)).items():
        torch.testing.assert_close(scores, whole[name][0].softmax(0))
        assert torch.equal(labels, whole[name][1]) and (labels[:, :10] == 255).all()
    assert {shape[1:] for shape in model.seen} == {(count, 32, 48)}
    np.testing.assert_array_equal(dataset.picture_rows(0)(3, 9), dataset.read_picture(0)[3:9])
    assert examine_pair(dataset, 0).faults == []


# ---- the command


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    root = tmp_path_factory.mktemp("run")
    data = street_tree(root / "data")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SEGLOSS_CACHE", str(root / "cache"))
        patch.delenv("SEGLOSS_RUN_FOLDER", raising=False)
        flags = ["--dataset", "camvid", "--data-path", str(data), "--output-dir", str(root / "run"), *TINY]
        train_seg.train([*flags, "--epochs", "1"])
    return root / "run"


WINDOWS = ["--tile", "48", "48", "--workers", "0"]


def test_scores_of_images_read_by_rows_are_those_of_decoded_ones(run, tmp_path, monkeypatch):
    found = {}
    flags = ["--checkpoint", str(run), *WINDOWS, "--sweep-tau", "--boundary", "--decision", "iou", "--tta-flip"]
    for name, pixels in (("decoded", base.LARGE), ("by rows", 1000)):
        monkeypatch.setattr(base, "LARGE", pixels)
        monkeypatch.setattr(windows, "PIECE", 1500)
        eval_seg.evaluate([*flags, "--output-dir", str(tmp_path / name)])
        found[name] = json.loads((tmp_path / name / "metrics.json").read_text())["runs"]["run"]
        assert (tmp_path / name / "report.html").is_file()
    assert found["by rows"] == found["decoded"]


def test_pieces_change_no_score_of_a_map(run, tmp_path, monkeypatch):
    found = {}
    for name, pixels in (("one", 10**6), ("pieces", 1500)):
        monkeypatch.setattr(windows, "PIECE", pixels)
        eval_seg.evaluate(["--checkpoint", str(run), *WINDOWS, "--boundary", "--output-dir", str(tmp_path / name)])
        found[name] = json.loads((tmp_path / name / "metrics.json").read_text())["runs"]["run"]
    assert found["one"]["classes"] == found["pieces"]["classes"]  # boundary IoU, which looks at neighbours, too
    for key in ("ece", "brier", "nll"):  # the classwise error is of another grid of pixels
        assert found["one"]["calibration"][key] == pytest.approx(found["pieces"]["calibration"][key], rel=1e-9)


def test_an_image_read_by_rows_is_predicted_in_every_form_as_a_decoded_one(run, tmp_path, monkeypatch):
    for name, size in (("a", (130, 170)), ("sub/b", (50, 97))):
        write_png(tmp_path / f"images/{name}.png", random_image(1, size))
    flags = ["--checkpoint", str(run), "--images", str(tmp_path / "images"), *WINDOWS]
    flags += ["--save", "ids", "color", "overlay"]
    eval_seg.evaluate([*flags, "--output-dir", str(tmp_path / "decoded")])
    monkeypatch.setattr(base, "LARGE", 1000)
    monkeypatch.setattr(windows, "PIECE", 1500)
    eval_seg.evaluate([*flags, "--output-dir", str(tmp_path / "by rows")])
    for name in ("a", "sub/b"):
        for kind in ("ids", "color", "overlay"):
            path = f"{kind}/{name}.png"
            pixels = [cv2.imread(str(tmp_path / out / path), cv2.IMREAD_UNCHANGED) for out in ("decoded", "by rows")]
            np.testing.assert_array_equal(*pixels)
    left = [path.name for path in (tmp_path / "by rows").rglob("*") if path.name.startswith(".")]
    assert left == []


def test_what_is_made_of_posteriors_is_whole_though_windows_come_in_pieces(run, tmp_path, monkeypatch):
    write_png(tmp_path / "images/a.png", random_image(1, (130, 170)))
    flags = ["--checkpoint", str(run), "--images", str(tmp_path / "images"), *WINDOWS]
    found = []
    for pixels in (10**6, 1500):
        monkeypatch.setattr(windows, "PIECE", pixels)
        out = tmp_path / str(pixels)
        eval_seg.evaluate([*flags, "--save", "probability", "confidence", "--output-dir", str(out)])
        with np.load(out / "probability/a.npz") as arrays:
            confidence = cv2.imread(str(out / "confidence/a.png"), cv2.IMREAD_UNCHANGED)
            found.append((arrays["probability"], confidence.astype(float)))
    assert found[0][0].shape == (11, 130, 170)
    for one, pieces, step in zip(*found, (1e-3, 1), strict=True):  # sums of pieces may be rounded otherwise
        np.testing.assert_allclose(one, pieces, rtol=0, atol=step)
        assert (one == pieces).mean() > 0.99


def test_a_file_that_breaks_off_leaves_no_map_and_one_line(run, tmp_path, monkeypatch):
    monkeypatch.setattr(base, "LARGE", 1000)
    monkeypatch.setattr(windows, "PIECE", 1500)
    path = write_png(tmp_path / "images/a.png", random_image(1, (300, 170)))
    content = bytearray(path.read_bytes())
    content[-200] ^= 1
    path.write_bytes(content)
    flags = ["--checkpoint", str(run), "--images", str(tmp_path / "images"), *WINDOWS]
    with pytest.raises(InputError, match=r"a\.png: is damaged or cut off at rows"):
        eval_seg.evaluate([*flags, "--output-dir", str(tmp_path / "out")])
    assert [*(tmp_path / "out").rglob("a.png")] == []


def test_the_iou_rule_is_fitted_to_windows_read_by_rows(run, tmp_path, monkeypatch):
    from segloss.evaluation.fitting import sample_of

    loaded = segloss.load_run(run)
    dataset = build_dataset("camvid", run.parent / "data", "val", EvalTransform(1.0))
    samples = []
    for pixels in (base.LARGE, 1000):
        monkeypatch.setattr(base, "LARGE", pixels)
        samples.append(sample_of(loaded, dataset, device=torch.device("cpu"), views=Views(tile=(48, 48))))
    assert samples[0].pixels == samples[1].pixels > 0
    torch.testing.assert_close(samples[0].posterior, samples[1].posterior)


def test_a_picture_of_a_large_image_is_thinned_out_on_one_grid(run, monkeypatch):
    dataset = build_dataset("camvid", run.parent / "data", "val", EvalTransform(1.0))
    source = RunSource("run", segloss.load_run(run), dataset, device=torch.device("cpu"), views=Views(tile=(48, 48)))
    monkeypatch.setattr(windows, "PIECE", 700)
    whole = source.picture(dataset.names[1])
    monkeypatch.setattr(base, "LARGE", 1000)
    monkeypatch.setattr(run_source, "PICTURE", 700)  # a ninth of 64 x 96, and some
    for found, expected in zip(source.picture(dataset.names[1]), whole, strict=True):
        np.testing.assert_array_equal(found, expected[::3, ::3])


def test_the_doctor_finds_the_same_in_masks_read_by_rows(dataset, tmp_path, monkeypatch):
    mask = np.zeros((150, 210), np.uint8)
    mask[149, 3], mask[20] = 7, 1
    write_png(tmp_path / "masks/val/a.png", mask)
    write_png(tmp_path / "masks/val/c.png", mask)
    write_png(tmp_path / "images/val/a.png", random_image(0, (150, 210)))
    found = []
    for pixels in (base.LARGE, 5000):
        monkeypatch.setattr(base, "LARGE", pixels)
        facts = [examine_pair(dataset, place) for place in range(len(dataset))]
        found.append([([f.kind for f in of.faults], of.values, of.histogram.tolist()) for of in facts[:2]])
    assert found[0] == found[1] and found[0][0][0] == ["stray"]
    assert [fault.kind for fault in facts[2].faults] == ["size"] and facts[2].histogram is None  # not read at all
    monkeypatch.setitem(examine_pair.__globals__, "LARGE", 64 * 210)  # one row at a time
    assert examine_pair(dataset, 0).histogram.tolist() == found[0][0][2]


def test_masks_read_by_rows_are_counted_as_whole_ones(tmp_path, monkeypatch):
    rng = np.random.default_rng(0)
    for kind in ("true", "pred"):
        for name, size in (("a", (90, 70)), ("b", (30, 20))):
            write_png(tmp_path / kind / f"{name}.png", rng.integers(0, 3, size).astype(np.uint8))
    (tmp_path / "classes.yaml").write_text("- x\n- y\n- z\n")
    flags = ["--predictions", str(tmp_path / "pred"), "--labels", str(tmp_path / "true")]
    found = []
    for pixels in (mask_source.LARGE, 1000):
        monkeypatch.setattr(mask_source, "LARGE", pixels)
        for extra in ([], ["--boundary"]):
            out = tmp_path / f"{pixels}{len(extra)}"
            eval_seg.evaluate([*flags, *extra, "--output-dir", str(out)])
            found.append(json.loads((out / "metrics.json").read_text())["runs"])
    assert found[0] == found[2] and found[1] == found[3]


# ---- PNG by rows


@pytest.mark.parametrize("shape", [(1, 1), (37, 53), (37, 53, 3), (5, 1)])
@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
@pytest.mark.parametrize("step", [1, 4, 100])
def test_a_png_written_by_rows_is_read_as_it_was(tmp_path, shape, dtype, step):
    pixels = np.random.default_rng(0).integers(0, np.iinfo(dtype).max + 1, shape).astype(dtype)
    file = PngRows(tmp_path / "sub/a.png", shape[:2])
    for top in range(0, shape[0], step):
        assert not (tmp_path / "sub/a.png").exists()
        file.write(pixels[top : top + step])
    found = cv2.imread(str(tmp_path / "sub/a.png"), cv2.IMREAD_UNCHANGED)
    np.testing.assert_array_equal(found if len(shape) == 2 else found[..., ::-1], pixels)
    assert [path.name for path in (tmp_path / "sub").iterdir()] == ["a.png"]


def test_a_png_that_is_not_finished_goes_with_its_writer(tmp_path):
    file = PngRows(tmp_path / "a.png", (10, 10))
    file.write(np.zeros((4, 10), np.uint8))
    assert len([*tmp_path.iterdir()]) == 1
    del file
    assert [*tmp_path.iterdir()] == []
