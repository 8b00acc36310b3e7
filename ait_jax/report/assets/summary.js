// What came out, in one sentence and a few numbers.

function drawSummary(node, head) {
  const summary = head.summary;
  const points = evaluated(head);
  byId("bar-title").textContent = head.title;
  byId("bar-title").title = head.title;
  byId("bar-state").replaceChildren(stateBadge(summary.state));
  document.title = `${head.title} · ait-jax report`;
  node.replaceChildren(
    element("h1", {}, headline(head, points)),
    element("p", { class: "lead" }, sentence(head, points)),
    element("dl", { class: "tiles" }, tiles(head, points)),
    notes(summary.notes || []),
  );
  byId("footer").replaceChildren(
    `ait-jax ${head.version || ""} · schema ${head.schema ?? DASH} · ${FOOTER}`,
  );
}

function stateBadge(state) {
  const finished = state === "finished";
  return element("span", { class: finished ? "badge done" : "badge open" }, foreign(state));
}

function evaluated(head) {
  return (head.evaluations || []).filter((evaluation) => known(evaluation.test?.overall?.rougeL));
}

function headline(head, points) {
  const scored = Math.max(0, ...head.rounds.map((round) => round.num_tasks));
  if (!points.length && scored) return `${plural(scored, "task")} scored`;
  if (!points.length) return "No model was evaluated yet";
  const first = points[0],
    last = points.at(-1);
  const now = `Test ROUGE-L ${fixed(last.test.overall.rougeL)}`;
  if (first === last) return `${now} (${first.name})`;
  const gain = last.test.overall.rougeL - first.test.overall.rougeL;
  return [
    `${now} `,
    element("span", { class: gain >= 0 ? "gain" : "loss" }, signed(gain)),
    element(
      "span",
      { class: "headline-note" },
      ` from ${fixed(first.test.overall.rougeL)} at ${first.name}`,
    ),
  ];
}

function sentence(head, points) {
  const summary = head.summary;
  const parts = [
    foreign(summary.strategy ? `${strategyWords(summary.strategy)} on the` : "The"),
    " pool ",
    foreign(summary.pool, { class: "strong" }),
    ` of ${plural(summary.tasks, "task")}`,
  ];
  if (known(summary.cls) && known(summary.gen)) {
    parts.push(` (${grouped(summary.cls)} CLS, ${grouped(summary.gen)} GEN)`);
  }
  const last = points.at(-1);
  if (last?.num_tasks) parts.push(`; the last model trained on ${plural(last.num_tasks, "task")}`);
  if (summary.rounds)
    parts.push(`. ${summary.rounds_done} of ${plural(summary.rounds, "round")} done`);
  if (known(summary.seed)) parts.push(`${summary.rounds ? ", seed" : ". Seed"} ${summary.seed}`);
  return [...parts, "."];
}

function strategyWords(strategy) {
  const words = String(strategy ?? "").replaceAll("_", " ");
  return words ? words[0].toUpperCase() + words.slice(1) : "An unnamed strategy";
}

function tiles(head, points) {
  const first = points[0],
    last = points.at(-1);
  const list = [];
  const figure = (label, pick, metric = "rougeL") => {
    const now = last && pick(last)?.[metric];
    if (!known(now)) return;
    const before = pick(first)?.[metric];
    const change = first !== last && known(before) ? signed(now - before) : null;
    list.push(tile(label, fixed(now), change));
  };
  figure("test CLS", (point) => point.test.cls);
  figure("test GEN", (point) => point.test.gen);
  figure("test exact match", (point) => point.test.overall, "exact_match");
  figure("dev ROUGE-L", (point) => point.dev?.overall);
  const selected = (head.rounds || []).reduce(
    (sum, round) => sum + (round.selected?.length || 0),
    0,
  );
  if (selected) list.push(tile("tasks selected", grouped(selected), null));
  const seconds = (head.timings || []).reduce((sum, row) => sum + (row.seconds || 0), 0);
  if (seconds) list.push(tile("measured time", duration(seconds), null));
  if (known(head.cost?.total)) list.push(tile("cost", head.cost.total.toFixed(2), null));
  return list;
}

function tile(label, value, change) {
  const trend =
    !change || Number(change.replace("−", "-")) === 0
      ? "faint"
      : change.startsWith("−")
        ? "loss"
        : "gain";
  return element(
    "div",
    { class: "tile" },
    element("dt", {}, label),
    element("dd", {}, value, change ? element("span", { class: trend }, ` ${change}`) : null),
  );
}

function notes(list) {
  if (!list.length) return "";
  return element(
    "ul",
    { class: "notes" },
    list.map((note) => element("li", {}, foreign(note))),
  );
}
