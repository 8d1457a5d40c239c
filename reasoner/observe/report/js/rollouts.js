"use strict";
// List of rollouts with its filters, histograms and export.
const ROW = 54;
const FILTERS = ["kind", "search", "sort", "outcome", "task", "step", "problem", "reward", "tokens"];
const EXPORTED = ["step", "group", "sample", "problem", "task", "outcome", "reward", "advantage", "tokens", "truncated", "prompt", "completion", "answer", "reference", "reason"];
let index = null, shownOf = null, view = [], searching = 0;
const search = { key: null, found: null, at: 0 };

/** The filter bar as a query: only what differs from the default. */
function filterQuery() {
  const found = {};
  for (const name of FILTERS) if ($(name).value && !["train", "order"].includes($(name).value)) found[name] = $(name).value;
  if ($("regex").checked && found.search) found.regex = "1";
  if (state.only) found.only = state.only;
  return found;
}
function fillFilters(query) {
  const keep = (id, options, fallback = "") => { $(id).replaceChildren(...options); const wanted = query[id] ?? fallback; if (wanted && ![...$(id).options].some((o) => o.value === wanted)) $(id).append(option(wanted)); $(id).value = wanted; };
  keep("kind", Object.entries(KIND_NAMES).map(([k, label]) => option(k, label)), state.kind);
  $("kind").hidden = isEvaluation(stageLine(state.stage));
  const sorts = Object.entries(SORTS).filter(([k]) => (k !== "gap" || index.gap?.some((g) => g !== null)) && (k !== "held_out" || index.held_out?.some(Boolean)) && (k !== "advantage" || state.kind === "train"));
  keep("sort", sorts.map(([k, [label]]) => option(k, label)), "order");
  keep("outcome", [option("", "Every outcome"), ...index.outcomes.map((o) => option(o)), option("failed", "not right"), option("truncated", "truncated")]);
  keep("task", [option("", "Every task"), ...index.tasks.map((t) => option(t, t || "(no name)"))]);
  $("task").hidden = index.tasks.length < 2;
  $("problem-names").replaceChildren(...index.problems.slice(0, 500).map((p) => option(p)));
  for (const name of ["search", "step", "problem", "reward", "tokens"]) if ($(name).value !== (query[name] ?? "") && document.activeElement !== $(name)) $(name).value = query[name] ?? "";
  $("regex").checked = query.regex === "1";
  $("export").replaceChildren(option("", "Export"), option("csv", "CSV"), option("jsonl", "JSON lines"));
}

let visits = 0;
async function rolloutsPage(query, place) {
  const id = state.stage, mine = ++visits;
  const own = isEvaluation(stageLine(id)) ? "eval" : "train";
  state.kind = ["train", "eval"].includes(query.kind) ? query.kind : own;
  state.only = query.only || null;
  if (shownOf !== id + "|" + state.kind) index = null; // until it is read, the filters wait
  const found = await source.index(id, state.kind);
  if (mine !== visits || state.tab !== "rollouts") return;
  index = found;
  shownOf = id + "|" + state.kind;
  fillFilters(query);
  if (query.search && query.search !== $("search").value) $("search").value = query.search;
  await runSearch();
  filter();
  state.rollout = place ? index.find(place) : null;
  if (place && state.rollout === null && source.live) {
    const here = () => mine === visits && state.tab === "rollouts", waited = await located(id, state.kind, place, here);
    if (!here()) return;
    index = waited.index;
    state.rollout = waited.row;
    filter();
  }
  if (state.rollout !== null) reveal();
  paint();
  await detail(state.rollout, place);
}
/** A filter was changed by hand: it goes into the address, so that a reload and a shared link keep it. */
async function filtersChanged({ kind = false } = {}) {
  $("list").scrollTop = 0;
  const place = kind || !index ? null : placeNow(); // also of a rollout that was chosen while a search ran
  moved(place ? "rollout" : "rollouts", { place, query: filterQuery() });
  if (kind || !index) return route();
  filter();
  await detail(state.rollout);
}
async function searchChanged() {
  if (index) await runSearch();
  await filtersChanged();
}
async function runSearch({ again = false } = {}) {
  const wanted = $("search").value.trim(), regex = $("regex").checked, key = wanted && [state.stage, state.kind, wanted, regex, index.generation].join("|");
  if (!wanted) { search.key = search.found = null; return; }
  if (search.key === key && !again) return;
  const mine = ++searching;
  $("count").textContent = "searching …";
  try {
    if (regex) new RegExp(wanted, "m"); // an expression that is none is told without asking
    const found = await source.search(state.stage, state.kind, wanted, regex, (share) => { $("count").textContent = `searching ${Math.round(100 * share)} %`; return mine === searching; });
    if (mine !== searching || found === null) return;
    Object.assign(search, { key, found, at: Date.now() });
    notice("");
  } catch (error) {
    if (mine !== searching) return;
    Object.assign(search, { key, found: new Set(), at: Date.now() });
    notice(error.message);
  }
}
const currentFilter = () => ({ ...filterQuery(), sort: $("sort").value || "order" });
function filter() {
  view = filtered(index, currentFilter(), search.found);
  const all = index.length, kept = index.kept ? index.kept.length : all;
  $("count").textContent = `${count(view.length)} of ${count(kept)}` + (kept < all ? ` with text (${count(all)} in the run)` : "") + (index.reading !== null && index.reading !== undefined ? `, reading ${Math.floor(100 * index.reading)} %` : "") + (state.only ? ", only those of a finding" : "");
  $("space").style.height = view.length * ROW + "px";
  if (!$("histograms").hidden) histograms();
  paint();
}
function paint() {
  if (!index) return;
  const list = $("list"), first = Math.max(0, Math.floor(list.scrollTop / ROW) - 4);
  const last = Math.min(view.length, first + Math.ceil((list.clientHeight || 600) / ROW) + 8), rows = view.slice(first, last);
  const before = [...$("space").children], known = new Map(before.map((node) => [node.dataset.key, node])), nodes = rows.map((i, k) => item(i, first + k, known));
  if (nodes.length !== before.length || nodes.some((node, k) => node !== before[k])) $("space").replaceChildren(...nodes); // else a click that has begun would be lost
  if (!view.length) $("space").replaceChildren(el("p", { class: "empty" }, index.damaged || (index.length ? "No rollout passes the filter." : state.kind === "eval" ? "No held-out samples are recorded." : "No rollouts are recorded.")));
  const mine = [state.stage, state.kind, first].join("|");
  paint.mine = mine;
  source.heads(state.stage, state.kind, rows).then((heads) => {
    if (paint.mine !== mine) return;
    rows.forEach((i, k) => { const node = $("space").querySelector(`[data-i="${i}"] .text`); if (node) node.textContent = heads[k]; });
  }, (error) => notice(error.message));
}
function chip(i, of = index) {
  const r = of.reward[i], outcome = of.outcomes[of.outcome[i]];
  return el("span", { class: "chip " + (r === null ? "none" : outcome === "correct" ? "good" : FAILED.has(outcome) ? "bad" : ""), title: outcome }, r === null ? "ungraded" : number(r));
}
function item(i, at, known) {
  const key = [state.stage, state.kind, index.place(i)].join("|");
  const node = known.get(key) ?? el("div", { class: "row", role: "option", "data-key": key, onclick: () => { location.hash = linkOf(+node.dataset.i); } },
    el("div", { class: "top" }, chip(i), el("span", { class: "name" }, index.problemName(i)),
      el("span", { class: "where" }, `step ${index.step[i]} · ${index.tokens[i]} tok${index.truncated[i] ? " ✂" : ""}`)),
    el("div", { class: "text" }, (source.knownHead?.(state.stage, state.kind, i)) ?? ""));
  node.dataset.i = i;
  node.style.top = at * ROW + "px";
  node.setAttribute("aria-selected", i === state.rollout);
  return node;
}
const linkOf = (i) => address("rollout", { place: index.place(i), query: filterQuery() });
function reveal() {
  const at = view.indexOf(state.rollout), list = $("list");
  if (at < 0) return;
  if (at * ROW < list.scrollTop || (at + 1) * ROW > list.scrollTop + list.clientHeight) list.scrollTop = at * ROW - list.clientHeight / 2;
}
function step(move) {
  const at = view.indexOf(state.rollout), next = view[Math.max(0, Math.min(view.length - 1, at + move))];
  if (next !== undefined) location.hash = linkOf(next);
}

// ---------------------------------------------------------------------------------------------- histograms, export
function histograms() {
  const drawn = (title, column) => {
    const rest = { ...currentFilter(), sort: "order", [column]: "" }, bars = histogram(index, filtered(index, rest, search.found), column);
    const top = Math.max(1, ...bars.map((b) => b.rows)), chosen = range($(column).value);
    const name = (b) => (b.low === b.high ? number(b.low) : `${number(b.low)} to ${number(b.high)}`);
    const pick = (b) => { const value = b.low === b.high ? String(b.low) : `${+b.low.toPrecision(6)}-${+b.high.toPrecision(6)}`; $(column).value = $(column).value === value ? "" : value; filtersChanged(); };
    return el("div", { class: "histogram", "data-column": column }, el("h3", {}, title, " ", el("small", {}, "of the filtered; green: right; click to filter")),
      el("div", { class: "bars" }, bars.map((b) => el("button", { class: chosen && (b.high < chosen[0] || b.low > chosen[1]) ? "out" : "", title: `${name(b)}: ${count(b.rows)}, ${count(b.right)} right`, "aria-label": `${title} ${name(b)}: ${b.rows}`, onclick: () => pick(b) },
        el("i", { class: "wrong", style: `height:${(100 * (b.rows - b.right)) / top}%` }), el("i", { class: "right", style: `height:${(100 * b.right) / top}%` })))),
      el("div", { class: "ends dim" }, el("span", {}, bars.length ? number(bars[0].low) : ""), el("span", {}, `at most ${count(top)} in a bar`), el("span", {}, bars.length ? number(bars[bars.length - 1].high) : "")));
  };
  $("histograms").replaceChildren(drawn("Reward", "reward"), drawn("Length in tokens", "tokens"));
}
async function exported(kind) {
  const rows = [...view], id = state.stage, of = state.kind, from = index, parts = [];
  const cell = (v) => { const said = v === null || v === undefined ? "" : text(v); return /[",\n\r]/.test(said) ? `"${said.replaceAll('"', '""')}"` : said; };
  if (kind === "csv") parts.push(EXPORTED.join(",") + "\r\n");
  for (let at = 0; at < rows.length; at += 200) {
    $("count").textContent = `exporting ${Math.round((100 * at) / rows.length)} %`;
    const part = rows.slice(at, at + 200), samples = await source.samples(id, of, part);
    part.forEach((i, k) => {
      if (!samples[k]) return;
      const row = { step: from.step[i], group: from.group[i], sample: from.sample[i], problem: from.problemName(i), task: from.tasks[from.task[i]], outcome: from.outcomes[from.outcome[i]], reward: from.reward[i], advantage: from.advantage[i], tokens: from.tokens[i], truncated: Boolean(from.truncated[i]) };
      for (const name of ["prompt", "completion", "answer", "reference", "reason"]) row[name] = samples[k][name] ?? null;
      parts.push(kind === "csv" ? EXPORTED.map((name) => cell(row[name])).join(",") + "\r\n" : JSON.stringify(row) + "\n");
    });
  }
  download(`${stageName(id).replace(/[^\w.-]+/g, "_")}-${of}.${kind}`, kind === "csv" ? "text/csv" : "application/jsonl", parts);
  filter();
}
