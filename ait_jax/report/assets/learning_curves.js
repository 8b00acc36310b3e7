// ROUGE-L or exact match of every evaluated model against the number of training tasks.

const GROUPS = [
  ["overall", "overall", "ink"],
  ["cls", "CLS", "ambiguous"],
  ["gen", "GEN", "easy"],
];

function drawLearningCurves(node, head) {
  const points = head.evaluations || [];
  if (!points.length) {
    node.replaceChildren(element("p", { class: "faint" }, "No model was evaluated yet."));
    return;
  }
  const names = categoryNames(points);
  const view = {
    metric: "rougeL",
    shown: new Set(["overall", "cls", "gen"]),
    hasDev: points.some((p) => p.dev),
    dev: true,
  };
  const others = [...new Set(points.flatMap((point) => Object.keys(point.others || {})))];
  for (const name of others) view.shown.add(`other:${name}`);
  view.others = others;
  const chart = element("div", { class: "chart tall" });
  const redraw = () => draw(chart, () => learningChart(points, names, view), "learning-curves");
  const chips = element("div", { class: "chips" });
  const fill = () => chips.replaceChildren(...curveChips(view, names, redraw, fill));
  fill();
  onTheme(fill);
  node.replaceChildren(
    element(
      "div",
      { class: "controls" },
      choice(
        "Metric",
        "metric",
        [
          ["rougeL", "ROUGE-L"],
          ["rouge1", "ROUGE-1"],
          ["exact_match", "exact match"],
        ],
        view.metric,
        (metric) => {
          view.metric = metric;
          redraw();
        },
      ),
      chips,
      view.hasDev
        ? element(
            "label",
            { class: "check" },
            element("input", {
              type: "checkbox",
              checked: true,
              onchange: (event) => {
                view.dev = event.target.checked;
                redraw();
              },
            }),
            "dev, dashed",
          )
        : null,
    ),
    chart,
  );
  return redraw();
}

function categoryNames(points) {
  const names = new Set();
  for (const point of points)
    for (const name of Object.keys(point.test?.categories || {})) names.add(name);
  return [...names].sort(collator.compare);
}

function curveChips(view, names, redraw, fill) {
  const toggle = (key) => (pressed) => {
    if (pressed) view.shown.add(key);
    else view.shown.delete(key);
    redraw();
  };
  const chips = GROUPS.map(([key, label, ink]) =>
    toggleButton([swatch({ color: color(ink) }), label], view.shown.has(key), toggle(key)),
  );
  view.others.forEach((name, i) =>
    chips.push(
      toggleButton(
        [swatch(otherLook(i)), foreign(name)],
        view.shown.has(`other:${name}`),
        toggle(`other:${name}`),
      ),
    ),
  );
  names.forEach((name, i) => {
    const key = `category:${name}`;
    if (!view.shown.has(key)) return;
    chips.push(
      toggleButton([swatch(seriesLook(i)), foreign(name)], true, () => {
        view.shown.delete(key);
        fill();
        redraw();
      }),
    );
  });
  const rest = names.filter((name) => !view.shown.has(`category:${name}`));
  if (rest.length) {
    const select = selectBox(
      "Add a category's curve",
      [
        ["", "+ category"],
        ...rest.map((n) => [n, n]),
        ...(rest.length > 1 ? [["*", "all categories"]] : []),
      ],
      "",
      (name) => {
        const added = name === "*" && !names.includes("*") ? rest : [name];
        for (const one of added) view.shown.add(`category:${one}`);
        fill();
        redraw();
      },
    );
    chips.push(select);
  }
  return chips;
}

// Test sets of earlier tasks (continual learning) count from the other end of the palette.
function otherLook(i) {
  return seriesLook(7 - (i % 8));
}

function learningChart(points, names, view) {
  const titles = { rougeL: "ROUGE-L", rouge1: "ROUGE-1" };
  const title = titles[view.metric] ?? "exact match";
  const series = [];
  const add = (name, pick, look) => {
    const line = (split) => points.map((point) => pick(point[split])?.[view.metric] ?? null);
    const notes = points.map(
      (point) => `${point.name}, ${plural(point.num_tasks, "training task")}`,
    );
    const x = points.map((point) => point.num_tasks);
    if (view.dev && points.some((point) => known(pick(point.dev)?.[view.metric]))) {
      series.push({
        ...look,
        name: `dev ${name}`,
        x,
        y: line("dev"),
        notes,
        dash: "dash",
        width: 1.3,
        markerSize: 5,
      });
    }
    series.push({ ...look, name: `test ${name}`, x, y: line("test"), notes });
  };
  names.forEach((name, i) => {
    if (view.shown.has(`category:${name}`))
      add(name, (split) => split?.categories?.[name], seriesLook(i));
  });
  view.others.forEach((name, i) => {
    if (!view.shown.has(`other:${name}`)) return;
    series.push({
      ...otherLook(i),
      name,
      x: points.map((point) => point.num_tasks),
      y: points.map((point) => point.others?.[name]?.overall?.[view.metric] ?? null),
      notes: points.map((point) => point.name),
    });
  });
  for (const [key, label, ink] of GROUPS) {
    if (view.shown.has(key)) add(label, (split) => split?.[key], { color: color(ink) });
  }
  const places = points.map((point) => ({ x: point.num_tasks, label: point.name }));
  return curvesOf({
    series,
    yTitle: title,
    xTitle: "training tasks",
    ticks: taskTicks(places),
    percentage: true,
  });
}
