"use strict";
// First page of a stage: numbers, findings, alarms, rounds, metrics before and after, config.
const AUTOMATIC_BYTES = 30e6; // findings of a larger live stage are looked for when asked
let lookedFor = null;

async function overviewPage() {
  const id = state.stage, [s, line] = [await source.stage(id), stageLine(id)];
  if (state.stage !== id || state.tab !== "overview") return;
  const numbers = await cards(id, s, line);
  if (state.stage !== id || state.tab !== "overview") return;
  const findings = el("div", { id: "findings" });
  $("overview").replaceChildren(
    numbers,
    line.error ? el("p", { class: "finding fault" }, el("strong", {}, "It failed: "), line.error) : "",
    ...(isEvaluation(line) ? [] : [el("h2", {}, "Findings"), findings]),
    ...alarms(s), el("div", { id: "rounds" }), ...beforeAfter(s), ...probes(s), el("div", { id: "audit" }),
    el("details", {}, el("summary", {}, isEvaluation(line) ? "Result" : "Config"), el("pre", {}, s.config)),
    isEvaluation(line) ? "" : el("details", {}, el("summary", {}, "Machine"), el("pre", {}, JSON.stringify(s.environment, null, 1))),
    el("details", {}, el("summary", {}, "Glossary"), el("div", { class: "scroll" }, el("table", {},
      el("tr", {}, ["metric", "what it is", "healthy"].map((t) => el("th", {}, t))),
      Object.entries(head.glossary).map(([name, [meaning, healthy]]) => el("tr", {}, [name, meaning, healthy].map((t) => el("td", {}, t))))))),
  );
  const small = !source.live || (line.bytes ?? 0) < AUTOMATIC_BYTES || lookedFor === id;
  if (isEvaluation(line)) return;
  if (small && source.live) showFindings(id, false).catch((error) => notice(error.message)); // may take a while
  else if (small) await showFindings(id, false);
  else findings.replaceChildren(el("button", { onclick: () => showFindings(id, false) }, `Look for findings in ${Math.round(line.bytes / 1e6)} MB of records`));
}
async function cards(id, s, line) {
  const sizes = s.rollouts ?? { train: (await source.index(id, "train")).length, eval: (await source.index(id, "eval")).length };
  const alone = isEvaluation(line), found = alone ? [] : [[s.of ? `${s.steps} of ${s.of}` : s.steps, "steps"], [count(sizes.train), "rollouts"]];
  if (sizes.eval) found.push([count(sizes.eval), "held-out samples"]);
  if (line.evaluation?.values.length) { const e = line.evaluation, last = e.values[e.values.length - 1]; found.push([number(last[1]), alone ? e.metric : `${e.metric}, step ${last[0]}`]); }
  found.push([s.method, line.state]);
  if (!alone) found.push([text(s.environment.device || "?"), "device"]);
  return el("div", { class: "cards" }, found.map(([value, name]) => el("div", { class: "card" }, el("b", {}, value), el("span", {}, name))));
}
/** The run went on: the numbers change; findings stay as they were read, until they are looked for again. */
async function overviewGrown() {
  const id = state.stage, numbers = await cards(id, await source.stage(id), stageLine(id));
  if (state.stage === id && state.tab === "overview") document.querySelector("#overview .cards")?.replaceWith(numbers);
}
async function showFindings(id, again) {
  lookedFor = id;
  let found = await source.findings(id, again);
  while (found.state === "running") {
    const box = $("findings");
    if (state.stage !== id || state.tab !== "overview" || !box) return;
    if (!box.children.length || again) box.replaceChildren(el("p", { class: "dim" }, "The rules of `explain` read the run …"));
    again = false;
    await new Promise((r) => setTimeout(r, 700));
    found = await source.findings(id, false);
  }
  if (state.stage !== id || state.tab !== "overview" || !$("findings")) return;
  const partly = found.left_out ? el("p", { class: "dim" }, `The run is long: the rules read whole steps of its beginning, its end and between, and left out ${count(found.left_out)} steps.`) : "";
  const refresh = source.live ? el("p", { class: "dim" }, found.steps === undefined ? "" : `as of step ${found.steps} `, el("button", { class: "small", onclick: () => showFindings(id, true) }, "look again")) : null;
  if (found.error) { $("findings").replaceChildren(el("p", { class: "finding warning" }, found.error), refresh ?? ""); return; }
  $("findings").replaceChildren(...(found.findings.length ? found.findings.map(finding) : [el("p", {}, "Nothing stands out.")]), partly, refresh ?? "");
  $("rounds").replaceChildren(...rounds(found.rounds ?? []));
  if (found.held_out) {
    const index = await source.index(id, "train");
    index.held_out = [];
    for (const [step, group, sample, outcome] of found.held_out) { const i = index.find([step, group, sample].join("/")); if (i !== null) index.held_out[i] = outcome; }
  }
  if (found.audit && $("audit")) $("audit").replaceChildren(...audit(found.audit));
}
function finding(f) {
  return el("div", { class: `finding ${f.level}` },
    el("span", { class: "level" }, f.level + (f.follows ? `, follows from ${f.follows}` : "")),
    el("p", {}, el("strong", {}, f.title)),
    f.evidence.length ? el("ul", {}, f.evidence.map((e) => el("li", {}, e))) : null,
    f.change ? el("p", { class: "try" }, f.change) : null,
    f.rollouts.length ? el("p", {}, "Rollouts: ", placeLinks(f.rollouts)) : null);
}
function placeLinks(places) {
  return [places.map((r) => [el("a", { href: address("rollout", { place: r }) }, r), " "]),
    places.length > 1 ? el("a", { class: "dim", href: address("rollouts", { query: { only: places.join(",") } }) }, "as a list") : ""];
}
function alarms(s) {
  return s.alarms.length ? [el("h2", {}, "Alarms during the run"), ...s.alarms.map((a) => finding(
    { level: "warning", title: `Step ${a.step}, ${a.name}: ${a.sentence}`, evidence: a.evidence, rollouts: a.rollouts }))] : [];
}
function rounds(all) { // of the whole run, whichever stage is shown
  if (!all.length) return [];
  const said = (v) => (!v ? "–" : v.every((x) => x >= 0 && x <= 1) ? `${percent(v[0])} ${interval(v[1], v[2])}` : `${number(v[0])} [${number(v[1])},\u00a0${number(v[2])}]`);
  return [el("h2", {}, "Rounds, on the same held-out problems"), el("div", { class: "scroll" }, el("table", {},
    el("tr", {}, ["round", all[0].metric, "win rate against the start, ties half", "problems"].map((t) => el("th", {}, t))),
    all.map((r) => el("tr", {}, el("td", {}, r.win_rate ? r.stage : `before ${r.stage}`), el("td", {}, said(r.estimate)),
      el("td", {}, said(r.win_rate)), el("td", {}, r.problems === null ? "–" : r.problems)))))];
}
function beforeAfter(s) {
  if (!s.before_after.length) return [];
  const part = (v) => (v ? `${100 * v[0]}%` : "0");
  const bar = (b, a) => el("div", { class: "bar" },
    b ? el("i", { class: "was", style: `left:0;width:${part(b)};bottom:50%` }) : null,
    el("i", { class: "now", style: `left:0;width:${part(a)};${b ? "top:50%" : ""}` }));
  const said = (m) => (v) => (m.share && v !== null ? percent(v) : number(v)); // losses and scores of any size are shown unchanged
  const shown = (m, v) => (v ? said(m)(v[0]) + (v.length > 1 ? ` [${v.slice(1).map(said(m)).join(",\u00a0")}]` : "") : "–");
  const before = s.method !== "eval";
  return [el("h2", {}, before ? "Before and after, held out" : "Held out"), el("div", { class: "scroll" }, el("table", {},
    el("tr", {}, ["metric", ...(before ? ["before", "after"] : ["value"]), "", "problems, rows or pairs"].map((t) => el("th", { class: t ? null : "of-bar" }, t))),
    s.before_after.map((m) => el("tr", {}, el("td", {}, m.metric), before ? el("td", {}, shown(m, m.before)) : "", el("td", {}, shown(m, m.after)),
      el("td", { class: "of-bar" }, m.share ? bar(m.before, m.after) : null), el("td", {}, m.behind === null ? "–" : m.behind)))))];
}
function probes(s) {
  if (!s.probes.length) return [];
  const shown = (v, form) => (v === null ? "–" : form(v));
  return [el("h2", {}, "Changes that should not matter to the reward model"), el("div", { class: "scroll" }, el("table", {},
    el("tr", {}, ["change", "shift in standard deviations of the score", "scores raised", "worse above better: plain", "changed", "rows or pairs", "not scored"].map((t) => el("th", {}, t))),
    s.probes.map((p) => el("tr", {}, el("td", {}, p.probe), el("td", {}, shown(p.shift, (v) => `${number(v[0])} [${v.slice(1).map((x) => shown(x, number)).join(",\u00a0")}]`)),
      el("td", {}, shown(p.raised, percent)), el("td", {}, shown(p.plain, percent)), el("td", {}, shown(p.changed, percent)), el("td", {}, p.behind), el("td", {}, p.ungraded)))))];
}
function audit(all) {
  if (!all.length) return [];
  return [el("h2", {}, "Audit: rewarded rollouts graded again by a held-out verifier"), el("div", { class: "scroll" }, el("table", {},
    el("tr", {}, ["steps", "sampled", "rejected", "share", "95 %"].map((t) => el("th", {}, t))),
    all.map((a) => el("tr", {}, el("td", {}, [...new Set(a.steps)].join("\u2060–\u2060")), el("td", {}, a.sampled), el("td", {}, a.rejected),
      el("td", {}, percent(a.rejected / a.sampled)), el("td", {}, interval(a.low, a.high)))))),
    all.some((a) => a.rejected) ? el("p", {}, el("a", { href: address("rollouts", { query: { sort: "held_out" } }) }, "Read the rejected ones")) : ""];
}
