// What was known after every seed: each strategy's mean difference, and what it might be.

function drawLooks(node, result) {
  const looks = Object.entries(result.looks || {}).filter(([, found]) => found.length > 1);
  if (!looks.length) {
    node.replaceChildren(
      element("p", { class: "faint" }, "This takes two seeds that strategies have in common."),
    );
    return null;
  }
  const chart = element("div", {
    class: "chart",
    role: "img",
    "aria-label": "Mean difference and its possible values by number of seeds",
  });
  node.replaceChildren(
    element(
      "ul",
      { class: "notes" },
      looks.map(([name, found]) => element("li", {}, foreign(name), `: ${lookText(found.at(-1))}`)),
    ),
    chart,
    element(
      "p",
      { class: "faint" },
      "Test ROUGE-L of the last round minus that of ",
      foreign(result.baseline),
      `, mean of the seeds so far. Bars: what is left with ${percent(result.confidence, 0)} for all `,
      "strategies and all numbers of seeds at once, so you may stop at any. Without a bar, all is.",
    ),
  );
  return draw(chart, () => looksChart(result, looks), "looks");
}

function lookText(look) {
  const verdict = look.verdict
    ? `${look.verdict} than the baseline`
    : "not yet told from the baseline";
  return `${verdict} after ${plural(look.n, "seed")}, ${signed(look.mean, 2)} ${interval(look)}`;
}

function looksChart(result, looks) {
  const traces = looks.map(([name, found], i) => {
    const look = strategyLook(result, name);
    // Side by side, so that bars of several strategies do not hide each other.
    const shift = 0.12 * (i - (looks.length - 1) / 2);
    return {
      type: "scatter",
      mode: "lines+markers",
      name: plotText(name, 34),
      x: found.map((each) => each.n + shift),
      y: found.map((each) => each.mean),
      line: { color: look.color, dash: look.dash, width: 2 },
      marker: {
        color: look.color,
        size: 8,
        symbol: found.map((each) => (each.verdict ? look.symbol : `${look.symbol}-open`)),
      },
      error_y: {
        type: "data",
        symmetric: false,
        array: found.map((each) => (known(each.high) ? each.high - each.mean : 0)),
        arrayminus: found.map((each) => (known(each.low) ? each.mean - each.low : 0)),
        color: translucent(look.color, 0.6),
        thickness: 1.5,
        width: 3,
      },
      customdata: found.map((each) => `${plural(each.n, "seed")}: ${lookText(each)}`),
      hovertemplate: `<b>${plotText(name, 34)}</b><br>%{customdata}<extra></extra>`,
    };
  });
  return {
    traces,
    layout: {
      xaxis: axis({ title: "seeds", dtick: looks.some(([, f]) => f.length > 24) ? 5 : 1 }),
      yaxis: axis({
        title: `minus ${plotText(result.baseline)}`,
        zeroline: true,
        zerolinecolor: color("faint"),
        zerolinewidth: 1.5,
      }),
      showlegend: looks.length > 1,
      legend: { orientation: "h", y: -0.3 },
      margin: { l: 60, r: 24, t: 8, b: 72 },
    },
  };
}
