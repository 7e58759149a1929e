"""Windows, test-time augmentation and predictions: equal to what they stand for where that can be said."""

import cv2
import numpy as np
import pytest
import torch
from data_trees import folder_tree, random_image, write_png
from PIL import Image
from street_trees import TINY, street_tree
from torch import nn

import eval_seg
import segloss
import train_seg
from segloss.datasets import build_dataset
from segloss.datasets.rows import sliced
from segloss.errors import InputError
from segloss.evaluation.sources import _is_image
from segloss.inference import AveragedPosterior, Views, infer, infer_dataset, look, reader_of, score_rows, window_starts
from segloss.losses import OutlyingMSELoss, build_criterion, class_prior

COUNTS = (1000, 100, 10)


class Local(nn.Module):
    """A network whose score of a pixel depends on that pixel alone, so that windows change nothing."""

    def __init__(self):
        super().__init__()
        self.head = nn.Conv2d(3, 3, 1)

    def forward(self, images):
        return self.head(images.float() / 255)


@pytest.fixture
def model():
    torch.manual_seed(0)
    return Local().eval()


def images(size=(37, 53), count=2):
    return torch.from_numpy(np.stack([random_image(k, size).transpose(2, 0, 1) for k in range(count)]))


@pytest.mark.parametrize(("length", "window", "overlap"), [(10, 10, 0.5), (7, 10, 0.5), (100, 32, 0), (101, 33, 0.9)])
def test_windows_cover_everything_and_end_at_the_end(length, window, overlap):
    starts = window_starts(length, window, overlap)
    assert starts[0] == 0 and len(set(starts)) == len(starts)
    covered = {at for start in starts for at in range(start, min(start + window, length))}
    assert covered == set(range(length)) and max(starts) + window >= length
    assert all(start + window <= length for start in starts) or length <= window


@pytest.mark.parametrize("tile", [(16, 16), (32, 48), (37, 20)])
@pytest.mark.parametrize("overlap", [0.0, 0.5, 0.8])
def test_windows_of_a_pixelwise_network_give_the_whole_image(model, tile, overlap):
    for image in images():
        pixels = image.permute(1, 2, 0).numpy()
        with torch.inference_mode():
            rows = score_rows(see_with(model), sliced(pixels), (37, 53), tile, overlap, at_once=3)
            torch.testing.assert_close(torch.cat([*rows], dim=-2), model(image[None]))


def see_with(model):
    return lambda windows: model(torch.from_numpy(windows.transpose(0, 3, 1, 2)))


def test_a_window_that_covers_the_image_is_whole_image_inference(model):
    pixels = images()[0].permute(1, 2, 0).numpy()
    with torch.inference_mode():
        whole = look(model, images()[:1], (37, 53), Views(), build_criterion("ce", COUNTS))
        (covered,) = score_rows(see_with(model), sliced(pixels), (37, 53), (64, 64), 0.5)
    assert torch.equal(whole, covered)


@pytest.mark.parametrize("name", ["outlying_mse", "ce", "weighted_ce", "logit_adjusted", "vector_scaling", "ce+dice"])
def test_several_views_are_averaged_as_posteriors(model, name):
    criterion, views = build_criterion(name, COUNTS), Views(scales=(1.0, 2.0), flip=True)
    seen, size = images().float(), (37, 53)
    with torch.inference_mode():
        got = look(model, seen, size, views, criterion)
        large = nn.functional.interpolate(seen, (74, 106), mode="bilinear")
        expected = []
        for view in (seen, large):
            for flip in (False, True):
                logits = model(view.flip(-1) if flip else view)
                logits = logits.flip(-1) if flip else logits
                logits = nn.functional.interpolate(logits, size, mode="bilinear")
                expected.append(criterion.posterior(logits))
    torch.testing.assert_close(got, torch.stack(expected).mean(0), rtol=1e-4, atol=1e-6)
    torch.testing.assert_close(got.sum(1), torch.ones(2, *size))


def test_a_network_that_mirrors_gains_nothing_from_flips(model):
    criterion = build_criterion("ce", COUNTS)
    with torch.inference_mode():
        flipped = look(model, images(), (37, 53), Views(flip=True), criterion)
        torch.testing.assert_close(flipped, criterion.posterior(model(images())))


@pytest.mark.parametrize("name", ["ce", "outlying_mse"])
@pytest.mark.parametrize("tile", [None, (30, 40)])
def test_in_the_mirrored_image_left_and_right_are_each_other(model, tmp_path, name, tile):
    """What a network of single pixels holds for a left hand in the mirrored image is a right one in the image."""
    criterion, names = build_criterion(name, COUNTS), ("wall", "left hand", "right hand")
    write_png(tmp_path / "images/val/a.png", random_image(0, (37, 53)))
    write_png(tmp_path / "masks/val/a.png", np.zeros((37, 53), np.uint8))
    (tmp_path / "classes.yaml").write_text("- wall\n- left hand\n- right hand\n")
    dataset = build_dataset("folder", tmp_path, "val")

    def scores(views):
        found = infer_dataset(model, criterion, dataset, device=torch.device("cpu"), views=views)
        return torch.cat([piece for _, piece in found], -2)

    views = Views(flip=True, tile=tile).of_classes(names)
    once = criterion.posterior(scores(Views(tile=tile)))
    torch.testing.assert_close(scores(views), (once + once[:, [0, 2, 1]]) / 2)
    assert Views(flip=True).of_classes(("a", "b")) == Views(flip=True) and Views().of_classes(names) == Views()


@pytest.mark.parametrize("name", ["outlying_mse", "ce", "weighted_ce", "logit_adjusted"])
@pytest.mark.parametrize("tau", [0.0, 0.4, 1.0])
def test_an_averaged_posterior_is_decided_on_like_the_logits_it_came_from(name, tau):
    torch.manual_seed(1)
    criterion = build_criterion(name, COUNTS)
    logits = torch.rand(2, 3, 20, 30) * 3 + 0.1  # positive: the outlying label's posterior clips at 0
    reader = reader_of(criterion, Views(flip=True))
    assert isinstance(reader, AveragedPosterior)
    posterior = criterion.posterior(logits)
    assert (reader.decide(posterior, tau) == criterion.decide(logits, tau)).float().mean() > 0.9999  # rounding at ties
    assert torch.equal(reader.posterior(posterior), posterior)
    assert reader_of(criterion, Views(tile=(32, 32))) is criterion


def test_samples_of_any_size_come_back_at_their_label_size(model):
    samples = [
        {"name": str(k), "image": images((h, w), 1)[0], "size": (2 * h, 2 * w)}
        for k, (h, w) in enumerate([(20, 30), (20, 30), (33, 17)])
    ]
    criterion = OutlyingMSELoss.from_counts(COUNTS)
    got = list(infer(model, criterion, [samples], device=torch.device("cpu")))
    assert [sample["name"] for sample, _ in got] == ["0", "1", "2"]
    assert [tuple(scores.shape) for _, scores in got] == [(1, 3, 40, 60), (1, 3, 40, 60), (1, 3, 66, 34)]


# ---- from the command line


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


def test_a_folder_of_images_is_predicted_in_three_forms(run, tmp_path, capsys):
    for name, size in (("a b", (64, 96)), ("sub/ü", (50, 70))):
        write_png(tmp_path / f"images/{name}.png", random_image(1, size))
    flags = ["--checkpoint", str(run), "--images", str(tmp_path / "images"), "--workers", "0"]
    eval_seg.evaluate([*flags, "--save", "ids", "color", "overlay", "--output-dir", str(tmp_path / "out")])
    loaded = segloss.load_run(run)
    by_default = loaded.kept.decision  # what the run holds
    assert by_default is not None
    ids = [cv2.imread(str(path), cv2.IMREAD_UNCHANGED) for path in (tmp_path / "out/ids").rglob("*.png")]
    rarest = int(class_prior(loaded.counts).argmin())
    share = np.mean(np.concatenate([each.ravel() for each in ids]) == loaded.classes.ids[rarest])
    told = f"share of the predicted pixels, and in training: {loaded.classes.names[rarest]} {100 * share:.1f} % ("
    assert told in capsys.readouterr().out
    for name, size in (("a b", (64, 96)), ("sub/ü", (50, 70))):
        read = {}
        for kind in ("ids", "color", "overlay"):
            content = (tmp_path / f"out/{kind}/{name}.png").read_bytes()
            read[kind] = cv2.imdecode(np.frombuffer(content, np.uint8), cv2.IMREAD_UNCHANGED)
        expected = loaded.predict(random_image(1, size)[..., ::-1], by_default)
        np.testing.assert_array_equal(read["ids"], np.array(loaded.classes.ids)[expected])
        np.testing.assert_array_equal(read["color"][..., ::-1], np.array(loaded.classes.colors, np.uint8)[expected])
        assert read["overlay"].shape == (*size, 3)
    (tmp_path / "empty").mkdir()
    with pytest.raises(InputError, match=r"empty: holds no images; check --images, one of \.png"):
        eval_seg.evaluate(["--checkpoint", str(run), "--images", str(tmp_path / "empty")])
    with pytest.raises(InputError, match=r"b\.png: cannot be made: .*; choose another --output-dir"):
        eval_seg.evaluate([*flags, "--output-dir", str(tmp_path / "images/a b.png")])
    eval_seg.evaluate([*flags, "--output-dir", str(tmp_path / "one")])
    assert (tmp_path / "one/a b.png").is_file()
    eval_seg.evaluate(
        [*flags[:2], "--images", str(tmp_path / "images/a b.png"), "--output-dir", str(tmp_path / "single")]
    )
    assert [path.name for path in (tmp_path / "single").rglob("*.png")] == ["a b.png"]
    assert (tmp_path / "single/a b.png").read_bytes() == (tmp_path / "one/a b.png").read_bytes()


def test_images_that_are_not_read_as_they_are_meant_are_told(run, tmp_path, capsys):
    """They were passed over, turned or lost their lower 8 bits without a line."""
    write_png(tmp_path / "images/a.png", random_image(1, (64, 96)).astype(np.uint16) * 256)
    exif = Image.Exif()
    exif[0x0112] = 6
    for name in "bc":
        Image.fromarray(random_image(2, (64, 96))).save(tmp_path / f"images/{name}.jpg", exif=exif)
    for name in ("d.heic", "e.gif", "f.jfif"):
        (tmp_path / "images" / name).write_bytes(b"x")
    flags = ["--checkpoint", str(run), "--images", str(tmp_path / "images"), "--workers", "0"]
    eval_seg.evaluate([*flags, "--output-dir", str(tmp_path / "out")])
    lines = [line.removeprefix("warning: ") for line in capsys.readouterr().out.splitlines() if "warning: " in line]
    place = tmp_path / "images"
    assert lines == [
        f"{place}: holds 3 images, but d.heic and 2 more, not a format that is read; save them as PNG or JPEG",
        f"run: {place}/a.png: has 16 bits, of which the upper 8 are read; scale it to 8 bits",
        f"run: {place}/b.jpg: is turned by its EXIF orientation, masks are not (and 1 more files); save it upright",
    ]
    assert cv2.imread(str(tmp_path / "out/b.png"), cv2.IMREAD_UNCHANGED).shape == (96, 64)


def test_several_runs_write_into_a_folder_each_and_plain_is_what_it_says(run, tmp_path, capsys):
    write_png(tmp_path / "images/a.png", random_image(1, (64, 96)))
    flags = ["--images", str(tmp_path / "images"), "--workers", "0", "--decision", "plain", "--names", "one", "two"]
    eval_seg.evaluate(["--checkpoint", str(run), str(run), *flags, "--output-dir", str(tmp_path / "out")])
    loaded = segloss.load_run(run)
    expected = np.array(loaded.classes.ids)[loaded.predict(random_image(1, (64, 96))[..., ::-1], 1.0)]
    for name in ("one", "two"):
        read = cv2.imread(str(tmp_path / f"out/{name}/a.png"), cv2.IMREAD_UNCHANGED)
        np.testing.assert_array_equal(read, expected)
    assert "one: decided by tau 1" in capsys.readouterr().out


def test_views_from_the_command_line_change_the_scores_and_nothing_breaks(run, tmp_path):
    import json

    found = {}
    for name, flags in {
        "plain": [],
        "covered": ["--tile", "512", "512"],
        "tiles": ["--tile", "48", "48", "--tile-overlap", "0.25"],
        "tta": ["--tta-flip", "--tta-scales", "0.75", "1.25", "--sweep-tau"],
    }.items():
        out = tmp_path / name
        eval_seg.evaluate(["--checkpoint", str(run), "--output-dir", str(out), "--workers", "0", *flags])
        found[name] = json.loads((out / "metrics.json").read_text())["runs"]["run"]
    assert found["covered"].pop("views") != found["plain"].pop("views")
    assert found["plain"] == found["covered"]
    assert found["tiles"]["classes"] != found["plain"]["classes"] != found["tta"]["classes"]
    assert 0 <= found["tta"]["calibration"]["ece"] <= 1


def test_pairs_of_sides_are_told_where_samples_and_images_are_mirrored(tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("SEGLOSS_CACHE", str(tmp_path / "cache"))
    classes = "- wall\n- left_hand\n- right_hand\n"
    data = folder_tree(tmp_path / "data", ("a", "b"), ("train", "val"), (64, 64), ids=(0, 1, 2), classes=classes)
    for seed, name in enumerate("ab", start=8):
        write_png(data / f"images/val/{name}.jpg", random_image(seed, (64, 64)))
    (tmp_path / "own.yaml").write_text("- RandomRotate90\n")
    for name, steps in (("run", []), ("own", ["--augmentations", str(tmp_path / "own.yaml")])):
        where = ["--dataset", "folder", "--data-path", str(data), "--output-dir", str(tmp_path / name)]
        train_seg.train([*where, *TINY, "--epochs", "1", "--batch-size", "2", *steps])
        told = "sides   left_hand and right_hand are swapped where a sample is mirrored\n" in capsys.readouterr().out
        assert told == (not steps)
    command = ["--checkpoint", str(tmp_path / "run"), "--split", "val", "--output-dir", str(tmp_path / "out")]
    eval_seg.evaluate([*command, "--tta-flip"])
    assert "--tta-flip: left_hand and right_hand are swapped in the mirrored image\n" in capsys.readouterr().out


def test_a_file_is_an_image_by_its_ending_or_by_how_it_begins(tmp_path):
    """Lists of images, as others take, and videos are none; what the decoder knows without its ending is one."""
    write_png(tmp_path / "a.png", np.zeros((8, 8, 3), np.uint8))
    (tmp_path / "a.png").rename(tmp_path / "photo")
    (tmp_path / "list.txt").write_text("photo\n")
    assert [_is_image(tmp_path / name) for name in ("photo", "cut.png", "list.txt", "")] == [True, False, False, False]


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--images", "nowhere"], "nowhere: is neither an image nor a folder; check --images"),
        (["--images", __file__], "test_inference.py: is no image; check --images, one of .png"),
        (["--save", "pdf"], "choose one of ids, color, overlay, train_ids"),
        (["--save-predictions", "--save", "train_ids"], "--save train_ids are those of Cityscapes"),
        (["--tile", "8", "8"], "--tile must be at least 32 each"),
        (["--tile-overlap", "1"], "--tile-overlap must be in"),
        (["--tile-overlap", "0.25"], "--tile-overlap must be given with --tile"),
        (["--tta-scales", "0"], "--tta-scales must be positive"),
    ],
)
def test_bad_flags_are_refused(run, flags, message):
    with pytest.raises(InputError, match=message):
        eval_seg.evaluate(["--checkpoint", str(run), *flags])
