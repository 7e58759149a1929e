"""Processes of one job: who they are, what they tell each other, and that none outlives another."""

import doctest
import subprocess
import time

import pytest
from launched import ended, started

import segloss.launchers
from segloss.errors import InputError
from segloss.launchers import join, meeting_point, place_in
from segloss.ranks import Ranks, agreed, here, together

TORCHRUN = {"RANK": "1", "WORLD_SIZE": "4", "LOCAL_RANK": "1"}
SLURM = {"SLURM_PROCID": "5", "SLURM_STEP_NUM_TASKS": "8", "SLURM_LOCALID": "1"}
STEP = {"SLURM_STEP_NODELIST": "gpu[03-04]", "SLURM_JOB_ID": "40007", "SLURM_STEP_ID": "2"}


def test_examples_give_what_they_say():
    assert doctest.testmod(segloss.launchers).failed == 0


@pytest.mark.parametrize(
    ("environ", "place"),
    [
        ({}, (0, 1, 0)),
        (TORCHRUN, (1, 4, 1)),
        (SLURM, (5, 8, 1)),
        ({**SLURM, **TORCHRUN}, (1, 4, 1)),
        ({"SLURM_PROCID": "0", "SLURM_NTASKS": "16"}, (0, 1, 0)),  # a batch script outside srun
        ({"OMPI_COMM_WORLD_RANK": "2", "OMPI_COMM_WORLD_SIZE": "3", "OMPI_COMM_WORLD_LOCAL_RANK": "0"}, (2, 3, 0)),
        ({"LOCAL_RANK": "1"}, (0, 1, 0)),  # a process that Lightning started
    ],
)
def test_a_process_knows_its_place_by_what_its_launcher_says(environ, place):
    assert place_in(environ) == place


@pytest.mark.parametrize(
    ("environ", "said"),
    [
        ({"RANK": "x", "WORLD_SIZE": "2"}, "RANK and WORLD_SIZE and LOCAL_RANK must be whole numbers; unset them"),
        ({"RANK": "2", "WORLD_SIZE": "2"}, "RANK is 2 and WORLD_SIZE 2; ranks run from 0 to WORLD_SIZE - 1"),
        ({"RANK": "0", "WORLD_SIZE": "2"}, "MASTER_ADDR and MASTER_PORT do not say where the processes meet; set them"),
    ],
)
def test_variables_that_make_no_sense_are_one_line(environ, said):
    with pytest.raises(InputError) as raised:
        join(environ)
    assert said in str(raised.value) and "\n" not in str(raised.value)


def test_where_processes_meet():
    assert meeting_point({"MASTER_ADDR": "a", "MASTER_PORT": "7"}) == ("a", 7)
    assert meeting_point(STEP) == ("gpu03", 20000 + 9)
    assert meeting_point({**STEP, "MASTER_PORT": "7"}) == ("gpu03", 7)


def test_one_process_alone_has_all():
    alone = Ranks()
    assert alone.share([1, 2, 3]) == [1, 2, 3] and alone.gather("x") == ["x"] and alone.whole([1, 2], 2) == [1, 2]
    assert alone.from_first(lambda: 5) == 5 and [*alone.stream([1, 2])] == []
    seen = []
    together(lambda: seen.append(here().size))
    assert seen == [1]


SCRIPT = """
import numpy as np, os, sys, time
from functools import partial
from segloss.errors import InputError, exit_on_input_error
from segloss.ranks import agreed, here, share_no_more, together

def command():
    job = here()
    {body}

exit_on_input_error(partial(together, command))
"""


def run(tmp_path, size: int, body: str) -> list[tuple[int, str, str]]:
    return ended(begun(tmp_path, size, body))


def begun(tmp_path, size: int, body: str) -> list[subprocess.Popen]:
    script = tmp_path / "script.py"
    script.write_text(SCRIPT.format(body=body.strip().replace("\n", "\n    ")))
    return started(size, script)


def test_what_was_found_in_shares_is_put_together(tmp_path):
    body = """
items = [10 * n for n in range(7)]
own = [item + 1 for item in job.share(items)]
every = job.whole(own, 7)
rows = job.whole_array(np.array([[n, -n] for n in job.share(range(7))]).reshape(-1, 2), 7)
streamed = [*job.stream([[job.rank, n] for n in range(job.rank)])]
told = job.from_first(lambda: {"rank": job.rank})
assert rows.tolist() == [[n, -n] for n in range(7)] and told == {"rank": 0}
few = job.whole_array(np.zeros((len(job.share([1])), 2)), 1)
assert few.shape == (1, 2)
print(every, streamed, job.gather(job.rank), flush=True)
"""
    (first, *others) = run(tmp_path, 3, body)
    said = "[1, 11, 21, 31, 41, 51, 61] [[1, 0], [2, 0], [2, 1]] [0, 1, 2]\n"
    assert first == (0, said, "") and others == [(0, "", "")] * 2


def test_processes_agree_on_what_the_first_makes(tmp_path):
    body = 'print(agreed("TRY", lambda: {"size": 8 - job.rank}), os.environ["SEGLOSS_TRY"], file=sys.stderr)'
    assert run(tmp_path, 2, body) == [(0, "", """{'size': 8} {"size": 8}\n""")] * 2


def test_a_process_that_lightning_starts_takes_what_the_first_has_made(monkeypatch):
    monkeypatch.setenv("SEGLOSS_TRY", "old")
    assert agreed("TRY", lambda: 4) == 4
    monkeypatch.setenv("LOCAL_RANK", "1")
    assert agreed("TRY", lambda: 5) == 4


def test_one_process_may_end_before_the_others(tmp_path):
    body = "job.gather(1)\nif job.rank != 1: time.sleep(1)"
    assert run(tmp_path, 3, body) == [(0, "", "")] * 3


@pytest.mark.parametrize("rank", [0, 1, 2])
def test_an_error_in_one_is_one_line_and_ends_all(tmp_path, rank):
    body = f'if job.rank == {rank}: raise InputError("is cut off", "replace it", "a.png")\ntime.sleep(60)'
    began = time.monotonic()
    found = run(tmp_path, 3, body)
    assert [status for status, *_ in found] == [2] * 3 and time.monotonic() - began < 30
    assert [error for *_, error in found] == ["error: a.png: is cut off; replace it\n", "", ""]


def test_a_fault_of_ours_shows_its_traceback_once(tmp_path):
    found = run(tmp_path, 2, "if job.rank == 1: 1 / 0\ntime.sleep(60)")
    assert [status for status, *_ in found] == [1, 1]
    assert found[0][2] == "error: process 1 of 2 failed\n" and "ZeroDivisionError" in found[1][2]


@pytest.mark.parametrize("rank", [0, 1])
@pytest.mark.parametrize("busy", ["time.sleep(60)", "job.gather(job.from_first(lambda: time.sleep(60)))"])
def test_a_dead_process_ends_the_others_with_one_line(tmp_path, rank, busy):
    processes = begun(tmp_path, 2, f'open(r"{tmp_path}/came{{}}".format(job.rank), "w").close()\n{busy}')
    while not all((tmp_path / f"came{other}").exists() for other in (0, 1)):
        time.sleep(0.05)
    processes[rank].kill()
    began = time.monotonic()
    found = ended(processes, 30)
    assert time.monotonic() - began < 10
    status, _, error = found[1 - rank]
    first = ", the first," if rank == 0 else ""
    assert (status, error) == (1, f"error: process {rank} of 2{first} has ended before its work was done\n")


def test_a_job_that_shares_no_more_still_ends_together(tmp_path):
    body = """
share_no_more()
assert here().size == 1
if job.rank == 1: os._exit(3)
time.sleep(60)
"""
    (status, _, error), (other, *_) = run(tmp_path, 2, body)
    assert (status, other) == (1, 3) and error.startswith("error: process 1 of 2 has ended")
