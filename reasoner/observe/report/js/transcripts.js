"use strict";
// Answers, critiques, revisions and comparisons of a constitutional stage.
const TOLD = 30;
const told = { stage: null, rows: [], texts: [], shown: TOLD };
const KINDS = {
  "": ["Everything", () => true],
  revised: ["Answers that were revised", (r) => r.rounds && r.revision !== r.answer],
  kept: ["Answers left as they were", (r) => r.rounds && r.revision === r.answer],
  compared: ["Comparisons", (r) => !r.rounds],
  tie: ["Comparisons without a winner", (r) => r.label === "tie" || r.fault],
};
const said = (prompt) => (typeof prompt === "string" ? prompt : prompt.map((t) => `${t.role}: ${t.content}`).join("\n\n"));
const principles = (r) => (r.rounds ? r.rounds.map((one) => one.principle) : [r.principle]);
async function readTranscripts() {
  Object.assign(told, { stage: state.stage, rows: await source.transcripts(state.stage), shown: TOLD });
  told.texts = told.rows.map((r) => [said(r.prompt), ...(r.rounds ? [r.answer, ...r.rounds.flatMap((one) => [one.critique, one.revision])] : [r.first, r.second])].join("\n").toLowerCase());
  $("told-kind").replaceChildren(...Object.entries(KINDS).map(([k, [label]]) => option(k, label)));
  $("told-principle").replaceChildren(option("", "Every principle"), ...[...new Set(told.rows.flatMap(principles))].sort().map((p) => option(p, p)));
}
async function transcripts() {
  if (told.stage !== state.stage) await readTranscripts();
  const query = $("told-search").value.trim(), wanted = query.toLowerCase(), principle = $("told-principle").value, fits = KINDS[$("told-kind").value][1];
  const kept = told.rows.filter((r, i) => fits(r) && (!principle || principles(r).includes(principle)) && told.texts[i].includes(wanted));
  $("told-count").textContent = `${kept.length.toLocaleString("en")} of ${told.rows.length.toLocaleString("en")}`;
  const more = kept.length > told.shown ? el("button", { onclick: () => { told.shown += 5 * TOLD; transcripts(); } }, `Show more (${kept.length - told.shown} left)`) : null;
  $("told").replaceChildren(...kept.slice(0, told.shown).map((r) => (r.rounds ? revision(r, query) : comparison(r, query))), more || "");
  if (!kept.length) $("told").append(el("p", { class: "empty" }, "No transcript matches."));
}
const part = (name, body, query, classes) => el("div", {}, el("h3", {}, name), el("pre", { class: classes }, body ? marked(body, matcher(query)) : el("i", {}, "nothing")));
const two = (...parts) => el("div", { class: "two" }, parts);
function revision(r, query) {
  const at = [r.step, r.group, r.sample].join("/"), changed = r.revision !== r.answer;
  return el("article", { class: "told" },
    el("div", { class: "meta" }, el("a", { href: address("rollout", { place: at }), title: "The rollout of this answer" }, at),
      el("span", { class: "chip " + (changed ? "good" : "") }, changed ? "revised" : "left as it was")),
    two(part("Prompt", said(r.prompt), query), part("Answer", r.answer, query)),
    r.rounds.map((one) => two(part(["Critique ", el("span", { class: "chip" }, one.principle)], one.critique, query), part("Revision", one.revision, query))));
}
function comparison(r, query) {
  const chance = (name, p) => el("tr", {}, el("td", {}, name), el("td", {}, percent(p)), el("td", {}, el("div", { class: "bar" }, el("i", { class: "now", style: `left:0;width:${100 * p}%` }))));
  return el("article", { class: "told" },
    el("div", { class: "meta" }, el("span", {}, `${r.step}/${r.group}`), el("span", { class: "chip" }, r.principle),
      el("span", { class: "chip " + (r.fault ? "bad" : r.label === "tie" ? "none" : "good") }, r.fault ? "no answer" : r.label === "tie" ? "no winner" : r.label + " is better")),
    part("Prompt", said(r.prompt), query),
    two(["first", "second"].map((side) => part(side, r[side], query, r.label === side ? "chosen" : null))),
    r.fault ? part("Fault", r.fault, query) : el("div", { class: "scroll" }, el("table", {}, el("tr", {}, el("th", {}, "chance of the first"), el("th", {}), el("th", {})),
      chance("shown first", r.chances[0]), chance("shown second", r.chances[1]), chance("mean", r.probability))));
}
