"""Files are whole or not there."""

import csv
import json
from pathlib import Path

import pytest

from segloss.files import write_bytes, write_csv, write_json


def test_a_failing_write_leaves_the_old_file_and_nothing_else(tmp_path, monkeypatch):
    path = tmp_path / "metrics.json"
    write_json(path, {"miou": 0.5})

    def disk_full(self, content):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "write_bytes", disk_full)
    with pytest.raises(OSError, match="No space"):
        write_json(path, {"miou": 0.6})
    assert json.loads(path.read_text()) == {"miou": 0.5}
    assert [p.name for p in tmp_path.iterdir()] == ["metrics.json"]


def test_json_refuses_nan(tmp_path):
    with pytest.raises(ValueError, match="JSON"):
        write_json(tmp_path / "x.json", {"miou": float("nan")})
    assert not list(tmp_path.iterdir())


def test_folders_are_made(tmp_path):
    write_bytes(tmp_path / "a/b/c.bin", b"\x00")
    assert (tmp_path / "a/b/c.bin").read_bytes() == b"\x00"


def test_csv_quotes_what_needs_it(tmp_path):
    write_csv(tmp_path / "x.csv", ["class", "iou"], [["pole, lamp", 0.5], ["sky", None]])
    assert (tmp_path / "x.csv").read_text() == 'class,iou\n"pole, lamp",0.5\nsky,\n'


@pytest.mark.parametrize(
    "name", ["=1+1", "+cmd|' /C calc'!A0", "-2+3", "@SUM(A1)", "\t=1+1", "\r=1+1", "\n=1", "＝1+1", "=a,b", "-", '="x"']
)
def test_a_name_that_a_spreadsheet_would_run_is_text(tmp_path, name):
    write_csv(tmp_path / "x.csv", [name, "iou"], [[name, -0.5], ["plain", name]])
    with (tmp_path / "x.csv").open(newline="", encoding="utf-8") as file:
        rows = list(csv.reader(file))
    text = f"'{name}".replace("\r", " ")
    assert rows == [[text, "iou"], [text, "-0.5"], ["plain", text]]


def test_a_name_with_a_carriage_return_inside_begins_no_new_line(tmp_path):
    write_csv(tmp_path / "x.csv", ["name"], [["pole\r=1+1"]])
    with (tmp_path / "x.csv").open(newline="", encoding="utf-8") as file:
        assert list(csv.reader(file)) == [["name"], ["pole =1+1"]]


@pytest.mark.parametrize("cell", [-1, -0.5, float("-inf"), "-0.5", "+3", "-1e-05", None, "", "a=b", " =1", "'=1"])
def test_numbers_and_harmless_names_stay_as_they_are(tmp_path, cell):
    write_csv(tmp_path / "x.csv", ["a", "b"], [["x", cell]])
    assert (tmp_path / "x.csv").read_text() == f"a,b\nx,{'' if cell is None else cell}\n"
