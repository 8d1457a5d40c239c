"use strict";
(() => {
  const $ = (id) => document.getElementById(id);
  const ROW = 54;
  const PALETTE = ["#2a7de1", "#e07b39", "#2f9e62", "#b0529f", "#8a8f98", "#c9a227", "#d2453b", "#3aa6b9"];
  const state = { stage: 0, tab: "overview", rollout: null, mode: "advantage", texts: [], found: null };
  let head, index, view = [], charts = [];
  const cache = new Map();

  // ------------------------------------------------------------------------------------------------- reading
  async function unpack(id) {
    if (cache.has(id)) return cache.get(id);
    const bytes = Uint8Array.from(atob($(id).textContent), (c) => c.charCodeAt(0));
    const stream = new Blob([bytes]).stream().pipeThrough(new DecompressionStream("gzip"));
    const value = JSON.parse(await new Response(stream).text());
    cache.set(id, value);
    if (cache.size > 60) cache.delete(cache.keys().next().value);
    return value;
  }
  async function rollout(i) {
    const chunk = await unpack(`s${state.stage}-${1 + Math.floor(i / index.chunk)}`);
    const row = chunk[i % index.chunk];
    if (row.prompt === undefined) row.prompt = chunk.filter((r) => r.same_prompt === undefined)[row.same_prompt].prompt;
    return row;
  }
  const stage = () => head.stages[state.stage];

  // ------------------------------------------------------------------------------------------------- writing
  function el(tag, attributes, ...children) {
    const node = document.createElement(tag);
    for (const [key, value] of Object.entries(attributes || {})) {
      if (key.startsWith("on")) node.addEventListener(key.slice(2), value);
      else if (value !== null && value !== undefined && value !== false) node.setAttribute(key, value);
    }
    for (const child of children.flat(Infinity)) if (child !== null && child !== undefined) node.append(child);
    return node;
  }
  const percent = (x) => (100 * x).toFixed(1) + "\u00a0%";
  const interval = (low, high) => `[${percent(low)},\u00a0${percent(high)}]`; // one word: a narrow cell breaks around it
  const number = (x) => (x === null || x === undefined ? "–" : Math.abs(x) >= 1000 ? x.toFixed(0) : x !== 0 && Math.abs(x) < 1e-3 ? x.toExponential(1) : +x.toPrecision(4) + "");
  const text = (value) => (typeof value === "string" ? value : JSON.stringify(value));
  const place = (i) => [index.step[i], index.group[i], index.sample[i]].join("/");
  const linkOf = (i) => `#/${state.stage}/rollout/${place(i)}`;

  // ------------------------------------------------------------------------------------------------ overview
  function overview() {
    const s = stage(), box = $("overview");
    const cards = [[`${s.steps} of ${s.of}`, "steps"], [s.rollouts.toLocaleString("en"), "rollouts"]];
    if (s.ungraded) cards.push([s.ungraded.toLocaleString("en"), "not graded"]);
    cards.push([s.method, s.complete ? "complete" : "not complete"], [text(s.environment.device || "?"), "device"]);
    box.replaceChildren(
      el("div", { class: "cards" }, cards.map(([value, name]) => el("div", { class: "card" }, el("b", {}, value), el("span", {}, name)))),
      el("h2", {}, "Findings"),
      ...(s.findings.length ? s.findings.map(finding) : [el("p", {}, "Nothing stands out.")]),
      ...alarms(s), ...rounds(), ...beforeAfter(s), ...probes(s), ...audit(s),
      el("details", {}, el("summary", {}, "Config"), el("pre", {}, s.config)),
      el("details", {}, el("summary", {}, "Machine"), el("pre", {}, JSON.stringify(s.environment, null, 1))),
      el("details", {}, el("summary", {}, "Glossary"), el("div", { class: "scroll" }, el("table", {},
        el("tr", {}, ["metric", "what it is", "healthy"].map((t) => el("th", {}, t))),
        Object.entries(head.glossary).map(([name, [meaning, healthy]]) => el("tr", {}, [name, meaning, healthy].map((t) => el("td", {}, t))))))),
    );
  }
  function finding(f) {
    return el("div", { class: `finding ${f.level}` },
      el("span", { class: "level" }, f.level + (f.follows ? `, follows from ${f.follows}` : "")),
      el("p", {}, el("strong", {}, f.title)),
      f.evidence.length ? el("ul", {}, f.evidence.map((e) => el("li", {}, e))) : null,
      f.change ? el("p", { class: "try" }, f.change) : null,
      f.rollouts.length ? el("p", {}, "Rollouts: ", f.rollouts.map((r) => [el("a", { href: `#/${state.stage}/rollout/${r}` }, r), " "])) : null);
  }
  function alarms(s) {
    return s.alarms.length ? [el("h2", {}, "Alarms during the run"), ...s.alarms.map((a) => finding(
      { level: "warning", title: `Step ${a.step}, ${a.name}: ${a.sentence}`, evidence: a.evidence, rollouts: a.rollouts }))] : [];
  }
  function rounds() { // of the whole run, whichever stage is shown
    if (!head.rounds.length) return [];
    const said = (v) => (!v ? "–" : v.every((x) => x >= 0 && x <= 1) ? `${percent(v[0])} ${interval(v[1], v[2])}` : `${number(v[0])} [${number(v[1])},\u00a0${number(v[2])}]`);
    return [el("h2", {}, "Rounds, on the same held-out problems"), el("div", { class: "scroll" }, el("table", {},
      el("tr", {}, ["round", head.rounds[0].metric, "win rate against the start, ties half", "problems"].map((t) => el("th", {}, t))),
      head.rounds.map((r) => el("tr", {}, el("td", {}, r.win_rate ? r.stage : `before ${r.stage}`), el("td", {}, said(r.estimate)),
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
    return [el("h2", {}, "Before and after, held out"), el("div", { class: "scroll" }, el("table", {},
      el("tr", {}, ["metric", "before", "after", "", "problems, rows or pairs"].map((t) => el("th", {}, t))),
      s.before_after.map((m) => el("tr", {}, el("td", {}, m.metric), el("td", {}, shown(m, m.before)), el("td", {}, shown(m, m.after)),
        el("td", {}, m.share ? bar(m.before, m.after) : null), el("td", {}, m.behind === null ? "–" : m.behind)))))];
  }
  function probes(s) {
    if (!s.probes.length) return [];
    const shown = (v, form) => (v === null ? "–" : form(v));
    return [el("h2", {}, "Changes that should not matter to the reward model"), el("div", { class: "scroll" }, el("table", {},
      el("tr", {}, ["change", "shift in standard deviations of the score", "scores raised", "worse above better: plain", "changed", "rows or pairs", "not scored"].map((t) => el("th", {}, t))),
      s.probes.map((p) => el("tr", {}, el("td", {}, p.probe), el("td", {}, shown(p.shift, (v) => `${number(v[0])} [${v.slice(1).map((x) => shown(x, number)).join(",\u00a0")}]`)),
        el("td", {}, shown(p.raised, percent)), el("td", {}, shown(p.plain, percent)), el("td", {}, shown(p.changed, percent)), el("td", {}, p.behind), el("td", {}, p.ungraded)))))];
  }
  function audit(s) {
    if (!s.audit.length) return [];
    return [el("h2", {}, "Audit: rewarded rollouts graded again by a held-out verifier"), el("div", { class: "scroll" }, el("table", {},
      el("tr", {}, ["steps", "sampled", "rejected", "share", "95 %"].map((t) => el("th", {}, t))),
      s.audit.map((a) => el("tr", {}, el("td", {}, [...new Set(a.steps)].join("\u2060–\u2060")), el("td", {}, a.sampled), el("td", {}, a.rejected),
        el("td", {}, percent(a.rejected / a.sampled)), el("td", {}, interval(a.low, a.high)))))),
      s.audit.some((a) => a.rejected) ? el("p", {}, el("a", { href: `#/${state.stage}/rollouts?sort=held_out` }, "Read the rejected ones")) : ""];
  }

  // -------------------------------------------------------------------------------------------------- curves
  const colour = (name) => getComputedStyle(document.documentElement).getPropertyValue(name).trim();
  function curves() {
    charts.forEach((c) => c.destroy());
    charts = [];
    $("curves").replaceChildren();
    if (!stage().curves.length) $("curves").append(el("p", { class: "empty" }, "This stage logged no steps."));
    for (const spec of stage().curves) {
      const box = el("div", { class: "chart" }, el("h3", {}, spec.title + " ", el("small", {}, spec.unit)));
      $("curves").append(box);
      charts.push(draw(spec, box));
      const told = ([name, meaning, healthy]) => el("div", {}, `${name}: ${meaning}${healthy ? `. Healthy: ${healthy}` : ""}`);
      if (spec.help.length) box.append(el("details", { class: "help" }, el("summary", {}, "what it is"), spec.help.map(told)));
    }
  }
  function draw(spec, box) {
    const data = [spec.x, ...spec.series.map((s) => s.values)];
    const raw = data.slice(1);
    const at = (values, i) => values[i ?? values.length - 1]; // without a pointer: the last step
    const series = [{ label: "step", value: (u, v, s, i) => at(spec.x, i) }];
    const shown = (place) => (u, v, s, i) => number(at(raw[place], i));
    spec.series.forEach((s, k) => series.push({
      label: s.name.replace(/^(time|throughput|reward|policy|completion|groups|gap|optim|eval|watch|value|kl)\//, ""), value: shown(k),
      stroke: PALETTE[k % PALETTE.length], width: 1.6, points: { show: spec.x.length < 3 }, spanGaps: true,
      fill: spec.stacked ? PALETTE[k % PALETTE.length] + "66" : undefined,
    }));
    let bands = [];
    if (spec.band) {
      data.push(spec.band[1], spec.band[0]);
      const hidden = (label, place) => ({ label, value: (u, v, s, i) => number(at(spec.band[place], i)), stroke: "transparent", points: { show: false }, spanGaps: true });
      series.push(hidden("+1 std", 1), hidden("−1 std", 0));
      bands = [{ series: [data.length - 2, data.length - 1], fill: PALETTE[0] + "2e" }];
    }
    if (spec.stacked) {
      for (let k = raw.length - 2; k >= 0; k--) data[k + 1] = data[k + 1].map((v, i) => (v || 0) + (data[k + 2][i] || 0));
      bands = raw.slice(1).map((_, k) => ({ series: [k + 1, k + 2] }));
    }
    const axis = { stroke: colour("--dim"), grid: { stroke: colour("--line"), width: 1 }, ticks: { stroke: colour("--line"), width: 1 }, font: "12px system-ui, sans-serif" };
    return new uPlot({
      width: Math.max(200, box.clientWidth - 18), height: 190, series, bands, scales: { x: { time: false } }, cursor: { sync: { key: "steps" }, points: { size: 6 } },
      axes: [{ ...axis, size: 30, incrs: [1, 2, 5, 10, 20, 25, 50, 100, 200, 500, 1000, 5000, 10000] }, { ...axis, size: 58, values: (u, vs) => vs.map(number) }],
    }, data, box);
  }

  // ------------------------------------------------------------------------------------------------ rollouts
  const SORTS = {
    order: ["In order", (a, b) => a - b],
    newest: ["Newest first", (a, b) => b - a],
    reward_high: ["Highest reward", by("reward", -1)],
    reward_low: ["Lowest reward", by("reward", 1)],
    long: ["Longest", by("tokens", -1)],
    short: ["Shortest", by("tokens", 1)],
    gap: ["Largest engine-trainer gap", by("gap", -1)],
    advantage: ["Largest advantage", (a, b) => Math.abs(index.advantage[b] || 0) - Math.abs(index.advantage[a] || 0) || a - b],
    held_out: ["Held-out verifier disagrees first", (a, b) => disagrees(b) - disagrees(a) || a - b],
  };
  function by(column, sign) {
    return (a, b) => {
      const x = index[column][a], y = index[column][b];
      if (x === null || y === null) return (x === null) - (y === null) || a - b;
      return sign * (x - y) || a - b;
    };
  }
  const disagrees = (i) => (index.held_out[i] && index.held_out[i] !== "correct" ? 1 : 0);

  function option(value, label) { return el("option", { value }, label); }
  function fillFilters() {
    $("sort").replaceChildren(...Object.entries(SORTS).map(([k, [label]]) => option(k, label)));
    $("outcome").replaceChildren(option("", "Every outcome"), ...index.outcomes.map((o) => option(o, o)), option("truncated", "truncated"));
    $("task").replaceChildren(option("", "Every task"), ...index.tasks.map((t) => option(t, t || "(no name)")));
    $("task").hidden = index.tasks.length < 2;
    $("problem-names").replaceChildren(...index.problems.slice(0, 500).map((p) => option(p)));
  }
  function steps() {
    const match = /^\s*(\d+)\s*(?:[-–]\s*(\d+))?\s*$/.exec($("step").value);
    return match ? [+match[1], +(match[2] || match[1])] : [-Infinity, Infinity];
  }
  function filter() {
    const [low, high] = steps(), outcome = $("outcome").value, task = $("task").value, problem = $("problem").value.trim();
    const wanted = problem ? new Set(index.problems.flatMap((name, i) => (name.includes(problem) ? [i] : []))) : null;
    const kept = [];
    for (let i = 0; i < index.step.length; i++) {
      if (index.step[i] < low || index.step[i] > high) continue;
      if (outcome === "truncated" ? !index.truncated[i] : outcome && index.outcomes[index.outcome[i]] !== outcome) continue;
      if (task && index.tasks[index.task[i]] !== task) continue;
      if (wanted && !wanted.has(index.problem[i])) continue;
      if (state.found && !state.found.has(i)) continue;
      kept.push(i);
    }
    view = kept.sort(SORTS[$("sort").value][1]);
    $("count").textContent = `${view.length.toLocaleString("en")} of ${index.step.length.toLocaleString("en")}`;
    $("space").style.height = view.length * ROW + "px";
    paint();
  }
  function paint() {
    const list = $("list"), first = Math.max(0, Math.floor(list.scrollTop / ROW) - 4);
    const last = Math.min(view.length, first + Math.ceil((list.clientHeight || 600) / ROW) + 8);
    $("space").replaceChildren(...view.slice(first, last).map((i, k) => item(i, first + k)));
  }
  function chip(i) {
    const r = index.reward[i], name = r === null ? "ungraded" : number(r);
    const said = { correct: "good", incorrect: "bad", no_answer: "bad", limit_exceeded: "bad" }[index.outcomes[index.outcome[i]]];
    return el("span", { class: "chip " + (r === null ? "none" : said || "") }, name);
  }
  function item(i, at) {
    return el("div", { class: "row", role: "option", "data-i": i, style: `top:${at * ROW}px`, "aria-selected": i === state.rollout, onclick: () => { location.hash = linkOf(i); } },
      el("div", { class: "top" }, chip(i), el("span", { class: "name" }, index.problems[index.problem[i]]),
        el("span", { class: "where" }, `step ${index.step[i]} · ${index.tokens[i]} tok${index.truncated[i] ? " ✂" : ""}`)),
      el("div", { class: "text" }, index.head[i]));
  }
  let searching = 0;
  async function search() {
    const query = $("search").value.trim().toLowerCase(), mine = ++searching;
    if (!query) { state.found = null; filter(); return; }
    const found = new Set(), pieces = Math.ceil(index.step.length / index.chunk);
    for (let c = 0; c < pieces; c++) {
      if (!state.texts[c]) {
        const rows = await unpack(`s${state.stage}-${1 + c}`);
        const prompts = rows.filter((r) => r.same_prompt === undefined).map((r) => r.prompt);
        state.texts[c] = rows.map((r) => `${r.completion}\n${r.same_prompt === undefined ? r.prompt : prompts[r.same_prompt]}\n${text(r.answer) || ""}\n${text(r.reference)}`.toLowerCase());
      }
      if (mine !== searching) return;
      state.texts[c].forEach((t, k) => { if (t.includes(query)) found.add(c * index.chunk + k); });
      if (c % 8 === 7) { $("count").textContent = `searching ${Math.round((100 * c) / pieces)} %`; await new Promise((r) => setTimeout(r)); }
    }
    state.found = found;
    filter();
  }

  // -------------------------------------------------------------------------------------------------- detail
  async function detail(i) {
    const box = $("detail");
    $("rollouts").classList.toggle("open", i !== null);
    if (i === null) { box.replaceChildren(el("p", { class: "empty" }, "Choose a rollout. Arrow keys go through the list.")); return; }
    const row = await rollout(i);
    if (state.rollout !== i) return;
    const siblings = [];
    for (let k = i - index.sample[i] - 2; k < i + 600 && k < index.step.length; k++) {
      if (k >= 0 && index.step[k] === index.step[i] && index.group[k] === index.group[i]) siblings.push(k);
      else if (siblings.length) break;
    }
    const facts = [["outcome", index.outcomes[index.outcome[i]] + ": " + row.reason], ["answer", row.answer === null ? "none found" : text(row.answer)], ["reference", text(row.reference)],
      ["verifier", row.verifier], ["advantage", index.advantage[i] === null ? (row.dropped ? "not in the update: " + row.dropped : "–") : number(index.advantage[i])],
      ["policy version", row.version]];
    if (index.held_out[i]) facts.push(["held-out verdict", index.held_out[i]]);
    if (row.turns) facts.push(["turns", `${row.turns.filter(([origin]) => origin === "policy").length}, ${row.turns.filter(([, , errors]) => errors).length} replies with errors`]);
    if (row.shaping) facts.push(["shaping", number(row.shaping)]);
    if (row.components) facts.push(["components", Object.entries(row.components).map(([k, v]) => `${k} ${number(v)}`).join(", ")]);
    if (index.gap[i] !== null) facts.push(["engine-trainer gap", number(index.gap[i]) + " nats a token"]);
    const modes = ["plain"];
    if (row.ids) modes.push(...(index.advantage[i] !== null ? ["advantage"] : []), ...(row.gap ? ["gap"] : []), "surprisal");
    if (!modes.includes(state.mode)) state.mode = modes[modes.length - 1] === "surprisal" && modes.includes("advantage") ? "advantage" : "plain";
    const mode = el("select", { id: "mode", "aria-label": "Colour tokens by", onchange: (e) => { state.mode = e.target.value; detail(i); } }, modes.map((m) => option(m, m === "plain" ? "plain text" : "coloured by " + m)));
    mode.value = state.mode;
    box.replaceChildren(
      el("div", { class: "meta" }, el("button", { id: "back", onclick: () => { location.hash = `#/${state.stage}/rollouts`; } }, "← list"), chip(i),
        el("strong", {}, index.problems[index.problem[i]]), el("a", { href: linkOf(i), title: "Link to this rollout" }, place(i)),
        el("button", { onclick: () => { $("problem").value = index.problems[index.problem[i]]; filter(); } }, "all of this problem")),
      el("div", { class: "siblings", role: "group", "aria-label": "Its group" }, siblings.map((k) => {
        const c = chip(k); const b = el("button", { class: c.className, "aria-current": k === i, title: `sample ${index.sample[k]}`, onclick: () => { location.hash = linkOf(k); } }, c.textContent); return b; })),
      el("h3", {}, "Completion", el("span", {}, `${index.tokens[i]} tokens${index.truncated[i] ? ", truncated" : ""}`), mode),
      tokens(row, i), legend(),
      el("dl", {}, facts.flatMap(([k, v]) => [el("dt", {}, k), el("dd", {}, k === "answer" || k === "reference" ? el("code", {}, v + "") : v + "")])),
      el("h3", {}, "Prompt"), el("pre", {}, row.prompt));
    box.scrollTop = 0;
  }
  function legend() {
    const said = { advantage: "green: made likelier, red: made less likely; stronger where the token was less sure", gap: "red: the trainer gives less probability than the engine, green: more", surprisal: "orange: the less likely the token was", plain: "" };
    return el("p", { class: "legend" }, said[state.mode]);
  }
  function tokens(row, i) {
    const query = $("search").value.trim();
    if ((state.mode === "plain" || !row.ids) && row.turns) return el("div", { id: "completion", class: "turns" }, row.turns.map(([origin, text, errors]) =>
      el("pre", { class: "turn " + (origin === "policy" ? "" : "reply") + (errors ? " failed" : ""), title: origin === "policy" ? "the policy's turn" : errors ? "reply of the environment: an error" : "reply of the environment: not trained on" }, marked(text, query))));
    if (state.mode === "plain" || !row.ids) return el("pre", { class: "tokens", id: "completion" }, marked(row.completion, query));
    const units = stage().units, words = stage().words;
    return el("pre", { class: "tokens", id: "completion" }, row.ids.map((id, k) => {
      const surprisal = row.surprisal[k] * units.surprisal, gap = row.gap ? row.gap[k] * units.gap : null;
      let rgb = "--hot-rgb", strength = Math.min(1, surprisal / 4), said = `surprisal ${surprisal.toFixed(2)} nats`;
      if (gap !== null) said += `, gap ${gap.toFixed(3)}`;
      if (state.mode === "advantage") {
        const a = index.advantage[i] || 0;
        rgb = a >= 0 ? "--good-rgb" : "--bad-rgb";
        strength = row.mask && !row.mask[k] ? 0 : Math.min(1, Math.abs(a)) * (0.3 + 0.7 * Math.min(1, surprisal / 1.5));
      } else if (state.mode === "gap") { rgb = gap >= 0 ? "--good-rgb" : "--bad-rgb"; strength = Math.min(1, Math.abs(gap) / 0.5); }
      if (row.mask && !row.mask[k]) return el("span", { class: "reply", title: "reply of the environment: not trained on" }, words[id] ?? "�");
      return el("span", { title: said, style: strength > 0.02 ? `background:rgba(var(${rgb}),${(0.75 * strength).toFixed(2)})` : null }, words[id] ?? "�");
    }));
  }
  function marked(body, query) {
    if (!query) return [body];
    const parts = [], lower = body.toLowerCase(), wanted = query.toLowerCase();
    let at = 0;
    for (let hit; (hit = lower.indexOf(wanted, at)) >= 0; at = hit + wanted.length) parts.push(body.slice(at, hit), el("mark", {}, body.slice(hit, hit + wanted.length)));
    return [...parts, body.slice(at)];
  }

  // --------------------------------------------------------------------------------------------- transcripts
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
    const { first, pieces } = stage().transcripts;
    Object.assign(told, { stage: state.stage, rows: [], shown: TOLD });
    for (let k = 0; k < pieces; k++) told.rows.push(...(await unpack(`s${state.stage}-${first + k}`)));
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
  const part = (name, body, query, classes) => el("div", {}, el("h3", {}, name), el("pre", { class: classes }, body ? marked(body, query) : el("i", {}, "nothing")));
  const two = (...parts) => el("div", { class: "two" }, parts);
  function revision(r, query) {
    const at = [r.step, r.group, r.sample].join("/"), changed = r.revision !== r.answer;
    return el("article", { class: "told" },
      el("div", { class: "meta" }, el("a", { href: `#/${state.stage}/rollout/${at}`, title: "The rollout of this answer" }, at),
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

  // -------------------------------------------------------------------------------------------------- places
  // #/STAGE/overview, #/STAGE/curves, #/STAGE/rollouts?sort=..&outcome=..&step=..&problem=..&search=.., #/STAGE/rollout/STEP/GROUP/SAMPLE,
  // #/STAGE/transcripts?search=..&kind=..&principle=..
  async function go() {
    const [path, query] = location.hash.replace(/^#\/?/, "").split("?");
    const [s, tab, ...rest] = path.split("/");
    const wanted = head.stages[+s] && s !== "" ? +s : defaultStage();
    if (wanted !== state.stage || !index) await enter(wanted);
    const has = stage().transcripts.count > 0;
    document.querySelector("nav button[data-tab=transcripts]").hidden = !has;
    state.tab = tab === "rollout" || tab === "rollouts" ? "rollouts" : tab === "curves" || (tab === "transcripts" && has) ? tab : "overview";
    for (const name of ["overview", "curves", "rollouts", "transcripts"]) $(name).hidden = name !== state.tab;
    document.querySelectorAll("nav button").forEach((b) => b.setAttribute("aria-selected", b.dataset.tab === state.tab));
    if (state.tab === "overview") overview();
    if (state.tab === "curves") curves();
    if (state.tab === "transcripts") {
      if (told.stage !== state.stage) await readTranscripts();
      for (const [name, value] of new URLSearchParams(query || "")) if (["search", "kind", "principle"].includes(name)) $("told-" + name).value = value;
      await transcripts();
    }
    if (state.tab === "rollouts") {
      if (query) {
        const given = new URLSearchParams(query);
        for (const name of ["sort", "outcome", "task", "step", "problem", "search"]) if (given.has(name)) $(name).value = given.get(name);
        if (given.has("search")) await search();
      }
      state.rollout = tab === "rollout" ? locate(rest.map(Number)) : state.rollout;
      if (tab !== "rollout" && matchMedia("(max-width: 760px)").matches) state.rollout = null;
      filter();
      if (tab === "rollout" && state.rollout !== null) reveal();
      await detail(state.rollout);
    }
  }
  const defaultStage = () => Math.max(0, head.stages.map((s) => s.rollouts > 0).lastIndexOf(true));
  function locate([step, group, sample]) {
    for (let i = 0; i < index.step.length; i++) if (index.step[i] === step && index.group[i] === group && index.sample[i] === sample) return i;
    return null;
  }
  function reveal() {
    const at = view.indexOf(state.rollout), list = $("list");
    if (at < 0) return;
    if (at * ROW < list.scrollTop || (at + 1) * ROW > list.scrollTop + list.clientHeight) list.scrollTop = at * ROW - list.clientHeight / 2;
    paint();
  }
  async function enter(place) {
    state.stage = place;
    state.rollout = null; state.found = null; state.texts = [];
    index = await unpack(`s${place}-0`);
    $("stage").value = place;
    fillFilters();
  }
  function theme(name) { document.documentElement.dataset.theme = name; if (state.tab === "curves" && head) curves(); }

  async function start() {
    head = await unpack("head");
    $("title").textContent = head.run;
    $("stage").replaceChildren(...head.stages.map((s, i) => option(i, `${s.name} (${s.method})`)));
    $("stage").hidden = head.stages.length < 2;
    $("stage").onchange = (e) => { location.hash = `#/${e.target.value}/${state.tab}`; };
    document.querySelectorAll("nav button").forEach((b) => { b.onclick = () => { location.hash = `#/${state.stage}/${b.dataset.tab}`; }; });
    $("theme").onclick = () => theme(document.documentElement.dataset.theme === "dark" ? "light" : "dark");
    for (const id of ["sort", "outcome", "task"]) $(id).onchange = () => { $("list").scrollTop = 0; filter(); };
    for (const id of ["step", "problem"]) $(id).oninput = () => { $("list").scrollTop = 0; filter(); };
    let later; $("search").oninput = () => { clearTimeout(later); later = setTimeout(search, 200); };
    $("clear").onclick = () => { for (const id of ["search", "outcome", "task", "step", "problem"]) $(id).value = ""; $("sort").value = "order"; state.found = null; filter(); };
    for (const id of ["told-search", "told-kind", "told-principle"]) $(id).oninput = () => { told.shown = TOLD; transcripts(); };
    $("list").onscroll = () => requestAnimationFrame(paint);
    document.addEventListener("keydown", (e) => {
      if (state.tab !== "rollouts" || /INPUT|SELECT/.test(e.target.tagName)) return;
      const move = { ArrowDown: 1, j: 1, ArrowUp: -1, k: -1 }[e.key];
      if (!move) return;
      e.preventDefault();
      const at = view.indexOf(state.rollout), next = view[Math.max(0, Math.min(view.length - 1, at + move))];
      if (next !== undefined) location.hash = linkOf(next);
    });
    let sized; addEventListener("resize", () => { clearTimeout(sized); sized = setTimeout(() => (state.tab === "curves" ? curves() : state.tab === "rollouts" && paint()), 150); });
    addEventListener("hashchange", go);
    await go();
    document.documentElement.dataset.ready = "1";
  }
  theme(matchMedia("(prefers-color-scheme: dark)").matches ? "dark" : "light");
  start();
})();
