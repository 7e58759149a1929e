// The page: an image goes to the server once, its classes come back for every turn of a knob.

import { paintClasses, paintConfidence, ramp, readAnswer } from "./paint.js";

const $ = (id) => document.getElementById(id);
const percent = (share) => (share > 0 && share < 0.001 ? "< 0.1 %" : `${(100 * share).toFixed(1)} %`);
const stage = $("stage");
let run = null; // what run.json says
let file = null; // the one that was sent last
let seen = null; // its number, width and height
let answer = null; // classes and probabilities under the decision
let chosen = null; // the class that is shown alone
let point = null; // the pixel that is described
let turn = 0; // of the newest request: what comes back later for an older one is dropped

async function reply(path, options) {
  let response;
  try {
    response = await fetch(path, options);
  } catch {
    throw new Error("the server does not answer; start it again");
  }
  if (response.ok) return response;
  const content = await response.json().catch(() => ({}));
  throw Object.assign(new Error(content.error ?? `the server answers ${response.status}`), { status: response.status });
}

function say(text) { $("status").textContent = text; }

function tell(error) {
  $("error").hidden = !error;
  $("error").textContent = error ? error.message : "";
}

async function take(given) {
  if (!given || !run) return;
  const now = ++turn;
  tell(null);
  try {
    if (given.size > run.most_bytes) {
      const size = `${(given.size / 2 ** 20).toFixed(1)} MiB, more than the ${run.most_bytes / 2 ** 20}`;
      throw new Error(`${given.name}: has ${size} that are taken; make it smaller`);
    }
    say(`${given.name}: the network looks at it ...`);
    stage.ariaBusy = "true";
    const headers = { "Content-Type": "application/octet-stream", "X-File-Name": encodeURIComponent(given.name) };
    const found = await (await reply("images", { method: "POST", body: given, headers })).json();
    if (now !== turn) return;
    file = given;
    seen = found;
    answer = point = chosen = null;
    stage.style.setProperty("--ratio", `${seen.width / seen.height}`);
    $("image").src = `picture?image=${seen.image}`;
    $("image").alt = given.name;
    stage.hidden = false;
    $("drop").classList.add("small");
    await decide();
    say(`${given.name}, ${seen.width} x ${seen.height}`);
  } catch (error) {
    if (now === turn) { say(""); tell(error); }
  } finally {
    stage.ariaBusy = "false";
    $("file").value = "";
  }
}

function decision() {
  const words = document.querySelector("[name=decision]:checked").value;
  return words === "tau" ? `tau ${$("tau").value}` : words;
}

/** The classes under the decision that is set; an image that the server has forgotten is sent again. */
async function decide() {
  if (!seen) return;
  const now = ++turn;
  stage.ariaBusy = "true";
  try {
    const query = new URLSearchParams({ image: seen.image, decision: decision() });
    const buffer = await (await reply(`decided?${query}`)).arrayBuffer();
    if (now !== turn) return;
    answer = readAnswer(buffer, seen.width * seen.height, run.classes.length);
    if (chosen !== null && !answer.classes[chosen].share) chosen = null;
    tell(null);
    paint();
    list();
    describe();
  } catch (error) {
    if (now !== turn) return;
    if (error.status === 410 && file) await take(file);
    else tell(error);
  } finally {
    if (now === turn) stage.ariaBusy = "false";
  }
}

function paint() {
  const view = document.querySelector("[name=view]:checked").value;
  const opacity = $("opacity").value;
  $("opacity-told").textContent = `${opacity} %`;
  $("opacity").disabled = view === "image";
  $("scale").hidden = view !== "confidence";
  if (!answer) return;
  const canvas = $("paint");
  canvas.hidden = view === "image";
  canvas.style.opacity = opacity / 100;
  if (canvas.hidden) return;
  Object.assign(canvas, { width: seen.width, height: seen.height });
  const colors = run.classes.map((one) => one.color);
  const made = view === "classes"
    ? paintClasses(answer, colors, seen.width, seen.height, chosen)
    : paintConfidence(answer, seen.width, seen.height, chosen);
  canvas.getContext("2d").putImageData(made, 0, 0);
}

function element(tag, attributes = {}, ...children) {
  const made = Object.assign(document.createElement(tag), attributes);
  made.append(...children);
  return made;
}

function swatch(color) {
  const made = element("span", { className: "swatch" });
  made.style.background = `rgb(${color.join(" ")})`;
  return made;
}

/** The legend: classes of the image by their share, those that are not in it behind. */
function list() {
  const rows = (answer?.classes ?? run.classes.map((_, c) => ({ number: c, share: null }))).slice();
  if (answer) rows.sort((a, b) => b.share - a.share);
  const there = answer ? rows.filter((row) => row.share) : rows;
  $("classes-note").textContent = answer ? "share of the image, mean probability; a click shows one class alone" : "";
  const focused = document.activeElement?.dataset?.number;
  $("classes").replaceChildren(...there.map(legendRow));
  if (focused !== undefined) $("classes").querySelector(`[data-number="${focused}"]`)?.focus();
  const absent = rows.slice(there.length);
  $("absent").hidden = !absent.length;
  $("absent").querySelector("summary").textContent = `${absent.length} not in it`;
  $("absent").querySelector("p").textContent = absent.map((row) => run.classes[row.number].name).join(", ");
}

function legendRow(row) {
  const { name, color } = run.classes[row.number];
  const button = element("button", { type: "button", disabled: !answer }, swatch(color), element("span", {}, name));
  button.dataset.number = row.number;
  if (answer) {
    const sure = element("span", { className: "quiet", ariaLabel: "mean probability" }, ` ${percent(row.sure)}`);
    const bar = element("span", { className: "bar" }, element("span"));
    bar.firstChild.style.width = `${100 * row.share}%`;
    button.append(element("span", { className: "numbers" }, percent(row.share), " ·", sure), bar);
    button.ariaPressed = `${chosen === row.number}`;
    button.onclick = () => {
      chosen = chosen === row.number ? null : row.number;
      paint();
      list();
    };
  }
  return element("li", {}, button);
}

/** Class and probability at the point, in words below and in a tip beside it. */
function describe() {
  $("marker").hidden = $("tip").hidden = !(point && answer);
  if (!point || !answer) {
    $("told").textContent = answer ? "Point at the image, or focus it and use the arrow keys." : "";
    return;
  }
  const [x, y] = point;
  const place = y * seen.width + x;
  const { name, color } = run.classes[answer.numbers[place]];
  const said = `${name}, ${percent(answer.probability[place] / 255)}`;
  $("told").textContent = `x ${x}, y ${y}: ${said}`;
  const left = (100 * (x + 0.5)) / seen.width;
  const top = (100 * (y + 0.5)) / seen.height;
  Object.assign($("marker").style, { left: `${left}%`, top: `${top}%`, background: `rgb(${color.join(" ")})` });
  const tip = $("tip");
  tip.textContent = said;
  const spot = [(left / 100) * stage.clientWidth + 12, (top / 100) * stage.clientHeight + 12];
  tip.style.left = `${Math.max(0, Math.min(spot[0], stage.clientWidth - tip.offsetWidth))}px`;
  tip.style.top = `${spot[1] + tip.offsetHeight > stage.clientHeight ? Math.max(0, spot[1] - 24 - tip.offsetHeight) : spot[1]}px`;
}

function pointed(event) {
  if (!seen) return;
  const box = stage.getBoundingClientRect();
  const inside = (share, size) => Math.max(0, Math.min(size - 1, Math.floor(share * size)));
  point = [
    inside((event.clientX - box.left) / box.width, seen.width),
    inside((event.clientY - box.top) / box.height, seen.height),
  ];
  describe();
}

const STEPS = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] };

function moved(event) {
  const step = STEPS[event.key];
  if (!step || !seen) return;
  event.preventDefault();
  const [x, y] = point ?? [Math.floor(seen.width / 2), Math.floor(seen.height / 2)];
  const far = event.shiftKey ? 10 : 1;
  const within = (value, size) => Math.max(0, Math.min(size - 1, value));
  point = point ? [within(x + far * step[0], seen.width), within(y + far * step[1], seen.height)] : [x, y];
  describe();
}

function choice({ words, title, note, slider }) {
  const radio = element("input", { type: "radio", name: "decision", value: words, checked: words === run.start, onchange: decide });
  const made = element("div", { className: "choice" }, element("label", {}, radio, element("span", {}, title)));
  if (words === "tau") {
    const told = element("output", {}, "0.50");
    const range = element("input", { type: "range", id: "tau", min: 0, max: 1, step: 0.05, value: 0.5, ariaLabel: "tau" });
    range.disabled = radio.disabled = !slider;
    range.oninput = () => {
      told.textContent = Number(range.value).toFixed(2);
      radio.checked = true;
      decide();
    };
    made.append(element("div", { className: "slider" }, element("span", {}, "0 to 1"), range, told));
  }
  made.append(element("p", { className: "quiet" }, note));
  return made;
}

async function start() {
  run = await (await reply("run.json")).json();
  document.title = `${run.name}: segloss demo`;
  $("name").textContent = run.name;
  const probabilities = run.calibrated ? ", probabilities calibrated" : "";
  $("about").textContent = `${run.network}; ${run.classes.length} classes${probabilities}. Images go to ${location.host} and nowhere else.`;
  $("limits").textContent = `${run.takes}, to ${run.most_bytes / 2 ** 20} MiB and ${(run.most_pixels / 1e6).toFixed(1)} million pixels`;
  $("file").accept = run.endings.join(",");
  $("decisions").replaceChildren(...run.decisions.map(choice));
  $("ramp").getContext("2d").putImageData(new ImageData(new Uint8ClampedArray(ramp()), 256, 1), 0, 0);
  paint();
  list();
  document.body.dataset.ready = "true";
}

$("file").onchange = (event) => take(event.target.files[0]);
for (const kind of ["dragover", "dragleave", "drop"]) {
  addEventListener(kind, (event) => {
    event.preventDefault();
    document.body.classList.toggle("over", kind === "dragover");
    if (kind === "drop") take(event.dataTransfer.files[0]);
  });
}
for (const radio of document.querySelectorAll("[name=view]")) radio.onchange = paint;
$("opacity").oninput = paint;
stage.onpointermove = stage.onpointerdown = pointed;
stage.onpointerleave = (event) => {
  if (event.pointerType !== "mouse" || document.activeElement === stage) return;
  point = null;
  describe();
};
stage.onkeydown = moved;
addEventListener("resize", describe);
start().catch(tell);
