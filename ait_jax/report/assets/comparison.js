// The page of a comparison: the verdict in words first, then what it stands on.

function drawVerdict(node, head) {
  const { result } = head;
  const best = result.strategies
    .map((name) => [result.curves[name]?.overall?.at(-1)?.mean, name])
    .filter(([mean]) => known(mean))
    .sort((a, b) => b[0] - a[0])[0];
  byId("bar-title").textContent = head.title;
  document.title = `${head.title} · ait-jax comparison`;
  node.replaceChildren(
    element(
      "h1",
      {},
      `${grouped(result.strategies.length)} strategies × ${plural(result.seeds.length, "seed")}`,
    ),
    element(
      "p",
      { class: "lead" },
      "On the pool ",
      foreign(result.pool.name, { class: "strong" }),
      `, up to ${plural(result.num_tasks.at(-1), "training task")}; compared with `,
      foreign(result.baseline, { class: "strong" }),
      ".",
      ...(best
        ? [
            " Highest mean at the end: ",
            foreign(best[1], { class: "strong" }),
            `, ROUGE-L ${fixed(best[0])}. Whether that is more than noise:`,
          ]
        : []),
    ),
    element(
      "ul",
      { class: "card verdict" },
      (result.verdict || []).map((line) => element("li", {}, foreign(line))),
    ),
    (result.warnings || []).length
      ? element(
          "ul",
          { class: "notes" },
          result.warnings.map((line) => element("li", {}, foreign(line))),
        )
      : "",
  );
  byId("footer").replaceChildren(
    `ait-jax ${head.version || result.code_version || ""} · ${FOOTER}`,
  );
}

async function startComparison() {
  startTheme();
  const head = await readBlock("head");
  unpackPlotly().catch(() => {}); // told where the charts are drawn
  drawVerdict(byId("verdict"), head);
  drawSetup(bodyOf("setup"), head);
  drawComparisonTables(bodyOf("tables"), head.result);
  await Promise.all([
    drawComparisonCurves(bodyOf("curves"), head.result),
    drawDifferences(bodyOf("differences"), head.result),
    drawLooks(bodyOf("looks"), head.result),
  ]);
  document.documentElement.dataset.ready = "true";
}

orSayWhyNot(startComparison());
