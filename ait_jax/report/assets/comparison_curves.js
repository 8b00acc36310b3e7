// Strategies' mean curves over seeds, with bands and the seeds; the paper's curves beside them.

const SCORE_GROUPS = [
  ["overall", "overall"],
  ["cls", "CLS"],
  ["gen", "GEN"],
];

// The baseline is ink; the others keep their colour, marker and dash through the page.
function strategyLook(result, strategy) {
  if (strategy === result.baseline) return { color: color("ink"), symbol: "circle", dash: "solid" };
  const others = result.strategies.filter((name) => name !== result.baseline);
  const i = others.indexOf(strategy);
  return {
    ...seriesLook(i),
    symbol: SERIES_SYMBOLS[(i + 1) % 8],
    dash: SERIES_DASHES[(i + 1) % 4],
  };
}

function drawComparisonCurves(node, result) {
  const view = { group: "overall", band: "error", seeds: true, shown: new Set(result.strategies) };
  const chart = element("div", {
    class: "chart tall",
    role: "img",
    "aria-label": "Mean test ROUGE-L by number of training tasks",
  });
  const paper = result.paper ? drawPaper(result, view) : null;
  const redraw = () =>
    Promise.all([draw(chart, () => comparisonChart(result, view), "comparison"), paper?.redraw()]);
  const chips = element("div", { class: "chips" });
  const fill = () =>
    chips.replaceChildren(
      ...result.strategies.map((name) =>
        toggleButton(
          [swatch(strategyLook(result, name)), foreign(name)],
          view.shown.has(name),
          (pressed) => {
            if (pressed) view.shown.add(name);
            else view.shown.delete(name);
            redraw();
          },
        ),
      ),
    );
  fill();
  onTheme(fill);
  const check = (label, key) =>
    element(
      "label",
      { class: "check" },
      element("input", {
        type: "checkbox",
        checked: view[key],
        onchange: (event) => {
          view[key] = event.target.checked;
          redraw();
        },
      }),
      label,
    );
  const groups = SCORE_GROUPS.filter(([key]) =>
    result.strategies.some((name) => result.curves[name]?.[key]),
  );
  node.replaceChildren(
    element(
      "div",
      { class: "controls" },
      choice("Tasks", "curve-group", groups, view.group, (group) => {
        view.group = group;
        redraw();
      }),
      choice(
        "Band",
        "curve-band",
        [
          ["error", "± standard error"],
          ["interval", `${percent(result.confidence, 0)} interval`],
          ["none", "no band"],
        ],
        view.band,
        (band) => {
          view.band = band;
          redraw();
        },
      ),
      check("seeds, thin", "seeds"),
    ),
    element("div", { class: "controls" }, chips),
    chart,
    paper ? paper.node : "",
  );
  return redraw();
}

function comparisonChart(result, view) {
  const series = [];
  for (const name of result.strategies.filter((one) => view.shown.has(one))) {
    const points = result.curves[name]?.[view.group];
    if (!points) continue;
    const look = strategyLook(result, name);
    if (view.seeds) {
      for (const run of result.runs.filter((one) => one.strategy === name)) {
        const rounds = run.points.filter((point) => point.round !== null);
        series.push({
          name: `${name}, seed ${run.seed}`,
          color: translucent(look.color, 0.4),
          dash: look.dash,
          width: 1,
          markerSize: 3,
          x: rounds.map((point) => point.num_tasks),
          y: rounds.map((point) => point.test[view.group] ?? null),
        });
      }
    }
    series.push({
      ...look,
      name,
      x: points.map((point) => point.num_tasks),
      y: points.map((point) => point.mean),
      band: bandPoints(points, view.band),
      notes: points.map(
        (point) => `${point.n} seeds${known(point.std) ? `, std ${fixed(point.std, 2)}` : ""}`,
      ),
    });
  }
  const some = result.curves[result.baseline]?.overall || [];
  const ticks = taskTicks(
    some.map((point) => ({ x: point.num_tasks, label: `round ${point.round}` })),
  );
  return curvesOf({ series, yTitle: "test ROUGE-L", xTitle: "training tasks", ticks });
}

function bandPoints(points, band) {
  if (band === "none") return null;
  const half = (point) =>
    band === "error" ? (known(point.std) ? point.std / Math.sqrt(point.n) : 0) : 0;
  const low = (point) =>
    band === "error" || !known(point.low) ? point.mean - half(point) : point.low;
  const high = (point) =>
    band === "error" || !known(point.high) ? point.mean + half(point) : point.high;
  return { low: points.map(low), high: points.map(high) };
}

// The paper's published curves stand apart: another model and pool, so another scale.
function drawPaper(result, view) {
  const chart = element("div", { class: "chart", role: "img", "aria-label": "The paper's curves" });
  const node = element(
    "div",
    {},
    element("h3", {}, "The paper's curves: theirs, not ours"),
    chart,
    element("p", { class: "faint" }, foreign(result.paper.source)),
  );
  return { node, redraw: () => draw(chart, () => paperChart(result, view), "paper") };
}

function paperChart(result, view) {
  const { paper } = result;
  const others = Object.keys(paper.test).filter((name) => !result.strategies.includes(name));
  const series = Object.entries(paper.test)
    .filter(([, groups]) => groups[view.group])
    .map(([name, groups]) => ({
      ...(result.strategies.includes(name)
        ? strategyLook(result, name)
        : seriesLook(result.strategies.length + others.indexOf(name))),
      name: `paper: ${name}`,
      x: paper.num_tasks,
      y: groups[view.group],
    }));
  return curvesOf({
    series,
    yTitle: "test ROUGE-L",
    xTitle: `training tasks; means of ${paper.num_runs} runs`,
    ticks: taskTicks(paper.num_tasks.map((x, i) => ({ x, label: `round ${i}` }))),
  });
}
