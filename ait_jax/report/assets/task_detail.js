// The opened task, beside the map: its numbers by round and where its uncertainty comes from.

function startDetail(run, view) {
  const panel = byId("detail");
  let opener = null;
  const close = () => {
    const task = view.state.task;
    view.set({ task: -1, active: view.state.active === task ? -1 : view.state.active });
    if (opener?.isConnected) opener.focus();
    opener = null;
  };
  document.addEventListener("keydown", (event) => {
    if (event.key === "Escape" && view.state.task >= 0) close();
  });
  view.on(async (changed) => {
    if (!changed.has("task") && !changed.has("place")) return;
    const { task, place } = view.state;
    const was = panel.hidden;
    panel.hidden = task < 0;
    document.documentElement.classList.toggle("with-detail", task >= 0);
    if (was !== panel.hidden) {
      if (was) opener = document.activeElement;
      dispatchEvent(new Event("resize")); // charts fit the room that is left
    }
    if (task < 0) return;
    const parts = await detailParts(run, task, place, close).catch((error) => [
      element("p", {}, String(error)),
    ]);
    if (view.state.task !== task || view.state.place !== place) return;
    const kept = changed.has("task") ? 0 : panel.scrollTop;
    panel.replaceChildren(...parts.filter(Boolean));
    panel.scrollTop = kept;
    if (was) panel.querySelector("h2").focus({ preventScroll: true });
    if (changed.has("task")) announce(`${run.names[task]} opened`);
  });
}

async function detailParts(run, task, place, close) {
  const history = await historyOf(run, task);
  const chunk = run.chunkOf.get(task);
  const detail = chunk === undefined ? null : (await readBlock(`details-${chunk}`))[String(task)];
  return [
    detailHead(run, task, close),
    historyBlock(run, history, place),
    ...(detail ? detailBody(run, detail, place) : [leftOut(run, task)]),
  ];
}

function detailHead(run, task, close) {
  return element(
    "div",
    { class: "detail-head" },
    element(
      "div",
      {},
      element("h2", { tabindex: "-1" }, foreignName(run.names[task])),
      element(
        "p",
        { class: "faint" },
        foreign(categoryName(run, task)),
        ` · ${typeName(run, task)} · ${SPLITS[run.split[task]] ?? ""}`,
        whenTrained(run, task),
      ),
    ),
    element(
      "button",
      { type: "button", class: "quiet", "aria-label": "Close the task", onclick: close },
      "Close",
    ),
  );
}

function whenTrained(run, task) {
  const first = run.head.rounds.find((round) => round.trained?.includes(task));
  const chosen = run.head.rounds.find((round) => round.selected?.includes(task));
  return [
    chosen ? ` · selected in round ${chosen.round}` : "",
    first ? ` · trained on from round ${first.round}` : "",
  ].join("");
}

function historyBlock(run, history, place) {
  if (!history.length) return element("p", { class: "faint" }, "This task was not scored.");
  const rows = history.map((point) =>
    element(
      "tr",
      { class: point.place === place ? "now" : null },
      element("th", { scope: "row" }, roundName(run, point.place)),
      element("td", { class: "number" }, score(point.uncertainty)),
      element("td", { class: "number" }, score(point.probability)),
      element(
        "td",
        {},
        regionBadge(point.region),
        point.selected
          ? element(
              "span",
              { class: "ring", title: "selected" },
              element("span", { class: "visually-hidden" }, ", selected"),
            )
          : null,
      ),
    ),
  );
  const table = element(
    "table",
    {},
    element(
      "thead",
      {},
      element(
        "tr",
        {},
        ["", "uncertainty", "probability", "region"].map((title, i) =>
          element("th", { scope: "col", class: i === 1 || i === 2 ? "number" : null }, title),
        ),
      ),
    ),
    element("tbody", {}, rows),
  );
  const block = element("div", { class: "history" }, element("div", { class: "scroll" }, table));
  if (history.length > 1) {
    const chart = element("div", {
      class: "chart small",
      role: "img",
      "aria-label": "Prompt uncertainty by round",
    });
    block.append(chart);
    requestAnimationFrame(() =>
      draw(chart, () => historyChart(run, history), "uncertainty-by-round"),
    );
  }
  return block;
}

function historyChart(run, history) {
  const figure = curvesOf({
    series: [
      {
        name: "prompt uncertainty",
        x: history.map((p) => run.head.rounds[p.place].round),
        y: history.map((p) => p.uncertainty),
        color: color("focus"),
      },
    ],
    xTitle: "round",
    yTitle: "uncertainty",
    percentage: true,
    digits: 4,
    ticks: {
      values: history.map((p) => run.head.rounds[p.place].round),
      texts: history.map((p) => String(run.head.rounds[p.place].round)),
    },
  });
  figure.layout.yaxis.nticks = 4;
  figure.layout.margin = { l: 48, r: 14, t: 8, b: 36 };
  return figure;
}

function regionBadge(region) {
  return element("span", { class: `region ${REGIONS[region]}` }, REGIONS[region]);
}

function leftOut(run, task) {
  const line = `ait-jax tasks --run ${shellWord(run.head.title)} ${shellWord(run.names[task])}`;
  return element(
    "div",
    { class: "left-out" },
    element("h3", {}, "Instruction"),
    element("p", { class: "instruction", dir: "auto" }, foreign(run.instructions[task])),
    element(
      "p",
      { class: "faint" },
      run.head.details_note
        ? foreign(run.head.details_note)
        : "Its prompts and answers were left out of this page to keep it small.",
    ),
    element(
      "div",
      { class: "command" },
      element(
        "div",
        { class: "command-head" },
        "See it in a terminal",
        copyButton(line, "command"),
      ),
      element("pre", {}, foreign(line)),
    ),
  );
}

// A name from elsewhere must stay one word of the command that someone pastes.
function shellWord(text) {
  const plain = String(text).replace(/[\u0000-\u001f\u007f]/g, "?");
  return /^[\w./@:+,-]+$/.test(plain) && !plain.startsWith("-")
    ? plain
    : `'${plain.replaceAll("'", "'\\''")}'`;
}

function detailBody(run, detail, place) {
  const numbersOfRounds = Object.keys(detail.rounds || {});
  const wanted = String(run.head.rounds[place]?.round);
  const shown = numbersOfRounds.includes(wanted) ? wanted : numbersOfRounds.at(-1);
  const round = detail.rounds?.[shown];
  if (!round)
    return [
      element("h3", {}, "Instruction"),
      element("p", { class: "instruction", dir: "auto" }, foreign(detail.definition)),
      examplesList(detail.examples, "examples"),
    ];
  const other = shown === wanted ? "" : ` (round ${shown}; round ${wanted} did not score it)`;
  const instances = round.instances || [],
    forms = round.forms || [];
  return [
    element("h3", {}, `Instruction, word by word${other}`),
    ...shadedInstruction(detail.definition, round.word_effects),
    examplesList(detail.examples, "examples in the prompt"),
    element("h3", {}, plural(forms.length, "perturbed form")),
    element(
      "p",
      { class: "faint" },
      "The change is the mean over instances of |p original − p form|; " +
        "prompt uncertainty is its mean over forms.",
    ),
    ...formsList(detail, forms),
    element("h3", {}, "Answers and their likelihood"),
    element(
      "p",
      { class: "faint" },
      "The model answers once, under the original instruction; the numbers say how likely " +
        "that same answer is under every form.",
    ),
    ...instances.map((instance, i) => instanceCard(instance, i + 1)),
  ];
}
