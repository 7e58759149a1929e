"""The report page in headless Chromium: it renders, sorts, logs no error, and names stay text."""

import html
import re
import subprocess
from html.parser import HTMLParser
from pathlib import Path

import cv2
import numpy as np
import pytest
from browser import HEADLESS, chromium
from hand_made_scores import comparison, metrics
from report_pages import NASTY, page_of_everything, page_of_masks

from segloss.datasets import ClassTable
from segloss.report.pages import write_report


@pytest.fixture(scope="module")
def page(tmp_path_factory) -> Path:
    return page_of_masks(tmp_path_factory.mktemp("masks"))


@pytest.fixture(scope="module")
def full_page(tmp_path_factory) -> Path:
    return page_of_everything(tmp_path_factory.mktemp("full"))


def in_chromium(page: Path, script: str, *flags: str) -> tuple[str, str]:
    """The document after a script ran at its end, and what the browser logged."""
    copy = page.with_name("copy.html")
    copy.write_text(page.read_text().replace("</body>", f"<script>{script}</script></body>"))
    done = subprocess.run([*HEADLESS, *flags, copy.as_uri()], capture_output=True, text=True, timeout=120)
    return done.stdout, "\n".join(line for line in done.stderr.splitlines() if "CONSOLE" in line)


def test_the_page_needs_nothing_from_outside_and_escapes_names(page):
    text = page.read_text()
    fetched: list[str] = []
    reader = HTMLParser()
    reader.handle_starttag = lambda _, attributes: fetched.extend(v for k, v in attributes if k in ("src", "href"))
    reader.feed(text)
    pictures = [value for value in fetched if not value.startswith("#")]  # the others are places on the page
    assert len(pictures) == 48 and all(value.startswith("data:image/png") for value in pictures)
    assert "<script>document.title" not in text and "&lt;script&gt;document.title" in text
    assert "<img src=x" not in text and "&lt;img src=x onerror" in text
    assert text.count("<script>") == 1  # our own


def test_the_page_opens_with_the_answer(page):
    assert "<strong>good &amp; bold: mIoU" in page.read_text()
    assert "ahead of bad by" in page.read_text() and "leaves out 0" in page.read_text()


def found_in(page: Path, script: str, *flags: str) -> dict[str, str]:
    """What a script put into ``found``; the console must be empty."""
    keep = "for (const key in found) document.body.dataset[key] = found[key];"
    document, console = in_chromium(page, f"const found = {{}}; {script} {keep}", *flags)
    assert console == ""
    return dict(re.findall(r'data-(\w+)="([^"]*)"', re.search(r"<body([^>]*)>", document)[1]))


@chromium
def test_it_renders_and_sorts_without_an_error_in_the_console(page):
    column = "document.querySelector('[aria-label^=\"IoU of each class\"] table')"
    rows = f"[...{column}.tBodies[0].rows].map((row) => row.cells[3].dataset.value).join(' ')"
    button = f"{column}.tHead.rows[0].cells[3].querySelector('button')"
    script = f"""
        {button}.click(); found.once = {rows};
        {button}.click(); found.twice = {rows};
        found.heading = document.querySelector('h1').textContent;
        found.title = document.title;
        found.figures = document.querySelectorAll('figure img[src^="data:image/png"]').length;
    """
    found = found_in(page, script)
    once = [float(value) for value in found["once"].split()]
    assert len(once) == 3 and once == sorted(once, reverse=True)
    assert [float(value) for value in found["twice"].split()] == once[::-1]
    assert found["heading"] == found["title"] == "masks of true: 8 images, 2 runs"
    assert found["figures"] == "48"


@chromium
def test_the_check_above_sees_an_error(page):
    _, console = in_chromium(page, "throw new Error('planted')")
    assert "planted" in console


@chromium
def test_a_screenshot_is_not_empty(page, tmp_path):
    picture = tmp_path / "page.png"
    in_chromium(page, "", f"--screenshot={picture}", "--window-size=1200,1600")
    assert cv2.imread(str(picture)).std() > 20


class Tables(HTMLParser):
    """``found``: id of a heading -> the cells of the first table below it, as they read."""

    def __init__(self, page: Path):
        super().__init__()
        self.raw: dict[str, list[list[str]]] = {}
        self.heading, self.open = "", False
        self.feed(page.read_text())
        self.found = {key: [[" ".join(cell.split()) for cell in row] for row in rows] for key, rows in self.raw.items()}

    def handle_starttag(self, tag, attrs):
        if tag == "h2":
            self.heading = dict(attrs).get("id", "")
        elif tag == "table" and self.heading not in self.raw:
            self.raw[self.heading], self.open = [], True
        elif tag == "tr" and self.open:
            self.raw[self.heading].append([])
        elif tag in ("td", "th") and self.open:
            self.raw[self.heading][-1].append("")

    def handle_endtag(self, tag):
        self.open = self.open and tag != "table"

    def handle_data(self, data):
        if self.open and self.raw[self.heading] and self.raw[self.heading][-1]:
            self.raw[self.heading][-1][-1] += data


# ---- the page of hand-made scores


def test_settings_are_ranked_and_runs_keep_their_own_numbers(full_page):
    tables = Tables(full_page).found
    heads, *rows = tables["ranking"]
    assert heads == ["rank", "setting", "runs", "images", "mIoU", "classes"]
    assert rows[0] == ["1", "A", f"run 10, run 9, {NASTY}, B", "8", "50.0 [48.0, 52.0]", "2 of 3"]
    assert rows[1] == ["2", "B", "A", "8", "40.0 [38.0, 42.0]", "2 of 3"]
    runs = {row[0]: row for row in tables["runs"][1:]}
    assert runs["B"][1] == "50.0"  # a seed of setting A; that a setting is called B gives it no interval
    assert runs["A"][1] == "– [38.0, 42.0]"  # alone in its setting, on all of its images


def test_what_was_left_out_is_said_and_listed(full_page):
    text = full_page.read_text()
    assert "<title>camvid test: 8 images, 5 runs</title>" in text
    assert "Left out: 1 of A. All figures are over the 8 images that all runs have." in text
    assert "Over all 9 of its own, run 10 has mIoU 43.2 of 2 classes." in text
    assert "<li>A: f1: is cut off</li>" in text


def test_all_that_was_measured_is_on_the_page(full_page):
    tables = Tables(full_page).found
    heads, first, *_ = tables["runs"]
    row = dict(zip(heads, first, strict=True))
    expected = {
        "category mIoU": "65.4",
        "boundary mIoU": "32.1",
        "calibration error": "12.3",
        "Brier score": "0.456",
        "predicted as no class": "3",
        "scored with": "tau 0.5",
    }
    assert {key: row[key] for key in expected} == expected
    assert tables["details"][0] == ["class", "pixels", "images", "IoU", "recall", "precision", "F1", "boundary IoU"]
    assert tables["details"][1] == ["wall", "90", "9", "50.0", "60.0", "70.0", "80.0", "25.0"]
    assert tables["categories"][1:] == [["flat", "61.1", *"––––"], ["object", *"–––––"]]
    text = full_page.read_text()
    assert "predicted as no class: 3 pixels (3 %)" in text and "run 10 on camvid test: 8 images, tau 0.5" in text
    assert "A: mIoU 50.0 [48.0, 52.0] over 2 of 3 classes (protocol cityscapes)" in text
    assert "Of the first 4 of 5 runs." in text
    assert text.count("<script>") == 1


@pytest.mark.parametrize(("classes", "table"), [(40, True), (41, False), (254, False)])
def test_a_page_of_many_classes_tells_confusions_in_words_alone(tmp_path, classes, table):
    names = tuple(f"class {c}" for c in range(classes))
    row = {"iou": 0.5, "recall": 0.5, "precision": 0.5, "f1": 0.5, "pixels": 9, "images": 1}
    worst = {"true": names[1], "predicted": names[2], "share": 0.384, "pixels": 3}
    scores = metrics(classes=[{"name": name, **row} for name in names], confusions=[worst])
    matrix = np.eye(classes, classes + 1, dtype=np.int64)
    path = tmp_path / "report.html"

    def of_these_classes(found):
        for setting in found["ranking"]:
            setting["classes"] = setting["classes"][:1] * classes

    compared = comparison(change=of_these_classes)
    write_report(path, ClassTable(names), {"A": scores, "B": scores}, {"A": matrix}, compared, {}, {})
    text = path.read_text()
    assert "<li>38 % of class 1 goes to class 2 (3 pixels)</li>" in text and ('class="heat"' in text) is table
    assert len(text) < 600_000


def column(page_part: str, head: str) -> str:
    """Script that sets ``head`` to a header's button of a table and ``read`` to what reads the cells below it."""
    return f"""
        const table = document.querySelector('#{page_part} + .table table, #{page_part} + p + .table table');
        const th = [...table.tHead.rows[0].cells].find((cell) => cell.textContent.trim() === '{head}');
        const button = th.querySelector('button');
        const cells = () => [...table.tBodies[0].rows].map((row) => row.cells[th.cellIndex].textContent.trim());
        const read = () => cells().join('|');
    """


@chromium
def test_names_sort_from_a_to_z_and_numbers_from_the_top(full_page):
    script = """
        found.before = getComputedStyle(button, '::after').content;
        button.click(); found.once = read(); found.first = th.ariaSort;
        button.click(); found.twice = read(); found.second = th.ariaSort;
    """
    names = found_in(full_page, column("runs", "run") + script)
    assert "↕" in names["before"]  # one sees that it sorts before one has tried
    expected = [NASTY, "A", "B", "run 9", "run 10"]
    assert (html.unescape(names["once"]).split("|"), names["first"]) == (expected, "ascending")
    assert (html.unescape(names["twice"]).split("|"), names["second"]) == (expected[::-1], "descending")
    numbers = found_in(full_page, column("runs", "Brier score") + script)
    assert (numbers["once"], numbers["first"]) == ("0.456|–|–|–|–", "descending")
    assert (numbers["twice"], numbers["second"]) == ("0.456|–|–|–|–", "ascending")  # what is missing stays last


@chromium
def test_plots_are_there_and_the_dark_page_can_be_read(full_page):
    script = """
        const light = (color) => { const [r, g, b] = color.match(/[0-9.]+/g).map(Number); return (r + g + b) / 3; };
        const style = getComputedStyle(document.body);
        found.back = light(style.backgroundColor); found.text = light(style.color);
        const share = document.querySelector("table.heat td");
        found.cell = light(getComputedStyle(share).color);
        found.plots = [...document.querySelectorAll(".plot img")].filter((plot) => plot.src.length > 9999).length;
        found.card = getComputedStyle(document.querySelector("figure.plot")).filter;
    """
    light = found_in(full_page, script)
    dark = found_in(full_page, script, "--blink-settings=preferredColorScheme=0")
    assert light["plots"] == dark["plots"] == "2"  # the sweep and the reliability
    assert float(light["back"]) > 240 and float(light["text"]) < 60 and light["card"] == "none"
    assert float(dark["back"]) < 40 and float(dark["text"]) > 200 and float(dark["cell"]) > 200
    assert "brightness" in dark["card"]
