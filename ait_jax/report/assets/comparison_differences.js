// Each strategy minus the baseline, paired by seed, with its interval: does it hold zero?

function drawDifferences(node, result) {
  const names = Object.keys(result.differences || {});
  if (!names.some((name) => Object.keys(result.differences[name]).length)) {
    node.replaceChildren(
      element("p", { class: "faint" }, "There are no two strategies with a common seed."),
    );
    return null;
  }
  const view = { group: "overall", at: "last" };
  const chart = element("div", {
    class: "chart",
    role: "img",
    "aria-label": "Differences with intervals",
  });
  chart.style.height = `${110 + 46 * names.length}px`;
  const redraw = () => draw(chart, () => differenceChart(result, names, view), "differences");
  const groups = SCORE_GROUPS.filter(([key]) =>
    names.some((name) => result.differences[name][key]),
  );
  node.replaceChildren(
    element(
      "div",
      { class: "controls" },
      choice("Tasks", "difference-group", groups, view.group, (group) => {
        view.group = group;
        redraw();
      }),
      choice(
        "Of",
        "difference-at",
        [
          ["last", `the last round (${plural(result.num_tasks.at(-1), "task")})`],
          ["area", "the whole curve (mean height)"],
        ],
        view.at,
        (at) => {
          view.at = at;
          redraw();
        },
      ),
    ),
    chart,
    element(
      "p",
      { class: "faint" },
      "Points right of zero: better than ",
      foreign(result.baseline),
      `. Bars: ${percent(result.confidence, 0)} intervals, each by itself. ` +
        "Filled: beyond noise; open: within noise.",
    ),
  );
  return redraw();
}

function differenceOf(result, name, group, at) {
  const found = result.differences[name]?.[group];
  return (at === "area" ? found?.area : found?.rounds.at(-1)) ?? null;
}

function isNoise(summary) {
  return !known(summary.low) || (summary.low <= 0 && summary.high >= 0);
}

function differenceChart(result, names, view) {
  const traces = [];
  const rows = names.map((name) => plotText(name, 34));
  names.forEach((name, i) => {
    const found = differenceOf(result, name, view.group, view.at);
    if (!found) return;
    const look = strategyLook(result, name),
      noise = isNoise(found);
    traces.push({
      type: "scatter",
      mode: "markers",
      x: [found.mean],
      y: [names.length - 1 - i],
      cliponaxis: false,
      marker: {
        color: look.color,
        symbol: noise ? `${look.symbol}-open` : look.symbol,
        size: 12,
        line: { width: 2, color: look.color },
      },
      error_x: known(found.low)
        ? {
            type: "data",
            symmetric: false,
            array: [found.high - found.mean],
            arrayminus: [found.mean - found.low],
            color: look.color,
            thickness: 2,
            width: 6,
          }
        : undefined,
      hovertemplate:
        `<b>${rows[i]}</b>  ${signed(found.mean, 2)} ${interval(found)}<br>` +
        `${plural(found.n, "seed")}, p = ${fixed(found.p, 3)}<extra></extra>`,
    });
  });
  return {
    traces,
    layout: {
      xaxis: axis({
        title: `test ROUGE-L minus ${plotText(result.baseline)}`,
        zeroline: true,
        zerolinecolor: color("faint"),
        zerolinewidth: 1.5,
      }),
      yaxis: axis({
        tickvals: names.map((_, i) => names.length - 1 - i),
        ticktext: rows,
        showgrid: false,
        showline: false,
        range: [-0.6, names.length - 0.4],
        zeroline: false,
      }),
      margin: { l: 60, r: 24, t: 8, b: 48 },
    },
  };
}
