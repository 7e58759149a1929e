"""The benchmark of the loss runs and reports what it says; nothing here asserts a time."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from segloss.losses import LOSSES

ROOT = Path(__file__).resolve().parents[2]


def run(*options: str) -> subprocess.CompletedProcess:
    command = [sys.executable, str(ROOT / "benchmarks" / "loss.py"), "--repeats", "1", "--device", "cpu", *options]
    return subprocess.run(command, capture_output=True, text=True)


@pytest.mark.parametrize(
    "text",
    [
        pytest.param(file.read_text(), id=file.stem)
        for file in sorted((ROOT / "benchmarks").glob("*.py"))
        if "__main__" in file.read_text()
    ],
)
def test_every_benchmark_has_its_head_as_help_and_tells_bad_input_in_a_line(text):
    assert "parser_of(__doc__)" in text and "ArgumentParser" not in text
    assert text.endswith('if __name__ == "__main__":\n    exit_on_input_error(main)\n')


def test_help_shows_what_a_benchmark_does_and_its_examples():
    command = [sys.executable, str(ROOT / "benchmarks/evidence.py")]
    told = subprocess.run([*command, "--help"], capture_output=True, text=True, check=True).stdout
    assert "\n    python benchmarks/evidence.py tables\n" in told and "list: the jobs by priority" in " ".join(
        told.split()
    )
    done = subprocess.run([*command, "run", "--runs", "/proc/no", "--only", "none"], capture_output=True, text=True)
    assert done.returncode == 2 and done.stderr.startswith("error: no job is called none")


@pytest.mark.skipif(not Path("/proc/self/clear_refs").exists(), reason="peak memory is read from Linux")
def test_a_table_and_json_of_every_contender(tmp_path):
    done = run("--sizes", "tiny", "--dtype", "float32", "bfloat16", "--output", str(tmp_path / "loss.json"))
    assert done.returncode == 0, done.stderr
    saved = json.loads((tmp_path / "loss.json").read_text())
    assert saved == json.loads(done.stdout.splitlines()[-1])
    assert set(saved["results"]) == {"tiny float32", "tiny bfloat16"}
    for result in saved["results"].values():
        assert set(result["losses"]) == {"outlying_mse", "plain formula", "F.cross_entropy"}
        for row in result["losses"].values():
            assert row["forward_ms"] > 0 and row["backward_ms"] > 0
            assert row["step_ms_range"][0] <= row["step_ms"] <= row["step_ms_range"][1]
            assert row["extra_peak_over_logits"] is None  # less than a page or two
            assert row["share_of_copy_bandwidth"] > 0 and row["forward_share"] > 0 and row["backward_share"] > 0
    assert {"commit", "devices", "threads", "torch", "python"} <= set(saved["environment"])
    assert saved["environment"]["devices"].keys() == {"cpu"}
    assert all(len(line) <= 100 for line in done.stdout.splitlines()[:-1])


@pytest.mark.skipif(not Path("/proc/self/clear_refs").exists(), reason="peak memory is read from Linux")
def test_every_loss_has_a_row():
    done = run("--sizes", "tiny", "--losses")
    assert done.returncode == 0, done.stderr
    rows = json.loads(done.stdout.splitlines()[-1])["results"]["tiny float32"]["losses"]
    assert set(rows) == {"F.cross_entropy", *LOSSES}


@pytest.mark.parametrize(
    "options", [("--repeats", "0"), ("--sizes", "huge"), ("--device", "abacus"), ("--losses", "--sizes", "upsampled")]
)
def test_bad_options_end_with_status_2(options):
    done = run(*options)
    assert done.returncode == 2
    assert "Traceback" not in done.stderr


@pytest.mark.skipif(not Path("/proc/self/clear_refs").exists(), reason="peak memory is read from Linux")
@pytest.mark.parametrize(
    ("script", "options", "said"),
    [
        ("memory", ("--batch", "2x64x64", "--repeats", "1"), "2x64x64"),
        ("data", ("--masks", "8", "--workers", "1", "--repeats", "1"), "--cache ram"),
        ("evaluation", ("--pairs", "2", "--repeats", "1"), "the per-class IoUs are equal"),
        ("rule", ("--images", "2", "--size", "64x64", "--encoder", "resnet18", "--repeats", "1"), "of the evaluation"),
        (
            "waiting",
            ("--seconds", "0.1", "--ways", "OMP_NUM_THREADS=1", "--beside", "one busy process"),
            "busy process",
        ),
        ("start", ("--repeats", "1"), "train_seg.py --help"),
        ("windows", ("--side", "500", "--tile", "64", "--bands", "1"), "peak"),
    ],
)
def test_the_other_benchmarks_run(script, options, said):
    command = [sys.executable, str(ROOT / "benchmarks" / f"{script}.py"), *options]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert said in done.stdout and json.loads(done.stdout.splitlines()[-1])


@pytest.mark.skipif(sys.platform != "linux", reason="Triton compiles on Linux")
def test_kernels_compiled_offline_move_wide_words_and_spill_nothing():
    """For a card that is not there: contiguous logits in words of 16 bytes, whatever the dtype."""
    pytest.importorskip("triton")
    options = ("--targets", "90", "--dtype", "bfloat16", "float32")
    command = [sys.executable, str(ROOT / "benchmarks" / "kernels.py"), *options]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    lines = [line for line in done.stdout.splitlines() if "sm_90" in line]
    rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]
    assert len(rows) == 8
    for _, _, layout, kernel, load, store, registers, spilled, warps in rows:
        assert spilled == "0" and int(registers) <= 255 and int(warps) >= 8
        if layout == "contiguous":
            assert (load, store) == ("16", "-" if kernel == "value" else "16")
    assert "| 4x19x512x1024 | bfloat16 |" in done.stdout
