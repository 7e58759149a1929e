"""The report page for everybody, in Chromium: phones, dark rooms, paper, the keyboard alone, few colours, no sight."""

import re
from html.parser import HTMLParser
from pathlib import Path

import pytest
from browser import Tab, chromium, opened
from report_pages import page_of_everything, page_of_masks

from segloss.report.color_vision import linear
from segloss.report.pages import RUN_COLORS


@pytest.fixture(scope="module")
def page(tmp_path_factory) -> Path:
    return page_of_masks(tmp_path_factory.mktemp("masks"))


@pytest.fixture(scope="module")
def full_page(tmp_path_factory) -> Path:
    return page_of_everything(tmp_path_factory.mktemp("full"))


@pytest.fixture(scope="module")
def tab(tmp_path_factory):
    with opened(tmp_path_factory.mktemp("profile")) as made:
        yield made


UNFOLD = "document.querySelectorAll('details').forEach((part) => { part.open = true; });"
ENLARGE = "document.querySelectorAll('.panels').forEach((button) => button.click());"
FRAME = "await new Promise((done) => requestAnimationFrame(() => setTimeout(done)));"  # what follows a change is done
OVERFLOW = "const root = document.documentElement; const overflow = () => root.scrollWidth - root.clientWidth;"

# Contrast of each text with what is behind it: [ratio, least ratio wanted, text].
CONTRASTS = """
    const read = (color) => {
      const numbers = color.match(/[0-9.e-]+/g).map(Number);
      const scale = color.startsWith("color(srgb") ? 255 : 1;
      return [...numbers.slice(0, 3).map((number) => number * scale), numbers[3] ?? 1];
    };
    const over = (top, below) => top.slice(0, 3).map((part, place) => part * top[3] + below[place] * (1 - top[3]));
    const behind = (element) => {
      if (!element) return [255, 255, 255];
      const back = read(getComputedStyle(element).backgroundColor);
      return back[3] === 1 ? back.slice(0, 3) : over(back, behind(element.parentElement));
    };
    const linear = (x) => x <= 0.04045 ? x / 12.92 : ((x + 0.055) / 1.055) ** 2.4;
    const light = (rgb) => {
      const [r, g, b] = rgb.map((part) => linear(part / 255));
      return 0.2126 * r + 0.7152 * g + 0.0722 * b;
    };
    const texts = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
    const found = [];
    while (texts.nextNode()) {
      const element = texts.currentNode.parentElement, text = texts.currentNode.data.trim();
      if (!text || ["SCRIPT", "STYLE", "OPTION"].includes(element.tagName) || !element.checkVisibility()) continue;
      const style = getComputedStyle(element), back = behind(element);
      const front = over(read(element.closest("svg") ? style.fill : style.color), back);
      const [high, low] = [light(front), light(back)].sort((a, b) => b - a);
      const size = parseFloat(style.fontSize), large = size >= 24 || (size >= 18.66 && style.fontWeight >= 700);
      found.push([(high + 0.05) / (low + 0.05), large ? 3 : 4.5, text]);
    }
    return found;
"""


@chromium
@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [390, 1280])
@pytest.mark.parametrize("which", ["page", "full_page"])
def test_it_fits_logs_nothing_and_can_be_read(tab: Tab, which, width, scheme, request):
    tab.open(request.getfixturevalue(which), width, scheme=scheme)
    tab.console.clear()
    script = f"{UNFOLD} {OVERFLOW} const before = overflow(); {ENLARGE} return [innerWidth, before, overflow()];"
    assert tab.run(script) == [width, 0, 0]
    contrasts = tab.run(CONTRASTS)
    assert len(contrasts) > 100
    assert [found for found in contrasts if found[0] < found[1]] == []
    assert tab.console == []


@chromium
def test_the_checks_above_see_what_they_look_for(tab: Tab, page):
    tab.open(page, 390)
    pale = "const pale = document.createElement('p'); pale.textContent = 'pale'; pale.style.color = '#999';"
    wide = "pale.style.minWidth = '500px'; document.querySelector('main').append(pale);"
    assert tab.run(f"{pale} {wide} {OVERFLOW} return overflow();") > 100
    assert [text for ratio, least, text in tab.run(CONTRASTS) if ratio < least] == ["pale"]
    tab.run("setTimeout(() => { throw new Error('planted'); }); await new Promise((done) => setTimeout(done, 50));")
    assert "planted" in " ".join(tab.console)


def test_bars_stand_out_from_the_light_page_and_the_dark_one():
    def brightness(color: str) -> float:
        rgb = [int(color[place : place + 2], 16) for place in (1, 3, 5)]
        return float(linear([rgb])[0] @ (0.2126, 0.7152, 0.0722))

    for color in RUN_COLORS:
        for back in ("#ffffff", "#0d1117"):
            low, high = sorted((brightness(color), brightness(back)))
            assert (high + 0.05) / (low + 0.05) >= 3, (color, back)


CONTROLS = "a, button, summary, select, [tabindex='0']"
WHERE = """
    const at = document.activeElement, style = getComputedStyle(at);
    const ring = style.outlineStyle !== "none" && parseFloat(style.outlineWidth) >= 1;
    return [[...document.querySelectorAll(CONTROLS)].indexOf(at), ring];
""".replace("CONTROLS", f'"{CONTROLS}"')


@chromium
def test_the_tab_key_reaches_every_control_in_order_and_shows_where_it_is(tab: Tab, full_page):
    tab.open(full_page, 390)
    count = tab.run(f"{UNFOLD} {FRAME} return document.querySelectorAll(`{CONTROLS}`).length;")
    places = []
    for _ in range(count):
        tab.press("Tab")
        places.append(tab.run(WHERE))
    assert count > 60 and places == [[place, True] for place in range(count)]


@chromium
def test_keys_sort_unfold_scroll_enlarge_and_filter(tab: Tab, full_page):
    tab.open(full_page, 390)
    focus = "const at = document.querySelector(`{}`); at.focus({{ focusVisible: true }});"
    tab.run(focus.format("#runs + .table th:nth-child(2) button"))
    tab.press("Enter")
    assert tab.run("return document.activeElement.closest('th').ariaSort;") == "descending"
    tab.press("Space")
    assert tab.run("return document.activeElement.closest('th').ariaSort;") == "ascending"
    tab.run(focus.format("#runs + .table .scroll"))
    assert tab.run("return document.activeElement.scrollLeft;") == 0
    tab.press("ArrowRight")
    tab.run("await new Promise((done) => setTimeout(done, 400));")  # it scrolls smoothly
    assert tab.run("return document.activeElement.scrollLeft;") > 0
    tab.run(focus.format("summary"))
    tab.press("Enter")
    assert tab.run("return document.activeElement.parentElement.open;") is True
    tab.run(focus.format(".panels"))
    tab.press("Enter")
    assert tab.run("return document.activeElement.ariaPressed;") == "true"
    tab.run(focus.format("select[name=class]"))
    tab.press("ArrowDown")
    assert tab.run("return document.querySelector('select[name=class]').value;") == "0"


@chromium
def test_a_table_that_is_cut_off_says_so_and_keeps_its_names(tab: Tab, full_page):
    script = """
        const table = document.querySelector("#runs + .table"), region = table.querySelector(".scroll");
        const said = () => getComputedStyle(table, "::after").content;
        FRAME
        const name = region.querySelector("tbody th"), left = name.getBoundingClientRect().left;
        const before = [said(), region.tabIndex];
        region.scrollLeft = 99999;
        FRAME
        const moved = name.getBoundingClientRect().left - left;
        return [...before, said(), moved, region.role, region.ariaLabel];
    """.replace("FRAME", FRAME)
    tab.open(full_page, 390)
    assert tab.run(script) == ['"more to the right →"', 0, "none", 0, "region", "Means of each run (%)"]
    tab.open(full_page, 1280)
    assert tab.run(script.replace("#runs", "#ranking"))[:2] == [
        "none",
        -1,
    ]  # all of it is there, and no stop of the tab key


@chromium
def test_the_runs_of_a_usual_evaluation_fit_a_laptop(tab: Tab, page):
    tab.open(page, 1280)
    assert tab.run("return document.querySelectorAll('.table.cut').length;") == 0


FILTER = """
    const form = document.querySelector(".filter");
    form.elements.class.value = CLASS; form.elements.kind.value = KIND;
    form.elements.kind.dispatchEvent(new Event("change", { bubbles: true }));
    const visible = (list) => [...list.children].filter((card) => !card.hidden);
    const shown = [...document.querySelectorAll(".cards")].map(visible);
    const texts = shown.flat().map((card) => card.querySelector(".found").textContent);
    return [form.querySelector("output").textContent, shown.map((cards) => cards.length), texts];
"""


@chromium
def test_images_are_filtered_by_class_and_kind_of_error_most_first(tab: Tab, full_page):
    tab.open(full_page)

    def filtered(one: str, kind: str):
        return tab.run(FILTER.replace("CLASS", f"'{one}'").replace("KIND", f"'{kind}'"))

    said, counts, texts = filtered("", "")
    assert said == "12 of 12 images" and counts == [3, 3, 3, 3] and set(texts) == {""}
    said, counts, texts = filtered("1", "missed")  # the lamp, all of which is taken for a wall
    assert said == "12 of 12 images" and all("wrong pixels of lamp, missed" in text for text in texts)
    pixels = [int(re.search("[0-9,]+", text)[0].replace(",", "")) for text in texts]
    assert pixels[:3] == sorted(pixels[:3], reverse=True) and pixels[0] > pixels[2]
    assert filtered("2", "")[:2] == ["0 of 12 images", [0, 0, 0, 0]]  # nobody sees the ghost
    assert tab.run("return [...document.querySelectorAll('#images ~ h3')].every((head) => head.hidden);")
    assert filtered("", "")[0] == "12 of 12 images"
    assert tab.run("return [...document.querySelectorAll('#images ~ h3')].some((head) => head.hidden);") is False


@chromium
def test_pictures_have_texts_and_their_size_so_that_nothing_moves(tab: Tab, full_page):
    tab.open(full_page)
    pictures = tab.run("""
        await Promise.all([...document.images].map((image) => image.decode()));
        const sizes = (image) => [image.getAttribute("width"), image.getAttribute("height")].map(Number);
        const natural = (image) => [image.naturalWidth, image.naturalHeight];
        return [...document.images].map((image) => [image.alt, sizes(image), natural(image)]);
    """)
    assert len(pictures) == 2 + 12 * 4
    for text, given, natural in pictures:
        assert given == natural and len(text) > 5
    assert "truth of f0: lamp" in " ".join(text for text, *_ in pictures)
    drawn = tab.run("""
        const silent = (drawing) => drawing.closest("[aria-hidden=true]") && drawing.parentElement.textContent.trim();
        return [...document.querySelectorAll("svg")].map((drawing) => !!silent(drawing));
    """)
    assert len(drawn) > 15 and all(drawn)  # beside each stands its number


@chromium
@pytest.mark.parametrize("which", ["page", "full_page"])
def test_paper_holds_all_of_it(tab: Tab, which, request):
    tab.open(request.getfixturevalue(which), 718, scheme="dark")  # A4 without its margins
    tab.call("Emulation.setEmulatedMedia", media="print")
    try:
        found = tab.run("""
            const all = [...document.querySelectorAll("table, img, .class, dl, .confused")];
            const wide = [...document.querySelectorAll("table.sortable")].filter((table) => table.scrollWidth > 718);
            const back = getComputedStyle(document.documentElement).getPropertyValue("--back").trim();
            const seen = all.filter((part) => part.checkVisibility({ contentVisibilityAuto: true })).length;
            return [all.length - seen, wide.length, back, document.querySelectorAll("details:not([open])").length > 0];
        """)
    finally:
        tab.call("Emulation.setEmulatedMedia", media="")
    assert found == [0, 0, "#fff", True]
    assert tab.pdf().startswith(b"%PDF")
    assert tab.run("return document.querySelectorAll('details:not([open])').length;") > 0  # folded again


class Classes(HTMLParser):
    """``orders``: the class names of each place that lists all of them, in its order."""

    def __init__(self, page: Path, names: set[str]):
        super().__init__()
        self.names, self.text = names, []
        self.feed(page.read_text())
        self.orders = []
        for word in self.text:
            if word in names:
                if not self.orders or word in self.orders[-1]:
                    self.orders.append([])
                self.orders[-1].append(word)

    def handle_data(self, data):
        if data.strip():
            self.text.append(data.strip())


def test_classes_come_in_one_order_everywhere(page):
    names = {"wall", "lamp", "<script>document.title = `broken`</script>"}
    orders = [order for order in Classes(page, names).orders if len(order) == 3]
    pixels = re.findall(r"<strong>([^<]+)</strong> <span class=\"quiet\">([\d,]+) pixels", page.read_text())
    counts = [int(number.replace(",", "")) for _, number in pixels]
    assert len(counts) == 3 and counts == sorted(counts, reverse=True)
    assert len(orders) >= 10 and all(order == orders[0] for order in orders)


def test_every_table_has_a_caption_and_the_page_says_where_it_is_from(page):
    text = page.read_text()
    assert text.count("<table") == text.count("<caption>") == text.count('role="region"') > 5
    said = dict(re.findall(r"<dt>(\w+)</dt><dd>(?:<code>)?([^<]+)", text))
    assert re.fullmatch(r"\d{4}-\d\d-\d\d \d\d:\d\d", said["date"]) and said["version"].startswith("segloss ")
    assert said["command"].startswith("eval_seg.py --predictions ") and said["labels"].endswith("/true")
    assert said["results"] == str(page.parent) and said["predictions"].endswith("good &amp; bold")
