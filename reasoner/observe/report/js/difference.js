"use strict";
// The difference of two texts by words: Myers, "An O(ND) difference algorithm" (1986), the greedy one.
const MOST_EDITS = 3000;

const wordsOf = (body) => body.match(/\s+|[\p{L}\p{N}_]+|[^\s\p{L}\p{N}_]/gu) || [];

/** Return [["=" | "-" | "+", text], ...] that turns the first text into the second. */
function difference(first, second) {
  const a = wordsOf(first), b = wordsOf(second);
  let head = 0, tail = 0;
  while (head < a.length && head < b.length && a[head] === b[head]) head++;
  while (tail < a.length - head && tail < b.length - head && a[a.length - 1 - tail] === b[b.length - 1 - tail]) tail++;
  const inner = edits(a.slice(head, a.length - tail), b.slice(head, b.length - tail));
  return joined([...a.slice(0, head).map((w) => ["=", w]), ...inner, ...a.slice(a.length - tail).map((w) => ["=", w])]);
}
function edits(a, b) {
  if (!a.length || !b.length) return [...a.map((w) => ["-", w]), ...b.map((w) => ["+", w])];
  const most = Math.min(MOST_EDITS, a.length + b.length), trace = [], zero = most + 1;
  const reach = new Int32Array(2 * most + 3).fill(-1); // place in `a` reached on each diagonal
  reach[zero + 1] = 0;
  for (let d = 0; d <= most; d++) {
    trace.push(reach.slice(zero - d - 1, zero + d + 2));
    for (let k = -d; k <= d; k += 2) {
      let x = down(reach, zero, d, k) ? reach[zero + k + 1] : reach[zero + k - 1] + 1;
      while (x < a.length && x - k < b.length && a[x] === b[x - k]) x++;
      reach[zero + k] = x;
      if (x >= a.length && x - k >= b.length) return path(a, b, trace, d, k);
    }
  }
  return [...a.map((w) => ["-", w]), ...b.map((w) => ["+", w])]; // nothing in common worth showing
}
const down = (reach, zero, d, k) => k === -d || (k !== d && reach[zero + k - 1] < reach[zero + k + 1]);
function path(a, b, trace, d, k) {
  const found = [];
  let x = a.length, y = b.length;
  for (; d > 0; d--) {
    const reach = trace[d], zero = d + 1, added = down(reach, zero, d, k), before = added ? k + 1 : k - 1;
    const px = reach[zero + before], py = px - before;
    while (x > (added ? px : px + 1)) { found.push(["=", a[--x]]); y--; }
    found.push(added ? ["+", b[--y]] : ["-", a[--x]]);
    k = before;
    x = px; y = py;
  }
  while (x > 0) found.push(["=", a[--x]]);
  return found.reverse();
}
/** Join neighbours of one kind, and put what was removed before what was added; single spaces between changes join them. */
function joined(parts) {
  const found = [];
  let gone = "", come = "";
  const flush = () => { if (gone) found.push(["-", gone]); if (come) found.push(["+", come]); gone = come = ""; };
  parts.forEach(([kind, word], k) => {
    if (kind === "-") gone += word;
    else if (kind === "+") come += word;
    else if ((gone || come) && /^[ \t]$/.test(word) && parts[k + 1] && parts[k + 1][0] !== "=") { gone += word; come += word; }
    else {
      flush();
      if (found.length && found[found.length - 1][0] === "=") found[found.length - 1][1] += word;
      else found.push(["=", word]);
    }
  });
  flush();
  return found;
}
