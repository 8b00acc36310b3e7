// The comparison's numbers: scores, differences, tasks to a score, overlaps, runs.

function drawComparisonTables(node, result) {
  const tables = [
    scoresOfStrategies(result),
    differencesTable(result),
    costsTable(result),
    targetTable(result),
    overlapTable(result),
    releasedTable(result),
    runsTable(result),
  ];
  node.replaceChildren(...tables.filter(Boolean));
}

function plainTable(caption, file, columns, rows, more = {}) {
  return rows.length
    ? makeTable({
        caption,
        file,
        columns,
        rows,
        pageSize: 30,
        filterable: rows.length > 12,
        ...more,
      }).node
    : null;
}

function numeric(title, value, digits = 2, change = false) {
  return {
    title,
    numeric: true,
    value,
    text: (row) => (change ? signed(value(row), digits) : fixed(value(row), digits)),
  };
}

function interval(summary) {
  return known(summary?.low) ? `[${signed(summary.low, 2)}, ${signed(summary.high, 2)}]` : DASH;
}

function scoresOfStrategies(result) {
  const rows = result.strategies.flatMap((name) =>
    SCORE_GROUPS.filter(([key]) => result.curves[name]?.[key]).map(([key, label]) => ({
      name,
      label,
      curve: result.curves[name][key],
      area: result.areas[name]?.[key],
    })),
  );
  const columns = [
    { title: "strategy", value: (row) => row.name },
    { title: "tasks", value: (row) => row.label },
    ...result.num_tasks.map((count, i) =>
      numeric(`${grouped(count)} tasks`, (row) => row.curve[i]?.mean ?? null),
    ),
    numeric("mean height", (row) => row.area?.mean ?? null),
    { title: "seeds", numeric: true, value: (row) => row.curve.at(-1)?.n ?? null },
  ];
  return plainTable("Test ROUGE-L, means over seeds", "comparison-scores", columns, rows);
}

function differencesTable(result) {
  const rows = Object.entries(result.differences || {}).flatMap(([name, groups]) =>
    SCORE_GROUPS.filter(([key]) => groups[key]).flatMap(([key, label]) => [
      {
        name,
        label,
        at: "last round",
        found: groups[key].rounds.at(-1),
        holm: key === "overall" ? result.holm?.[name] : null,
      },
      { name, label, at: "whole curve", found: groups[key].area, holm: null },
    ]),
  );
  const columns = [
    { title: "strategy", value: (row) => row.name },
    { title: "tasks", value: (row) => row.label },
    { title: "of", value: (row) => row.at },
    numeric("difference", (row) => row.found.mean, 2, true),
    { title: "interval", numeric: true, value: (row) => interval(row.found) },
    { title: "noise", value: (row) => (isNoise(row.found) ? "within" : "beyond") },
    numeric("p", (row) => row.found.p, 3),
    numeric("p (Holm)", (row) => row.holm ?? null, 3),
    { title: "seeds", numeric: true, value: (row) => row.found.n },
    {
      title: "seeds needed",
      numeric: true,
      value: (row) => row.found.seeds_needed ?? null,
      text: (row) => grouped(row.found.seeds_needed),
    },
  ];
  return plainTable(
    `Minus ${result.baseline}, paired by seed`,
    "comparison-differences",
    columns,
    rows,
  );
}

function targetTable(result) {
  if (!result.target) return null;
  const rows = result.strategies.filter((name) => result.target.tasks[name]);
  const of = (name) => result.target.tasks[name];
  const count = (value) => (known(value) ? grouped(Math.round(value)) : "not reached");
  const columns = [
    { title: "strategy", value: (name) => name },
    {
      title: "mean curve",
      numeric: true,
      value: (name) => of(name).mean_curve,
      text: (name) => count(of(name).mean_curve),
    },
    ...result.seeds.map((seed) => ({
      title: `seed ${seed}`,
      numeric: true,
      value: (name) => of(name).by_seed[String(seed)] ?? null,
      text: (name) => count(of(name).by_seed[String(seed)]),
    })),
  ];
  return plainTable(
    `Training tasks to reach ROUGE-L ${fixed(result.target.score, 2)}`,
    "comparison-target",
    columns,
    rows,
  );
}

const OVERLAP_COLUMNS = [
  numeric("Jaccard", (row) => row.found.jaccard, 3),
  numeric("by chance", (row) => row.found.expected_jaccard, 3),
  numeric("tasks in common", (row) => row.found.common, 1),
  numeric("in common by chance", (row) => row.found.expected_common, 1),
];

function selectionsOf(one) {
  return [
    ...one.selections.map((found) => ({ ...one, found, at: `after round ${found.after_round}` })),
    ...(one.together ? [{ ...one, found: one.together, at: "all selections" }] : []),
  ];
}

function overlapTable(result) {
  const columns = [
    { title: "strategy", value: (row) => row.first },
    { title: "and", value: (row) => row.second },
    { title: "selection", value: (row) => row.at },
    ...OVERLAP_COLUMNS,
  ];
  return plainTable(
    "Overlap of the selections",
    "comparison-overlaps",
    columns,
    (result.overlaps || []).flatMap(selectionsOf),
  );
}

function releasedTable(result) {
  if (!result.released) return null;
  const columns = [
    { title: "strategy", value: (row) => row.strategy },
    { title: "seed", numeric: true, value: (row) => row.seed },
    { title: "authors' split", value: (row) => row.split },
    { title: "authors' strategy", value: (row) => row.released_strategy },
    { title: "selection", value: (row) => row.at },
    ...OVERLAP_COLUMNS,
  ];
  return plainTable(
    "Overlap with the authors' released selections",
    "comparison-released",
    columns,
    result.released.overlaps.flatMap(selectionsOf),
  );
}

function costsTable(result) {
  const rows = Object.entries(result.costs || {}).map(([name, costs]) => ({ name, ...costs }));
  const columns = [
    { title: "strategy", value: (row) => row.name },
    numeric("training steps", (row) => row.training_steps, 0),
    numeric("training tokens", (row) => row.training_tokens, 0),
    numeric("training seconds", (row) => row.training_seconds, 0),
    numeric("scored tokens", (row) => row.scoring_tokens, 0),
    numeric("scoring seconds", (row) => row.scoring_seconds, 0),
    numeric("seconds together", (row) => row.training_seconds + row.scoring_seconds, 0),
  ];
  return plainTable("What a run costs, means over seeds", "comparison-costs", columns, rows);
}

function runsTable(result) {
  const columns = [
    { title: "strategy", value: (run) => run.strategy },
    { title: "seed", numeric: true, value: (run) => run.seed },
    ...SCORE_GROUPS.map(([key, label]) =>
      numeric(`test ${label}`, (run) => run.points.at(-1)?.test[key] ?? null),
    ),
    numeric("dev", (run) => run.points.at(-1)?.dev?.overall ?? null),
    { title: "path", value: (run) => run.path },
  ];
  return plainTable("Runs, last round", "comparison-runs", columns, result.runs);
}
