"""The report page in headless Chromium: it renders, sorts, logs no error, and names stay text."""

import re
import shutil
import subprocess
from html.parser import HTMLParser
from pathlib import Path

import cv2
import numpy as np
import pytest
from data_trees import random_mask, write_png

import eval_seg

CHROMIUM = next(
    (found for name in ("chromium", "chromium-browser", "google-chrome") if (found := shutil.which(name))), ""
)
NASTY = "<script>document.title = 'broken'</script>"


@pytest.fixture(scope="module")
def page(tmp_path_factory) -> Path:
    """A comparison of two folders of masks whose class and file names would be code if they were not escaped."""
    root = tmp_path_factory.mktemp("masks")
    for place in range(8):
        labels = np.kron(random_mask(place, (6, 8), (0, 1, 2, 255)), np.ones((8, 8), np.uint8))
        name = f"{place} <img src=x onerror=alert(1)>"
        write_png(root / "true" / f"{name}.png", labels)
        for wrong, folder in ((20, "good & bold"), (200, "bad")):
            predicted = np.where(labels == 255, 0, labels)
            spoilt = np.random.default_rng(place).choice(predicted.size, wrong, replace=False)
            predicted.ravel()[spoilt] = (predicted.ravel()[spoilt] + 1) % 3
            write_png(root / folder / f"{name}.png", predicted)
    (root / "classes.json").write_text(f'["wall", "{NASTY}", "lamp"]'.replace("'", "`"))
    folders = ["--predictions", str(root / "bad"), str(root / "good & bold"), "--labels", str(root / "true")]
    eval_seg.evaluate([*folders, "--output-dir", str(root / "out")])
    return root / "out/report.html"


def in_chromium(page: Path, script: str, *flags: str) -> tuple[str, str]:
    """The document after a script ran at its end, and what the browser logged."""
    copy = page.with_name("copy.html")
    copy.write_text(page.read_text().replace("</body>", f"<script>{script}</script></body>"))
    command = [CHROMIUM, "--headless", "--no-sandbox", "--disable-gpu", "--enable-logging=stderr", "--dump-dom"]
    done = subprocess.run([*command, *flags, copy.as_uri()], capture_output=True, text=True, timeout=120)
    return done.stdout, "\n".join(line for line in done.stderr.splitlines() if "CONSOLE" in line)


def test_the_page_needs_nothing_from_outside_and_escapes_names(page):
    text = page.read_text()
    fetched: list[str] = []
    reader = HTMLParser()
    reader.handle_starttag = lambda _, attributes: fetched.extend(v for k, v in attributes if k in ("src", "href"))
    reader.feed(text)
    assert len(fetched) == 12 and all(value.startswith("data:image/") for value in fetched)
    assert "<script>document.title" not in text and "&lt;script&gt;document.title" in text
    assert "<img src=x" not in text and "&lt;img src=x onerror" in text
    assert text.count("<script>") == 1  # the one that sorts


def test_the_page_opens_with_the_answer(page):
    assert "<strong>good &amp; bold: mIoU" in page.read_text()
    assert "ahead of bad by" in page.read_text() and "leaves out 0" in page.read_text()


@pytest.mark.skipif(not CHROMIUM, reason="no Chromium here; .ci/run installs it")
def test_it_renders_and_sorts_without_an_error_in_the_console(page):
    column = "document.querySelector('#classes + .scroll table')"
    rows = f"[...{column}.tBodies[0].rows].map((row) => row.cells[3].dataset.value).join(' ')"
    button = f"{column}.tHead.rows[0].cells[3].querySelector('button')"
    script = f"""
        {button}.click(); document.body.dataset.once = {rows};
        {button}.click(); document.body.dataset.twice = {rows};
        document.body.dataset.wide = document.documentElement.scrollWidth > innerWidth;
        document.body.dataset.heading = document.querySelector('h1').textContent;
    """
    document, console = in_chromium(page, script, "--window-size=420,900")
    assert console == ""
    body = re.search(r"<body([^>]*)>", document)[1]
    found = dict(re.findall(r'data-(\w+)="([^"]*)"', body))
    once = [float(value) for value in found["once"].split()]
    assert len(once) == 3 and once == sorted(once, reverse=True)
    assert [float(value) for value in found["twice"].split()] == once[::-1]
    assert found["wide"] == "false"  # a phone scrolls tables, not the page
    assert found["heading"] == "masks of true: 8 images, 2 runs"
    assert "<title>masks of true: 8 images, 2 runs</title>" in document
    assert document.count("<figure") == document.count("data:image/jpeg") == 12


@pytest.mark.skipif(not CHROMIUM, reason="no Chromium here; .ci/run installs it")
def test_the_check_above_sees_an_error(page):
    _, console = in_chromium(page, "throw new Error('planted')")
    assert "planted" in console


@pytest.mark.skipif(not CHROMIUM, reason="no Chromium here; .ci/run installs it")
def test_a_screenshot_is_not_empty(page, tmp_path):
    picture = tmp_path / "page.png"
    in_chromium(page, "", f"--screenshot={picture}", "--window-size=1200,1600")
    assert cv2.imread(str(picture)).std() > 20
