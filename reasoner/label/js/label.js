"use strict";
// One pair after the other: the server says which, a key decides, and the server has it on disk before it answers.
const tab = sessionStorage.tab ||= crypto.randomUUID();
let now = null, since = 0, busy = false, plain = false, open = false;

function notice(said) { $("notice").textContent = said; $("notice").hidden = !said; }
const draft = () => `reason ${now.repeat} ${now.id}`; // kept for a reload, and for undo

function show(state) {
  now = state;
  since = performance.now();
  $("count").textContent = `${state.done} of ${state.total}`;
  $("bar").value = state.done / state.total;
  notice(state.finished ? "All pairs are labelled. Close the page." : "");
  $("reason").value = state.finished ? "" : (sessionStorage[draft()] ?? "");
  for (const button of document.querySelectorAll("footer [data-side], #reason")) button.disabled = state.finished;
  texts();
  soFar();
  document.querySelector("main").scrollTop = 0;
  document.querySelector("main").focus();
}
/** Show question and completions, rendered or as they were written. */
function texts() {
  $("pair").hidden = now.finished;
  $("mode").textContent = plain ? "rendered" : "plain text";
  if (now.finished) return;
  for (const [id, body] of [["prompt", now.prompt], ["left-text", now.left], ["right-text", now.right]])
    $(id).replaceChildren(plain ? el("pre", {}, body) : rendered(body));
}
/** Show how far the sitting is by category, and the agreement with oneself. */
function soFar() {
  const { agreement } = now, names = Object.entries(now.categories);
  $("so-far").hidden = !(open || now.finished);
  $("so-far-button").setAttribute("aria-expanded", !$("so-far").hidden);
  const line = ([name, [done, total]]) => el("tr", {}, el("td", {}, name || "no category"), el("td", {}, `${done} of ${total}`), el("td", {}, el("progress", { class: "bar", max: 1, value: done / total, "aria-label": name })));
  const said = agreement.of ? `${percent(agreement.share)} ${interval(...agreement.interval)}: the same choice for ${agreement.equal} of ${agreement.of} pairs that were shown twice, the second time with the sides swapped.` : "no pair was decided twice so far. Some are shown a second time, with the sides swapped.";
  $("so-far").replaceChildren(el("div", { class: "sheet" }, names.length > 1 ? el("table", {}, names.map(line)) : "", el("p", { id: "agreement" }, el("b", {}, "Agreement with yourself: "), said)));
}

async function ask(path, body) {
  if (busy) return;
  busy = true;
  try {
    const answer = await fetch(path, body ? { method: "POST", body: JSON.stringify(body) } : {});
    const row = await answer.json();
    if (answer.ok) show(row);
    else {
      if (answer.status === 409) show(await (await fetch("next")).json()); // labelled in another tab: the next pair
      notice(row.error);
    }
  } catch {
    notice("The server is gone; labels so far are on disk. Run `reasoner label` again.");
  } finally { busy = false; }
}
function give(side, event) {
  if (!now || now.finished || event?.repeat) return;
  ask("label", { id: now.id, repeat: now.repeat, side, tab, seconds: (performance.now() - since) / 1000, reason: $("reason").value });
}
const undo = (event) => event?.repeat || ask("undo", { tab });
const left = (e) => give("left", e), right = (e) => give("right", e), tie = (e) => give("tie", e);
const KEYS = [
  ["←, 1", "left is better", { ArrowLeft: left, 1: left }],
  ["→, 2", "right is better", { ArrowRight: right, 2: right }],
  ["↓, t", "tie", { ArrowDown: tie, t: tie }],
  ["s", "skip: no label", { s: (e) => give("skip", e) }],
  ["u", "undo the last label", { u: undo }],
  ["r", "write a reason; Esc leaves the field", { r: () => $("reason").focus() }],
  ["Space, Page ↓", "read on", {}],
  ["f", "open or fold what is thought", { f: foldThoughts }],
  ["m", "rendered, or plain text", { m: () => $("mode").click() }],
  ["p", "progress, and agreement with yourself", { p: () => $("so-far-button").click() }],
  ["l", "light or dark", { l: () => $("theme").click() }],
  ["?", "this list", { "?": () => $("help").click() }],
];
document.querySelectorAll("[data-side]").forEach((button) => { button.onclick = () => give(button.dataset.side); });
$("undo").onclick = () => undo();
$("reason").oninput = () => { sessionStorage[draft()] = $("reason").value; };
$("mode").onclick = () => { plain = !plain; if (now) texts(); };
$("so-far-button").onclick = () => { open = !open; if (now) soFar(); };
useTheme();
useKeys(KEYS);
ask("next").then(() => { document.documentElement.dataset.ready = "1"; });
