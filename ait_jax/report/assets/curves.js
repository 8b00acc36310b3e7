// Line charts over the number of training tasks, or over anything else.
//
// A series: {name, x, y, color, dash?, symbol?, width?, band?: {low, high}, notes?: [text]}.

function curvesOf(options) {
  const { series, xTitle, yTitle, ticks, percentage, digits = 2 } = options;
  const traces = [];
  for (const line of series) {
    if (line.band) traces.push(...bandOf(line));
  }
  for (const line of series) {
    traces.push({
      type: "scatter",
      mode: line.mode || "lines+markers",
      name: plotText(line.name),
      x: line.x,
      y: line.y,
      connectgaps: true,
      cliponaxis: false,
      line: { color: line.color, width: line.width || 2.2, dash: line.dash || "solid" },
      marker: { color: line.color, size: line.markerSize ?? 7, symbol: line.symbol || "circle" },
      text: line.notes?.map((note) => plotText(note)),
      hovertemplate:
        `<b>${plotText(line.name)}</b>  %{y:.${digits}f}` +
        `${line.notes ? "<br>%{text}" : ""}<extra></extra>`,
    });
  }
  const xaxis = axis({
    title: plotText(xTitle, 90),
    showgrid: false,
    zeroline: false,
    ...(options.xaxis || {}),
  });
  if (ticks) Object.assign(xaxis, { tickvals: ticks.values, ticktext: ticks.texts });
  const yaxis = axis({
    title: plotText(yTitle),
    rangemode: percentage ? "tozero" : "normal",
    showline: false,
    ...(options.yaxis || {}),
  });
  return {
    traces,
    layout: { xaxis, yaxis, margin: { l: 52, r: 24, t: 14, b: 56 }, ...options.layout },
  };
}

// A band between two lines; drawn under all lines, and silent.
function bandOf(line) {
  const edge = {
    type: "scatter",
    mode: "lines",
    x: line.x,
    hoverinfo: "skip",
    showlegend: false,
    line: { width: 0, color: line.color },
  };
  return [
    { ...edge, y: line.band.low },
    { ...edge, y: line.band.high, fill: "tonexty", fillcolor: translucent(line.color, 0.16) },
  ];
}

function translucent(hex, alpha) {
  const [r, g, b] = [1, 3, 5].map((i) => parseInt(hex.slice(i, i + 2), 16));
  return `rgba(${r},${g},${b},${alpha})`;
}

// Round numbers under task counts: no two closer than a share of the axis.
function taskTicks(points, nearest = 0.055) {
  const largest = Math.max(1, ...points.map((point) => point.x));
  const values = [],
    texts = [];
  for (const point of points) {
    if (values.length && point.x - values.at(-1) < nearest * largest) continue;
    values.push(point.x);
    texts.push(`${grouped(point.x)}<br>${plotText(point.label)}`);
  }
  return { values, texts };
}

const SERIES_SYMBOLS = [
  "circle",
  "square",
  "diamond",
  "triangle-up",
  "cross",
  "x",
  "triangle-down",
  "star",
];
const SERIES_DASHES = ["solid", "dash", "dot", "dashdot"];

// Colour, marker and dash of the i-th of many series; the first eight differ in all of these.
function seriesLook(i) {
  return {
    color: color(`series-${i % 8}`),
    symbol: SERIES_SYMBOLS[i % 8],
    dash: SERIES_DASHES[Math.floor(i / 8) % 4],
  };
}

// A sample of the line for a button that shows or hides it.
function swatch(look) {
  const dash = { solid: "", dash: "5 3", dot: "1.5 3", dashdot: "5 3 1.5 3" }[look.dash || "solid"];
  return drawing(
    "svg",
    { viewBox: "0 0 22 10", width: 22, height: 10, class: "swatch", "aria-hidden": "true" },
    drawing("line", {
      x1: 1,
      x2: 21,
      y1: 5,
      y2: 5,
      stroke: look.color,
      "stroke-width": 2.4,
      "stroke-dasharray": dash,
    }),
    markerShape(look.symbol || "circle", 11, 5, 3.4, look.color),
  );
}

function markerShape(symbol, x, y, r, fill) {
  if (symbol === "circle") return drawing("circle", { cx: x, cy: y, r, fill });
  const at = (points) => points.map(([dx, dy]) => `${x + dx * r},${y + dy * r}`).join(" ");
  const shapes = {
    square: [
      [-0.9, -0.9],
      [0.9, -0.9],
      [0.9, 0.9],
      [-0.9, 0.9],
    ],
    diamond: [
      [0, -1.2],
      [1.2, 0],
      [0, 1.2],
      [-1.2, 0],
    ],
    "triangle-up": [
      [0, -1.2],
      [1.15, 0.9],
      [-1.15, 0.9],
    ],
    "triangle-down": [
      [0, 1.2],
      [1.15, -0.9],
      [-1.15, -0.9],
    ],
    cross: [
      [-0.4, -1.2],
      [0.4, -1.2],
      [0.4, -0.4],
      [1.2, -0.4],
      [1.2, 0.4],
      [0.4, 0.4],
      [0.4, 1.2],
      [-0.4, 1.2],
      [-0.4, 0.4],
      [-1.2, 0.4],
      [-1.2, -0.4],
      [-0.4, -0.4],
    ],
    x: [
      [-1.1, -0.6],
      [-0.6, -1.1],
      [0, -0.5],
      [0.6, -1.1],
      [1.1, -0.6],
      [0.5, 0],
      [1.1, 0.6],
      [0.6, 1.1],
      [0, 0.5],
      [-0.6, 1.1],
      [-1.1, 0.6],
      [-0.5, 0],
    ],
    star: [
      [0, -1.3],
      [0.4, -0.4],
      [1.3, -0.4],
      [0.6, 0.25],
      [0.85, 1.2],
      [0, 0.6],
      [-0.85, 1.2],
      [-0.6, 0.25],
      [-1.3, -0.4],
      [-0.4, -0.4],
    ],
  };
  return drawing("polygon", { points: at(shapes[symbol] || shapes.square), fill });
}
