// The task map: its controls, its marks, what is under the mouse.

function drawTaskMap(node, run, view) {
  if (view.state.place === null) {
    node.replaceChildren(element("p", { class: "faint" },
      "No round was scored: the strategy selects without scores, or scoring comes later."));
    return null;
  }
  const chart = element("div", { class: "chart map-chart", role: "img",
    "aria-label": "Task map: prompt uncertainty against prediction probability. The list beside it has the same tasks." });
  const movement = element("p", { class: "faint movement" });
  const map = { run, view, chart, movement, round: null, before: null, mask: null, rows: [], trail: null, bound: false };
  const list = makeTaskList(run, view, map);
  node.replaceChildren(
    roundControls(run, view), filterControls(run, view),
    element("div", { class: "map-grid" },
      element("div", { class: "map-left" }, chart, movement), list.node));
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
  if (view.state.place !== place) return;  // the slider went on while this round was unpacked
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
  const points = (await historyOf(map.run, followed)).filter((p) => Number.isFinite(p.uncertainty + p.probability));
  map.trail = { place, points: points.map((p) => ({ ...p, round: map.run.head.rounds[p.place].round })) };
}

async function redrawMap(map) {
  await draw(map.chart, () => mapFigure(map), `task-map-${roundName(map.run, map.view.state.place).replace(" ", "-")}`);
  if (!map.bound) bindMap(map);
  // Where plotly finds no WebGL after all, SVG takes over.
  if (map.chart.querySelector(".no-webgl")) {
    forgetWebgl(map.chart);
    map.bound = false;
    await redrawMap(map);
  }
  const { round } = map;
  const few = isLarge(map.run, round.task.length) && !hasWebgl();
  map.movement.textContent = movementLine(map.run, round, map.before) + (few
    ? ` Without WebGL at most ${grouped(MOST_SVG)} marks of a kind are drawn; list, search and counts have all.` : "");
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
  const ticks = state.cubeRoot ? cubeRootTicks(kept[0], kept[1], map.chart.clientWidth)
    : { tickvals: null, ticktext: null };
  const xaxis = axis({ title: state.cubeRoot ? "prompt uncertainty, cube-root axis" : "prompt uncertainty",
    range: extent.x, zeroline: false, tickmode: state.cubeRoot ? "array" : "auto", ...ticks });
  const yaxis = axis({ title: "prediction probability", range: extent.y, zeroline: false });
  return { traces, layout: { xaxis, yaxis, uirevision: `map-${state.cubeRoot}`, hoverdistance: 14,
    margin: { l: 56, r: 10, t: 10, b: 50 }, annotations: trailLabels(map.trail, state.cubeRoot) } };
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
    if (!map.view.state.cubeRoot || !Object.keys(change).some((key) => key.startsWith("xaxis"))) return;
    if ("xaxis.tickvals" in change) return;
    const [low, high] = map.chart._fullLayout.xaxis.range;
    const ticks = cubeRootTicks(low, high, map.chart.clientWidth);
    window.Plotly.relayout(map.chart, { "xaxis.tickvals": ticks.tickvals, "xaxis.ticktext": ticks.ticktext });
  });
}

// --- controls ---

function roundControls(run, view) {
  const last = run.scored.length - 1;
  const label = element("output", { class: "round-label" });
  const slider = element("input", { type: "range", min: 0, max: last, step: 1, id: "round-slider",
    "aria-label": "Round", disabled: last === 0,
    oninput: () => view.set({ place: run.scored[Number(slider.value)] }) });
  const play = element("button", { type: "button", class: "quiet play", disabled: last === 0 }, "Play");
  const step = () => view.set({ place: run.scored[(run.scored.indexOf(view.state.place) + 1) % run.scored.length] });
  const player = makePlayer(play, step, () => view.state.place === run.scored[last]);
  const show = () => {
    const i = run.scored.indexOf(view.state.place), head = run.head.rounds[view.state.place];
    slider.value = String(i);
    slider.setAttribute("aria-valuetext", roundName(run, view.state.place));
    label.replaceChildren(element("strong", {}, roundName(run, view.state.place)),
      ` ${plural(head.num_tasks, "task")} scored, ${grouped(head.selected?.length ?? 0)} selected`,
      ...(head.strategy ? [" by ", foreign(strategyWords(head.strategy).toLowerCase())] : []),
      head.joined?.length ? `, ${grouped(head.joined.length)} joined` : "");
  };
  slider.addEventListener("pointerdown", player.stop);
  view.on((changed) => { if (changed.has("place")) show(); });
  show();
  return element("div", { class: "controls" }, play, slider, label,
    element("span", { class: "push" }),
    choice("Horizontal axis", "x-axis", [["cube", "cube root"], ["linear", "linear"]], "cube",
      (key) => view.set({ cubeRoot: key === "cube" })),
    toggleButton("Tails", false, (pressed) => view.set({ tails: pressed }),
      { title: "A line from where each task was one round before" }));
}

// Steps once a second until the last round, then stops; from there it starts over.
function makePlayer(button, step, atEnd) {
  let timer = 0;
  const stop = () => {
    clearInterval(timer);
    timer = 0;
    button.textContent = "Play";
  };
  button.addEventListener("click", () => {
    if (timer) return stop();
    button.textContent = "Pause";
    step();
    timer = setInterval(() => (atEnd() ? stop() : step()), 1100);
    return undefined;
  });
  return { stop };
}

function filterControls(run, view) {
  const search = element("input", { type: "search", class: "search", id: "map-search", spellcheck: "false",
    placeholder: "Search tasks", "aria-label": "Search names, categories and instructions" });
  search.addEventListener("input", debounce(130, () => view.set({ query: search.value.trim(), active: -1 })));
  search.addEventListener("keydown", (event) => {
    if (event.key === "ArrowDown") { event.preventDefault(); byId("task-list").focus(); }
  });
  const used = [...new Set(run.category)].sort((a, b) => collator.compare(run.categories[a] ?? "", run.categories[b] ?? ""));
  const category = selectBox("Category", [["-1", "all categories"], ...used.map((c) => [String(c), run.categories[c] ?? ""])],
    "-1", (value) => view.set({ category: Number(value), active: -1 }));
  const chips = element("div", { class: "chips", role: "group", "aria-label": "Regions, CLS and GEN, selected" });
  const fill = () => chips.replaceChildren(...mapChips(run, view));
  const reset = element("button", { type: "button", class: "quiet", id: "map-reset", onclick: () => {
    search.value = "";
    category.value = "-1";
    view.set({ query: "", category: -1, types: new Set([0, 1, 2]), regions: new Set([0, 1, 2, 3]), selectedOnly: false });
    fill();
  } }, "Reset");
  const show = () => { reset.hidden = !isFiltered(view.state); };
  view.on((changed) => {
    if (changed.has("place")) fill();
    show();
  });
  onTheme(fill);
  fill();
  show();
  return element("div", { class: "controls" }, search, category, chips, reset);
}

// The legend is the filter: each chip shows its mark and how many tasks of the round it covers.
function mapChips(run, view) {
  const { state } = view;
  const flip = (key, value) => (pressed) => {
    const next = new Set(state[key]);
    if (pressed) next.add(value); else next.delete(value);
    view.set({ [key]: next, active: -1 });
  };
  const counts = roundCounts(run, state.place);
  const mark = (symbol, fill) => drawing("svg", { viewBox: "0 0 12 12", width: 12, height: 12, "aria-hidden": "true" },
    markerShape(symbol, 6, 6, 4.4, fill));
  const ring = drawing("svg", { viewBox: "0 0 12 12", width: 12, height: 12, "aria-hidden": "true" },
    drawing("circle", { cx: 6, cy: 6, r: 4.6, fill: "none", stroke: color("ink"), "stroke-width": 1.6 }));
  const count = (value) => element("span", { class: "faint" }, grouped(value));
  return [
    ...[1, 2, 3, 0].map((region) => toggleButton([mark("square", color(REGIONS[region])), REGIONS[region],
      count(counts?.regions[region])], state.regions.has(region), flip("regions", region),
      { "data-region": REGIONS[region] })),
    element("span", { class: "divide" }),
    ...[1, 0, 2].filter((type) => type < 2 || counts?.types[type]).map((type) => toggleButton(
      [mark(SYMBOLS[type], color("faint")), TYPES[type], count(counts?.types[type])],
      state.types.has(type), flip("types", type), { "data-type": TYPES[type] })),
    element("span", { class: "divide" }),
    toggleButton([ring, "selected only"], state.selectedOnly,
      (pressed) => view.set({ selectedOnly: pressed, active: -1 }), { "data-selected": true }),
  ];
}

function roundCounts(run, place) {
  const round = run.rounds.get(place);
  if (!round) return null;
  const regions = [0, 0, 0, 0], types = [0, 0, 0];
  round.task.forEach((task, row) => {
    regions[round.region[row]] += 1;
    types[run.type[task]] += 1;
  });
  return { regions, types };
}

// --- what is under the mouse ---

function showTooltip(map, row, event) {
  const { run, round, before } = map;
  const task = round.task[row], tooltip = byId("tooltip");
  const change = changeOf(round, before, row);
  const instruction = run.instructions[task] || "";
  tooltip.replaceChildren(
    element("strong", {}, foreignName(run.names[task])),
    element("div", { class: "faint" }, foreign(categoryName(run, task)), ` · ${typeName(run, task)} · `,
      REGIONS[round.region[row]], round.selected[task] ? " · selected" : ""),
    element("table", {},
      tooltipRow("prompt uncertainty", score(round.uncertainty[row])),
      Number.isFinite(change) ? tooltipRow(`since round ${before.number}`, signed(change, 4)) : null,
      tooltipRow("prediction probability", score(round.probability[row]))),
    element("div", { class: "tooltip-text" }, foreign(instruction)));
  tooltip.hidden = false;
  const box = tooltip.getBoundingClientRect();
  const x = event.clientX + 18 + box.width > innerWidth ? event.clientX - box.width - 18 : event.clientX + 18;
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
