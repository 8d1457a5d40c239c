"use strict";
// Table by problem: never solved, sometimes, solved, lost again; each row leads to its attempts.
const SHOWN_PROBLEMS = 200;
const PROBLEM_SORTS = {
  status: ["By status", (a, b) => STATUSES.indexOf(a.status) - STATUSES.indexOf(b.status) || a.share - b.share],
  share: ["Least solved", (a, b) => a.share - b.share],
  change: ["Most lost since its best", (a, b) => lost(b) - lost(a)],
  attempts: ["Most attempts", (a, b) => b.attempts - a.attempts],
};
const lost = (f) => Math.max(...f.rates.map(([, rate]) => rate)) - f.last;

async function problemsPage(query) {
  const id = state.stage, kind = query.kind === "train" || query.kind === "eval" ? query.kind : (await readUntil(id, "eval", (found) => found.length > 0 || state.tab !== "problems" || state.stage !== id)).length ? "eval" : "train";
  const of = await source.index(id, kind);
  if (state.tab !== "problems" || state.stage !== id) return;
  const fates = of.problems.map((_, p) => of.fate(p)), counts = Object.fromEntries(STATUSES.map((s) => [s, fates.filter((f) => f.status === s).length]));
  const go = (change) => { const next = { kind, ...query, ...change }; moved("problems", { query: next }); problemsPage(next); };
  const kinds = el("select", { id: "problems-kind", "aria-label": "Kind", onchange: (e) => go({ kind: e.target.value, status: "" }) }, Object.entries(KIND_NAMES).map(([k, label]) => option(k, label)));
  kinds.value = kind;
  const sorts = el("select", { id: "problems-sort", "aria-label": "Sort", onchange: (e) => go({ sort: e.target.value }) }, Object.entries(PROBLEM_SORTS).map(([k, [label]]) => option(k, label)));
  sorts.value = query.sort in PROBLEM_SORTS ? query.sort : "status";
  const known = document.activeElement?.id === "problems-search";
  const find = el("input", { id: "problems-search", type: "search", placeholder: "Problem", "aria-label": "Problem", value: query.search ?? "", oninput: (e) => go({ search: e.target.value }) });
  const wanted = (query.search ?? "").toLowerCase(), name = (f) => of.problems[f.problem];
  const shownFates = fates.filter((f) => (!query.status || f.status === query.status) && name(f).toLowerCase().includes(wanted)).sort(PROBLEM_SORTS[sorts.value][1]);
  const most = +(query.most ?? SHOWN_PROBLEMS), link = (f) => address("rollouts", { query: { ...(kind === "eval" ? { kind } : {}), problem: name(f), sort: "newest" } });
  $("problems").replaceChildren(
    el("div", { class: "filters" }, kinds, find, sorts, STATUSES.map((s) => el("button", { class: "status " + s.replace(" ", "-"), "data-status": s, "aria-pressed": query.status === s, onclick: () => go({ status: query.status === s ? "" : s }) }, `${s} ${count(counts[s])}`)), el("span", { class: "dim" }, `${count(shownFates.length)} of ${count(fates.length)} problems`)),
    el("p", { class: "dim hint" }, "solved: at least half of its last step's samples are right; lost again: an earlier step had that, the last has not; sometimes: right now and then, never half."),
    !fates.length ? el("p", { class: "empty" }, "No rollouts are recorded.") : el("div", { class: "scroll" }, el("table", {}, el("tr", {}, ["problem", "status", "right", "attempts", "first right", "over the steps"].map((t) => el("th", {}, t))),
      shownFates.slice(0, most).map((f) => el("tr", {}, el("td", { class: "name" }, el("a", { href: link(f) }, name(f))), el("td", {}, el("span", { class: "status " + f.status.replace(" ", "-") }, f.status)), el("td", {}, percent(f.share)), el("td", {}, count(f.attempts)), el("td", {}, f.first === null ? "–" : `step ${f.first}`), el("td", {}, sparkline(f.rates, { low: 0, high: 1 })))))),
    shownFates.length > most ? el("button", { onclick: () => go({ most: String(most + 5 * SHOWN_PROBLEMS) }) }, `Show more (${count(shownFates.length - most)} left)`) : "");
  if (known) { find.focus(); find.setSelectionRange(find.value.length, find.value.length); }
}
