// Which tasks of a round pass the search and the filters, and in which order.

function startView(run) {
  return makeStore({
    place: run.scored.at(-1) ?? null,
    query: "",
    category: -1,
    types: new Set([0, 1, 2]),
    regions: new Set([0, 1, 2, 3]),
    selectedOnly: false,
    cubeRoot: true,
    tails: false,
    order: "uncertainty",
    active: -1,
    task: -1,
  });
}

const FILTER_KEYS = ["query", "category", "types", "regions", "selectedOnly"];

function isFiltered(state) {
  return (
    Boolean(state.query) ||
    state.category >= 0 ||
    state.types.size < TYPES.length ||
    state.regions.size < 4 ||
    state.selectedOnly
  );
}

// 1 for every row of the round that passes.
function matchMask(run, round, state) {
  const mask = new Uint8Array(round.task.length);
  const words = state.query.toLowerCase().split(/\s+/).filter(Boolean);
  for (let row = 0; row < mask.length; row += 1) {
    const task = round.task[row];
    if (!state.regions.has(round.region[row]) || !state.types.has(run.type[task])) continue;
    if (state.category >= 0 && run.category[task] !== state.category) continue;
    if (state.selectedOnly && !round.selected[task]) continue;
    if (words.length) {
      const text = searchText(run, task);
      if (!words.every((word) => text.includes(word))) continue;
    }
    mask[row] = 1;
  }
  return mask;
}

const ORDERS = [
  ["uncertainty", "most uncertain first"],
  ["certain", "least uncertain first"],
  ["probability", "most probable first"],
  ["improbable", "least probable first"],
  ["moved", "moved most first"],
  ["name", "by name"],
];

// The matching rows in the list's order.
function orderedRows(run, round, before, mask, order) {
  const rows = [];
  for (let row = 0; row < mask.length; row += 1) if (mask[row]) rows.push(row);
  const key = {
    uncertainty: (row) => -round.uncertainty[row],
    certain: (row) => round.uncertainty[row],
    probability: (row) => -round.probability[row],
    improbable: (row) => round.probability[row],
    moved: (row) => -Math.abs(changeOf(round, before, row) || 0),
  }[order];
  if (!key)
    return rows.sort((a, b) =>
      collator.compare(run.names[round.task[a]], run.names[round.task[b]]),
    );
  const keys = new Float64Array(mask.length);
  for (const row of rows) keys[row] = Number.isFinite(key(row)) ? key(row) : Infinity;
  return rows.sort((a, b) => keys[a] - keys[b] || a - b);
}

// How far a task's uncertainty went since the round before; NaN where it has no earlier score.
function changeOf(round, before, row) {
  const old = before ? before.rowOf[round.task[row]] : -1;
  return old < 0 ? NaN : round.uncertainty[row] - before.uncertainty[old];
}
