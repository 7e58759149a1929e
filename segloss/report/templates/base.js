// A table that is wider than the page can be scrolled by keyboard, and says that it goes on; another is no stop of the tab key.
for (const region of document.querySelectorAll(".scroll")) {
  const look = () => {
    const hidden = region.scrollWidth - region.clientWidth;
    region.tabIndex = hidden > 1 ? 0 : -1;
    region.parentElement.classList.toggle("cut", hidden - region.scrollLeft > 1);
  };
  region.addEventListener("scroll", look);
  new ResizeObserver(look).observe(region);
}

// Print holds what is folded, and is folded again afterwards.
let folded = [];
addEventListener("beforeprint", () => {
  folded = [...document.querySelectorAll("details:not([open])")];
  for (const part of folded) part.open = true;
});
addEventListener("afterprint", () => {
  for (const part of folded) part.open = false;
});
