"""What docs say about the house is so: rows of imports, rooms, functions that are named, links."""

import re
from importlib import import_module
from pathlib import Path

import pytest
from test_imports import ROWS

ROOT = Path(__file__).resolve().parents[2]
PAGE = (ROOT / "docs/architecture.md").read_text(encoding="utf-8")
PAGES = [*sorted(ROOT.glob("*.md")), *sorted((ROOT / "docs").glob("*.md")), ROOT / ".github/PULL_REQUEST_TEMPLATE.md"]
EXAMPLES = {"poly", "loveda", "presence"}  # of CONTRIBUTING.md's walks: not there, but written by test_contributing.py


def rows_of(page: str) -> list[set[str]]:
    """The plain-text picture, from the ground up."""
    blocks = re.findall(r"^```(\w*)\n(.*?)^```", page, flags=re.DOTALL | re.MULTILINE)
    (block,) = [text for language, text in blocks if not language]
    rows: list[set[str]] = []
    for line in block.splitlines():
        names = line.split("|")[0].split()
        if line.startswith(" "):  # a row that goes on
            rows[-1] |= {*names}
        else:
            rows.append({*names})
    return rows[::-1]


def test_the_rows_are_those_that_the_import_test_holds():
    assert rows_of(PAGE) == ROWS


def test_every_room_is_in_the_picture():
    picture = re.search(r"^```mermaid\n(.*?)^```", PAGE, flags=re.DOTALL | re.MULTILINE)[1]
    for room in set().union(*ROWS) - {"errors", "files", "options", "progress"}:
        assert re.search(rf"\b{room}\b", picture), room


@pytest.mark.parametrize("name", sorted(set(re.findall(r"`(segloss\.[\w.]+)`", PAGE)) - {"segloss.datasets"}))
def test_what_the_page_names_is_there(name):
    parts = name.split(".")
    length = next(n for n in range(len(parts), 0, -1) if is_module(".".join(parts[:n])))
    found = import_module(".".join(parts[:length]))
    for attribute in parts[length:]:
        found = getattr(found, attribute)
    assert found is not None


def is_module(name: str) -> bool:
    parts = name.split(".")
    return any((ROOT.joinpath(*parts[:-1], f"{parts[-1]}{end}")).exists() for end in ("", ".py"))


def test_the_glossary_has_eight_words_of_one_line():
    rows = PAGE.split("## Our own words")[1].strip().splitlines()[2:]
    assert len(rows) == 8 and all(row.count("|") == 3 for row in rows)


def anchor(heading: str) -> str:
    """As GitHub makes them."""
    return re.sub(r"[^\w\- ]", "", heading.strip().lower()).replace(" ", "-")


def prose(page: Path) -> str:
    return re.sub(r"^```.*?^```", "", page.read_text(encoding="utf-8"), flags=re.DOTALL | re.MULTILINE)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_lead_somewhere(page):
    for link in re.findall(r"\]\(([^)\s]+)\)", prose(page)):
        if re.match(r"\w+:", link):
            continue
        name, _, place = link.partition("#")
        target = (page.parent / name).resolve() if name else page
        assert target.exists(), f"{page.name}: {link}"
        if place:
            assert place in {anchor(heading) for heading in re.findall(r"^#+ (.*)", prose(target), flags=re.MULTILINE)}


@pytest.mark.parametrize("page", [ROOT / "CONTRIBUTING.md", ROOT / "README.md"], ids=lambda page: page.name)
def test_files_that_are_named_exist(page):
    named = re.findall(r"`((?:segloss|datasets|tests|docs|benchmarks)/[\w./]*)`", page.read_text(encoding="utf-8"))
    missing = {name for name in named if not (ROOT / name).exists()}
    assert {re.sub(r"^test_", "", Path(name).stem) for name in missing} <= EXAMPLES, missing


def test_the_map_has_ten_lines_and_names_what_there_is():
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    lines = re.search(r"^## Map\n\n```\n(.*?)```", readme, flags=re.DOTALL | re.MULTILINE)[1].splitlines()
    assert len(lines) <= 10
    for line in lines:
        for name in re.split(r"\s{2,}", line)[0].split():
            assert (ROOT / name).exists(), name


def test_every_make_target_that_docs_name_is_one():
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    for page in PAGES:
        for target in re.findall(r"\bmake (test[\w-]*|lint|demo)\b", page.read_text(encoding="utf-8")):
            assert re.search(rf"^{target}:", makefile, flags=re.MULTILINE), f"{page.name}: make {target}"
