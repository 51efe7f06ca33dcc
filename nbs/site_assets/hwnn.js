// What scrolls sideways can be reached by keyboard, and nothing else is a stop on the way.
const kinds = [["pre", "Code"], [".cell-output pre", "Output"], [".sd-table, .cell-output div[style*=overflow-x]", "Table"], [".katex-display", "Formula"],
  [".cell-output-display, .hwnn-explore", "Figure"], [".hwnn-open p", "Text"], ["table", ""]];
function stops() {
  const found = kinds.flatMap(([kind, name]) => [...document.querySelectorAll(kind)].map(e =>
    [e, e.scrollWidth > e.clientWidth && getComputedStyle(e).overflowX != "visible", name]));
  for (const [e, scrolls, name] of found)
    for (const [k, v] of Object.entries({tabindex: 0, ...name && {role: "group", "aria-label": name + ", scrolls sideways"}}))
      scrolls ? e.setAttribute(k, v) : e.removeAttribute(k);
}
new ResizeObserver(stops).observe(document.body);

// Formulas grow when they are rendered, and once more when their fonts are there, which need not change the size of the page: then look again,
// and go to the anchor again.
addEventListener("load", async () => {
  await document.fonts.ready;
  stops();
  const at = location.hash && document.getElementById(decodeURIComponent(location.hash.slice(1)));
  if (at) setTimeout(() => at.scrollIntoView({behavior: "instant"}), 50);
});
