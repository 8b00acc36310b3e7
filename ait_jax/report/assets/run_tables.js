// The run's tables: the round's task scores, results by category, rounds, stages.

function drawRunTables(node, run, view) {
  const scores = run.scored.length ? element("div") : null;
  const categories = categoryTable(run.head);
  node.replaceChildren(...[scores, categories, roundsTable(run)].filter(Boolean));
  if (!scores) return;
  const show = async () => scores.replaceChildren(await scoresTable(run, view));
  drawWhenNear(scores, () => {
    show();
    view.on((changed) => {
      if (changed.has("place")) show();
    });
  });
}

async function scoresTable(run, view) {
  const place = view.state.place;
  const round = await loadRound(run, place),
    before = await roundBefore(run, place);
  const rows = Array.from(round.task.keys());
  const task = (row) => round.task[row];
  const measure = (title, values, hint) => ({
    title,
    numeric: true,
    hint,
    value: (row) => values[row],
    text: (row) => score(values[row]),
  });
  const columns = [
    {
      title: "task",
      value: (row) => run.names[task(row)],
      node: (row) => foreignName(run.names[task(row)]),
    },
    { title: "category", value: (row) => categoryName(run, task(row)) },
    { title: "type", value: (row) => typeName(run, task(row)) },
    {
      title: "region",
      value: (row) => REGIONS[round.region[row]],
      node: (row) => regionBadge(round.region[row]),
    },
    {
      title: "selected",
      value: (row) => (round.selected[task(row)] ? "selected" : ""),
      descending: true,
    },
    measure("prompt uncertainty", round.uncertainty),
    ...(before
      ? [
          {
            title: `since round ${before.number}`,
            numeric: true,
            value: (row) => changeOf(round, before, row),
            text: (row) => signed(changeOf(round, before, row), 4),
          },
        ]
      : []),
    measure("prediction probability", round.probability),
    ...Object.entries(round.measures).map(([name, values]) => ({
      title: name.replaceAll("_", " "),
      numeric: true,
      value: (row) => values[row],
      text: (row) => short(values[row]),
    })),
  ];
  return makeTable({
    caption: `Task scores, ${roundName(run, place)}`,
    columns,
    rows,
    file: `task-scores-round-${round.number}`,
    sort: { column: 5, descending: true },
    open: (row) => view.set({ task: task(row), active: task(row) }),
  }).node;
}

function categoryTable(head) {
  const points = (head.evaluations || []).filter((point) => point.test);
  const names = categoryNames(points);
  if (!names.length) return null;
  const at = (point, name, metric = "rougeL") => point.test.categories?.[name]?.[metric] ?? null;
  const largest = Math.max(
    1,
    ...points.flatMap((point) => names.map((name) => at(point, name) ?? 0)),
  );
  const first = points[0],
    last = points.at(-1);
  const columns = [
    { title: "category", value: (name) => name },
    { title: "tasks", numeric: true, value: (name) => last.test.categories?.[name]?.tasks ?? null },
    ...points.map((point) => ({
      title: point.name,
      numeric: true,
      hint: `ROUGE-L, ${point.num_tasks} training tasks`,
      value: (name) => at(point, name),
      node: (name) => barCell(at(point, name), largest, fixed(at(point, name), 1)),
    })),
    ...(points.length > 1
      ? [
          {
            title: "gain",
            numeric: true,
            value: (name) =>
              known(at(last, name)) && known(at(first, name))
                ? at(last, name) - at(first, name)
                : null,
            node: (name) => changeCell(at(last, name), at(first, name)),
          },
        ]
      : []),
    {
      title: "exact match",
      numeric: true,
      hint: `of ${last.name}`,
      value: (name) => at(last, name, "exact_match"),
      text: (name) => fixed(at(last, name, "exact_match"), 1),
    },
  ];
  return makeTable({
    caption: "Test ROUGE-L by category",
    columns,
    rows: names,
    file: "test-by-category",
    pageSize: 40,
    filterable: names.length > 12,
  }).node;
}

function changeCell(now, before) {
  if (!known(now) || !known(before)) return element("span", {}, DASH);
  return element("span", { class: now >= before ? "gain" : "loss" }, signed(now - before, 1));
}

function roundsTable(run) {
  const points = run.head.evaluations || [];
  const roundOf = (point) =>
    run.head.rounds.find((round) => point.round !== null && round.round === point.round);
  const trainingOf = (point) =>
    (run.head.training || []).find((training) => training.round === point.round);
  const figure = (title, pick, metric = "rougeL") => ({
    title,
    numeric: true,
    value: (point) => pick(point)?.[metric] ?? null,
    text: (point) => fixed(pick(point)?.[metric], 2),
  });
  const columns = [
    { title: "model", value: (point) => point.name },
    {
      title: "training tasks",
      numeric: true,
      value: (point) => point.num_tasks,
      text: (point) => grouped(point.num_tasks),
    },
    figure("test", (point) => point.test?.overall),
    figure("test CLS", (point) => point.test?.cls),
    figure("test GEN", (point) => point.test?.gen),
    figure("test exact match", (point) => point.test?.overall, "exact_match"),
    ...(points.some((point) => point.dev) ? [figure("dev", (point) => point.dev?.overall)] : []),
    {
      title: "checkpoint step",
      numeric: true,
      value: (point) => trainingOf(point)?.chosen_step ?? null,
      text: (point) => grouped(trainingOf(point)?.chosen_step),
    },
    {
      title: "tasks scored",
      numeric: true,
      value: (point) => roundOf(point)?.num_tasks || null,
      text: (point) => grouped(roundOf(point)?.num_tasks || null),
    },
    {
      title: "selected",
      numeric: true,
      value: (point) => roundOf(point)?.selected?.length || null,
      text: (point) => grouped(roundOf(point)?.selected?.length || null),
    },
  ];
  return makeTable({
    caption: "Rounds",
    columns,
    rows: points,
    file: "rounds",
    filterable: false,
    pageSize: 40,
  }).node;
}

function drawCost(node, head) {
  const rows = head.timings || [];
  const cost = head.cost || {};
  const largest = Math.max(1e-9, ...rows.map((row) => row.seconds || 0));
  const price = (row) =>
    known(cost.price_per_device_hour) && known(row.seconds)
      ? (row.seconds / 3600) * cost.devices * cost.price_per_device_hour
      : null;
  const columns = [
    { title: "stage", value: (row) => row.stage },
    {
      title: "time",
      numeric: true,
      value: (row) => row.seconds,
      node: (row) => barCell(row.seconds, largest, duration(row.seconds)),
    },
    {
      title: "tokens/s",
      numeric: true,
      value: (row) => row.tokens_per_second,
      text: (row) =>
        grouped(known(row.tokens_per_second) ? Math.round(row.tokens_per_second) : null),
    },
    {
      title: "padding",
      numeric: true,
      value: (row) => row.padding,
      text: (row) => percent(row.padding),
    },
    {
      title: "MFU",
      numeric: true,
      hint: "model-FLOP utilisation",
      value: (row) => row.mfu,
      text: (row) => percent(row.mfu),
    },
    ...extraTimings(rows),
    ...(known(cost.price_per_device_hour)
      ? [{ title: "cost", numeric: true, value: price, text: (row) => fixed(price(row), 2) }]
      : []),
  ];
  node.replaceChildren(
    costLine(cost, rows),
    makeTable({
      caption: "Stages",
      columns,
      rows,
      file: "stages",
      pageSize: 40,
      filterable: rows.length > 12,
      empty: "No stage has finished yet.",
    }).node,
  );
}

// Further numbers that the run recorded for its stages, whatever they are.
function extraTimings(rows) {
  const usual = new Set([
    "stage",
    "seconds",
    "tokens_per_second",
    "padding",
    "padding_fraction",
    "mfu",
  ]);
  const names = [...new Set(rows.flatMap((row) => Object.keys(row)))].filter(
    (name) => !usual.has(name) && rows.some((row) => typeof row[name] === "number"),
  );
  return names.map((name) => ({
    title: name.replaceAll("_", " "),
    numeric: true,
    value: (row) => (typeof row[name] === "number" ? row[name] : null),
    text: (row) => (typeof row[name] === "number" ? short(row[name]) : DASH),
  }));
}

function costLine(cost, rows) {
  const seconds = rows.reduce((sum, row) => sum + (row.seconds || 0), 0);
  const parts = [`${duration(seconds)} measured`];
  if (known(cost.devices))
    parts.push([
      " on ",
      plural(cost.devices, "device"),
      " (",
      foreign(cost.device_kind ?? "kind not recorded"),
      ")",
    ]);
  if (known(cost.device_hours)) parts.push(`: ${short(cost.device_hours)} device hours`);
  if (known(cost.total))
    parts.push(
      `, ${cost.total.toFixed(2)} at ${short(cost.price_per_device_hour)} per device hour`,
    );
  else parts.push("; no price was given");
  return element("p", { class: "lead" }, parts.flat(), ".");
}
