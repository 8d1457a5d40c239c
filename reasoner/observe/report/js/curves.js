"use strict";
// Charts: those of one stage in groups, or every metric of several stages over each other.
const SMOOTH = { 0: "off", 0.6: "a little", 0.9: "much" };
const FIRST_METRICS = ["eval/", "reward/", "groups/", "completion/", "policy/", "kl/", "optim/"];
let charts = [], drawnKey = null;
const colour = (name) => getComputedStyle(document.documentElement).getPropertyValue(name).trim();
const short = (name) => name.replace(/^(time|throughput|reward|policy|completion|groups|gap|optim|eval|watch|value|kl)\//, "");

const drawing = () => ({ smooth: +$("smooth").value, log: $("log").checked, metric: $("metric").value.trim().toLowerCase() });
const chosenStages = (query) => (query.runs ? query.runs.split("|").filter(stageLine) : []);

async function curvesPage(query) {
  const several = chosenStages(query), id = state.stage;
  if (several.length && !several.includes(id)) several.unshift(id);
  let specs = null;
  const redraw = () => { const now = drawing(); moved("curves", { query: { ...query, smooth: now.smooth ? String(now.smooth) : "", log: now.log ? "1" : "", metric: now.metric } }); if (specs) drawAll(specs); };
  $("smooth").replaceChildren(...Object.entries(SMOOTH).map(([v, label]) => option(v, label)));
  $("smooth").value = query.smooth in SMOOTH ? query.smooth : "0";
  $("log").checked = query.log === "1";
  if (document.activeElement !== $("metric")) $("metric").value = query.metric || "";
  $("smooth").onchange = $("log").onchange = $("metric").oninput = redraw;
  const found = several.length > 1 ? overlaid(several, await Promise.all(several.map((one) => source.metrics(one)))) : (await source.stage(id)).curves;
  if (state.tab !== "curves" || state.stage !== id) return;
  specs = found;
  const leave = (one) => { const left = several.filter((other) => other !== one); location.hash = address("curves", { stage: left[0], query: { ...queryNow(), runs: left.length > 1 ? left.join("|") : "" } }); };
  $("chosen").replaceChildren(...(several.length > 1 ? several.map((one, k) => el("span", { class: "chip run", style: `color:${PALETTE[k % PALETTE.length]}` }, stageName(one), el("button", { class: "small", "aria-label": `leave out ${stageName(one)}`, onclick: () => leave(one) }, "×"))) : []),
    head.stages.length > 1 ? el("a", { href: address("runs", { query: { runs: (several.length ? several : [id]).join("|") } }) }, several.length > 1 ? "more" : "draw others over it") : "");
  drawAll(specs);
}
function drawAll(specs) {
  const { metric, smooth, log } = drawing();
  const shown = specs.filter((s) => !metric || s.title.toLowerCase().includes(metric) || s.series.some((one) => one.name.toLowerCase().includes(metric)));
  const key = JSON.stringify([state.stage, document.documentElement.dataset.theme, innerWidth, smooth > 0, log, shown.map((s) => [s.title, s.series.map((one) => one.name)])]);
  if (key === drawnKey && charts.length) { shown.forEach((spec, k) => update(charts[k], spec)); return; }
  drawnKey = key;
  charts.forEach((c) => c.destroy());
  charts = [];
  $("charts").replaceChildren();
  if (!shown.length) $("charts").append(el("p", { class: "empty" }, specs.length ? "No metric of this name." : "This stage logged no steps."));
  for (const spec of shown) {
    const box = el("div", { class: "chart" }, el("h3", {}, spec.title + " ", el("small", {}, spec.unit)));
    $("charts").append(box);
    charts.push(draw(spec, box));
    const told = ([name, meaning, healthy]) => el("div", {}, `${name}: ${meaning}${healthy ? `. Healthy: ${healthy}` : ""}`);
    if (spec.help.length) box.append(el("details", { class: "help" }, el("summary", {}, "what it is"), spec.help.map(told)));
  }
}
/** One chart per metric that a stage has, with a line per stage. */
function overlaid(ids, metrics) {
  const rank = (name) => { const k = FIRST_METRICS.findIndex((start) => name.startsWith(start)); return k < 0 ? FIRST_METRICS.length : k; };
  const names = [...new Set(metrics.flatMap((m) => Object.keys(m)))].sort((a, b) => rank(a) - rank(b) || a.localeCompare(b));
  return names.map((name) => {
    const having = ids.map((id, k) => [id, k, metrics[k][name]]).filter(([, , lines]) => lines);
    const joined = uPlot.join(having.map(([, , lines]) => lines));
    const meaning = head.glossary[name];
    return {
      title: name, unit: "", x: joined[0], help: meaning ? [[name, ...meaning]] : [],
      series: having.map(([id, k], at) => ({ name: stageName(id), stage: id, colour: PALETTE[k % PALETTE.length], values: joined[at + 1] })),
    };
  });
}
function smoothed(values, weight) {
  let last = null;
  return weight ? values.map((v) => (v === null || v === undefined ? v : (last = last === null ? v : weight * last + (1 - weight) * v))) : values;
}
/** What is drawn of a chart: smoothed, without what a logarithm does not have, stacked, with its band. */
function prepared(spec) {
  const { smooth, log } = drawing(), logs = log && !spec.stacked, data = [spec.x];
  for (const s of spec.series) data.push(smoothed(s.values, spec.stacked ? 0 : smooth).map((v) => (logs && !(v > 0) ? null : v)));
  const raw = data.slice(1), banded = Boolean(spec.band && !logs && !smooth);
  if (banded) {
    const share = spec.series[0].values.every((v) => v === null || (v >= 0 && v <= 1)), [low, high] = share ? [0, 1] : [-Infinity, Infinity];
    const clipped = spec.band.map((side) => side.map((v) => (v === null ? v : Math.min(high, Math.max(low, v)))));
    data.push(clipped[1], clipped[0]);
  }
  if (spec.stacked) for (let k = raw.length - 2; k >= 0; k--) data[k + 1] = data[k + 1].map((v, i) => (v || 0) + (data[k + 2][i] || 0));
  return { spec, data, raw, banded, logs };
}
function draw(spec, box) {
  const now = prepared(spec), at = (values, i) => values[i ?? values.length - 1]; // without a pointer: the last step
  const series = [{ label: "step", value: (u, v, s, i) => at(now.spec.x, i) }];
  const shown = (place) => (u, v, s, i) => number(at(now.raw[place], i));
  spec.series.forEach((s, k) => series.push({
    label: s.stage ? s.name : short(s.name), value: shown(k), stroke: s.colour ?? PALETTE[k % PALETTE.length], width: 1.6,
    points: { show: s.values.filter((v) => v !== null && v !== undefined).length < 60, size: 4 }, spanGaps: true,
    fill: spec.stacked ? PALETTE[k % PALETTE.length] + "66" : undefined,
  }));
  let bands = spec.stacked ? now.raw.slice(1).map((_, k) => ({ series: [k + 1, k + 2] })) : [];
  if (now.banded) {
    const hidden = (label, place) => ({ label, value: (u, v, s, i) => number(at(now.spec.band[place], i)), stroke: "transparent", points: { show: false }, spanGaps: true });
    series.push(hidden("+1 std", 1), hidden("−1 std", 0));
    bands = [{ series: [now.data.length - 2, now.data.length - 1], fill: PALETTE[0] + "2e" }];
  }
  const axis = { stroke: colour("--dim"), grid: { stroke: colour("--line"), width: 1 }, ticks: { stroke: colour("--line"), width: 1 }, font: "12px system-ui, sans-serif" };
  const ranged = (u, low, high) => {
    if (low === null || low === undefined) return [0, 1];
    if (spec.unit === "share") return [Math.min(0, low), Math.max(0.02, high * 1.05)];
    return low === high ? (low === 0 ? [0, 1] : [Math.min(0, 2 * low), Math.max(0, 2 * low)]) : uPlot.rangeNum(low, high, 0.1, true);
  };
  const chart = new uPlot({
    width: Math.max(200, box.clientWidth - 18), height: 190, series, bands,
    scales: { x: { time: false }, y: now.logs ? { distr: 3 } : { range: ranged } },
    cursor: { sync: { key: "steps" }, points: { size: 6 } },
    axes: [{ ...axis, size: 30, incrs: [1, 2, 5, 10, 20, 25, 50, 100, 200, 500, 1000, 5000, 10000] }, { ...axis, size: 58, values: (u, vs) => vs.map((v) => (v === null ? "" : number(v))) }],
  }, now.data, box);
  chart.now = now;
  pickable(chart);
  return chart;
}
/** Put grown data into a chart; what is zoomed stays so. */
function update(chart, spec) {
  const x = chart.now.spec.x, zoomed = chart.scales.x.min > x[0] || chart.scales.x.max < x[x.length - 1];
  Object.assign(chart.now, prepared(spec));
  chart.setData(chart.now.data, !zoomed);
}
/** A click on a chart leads to the rollouts of that step: held-out samples for an evaluation, of the nearest line's stage. */
function pickable(chart) {
  let pressed = null;
  chart.over.addEventListener("pointerdown", (e) => { pressed = [e.clientX, e.clientY]; });
  chart.over.addEventListener("click", (e) => {
    if (pressed && Math.hypot(e.clientX - pressed[0], e.clientY - pressed[1]) > 4) return; // a drag zooms
    const i = chart.cursor.idx, { spec } = chart.now;
    if (i === null || i === undefined) return;
    const far = spec.series.map((s, k) => { const v = chart.data[k + 1][i]; return v === null || v === undefined ? Infinity : Math.abs(chart.valToPos(v, "y") - chart.cursor.top); });
    const nearest = spec.series[far.indexOf(Math.min(...far))], held = nearest.name.startsWith("eval/") || spec.title.startsWith("eval/");
    location.hash = address("rollouts", { stage: nearest.stage ?? state.stage, query: { ...(held ? { kind: "eval" } : {}), step: String(spec.x[i]) } });
  });
}
