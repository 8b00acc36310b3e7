// The task map: its controls, its marks, what is under the mouse.

function drawTaskMap(node, run, view) {
  if (view.state.place === null) {
    node.replaceChildren(
      element(
        "p",
        { class: "faint" },
        "No round was scored: the strategy selects without scores, or scoring comes later.",
      ),
    );
    return null;
  }
  const chart = element("div", {
    class: "chart map-chart",
    role: "img",
    "aria-label":
      "Task map: prompt uncertainty and prediction probability, as in the list beside it",
  });
  const movement = element("p", { class: "faint movement" });
  const map = {
    run,
    view,
    chart,
    movement,
    round: null,
    before: null,
    mask: null,
    rows: [],
    trail: null,
    bound: false,
  };
  const list = makeTaskList(run, view, map);
  node.replaceChildren(
    roundControls(run, view),
    filterControls(run, view),
    element(
      "div",
      { class: "map-grid" },
      element("div", { class: "map-left" }, chart, movement),
      list.node,
    ),
  );
  map.list = list;
  view.on((changed) => mapChanged(map, changed));
  return refreshMap(map);
}

async function mapChanged(map, changed) {
  const { state } = map.view;
  if (changed.has("place")) await refreshMap(map);
  else if (FILTER_KEYS.some((key) => changed.has(key)) || changed.has("order")) {
    map.mask = matchMask(map.run, map.round, state);
    map.list.show(map.round, map.before, map.mask);
    if (!changed.has("order") || changed.size > 1) await redrawMap(map);
  } else if (changed.has("cubeRoot") || changed.has("tails")) await redrawMap(map);
  if (changed.has("task") || changed.has("active")) {
    await updateTrail(map);
    await redrawMap(map);
  }
}

async function refreshMap(map) {
  const { run, view } = map;
  const place = view.state.place;
  const round = await loadRound(run, place);
  const before = await roundBefore(run, place);
  if (view.state.place !== place) return; // the slider went on while this round was unpacked
  Object.assign(map, { round, before, mask: matchMask(run, round, view.state) });
  map.list.show(round, before, map.mask);
  await updateTrail(map);
  await redrawMap(map);
}

async function updateTrail(map) {
  const { task, active, place } = map.view.state;
  const followed = active >= 0 ? active : task;
  if (followed < 0) {
    map.trail = null;
    return;
  }
  const points = (await historyOf(map.run, followed)).filter((p) =>
    Number.isFinite(p.uncertainty + p.probability),
  );
  map.trail = {
    place,
    points: points.map((p) => ({ ...p, round: map.run.head.rounds[p.place].round })),
  };
}

async function redrawMap(map) {
  await draw(
    map.chart,
    () => mapFigure(map),
    `task-map-${roundName(map.run, map.view.state.place).replace(" ", "-")}`,
  );
  if (!map.bound) bindMap(map);
  // Where plotly finds no WebGL after all, SVG takes over.
  if (map.chart.querySelector(".no-webgl")) {
    forgetWebgl(map.chart);
    map.bound = false;
    await redrawMap(map);
  }
  const { round } = map;
  const few = isLarge(map.run, round.task.length) && !hasWebgl();
  map.movement.textContent =
    movementLine(map.run, round, map.before) +
    (few
      ? ` Without WebGL at most ${grouped(MOST_SVG)} marks of a kind are drawn; the list has all.`
      : "");
}

function mapFigure(map) {
  const { run, view, round, before, mask } = map;
  const { state } = view;
  const { traces, rows } = mapTraces(run, round, before, mask, state, map.trail);
  map.rows = rows;
  const extent = mapExtent(run, state.cubeRoot);
  const shown = map.chart._fullLayout?.xaxis?.range;
  const kept = map.kept === state.cubeRoot && shown ? shown : extent.x;
  map.kept = state.cubeRoot;
  const ticks = state.cubeRoot
    ? cubeRootTicks(kept[0], kept[1], map.chart.clientWidth)
    : { tickvals: null, ticktext: null };
  const xaxis = axis({
    title: state.cubeRoot ? "prompt uncertainty, cube-root axis" : "prompt uncertainty",
    range: extent.x,
    zeroline: false,
    tickmode: state.cubeRoot ? "array" : "auto",
    ...ticks,
  });
  const yaxis = axis({ title: "prediction probability", range: extent.y, zeroline: false });
  return {
    traces,
    layout: {
      xaxis,
      yaxis,
      uirevision: `map-${state.cubeRoot}`,
      hoverdistance: 14,
      margin: { l: 56, r: 10, t: 10, b: 50 },
      annotations: trailLabels(map.trail, state.cubeRoot),
    },
  };
}

function bindMap(map) {
  map.bound = true;
  const rowOf = (event) => {
    const point = event.points?.[0];
    return point ? map.rows[point.curveNumber]?.[point.pointNumber] : undefined;
  };
  map.chart.on("plotly_hover", (event) => {
    const row = rowOf(event);
    if (row !== undefined) showTooltip(map, row, event.event);
  });
  map.chart.on("plotly_unhover", hideTooltip);
  map.chart.on("plotly_click", (event) => {
    const row = rowOf(event);
    if (row === undefined) return;
    hideTooltip();
    map.view.set({ task: map.round.task[row], active: map.round.task[row] });
  });
  map.chart.on("plotly_relayout", (change) => {
    if (!map.view.state.cubeRoot || !Object.keys(change).some((key) => key.startsWith("xaxis")))
      return;
    if ("xaxis.tickvals" in change) return;
    const [low, high] = map.chart._fullLayout.xaxis.range;
    const ticks = cubeRootTicks(low, high, map.chart.clientWidth);
    window.Plotly.relayout(map.chart, {
      "xaxis.tickvals": ticks.tickvals,
      "xaxis.ticktext": ticks.ticktext,
    });
  });
}

// --- what is under the mouse ---

function showTooltip(map, row, event) {
  const { run, round, before } = map;
  const task = round.task[row],
    tooltip = byId("tooltip");
  const change = changeOf(round, before, row);
  const instruction = run.instructions[task] || "";
  tooltip.replaceChildren(
    element("strong", {}, foreignName(run.names[task])),
    element(
      "div",
      { class: "faint" },
      foreign(categoryName(run, task)),
      ` · ${typeName(run, task)} · `,
      REGIONS[round.region[row]],
      round.selected[task] ? " · selected" : "",
    ),
    element(
      "table",
      {},
      tooltipRow("prompt uncertainty", score(round.uncertainty[row])),
      Number.isFinite(change)
        ? tooltipRow(`since round ${before.number}`, signed(change, 4))
        : null,
      tooltipRow("prediction probability", score(round.probability[row])),
    ),
    element("div", { class: "tooltip-text" }, foreign(instruction)),
  );
  tooltip.hidden = false;
  const box = tooltip.getBoundingClientRect();
  const x =
    event.clientX + 18 + box.width > innerWidth
      ? event.clientX - box.width - 18
      : event.clientX + 18;
  const y = Math.min(innerHeight - box.height - 8, Math.max(8, event.clientY - box.height / 2));
  tooltip.style.left = `${Math.max(8, x)}px`;
  tooltip.style.top = `${y}px`;
}

function tooltipRow(label, value) {
  return element("tr", {}, element("th", {}, label), element("td", { class: "number" }, value));
}

function hideTooltip() {
  byId("tooltip").hidden = true;
}
