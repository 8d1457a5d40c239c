"use strict";
// Columns of all rollouts of one kind ("train" or "eval") of a stage: filters, order, problems, histograms.
const INTEGERS = ["step", "group", "sample", "problem", "task", "outcome", "tokens", "truncated"];
const FAILED = new Set(["incorrect", "no_answer", "limit_exceeded", "bad_reference", "verifier_error"]);
const KIND_NAMES = { train: "Training rollouts", eval: "Held-out samples" };

class Index {
  constructor(part) { Object.assign(this, part); this.kept ??= null; this.gap ??= null; this.prepare(); }
  get length() { return this.step.length; }
  extend(part) {
    for (const name of [...INTEGERS, "reward", "advantage"]) {
      this[name].length = part.start;
      for (const value of part[name]) this[name].push(value);
    }
    Object.assign(this, { problems: part.problems, tasks: part.tasks, outcomes: part.outcomes, settled: part.settled, generation: part.generation });
    this.prepare();
  }
  prepare() {
    this.correct = this.outcomes.indexOf("correct");
    this._problems = this._places = null;
  }
  place(i) { return [this.step[i], this.group[i], this.sample[i]].join("/"); }
  find(place) {
    if (!this._places) { this._places = new Map(); for (let i = 0; i < this.length; i++) this._places.set(this.place(i), i); }
    return this._places.get(place) ?? null;
  }
  /** Place of a row among those whose text is in the file; -1: its text was left out. */
  slot(i) {
    if (!this.kept) return i;
    let low = 0, high = this.kept.length - 1;
    while (low <= high) { const middle = (low + high) >> 1; if (this.kept[middle] === i) return middle; if (this.kept[middle] < i) low = middle + 1; else high = middle - 1; }
    return -1;
  }
  right(i) { return this.outcome[i] === this.correct || (this.outcome[i] !== this.correct && !FAILED.has(this.outcomes[this.outcome[i]]) && this.reward[i] !== null && this.reward[i] >= 1); }
  gapOf(i) { const slot = this.gap ? this.slot(i) : -1; return slot < 0 ? null : this.gap[slot]; }
  problemName(i) { return this.problems[this.problem[i]]; }
  /** Rows of the group of a row, in order. */
  siblings(i) {
    let low = i, high = i;
    const same = (k) => this.step[k] === this.step[i] && this.group[k] === this.group[i];
    while (low > 0 && same(low - 1)) low--;
    while (high + 1 < this.length && same(high + 1)) high++;
    return Array.from({ length: high - low + 1 }, (_, k) => low + k);
  }
  /** Rows of each problem, by its number. */
  byProblem() {
    if (!this._problems) { this._problems = this.problems.map(() => []); for (let i = 0; i < this.length; i++) this._problems[this.problem[i]].push(i); }
    return this._problems;
  }
  /** [[step, [rows]], ...] of a problem, by step. */
  steps(problem) {
    const found = new Map();
    for (const i of this.byProblem()[problem] ?? []) { if (!found.has(this.step[i])) found.set(this.step[i], []); found.get(this.step[i]).push(i); }
    return [...found].sort((a, b) => a[0] - b[0]);
  }
  /** What became of a problem: its attempts, the share of right ones by step, and a status. */
  fate(problem) {
    const steps = this.steps(problem), rates = steps.map(([step, rows]) => [step, mean(rows.map((i) => (this.right(i) ? 1 : 0)))]);
    const rows = this.byProblem()[problem], last = rates[rates.length - 1][1], ever = Math.max(...rates.map(([, rate]) => rate));
    const status = ever === 0 ? "never solved" : last >= 0.5 ? "solved" : ever >= 0.5 ? "lost again" : "sometimes";
    return { problem, attempts: rows.length, rates, steps, last, share: mean(rows.map((i) => (this.right(i) ? 1 : 0))), first: rates.find(([, rate]) => rate > 0)?.[0] ?? null, status };
  }
}
const STATUSES = ["lost again", "never solved", "sometimes", "solved"];

function range(said) {
  const match = /^\s*(-?[\d.]+)\s*(?:[-–]\s*(-?[\d.]+))?\s*$/.exec(said || "");
  return match ? [+match[1], match[2] === undefined ? +match[1] : +match[2]] : null;
}
/** Return the rows that pass a filter; what it holds: the fields of the filter bar, `found` (Set of rows) and `only` (places). */
function filtered(index, filter, found) {
  const step = range(filter.step), reward = range(filter.reward), tokens = range(filter.tokens), name = (filter.problem || "").trim();
  const exact = name ? index.problems.indexOf(name) : -1;
  const wanted = !name ? null : exact >= 0 ? new Set([exact]) : new Set(index.problems.flatMap((p, i) => (p.includes(name) ? [i] : [])));
  const only = filter.only ? new Set(filter.only.split(",").map((place) => index.find(place))) : null;
  const task = filter.task ? index.tasks.indexOf(filter.task) : null, outcome = filter.outcome || "", kept = [];
  const within = (bounds, x) => !bounds || (x !== null && x >= bounds[0] && x <= bounds[1]);
  for (let i = 0; i < index.length; i++) {
    if (!within(step, index.step[i]) || !within(reward, index.reward[i]) || !within(tokens, index.tokens[i])) continue;
    if (outcome === "truncated" ? !index.truncated[i] : outcome === "failed" ? index.right(i) : outcome && index.outcomes[index.outcome[i]] !== outcome) continue;
    if (task !== null && index.task[i] !== task) continue;
    if ((wanted && !wanted.has(index.problem[i])) || (found && !found.has(i)) || (only && !only.has(i))) continue;
    if (index.kept && index.slot(i) < 0) continue;
    kept.push(i);
  }
  return kept.sort((SORTS[filter.sort] ?? SORTS.order)[1](index));
}
const by = (column, sign) => (index) => (a, b) => {
  const value = (i) => (column === "gap" ? index.gapOf(i) : index[column][i]), x = value(a), y = value(b);
  if (x === null || y === null) return (x === null) - (y === null) || a - b;
  return sign * (x - y) || a - b;
};
const disagrees = (index, i) => (index.held_out?.[i] && index.held_out[i] !== "correct" ? 1 : 0);
const SORTS = {
  order: ["In order", () => (a, b) => a - b],
  newest: ["Newest first", () => (a, b) => b - a],
  reward_high: ["Highest reward", by("reward", -1)],
  reward_low: ["Lowest reward", by("reward", 1)],
  long: ["Longest", by("tokens", -1)],
  short: ["Shortest", by("tokens", 1)],
  gap: ["Largest engine-trainer gap", by("gap", -1)],
  advantage: ["Largest advantage", (index) => (a, b) => Math.abs(index.advantage[b] || 0) - Math.abs(index.advantage[a] || 0) || a - b],
  held_out: ["Held-out verifier disagrees first", (index) => (a, b) => disagrees(index, b) - disagrees(index, a) || a - b],
};

/** Return up to `most` bars of a column: [{low, high, rows, right}]; equal values get a bar each where they are few. */
function histogram(index, rows, column, most = 24) {
  const pairs = rows.filter((i) => index[column][i] !== null).map((i) => [index[column][i], i]);
  if (!pairs.length) return [];
  const values = [...new Set(pairs.map(([x]) => x))].sort((a, b) => a - b);
  const bars = [];
  if (values.length <= 12) {
    const at = new Map(values.map((x, k) => [x, k]));
    for (const x of values) bars.push({ low: x, high: x, rows: 0, right: 0 });
    for (const [x, i] of pairs) { const bar = bars[at.get(x)]; bar.rows++; if (index.right(i)) bar.right++; }
    return bars;
  }
  const low = values[0], whole = values.every(Number.isInteger);
  const width = whole ? Math.max(1, Math.ceil((values[values.length - 1] - low + 1) / most)) : (values[values.length - 1] - low) / most;
  for (const [x, i] of pairs) {
    const k = Math.min(most - 1, Math.floor((x - low) / width));
    while (bars.length <= k) bars.push({ low: low + bars.length * width, high: low + (bars.length + 1) * width - (whole ? 1 : 0), rows: 0, right: 0 });
    bars[k].rows++;
    if (index.right(i)) bars[k].right++;
  }
  return bars;
}
