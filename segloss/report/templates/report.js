// Click or Enter enlarges an image's panels.
for (const button of document.querySelectorAll("button[aria-pressed]"))
  button.addEventListener("click", () => button.setAttribute("aria-pressed", button.getAttribute("aria-pressed") !== "true"));

// Every header sorts its table: numbers from the top, names from A, what is missing last.
for (const table of document.querySelectorAll("table.sortable")) {
  const heads = [...table.tHead.rows[0].cells];
  heads.forEach((head, column) => {
    const numeric = head.classList.contains("number");
    const key = (row) => {
      const cell = row.cells[column];
      return numeric ? parseFloat(cell.dataset.value ?? cell.textContent) : cell.textContent.trim();
    };
    const missing = (found) => numeric ? Number.isNaN(found) : ["", "–"].includes(found);
    const order = (x, y) => numeric ? x - y : x.localeCompare(y, "en", { numeric: true });
    const button = document.createElement("button");
    button.textContent = head.textContent;
    head.replaceChildren(button);
    button.addEventListener("click", () => {
      const before = head.getAttribute("aria-sort");
      const up = before ? before === "descending" : !numeric;
      heads.forEach((other) => other.removeAttribute("aria-sort"));
      head.setAttribute("aria-sort", up ? "ascending" : "descending");
      const rows = [...table.tBodies[0].rows].sort((a, b) => {
        const [x, y] = [key(a), key(b)];
        if (missing(x) || missing(y)) return missing(x) - missing(y);
        return up ? order(x, y) : order(y, x);
      });
      table.tBodies[0].append(...rows);
    });
  });
}

// Images by class and by kind of error, those with most of such pixels first.
const filter = document.querySelector(".filter");
if (filter) {
  const lists = [...document.querySelectorAll(".cards")].map((list) => ({ list, cards: [...list.children] }));
  const errors = new Map(lists.flatMap(({ cards }) => cards).map((card) => [card, JSON.parse(card.dataset.errors)]));
  const said = (select) => select.options[select.selectedIndex].text;
  const look = () => {
    const [one, kind] = [filter.elements.class, filter.elements.kind];
    const kinds = kind.value ? [kind.value] : ["missed", "invented"];
    const pixels = (card) => {
      const counts = kinds.flatMap((name) => one.value ? [errors.get(card)[name][one.value] ?? 0] : Object.values(errors.get(card)[name]));
      return counts.reduce((sum, count) => sum + count, 0);
    };
    const all = !one.value && !kind.value;
    let shown = 0;
    for (const { list, cards } of lists) {
      const found = new Map(cards.map((card) => [card, all ? 1 : pixels(card)]));
      list.append(...(all ? cards : [...cards].sort((a, b) => found.get(b) - found.get(a))));
      for (const [card, count] of found) {
        card.hidden = count === 0;
        shown += count > 0;
        card.querySelector(".found").textContent = all ? "" : `; ${count.toLocaleString("en")} wrong pixels of ${said(one)}, ${said(kind)}`;
      }
      list.previousElementSibling.hidden = cards.every((card) => card.hidden);
    }
    filter.querySelector("output").textContent = `${shown} of ${errors.size} images`;
  };
  filter.hidden = false;
  filter.addEventListener("change", look);
  filter.addEventListener("submit", (event) => event.preventDefault());
  addEventListener("pageshow", look);  // the browser may have kept what was chosen
}
