// The task map's marks: region by colour and lightness, CLS/GEN by shape, selected tasks ringed.

const SYMBOLS = ["triangle-up", "circle", "square"]; // by type: GEN, CLS, unknown
const MOST_TAILS = 3000;
const MOST_SVG = 2500;

// Small maps in SVG, crisp when printed; large ones on the graphics card where there is one.
function isLarge(run, size) {
  return size > run.head.large_map;
}

function traceType(run, size) {
  return isLarge(run, size) && hasWebgl() ? "scattergl" : "scatter";
}

function markSize(size) {
  const steps = [
    [1, 13],
    [2, 10],
    [3, 7],
    [3.7, 5],
    [4.7, 3.4],
  ];
  const at = Math.log10(Math.max(10, size));
  for (let i = 1; i < steps.length; i += 1) {
    const [a, sizeA] = steps[i - 1],
      [b, sizeB] = steps[i];
    if (at <= b) return sizeA + ((at - a) / (b - a)) * (sizeB - sizeA);
  }
  return steps.at(-1)[1];
}

// Returns {traces, rows}: rows[i] are the rows of the round that trace i draws, for the mouse.
function mapTraces(run, round, before, mask, state, trail) {
  const size = round.task.length,
    type = traceType(run, size),
    mark = markSize(size);
  const x = state.cubeRoot ? Math.cbrt : (value) => value;
  const traces = [],
    rows = [];
  const few = type === "scatter" && isLarge(run, size);
  const add = (all, look) => {
    const list = few ? thinned(all) : all;
    traces.push({
      type,
      mode: "markers",
      hoverinfo: "none",
      x: list.map((row) => x(round.uncertainty[row])),
      y: list.map((row) => round.probability[row]),
      ...look,
    });
    rows.push(list);
  };
  const groups = groupRows(run, round, mask);
  if (groups.rest.length) {
    add(groups.rest, {
      hoverinfo: "skip",
      marker: {
        color: color("unmatched"),
        size: mark * 0.8,
        opacity: isLarge(run, size) ? 0.4 : 1,
      },
    });
  }
  if (state.tails && before) (traces.push(tailTrace(round, before, mask, x, type)), rows.push([]));
  for (const region of REGION_ORDER) {
    for (const kind of TYPES.keys()) {
      const list = groups.matched[region][kind];
      if (!list.length) continue;
      const crowd = region === 0 ? Math.min(0.85, 0.35 + 40 / Math.sqrt(size)) : 0.95;
      add(list, {
        name: REGIONS[region],
        marker: {
          color: color(REGIONS[region]),
          symbol: SYMBOLS[kind],
          size: kind ? mark : mark * 1.12,
          opacity: crowd,
          line: { width: 0 },
        },
      });
    }
  }
  if (groups.ringed.length) {
    // Thousands of rings must not hide what they ring.
    const many = groups.ringed.length > 300;
    add(groups.ringed, {
      hoverinfo: "skip",
      marker: {
        symbol: "circle-open",
        color: color("ink"),
        size: many ? mark * 1.5 + 1 : mark * 1.75 + 2,
        opacity: many ? 0.3 : 0.9,
        line: { width: many ? 0.7 : 1.4, color: color("ink") },
      },
    });
  }
  if (trail) {
    traces.push(...trailTraces(trail, x, type));
    rows.push(...(trail.points.length ? [[], []] : []));
  }
  return { traces, rows };
}

// Evenly spaced rows: tens of thousands of SVG marks would take seconds to draw.
function thinned(rows) {
  if (rows.length <= MOST_SVG) return rows;
  return Array.from({ length: MOST_SVG }, (_, i) => rows[Math.floor((i * rows.length) / MOST_SVG)]);
}

function groupRows(run, round, mask) {
  const matched = REGIONS.map(() => TYPES.map(() => [])),
    rest = [],
    ringed = [];
  for (let row = 0; row < mask.length; row += 1) {
    if (!mask[row]) {
      rest.push(row);
      continue;
    }
    const task = round.task[row];
    matched[round.region[row]][run.type[task]].push(row);
    if (round.selected[task]) ringed.push(row);
  }
  return { matched, rest, ringed };
}

// A line from where each matching task was one round ago to its mark; the longest of many.
function tailTrace(round, before, mask, x, type) {
  const moved = [];
  for (let row = 0; row < mask.length; row += 1) {
    const old = mask[row] ? before.rowOf[round.task[row]] : -1;
    if (old < 0) continue;
    const dx = x(round.uncertainty[row]) - x(before.uncertainty[old]);
    const dy = round.probability[row] - before.probability[old];
    if (Number.isFinite(dx + dy)) moved.push([dx * dx + dy * dy, row, old]);
  }
  moved.sort((a, b) => b[0] - a[0]);
  const xs = [],
    ys = [];
  for (const [, row, old] of moved.slice(0, MOST_TAILS)) {
    xs.push(x(before.uncertainty[old]), x(round.uncertainty[row]), null);
    ys.push(before.probability[old], round.probability[row], null);
  }
  return {
    type,
    mode: "lines",
    x: xs,
    y: ys,
    hoverinfo: "skip",
    line: { color: color("tail"), width: 1 },
  };
}

// The opened task's way through the rounds, and where it stands now.
function trailTraces(trail, x, type) {
  if (!trail.points.length) return [];
  const xs = trail.points.map((point) => x(point.uncertainty));
  const ys = trail.points.map((point) => point.probability);
  const now = trail.points.findIndex((point) => point.place === trail.place);
  return [
    {
      type,
      mode: "lines+markers",
      x: xs,
      y: ys,
      hoverinfo: "skip",
      line: { color: color("focus"), width: 2 },
      marker: { size: 6, color: color("focus") },
    },
    {
      type,
      mode: "markers",
      x: now < 0 ? [] : [xs[now]],
      y: now < 0 ? [] : [ys[now]],
      hoverinfo: "skip",
      marker: {
        symbol: "circle-open",
        size: 20,
        color: color("focus"),
        line: { width: 2.5, color: color("focus") },
      },
    },
  ];
}

// Round names along the trail, above the marks. They come from numbers, never from text.
function trailLabels(trail, cubeRoot) {
  if (!trail || trail.points.length < 2) return [];
  const x = cubeRoot ? Math.cbrt : (value) => value;
  return trail.points.map((point) => ({
    x: x(point.uncertainty),
    y: point.probability,
    text: String(point.round),
    showarrow: false,
    yshift: 14,
    font: { color: color("focus"), size: 12 },
    bgcolor: color("card"),
    borderpad: 1,
    opacity: 0.95,
  }));
}

// The rounder a number, the earlier it stands here and the surer it gets a tick.
const TICK_VALUES = [
  0, 1, 0.1, 0.01, 0.001, 0.5, 0.2, 0.05, 0.02, 0.3, 0.4, 0.6, 0.8, 0.005, 0.002, 0.7, 0.9, 0.15,
  0.25, 0.35, 0.45, 0.03, 0.07, 1e-4, 5e-4, 1e-5, 1e-6,
];

// Round numbers between low and high of the cube-root axis, with room for their texts.
function cubeRootTicks(low, high, pixels) {
  const room = (54 / Math.max(200, pixels)) * (high - low);
  const ticks = [];
  for (const value of TICK_VALUES) {
    const at = Math.cbrt(value);
    if (at < low || at > high || ticks.some((tick) => Math.abs(at - tick.at) < room)) continue;
    ticks.push({ at, text: value && value < 1e-4 ? value.toExponential() : String(value) });
  }
  return { tickvals: ticks.map((tick) => tick.at), ticktext: ticks.map((tick) => tick.text) };
}

// Axes that hold the marks of every round, so that only the marks move with the slider.
function mapExtent(run, cubeRoot) {
  const rounds = run.scored.map((i) => run.head.rounds[i]);
  const largest = Math.max(1e-6, ...rounds.map((r) => r.prompt_uncertainty_extent?.[1] ?? 0));
  const lows = rounds.map((r) => r.prediction_probability_extent?.[0] ?? 0);
  const highs = rounds.map((r) => r.prediction_probability_extent?.[1] ?? 1);
  const low = Math.min(...lows),
    high = Math.max(...highs),
    pad = Math.max(0.02, 0.05 * (high - low));
  const right = cubeRoot ? Math.cbrt(largest) : largest;
  return {
    x: [-0.03 * right, 1.05 * right],
    y: [Math.max(-0.03, low - pad), Math.min(1.03, high + pad)],
  };
}
