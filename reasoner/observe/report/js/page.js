"use strict";
// Places and keys. The address after # says all of what is shown: #/STAGE/TAB?filters, #/STAGE/rollout/STEP/GROUP/SAMPLE?filters.
const TABS = ["runs", "overview", "curves", "rollouts", "problems", "pair", "transcripts"];
const state = { stage: null, tab: null, rollout: null, kind: "train", mode: "rendered", only: null };
let head, source;

function address(tab, { stage = state.stage, place = null, query = {} } = {}) {
  const kept = Object.entries(query).filter(([, v]) => v !== undefined && v !== null && v !== "");
  return `#/${encodeURIComponent(stage)}/${tab}${place ? "/" + place : ""}${kept.length ? "?" + new URLSearchParams(kept) : ""}`;
}
const queryNow = () => Object.fromEntries(new URLSearchParams(location.hash.split("?")[1] ?? ""));
const placeNow = () => location.hash.split("?")[0].split("/rollout/")[1] ?? null;
/** Change the address without reading it again: what it says is shown already. */
const moved = (tab, parts) => history.replaceState(null, "", address(tab, parts));
function notice(said) { $("notice").textContent = said; $("notice").hidden = !said; }
const defaultStage = () => (head.stages.findLast((s) => (s.rollouts?.train ?? s.steps) > 0) ?? head.stages[head.stages.length - 1])?.id;

async function route() {
  const [path] = location.hash.replace(/^#\/?/, "").split("?"), [name, asked, ...rest] = path.split("/"), query = queryNow();
  let stage = null;
  try { stage = decodeURIComponent(name ?? ""); } catch { /* not an address of this page */ }
  if (!stageLine(stage)) stage = source.live ? (head.stages[0]?.id ?? "") : defaultStage();
  state.stage = stage;
  const has = stageLine(stage) && (source.live ? stageLine(stage).method === "constitutional" : stageLine(stage).transcripts.count > 0);
  document.querySelector("nav button[data-tab=transcripts]").hidden = !has;
  const first = head.stages.length > 1 && source.live ? "runs" : source.live && !head.stages.length ? "runs" : "overview";
  let tab = asked === "rollout" ? "rollouts" : TABS.includes(asked) ? asked : first;
  if ((tab === "transcripts" && !has) || !stageLine(stage)) tab = stageLine(stage) ? "overview" : "runs";
  state.tab = tab;
  $("stage").value = stage;
  for (const one of TABS) $(one).hidden = one !== tab;
  document.querySelectorAll("nav button").forEach((b) => b.setAttribute("aria-selected", b.dataset.tab === tab));
  tabButton(tab)?.scrollIntoView({ block: "nearest", inline: "nearest" });
  document.body.dataset.tab = tab;
  notice("");
  try {
    if (tab === "runs") runsPage(query);
    if (tab === "overview") await overviewPage();
    if (tab === "curves") await curvesPage(query);
    if (tab === "rollouts") await rolloutsPage(query, asked === "rollout" ? rest.join("/") : null);
    if (tab === "problems") await problemsPage(query);
    if (tab === "pair") await pairPage(query);
    if (tab === "transcripts") {
      if (told.stage !== state.stage) await readTranscripts();
      for (const [key, value] of Object.entries(query)) if (["search", "kind", "principle"].includes(key)) $("told-" + key).value = value;
      await transcripts();
    }
  } catch (error) { notice(error.message); }
}

// -------------------------------------------------------------------------------------------------------- live
let waiting = new Set(), busy = false;
async function grown(names) {
  names.forEach((name) => waiting.add(name));
  if (busy) return;
  busy = true;
  try {
    while (waiting.size) {
      const changed = waiting;
      waiting = new Set();
      setHead(await source.head());
      for (const key of Object.keys(source.indexes)) {
        const at = key.lastIndexOf("|"), [id, kind] = [key.slice(0, at), key.slice(at + 1)];
        if (changed.has(id) && id === state.stage) await refreshed(id, kind);
        else if (changed.has(id)) delete source.indexes[key];
      }
      if (state.tab === "runs") runsPage(queryNow());
      if (changed.has(state.stage) && state.tab === "curves") await curvesPage(queryNow());
      if (changed.has(state.stage) && state.tab === "overview") await overviewGrown();
      if (changed.has(state.stage) && state.tab === "problems") await problemsPage(queryNow());
      await new Promise((r) => setTimeout(r, 500));
    }
  } catch (error) { notice(error.message); } finally { busy = false; }
}
async function refreshed(id, kind) {
  const before = source.indexes[id + "|" + kind], now = await source.refreshed(id, kind);
  if (state.tab !== "rollouts" || shownOf !== id + "|" + kind || !index) return now;
  const place = state.rollout === null || !before ? null : before.place(state.rollout);
  index = now;
  if (place) state.rollout = now.find(place);
  if (search.key && Date.now() - search.at > 5000) await runSearch({ again: true });
  filter();
  return now;
}
/** While the server still reads long files, ask for what it has read meanwhile. */
async function poll() {
  for (;;) {
    await new Promise((r) => setTimeout(r, 600));
    const reading = Object.keys(source.indexes).filter((key) => key.startsWith(state.stage + "|") && source.indexes[key].reading !== null);
    try {
      for (const key of reading) await refreshed(state.stage, key.slice(key.lastIndexOf("|") + 1));
      const done = reading.length && reading.every((key) => source.indexes[key]?.reading === null);
      if (done && ["overview", "problems", "curves"].includes(state.tab)) await route();
    } catch (error) { notice(error.message); }
  }
}
/** Find a rollout by its place; if the file is still being read, wait for it as long as `wanted()` holds. */
async function located(stage, kind, place, wanted) {
  const of = await readUntil(stage, kind, (index) => index.find(place) !== null || !wanted());
  return { index: of, row: of.find(place) };
}
/** Return the index of a stage's rollouts once `enough(index)` holds or its file is read to the end. */
async function readUntil(stage, kind, enough) {
  for (;;) {
    const of = await source.index(stage, kind);
    if (of.reading === null || of.reading === undefined || enough(of)) { notice(""); return of; }
    notice(`Reading the run: ${Math.floor(100 * of.reading)} %`);
    await new Promise((r) => setTimeout(r, 400));
    await source.refreshed(stage, kind);
  }
}

// ------------------------------------------------------------------------------------------------- start, keys
function setHead(found) {
  const before = head?.stages.map((s) => s.id).join("\n");
  head = found;
  $("title").textContent = head.title;
  if (before === head.stages.map((s) => s.id).join("\n")) return;
  const chosen = state.stage;
  $("stage").replaceChildren(...head.stages.map((s) => option(s.id, `${source.live || new Set(head.stages.map((one) => one.run)).size > 1 ? stageName(s.id) : s.name} (${s.method})`)));
  $("stage").hidden = head.stages.length < 2;
  if (chosen !== null) $("stage").value = chosen;
  document.querySelector("nav button[data-tab=runs]").hidden = !source.live && head.stages.length < 2;
}
const KEYS = [
  ["j, ↓ / k, ↑", "next, previous rollout", { j: () => step(1), ArrowDown: () => step(1), k: () => step(-1), ArrowUp: () => step(-1) }, "rollouts"],
  ["← / →", "previous, next sample of the group", { ArrowLeft: () => sibling(-1), ArrowRight: () => sibling(1) }, "rollouts"],
  ["d", "side by side with another step", { d: () => beside() }, "rollouts"],
  ["c", "copy the completion", { c: async () => { if (shown?.sample) notice((await copied(shown.sample.completion)) ? "" : "The browser does not allow copying."); } }, "rollouts"],
  ["m", "next way of showing the completion", { m: () => { const s = $("mode"); if (s) { s.selectedIndex = (s.selectedIndex + 1) % s.options.length; s.dispatchEvent(new Event("change")); } } }, "rollouts"],
  ["f", "open or fold what is thought", { f: foldThoughts }],
  ["h", "histograms", { h: () => $("histogram-button").click() }, "rollouts"],
  ["/", "search", { "/": () => ($(state.tab === "curves" ? "metric" : state.tab === "runs" ? "run-filter" : state.tab === "problems" ? "problems-search" : "search"))?.focus() }],
  ["1 … 6", "runs, overview, curves, rollouts, problems, side by side", Object.fromEntries(TABS.slice(0, 6).map((tab, k) => [k + 1, () => tabButton(tab)?.click()]))],
  ["t", "light or dark", { t: () => $("theme").click() }],
  ["?", "this list", { "?": () => $("help").click() }],
  ["Esc", "leave a field, close", {}],
];
const tabButton = (tab) => document.querySelector(`nav button[data-tab=${tab}]:not([hidden])`);
function sibling(move) {
  if (state.rollout === null) return;
  const all = index.siblings(state.rollout), next = all[all.indexOf(state.rollout) + move];
  if (next !== undefined) location.hash = linkOf(next);
}
function listen() {
  $("stage").onchange = (e) => { location.hash = address(state.tab === "pair" ? "overview" : state.tab, { stage: e.target.value }); };
  document.querySelectorAll("nav button").forEach((b) => { b.onclick = () => { location.hash = address(b.dataset.tab); }; });
  useKeys(KEYS, (tab) => tab === state.tab);
  $("kind").onchange = () => { for (const id of ["outcome", "task", "step", "sort"]) $(id).value = id === "sort" ? "order" : ""; state.only = null; filtersChanged({ kind: true }); };
  for (const id of ["sort", "outcome", "task"]) $(id).onchange = () => filtersChanged();
  for (const id of ["step", "problem", "reward", "tokens"]) $(id).oninput = () => filtersChanged();
  let later; $("search").oninput = () => { clearTimeout(later); later = setTimeout(searchChanged, 200); };
  $("regex").onchange = searchChanged;
  $("clear").onclick = () => { for (const id of ["search", "outcome", "task", "step", "problem", "reward", "tokens"]) $(id).value = ""; $("sort").value = "order"; $("regex").checked = false; state.only = null; searchChanged(); };
  $("more").onclick = () => $("more").setAttribute("aria-expanded", $("more").parentElement.classList.toggle("all"));
  $("histogram-button").onclick = () => { $("histograms").hidden = !$("histograms").hidden; $("histogram-button").setAttribute("aria-expanded", !$("histograms").hidden); if (!$("histograms").hidden) histograms(); paint(); };
  $("export").onchange = async (e) => { const kind = e.target.value; e.target.value = ""; if (kind) try { await exported(kind); } catch (error) { notice(error.message); } };
  for (const id of ["told-search", "told-kind", "told-principle"]) $(id).oninput = () => { told.shown = TOLD; transcripts(); };
  $("list").onscroll = () => requestAnimationFrame(paint);
  let sized; addEventListener("resize", () => { clearTimeout(sized); sized = setTimeout(() => (state.tab === "curves" ? route() : state.tab === "rollouts" && paint()), 150); });
  addEventListener("hashchange", route);
}
async function start() {
  source = $("live-page") ? new Live() : new Frozen();
  setHead(await source.head());
  listen();
  await route();
  if (source.live) {
    source.watch(grown, (on) => { $("live").hidden = false; $("live").textContent = on ? "live" : "server gone"; $("live").className = "chip " + (on ? "good" : "bad"); });
    poll();
  }
  document.documentElement.dataset.ready = "1";
}
useTheme(() => { if (state.tab === "curves" && head) route(); });
start().catch((error) => notice(error.message));
