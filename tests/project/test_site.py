"""The pages on GitHub and as a site: links lead somewhere on both, and nothing public is left out."""

import importlib.util
import json
import re
import sys
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).resolve().parents[2]
PAGES = sorted([*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md")])
FENCED = re.compile(r"^(```|~~~).*?^\1$", flags=re.DOTALL | re.MULTILINE)
LINK = re.compile(r"\]\((?!\w+:)([^)#\s]*)(?:#([^)\s]+))?\)")


class Loader(yaml.SafeLoader):
    """YAML of mkdocs: its Python names are none of this test's business."""


Loader.add_multi_constructor("tag:yaml.org,2002:python/", lambda loader, suffix, node: None)


def anchors(page: Path) -> set[str]:
    """The anchors that GitHub gives a page's headings."""
    found: dict[str, int] = {}
    for title in re.findall(r"^#+ +(.*)$", FENCED.sub("", page.read_text(encoding="utf-8")), flags=re.MULTILINE):
        plain = re.sub(r"\[([^\]]*)\]\([^)]*\)", r"\1", title.strip())
        slug = re.sub(r"[^\w\- ]", "", plain.lower()).replace(" ", "-")
        found[slug] = found.get(slug, -1) + 1
        if found[slug]:
            found[f"{slug}-{found[slug]}"] = 0
    return {*found}


def lost_links(page: Path) -> list[str]:
    """Links of a page to what is not there."""
    lost = []
    for target, anchor in LINK.findall(re.sub(r"`[^`\n]*`", "", FENCED.sub("", page.read_text(encoding="utf-8")))):
        other = (page.parent / target).resolve() if target else page
        if not other.exists() or (anchor and other.suffix == ".md" and anchor not in anchors(other)):
            lost.append(f"{target}#{anchor}")
    return lost


def named(entry) -> list[str]:
    if isinstance(entry, str):
        return [entry]
    return [page for part in (entry.values() if isinstance(entry, dict) else entry) for page in named(part)]


@pytest.fixture(scope="module")
def navigation() -> list[str]:
    return named(yaml.load((ROOT / "mkdocs.yml").read_text(encoding="utf-8"), Loader)["nav"])


@pytest.fixture(scope="module")
def pages():
    """The hook that makes pages, where mkdocs is installed."""
    pytest.importorskip("mkdocs")
    spec = importlib.util.spec_from_file_location("pages", ROOT / "docs/site/pages.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.relative_to(ROOT).as_posix())
def test_every_link_leads_somewhere_on_github(page):
    assert not lost_links(page)


def test_a_link_that_leads_nowhere_is_seen(tmp_path):
    (tmp_path / "a.md").write_text("# A b\n[x](b.md) [y](#a-b) [z](#c) `[not](one.md)`\n")
    assert lost_links(tmp_path / "a.md") == ["b.md#", "#c"]


def test_every_page_of_docs_stands_in_the_navigation(navigation):
    in_docs = {page.relative_to(ROOT / "docs").as_posix() for page in PAGES if ROOT / "docs" in page.parents}
    assert in_docs <= {*navigation} and len(navigation) == len({*navigation})


def test_every_module_of_the_reference_is_there_and_what_is_public_is_in_it(navigation):
    modules = [Path(page).stem for page in navigation if page.startswith("reference/segloss")]
    for module in modules:
        assert importlib.util.find_spec(module), module
    core = {"losses", "metrics", "iou_rule", "pixel_counts", "runs", "datasets", "adapters", "export", "inference"}
    assert {f"segloss.{name}" for name in core} <= {*modules}
    import segloss

    homes = {getattr(segloss, name).__module__ for name in segloss.__all__ if name != "IGNORE_INDEX"}
    for home in homes:
        assert any(home == module or home.startswith(f"{module}.") for module in modules if module != "segloss"), home


def test_the_notebook_becomes_a_page_with_code_text_and_pictures(pages):
    cells = [
        {"cell_type": "markdown", "source": ["# Title\n", "words"]},
        {
            "cell_type": "code",
            "source": ["1 + 1"],
            "outputs": [
                {"output_type": "stream", "text": ["two\n", "lines\n"]},
                {"output_type": "display_data", "data": {"image/png": "aGk=\n", "text/plain": ["<Figure>"]}},
            ],
        },
    ]
    assert pages.notebook_as_markdown(json.dumps({"cells": cells})) == (
        "# Title\nwords\n\n```python\n1 + 1\n```\n\n```text\ntwo\nlines\n```\n\n![output](data:image/png;base64,aGk=)\n"
    )


def test_bars_in_code_of_tables_lose_their_backslash_as_on_github(pages):
    row = re.match(r".*", r"| `a\|b` | c\|d |")
    assert pages._pipes_in_code(row) == r"| `a|b` | c\|d |"


def test_equations_examples_and_roles_of_docstrings_are_turned():
    griffe = pytest.importorskip("griffe")
    spec = importlib.util.spec_from_file_location("docstrings", ROOT / "docs/site/docstrings.py")
    docstrings = importlib.util.module_from_spec(spec)
    sys.modules["docstrings"] = docstrings
    spec.loader.exec_module(docstrings)
    with griffe.temporary_visited_module("def f(): ...\n", module_name="segloss") as module:
        text = "See :func:`f`, :func:`gone`.\n\n.. math::\n    x^2\n\n>>> f()\n1\n\nthus::\n\n    code\n"
        turned = docstrings.as_markdown(text, module)
    assert '<autoref identifier="segloss.f" optional><code>f</code></autoref>, `gone`.' in turned
    assert "<msup><mi>x</mi><mn>2</mn></msup>" in turned and "math::" not in turned
    assert "```pycon\n>>> f()\n1\n```" in turned and "thus:\n" in turned
