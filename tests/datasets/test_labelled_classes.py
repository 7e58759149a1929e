"""Images labelled for some classes only: labelled_classes.csv, from the file to counts, training and scores."""

import json
import subprocess
import sys
import unicodedata

import numpy as np
import pytest
import torch
from data_trees import folder_tree, random_image, write_png
from small_training import SmallRun
from street_trees import TINY, street_tree

import train_seg
from segloss import PixelCounts, count_labels
from segloss.datasets import build_dataset
from segloss.datasets.labelled import class_masks, read_labelled_classes
from segloss.datasets.loading import evaluation_loader, repeat_factors, training_loader
from segloss.datasets.transforms import train_transform
from segloss.doctor import examine
from segloss.doctor.examination import check_histograms
from segloss.errors import InputError
from segloss.evaluation.mask_source import MaskSource
from segloss.evaluation.run_source import Measures, image_result
from segloss.losses import build_criterion, class_prior
from segloss.pixel_counts import count_dataset, image_histograms

NAMES = ("wall", "floor", "lamp")
ROWS = "images,classes\nA_*,wall;floor\nset B/*,lamp\n"


def merged_tree(root, rows=ROWS, splits=("train", "val")):
    """Two images of set A, whose lamps nobody labelled, one of set B with lamps alone, one with all classes."""
    folder_tree(root, images=("A_1", "A_2", "set B/x", "both"), splits=splits, ids=(0, 1, 2))
    if rows is not None:
        (root / "labelled_classes.csv").write_text(rows, encoding="utf-8")
    return root


def file_of(folder, text):
    path = folder / "labelled_classes.csv"
    path.write_text(text, encoding="utf-8")
    return path


@pytest.mark.parametrize(
    "text",
    [
        "A*,wall;lamp\n",
        "images,classes\nA*,wall;lamp\n",
        "A*;wall;lamp\n",
        "A*\twall\tlamp\n",
        "A*,wall,lamp\n",
        '"A*","wall;lamp"\n',
        "# set A\n\nA* | wall | lamp\n",
        "\ufeffImages,Classes\r\nA*,wall;lamp\r\n",
    ],
)
def test_patterns_and_classes_are_parted_in_any_usual_way(tmp_path, text):
    assert read_labelled_classes(file_of(tmp_path, text), NAMES) == (("A*", (0, 2)),)


@pytest.mark.parametrize(
    ("text", "match"),
    [
        (
            "A*,wal\n",
            r"labelled_classes.csv: unknown class 'wal'; choose one of wall, floor, lamp; did you mean wall\?",
        ),
        ("A*,0\n", "unknown class '0'"),
        ("A*\n", "lists no class for A"),
        ("A*,wall\nA*,lamp\n", "lists A\\* twice"),
        ("\n", "lists nothing"),
    ],
)
def test_a_file_that_says_nothing_usable_is_refused(tmp_path, text, match):
    with pytest.raises(InputError, match=match):
        read_labelled_classes(file_of(tmp_path, text), NAMES)


def test_the_first_row_that_fits_counts_and_no_row_means_all_classes():
    rows = (("city/a*", (0,)), ("*", (1, 2)))
    masks = class_masks(rows, ["city/a1", "train/city/a1", "b"], 3)
    assert masks.tolist() == [[True, False, False]] * 2 + [[False, True, True]]
    assert class_masks(rows[:1], ["b", "xcity/a1"], 3).all()


@pytest.mark.parametrize(
    "pattern", ["A_1.png", "images/A_1", "Images/A_1.JPG", "images\\A_*", "./A_1", "A_*.tif", "images/train/A_1.png"]
)
def test_a_pattern_may_be_a_path_of_the_file(pattern):
    masks = class_masks(((pattern, (0,)),), ["A_1" if "train" not in pattern else "train/A_1", "B_1", "AA_12"], 2)
    assert masks.tolist() == [[True, False], [True, True], [True, True]]


@pytest.mark.parametrize("pattern", ["A/*", "images/A/*", "A/one.png", "images/A/one"])
def test_a_pattern_of_folders_fits_a_list_of_pairs(tmp_path, pattern):
    """Names of such a list are stems where these are unique: no folder fitted, and all classes counted as labelled."""
    for name in ("A/one", "B/two"):
        write_png(tmp_path / f"images/{name}.png", random_image(0, (8, 8)))
        write_png(tmp_path / f"masks/{name}_gt.png", np.zeros((8, 8), dtype=np.uint8))
    (tmp_path / "classes.txt").write_text("\n".join(NAMES))
    lines = [f"images/{name}.png masks/{name}_gt.png\n" for name in ("A/one", "B/two")]
    (tmp_path / "train.txt").write_text("".join(lines))
    (tmp_path / "val.txt").write_text(lines[1])
    (tmp_path / "labelled_classes.csv").write_text(f"{pattern},wall\n")
    dataset = build_dataset("folder", tmp_path, "train")
    assert dataset.names == ["one", "two"]
    assert dataset.labelled is not None
    assert dataset.labelled.masks.tolist() == [[True, False, False], [True] * 3]
    said = [str(finding) for finding in examine([dataset])[0]]
    assert not [line for line in said if "no image's name fits" in line]


@pytest.mark.parametrize("pattern", ["Köln_*", "images/Köln/*"])
@pytest.mark.parametrize("form", ["NFC", "NFD"])
def test_an_umlaut_of_two_characters_is_one(tmp_path, pattern, form):
    images = (unicodedata.normalize("NFD", f"Köln/Köln_{n}") for n in range(3))
    folder_tree(tmp_path, images=images, classes=unicodedata.normalize(form, "- wall\n- Straße für alle\n- lamp\n"))
    file_of(tmp_path, unicodedata.normalize("NFD", f"{pattern},wall;Straße für alle"))
    assert "1 of 1 images label a part" in build_dataset("folder", tmp_path, "val").found.form


def test_an_umlaut_of_two_characters_is_one_in_a_list_and_in_counts_of_earlier_runs(tmp_path):
    nfd = unicodedata.normalize("NFD", "Stühle")
    folder_tree(tmp_path, images=("a", "b"), classes=f"- wall\n- {nfd}\n- lamp\n")
    for split in ("train", "val"):
        (tmp_path / f"{split}.txt").write_text(f"a wall;{nfd}\nb {nfd}\n")
    dataset = build_dataset("folder", tmp_path, "train")
    assert dataset.labelled is not None
    assert dataset.labelled.masks.tolist() == [[True, True, False], [False, True, False]]
    counts = count_labels([torch.zeros(2, 2).long()], 2, class_names=["wall", nfd])
    assert PixelCounts.from_dict(counts.to_dict()).class_names == ("wall", unicodedata.normalize("NFC", nfd))


def test_the_file_is_found_in_american_spelling(tmp_path):
    """It was passed over, and all images taken to label all classes."""
    root = merged_tree(tmp_path)
    (root / "labelled_classes.csv").rename(root / "labeled_classes.csv")
    dataset = build_dataset("folder", root, "train")
    assert dataset.labelled is not None and "(labeled_classes.csv)" in dataset.found.form


@pytest.mark.parametrize("header", ["images,classes", "Image,Class", "pattern;labelled_classes", "file,labels"])
def test_the_header_may_be_called_anything(tmp_path, header):
    assert read_labelled_classes(file_of(tmp_path, f"{header}\nA*,wall\n"), NAMES) == (("A*", (0,)),)


def test_pixels_of_unlabelled_classes_are_ignored_and_each_sample_says_which_are_labelled(tmp_path):
    plain = build_dataset("folder", merged_tree(tmp_path / "plain", rows=None), "train")
    part = build_dataset("folder", merged_tree(tmp_path / "part"), "train")
    assert part.names == plain.names == ["A_1", "A_2", "both", "set B/x"]
    assert "class_mask" not in plain[0]
    for place, labelled in enumerate([[True, True, False], [True, True, False], [True] * 3, [False, False, True]]):
        mask = torch.tensor(labelled)
        item, every = part[place], plain[place]["labels"]
        assert item["class_mask"].equal(mask)
        assert item["labels"].equal(torch.where(mask[every], every, 255))
        assert part.histogram(place)[:-1].equal(plain.histogram(place)[:-1] * mask)
        assert part.histogram(place).sum() == plain.histogram(place).sum()
    assert "3 of 4 images label a part of the classes" in part.found.form


def listed_tree(root, lines, name="train.txt", classes="- wall\n- floor\n- lamp post\n"):
    """Three images, and a list of them for training; val lists the same."""
    folder_tree(root, images=("a", "b", "c d"), ids=(0, 1, 2), classes=classes)
    (root / name).write_text(lines, encoding="utf-8")
    (root / name.replace("train", "val")).write_text("a\nb\n", encoding="utf-8")
    return root


PART = [[True, True, False], [True] * 3, [False, False, True]]


@pytest.mark.parametrize(
    ("name", "lines"),
    [
        ("train.txt", "a wall;floor\nb\nc d lamp post\n"),
        ("train.txt", "a.jpg\twall|floor\nb.jpg\nc d.jpg\tlamp post\n"),
        (
            "train.txt",
            "images/a.jpg masks/a.png wall,floor\nimages/b.jpg masks/b.png\nimages/c d.jpg,c d.png,lamp post\n",
        ),
        ("train.csv", 'image,mask,classes\na.jpg,a.png,"wall;floor"\nb.jpg,b.png,\nc d.jpg,c d.png,lamp post\n'),
        ("train.csv", 'name;labelled classes\na;"wall,floor"\nb;\nc d;lamp post\n'),
        (
            "train_list.txt",
            "/x/images/a.jpg|/x/masks/a.png|wall;floor\nb|b\nc d.jpg | c d.png | lamp post\n",
        ),
    ],
)
def test_the_last_column_of_a_list_says_which_classes_an_image_labels(tmp_path, name, lines):
    dataset = build_dataset("folder", listed_tree(tmp_path, lines, name), "train")
    assert dataset.names == ["a", "b", "c d"] and dataset.labelled.masks.tolist() == PART
    assert f"2 of 3 images label a part of the classes ({name})" in dataset.found.form
    every = build_dataset("folder", listed_tree(tmp_path / "all", "a\nb\nc d\n"), "train")
    assert every.labelled is None
    mask, item = torch.tensor(PART[0]), dataset[0]
    assert item["class_mask"].equal(mask)
    assert item["labels"].equal(torch.where(mask[every[0]["labels"]], every[0]["labels"], 255))


def test_a_name_that_is_a_class_too_stays_a_name(tmp_path):
    root = folder_tree(tmp_path, images=("wall", "floor 1", "x"), ids=(0, 1, 2))
    (root / "train.txt").write_text("wall\nfloor 1\nx floor\n")
    dataset = build_dataset("folder", root, "train")
    assert dict(zip(dataset.names, dataset.labelled.masks.tolist(), strict=True)) == {
        "floor 1": [True] * 3,
        "wall": [True] * 3,
        "x": [False, True, False],
    }
    (root / "train.txt").write_text("images/x.jpg masks/wall.png\nimages/wall.jpg masks/x.png\n")
    assert build_dataset("folder", root, "train").labelled is None


@pytest.mark.parametrize(
    ("lines", "match"),
    [
        ("a.jpg a.png wal\n", r"train.txt: a.jpg a.png wal: unknown class 'wal'; choose .*; did you mean wall\?"),
        ("a.jpg a.png wall;flor\n", "unknown class 'flor'"),
        ("a wall;lampost\n", "unknown class 'lampost'.*did you mean lamp post"),
        ("a.jpg a.png 3\n", "unknown class '3'"),
        ("a.jpg missing.png\n", "lists a.jpg missing.png .1 in all., which is no image"),
        ("a mis;sing\n", "lists a mis;sing .1 in all., which is no image"),
    ],
)
def test_a_column_of_no_classes_is_refused(tmp_path, lines, match):
    with pytest.raises(InputError, match=match):
        build_dataset("folder", listed_tree(tmp_path, lines), "train")


def test_a_list_and_the_file_of_patterns_do_not_both_say_it(tmp_path):
    root = listed_tree(tmp_path, "a wall\nb\nc d\n")
    file_of(root, "a,floor\n")
    with pytest.raises(InputError, match=r"train.txt: says which classes images label, and labelled_classes.csv too"):
        build_dataset("folder", root, "train")


def test_the_doctor_and_counts_know_the_column(tmp_path, monkeypatch):
    monkeypatch.setenv("SEGLOSS_CACHE", str(tmp_path / "cache"))
    root = listed_tree(tmp_path / "data", "a wall;floor\nb\nc d lamp post\n")
    dataset = build_dataset("folder", root, "train")
    counts = count_dataset(dataset)
    assert counts.labelled_images == (2, 2, 2)
    said = " ".join(str(finding) for finding in examine([dataset])[0])
    assert "holds lamp post, for which train.txt does not list it" in said and "no image's name fits" not in said
    (root / "train.txt").write_text("a wall;floor\nb\nc d\n")
    assert count_dataset(build_dataset("folder", root, "train")).labelled_images == (3, 3, 2)


def test_batches_carry_the_masks(tmp_path):
    dataset = build_dataset("folder", merged_tree(tmp_path), "train")
    (batch,) = training_loader(dataset, 4, seed=0, workers=0)
    assert batch["class_mask"].shape == (4, 3) and batch["class_mask"].dtype == torch.bool
    (samples,) = evaluation_loader(dataset, 4, workers=0)
    assert samples[0]["class_mask"].tolist() == [True, True, False]


def test_any_kind_of_data_set_may_have_the_file(tmp_path):
    from data_trees import camvid_tree

    root = camvid_tree(tmp_path, images=("a", "b"))
    file_of(root, "a,road;car\n")
    dataset = build_dataset("camvid", root, "train")
    assert dataset[0]["class_mask"].sum() == 2 and dataset[1]["class_mask"].all()


def test_counts_are_made_anew_when_the_file_changes(tmp_path, monkeypatch):
    monkeypatch.setenv("SEGLOSS_CACHE", str(tmp_path / "cache"))
    root = merged_tree(tmp_path / "data", rows=None)
    before = image_histograms(build_dataset("folder", root, "train"))
    assert image_histograms(build_dataset("folder", root, "train"))[1] != "counted"
    file_of(root, ROWS)
    after = image_histograms(build_dataset("folder", root, "train"))
    assert after[1] == "counted" and not after[0].equal(before[0])


def four_images(tmp_path):
    """Ten pixels each: wall everywhere half of the image; lamp, one pixel, labelled in one of the four images."""
    root = tmp_path / "four"
    for place in range(4):
        mask = np.array([[0] * 5 + [1] * 4 + ([2] if place == 0 else [1])], np.uint8)
        write_png(root / "masks/train" / f"{place}.png", mask)
        write_png(root / "images/train" / f"{place}.png", random_image(place, mask.shape))
    (root / "classes.yaml").write_text("- wall\n- floor\n- lamp\n", encoding="utf-8")
    file_of(root, "[123],wall;floor\n")
    return build_dataset("folder", root, "train")


def test_a_class_is_counted_over_the_images_that_label_it(tmp_path):
    counts = count_dataset(four_images(tmp_path))
    assert counts.pixels == (20, 19, 1) and counts.images == (4, 4, 1)
    assert counts.labelled_images == (4, 4, 1) and counts.seen_pixels == (40, 40, 10)
    assert counts.complete.pixels == (20, 19, 4)
    assert class_prior(counts).tolist() == pytest.approx([20 / 43, 19 / 43, 4 / 43])
    counts.save(tmp_path / "counts.json")
    assert PixelCounts.load(tmp_path / "counts.json") == counts


def test_losses_read_the_counts_as_if_every_image_labelled_all(tmp_path):
    counts = count_dataset(four_images(tmp_path))
    found = build_criterion("logit_adjusted", counts).prior
    torch.testing.assert_close(found, class_prior([20, 19, 4]))
    weights = build_criterion("weighted_ce", counts, class_weights="inverse").weight
    torch.testing.assert_close(weights, build_criterion("weighted_ce", [20, 19, 4], class_weights="inverse").weight)
    frequency = build_criterion("weighted_ce", counts).weight
    wanted = [20 / 40, 19 / 40, 1 / 10]
    assert frequency.tolist() == pytest.approx([sorted(wanted)[1] / share for share in wanted])


def test_counts_of_full_labels_are_what_they_were(tmp_path):
    counts = count_dataset(build_dataset("folder", merged_tree(tmp_path, rows=None), "train"))
    assert counts.labelled_images == counts.seen_pixels == () and counts.complete is counts
    saved = {key: value for key, value in counts.to_dict().items() if key not in ("labelled_images", "seen_pixels")}
    assert PixelCounts.from_dict(saved) == counts


@pytest.mark.parametrize("wrong", [[1, 2], [1, 2, -3], "abc", [1.5, 2, 3], None])
def test_saved_counts_that_cannot_be_are_refused(tmp_path, wrong):
    counts = count_dataset(four_images(tmp_path))
    (tmp_path / "counts.json").write_text(json.dumps({**counts.to_dict(), "seen_pixels": wrong}))
    with pytest.raises(InputError, match="cannot be read as pixel counts"):
        PixelCounts.load(tmp_path / "counts.json")


def test_repeats_go_by_the_images_that_label_a_class():
    histograms = torch.tensor([[5, 1, 0], [5, 0, 1], [5, 0, 1], [5, 0, 1]])
    labelled = torch.tensor([[True, True], [True, False], [True, False], [True, False]])
    assert repeat_factors(histograms, 0.5)[0] > 1
    assert repeat_factors(histograms, 0.5, labelled).tolist() == [1, 1, 1, 1]


def scores(tmp_path, **measures):
    labels = torch.tensor([[0, 1, 255, 0]], dtype=torch.uint8)
    sample = {"labels": labels, "name": "a", "class_mask": torch.tensor([True, True, False])}
    logits = torch.tensor([[[3.0, 0, 0]], [[0, 0, 3]], [[0, 0, 3]], [[2, 1, 0]]]).permute(2, 1, 0)[None]
    criterion, prior = build_criterion("ce", [5, 3, 2]), class_prior([5, 3, 2])
    return image_result(sample, logits, criterion, prior, Measures(**measures))


def test_a_prediction_of_an_unlabelled_class_is_a_miss_and_nobodys_false_positive(tmp_path):
    result, predicted, _ = scores(tmp_path, sweep=True, counted=("boundary",))
    assert predicted.tolist() == [[0, 2, 2, 0]]  # what is saved is what was decided
    assert result.matrix.tolist() == [[2, 0, 0, 0], [0, 0, 0, 1], [0, 0, 0, 0]]
    assert result.ignored == 1
    assert all((points[:, 2] == 0).all() for points in result.sweep.values())


def test_calibration_looks_at_the_posterior_of_the_labelled_classes(tmp_path):
    result, _, _ = scores(tmp_path, calibration=True)
    second = np.exp(0) / (2 * np.exp(0))  # wall and floor are alike there, whatever the lamp's score
    first = [1 / (1 + np.exp(-3)), 1 / (1 + np.exp(-1))]
    wanted = sum(2 * (1 - p) ** 2 for p in (*first, second))
    assert result.brier == pytest.approx(wanted, rel=1e-5)


def test_what_is_saved_is_the_networks_own_posterior(tmp_path):
    _, _, posterior = scores(tmp_path, calibration=True)
    assert (posterior[:, 2] > 0).all() and torch.allclose(posterior.sum(1), torch.ones(1, 1, 4))


def test_folders_of_predictions_are_scored_alike(tmp_path):
    root = merged_tree(tmp_path / "data", splits=("val",))
    for place, path in enumerate(sorted((root / "masks/val").rglob("*.png"))):
        write_png(tmp_path / "predicted" / path.relative_to(root / "masks/val"), np.full((12, 17), place % 3, np.uint8))
    classes = build_dataset("folder", root, "val").classes
    for counted in ((), ("boundary",)):
        source = MaskSource("a", tmp_path / "predicted", root / "masks/val", classes, counted=counted)
        found = {result.name: result for _, result in source.results()}
        assert found["A_1"].matrix[2].sum() == 0 and found["A_1"].ignored > 0
        assert found["set B/x"].matrix[2, 3] + found["set B/x"].matrix[2, 2] == found["set B/x"].matrix.sum() > 0
        assert (found["both"].matrix.sum(1) > 0).all()
    keys = [source.key()]
    file_of(root, "A_1,wall\n")
    keys.append(MaskSource("a", tmp_path / "predicted", root / "masks/val", classes, counted=counted).key())
    assert keys[0] != keys[1]


def test_the_doctor_names_pixels_that_are_left_out_and_rows_of_no_image(tmp_path):
    root = merged_tree(tmp_path, rows=ROWS + "C_*,wall\n")
    splits = [build_dataset("folder", root, split) for split in ("train", "val")]
    findings, _ = examine(splits)
    said = [str(finding) for finding in findings if "labelled_classes" in str(finding)]
    assert any("holds lamp, for which labelled_classes.csv does not list it" in line for line in said)
    assert any("has the row C_*, which no image's name fits" in line for line in said)
    assert all(finding.severity == "warning" for finding in findings if "labelled_classes" in str(finding))


def test_two_classes_of_which_an_image_labels_one_are_no_black_and_white_masks(tmp_path):
    root = folder_tree(tmp_path, images=("a", "b"), splits=("train",), ids=(0, 1), classes="- wall\n- crack\n")
    file_of(root, "a,wall\n")
    dataset = build_dataset("folder", root, "train")
    check_histograms(dataset, image_histograms(dataset)[0].numpy())


def test_training_and_validation_take_the_masks(tmp_path):
    dataset = build_dataset("folder", merged_tree(tmp_path / "data"), "train")
    run = SmallRun(tmp_path / "run", dataset, epochs=2).fit()
    assert all(gradient.isfinite().all() for gradient in run.gradients.steps)
    assert run.task.confusion.matrix[:, :3].sum(1)[2] <= int(image_histograms(dataset)[0][:, 2].sum())
    seen = []
    run.task.criterion.register_forward_pre_hook(lambda _, a, k: seen.append("class_mask" in k), with_kwargs=True)
    samples = [dataset[place] for place in range(4)]
    run.task.on_validation_epoch_start()
    run.task.validation_step(samples, 0)
    assert seen and all(seen)


def test_the_frequency_table_says_in_how_many_images_a_class_is_labelled(tmp_path):
    merged_tree(tmp_path / "data")
    command = [sys.executable, "-m", "segloss.frequency", "--dataset", "folder", "--data-path", str(tmp_path / "data")]
    done = subprocess.run([*command, "--json", str(tmp_path / "a.json")], capture_output=True, text=True, check=True)
    assert "labelled in" in done.stdout
    statistics = json.loads((tmp_path / "a.json").read_text())["splits"]["train"]
    assert statistics["images_labelled"] == [3, 3, 2]


def test_a_run_is_trained_and_scored_with_every_option_that_reads_the_labels(tmp_path, monkeypatch):
    monkeypatch.setenv("SEGLOSS_CACHE", str(tmp_path / "cache"))
    monkeypatch.delenv("SEGLOSS_RUN_FOLDER", raising=False)
    data, run = street_tree(tmp_path / "data", train=6), tmp_path / "run"
    file_of(data, "train_[0-2],sky;building;road;car\nval_0,road;car\ntest_1,sky;road\n")
    options = ["--mix", "paste", "--repeat-threshold", "0.5", "--guided-crops", "0.5", "--calibrate", "--epochs", "1"]
    command = ["--dataset", "camvid", "--data-path", str(data), "--output-dir", str(run), *TINY, *options]
    train_seg.train([*command, "--loss", "weighted_outlying_mse+0.5*mse"])
    counts = PixelCounts.load(run / "pixel_counts.json")
    assert counts.labelled_images == (6, 6, 3, 6, 3, 3, 3, 3, 6, 3, 3)
    metrics = json.loads((run / "test_metrics.json").read_text())
    tree = build_dataset("camvid", data, "test")
    labelled = [row["pixels"] for row in metrics["classes"]]
    assert labelled == sum(tree.histogram(place) for place in range(3))[:-1].tolist()
    assert "unknown_predictions" in metrics


def test_of_a_mirrored_image_the_other_side_is_labelled(tmp_path):
    """One image labels left hands alone; mirrored, these are right ones, and no left hand is labelled."""
    root = folder_tree(tmp_path, images=("a", "b"), splits=("train",), ids=(0, 1, 2), size=(32, 32))
    (root / "classes.yaml").write_text("- wall\n- left_hand\n- right_hand\n")
    (root / "labelled_classes.csv").write_text("a,wall;left_hand\nb,wall;left_hand;right_hand\n")
    dataset = build_dataset("folder", root, "train")
    dataset.transform = train_transform((32, 32), 0, class_pixels=[1] * 3)
    found = set()
    for epoch in range(20):
        sample = dataset[epoch, dataset.names.index("a")]
        found.add(tuple(sample["class_mask"].tolist()))
        assert {*sample["labels"].unique().tolist()} == {0, 255, 1 if sample["class_mask"][1] else 2}
    assert found == {(True, True, False), (True, False, True)}
