"use strict";
// Elements, numbers and texts. Text of a run only ever becomes text nodes here; nothing of it is parsed as HTML.
const $ = (id) => document.getElementById(id);
const PALETTE = ["#2a7de1", "#e07b39", "#2f9e62", "#b0529f", "#8a8f98", "#c9a227", "#d2453b", "#3aa6b9"];

function el(tag, attributes, ...children) {
  const node = document.createElement(tag);
  for (const [key, value] of Object.entries(attributes || {})) {
    if (key.startsWith("on")) node.addEventListener(key.slice(2), value);
    else if (value !== null && value !== undefined && value !== false) node.setAttribute(key, value);
  }
  for (const child of children.flat(Infinity)) if (child !== null && child !== undefined && child !== false) node.append(child);
  return node;
}
function svg(tag, attributes, ...children) {
  const node = document.createElementNS("http://www.w3.org/2000/svg", tag);
  for (const [key, value] of Object.entries(attributes)) {
    if (key.startsWith("on")) node.addEventListener(key.slice(2), value);
    else node.setAttribute(key, value);
  }
  node.append(...children.flat());
  return node;
}
const option = (value, label) => el("option", { value }, label ?? value);
const percent = (x) => (100 * x).toFixed(1) + "\u00a0%";
const interval = (low, high) => `[${percent(low)},\u00a0${percent(high)}]`; // one word: a narrow cell breaks around it
const number = (x) => (x === null || x === undefined ? "–" : Math.abs(x) >= 1000 ? x.toFixed(0) : x !== 0 && Math.abs(x) < 1e-3 ? x.toExponential(1) : +x.toPrecision(4) + "");
const count = (n) => n.toLocaleString("en");
const text = (value) => (typeof value === "string" ? value : JSON.stringify(value));
const mean = (values) => values.reduce((a, b) => a + b, 0) / values.length;

function ago(seconds) {
  const units = [[86400, "d"], [3600, "h"], [60, "min"], [1, "s"]];
  const [size, name] = units.find(([size]) => seconds >= size) || [1, "s"];
  return `${Math.max(0, Math.floor(seconds / size))} ${name} ago`;
}

/** What the search field asks for: a function from text to [[start, end], ...]; null: nothing is asked. */
function matcher(query, regex) {
  if (!query) return null;
  if (regex) {
    let pattern;
    try { pattern = new RegExp(query, "gm"); } catch { return null; }
    return (body) => [...body.matchAll(pattern)].slice(0, 500).filter((hit) => hit[0]).map((hit) => [hit.index, hit.index + hit[0].length]);
  }
  const wanted = query.toLowerCase();
  return (body) => {
    const found = [], lower = body.toLowerCase();
    for (let at = lower.indexOf(wanted); at >= 0; at = lower.indexOf(wanted, at + wanted.length)) found.push([at, at + wanted.length]);
    return found;
  };
}
/** Return the parts of a text, with what the matcher finds in <mark>. */
function marked(body, find) {
  if (!find) return [body];
  const parts = [];
  let at = 0;
  for (const [start, end] of find(body)) { parts.push(body.slice(at, start), el("mark", {}, body.slice(start, end))); at = end; }
  return [...parts, body.slice(at)];
}

function copyButton(what, label = "copy") {
  return el("button", { class: "small copy", onclick: async (e) => {
    e.stopPropagation();
    const said = await copied(typeof what === "function" ? what() : what);
    e.target.textContent = said ? "copied" : "not allowed";
    setTimeout(() => { e.target.textContent = label; }, 1200);
  } }, label);
}
async function copied(body) {
  try { await navigator.clipboard.writeText(body); return true; } catch { /* a page from disk: the old way */ }
  const area = el("textarea", { style: "position:fixed;opacity:0" });
  area.value = body;
  document.body.append(area);
  area.select();
  const done = document.execCommand("copy");
  area.remove();
  return done;
}
function download(name, kind, parts) {
  const link = el("a", { href: URL.createObjectURL(new Blob(parts, { type: kind })), download: name });
  document.body.append(link);
  link.click();
  link.remove();
  setTimeout(() => URL.revokeObjectURL(link.href), 10_000);
}

/** A small curve of [x, y] points between `low` and `high`; `onpick(k)` is called for a clicked point. */
function sparkline(points, { width = 120, height = 26, low = null, high = null, onpick = null, current = null, label = null } = {}) {
  const ys = points.map(([, y]) => y), xs = points.map(([x]) => x);
  const bottom = low ?? Math.min(...ys), top = high ?? Math.max(...ys), left = Math.min(...xs), right = Math.max(...xs);
  const px = (x) => 4 + (right > left ? (x - left) / (right - left) : 0.5) * (width - 8);
  const py = (y) => height - 4 - (top > bottom ? (y - bottom) / (top - bottom) : 0.5) * (height - 8);
  const line = svg("polyline", { points: points.map(([x, y]) => `${px(x).toFixed(1)},${py(y).toFixed(1)}`).join(" "), fill: "none", stroke: "currentColor", "stroke-width": 1.4 });
  const dots = !onpick ? [] : points.map(([x, y], k) => svg("circle", { cx: px(x), cy: py(y), r: k === current ? 5 : 3.2, class: k === current ? "current" : "", onclick: () => onpick(k) }, svg("title", {}, label ? label(k) : `step ${x}: ${number(y)}`)));
  return svg("svg", { class: "spark", width, height, viewBox: `0 0 ${width} ${height}`, role: "img" }, line, ...dots);
}
