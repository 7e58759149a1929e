"""The demo: the page's answers are the run's, bad files and foreign requests get one line, and it works in Chromium."""

import http.client
import json
import re
import signal
import socket
import struct
import subprocess
import sys
import threading
import urllib.error
import urllib.request
import zlib
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace
from urllib.parse import quote, urlencode

import cv2
import numpy as np
import pytest
import torch
from browser import HEADLESS, chromium
from tiny_runs import tiny_run

import segloss
from segloss.datasets import ClassTable
from segloss.datasets.bands import RGB
from segloss.datasets.street_scenes import render_street
from segloss.demo import answers, server
from segloss.demo.answers import Answers
from segloss.demo.command import main
from segloss.demo.server import DemoServer
from segloss.errors import InputError
from segloss.losses import CrossEntropyLoss

ROOT = Path(__file__).resolve().parents[2]
PAGE = ROOT / "segloss/demo/page"
IMAGE = render_street(3, "test", 0, 64, 96)[0]


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    return tiny_run(tmp_path_factory.mktemp("tiny"))


@pytest.fixture(scope="module")
def run(folder):
    return segloss.load_run(folder)


@contextmanager
def serving(of: Answers, **where):
    with DemoServer(of, **{"port": 0, **where}) as made:
        thread = threading.Thread(target=made.serve_forever, kwargs={"poll_interval": 0.02})
        thread.start()
        try:
            yield made
        finally:
            made.shutdown()
            thread.join()


@pytest.fixture
def demo(run):
    with serving(Answers(run)) as made:
        yield made


def png(image: np.ndarray) -> bytes:
    return cv2.imencode(".png", image[..., ::-1])[1].tobytes()


def asked(demo, path: str, content: bytes | None = None, **headers: str) -> tuple[int, bytes, dict]:
    """Status, content and headers of an answer, also of a refusal."""
    request = urllib.request.Request(f"{demo.url.rstrip('/')}{path}", content, headers)
    try:
        with urllib.request.urlopen(request, timeout=30) as answer:
            return answer.status, answer.read(), dict(answer.headers)
    except urllib.error.HTTPError as error:
        return error.code, error.read(), dict(error.headers)


def sent(demo, name: str, content: bytes, **headers: str) -> tuple[int, dict]:
    status, answer, _ = asked(demo, "/images", content, **{"X-File-Name": quote(name), **headers})
    return status, json.loads(answer)


def decided(demo, number: int, words: str) -> bytes:
    status, content, _ = asked(demo, f"/decided?{urlencode({'image': number, 'decision': words})}")
    assert status == 200, content
    return content


# ---- answers


def test_classes_and_probabilities_are_those_of_the_run(demo, run):
    status, found = sent(demo, "street.png", png(IMAGE))
    assert (status, found["width"], found["height"]) == (200, 96, 64)
    posterior = run.posterior(torch.from_numpy(IMAGE.transpose(2, 0, 1).copy())[None])[0].numpy()
    for words in ("plain", "tau 0.0", "tau 0.45", "iou", "prior 0.5"):
        content = np.frombuffer(decided(demo, found["image"], words), np.uint8).reshape(2, 64, 96)
        classes = run.predict(IMAGE, words)
        assert np.array_equal(content[0], classes)
        expected = 255 * np.take_along_axis(posterior, classes[None].astype(int), 0)[0]
        assert np.abs(content[1] - expected).max() <= 0.501


def test_what_the_page_shows_is_what_the_network_saw(demo):
    _, found = sent(demo, "Straße 1.PNG", png(IMAGE))
    _, content, headers = asked(demo, f"/picture?image={found['image']}")
    shown = cv2.imdecode(np.frombuffer(content, np.uint8), cv2.IMREAD_COLOR)[..., ::-1]
    assert headers["Content-Type"] == "image/jpeg" and np.abs(shown.astype(int) - IMAGE).mean() < 6


def test_the_page_is_told_what_it_needs_of_the_run(demo, run):
    facts = json.loads(asked(demo, "/run.json")[1])
    assert facts["name"] == "run" and facts["takes"] == "8-bit RGB"
    assert [one["name"] for one in facts["classes"]] == list(run.classes.names)
    assert [one["words"] for one in facts["decisions"]] == ["plain", "tau", "iou"]
    assert facts["start"] in ("plain", "iou") and facts["decisions"][1]["slider"] is True


class FewScores:
    """Stands in for a run: an image's scores are drawn, of any number of classes."""

    def __init__(self, classes: int = 3):
        self.classes = ClassTable(tuple(f"class {c}" for c in range(classes)))
        self.criterion = self.reader = CrossEntropyLoss()
        self.bands, self.name = RGB, "few"
        self.config = SimpleNamespace(arch="a", encoder="b", loss="ce")
        self.kept = SimpleNamespace(rule=None, point=None, calibration=None, decision=None)

    def scores(self, image):
        generator = torch.Generator().manual_seed(int(image.sum()))
        return torch.randn(1, len(self.classes), *image.shape[:2], generator=generator)

    def decision_of(self, words):
        return words

    def decode(self, logits, decision):
        return logits.argmax(1)


def test_a_loss_without_tilt_says_that_tau_moves_nothing():
    facts = Answers(FewScores()).facts()
    assert [one["words"] for one in facts["decisions"]] == ["plain", "tau"]
    assert facts["decisions"][1]["slider"] is False and "moves nothing" in facts["decisions"][1]["note"]


def test_of_many_classes_a_number_has_two_bytes():
    few = FewScores(300)
    made = Answers(few)
    number = made.look("a.png", png(IMAGE))["image"]
    content = made.decided(number, "plain")
    classes = np.frombuffer(content[: 2 * 64 * 96], "<u2").reshape(64, 96)
    assert np.array_equal(classes, few.scores(IMAGE).argmax(1)[0].numpy()) and classes.max() > 255
    assert len(content) == 3 * 64 * 96


def test_the_oldest_images_are_forgotten_and_that_is_said(monkeypatch):
    monkeypatch.setattr(answers, "MOST_SCORES", 2 * IMAGE.size)
    with serving(Answers(FewScores())) as demo:
        numbers = [sent(demo, "a.png", png(IMAGE))[1]["image"] for _ in range(3)]
        status, content, _ = asked(demo, f"/decided?image={numbers[0]}&decision=plain")
        assert (status, json.loads(content)["error"]) == (410, "the image is no longer kept here; choose it again")
        assert len(decided(demo, numbers[1], "plain")) == len(decided(demo, numbers[2], "plain")) == 2 * 64 * 96


def test_scores_that_are_no_numbers_are_told():
    few = FewScores()
    few.scores = lambda image: torch.full((1, 3, *image.shape[:2]), float("nan"))
    with pytest.raises(InputError, match=r"a\.png: the network's scores of it are NaN or infinite"):
        Answers(few).look("a.png", png(IMAGE))


# ---- refusals


def huge_png() -> bytes:
    """The beginning of a picture of 100,000 x 100,000 pixels."""
    head = b"IHDR" + struct.pack(">IIBBBBB", 100_000, 100_000, 8, 2, 0, 0, 0)
    chunks = [(head[:4], head[4:]), (b"IDAT", zlib.compress(b"\0" * 100)), (b"IEND", b"")]
    parts = [struct.pack(">I", len(d)) + k + d + struct.pack(">I", zlib.crc32(k + d)) for k, d in chunks]
    return b"\x89PNG\r\n\x1a\n" + b"".join(parts)


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("notes.txt", b"hello", r"notes\.txt: is no image that is read here; known are \.png, "),
        ("image", png(IMAGE), "image: is no image that is read here"),
        ("text.png", b"hello", r"text\.png: is not a readable image; this run takes images of 8-bit RGB"),
        ("empty.jpg", b"", r"empty\.jpg: is not a readable image"),
        ("cut.png", png(IMAGE)[:-400], r"cut\.png: is cut off; this run takes images of 8-bit RGB"),
        ("huge.png", huge_png(), r"huge\.png: is 100000 x 100000, more than the 16,777,216 pixels, 16,384 a side"),
        ("long.png", png(np.zeros((1, 16385, 3), np.uint8)), r"long\.png: is 16385 x 1, more than"),
        ("a/../<b>.png", b"", r"a/\.\./<b>\.png: is not a readable image"),
    ],
)
def test_a_file_that_cannot_be_seen_is_one_line(demo, name, content, message):
    status, answer = sent(demo, name, content)
    assert status == 422 and re.match(message, answer["error"]), answer
    assert "\n" not in answer["error"] and "/tmp" not in answer["error"]


def test_a_file_that_is_too_long_is_read_past_and_told(demo, monkeypatch):
    monkeypatch.setattr(server, "MOST_BYTES", 2**20)
    status, answer = sent(demo, "long.png", bytes(3 * 2**20))
    assert (status, answer["error"]) == (413, "long.png: has 3.0 MiB, more than the 1 that are taken; make it smaller")


@pytest.mark.parametrize(
    ("path", "status", "message"),
    [
        ("/nothing", 404, "there is no such page"),
        ("/../../setup.cfg", 404, "there is no such page"),
        ("/picture", 404, "there is no such page"),
        ("/picture?image=-1", 404, "there is no such page"),
        ("/picture?image=999", 410, "no longer kept"),
        ("/decided?image=999", 410, "no longer kept"),
        ("/decided?image=1&decision=loud", 422, "decision must be plain, tau VALUE, prior VALUE, iou or auto"),
        ("/decided?image=1&decision=tau+nan", 422, "decision must be"),
    ],
)
def test_what_is_not_there_is_one_line(demo, path, status, message):
    found, content, _ = asked(demo, path)
    assert found == status and message in json.loads(content)["error"]


def raw(demo, method: str, path: str, headers: dict[str, str], body: bytes = b"") -> tuple[int, str]:
    """A request with these headers and no others."""
    connection = http.client.HTTPConnection(*demo.server_address[:2], timeout=30)
    connection.putrequest(method, path, skip_host=True, skip_accept_encoding=True)
    for name, value in headers.items():
        connection.putheader(name, value)
    connection.endheaders(body)
    answer = connection.getresponse()
    return answer.status, answer.read().decode()


@pytest.mark.parametrize("host", ["evil.example", "evil.example:{port}", "127.0.0.1.nip.io", "10.0.0.5", "", "["])
def test_a_foreign_host_name_gets_nothing(demo, host):
    status, said = raw(demo, "GET", "/run.json", {"Host": host.format(port=demo.server_address[1])})
    assert status == 421 and "classes" not in said


@pytest.mark.parametrize("host", ["127.0.0.1:{port}", "localhost", "LOCALHOST:9000", "[::1]:{port}"])
def test_names_of_this_machine_are_answered(demo, host):
    status, said = raw(demo, "GET", "/run.json", {"Host": host.format(port=demo.server_address[1])})
    assert status == 200 and "classes" in said


def test_other_pages_cannot_send_images(demo):
    host = demo.url.split("/")[2]
    body = {"Host": host, "Content-Length": "5", "X-File-Name": "a.png"}
    assert raw(demo, "POST", "/images", {**body, "Origin": "http://evil.example"}, b"hello")[0] == 403
    assert raw(demo, "POST", "/images", {**body, "Origin": "null"}, b"hello")[0] == 403
    assert raw(demo, "POST", "/images", {**body, "Origin": f"http://{host}"}, b"hello")[0] == 422
    assert raw(demo, "POST", "/images", {"Host": host})[0] == 411
    assert raw(demo, "POST", "/run.json", body, b"hello")[0] == 404


# ---- the address


def test_it_is_for_this_machine_unless_asked(run):
    with serving(Answers(run)) as made:
        assert made.server_address[0] == "127.0.0.1" and not made.is_open
        assert made.url == f"http://127.0.0.1:{made.server_address[1]}/"
    with serving(Answers(run), host="0.0.0.0") as made:
        assert made.is_open and socket.gethostname() in made.url
        assert made.is_ours("10.0.0.5:80") and made.is_ours(socket.gethostname()) and not made.is_ours("evil.example")


def test_an_address_that_cannot_be_had_is_one_line(demo, run):
    taken = demo.server_address[1]
    for host, port, message in (
        ("127.0.0.1", taken, rf"127\.0\.0\.1:{taken}: cannot be served at: .+; choose another --port"),
        ("no.such.host.invalid", 0, r"no\.such\.host\.invalid:0: cannot be served at: .+"),
        ("", 0, "cannot be served at"),
    ):
        with pytest.raises(InputError, match=message) as error:
            DemoServer(Answers(run), host, port)
        assert "\n" not in str(error.value)


def test_without_a_run_it_says_how():
    with pytest.raises(InputError, match=r"--run must be given: python -m segloss\.demo RUN, got nothing"):
        main([])


def test_the_command_serves_until_it_is_interrupted(folder):
    # Ctrl-C is heeded, though who started the tests in the background may have had it ignored.
    heeding = (
        "import os, signal, sys; signal.signal(signal.SIGINT, signal.SIG_DFL); os.execv(sys.executable, sys.argv[1:])"
    )
    demo = [sys.executable, "-m", "segloss.demo", str(folder), "--port", "0", "--accelerator", "cpu"]
    command = [sys.executable, "-c", heeding, *demo]
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    with subprocess.Popen(command, cwd=ROOT, text=True, **pipes) as process:
        assert process.stdout.readline() == f"loading {folder}\n"
        line = process.stdout.readline()
        found = re.fullmatch(r"run on cpu: (http://127\.0\.0\.1:\d+/) \(Ctrl-C ends it\)\n", line)
        assert found, line + process.stderr.read()
        assert asked(SimpleNamespace(url=found[1]), "/")[0] == 200
        process.send_signal(signal.SIGINT)
        try:
            said, faults = process.communicate(timeout=60)
        finally:
            process.kill()
    assert (process.returncode, said, faults) == (0, "ended\n", "")


def test_closing_waits_for_an_answer_and_for_nobody_who_asks_nothing(run, monkeypatch):
    begun, may_go_on = threading.Event(), threading.Event()
    facts = Answers.facts

    def slow(self):
        begun.set()
        assert may_go_on.wait(30)
        return facts(self)

    monkeypatch.setattr(Answers, "facts", slow)
    monkeypatch.setattr(server.DemoHandler, "timeout", None)
    before, answered = threading.active_count(), []
    with serving(Answers(run)) as demo:
        silent = [socket.create_connection(demo.server_address[:2]) for _ in range(3)]
        asking = threading.Thread(target=lambda: answered.append(asked(demo, "/run.json")[0]))
        asking.start()
        assert begun.wait(30)
        timer = threading.Timer(0.2, may_go_on.set)
        timer.start()
    asking.join(30)
    timer.join(30)
    assert answered == [200] and threading.active_count() == before
    for connection in silent:
        assert connection.recv(1) == b""
        connection.close()


# ---- the page


def test_the_page_needs_nothing_from_outside(demo):
    for path in ("/", "/demo.css", "/demo.js", "/paint.js"):
        status, content, headers = asked(demo, path)
        assert status == 200 and b"http:" not in content and b"https:" not in content and b"//cdn" not in content
        assert "default-src 'none'" in headers["Content-Security-Policy"]
        assert headers["X-Content-Type-Options"] == "nosniff"
    assert {f"/{path.name}" for path in PAGE.iterdir()} - {"/index.html"} == {*server.PAGES} - {"/"}
    text = (PAGE / "index.html").read_text()
    assert "style=" not in text and "onclick" not in text and text.count("<script") == 1  # the policy forbids them


def test_every_knob_of_the_page_has_a_name():
    text = (PAGE / "index.html").read_text()
    inside = re.sub(r"<label.*?</label>", lambda label: label[0].replace("<input", "<named"), text, flags=re.DOTALL)
    assert "<named" in inside and "<input" not in inside and text.count("<fieldset>") == text.count("<legend>")


HARNESS = """
const found = {};
const frame = (ms) => new Promise((resolve) => setTimeout(resolve, ms));
const until = async (what) => { for (let i = 0; i < 400 && !what(); i++) await frame(25); return what(); };
const $ = (id) => document.getElementById(id);
const settled = () => until(() => !$("stage").hidden && $("stage").ariaBusy === "false" && $("told").textContent);
const drop = async (name, content) => {
  const dataTransfer = new DataTransfer();
  dataTransfer.items.add(new File([content], name));
  window.dispatchEvent(new DragEvent("drop", { dataTransfer, bubbles: true, cancelable: true }));
};
const number = (each) => Number(each.textContent.match(/[0-9.]+/)[0]);
const shares = () => [...document.querySelectorAll("#classes .numbers")].map(number);
const page = document.documentElement;
await until(() => document.body.dataset.ready);
const image = await (await fetch("sample.png")).arrayBuffer();
try { await (async () => { SCRIPT })(); } catch (error) { found.failed = String(error.stack); }
(parent === window ? document : parent.document).body.dataset.found = JSON.stringify(found);
"""


@pytest.fixture
def in_page(demo, monkeypatch):
    """Runs a script in the page, alone or in a frame of a phone's width; what it found, with nothing on the console."""
    policy = server.HEADERS["Content-Security-Policy"]
    monkeypatch.setitem(server.HEADERS, "Content-Security-Policy", f"{policy}; frame-src 'self'")
    index = demo.pages["/"][1].replace(b"</body>", b'<script type="module" src="harness.js"></script></body>')
    frame = b'<!doctype html><body><iframe src="/" width="390" height="844" frameborder="0"></iframe></body>'
    demo.pages["/sample.png"] = ("image/png", png(IMAGE))
    demo.pages["/"] = ("text/html; charset=utf-8", index)
    demo.pages["/phone"] = ("text/html; charset=utf-8", frame)

    def found(script: str, *flags: str, path: str = "") -> dict:
        demo.pages["/harness.js"] = ("text/javascript", HARNESS.replace("SCRIPT", script).encode())
        command = [*HEADLESS, "--virtual-time-budget=20000", *flags, f"{demo.url}{path}"]
        done = subprocess.run(command, capture_output=True, text=True, timeout=120)
        assert [line for line in done.stderr.splitlines() if "CONSOLE" in line] == []
        return json.loads(re.search(r'data-found="([^"]*)"', done.stdout)[1].replace("&quot;", '"'))

    return found


@chromium
def test_a_dropped_image_is_decided_shown_and_described(in_page, run):
    found = in_page("""
        await drop("street.png", image);
        await settled();
        found.status = $("status").textContent;
        found.shares = shares();
        found.first = document.querySelector("#classes button span:nth-child(2)").textContent;
        const box = $("stage").getBoundingClientRect();
        const at = { clientX: box.left + box.width * 0.505, clientY: box.top + box.height * 0.505 };
        $("stage").dispatchEvent(new PointerEvent("pointermove", at));
        found.told = $("told").textContent;
        found.tip = $("tip").textContent;
        const pixels = $("paint").getContext("2d").getImageData(48, 32, 1, 1).data;
        found.color = [...pixels].join();
        document.querySelector("[name=decision][value=plain]").click();
        await settled();
        found.plain = shares();
        document.querySelector("#classes button").click();
        found.pressed = document.querySelector("#classes button").ariaPressed;
        document.querySelector("[name=view][value=confidence]").click();
        found.scale = !$("scale").hidden;
        document.querySelector("[name=view][value=image]").click();
        found.hidden = $("paint").hidden;
    """)
    assert "failed" not in found, found["failed"]
    start = "auto" if run.kept.decision is not None else "plain"
    classes = run.predict(IMAGE, start)
    assert found["status"] == "street.png, 96 x 64"
    counted = np.bincount(classes.ravel(), minlength=len(run.classes)) / classes.size
    assert found["shares"] == pytest.approx(sorted(100 * counted[counted > 0], reverse=True), abs=0.051)
    assert found["first"] == run.classes.names[counted.argmax()]
    c = classes[32, 48]
    assert re.fullmatch(rf"x 48, y 32: {run.classes.names[c]}, (< )?\d+\.\d %", found["told"])
    assert found["told"].endswith(found["tip"]) and found["color"] == ",".join(map(str, (*run.classes.colors[c], 255)))
    plain = np.bincount(run.predict(IMAGE).ravel(), minlength=len(run.classes)) / classes.size
    assert found["plain"] == pytest.approx(sorted(100 * plain[plain > 0], reverse=True), abs=0.051)
    assert (found["pressed"], found["scale"], found["hidden"]) == ("true", True, True)


@chromium
def test_tau_moves_and_keys_move_the_point(in_page, run):
    found = in_page("""
        await drop("street.png", image);
        await settled();
        const slider = $("tau");
        slider.value = "0";
        slider.dispatchEvent(new Event("input"));
        await settled();
        found.checked = document.querySelector("[name=decision]:checked").value;
        found.shares = shares();
        $("stage").focus();
        found.focus = document.activeElement === $("stage");
        for (const key of ["ArrowLeft", "ArrowLeft", "ArrowUp"]) {
          $("stage").dispatchEvent(new KeyboardEvent("keydown", { key, cancelable: true }));
        }
        found.told = $("told").textContent.split(":")[0];
    """)
    assert "failed" not in found, found["failed"]
    counted = np.bincount(run.predict(IMAGE, "tau 0").ravel(), minlength=len(run.classes)) / IMAGE[..., 0].size
    assert found["checked"] == "tau"
    assert found["shares"] == pytest.approx(sorted(100 * counted[counted > 0], reverse=True), abs=0.051)
    assert found["focus"] and found["told"] == "x 47, y 31"


@chromium
def test_a_bad_file_is_told_and_the_page_goes_on(in_page):
    found = in_page("""
        await drop("notes.txt", "hello");
        await until(() => !$("error").hidden);
        found.error = $("error").textContent;
        await drop("street.png", image);
        await settled();
        found.gone = $("error").hidden;
    """)
    assert found.get("error", "").startswith("notes.txt: is no image that is read here") and found["gone"]


@chromium
def test_on_a_phone_nothing_is_wider_than_the_screen(in_page):
    script = """
        await drop("street.png", image);
        await settled();
        found.width = innerWidth;
        found.overflow = page.scrollWidth - page.clientWidth;
        found.stage = $("stage").clientWidth;
        const small = [...document.querySelectorAll("button, label")].filter((each) => each.offsetHeight < 28);
        found.small = small.map((each) => each.outerHTML);
    """
    found = in_page(script, path="phone")
    assert (found["width"], found["overflow"], found["small"]) == (390, 0, []) and found["stage"] > 300


@chromium
def test_the_dark_page_can_be_read(in_page):
    script = """
        const light = (color) => { const [r, g, b] = color.match(/[0-9.]+/g).map(Number); return (r + g + b) / 3; };
        const style = getComputedStyle(document.body);
        found.back = light(style.backgroundColor);
        found.text = light(style.color);
    """
    bright, dark = in_page(script), in_page(script, "--blink-settings=preferredColorScheme=0")
    assert bright["back"] > 240 > 60 > bright["text"] and dark["back"] < 40 < 200 < dark["text"]
