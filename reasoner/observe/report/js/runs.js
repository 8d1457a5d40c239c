"use strict";
// The list of runs and stages: state, step, last evaluation; which of them are drawn over each other.
const STATES = { running: "good", ended: "", failed: "bad", stopped: "none", elsewhere: "none" };
const STATE_HELP = { running: "a process of this machine writes it", ended: "finished", failed: "an error stopped it", stopped: "not finished, and no process of this machine writes it", elsewhere: "a process of another machine holds its lock; whether it is alive cannot be seen from here" };
const stageLine = (id) => head.stages.find((s) => s.id === id);
const isEvaluation = (s) => s.method === "eval"; // a folder of `reasoner eval --output`: held-out samples only
const stageName = (id) => { const s = stageLine(id); return !s ? id : s.name === s.run || s.run.endsWith("/" + s.name) ? s.run : `${s.run} / ${s.name}`; };
const stateChip = (s) => el("span", { class: "chip " + (STATES[s.state] ?? ""), title: s.error || STATE_HELP[s.state] }, s.state);

function evaluated(s) {
  const found = s.evaluation;
  if (!found || !found.values.length) return [el("td", {}, "–"), el("td", {})];
  const [step, value, low, high] = found.values[found.values.length - 1], share = found.values.every(([, v]) => v >= 0 && v <= 1) && !/loss|perplexity/.test(found.metric);
  const shown = (x) => (share ? percent(x) : number(x));
  const points = found.values.map(([x, y]) => [x, y]);
  return [
    el("td", {}, el("b", {}, shown(value)), low === undefined || low === null ? "" : el("span", { class: "dim" }, ` [${shown(low)}, ${shown(high)}]`), el("div", { class: "dim" }, isEvaluation(s) ? found.metric : `${found.metric}, step ${step}`)),
    el("td", {}, points.length > 1 ? sparkline(points, share ? { low: 0, high: 1 } : {}) : ""),
  ];
}
function runsPage(query) {
  const picked = new Set(query.runs ? query.runs.split("|") : []);
  const box = $("runs"), known = box.querySelector("#run-filter")?.value ?? "";
  const fits = (s) => `${s.run} ${s.name} ${s.method} ${s.state}`.toLowerCase().includes(known.toLowerCase());
  const choose = (id, on) => { if (on) picked.add(id); else picked.delete(id); moved("runs", { query: { runs: [...picked].join("|") } }); runsPage({ runs: [...picked].join("|") }); };
  const rows = head.stages.filter(fits).map((s) => el("tr", { "data-id": s.id },
    el("td", {}, el("input", { type: "checkbox", checked: picked.has(s.id) || null, "aria-label": `draw ${stageName(s.id)}`, onchange: (e) => choose(s.id, e.target.checked) })),
    el("td", { class: "name" }, el("a", { href: address("overview", { stage: s.id }) }, stageName(s.id)), el("div", { class: "dim" }, s.method, s.error ? el("span", { class: "error" }, " " + s.error.slice(0, 160)) : "")),
    el("td", {}, stateChip(s), el("div", { class: "dim" }, s.updated ? ago(Date.now() / 1000 - s.updated) : "")),
    el("td", { class: "steps" }, isEvaluation(s) ? "" : s.of ? [`${count(s.steps)} of ${count(s.of)}`, el("div", { class: "bar" }, el("i", { class: "now", style: `left:0;width:${Math.min(100, (100 * s.steps) / s.of)}%` }))] : count(s.steps)),
    ...evaluated(s),
    el("td", { class: "links" }, isEvaluation(s) ? "" : [el("a", { href: address("curves", { stage: s.id }) }, "curves"), " ", el("a", { href: address("rollouts", { stage: s.id, query: { sort: "newest" } }) }, "rollouts"), " "], el("a", { href: address("rollouts", { stage: s.id, query: { kind: "eval", sort: "newest" } }) }, "held-out"))));
  const input = el("input", { id: "run-filter", type: "search", placeholder: "Filter by name, method, state", "aria-label": "Filter runs", value: known, oninput: () => runsPage({ runs: [...picked].join("|") }) });
  const focused = document.activeElement?.id === "run-filter";
  box.replaceChildren(
    el("div", { class: "filters" }, input, el("button", { id: "overlay", disabled: picked.size ? null : "", onclick: () => { location.hash = address("curves", { stage: [...picked][0], query: { runs: [...picked].join("|") } }); } }, picked.size > 1 ? `Curves of ${picked.size} over each other` : "Curves"),
      el("button", { id: "beside", disabled: picked.size === 2 ? null : "", title: "A problem of two runs or evaluations, side by side", onclick: () => { location.hash = address("pair", { stage: [...picked][0], query: { runs: [...picked].join("|") } }); } }, "Side by side"),
      el("button", { onclick: () => { const all = head.stages.filter(fits).map((s) => s.id).join("|"); moved("runs", { query: { runs: picked.size ? "" : all } }); runsPage({ runs: picked.size ? "" : all }); } }, picked.size ? "Choose none" : "Choose all"), el("span", { class: "dim" }, `${rows.length} of ${head.stages.length} stages`)),
    head.stages.length ? el("div", { class: "scroll" }, el("table", { class: "runs" }, el("tr", {}, ["", "run or evaluation", "state", "steps", "last evaluation", "", ""].map((t) => el("th", {}, t))), rows)) : el("p", { class: "empty" }, "No run below this folder yet. It appears here as soon as one starts."));
  if (focused) { input.focus(); input.setSelectionRange(known.length, known.length); }
}
