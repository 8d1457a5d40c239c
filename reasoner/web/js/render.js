"use strict";
// Markdown, LaTeX and code of a completion as elements. The text is from a model and may be hostile: all of it becomes
// text nodes, KaTeX draws formulas without trusting them, and links stay text, so that reading a run asks for nothing.
const MOST_FORMULAS = 600, MOST_RENDERED = 300_000;
const THINKING = /<(think|thinking|reasoning)>/i;
let formulas = 0; // drawn in the text that is being rendered

/** Use a library of the page (its style sheet, its program) when it is first needed. */
function library(name) {
  for (const [kind, tag] of [["css", "style"], ["js", "script"]]) {
    const held = $(`library-${name}.min.${kind}`);
    if (!held) continue;
    document.head.append(el(tag, {}, held.textContent));
    held.remove();
  }
}

/** Return a text as elements; `find` marks what is searched. */
function rendered(body, find) {
  if (body.length > MOST_RENDERED) return el("pre", { class: "rendered" }, marked(body, find));
  formulas = 0;
  return el("div", { class: "rendered" }, thoughts(body).map(([thought, part, open]) => (thought ? folded(part, open, find) : blocks(part, find))));
}
/** Split a text into [is a thought, text, never ended]; a thought may begin in the prompt and only end here. */
function thoughts(body) {
  const parts = [];
  let rest = body;
  const end = /<\/(think|thinking|reasoning)>/i, first = end.exec(rest), begin = THINKING.exec(rest);
  if (first && !(begin && begin.index < first.index)) {
    parts.push([true, rest.slice(0, first.index), false]);
    rest = rest.slice(first.index + first[0].length);
  }
  for (let found; (found = THINKING.exec(rest)); ) {
    if (rest.slice(0, found.index).trim()) parts.push([false, rest.slice(0, found.index), false]);
    rest = rest.slice(found.index + found[0].length);
    const closed = end.exec(rest);
    parts.push([true, closed ? rest.slice(0, closed.index) : rest, !closed]);
    rest = closed ? rest.slice(closed.index + closed[0].length) : "";
  }
  if (rest.trim()) parts.push([false, rest, false]);
  return parts;
}
function folded(body, open, find) {
  const hit = find && find(body).length > 0, words = body.split(/\s+/).filter(Boolean).length;
  return el("details", { class: "think", open: open || hit }, el("summary", {}, `thinking, ${count(words)} words${open ? ", never ended" : ""}`), blocks(body.trim(), find));
}

const BLOCK = /(^|\n)[ \t]*(```|~~~)([^\n`]*)\n([\s\S]*?)(?:\n[ \t]*\2[ \t]*(?=\n|$)|$)|\$\$([\s\S]+?)\$\$|\\\[([\s\S]+?)\\\]|(\\begin\{(?:align|aligned|equation|gather|cases|array|[pbv]?matrix)\*?\}[\s\S]+?\\end\{[a-z]+\*?\})/g;
function blocks(body, find) {
  const found = [];
  let at = 0;
  for (const hit of body.matchAll(BLOCK)) {
    found.push(...paragraphs(body.slice(at, hit.index), find));
    if (hit[2]) found.push(code(hit[4], hit[3].trim(), find));
    else found.push(formula(hit[5] ?? hit[6] ?? hit[7], true, hit[0], find));
    at = hit.index + hit[0].length;
  }
  return [...found, ...paragraphs(body.slice(at), find)];
}
function code(body, language, find) {
  library("highlight");
  const known = language && hljs.getLanguage(language.toLowerCase()), inner = el("code", {});
  if (known && !(find && find(body).length)) inner.innerHTML = hljs.highlight(body, { language: language.toLowerCase(), ignoreIllegals: true }).value; // escaped by highlight.js
  else inner.append(...marked(body, find));
  return el("div", { class: "code" }, el("div", { class: "bar-of-code" }, el("span", {}, language || "text"), copyButton(body)), el("pre", {}, inner));
}
/** Draw a formula; one that KaTeX cannot read, or that is searched, stays as it was written. */
function formula(tex, display, raw, find) {
  if (++formulas > MOST_FORMULAS || (find && find(raw).length)) return el("span", { class: "tex" }, marked(raw, find));
  library("katex");
  const node = el("span", { class: display ? "display" : "inline" });
  try {
    katex.render(tex, node, { displayMode: display, throwOnError: true, trust: false, strict: "ignore", maxExpand: 200, maxSize: 20 });
    node.title = raw;
  } catch {
    return el("span", { class: "tex", title: "KaTeX cannot read this" }, marked(raw, find));
  }
  return node;
}
function paragraphs(body, find) {
  const found = [];
  let lines = [];
  const flush = () => { if (lines.join("").trim()) found.push(el("p", {}, inline(lines.join("\n").replace(/^\n+|\n+$/g, ""), find))); lines = []; };
  const rows = body.split("\n");
  for (let k = 0; k < rows.length; k++) {
    const row = rows[k], heading = /^(#{1,6}) (.*)$/.exec(row), item = /^(\s*)([-*+]|\d+[.)]) (.*)$/.exec(row), quote = /^> ?(.*)$/.exec(row);
    if (heading) { flush(); found.push(el("p", { class: "heading" }, el("span", { class: "hashes" }, heading[1] + " "), inline(heading[2], find))); }
    else if (item) { flush(); found.push(el("div", { class: "item", style: `margin-left:${Math.min(6, item[1].length / 2)}em` }, el("span", { class: "bullet" }, /\d/.test(item[2]) ? item[2] : "•"), el("span", {}, inline(item[3], find)))); }
    else if (quote) { flush(); found.push(el("blockquote", {}, inline(quote[1], find))); }
    else if (/^\s*\|.*\|\s*$/.test(row) && /^\s*\|[\s:|-]+\|\s*$/.test(rows[k + 1] || "")) {
      flush();
      const table = [];
      while (k < rows.length && /^\s*\|.*\|\s*$/.test(rows[k])) table.push(rows[k++]);
      k--;
      found.push(grid(table, find));
    } else if (!row.trim()) flush();
    else lines.push(row);
  }
  flush();
  return found;
}
function grid(rows, find) {
  const cells = (row) => row.trim().replace(/^\||\|$/g, "").split("|");
  return el("div", { class: "scroll" }, el("table", {}, rows.filter((_, k) => k !== 1).map((row, k) => el("tr", {}, cells(row).map((cell) => el(k ? "td" : "th", {}, inline(cell.trim(), find)))))));
}
const INLINE = /(`+)([^`]|[^`][\s\S]*?[^`])\1(?!`)|\$(?![\s$])((?:\\.|[^$\\\n])*?(?:\\.|[^\s\\$]))\$(?!\d)|\\\(([\s\S]+?)\\\)|\*\*(?=\S)([\s\S]+?)(?<=\S)\*\*|(?<![\w*])\*(?![\s*])([^*\n]+?)(?<!\s)\*(?![\w*])|\\boxed\{/g;
function inline(body, find) {
  const found = [];
  let at = 0;
  INLINE.lastIndex = 0;
  for (const pattern = new RegExp(INLINE); ; ) {
    pattern.lastIndex = at;
    const hit = pattern.exec(body);
    if (!hit) break;
    let end = hit.index + hit[0].length;
    found.push(...marked(body.slice(at, hit.index), find));
    if (hit[1]) found.push(el("code", {}, marked(hit[2], find)));
    else if (hit[3] ?? hit[4]) found.push(formula(hit[3] ?? hit[4], false, hit[0], find));
    else if (hit[5]) found.push(el("strong", {}, inline(hit[5], find)));
    else if (hit[6]) found.push(el("em", {}, inline(hit[6], find)));
    else {
      end = closing(body, end);
      const raw = body.slice(hit.index, end);
      found.push(formula(raw, false, raw, find));
    }
    at = end;
  }
  return [...found, ...marked(body.slice(at), find)];
}
/** Return the place behind the brace that closes the one before `at`; the end of the text if none does. */
function closing(body, at) {
  for (let depth = 1; at < body.length; at++) {
    if (body[at] === "\\") at++;
    else if (body[at] === "{") depth++;
    else if (body[at] === "}" && --depth === 0) return at + 1;
  }
  return body.length;
}
/** Return a short value (answer, reference): a formula if it is written as one. */
function value(body, find) {
  if (body === null || body === undefined) return el("i", {}, "none");
  const shown = text(body);
  formulas = 0;
  if (/^\$[^$]+\$$/.test(shown)) return formula(shown.slice(1, -1), false, shown, find);
  return /\\[a-zA-Z]+|\^|_\{/.test(shown) && shown.length < 500 && !shown.includes("\n") ? formula(shown, false, shown, find) : el("code", {}, marked(shown, find));
}
