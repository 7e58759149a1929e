"""An evaluation by several processes, or by several jobs whose stores are merged, is that of one process."""

import json
import re
import shutil
import sqlite3
import subprocess
from pathlib import Path

import cv2
import numpy as np
import pytest
from data_trees import random_mask, write_png
from launched import ROOT, TORCHRUN, ended, free_port, started
from street_trees import TINY, street_tree

import eval_seg
import train_seg
from segloss.errors import InputError
from segloss.evaluation.mask_source import MaskSource
from segloss.evaluation.matching import class_table
from segloss.evaluation.store import Results, ResultStore, row_of

COUNT = 11


def write_masks(root: Path) -> Path:
    for place in range(COUNT):
        labels = random_mask(place, (20, 30))
        write_png(root / f"true/f{place:03d}.png", labels)
        for folder, wrong in (("good", 0.1), ("bad", 0.5)):
            rng = np.random.default_rng(place)
            predicted = np.where(rng.random(labels.shape) < wrong, rng.integers(0, 3, labels.shape), labels % 3)
            write_png(root / f"{folder}/f{place:03d}.png", predicted.astype(np.uint8))
    (root / "classes.txt").write_text("wall\nfloor\nlamp\n")
    return root


@pytest.fixture
def masks(tmp_path) -> Path:
    """true/ and two folders of predictions, of which one has a damaged file and lacks another."""
    return write_masks(tmp_path / "data")


def flags(masks: Path, out: Path, *more: object, folders=("bad", "good")) -> list[str]:
    places = [masks / name for name in folders]
    return [*map(str, ["--predictions", *places, "--labels", masks / "true", "--output-dir", out, *more])]


def damage(masks: Path) -> None:
    (masks / "bad/f003.png").write_bytes(b"no image")
    (masks / "bad/f007.png").write_bytes(b"no image")
    (masks / "good/f005.png").unlink()


def written(folder: Path) -> dict[str, bytes]:
    """All that an evaluation writes but its stores and pictures, which say no more."""
    files = (path for path in folder.iterdir() if path.suffix in (".json", ".csv", ".html"))
    return {path.name: path.read_bytes().replace(str(folder).encode(), b"OUT") for path in files}


def require_same(found: Path, expected: Path) -> None:
    ours, theirs = written(found), written(expected)
    assert sorted(ours) == sorted(theirs) and len(ours) > 4
    for name in ours:
        assert without_making(name, ours[name]) == without_making(name, theirs[name]), name


def without_making(name: str, content: bytes) -> bytes:
    """A page without its date, command and folders, which are those of each."""
    if name != "report.html":
        return content
    dates = re.compile(rb"\d{4}-\d\d-\d\d[ T]\d\d:\d\d(:\d\d)?")
    return dates.sub(b"", content.partition(b'id="made"')[0])


# ---- one job


def test_two_processes_of_torchrun_score_as_one_does(masks, tmp_path):
    damage(masks)
    more = ["--skip-bad", "--boundary", "--components"]
    eval_seg.evaluate(flags(masks, tmp_path / "one", *more))
    command = [*TORCHRUN, free_port(), ROOT / "eval_seg.py", *flags(masks, tmp_path / "two", *more)]
    done = subprocess.run([*map(str, command)], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    require_same(tmp_path / "two", tmp_path / "one")
    assert json.loads((tmp_path / "two/metrics.json").read_text())["runs"]["bad"]["images"] == COUNT - 3
    assert done.stdout.count("results: ") == 1
    assert sorted(path.name for path in (tmp_path / "two").glob("*.sqlite*")) == ["bad.sqlite", "good.sqlite"]


def test_more_processes_than_images_score_as_one_does(masks, tmp_path):
    for folder in ("true", "good"):
        for place in range(2, COUNT):
            (masks / f"{folder}/f{place:03d}.png").unlink()
    eval_seg.evaluate(flags(masks, tmp_path / "one", folders=("good",)))
    found = ended(started(3, ROOT / "eval_seg.py", *flags(masks, tmp_path / "three", folders=("good",))))
    assert [(status, error) for status, _, error in found] == [(0, "")] * 3
    require_same(tmp_path / "three", tmp_path / "one")


def test_where_no_prediction_can_be_used_several_processes_say_so_too(masks, tmp_path):
    for path in (masks / "good").iterdir():
        path.write_bytes(b"no image")
    found = ended(started(2, ROOT / "eval_seg.py", *flags(masks, tmp_path / "o", "--skip-bad", folders=("good",))))
    assert found[0][0] == 2 and found[1][2] == ""  # the other has done its share by then
    assert f"none of the {COUNT} predictions can be used; the first, f000: " in found[0][2]


def test_a_bad_file_in_the_share_of_another_is_said_by_the_first_alone(masks, tmp_path):
    (masks / "good/f001.png").write_bytes(b"no image")
    found = ended(started(2, ROOT / "eval_seg.py", *flags(masks, tmp_path / "o", folders=("good",))))
    assert [status for status, *_ in found] == [2, 2]
    assert found[0][2].startswith("error: ") and "f001.png" in found[0][2] and found[0][2].count("\n") == 1
    assert found[1][2] == ""


def test_processes_that_see_other_files_are_refused(masks, tmp_path):
    write_png(masks / "elsewhere/f000.png", random_mask(50, (20, 30)))
    shutil.copytree(masks / "true", masks / "elsewhere", dirs_exist_ok=True)
    script = tmp_path / "other.py"
    script.write_text(
        f"import os, sys\nsys.path.insert(0, {str(ROOT)!r})\nimport eval_seg\n"
        "sys.argv[1:] = [a.replace('/good', '/bad') if os.environ['RANK'] == '1' else a for a in sys.argv[1:]]\n"
        "eval_seg.main()\n"
    )
    found = ended(started(2, script, *flags(masks, tmp_path / "o", "--names", "x", folders=("good",))))
    said = "error: x: process 1 of 2 has other images or labels than the first; give all of them the same data"
    assert found[0][0] == 2 and found[0][2].startswith(said) and found[1][::2] == (2, "")


def test_what_killed_processes_left_is_not_scored_again(masks, tmp_path):
    """Also where they were of another number: their results are doubled here, and so seen in the scores."""
    source = MaskSource("good", masks / "good", masks / "true", class_table(None, masks / "true"))
    for rank, places in ((0, [1]), (1, [4, 5])):
        name = f"good.sqlite.rank{rank}" if rank else "good.sqlite"
        with ResultStore(tmp_path / "o" / name, source.key()) as kept:
            for place, result in source.results():
                if place in places:
                    result.matrix = 2 * result.matrix
                    kept.add_all([(place, result)])
    eval_seg.evaluate(flags(masks, tmp_path / "one", folders=("good",)))
    found = ended(started(3, ROOT / "eval_seg.py", *flags(masks, tmp_path / "o", folders=("good",))))
    assert [status for status, *_ in found] == [0] * 3, found
    pixels = [
        sum(
            row["pixels"]
            for row in json.loads((tmp_path / out / "metrics.json").read_text())["runs"]["good"]["classes"]
        )
        for out in ("one", "o")
    ]
    labelled = [int((random_mask(place, (20, 30)) < 3).sum()) for place in range(COUNT)]
    assert pixels == [sum(labelled), sum(labelled) + labelled[1] + labelled[4] + labelled[5]]
    assert not [*(tmp_path / "o").glob("*.rank*")]


# ---- several jobs


def shards(masks: Path, out: Path, count: int, *more: object, only=None, **how: object) -> None:
    for k in only or range(1, count + 1):
        eval_seg.evaluate(flags(masks, out, "--shard", f"{k}/{count}", *more, **how))


@pytest.mark.parametrize("count", [1, 3, 16])
def test_merged_shards_score_as_one_job_does(masks, tmp_path, count, capsys):
    damage(masks)
    more = ["--skip-bad", "--boundary"]
    eval_seg.evaluate(flags(masks, tmp_path / "one", *more))
    shards(masks, tmp_path / "jobs", count, *more)
    assert f"images, share 1 of {count}: " in capsys.readouterr().out
    assert sorted({path.suffix for path in (tmp_path / "jobs").iterdir()}) == [".sqlite"]
    eval_seg.evaluate(flags(masks, tmp_path / "merged", "--merge", tmp_path / "jobs", *more))
    require_same(tmp_path / "merged", tmp_path / "one")
    eval_seg.evaluate(flags(masks, tmp_path / "jobs", "--merge", tmp_path / "jobs", *more))  # beside them, and twice
    eval_seg.evaluate(flags(masks, tmp_path / "jobs", "--merge", tmp_path / "jobs", *more))
    require_same(tmp_path / "jobs", tmp_path / "one")


def test_a_share_can_be_scored_by_several_processes_on_another_machine(masks, tmp_path):
    """The files lie elsewhere there, written at another time."""
    there = write_masks(tmp_path / "there")
    eval_seg.evaluate(flags(masks, tmp_path / "one"))
    shards(masks, tmp_path / "jobs", 2, only=[1])
    found = ended(started(2, ROOT / "eval_seg.py", *flags(there, tmp_path / "far", "--shard", "2/2")))
    assert [(status, error) for status, _, error in found] == [(0, "")] * 2
    assert len([*(tmp_path / "far").iterdir()]) == 2
    stores = [tmp_path / "jobs", *(tmp_path / "far").iterdir()]
    eval_seg.evaluate(flags(masks, tmp_path / "merged", "--merge", *stores))
    require_same(tmp_path / "merged", tmp_path / "one")


def refusal(masks: Path, out: Path, *more: object, **how: object) -> str:
    with pytest.raises(InputError) as raised:
        eval_seg.evaluate(flags(masks, out, *more, **how))
    assert "\n" not in str(raised.value)
    return str(raised.value)


def test_missing_images_are_named_and_can_be_brought(masks, tmp_path):
    jobs = tmp_path / "jobs"
    shards(masks, jobs, 3, only=[1, 3])
    said = refusal(masks, tmp_path / "o", "--merge", jobs)
    assert said.startswith(f"bad: 4 of {COUNT} images are in no store: f001, f004, f007, f010; give the stores of all")
    shards(masks, jobs, 3, only=[2])
    (jobs / "good.2-of-3.sqlite").unlink()
    assert "good: 4 of 11 images" in refusal(masks, tmp_path / "o", "--merge", jobs)
    shards(masks, jobs, 3, only=[2])
    eval_seg.evaluate(flags(masks, tmp_path / "o", "--merge", jobs))
    eval_seg.evaluate(flags(masks, tmp_path / "one"))
    require_same(tmp_path / "o", tmp_path / "one")


def test_stores_that_do_not_belong_together_are_refused(masks, tmp_path):
    jobs = tmp_path / "jobs"
    shards(masks, jobs, 2)
    merge = ["--merge", jobs]
    said = refusal(masks, tmp_path / "o", *merge, "--boundary")
    assert "bad.1-of-2.sqlite: was scored with other measures than bad here; score that share again" in said
    said = refusal(masks, tmp_path / "o", *merge, folders=("good",))
    assert "was scored with other images or labels than good here" in said  # that of bad
    said = refusal(masks, tmp_path / "o", *merge, "--names", "x", "good")
    assert "bad.1-of-2.sqlite: is of bad, not of x, good; leave it out, or give --names as its job had them" in said
    write_png(masks / "true/f000.png", np.zeros((20, 30), np.uint8))
    assert "was scored with other images or labels than bad here" in refusal(masks, tmp_path / "o", *merge)
    write_png(masks / "true/f000.png", random_mask(0, (20, 30)))
    (masks / "classes.txt").write_text("wall\nfloor\nroof\n")
    assert "was scored with other classes than bad here" in refusal(masks, tmp_path / "o", *merge)


@pytest.mark.parametrize("folder", ["good", "true"])
def test_files_written_over_at_the_same_length_since_are_not_merged(tmp_path, folder):
    """Old and new predictions, or labels, were one score; copies elsewhere, and files written again, are theirs."""
    root, stores = tmp_path / "data", tmp_path / "jobs"
    plain = [cv2.IMWRITE_TIFF_COMPRESSION, 1]
    for name in ("true", "good"):
        (root / name).mkdir(parents=True)
        for k in range(4):
            cv2.imwrite(str(root / name / f"f{k}.tif"), random_mask(k, (20, 30)) % 3, plain)
    (root / "classes.txt").write_text("wall\nfloor\nlamp\n")
    shards(root, stores, 2, folders=("good",))
    path = root / folder / "f1.tif"
    before = path.read_bytes()
    path.write_bytes(before)
    far = Path(shutil.copytree(root, tmp_path / "far"))
    for place in (root, far):
        eval_seg.evaluate(flags(place, tmp_path / "o", "--merge", stores, folders=("good",)))
    cv2.imwrite(str(path), random_mask(9, (20, 30)) % 3, plain)
    assert len(path.read_bytes()) == len(before)
    shards(root, stores, 2, only=[1], folders=("good",))
    said = refusal(root, tmp_path / "o", "--merge", stores, folders=("good",))
    assert "good.2-of-2.sqlite: is of another f1, which was written over since, than good here; score that sha" in said
    shards(root, stores, 2, only=[2], folders=("good",))
    eval_seg.evaluate(flags(root, tmp_path / "o", "--merge", stores, folders=("good",)))


def test_an_image_that_is_counted_twice_must_be_counted_alike(masks, tmp_path):
    jobs = tmp_path / "jobs"
    shards(masks, jobs, 2)
    shards(masks, jobs, 3)
    eval_seg.evaluate(flags(masks, tmp_path / "o", "--merge", jobs))  # every image is there twice
    eval_seg.evaluate(flags(masks, tmp_path / "one"))
    require_same(tmp_path / "o", tmp_path / "one")
    with sqlite3.connect(jobs / "good.2-of-3.sqlite") as store:
        ((place, name, content),) = store.execute("SELECT place, name, result FROM results WHERE name = 'f004'")
        ((other,),) = store.execute("SELECT result FROM results WHERE name = 'f001'")
        store.execute("INSERT OR REPLACE INTO results VALUES (?, ?, ?, ?)", row_of(place, name, other))
    store.close()
    said = refusal(masks, tmp_path / "o", "--merge", jobs)
    assert content != other and "good.2-of-3.sqlite: counts f004 otherwise than " in said and "of-2.sqlite" in said
    (jobs / "good.2-of-3.sqlite").unlink()
    eval_seg.evaluate(flags(masks, tmp_path / "o", "--merge", jobs))  # nothing of it was kept
    require_same(tmp_path / "o", tmp_path / "one")


def test_what_is_no_store_is_refused(masks, tmp_path):
    for name, content in (("text", b"no store"), ("empty", b"")):
        (tmp_path / f"{name}.sqlite").write_bytes(content)
        said = refusal(masks, tmp_path / "o", "--merge", tmp_path / f"{name}.sqlite")
        assert said.startswith(f"{tmp_path / name}.sqlite: cannot be read as results: ")
    assert "is no file or folder; give --merge the stores" in refusal(masks, tmp_path / "o", "--merge", tmp_path / "no")
    (tmp_path / "none").mkdir()
    assert "holds no stores (.sqlite)" in refusal(masks, tmp_path / "o", "--merge", tmp_path / "none")
    eval_seg.evaluate(flags(masks, tmp_path / "whole"))
    said = refusal(masks, tmp_path / "o", "--merge", tmp_path / "whole")
    assert "bad.sqlite: is no share that was scored to its end; score it again, by --shard" in said
    shards(masks, tmp_path / "jobs", 1)
    path = tmp_path / "jobs/bad.1-of-1.sqlite"
    with ResultStore(path, {}):
        assert "locked; wait for its job to end" in refusal(masks, tmp_path / "o", "--merge", path)


# ---- trained runs


@pytest.fixture(scope="module")
def trained(tmp_path_factory) -> Path:
    root = tmp_path_factory.mktemp("trained")
    data = street_tree(root / "data", train=8, val=3, test=7)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SEGLOSS_CACHE", str(root / "cache"))
        patch.delenv("SEGLOSS_RUN_FOLDER", raising=False)
        where = ["--dataset", "camvid", "--data-path", str(data), "--output-dir", str(root / "run")]
        train_seg.train([*where, *TINY, "--epochs", "1"])
    return root / "run"


# The last batch is a small one; images in windows; several callbacks that see every image.
WAYS = {
    "fitted": ["--decision", "iou", "--calibrate", "--batch-size", "2", "--sweep-tau"],
    "windows": ["--tile", "64", "64", "--tta-flip", "--batch-size", "3", "--suspects", "5", "--save-predictions"],
}


@pytest.mark.parametrize("way", WAYS)
def test_a_run_is_scored_alike_by_one_process_two_and_two_jobs(trained, tmp_path, way):
    run, decision = trained, trained / "decision.json"
    fitted = decision.read_bytes()

    def words(out: str, *more: object) -> list[str]:
        every = ["--checkpoint", run, "--workers", 0, "--output-dir", tmp_path / out, *WAYS[way], *more]
        return [*map(str, every)]

    decisions = []
    decision.unlink()
    eval_seg.evaluate(words("one"))
    decisions.append(decision.exists() and decision.read_bytes())
    decision.unlink(missing_ok=True)
    found = ended(started(2, ROOT / "eval_seg.py", *words("two"), OMP_NUM_THREADS="1"), 300)
    decisions.append(decision.exists() and decision.read_bytes())
    assert [status for status, *_ in found] == [0, 0], found
    require_same(tmp_path / "two", tmp_path / "one")
    assert decisions[0] == decisions[1]
    if way == "windows":
        saved = [sorted((tmp_path / out / "predictions/run").iterdir()) for out in ("one", "two")]
        assert len(saved[0]) == 7 and [a.read_bytes() for a in saved[0]] == [b.read_bytes() for b in saved[1]]
    else:
        for k in (1, 2):
            eval_seg.evaluate(words("jobs", "--shard", f"{k}/2"))
        eval_seg.evaluate(words("merged", "--merge", tmp_path / "jobs"))
        require_same(tmp_path / "merged", tmp_path / "one")
        other = words("o", "--merge", tmp_path / "jobs", "--tta-flip")
        with pytest.raises(InputError, match="was scored with another decision, other measures or other views than"):
            eval_seg.evaluate(other)
    decision.write_bytes(fitted)


def test_a_share_that_is_scored_again_in_other_batches_forgets_its_old_images(trained, tmp_path):
    def words(out: str, size: int, *more: str) -> list[str]:
        where = ["--checkpoint", str(trained), "--workers", "0", "--output-dir", str(tmp_path / out)]
        return [*where, "--check", "off", "--batch-size", str(size), *more]

    eval_seg.evaluate(words("jobs", 1, "--shard", "2/2"))
    for k in (1, 2):
        eval_seg.evaluate(words("jobs", 3, "--shard", f"{k}/2"))
    eval_seg.evaluate(words("merged", 3, "--merge", str(tmp_path / "jobs")))
    with Results(tmp_path / "jobs/run.2-of-2.sqlite") as results:
        assert results.names() == {"test_3", "test_4", "test_5"}
    eval_seg.evaluate(words("one", 3))
    require_same(tmp_path / "merged", tmp_path / "one")


def test_images_are_predicted_alike_by_two_processes_and_two_jobs(trained, tmp_path):
    images = trained.parent / "data/test"

    def words(out: str, *more: str) -> list[str]:
        where = ["--checkpoint", str(trained), "--images", str(images), "--output-dir", str(tmp_path / out)]
        return [*where, "--workers", "0", "--batch-size", "2", *more]

    eval_seg.evaluate(words("one"))
    found = ended(started(2, ROOT / "eval_seg.py", *words("two"), OMP_NUM_THREADS="1"), 300)
    assert [status for status, *_ in found] == [0, 0] and "predictions: " in found[0][1]
    for k in ("1/2", "2/2"):
        eval_seg.evaluate(words("jobs", "--shard", k))
    expected = {path.name: path.read_bytes() for path in (tmp_path / "one").iterdir()}
    assert len(expected) == 7
    for out in ("two", "jobs"):
        assert {path.name: path.read_bytes() for path in (tmp_path / out).iterdir()} == expected


def test_a_share_that_holds_no_image_says_so(trained, tmp_path, capsys):
    image = next((trained.parent / "data/test").glob("*.png"))
    words = ["--checkpoint", str(trained), "--images", str(image), "--workers", "0", "--output-dir", str(tmp_path)]
    for share, said in (("2/2", "none of 1 images is in this share"), ("1/2", "share of the predicted pixels")):
        eval_seg.evaluate([*words, "--shard", share])
        assert said in capsys.readouterr().out
    assert [path.name for path in tmp_path.iterdir()] == [image.name]


def test_probability_maps_are_fitted_once_and_scored_alike(trained, tmp_path):
    maps = ["--checkpoint", str(trained), "--save-predictions", "--save", "probability", "--workers", "0"]
    eval_seg.evaluate([*maps, "--output-dir", str(tmp_path / "saved")])
    labels = trained.parent / "data/testannot"

    def words(out: str) -> list[str]:
        where = ["--predictions", tmp_path / "saved/predictions/run", "--labels", labels, "--class-table", "camvid"]
        return [*map(str, [*where, "--decision", "iou", "--sweep-tau", "--output-dir", tmp_path / out])]

    eval_seg.evaluate(words("one"))
    found = ended(started(2, ROOT / "eval_seg.py", *words("two")))
    assert [status for status, *_ in found] == [0, 0], found
    require_same(tmp_path / "two", tmp_path / "one")


# ---- counting and the doctor


def test_counting_is_shared_out(trained, tmp_path):
    data = ["--dataset", "camvid", "--data-path", str(trained.parent / "data"), "--split", "train", "test"]
    said, counted = [], []
    for size in (1, 3):
        environment = {"SEGLOSS_CACHE": str(tmp_path / f"cache{size}")}
        json_file = tmp_path / f"{size}.json"
        processes = started(size, "-m", "segloss.frequency", *data, "--recipes", "--json", json_file, **environment)
        found = ended(processes)
        assert [(status, error) for status, _, error in found] == [(0, "")] * size
        assert all(not output for _, output, _ in found[1:])
        said.append(found[0][1].replace(str(json_file), "FILE"))
        counted.append(json_file.read_bytes())
        assert len([*(tmp_path / f"cache{size}").iterdir()]) == 2
    assert said[0] == said[1] and counted[0] == counted[1]


def test_the_doctor_shares_out_the_files(trained, masks, tmp_path):
    data = Path(shutil.copytree(trained.parent / "data", tmp_path / "ill"))
    (data / "train/train_3.png").write_bytes(b"no image")
    write_png(data / "valannot/val_1.png", np.full((64, 96), 77, np.uint8))
    shutil.copy(data / "train/train_0.png", data / "test/test_4.png")
    damage(masks)
    (masks / "bad/f003.png").unlink()
    for words in (
        ["--dataset", "camvid", "--data-path", data],
        ["--predictions", masks / "bad", masks / "good", "--labels", masks / "true"],
    ):
        alone, *_ = ended(started(1, "-m", "segloss.doctor", *words))
        (first, second) = ended(started(2, "-m", "segloss.doctor", *words))
        assert alone[0] == 1 and first == alone and second[1:] == ("", "")
