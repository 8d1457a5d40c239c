"use strict";
// Light and dark, and keys: what a key does is one row of a table, which the dialog behind "?" shows.

function useTheme(onchange = () => {}) {
  const set = (name) => { document.documentElement.dataset.theme = name; };
  const change = () => { set(document.documentElement.dataset.theme === "dark" ? "light" : "dark"); onchange(); };
  set(matchMedia("(prefers-color-scheme: dark)").matches ? "dark" : "light");
  $("theme").onclick = change;
}
/** Open or fold all that is thought in the completions that are shown. */
function foldThoughts() {
  const all = [...document.querySelectorAll("details.think")], open = all.some((d) => !d.open);
  all.forEach((d) => { d.open = open; });
}
/** Listen to keys: rows of [names, what they do, {key: function}, place]; a row with a place counts if `here(place)`. */
function useKeys(rows, here = () => true) {
  $("keys").replaceChildren(el("h2", {}, "Keys"), el("dl", {}, rows.flatMap(([keys, does]) => [el("dt", {}, el("kbd", {}, keys)), el("dd", {}, does)])), el("form", { method: "dialog" }, el("button", {}, "Close")));
  $("help").onclick = () => $("keys").showModal();
  document.addEventListener("keydown", (e) => {
    if (e.key === "Escape") { document.activeElement?.blur(); return; }
    if (/INPUT|SELECT|TEXTAREA/.test(e.target.tagName) || e.ctrlKey || e.metaKey || e.altKey || $("keys").open) return;
    const found = rows.find(([, , does, place]) => e.key in does && (!place || here(place)));
    if (!found) return;
    e.preventDefault();
    found[2][e.key](e);
  });
}
