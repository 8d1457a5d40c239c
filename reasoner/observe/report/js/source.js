"use strict";
// Where the page's data comes from: a running `reasoner view` (Live) or the file itself (Frozen). Both answer alike:
//   head()                     {title, live, stages: [{id, run, name, state, ...}], glossary, units}
//   stage(id), metrics(id), transcripts(id), findings(id, again)
//   index(id, kind)            an Index of all rollouts; of a live stage it grows with `refreshed`
//   samples(id, kind, rows)    what is read of opened rollouts; heads(id, kind, rows): the ends of completions
//   search(id, kind, text, regex, onprogress)   Set of rows
class Frozen {
  constructor() { this.live = false; this.cache = new Map(); this.texts = {}; }
  async unpack(id) {
    if (this.cache.has(id)) return this.cache.get(id);
    const node = $(id);
    if (!node) return null;
    const bytes = Uint8Array.from(atob(node.textContent), (c) => c.charCodeAt(0));
    const stream = new Blob([bytes]).stream().pipeThrough(new DecompressionStream("gzip"));
    const value = JSON.parse(await new Response(stream).text());
    this.cache.set(id, value);
    if (this.cache.size > 80) this.cache.delete(this.cache.keys().next().value);
    return value;
  }
  async head() { return (this.known ??= await this.unpack("head")); }
  async stage(id) { return (await this.head()).stages[+id]; }
  async metrics(id) { return this.unpack(`s${id}-m`); }
  async findings(id) {
    const { findings, rounds, audit, steps, left_out } = await this.stage(id);
    return { state: "done", findings, rounds, audit, steps, left_out };
  }
  async transcripts(id) {
    const { first, pieces } = (await this.stage(id)).transcripts, rows = [];
    for (let k = 0; k < pieces; k++) rows.push(...(await this.unpack(`s${id}-${first + k}`)));
    return rows;
  }
  async index(id, kind) {
    this.indexes ??= {};
    return (this.indexes[id + kind] ??= new Index(await this.unpack(`s${id}-${kind === "eval" ? "e" : ""}0`)));
  }
  piece(id, kind, k) { return this.unpack(`s${id}-${kind === "eval" ? "e" : ""}${1 + k}`); }
  async samples(id, kind, rows) {
    const index = await this.index(id, kind), { words } = await this.stage(id), found = [];
    for (const row of rows) {
      const slot = index.slot(row);
      if (slot < 0) { found.push(null); continue; }
      const piece = await this.piece(id, kind, Math.floor(slot / index.chunk)), one = piece[slot % index.chunk];
      if (one.prompt === undefined) one.prompt = piece.filter((r) => r.same_prompt === undefined)[one.same_prompt].prompt;
      found.push({ ...one, words, mean_gap: index.gap[slot] });
    }
    return found;
  }
  async heads(id, kind, rows) {
    const index = await this.index(id, kind);
    return rows.map((row) => index.head[index.slot(row)] ?? "");
  }
  async search(id, kind, wanted, regex, onprogress) {
    const index = await this.index(id, kind), texts = (this.texts[id + kind] ??= []), found = new Set();
    const slots = index.head.length, pieces = Math.ceil(slots / index.chunk), pattern = regex ? new RegExp(wanted, "m") : null, lower = wanted.toLowerCase();
    for (let c = 0; c < pieces; c++) {
      if (!texts[c]) {
        const rows = await this.piece(id, kind, c), prompts = rows.filter((r) => r.same_prompt === undefined).map((r) => r.prompt);
        texts[c] = rows.map((r) => `${r.completion}\n${r.same_prompt === undefined ? r.prompt : prompts[r.same_prompt]}\n${text(r.answer) || ""}\n${text(r.reference)}`);
      }
      texts[c].forEach((body, k) => {
        const slot = c * index.chunk + k;
        if (pattern ? pattern.test(body) : body.toLowerCase().includes(lower)) found.add(index.kept ? index.kept[slot] : slot);
      });
      if (c % 8 === 7) { if (onprogress(c / pieces) === false) return null; await new Promise((r) => setTimeout(r)); }
    }
    return found;
  }
  watch() {}
}

class Live {
  constructor() { this.live = true; this.indexes = {}; this.kept = new Map(); }
  async ask(path, query = {}) {
    const answer = await fetch(`api/${path}?${new URLSearchParams(query)}`);
    const value = await answer.json();
    if (!answer.ok) throw new Error(value.error);
    return value;
  }
  async head() { return this.ask("runs"); }
  async stage(id) { return this.ask("stage", { stage: id }); }
  async metrics(id) { return this.ask("metrics", { stage: id }); }
  async transcripts(id) { return this.ask("transcripts", { stage: id }); }
  async findings(id, again) { return this.ask("explain", { stage: id, ...(again ? { again: 1 } : {}) }); }
  async index(id, kind) { return this.indexes[id + "|" + kind] ?? this.refreshed(id, kind); }
  /** Read what is new; returns the index, in which `reading` is the share of the files that is read so far. */
  async refreshed(id, kind) {
    const key = id + "|" + kind, known = this.indexes[key];
    const part = await this.ask("columns", { stage: id, kind, from: known?.settled ?? 0, generation: known?.generation ?? -1 });
    if (!known || known.generation !== part.generation) {
      this.indexes[key] = new Index(part);
      for (const held of [...this.kept.keys()]) if (held.startsWith(key + "|")) this.kept.delete(held);
    } else known.extend(part);
    const index = this.indexes[key];
    index.reading = part.size > part.read ? part.read / part.size : null;
    index.damaged = part.damaged;
    return index;
  }
  async samples(id, kind, rows) {
    return rows.length ? this.ask("samples", { stage: id, kind, rows: rows.join(",") }) : [];
  }
  async heads(id, kind, rows) {
    const key = (row) => `${id}|${kind}|${row}`, missing = rows.filter((row) => !this.kept.has(key(row)));
    if (missing.length) {
      const found = await this.ask("heads", { stage: id, kind, rows: missing.join(",") });
      missing.forEach((row, k) => this.kept.set(key(row), found[k]));
      while (this.kept.size > 5000) this.kept.delete(this.kept.keys().next().value);
    }
    return rows.map((row) => this.kept.get(key(row)) ?? "");
  }
  knownHead(id, kind, row) { return this.kept.get(`${id}|${kind}|${row}`); }
  async search(id, kind, wanted, regex) {
    return new Set(await this.ask("search", { stage: id, kind, text: wanted, ...(regex ? { regex: 1 } : {}) }));
  }
  /** Call `onchange(names of stages)` when files grow, and `onstate(connected)`. */
  watch(onchange, onstate) {
    const events = new EventSource("events");
    events.onmessage = (event) => onchange(JSON.parse(event.data));
    events.onopen = () => onstate(true);
    events.onerror = () => onstate(false);
  }
}
