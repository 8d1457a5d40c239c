"use strict";
// Two rollouts of one problem side by side: two steps, two runs, or two samples; what differs is marked by words.
const PAIR_MODES = { difference: "difference", rendered: "rendered", plain: "plain text" };

async function pairPage(query) {
  const given = (side) => { const parts = (query[side] ?? "").split("|"), place = parts.pop(), kind = parts.pop(); return { stage: parts.join("|"), kind, place }; };
  const sides = { left: given("left"), right: given("right") };
  const chosen = (query.runs ?? "").split("|").filter(stageLine);
  for (const side of Object.values(sides)) if (!stageLine(side.stage)) { await (chosen.length === 2 ? suggestBetween(...chosen) : suggestPair()); return; }
  const ids = [sides.left, sides.right], mine = location.hash, here = () => location.hash === mine;
  for (const side of ids) Object.assign(side, await located(side.stage, side.kind === "eval" ? "eval" : "train", side.place, here));
  if (!here()) return;
  if (ids.some((side) => side.row === null)) { $("pair").replaceChildren(el("p", { class: "empty" }, `There is no rollout ${ids.find((side) => side.row === null).place}.`)); return; }
  const samples = await Promise.all(ids.map((side) => source.samples(side.stage, side.kind, [side.row]).then(([one]) => one)));
  if (!here()) return;
  const mode = query.mode in PAIR_MODES ? query.mode : "difference", key = (side) => [side.stage, side.kind, side.index.place(side.row)].join("|");
  const go = (change) => { location.hash = address("pair", { query: { ...query, ...change } }); };
  const modes = el("select", { id: "pair-mode", "aria-label": "How they are shown", onchange: (e) => go({ mode: e.target.value }) }, Object.entries(PAIR_MODES).map(([k, label]) => option(k, label)));
  modes.value = mode;
  const [left, right] = ids, parts = mode === "difference" && samples.every(Boolean) ? difference(samples[0].completion, samples[1].completion) : null;
  const equal = parts && parts.every(([kind]) => kind === "=");
  const column = (side, k) => el("div", { class: "side", "data-side": k ? "right" : "left" }, choosers(side, k ? "right" : "left", go),
    el("div", { class: "meta" }, chip(side.row, side.index), el("span", {}, side.index.outcomes[side.index.outcome[side.row]]), el("span", { class: "dim" }, `${side.index.tokens[side.row]} tokens${side.index.truncated[side.row] ? ", truncated" : ""}`), el("a", { href: address("rollout", { stage: side.stage, place: side.index.place(side.row), query: side.kind === "eval" ? { kind: "eval" } : {} }) }, "open"), samples[k] ? copyButton(() => samples[k].completion) : ""),
    el("div", { class: "answer" }, "answer ", samples[k] ? value(samples[k].answer) : "–"),
    !samples[k] ? el("p", { class: "empty" }, "Its text was left out of the file (--rollouts).") : parts ? el("pre", {}, parts.filter(([kind]) => kind !== (k ? "-" : "+")).map(([kind, body]) => (kind === "=" ? body : el(k ? "ins" : "del", {}, body)))) : mode === "plain" ? el("pre", {}, samples[k].completion) : rendered(samples[k].completion));
  const one = samples[0] ?? samples[1], same = left.index.problemName(left.row) === right.index.problemName(right.row);
  $("pair").replaceChildren(
    el("div", { class: "filters" }, el("strong", {}, left.index.problemName(left.row)), modes, el("button", { class: "small", onclick: () => go({ left: key(right), right: key(left) }) }, "swap"), equal ? el("span", { class: "dim" }, "the completions are equal") : "", same ? "" : el("span", { class: "chip bad" }, `another problem on the right: ${right.index.problemName(right.row)}`)),
    changedProblems(left, right, go),
    one ? el("div", { class: "sheet" }, el("h3", {}, "Question"), el("div", { class: "question" }, rendered(one.question || one.prompt)), el("h3", {}, "Reference"), value(one.reference)) : "",
    el("div", { class: "sides" }, column(left, 0), column(right, 1)));
}
/** Selects of stage, kind, step and sample; each keeps the problem. */
function choosers(side, name, go) {
  const problem = side.index.problemName(side.row), steps = side.index.steps(side.index.problem[side.row]);
  const select = (label, options, chosen, pick) => { const node = el("select", { "aria-label": `${label}, ${name}`, onchange: (e) => pick(e.target.value) }, options.map(([v, said]) => option(v, said))); node.value = chosen; return node; };
  const to = (stage, kind, place) => go({ [name]: [stage, kind, place].join("|") });
  const elsewhere = async (stage, kind) => {
    const of = await source.index(stage, kind), rows = of.byProblem()[of.problems.indexOf(problem)];
    if (!rows) { notice(`${stageName(stage)} has no ${KIND_NAMES[kind].toLowerCase()} of ${problem}.`); return pairPage(queryNow()); }
    const wanted = side.index.step[side.row], near = rows.reduce((a, b) => (Math.abs(of.step[b] - wanted) < Math.abs(of.step[a] - wanted) ? b : a));
    to(stage, kind, of.place(near));
  };
  const rows = steps.find(([step]) => step === side.index.step[side.row])[1];
  return el("div", { class: "choosers" },
    select("Stage", head.stages.map((s) => [s.id, stageName(s.id)]), side.stage, (stage) => elsewhere(stage, side.kind)),
    select("Kind", Object.entries(KIND_NAMES), side.kind, (kind) => elsewhere(side.stage, kind)),
    select("Step", steps.map(([step, of]) => [step, `step ${step}: ${percent(mean(of.map((i) => (side.index.right(i) ? 1 : 0))))}`]), side.index.step[side.row], (step) => to(side.stage, side.kind, side.index.place(steps.find(([one]) => one === +step)[1][0]))),
    rows.length > 1 ? select("Sample", rows.map((i) => [side.index.place(i), `sample ${side.index.sample[i]}, reward ${number(side.index.reward[i])}`]), side.index.place(side.row), (place) => to(side.stage, side.kind, place)) : "");
}
/** Rows of a step, by the name of their problem. */
function rowsAt(of, step) {
  const found = new Map();
  for (let i = 0; i < of.length; i++) if (of.step[i] === step) { const name = of.problemName(i); if (!found.has(name)) found.set(name, []); found.get(name).push(i); }
  return found;
}
const shareRight = (of, rows) => mean(rows.map((i) => (of.right(i) ? 1 : 0)));
/** Problems whose verdict differs between the two sides' steps: lost ones first. */
function changedProblems(left, right, go) {
  const rates = (side) => rowsAt(side.index, side.index.step[side.row]), share = (side, rows) => shareRight(side.index, rows);
  const a = rates(left), b = rates(right), lostOnes = [], gained = [];
  for (const [name, rows] of a) {
    if (!b.has(name)) continue;
    const before = share(left, rows), after = share(right, b.get(name));
    if (after < before) lostOnes.push([name, before, after]);
    if (after > before) gained.push([name, before, after]);
  }
  const common = [...a.keys()].filter((name) => b.has(name)).length;
  if (common < 2) return "";
  const rowOf = (side, of, name, wanted) => { const rows = of.get(name); return side.index.place(rows.find((i) => side.index.right(i) === wanted) ?? rows[0]); };
  const open = (name, lost) => go({ left: [left.stage, left.kind, rowOf(left, a, name, lost)].join("|"), right: [right.stage, right.kind, rowOf(right, b, name, !lost)].join("|") });
  const list = (title, rows, lost) => el("details", { class: "changed", "data-changed": lost ? "lost" : "gained" }, el("summary", {}, `${count(rows.length)} ${title}`), el("div", { class: "names" }, rows.slice(0, 200).map(([name, before, after]) => el("button", { class: "small", title: `${percent(before)}, then ${percent(after)}`, onclick: () => open(name, lost) }, name))));
  const all = (side, of) => mean([...of].filter(([name]) => a.has(name) && b.has(name)).map(([, rows]) => share(side, rows)));
  return el("div", { class: "summary" }, el("span", {}, `${count(common)} common problems: ${percent(all(left, a))} right on the left, ${percent(all(right, b))} on the right.`), list("got worse", lostOnes, true), list("got better", gained, false));
}
/** Of two stages: a problem of their last steps that the left one solves and the right one does not, else any common one. */
async function suggestBetween(...ids) {
  for (const kind of ["eval", "train"]) {
    const mine = location.hash, here = () => location.hash === mine;
    const both = await Promise.all(ids.map((id) => readUntil(id, kind, () => !here())));
    if (!here()) return;
    const [a, b] = both.map((of) => rowsAt(of, of.step.reduce((x, y) => Math.max(x, y), 0))), common = [...a.keys()].filter((name) => b.has(name));
    const fall = (name) => shareRight(both[0], a.get(name)) - shareRight(both[1], b.get(name));
    const name = common.find((one) => fall(one) > 0) ?? common.find((one) => fall(one) < 0) ?? common[0];
    if (name === undefined) continue;
    const better = fall(name) > 0, place = (of, rows, wanted) => of.place(rows.find((i) => of.right(i) === wanted) ?? rows[0]);
    location.replace(address("pair", { query: { left: [ids[0], kind, place(both[0], a.get(name), better)].join("|"), right: [ids[1], kind, place(both[1], b.get(name), !better)].join("|") } }));
    return;
  }
  $("pair").replaceChildren(el("p", { class: "empty" }, `${stageName(ids[0])} and ${stageName(ids[1])} have no problem in common.`));
}
/** Without a choice: the largest fall of a problem from one step to its next, held-out ones first. */
async function suggestPair() {
  for (const kind of ["eval", "train"]) {
    const of = await source.index(state.stage, kind);
    if (state.tab !== "pair") return;
    let best = null;
    for (let p = 0; p < of.problems.length; p++) {
      const { rates, steps } = of.fate(p);
      for (let k = 1; k < rates.length; k++) if (!best || rates[k - 1][1] - rates[k][1] > best.fall) best = { fall: rates[k - 1][1] - rates[k][1], left: steps[k - 1], right: steps[k] };
    }
    if (!best) continue;
    const side = (rows, wanted) => [state.stage, kind, of.place(rows.find((i) => of.right(i) === wanted) ?? rows[0])].join("|");
    location.replace(address("pair", { query: { left: side(best.left[1], true), right: side(best.right[1], false) } }));
    return;
  }
  $("pair").replaceChildren(el("p", { class: "empty" }, "No problem of this stage was tried at two steps. Open a rollout and press d to see it beside another."));
}
