"""benchmarks/evidence.py: names, what is run and what is not, rows, intervals and tables; nothing is trained here."""

import csv
import dataclasses
import json
import re
import sys
import time
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import yaml
from data_trees import random_image, write_png

BENCHMARKS = Path(__file__).resolve().parents[2] / "benchmarks"
sys.path.insert(0, str(BENCHMARKS))

import evidence  # noqa: E402
import evidence_questions  # noqa: E402
import evidence_runs  # noqa: E402
import evidence_tables  # noqa: E402

from segloss.errors import InputError  # noqa: E402
from segloss.evaluation.comparison import block_sums, mean_and_ious  # noqa: E402

# Stands in for train_seg.py and evidence_scores.py: notes each call, and writes what they would.
FAKE = """
import json, sys
from pathlib import Path

what, calls, words = sys.argv[1], Path(sys.argv[2]), sys.argv[3:]
value = lambda flag: words[words.index(flag) + 1]
if "--print_config" in words:
    print(f"loss: {value('--loss')}\\nseed: {value('--seed')}\\nworkers: 0")
else:
    with calls.open("a") as file:
        file.write(what + " " + " ".join(words) + "\\n")
if what == "train" and "--output-dir" in words:
    out = Path(value("--output-dir"))
    out.mkdir(parents=True, exist_ok=True)
    (out / "config.yaml").write_text("loss: ce\\nseed: 0\\nencoder_weights: w\\nprecision: 32-true\\n")
    if Path(calls.parent / "die").exists():
        sys.exit(1)
    (out / "history.csv").write_text("epoch,val_iou/road,val_iou/pole,seconds\\n1,0.5,0,2.5\\n2,0.75,0.25,2.5\\n")
    (out / "pixel_counts.json").write_text('{"class_names": ["pole", "road"], "pixels": [1, 9]}')
    (out / "test_metrics.json").write_text("{}")
if what == "score":
    splits = ("val", "test") if "--test" in words else ("val",)
    plain = {"miou": 0.5, "mean_accuracy": 0, "pixel_accuracy": 0, "iou": [0, 1], "blocks": [[[1, 2], [3, 4], [5, 6]]]}
    scores = {split: {"plain": plain} for split in splits}
    Path(value("--output")).write_text(json.dumps({"classes": ["road", "pole"], "auto": "plain", "scores": scores}))
"""


@pytest.fixture
def job() -> evidence.Job:
    return evidence.Job("crackforest", "ce", "--loss ce", 0, 1, test=True)


@pytest.fixture
def runner(tmp_path, monkeypatch) -> evidence_runs.Runner:
    """A runner whose commands are the fakes."""
    (tmp_path / "fake.py").write_text(FAKE)
    for name, what in (("TRAIN", "train"), ("SCORE", "score")):
        monkeypatch.setattr(
            evidence_runs, name, [sys.executable, str(tmp_path / "fake.py"), what, str(tmp_path / "calls")]
        )
    monkeypatch.setattr(evidence_runs, "machine", lambda: dict.fromkeys(("commit", "device", "threads", "torch"), "x"))
    for folder in ("runs", "data"):
        (tmp_path / folder).mkdir()
    return evidence_runs.Runner(
        tmp_path / "runs", tmp_path / "rows", {"crackforest": tmp_path / "data"}, tmp_path / "weights"
    )


def calls(runner) -> list[str]:
    file = runner.runs.parent / "calls"
    return file.read_text().splitlines() if file.is_file() else []


# ---- Jobs ---------------------------------------------------------------------------------------------------------


def test_names_say_data_set_protocol_arm_and_seed():
    assert evidence.Job("camvid", "power075", "", 2, 1).name == "camvid-power075-s2"
    assert evidence.Job("camvid/0001TP", "ce", "", 0, 1).name == "camvid-0001TP-ce-s0"
    assert evidence.Job("ccp", "rank", "", 0, 1, "long").name == "ccp-long-rank-s0"


def test_every_job_has_its_own_name_and_the_test_split_is_for_final_arms_alone():
    jobs = evidence.job_list()
    assert len({job.name for job in jobs}) == len(jobs)
    assert {job.arm for job in jobs if job.test} == {*evidence.FINAL, "plan", "full_size", "half_size"}
    assert not any(job.test for job in jobs if "/" in job.dataset)
    assert [job.priority for job in jobs] == sorted(job.priority for job in jobs)


def test_the_default_arm_and_the_plan_train_as_train_seg_does_without_loss_flags():
    from segloss.config import TrainConfig

    flags = f"--loss {TrainConfig().loss}"
    assert evidence.ARMS[evidence.DEFAULT] == flags and evidence.DEFAULT in evidence.FINAL
    of_default = {"plan", "full_size", "half_size"}
    planned = [job for job in evidence.job_list() if job.arm in of_default]
    assert {job.arm for job in planned} == of_default
    assert all(job.flags.startswith(f"{flags} ") and job.seed == 0 for job in planned)


@pytest.mark.parametrize("protocol", evidence.PROTOCOLS)
def test_train_seg_takes_the_flags_of_every_arm(protocol, monkeypatch):
    from segloss.resume import parse_train_config

    jobs = [job for job in evidence.job_list() if job.protocol == protocol]
    for job in ({job.arm: job for job in jobs} | {job.base: job for job in jobs}).values():
        config = parse_train_config(job.settings)
        assert config.unused_options() == [], job.name
        assert config.epochs and config.crop_size


def test_no_sequence_of_camvid_is_in_two_folds(tmp_path):
    names = ["0001TP_1", "0001TP_2", "0006R0_1", "0016E5_1"]
    for split, some in (("train", names), ("val", ["0016E5_2"])):
        for kind in ("", "annot"):
            (tmp_path / "camvid" / f"{split}{kind}").mkdir(parents=True)
            for name in some:
                (tmp_path / "camvid" / f"{split}{kind}" / f"{name}.png").write_text("")
    evidence_runs.make_folds(tmp_path / "camvid", tmp_path / "folds", evidence.FOLDS)
    held_out = []
    for fold in evidence.FOLDS:
        of = {}
        for kind in ("train", "val", "trainannot", "valannot"):
            of[kind] = {file.stem for file in (tmp_path / "folds" / fold / kind).iterdir() if file.is_file()}
        assert of["train"] == of["trainannot"] and of["val"] == of["valannot"]
        assert of["train"] | of["val"] == {*names, "0016E5_2"}
        assert {name[:6] for name in of["val"]} == {fold} and fold not in {name[:6] for name in of["train"]}
        held_out += of["val"]
    assert sorted(held_out) == sorted([*names, "0016E5_2"])


# ---- Runs ---------------------------------------------------------------------------------------------------------


def test_a_run_is_trained_scored_and_never_made_again(runner, job):
    assert runner.run(job) == "trained and scored"
    done = calls(runner)
    assert [line.split()[0] for line in done] == ["train", "score"] and "--test" in done[1]
    assert runner.run(job) == "done before" and calls(runner) == done


def test_the_test_split_of_an_arm_of_the_search_is_not_looked_at(runner, job):
    runner.run(dataclasses.replace(job, test=False))
    assert "--test" not in calls(runner)[1]
    assert json.loads(runner.row_file(job).read_text())["scores"].keys() == {"val"}
    assert runner.run(job) == "scored" and "--test" in calls(runner)[2]


def test_a_row_has_what_was_run_where_and_every_score(runner, job):
    runner.run(job)
    row = json.loads(runner.row_file(job).read_text())
    assert row["name"] == "crackforest-ce-s0" and not row["adopted"] and row["classes"] == ["road", "pole"]
    assert {"commit", "device", "threads", "torch", "precision", "protocol", "arm", "seed", "auto"} <= row.keys()
    assert (row["seconds"], row["epochs"]) == (5, 2)
    assert [*row["history"].items()] == [("road", [0.5, 0.75]), ("pole", [0, 0.25])]  # frequent to rare
    assert "--loss ce --seed 0" in row["command"] and "$SEGLOSS_CRACKFOREST" in row["command"]
    assert str(runner.runs.parent) not in json.dumps(row)  # no path of this machine
    assert row["scores"]["test"]["plain"]["blocks"] == [[[1, 2], [3, 4], [5, 6]]]
    assert '"blocks": [[[1,2],[3,4],[5,6]]]' in runner.row_file(job).read_text()  # numbers stand on one line


def test_a_row_made_anew_lies_beside_the_one_there_and_is_compared_with_it(runner, job):
    """A clone has the rows: nothing was made, and every job called complete."""
    runner.run(job)
    anew = dataclasses.replace(runner, runs=runner.runs.parent / "anew", rows=runner.runs.parent / "anew/rows")
    anew.runs.mkdir()
    assert anew.run(job) == "trained and scored"
    lines = [*evidence_runs.compared(runner.rows, anew.rows, job.name)]
    assert lines == [f"{job.name}: {split} plain  50.0, was 50.0" for split in ("val", "test")]
    assert next(evidence_runs.compared(runner.runs / "none", anew.rows, job.name)).endswith(", not there before")
    assert not [*evidence_runs.compared(runner.rows, runner.rows, "none")]


def test_a_killed_run_is_resumed(runner, job):
    (runner.runs.parent / "die").touch()
    with pytest.raises(evidence.Stopped, match="failed"):
        runner.run(job)
    (runner.runs.parent / "die").unlink()
    runner.run(job)
    trainings = [line for line in calls(runner) if line.startswith("train")]
    assert len(trainings) == 2 and "--resume" in trainings[1] and "--resume" not in trainings[0]


def test_a_row_of_older_scores_is_scored_anew_not_trained(runner, job):
    runner.run(job)
    row = json.loads(runner.row_file(job).read_text())
    del row["auto"]
    evidence_runs.write_row(
        runner.row_file(job), row | {"scores": {s: {"chosen": of["plain"]} for s, of in row["scores"].items()}}
    )
    assert runner.run(job) == "scored" and [line.split()[0] for line in calls(runner)] == ["train", "score", "score"]
    assert "chosen" not in json.loads(runner.row_file(job).read_text())["scores"]["test"]


def test_a_row_says_at_which_commit_a_run_was_trained_not_scored(runner, job, monkeypatch):
    (runner.runs.parent / "die").touch()
    with pytest.raises(evidence.Stopped, match="failed"):
        runner.run(job)
    (runner.runs.parent / "die").unlink()
    monkeypatch.setattr(evidence_runs, "machine", lambda: dict.fromkeys(("commit", "device", "threads", "torch"), "y"))
    runner.run(job)
    assert json.loads(runner.row_file(job).read_text())["commit"] == "x"


def adoptable(runner, job, loss: str = "ce") -> Path:
    folder = runner.runs / job.name
    folder.mkdir()
    config = {"loss": loss, "seed": 0, "encoder_weights": "/elsewhere/w", "precision": "bf16-mixed"}
    (folder / "config.yaml").write_text(yaml.safe_dump(config))
    (folder / "pixel_counts.json").write_text('{"class_names": [], "pixels": []}')
    with (folder / "history.csv").open("w", newline="") as file:
        csv.writer(file).writerows([("epoch", "seconds"), (1, 7)])
    return folder


def test_a_complete_run_of_somebody_else_is_scored_not_trained(runner, job):
    (adoptable(runner, job) / "test_metrics.json").write_text("{}")
    assert runner.run(job) == "scored"
    assert not any(line.startswith("train") for line in calls(runner))
    row = json.loads(runner.row_file(job).read_text())
    assert row["adopted"] and row["seconds"] == 7 and row["commit"] is None and row["device"] is None
    own = evidence_runs.machine()["commit"]
    runner.adopted_commit = "0" * 12
    runner.row_file(job).unlink()
    assert runner.row(job, adopted=True)["commit"] == "0" * 12
    assert evidence_runs.machine()["commit"] == own


def test_a_run_with_other_settings_is_refused(runner, job):
    (adoptable(runner, job, "focal") / "test_metrics.json").write_text("{}")
    with pytest.raises(evidence.Stopped, match="loss is focal there and ce in the job"):
        runner.run(job)
    assert not runner.row_file(job).exists()


def test_a_run_that_somebody_else_trains_now_is_left_alone(runner, job, monkeypatch):
    adoptable(runner, job)
    with pytest.raises(evidence.Stopped, match="somebody else"):
        runner.run(job)
    monkeypatch.setattr(evidence_runs, "QUIET", -1)
    assert runner.run(job) == "trained and scored"
    assert "--resume" in calls(runner)[0]


def test_two_processes_do_not_make_one_run(runner, job):
    with evidence_runs.held(runner.runs / f"{job.name}.lock"), pytest.raises(evidence.Stopped, match="another process"):
        runner.run(job)


def test_time_that_is_over_stops_what_runs_and_begins_nothing(runner, job, capsys, monkeypatch):
    ticks = iter(range(0, 10_000, 10))  # seconds: each look at the clock is 10 later
    clock = SimpleNamespace(monotonic=lambda: next(ticks), time=time.time, sleep=time.sleep)
    for module in (evidence, evidence_runs):
        monkeypatch.setattr(module, "time", clock)
    runner.deadline = 35
    (runner.runs.parent / "fake.py").write_text("import time; time.sleep(3600)")
    assert evidence.run_all(runner, [job, job], 1) == (2, 0)
    assert next(ticks) < 100  # the first was begun and stopped at the deadline, the second not begun
    assert capsys.readouterr().out.count("out of time") == 1


def test_jobs_that_fail_are_counted_and_those_that_another_process_makes_are_not(runner, job, capsys):
    (runner.runs.parent / "fake.py").write_text("raise SystemExit('no memory')")
    assert evidence.run_all(runner, [job], 1) == (1, 1)
    with evidence_runs.held(runner.runs / f"{job.name}.lock"):
        assert evidence.run_all(runner, [job], 1) == (1, 0)
    lines = capsys.readouterr().out.splitlines()
    assert [line.partition(":")[2][:6] for line in lines] == [" left,"] * 2 and "no memory" in lines[0]


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ("run --runs . --parallel 0", "--parallel 0: expected 1 or more"),
        ("run --runs . --data camvid", "--data camvid=: expected one of"),
        ("tables --rows .", "--rows .: holds no row"),
        ("tables --rows nowhere", "--rows nowhere: is no folder"),
        ("list --rows nowhere", "--rows nowhere: is no folder"),
        ("run", "--runs is missing"),
        ("list --again", "--runs is missing"),
        ("run --runs . --hours -1", "--hours -1: expected more than 0"),
        ("run --runs . --hours nan", "--hours nan: expected more than 0"),
    ],
)
def test_bad_words_are_refused_in_one_line(words, said, capsys, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("SEGLOSS_RUNS", raising=False)
    with pytest.raises(SystemExit) as stopped:
        evidence.parse(words.split())
    assert stopped.value.code == 2 and said in capsys.readouterr().err


def test_a_list_needs_no_data(tmp_path, capsys, monkeypatch):
    for name in evidence.DATA:
        monkeypatch.delenv(evidence_runs.variable(name), raising=False)
    monkeypatch.delenv("SEGLOSS_RUNS", raising=False)
    (tmp_path / "ccp-ce-s0").mkdir()
    words = ["list", "--rows", str(tmp_path), "--only", "ccp-ce-s0", "*power075-guided-late-jaccard-s0"]
    evidence.main(words)
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].split() == ["priority", "job", "run", "row"]
    assert lines[1].split() == ["1", "ccp-ce-s0", "?", "-"]
    assert len({line.rindex(line.split()[-1]) for line in lines}) == 1  # the longest name is as wide as its column
    evidence.main([*words, "--runs", str(tmp_path)])
    assert capsys.readouterr().out.splitlines()[1].split() == ["1", "ccp-ce-s0", "begun", "-"]


def test_another_data_set_than_that_of_the_rows_is_refused_before_training(tmp_path, monkeypatch):
    root, kept = tmp_path / "data", tmp_path / "rows"
    for i in range(3):
        write_png(root / f"images/test/{i}.png", random_image(i, (8, 8)))
        write_png(root / f"masks/test/{i}.png", np.zeros((8, 8), np.uint8))
    (root / "classes.yaml").write_text("- road\n- pole\n")
    monkeypatch.setattr(evidence, "run_all", lambda *_: (_ for _ in ()).throw(TimeoutError))
    words = ["run", "--runs", str(tmp_path / "runs"), "--rows", str(kept), "--data", f"ccp={root}", "--only", "ccp-c*"]
    row = made_up("ccp", "rank", 0, 0.5)
    for images, classes, said in (
        (3, ["road", "pole"], None),
        (4, ["road", "pole"], "3 test images of 2 classes (road, pole) here, 4 test"),
        (3, ["road", "wall"], "(road, pole) here, 3 test images of 2 classes (road, wall) there"),
    ):
        evidence_runs.write_row(kept / "ccp-rank-s0.json", row | {"images": images, "classes": classes})
        with pytest.raises(InputError if said else TimeoutError) as found:
            evidence.main(words)
        if said:
            assert str(found.value).startswith(f"{root}: is not the ccp of ccp-rank-s0.json: ")
            assert said in str(found.value) and str(found.value).endswith("; choose another folder: --data ccp=DIR")


def damaged(row: dict, how: str) -> str:
    """The text of a row's file after some mishap."""
    row = json.loads(json.dumps(row))  # val and test apart
    scores = row["scores"]["test"]
    if how == "shorter":
        scores["iou"]["blocks"] = scores["iou"]["blocks"][:-1]
    elif how == "ragged":
        scores["iou"]["blocks"][0] = []
    elif how == "other classes":
        row["classes"] = ["road"]
    elif how == "no miou":
        del scores["plain"]["miou"]
    elif how == "no seed":
        del row["seed"]
    text = json.dumps(row)
    return {"cut off": text[:-40], "a list": "[]", "a name": '{"name": "x"}', "empty": ""}.get(how, text)


@pytest.mark.parametrize(
    ("how", "said"),
    [
        ("cut off", "is no row: "),
        ("empty", "is no row: "),
        ("a list", "is no row; make"),
        ("a name", "is no row: dataset is missing"),
        ("no seed", "is no row: seed is missing"),
        ("no miou", "miou of test, plain is missing"),
        ("shorter", "the decisions of test have unlike numbers of blocks: plain 12, iou 11"),
        ("ragged", "blocks of test, iou are not right, true and predicted pixels of each class"),
        ("other classes", "blocks of val, plain are not right"),
    ],
)
def test_a_damaged_row_is_one_line_wherever_it_is_read(tmp_path, monkeypatch, how, said):
    monkeypatch.setenv("SEGLOSS_RUNS", str(tmp_path))
    monkeypatch.setenv("SEGLOSS_CCP", str(tmp_path))  # one data set that is named leaves the others out
    file = tmp_path / "ccp-ce-s0.json"
    file.write_text(damaged(made_up("ccp", "ce", 0, 0.5), how))
    words = ["--rows", str(tmp_path)]
    for command in (["list", "--only", "ccp-ce-s0", *words], ["tables", *words]):
        with pytest.raises(InputError) as found:
            evidence.main(command)
        line = str(found.value)
        assert line.startswith(f"{file}: {said}") and line.endswith("; make it anew, or take it back from git")


def test_every_row_of_this_repository_is_whole():
    for folder in ("", "centred"):
        assert evidence_tables.read_rows(BENCHMARKS.parent / "docs/evidence" / folder)
    needed = {**evidence_runs.OF_NETWORK, "decisions": dict, "blocks": dict}
    assert evidence_tables.read_rows(BENCHMARKS.parent / "docs/evidence/decisions", needed)


# ---- What a plan says of the rows ---------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def ours() -> evidence_tables.Rows:
    return evidence_tables.Rows(evidence_tables.read_rows(BENCHMARKS.parent / "docs/evidence"))


def test_the_reasons_of_a_plan_for_the_decision_are_what_the_rows_say(ours):
    """Points that it adds on test, of each set, protocol and arm the mean of the seeds."""
    gains: dict[str, list[float]] = {"ce": [], "default": [], "any": []}
    for key in {(row["dataset"], row["protocol"], row["arm"]) for row in ours.rows}:
        decided, plain = (ours.of(*key, "test", decision) for decision in ("auto", "plain"))
        if decided:
            gain = 100 * float(np.mean([decided[seed]["miou"] - plain[seed]["miou"] for seed in decided]))
            of_default = key[2] in (evidence.DEFAULT, *evidence_tables.OF_DEFAULT)
            for name in ("any", *(["default"] if of_default else ["ce"] if key[2] == "ce" else [])):
                gains[name].append(gain)
    from segloss.plan.rules import RULES

    whys = dict(zip(("ce", "default", "any"), (rule.why for rule in RULES if rule.option == "decision"), strict=True))
    for name, found in gains.items():
        assert whys[name].startswith(f"{min(found):.1f} to {max(found):.1f} points"), (name, min(found), max(found))
    assert sum(gain > 0.05 for gain in gains["any"]) > 0.7 * len(gains["any"])


def test_the_minutes_of_a_plan_are_by_the_quartiles_of_the_rows(ours):
    from segloss.plan.rules import PIXELS_A_SECOND

    factor = {"short": 1e6, "long": 4e6}
    rates = [
        evidence.DATA[row["dataset"]].pixels * factor[row["protocol"]] / row["seconds"]
        for row in ours.rows
        if row["arm"] not in evidence_tables.OF_DEFAULT
    ]
    assert np.percentile(rates, [25, 50, 75]) == pytest.approx(PIXELS_A_SECOND, rel=0.1)


# ---- Tables -------------------------------------------------------------------------------------------------------


def made_up(
    dataset: str, arm: str, seed: int, hits: float, *, test: bool = True, protocol: str = "short", device: str = "one"
) -> dict:
    """A row of 12 blocks, two classes; the IoU rule gains a little on plain argmax."""
    generator = np.random.default_rng([seed, int(1000 * hits)])

    def counts(share: float) -> list:
        right = (share + generator.uniform(-0.02, 0.02, (12, 1))) * np.array([[900, 100]])
        return np.stack([right, np.full((12, 2), [900, 100]), np.full((12, 2), [900, 100])], 1).round().tolist()

    def scores(share: float) -> dict:
        blocks = counts(share)
        means = {
            "miou": float(mean_and_ious(block_sums(np.array(blocks), 12))[0, 0]),
            "mean_accuracy": 0.5,
            "pixel_accuracy": 0.5,
        }
        return means | {"tail": None, "iou": [0.5, None], "blocks": blocks}

    name = "-".join([dataset, *[protocol] * (protocol != "short"), arm, f"s{seed}"])
    said = {"name": name, "dataset": dataset, "protocol": protocol, "arm": arm, "seed": seed}
    said |= {"auto": "iou", "device": device, "precision": "32-true"}
    found = {"plain": scores(hits), "iou": scores(hits + 0.1)}
    return said | {"classes": ["road", "pole"], "scores": {"val": found, **({"test": found} if test else {})}}


@pytest.fixture
def rows(tmp_path) -> Path:
    made = [made_up("camvid/0001TP", arm, 0, hits, test=False) for arm, hits in (("rank", 0.5), ("ce", 0.4))]
    for dataset in ("camvid", "facade"):
        made += [made_up(dataset, arm, s, hits) for arm, hits in (("rank", 0.5), ("ce", 0.4)) for s in range(3)]
    for row in made:
        evidence_runs.write_row(tmp_path / "rows" / f"{row['name'].replace('/', '-')}.json", row)
    return tmp_path / "rows"


def test_tables_answer_the_questions_from_rows_alone(rows):
    evidence_tables.write_tables(rows, evidence.OURS, evidence.RIVALS)
    page = (rows / "README.md").read_text()
    assert (rows / "short.png").stat().st_size > 10_000
    found = [line.split(" | ") for line in page.splitlines() if line.startswith(("| a ", "| b ", "| c ", "| d "))]
    assert {(line[0][-1], line[1]) for line in found} == {(q, d) for q in "abcd" for d in ("camvid", "facade")}
    for line in found:
        low = float(line[5].partition("[")[2].partition(",")[0])
        assert low > 0 and line[4] == "3" and line[6].strip(" |") == ""
    b = [line[2:4] for line in found if line[0] == "| b"]
    assert b == [[f"rank {decision}", f"ce {decision}"] for decision in ("plain", "iou", "auto")] * 2
    assert "Best on val, as a run decides: rank, on test " in page and "| rank | auto | 3 |" in page
    assert "(auto): camvid: rank and ce; facade: rank and ce; all: rank and ce." in page
    assert "| rank | iou | 3 |" in page and "### Held-out data" in page and "nan" not in page


@pytest.mark.parametrize(
    ("seeds", "low", "said"),
    [(1, None, "50.0 (one seed)"), (3, None, "50.0"), (1, 0.4, "50.0 [40.0, 60.0] (images only)")],
)
def test_one_seed_is_told_with_an_interval_and_without(seeds, low, said):
    row = {"estimate": 0.5, "low": low, "high": 0.6 if low else None, "seeds": seeds}
    assert evidence_tables.with_interval(row) == said


def test_long_training_is_compared_with_short_on_the_seeds_of_both_and_says_what_it_has_not(rows):
    for arm, hits in (("ce", 0.6), ("weighted_ce", 0.7)):
        row = made_up("camvid", arm, 0, hits, protocol="long", device="another")
        evidence_runs.write_row(rows / f"{row['name']}.json", row)
    evidence_tables.write_tables(rows, evidence.OURS, evidence.RIVALS, said=evidence.SAID)
    page = (rows / "README.md").read_text()
    short, _, long = page.partition("## Protocol `long`")
    assert "194 million pixels" in short and "four times the epochs" in long and (rows / "long.png").is_file()
    found = [line.split(" | ") for line in long.splitlines() if line.startswith("| e ")]
    assert [line[2:4] for line in found] == [["ce plain", "ce plain, short"], ["ce auto", "ce auto, short"]]
    assert all(line[4] == "1" and line[6] == "other |" for line in found)
    assert "No rows in this protocol yet for the questions b, c, d." in long and "No rows" not in short
    assert "nan" not in long


def test_the_default_is_compared_with_the_best_argmax_and_the_best_other_arm(rows):
    kept = evidence_tables.Rows(evidence_tables.read_rows(rows))
    found = evidence_tables.comparisons(kept, "short", evidence.OURS, evidence.RIVALS, "ce")
    asked = [(row["dataset"], row["a"], row["b"]) for row in found if row["question"] == "default"]
    assert asked == [(d, "ce auto", b) for d in ("camvid", "facade") for b in ("rank plain", "ce plain", "rank auto")]
    behind = next(row for row in found if row["b"] == "rank auto" and row["question"] == "default")
    assert -0.11 < behind["estimate"] < -0.09 and behind["high"] < 0 and behind["seeds"] == 3
    without = evidence_tables.comparisons(kept, "short", evidence.OURS, evidence.RIVALS)
    assert without == [row for row in found if row["question"] != "default"]


def test_the_plan_is_compared_with_the_default_and_both_with_the_recipe_of_smp(rows):
    for arm in ("plan", "smp_recipe", "weighted_ce"):
        evidence_runs.write_row(rows / f"facade-{arm}-s0.json", made_up("facade", arm, 0, 0.45))
    kept = evidence_tables.Rows(evidence_tables.read_rows(rows))
    found = evidence_tables.comparisons(kept, "short", evidence.OURS, evidence.RIVALS, "ce")
    asked = [(row["dataset"], row["a"], row["b"]) for row in found if row["question"] == "plan"]
    rivals = ("ce auto", "weighted_ce auto", "smp_recipe plain")
    assert asked == [("facade", "plan auto", rival) for rival in rivals]
    recipe = [row for row in found if row["b"] == "smp_recipe plain" and row["question"] == "default"]
    assert [(row["dataset"], row["a"]) for row in recipe] == [("facade", "ce auto")]
    without = evidence_tables.comparisons(kept, "short", evidence.OURS, evidence.RIVALS)
    assert [row["b"] for row in without if row["question"] == "plan"] == list(rivals[1:])


def test_the_default_at_another_size_is_compared_with_itself(rows):
    assert {arm for arm, _ in evidence.OTHER_SIZE.values()} == {*evidence_tables.SIZES}
    evidence_runs.write_row(rows / "facade-half_size-s0.json", made_up("facade", "half_size", 0, 0.3))
    kept = evidence_tables.Rows(evidence_tables.read_rows(rows))
    found = evidence_tables.comparisons(kept, "short", evidence.OURS, evidence.RIVALS, "ce")
    asked = [row for row in found if row["question"] == "size"]
    assert [(row["dataset"], row["a"], row["b"]) for row in asked] == [("facade", "half_size auto", "ce auto")]
    assert -0.15 < asked[0]["estimate"] < -0.05


def test_choices_are_made_on_held_out_rows_alone(rows):
    kept = evidence_tables.Rows(evidence_tables.read_rows(rows))
    assert kept.best(["camvid"], "short", evidence.RIVALS, "auto") == "ce"
    assert kept.best(["camvid"], "short", evidence.OURS, "iou") == "rank"
    for row in kept.rows:
        row["scores"]["test"] = row["scores"].pop("val")
    assert kept.best(["camvid"], "short", evidence.OURS, "iou") is None


def test_arms_are_compared_on_the_seeds_that_all_have():
    lucky, unlucky, other = (
        made_up("camvid", "ce", 0, 0.8),
        made_up("camvid", "ce", 1, 0.2),
        made_up("camvid", "focal", 1, 0.4),
    )
    kept = evidence_tables.Rows([lucky, unlucky, other])
    assert kept.held_out("camvid", "short", "ce", "auto") > kept.held_out("camvid", "short", "focal", "auto")
    assert kept.shared_seeds("camvid", "short", ["ce", "focal", "log"], "auto") == {("camvid", 1)}
    assert kept.best(["camvid"], "short", ["ce", "focal", "log"], "auto") == "focal"
    assert kept.shared_seeds("camvid", "short", ["log"], "auto") == set()
    assert kept.best(["camvid"], "short", ["log"], "auto") is None


def test_folds_are_shown_and_choose_nothing(rows):
    kept = evidence_tables.Rows(evidence_tables.read_rows(rows))
    folds = made_up("camvid/0006R0", "ce", 0, 0.8, test=False)
    with_fold = evidence_tables.Rows([*kept.rows, folds])
    shown = "\n".join(evidence_tables.search_table(with_fold, "short", evidence.ARMS))
    assert "camvid/* iou" in shown and "facade iou" in shown
    choices = [evidence_tables.choices(rows, evidence.OURS, evidence.RIVALS) for rows in (kept, with_fold)]
    assert choices[0] == choices[1] and "camvid/0006R0" not in choices[0]


def runs_of(rng, seeds: int, blocks: int, shift: float = 0.0) -> np.ndarray:
    """Counts whose mIoU varies with seeds and, alike for all runs, with blocks."""
    share = 0.5 + shift + 0.03 * rng.standard_normal((seeds, 1, 1))
    share = share + 0.005 * rng.standard_normal((seeds, blocks, 1))
    right = np.clip(share, 0.05, 0.95) * 1000
    return np.stack(np.broadcast_arrays(right, 1000.0, 1000.0), 2)


def test_intervals_of_few_seeds_cover_and_equal_settings_are_seldom_called_different():
    rng = np.random.default_rng(0)
    for seeds in (2, 3, 5):
        wrong = 0
        for _ in range(400):
            found = evidence_tables.interval(runs_of(rng, seeds, 12), runs_of(rng, seeds, 12))
            wrong += not found["low"] <= 0 <= found["high"]
        assert wrong <= 32, seeds  # nominal 20 of 400; 32 is three standard errors above


def test_decisions_on_the_same_networks_are_compared_seed_by_seed():
    rng = np.random.default_rng(1)
    a = runs_of(rng, 5, 12)
    b = a - [[[[20.0], [0.0], [0.0]]]]
    paired = evidence_tables.interval(a, b, same_networks=True)
    apart = evidence_tables.interval(a, b)
    assert 0 < paired["low"] < paired["estimate"] < paired["high"]
    assert paired["high"] - paired["low"] < 0.3 * (apart["high"] - apart["low"])


def test_no_interval_below_six_blocks():
    found = evidence_tables.interval(runs_of(np.random.default_rng(0), 3, 5))
    assert found["low"] is None and found["estimate"] > 0


def test_the_questions_of_the_results_page_are_those_of_the_rows():
    docs = BENCHMARKS.parent / "docs"
    page = (docs / "results.md").read_text(encoding="utf-8")
    rows = evidence_tables.Rows(evidence_tables.read_rows(docs / "evidence"))
    tables = evidence_questions.Page(rows, evidence.OURS, evidence.RIVALS, evidence.DEFAULT).tables()
    assert evidence_questions.filled(page, tables) == page
    assert {name for _, name in re.findall(r"(<!-- table ([\w-]+) -->)", page)} == {*tables}
    differences = re.findall(r"-?\d+\.\d \[-?\d+\.\d, -?\d+\.\d\]", "\n".join(map("\n".join, tables.values())))
    assert len(differences) > 60


def test_a_table_of_the_results_page_is_made_anew_between_its_marks():
    page = "before\n<!-- table b -->\n| old |\n<!-- end -->\nafter\n"
    assert evidence_questions.filled(page, {"b": ["| new |", ""]}) == (
        "before\n<!-- table b -->\n\n| new |\n\n<!-- end -->\nafter\n"
    )
    with pytest.raises(KeyError):
        evidence_questions.filled(page, {})


def test_the_questions_say_what_is_known_of_a_pair(rows):
    kept = evidence_tables.Rows(evidence_tables.read_rows(rows))
    page = evidence_questions.Page(kept, evidence.OURS, evidence.RIVALS, "ce")
    pair = {"a": "ce iou", "b": "rank plain", "estimate": 0.021, "low": 0.004, "high": 0.04}
    known = page.cell(pair | {"seeds": 2, "machines": True}, "ab")
    assert known == "the default - rank (the paper's): **2.1 [0.4, 4.0]**"
    assert page.cell(pair | {"seeds": 1, "machines": False}) == "2.1 [0.4, 4.0]°‡"
    assert page.cell(pair | {"low": None, "high": None, "seeds": 2, "machines": True}) == "2.1"
    assert [cells for cells in page.tables()["b"] if cells.startswith("| both plain")]


NAMED = {"the default": evidence.DEFAULT, "`weighted_ce`": "weighted_ce", "`ce`": "ce"}
NAMED |= {"`outlying_mse`, power 0.75": "power075", "`outlying_mse`, rank (the paper's)": "rank"}


def test_the_table_of_which_loss_when_is_made_of_the_rows():
    page = (BENCHMARKS.parent / "docs/losses.md").read_text(encoding="utf-8")
    head, _, *lines = page.partition("\n| data |")[2].partition("\n\n")[0].splitlines()
    rows = evidence_tables.read_rows(BENCHMARKS.parent / "docs/evidence")
    arms = [NAMED[cell.strip()] for cell in head.split("|")[:-1]]
    assert len(lines) == len(evidence.DATA) and len(arms) == len(NAMED)
    for line in lines:
        dataset = line.split("|")[1].split(",")[0].strip().lower()
        for arm, cell in zip(arms, line.split("|")[2:-1], strict=True):
            of = {"dataset": dataset, "arm": arm, "protocol": "short"}
            found = [(row["scores"]["test"], row["auto"]) for row in rows if of.items() <= row.items()]
            means = [np.mean([scores[kind or auto]["miou"] for scores, auto in found]) for kind in ("", "plain")]
            said = re.fullmatch(r"\**([\d.]+)\** \(([\d.]+)\)((?:\\?\*)*)", cell.strip())
            assert said, cell
            assert [*map(float, said.groups()[:2])] == pytest.approx([100 * mean for mean in means], abs=0.0501), (
                dataset,
                arm,
            )
            assert said[3].count("*") == len(found) - 1, cell


def test_the_evidence_page_is_made_of_the_rows_beside_it(tmp_path):
    docs = BENCHMARKS.parent / "docs/evidence"
    for row in docs.glob("*.json"):
        (tmp_path / row.name).symlink_to(row)
    evidence_tables.write_tables(tmp_path, evidence.OURS, evidence.RIVALS, evidence.DEFAULT, evidence.SAID)
    assert (tmp_path / "README.md").read_text() == (docs / "README.md").read_text(encoding="utf-8")
