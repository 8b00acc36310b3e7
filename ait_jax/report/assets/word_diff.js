// What a perturbed instruction lost and gained, word by word: the longest common subsequence.

const MOST_CELLS = 4e6;

// Returns [{word, kind}]: kind "same", "dropped" (only in before) or "added" (only in after).
function wordDiff(before, after) {
  const a = before.split(/\s+/).filter(Boolean),
    b = after.split(/\s+/).filter(Boolean);
  let start = 0,
    endA = a.length,
    endB = b.length;
  while (start < endA && start < endB && a[start] === b[start]) start += 1;
  while (endA > start && endB > start && a[endA - 1] === b[endB - 1]) {
    endA -= 1;
    endB -= 1;
  }
  const same = (words) => words.map((word) => ({ word, kind: "same" }));
  return [
    ...same(a.slice(0, start)),
    ...middleDiff(a.slice(start, endA), b.slice(start, endB)),
    ...same(a.slice(endA)),
  ];
}

// The same from the places of the dropped words, where the perturbation said them.
function droppedDiff(before, after, dropped) {
  const words = before.split(/\s+/).filter(Boolean),
    gone = new Set(dropped);
  const kept = words.filter((_, i) => !gone.has(i));
  if (kept.join(" ") !== after.split(/\s+/).filter(Boolean).join(" "))
    return wordDiff(before, after);
  return words.map((word, i) => ({ word, kind: gone.has(i) ? "dropped" : "same" }));
}

function middleDiff(a, b) {
  const width = b.length + 1;
  if (a.length * b.length > MOST_CELLS) {
    return [
      ...a.map((word) => ({ word, kind: "dropped" })),
      ...b.map((word) => ({ word, kind: "added" })),
    ];
  }
  // length[i, j]: of the longest common subsequence of a[i:] and b[j:].
  const length = new Uint16Array((a.length + 1) * width);
  for (let i = a.length - 1; i >= 0; i -= 1) {
    for (let j = b.length - 1; j >= 0; j -= 1) {
      length[i * width + j] =
        a[i] === b[j]
          ? length[(i + 1) * width + j + 1] + 1
          : Math.max(length[(i + 1) * width + j], length[i * width + j + 1]);
    }
  }
  const parts = [];
  let i = 0,
    j = 0;
  while (i < a.length || j < b.length) {
    if (i < a.length && j < b.length && a[i] === b[j]) {
      parts.push({ word: a[i], kind: "same" });
      i += 1;
      j += 1;
    } else if (
      j >= b.length ||
      (i < a.length && length[(i + 1) * width + j] >= length[i * width + j + 1])
    ) {
      parts.push({ word: a[i], kind: "dropped" });
      i += 1;
    } else {
      parts.push({ word: b[j], kind: "added" });
      j += 1;
    }
  }
  return parts;
}

// Neighbours of one kind become one element, with spaces between.
function diffNodes(parts) {
  const nodes = [];
  for (let i = 0; i < parts.length;) {
    let end = i;
    while (end < parts.length && parts[end].kind === parts[i].kind) end += 1;
    const text = parts
      .slice(i, end)
      .map((part) => part.word)
      .join(" ");
    const tag = { same: "span", dropped: "del", added: "ins" }[parts[i].kind];
    nodes.push(element(tag, {}, text), " ");
    i = end;
  }
  return nodes;
}
