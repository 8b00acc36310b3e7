// The task map's controls: rounds, axis, tails, search and the legend that filters.

function roundControls(run, view) {
  const last = run.scored.length - 1;
  const label = element("output", { class: "round-label" });
  const slider = element("input", {
    type: "range",
    min: 0,
    max: last,
    step: 1,
    id: "round-slider",
    "aria-label": "Round",
    disabled: last === 0,
    oninput: () => view.set({ place: run.scored[Number(slider.value)] }),
  });
  const play = element(
    "button",
    { type: "button", class: "quiet play", disabled: last === 0 },
    "Play",
  );
  const step = () =>
    view.set({ place: run.scored[(run.scored.indexOf(view.state.place) + 1) % run.scored.length] });
  const player = makePlayer(play, step, () => view.state.place === run.scored[last]);
  const show = () => {
    const i = run.scored.indexOf(view.state.place),
      head = run.head.rounds[view.state.place];
    slider.value = String(i);
    slider.setAttribute("aria-valuetext", roundName(run, view.state.place));
    label.replaceChildren(
      element("strong", {}, roundName(run, view.state.place)),
      ` ${plural(head.num_tasks, "task")} scored, ${grouped(head.selected?.length ?? 0)} selected`,
      ...(head.strategy ? [" by ", foreign(strategyWords(head.strategy).toLowerCase())] : []),
      head.joined?.length ? `, ${grouped(head.joined.length)} joined` : "",
    );
  };
  slider.addEventListener("pointerdown", player.stop);
  view.on((changed) => {
    if (changed.has("place")) show();
  });
  show();
  return element(
    "div",
    { class: "controls" },
    play,
    slider,
    label,
    element("span", { class: "push" }),
    choice(
      "Horizontal axis",
      "x-axis",
      [
        ["cube", "cube root"],
        ["linear", "linear"],
      ],
      "cube",
      (key) => view.set({ cubeRoot: key === "cube" }),
    ),
    toggleButton("Tails", false, (pressed) => view.set({ tails: pressed }), {
      title: "A line from where each task was one round before",
    }),
  );
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
  const search = element("input", {
    type: "search",
    class: "search",
    id: "map-search",
    spellcheck: "false",
    placeholder: "Search tasks",
    "aria-label": "Search names, categories and instructions",
  });
  search.addEventListener(
    "input",
    debounce(130, () => view.set({ query: search.value.trim(), active: -1 })),
  );
  search.addEventListener("keydown", (event) => {
    if (event.key === "ArrowDown") {
      event.preventDefault();
      byId("task-list").focus();
    }
  });
  const used = [...new Set(run.category)].sort((a, b) =>
    collator.compare(run.categories[a] ?? "", run.categories[b] ?? ""),
  );
  const category = selectBox(
    "Category",
    [["-1", "all categories"], ...used.map((c) => [String(c), run.categories[c] ?? ""])],
    "-1",
    (value) => view.set({ category: Number(value), active: -1 }),
  );
  const chips = element("div", {
    class: "chips",
    role: "group",
    "aria-label": "Regions, CLS and GEN, selected",
  });
  const fill = () => chips.replaceChildren(...mapChips(run, view));
  const reset = element(
    "button",
    {
      type: "button",
      class: "quiet",
      id: "map-reset",
      onclick: () => {
        search.value = "";
        category.value = "-1";
        view.set({
          query: "",
          category: -1,
          types: new Set([0, 1, 2]),
          regions: new Set([0, 1, 2, 3]),
          selectedOnly: false,
        });
        fill();
      },
    },
    "Reset",
  );
  const show = () => {
    reset.hidden = !isFiltered(view.state);
  };
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
    if (pressed) next.add(value);
    else next.delete(value);
    view.set({ [key]: next, active: -1 });
  };
  const counts = roundCounts(run, state.place);
  const mark = (symbol, fill) =>
    drawing(
      "svg",
      { viewBox: "0 0 12 12", width: 12, height: 12, "aria-hidden": "true" },
      markerShape(symbol, 6, 6, 4.4, fill),
    );
  const ring = drawing(
    "svg",
    { viewBox: "0 0 12 12", width: 12, height: 12, "aria-hidden": "true" },
    drawing("circle", {
      cx: 6,
      cy: 6,
      r: 4.6,
      fill: "none",
      stroke: color("ink"),
      "stroke-width": 1.6,
    }),
  );
  const count = (value) => element("span", { class: "faint" }, grouped(value));
  return [
    ...[1, 2, 3, 0].map((region) =>
      toggleButton(
        [mark("square", color(REGIONS[region])), REGIONS[region], count(counts?.regions[region])],
        state.regions.has(region),
        flip("regions", region),
        { "data-region": REGIONS[region] },
      ),
    ),
    element("span", { class: "divide" }),
    ...[1, 0, 2]
      .filter((type) => type < 2 || counts?.types[type])
      .map((type) =>
        toggleButton(
          [mark(SYMBOLS[type], color("faint")), TYPES[type], count(counts?.types[type])],
          state.types.has(type),
          flip("types", type),
          { "data-type": TYPES[type] },
        ),
      ),
    element("span", { class: "divide" }),
    toggleButton(
      [ring, "selected only"],
      state.selectedOnly,
      (pressed) => view.set({ selectedOnly: pressed, active: -1 }),
      { "data-selected": true },
    ),
  ];
}

function roundCounts(run, place) {
  const round = run.rounds.get(place);
  if (!round) return null;
  const regions = [0, 0, 0, 0],
    types = [0, 0, 0];
  round.task.forEach((task, row) => {
    regions[round.region[row]] += 1;
    types[run.type[task]] += 1;
  });
  return { regions, types };
}
