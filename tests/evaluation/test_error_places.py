"""Where errors lie, against a loop over windows written from the definition; on the page of all images or some."""

import cv2
import numpy as np
import pytest
from data_trees import random_mask, write_png

import eval_seg
from segloss.evaluation.results import ImageResult, Totals
from segloss.measures import MEASURES
from segloss.measures.error_places import PLACES, SHARE, errors_of, places_of, recall_inside
from segloss.report.image_cards import error_counts


def places_by_windows(labels: np.ndarray) -> np.ndarray:
    """The definition, pixel by pixel; the edge is continued as the window asks for it."""
    width = max(1, round(SHARE * float(np.hypot(*labels.shape))))
    height, length = labels.shape

    def window(y: int, x: int) -> np.ndarray:
        return labels[max(0, y - width) : y + width + 1, max(0, x - width) : x + width + 1]

    found = np.zeros(labels.shape, int)
    inside = {(y, x) for y in range(height) for x in range(length) if len(np.unique(window(y, x))) == 1}
    for y in range(height):
        for x in range(length):
            around = range(-width, width + 1)
            covered = any((y + dy, x + dx) in inside for dy in around for dx in around)
            found[y, x] = 2 if (y, x) in inside else 0 if covered else 1
    return found


@pytest.mark.parametrize("shape", [(1, 1), (3, 7), (24, 31), (150, 200)])
def test_places_are_those_of_the_definition(shape):
    coarse = random_mask(len(shape), (5, 5), (0, 1, 2, 255))
    labels = np.kron(coarse, np.ones((-(-shape[0] // 5), -(-shape[1] // 5)), np.uint8))[: shape[0], : shape[1]]
    labels = np.ascontiguousarray(labels)
    labels[shape[0] // 2, ::4] = 1
    assert np.array_equal(places_of(labels), places_by_windows(labels))


def test_a_pole_is_thin_a_house_has_boundaries_and_is_something_inside():
    labels = np.zeros((40, 40), np.uint8)
    labels[:, 5] = 1
    labels[10:30, 15:35] = 2
    places = places_of(labels)
    assert (places[:, 5] == 1).all() and places[10, 20] == 0 and places[20, 25] == 2 and places[35, 38] == 2


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_counts_are_those_of_masks_and_every_valid_pixel_lies_somewhere(dtype):
    rng = np.random.default_rng(0)
    labels = np.kron(rng.integers(0, 4, (6, 8)), np.ones((7, 7))).astype(dtype)
    labels[labels == 3] = np.iinfo(dtype).max
    predicted = np.where(rng.random(labels.shape) < 0.3, rng.integers(0, 4, labels.shape), labels).astype(dtype)
    counts, places = errors_of(predicted, labels, 3), places_of(labels)
    for c in range(3):
        for place in range(3):
            here = (labels == c) & (places == place)
            assert counts[c, place].tolist() == [(here & (predicted != c)).sum(), here.sum()]
    assert counts[..., 1].sum() == (labels < 3).sum()
    recall = recall_inside(counts)
    assert recall[0] == pytest.approx(1 - counts[0, 2, 0] / counts[0, 2, 1])
    assert np.isnan(recall_inside(np.zeros((1, 3, 2)))).all()


def test_the_errors_to_filter_by_are_the_same_counts_and_the_invented_by_predicted_class():
    rng = np.random.default_rng(1)
    labels = np.kron(rng.integers(0, 3, (6, 8)), np.ones((7, 7))).astype(np.uint8)
    labels[0] = 255
    predicted = np.where(rng.random(labels.shape) < 0.3, rng.integers(0, 4, labels.shape), labels).astype(np.uint8)
    found, counts = error_counts(labels, predicted, 3), errors_of(predicted, labels, 3)
    assert found["missed"] == {c: int(counts[c, :, 0].sum()) for c in range(3)}
    for number, place in enumerate(PLACES):
        assert found[place] == {c: int(wrong) for c in range(3) if (wrong := counts[c, number, 0])}
    wrong = (labels != 255) & (labels != predicted)
    assert found["invented"] == {c: int((wrong & (predicted == c)).sum()) for c in range(3)}  # 3 is no class


def test_the_page_counts_all_images_where_asked_and_says_which_it_counted(tmp_path):
    for place in range(9):
        labels = np.kron(random_mask(place, (6, 8), (0, 1, 2)), np.ones((8, 8), np.uint8))
        predicted = labels.copy()
        predicted[20:30, : 4 * place] = 0
        write_png(tmp_path / "true" / f"{place}.png", labels)
        write_png(tmp_path / "masks" / f"{place}.png", predicted)
    (tmp_path / "classes.json").write_text('["wall", "lamp", "sky"]')
    masks = ["--predictions", str(tmp_path / "masks"), "--labels", str(tmp_path / "true")]
    eval_seg.evaluate([*masks, "--output-dir", str(tmp_path / "some"), "--page-images", "1"])
    page = (tmp_path / "some/report.html").read_text()
    assert "in the images below" in page and page.count('class="card"') == 3
    eval_seg.evaluate([*masks, "--output-dir", str(tmp_path / "all"), "--error-places"])
    text = (tmp_path / "all/report.html").read_text()
    assert "Of the wrong pixels in all images." in text and "recall inside" in text
    measure = MEASURES["error_places"]
    assert (tmp_path / "all/error_places.csv").read_text().startswith("run,class,place,wrong,pixels")
    pictures = [
        (p, t) for p, t in zip(*[sorted((tmp_path / side).glob("*.png")) for side in ("masks", "true")], strict=True)
    ]
    read = [[cv2.imread(str(path), cv2.IMREAD_UNCHANGED) for path in pair] for pair in pictures]
    results = [ImageResult("", np.eye(3, 4, dtype=int), 0, {"error_places": measure.count(*pair, 3)}) for pair in read]
    wrong = Totals.of(results).counted["error_places"][..., 0].sum(0)
    shares = ", ".join(
        f"{100 * pixels / wrong.sum():.0f} % {place}" for pixels, place in zip(wrong, PLACES, strict=True)
    )
    assert f'<span class="text">{shares}</span>' in text
