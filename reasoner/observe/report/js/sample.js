"use strict";
// One rollout: question, reference, answer and verdict, then its group, the completion, and further numbers.
let shown = null; // {i, sample} of the open rollout

async function detail(i, place) {
  const box = $("detail"), id = state.stage, kind = state.kind;
  $("rollouts").classList.toggle("open", i !== null);
  if (i === null) {
    shown = null;
    box.replaceChildren(el("p", { class: "empty" }, place ? `There is no rollout ${place} ${kind === "eval" ? "among the held-out samples" : "in this stage"}.` : "Choose a rollout. Arrow keys go through the list; ? shows all keys."));
    if (place) $("rollouts").classList.add("open");
    return;
  }
  let sample;
  try { [sample] = await source.samples(id, kind, [i]); } catch (error) { notice(error.message); return; }
  if (state.rollout !== i || state.stage !== id || state.kind !== kind) return;
  shown = { i, sample };
  const head = el("div", { class: "meta" }, el("button", { id: "back", onclick: () => { location.hash = address("rollouts", { query: filterQuery() }); } }, "← list"), chip(i),
    el("strong", {}, index.problemName(i)), el("a", { href: linkOf(i), title: "Link to this rollout" }, index.place(i)), el("span", { class: "dim" }, KIND_NAMES[kind].toLowerCase()),
    el("button", { class: "small", title: "All attempts at this problem", onclick: () => { location.hash = address("rollouts", { query: { ...(kind === "eval" ? { kind } : {}), problem: index.problemName(i) } }); } }, "all of this problem"),
    el("button", { class: "small", id: "beside", title: "Beside another step or run (d)", onclick: () => beside() }, "side by side"));
  if (!sample) { box.replaceChildren(head, el("p", { class: "empty" }, "The text of this rollout was left out of the file (--rollouts). `reasoner view` shows it.")); return; }
  const find = matcher($("search").value.trim(), $("regex").checked), modes = ["rendered", "plain"];
  if (sample.ids) modes.push(...(index.advantage[i] !== null ? ["advantage"] : []), ...(sample.gap ? ["gap"] : []), "surprisal");
  const used = modes.includes(state.mode) ? state.mode : "rendered";
  const names = { rendered: "rendered", plain: "plain text" };
  const mode = el("select", { id: "mode", "aria-label": "How the completion is shown", onchange: (e) => { state.mode = e.target.value; detail(i); } }, modes.map((m) => option(m, names[m] ?? "coloured by " + m)));
  mode.value = used;
  const outcome = index.outcomes[index.outcome[i]], siblings = index.siblings(i);
  box.replaceChildren(head,
    el("div", { class: "sheet" },
      el("h3", {}, "Question"), el("div", { class: "question" }, rendered(sample.question || sample.prompt, find)),
      el("div", { class: "verdicts" },
        el("div", {}, el("h3", {}, "Reference"), value(sample.reference, find)), el("div", {}, el("h3", {}, "Answer"), sample.answer === null ? el("i", {}, "none found") : value(sample.answer, find)),
        el("div", { class: "verdict" }, el("h3", {}, "Verdict"), el("span", { class: chip(i).className }, outcome), el("span", { class: "dim" }, ` reward ${number(index.reward[i])}`), el("div", {}, marked(sample.reason || "", find))))),
    ...fateStrip(i),
    siblings.length > 1 ? el("div", { class: "siblings", role: "group", "aria-label": "Its group" }, siblings.map((k) => el("button", { class: chip(k).className, "aria-current": k === i, title: `sample ${index.sample[k]}, ${index.tokens[k]} tokens`, onclick: () => { location.hash = linkOf(k); } }, chip(k).textContent))) : "",
    el("h3", {}, "Completion", el("span", {}, `${index.tokens[i]} tokens${index.truncated[i] ? ", truncated" : ""}`), mode, copyButton(() => sample.completion)),
    completion(sample, i, used, find), legend(used),
    el("dl", {}, facts(sample, i).flatMap(([k, v]) => [el("dt", {}, k), el("dd", {}, v + "")])),
    sample.question && sample.question !== sample.prompt ? el("details", { class: "raw" }, el("summary", {}, "Prompt as the model saw it"), el("pre", {}, marked(sample.prompt, find))) : "");
  box.scrollTop = 0;
}
function facts(sample, i) {
  const found = [["verifier", sample.verifier], ["advantage", index.advantage[i] === null ? (sample.dropped ? "not in the update: " + sample.dropped : "–") : number(index.advantage[i])], ["policy version", sample.version]];
  if (index.held_out?.[i]) found.push(["held-out verdict", index.held_out[i]]);
  if (sample.turns) found.push(["turns", `${sample.turns.filter(([origin]) => origin === "policy").length}, ${sample.turns.filter(([, , errors]) => errors).length} replies with errors`]);
  if (sample.shaping) found.push(["shaping", number(sample.shaping)]);
  if (sample.components) found.push(["components", Object.entries(sample.components).map(([k, v]) => `${k} ${number(v)}`).join(", ")]);
  if (sample.mean_gap !== null && sample.mean_gap !== undefined) found.push(["engine-trainer gap", number(sample.mean_gap) + " nats a token"]);
  if (sample.info && Object.keys(sample.info).length) found.push(["info", JSON.stringify(sample.info).slice(0, 600)]);
  return found;
}
/** The same problem over the steps: a curve whose points lead to its attempts. */
function fateStrip(i) {
  const { rates, steps, status } = index.fate(index.problem[i]);
  if (rates.length < 2) return [];
  const current = steps.findIndex(([step]) => step === index.step[i]);
  const go = (k) => { location.hash = linkOf(steps[k][1][0]); };
  return [el("div", { class: "fate" }, el("span", { class: "dim" }, "this problem over the steps"), sparkline(rates, { width: Math.min(360, 40 + 16 * rates.length), height: 34, low: 0, high: 1, onpick: go, current, label: (k) => `step ${rates[k][0]}: ${percent(rates[k][1])} right` }), el("span", { class: "status " + status.replace(" ", "-") }, status))];
}
const LEGENDS = { advantage: "green: made likelier, red: made less likely; stronger where the token was less sure", gap: "red: the trainer gives less probability than the engine, green: more", surprisal: "orange: the less likely the token was" };
const legend = (mode) => el("p", { class: "legend" }, LEGENDS[mode] ?? "");

function completion(sample, i, mode, find) {
  if (!LEGENDS[mode]) {
    const show = (body) => (mode === "plain" ? el("pre", {}, marked(body, find)) : rendered(body, find));
    if (!sample.turns) return el("div", { id: "completion", class: "tokens" }, show(sample.completion));
    return el("div", { id: "completion", class: "turns" }, sample.turns.map(([origin, body, errors]) => {
      const own = origin === "policy", name = own ? "policy" : errors ? "reply, an error" : "reply";
      return el("div", { class: "turn " + (own ? "" : "reply") + (errors ? " failed" : ""), title: own ? "the policy's turn" : errors ? "reply of the environment: an error" : "reply of the environment: not trained on" }, el("span", { class: "whose" }, name), own ? show(body) : el("pre", {}, marked(body, find)));
    }));
  }
  const { units } = head;
  return el("pre", { class: "tokens", id: "completion" }, sample.ids.map((id, k) => {
    const surprisal = sample.surprisal[k] * units.surprisal, gap = sample.gap ? sample.gap[k] * units.gap : null;
    let rgb = "--hot-rgb", strength = Math.min(1, surprisal / 4), said = `surprisal ${surprisal.toFixed(2)} nats`;
    if (gap !== null) said += `, gap ${gap.toFixed(3)}`;
    if (mode === "advantage") {
      const a = index.advantage[i] || 0;
      rgb = a >= 0 ? "--good-rgb" : "--bad-rgb";
      strength = Math.min(1, Math.abs(a)) * (0.3 + 0.7 * Math.min(1, surprisal / 1.5));
    } else if (mode === "gap") { rgb = gap >= 0 ? "--good-rgb" : "--bad-rgb"; strength = Math.min(1, Math.abs(gap) / 0.5); }
    if (sample.mask && !sample.mask[k]) return el("span", { class: "reply", title: "reply of the environment: not trained on" }, sample.words[id] ?? "�");
    return el("span", { title: said, style: strength > 0.02 ? `background:rgba(var(${rgb}),${(0.75 * strength).toFixed(2)})` : null }, sample.words[id] ?? "�");
  }));
}
/** Open this rollout beside another attempt at the same problem: of the step before, or of another one. */
function beside() {
  if (!shown) return;
  const { i } = shown, steps = index.steps(index.problem[i]), at = steps.findIndex(([step]) => step === index.step[i]);
  const other = (steps[at - 1] ?? steps[at + 1])?.[1][0] ?? index.siblings(i).find((k) => k !== i) ?? i;
  const [left, right] = index.step[other] <= index.step[i] ? [other, i] : [i, other];
  const side = (k) => [state.stage, state.kind, index.place(k)].join("|");
  location.hash = address("pair", { query: { left: side(left), right: side(right) } });
}
