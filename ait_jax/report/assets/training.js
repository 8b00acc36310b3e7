// Every round's training: loss and others by step, and dev ROUGE-L with the step that was kept.

const TRAINING_VALUES = [
  ["loss", "loss"],
  ["accuracy", "accuracy"],
  ["reward", "reward"],
  ["learning_rate", "learning rate"],
];

function drawTraining(node, head) {
  const training = (head.training || []).filter((round) => round.step?.length);
  if (!training.length) {
    node.replaceChildren(element("p", { class: "faint" }, "No training steps were recorded."));
    return;
  }
  const values = TRAINING_VALUES.filter(([key]) =>
    training.some((round) => round[key]?.some(known)),
  );
  const view = { value: values[0]?.[0] };
  const left = element("div", { class: "chart", role: "img", "aria-label": "Training by step" });
  const hasDev = training.some((round) => round.dev?.step?.length);
  const right = hasDev
    ? element("div", { class: "chart", role: "img", "aria-label": "dev ROUGE-L by step" })
    : null;
  const show = () => draw(left, () => stepChart(training, view.value), "training");
  const key = element("div", { class: "chips" });
  const fill = () =>
    key.replaceChildren(
      ...training.map((round, i) =>
        element(
          "span",
          { class: "key" },
          swatch(roundLook(i, training.length)),
          `round ${round.round}`,
        ),
      ),
    );
  fill();
  onTheme(fill);
  node.replaceChildren(
    element(
      "div",
      { class: "controls" },
      choice("Value", "training-value", values, view.value, (value) => {
        view.value = value;
        show();
      }),
      key,
    ),
    element("div", { class: right ? "two" : null }, left, right || ""),
  );
  drawWhenNear(node, () => {
    show();
    if (right) draw(right, () => devChart(training), "dev");
  });
}

// Later rounds darker (lighter in the dark): their order is seen without reading.
function roundLook(i, count) {
  const share = count < 2 ? 1 : i / (count - 1);
  const from = rgb(color("round-first")),
    to = rgb(color("round-last"));
  const mixed = from.map((value, k) => Math.round(value + share * (to[k] - value)));
  return {
    color: `#${mixed.map((value) => value.toString(16).padStart(2, "0")).join("")}`,
    symbol: SERIES_SYMBOLS[i % 8],
  };
}

function rgb(hex) {
  return [1, 3, 5].map((i) => parseInt(hex.slice(i, i + 2), 16));
}

function stepChart(training, value) {
  const title = Object.fromEntries(TRAINING_VALUES)[value];
  return curvesOf({
    series: training.map((round, i) => ({
      name: `round ${round.round}`,
      x: round.step,
      y: round[value] || [],
      mode: "lines",
      width: 1.8,
      color: roundLook(i, training.length).color,
    })),
    xTitle: "step",
    yTitle: title,
    digits: value === "learning_rate" ? 6 : 3,
    percentage: true,
  });
}

function devChart(training) {
  const series = training
    .filter((round) => round.dev?.step?.length)
    .map((round) => {
      const i = training.indexOf(round),
        look = roundLook(i, training.length);
      return {
        ...look,
        name: `round ${round.round}`,
        x: round.dev.step,
        y: round.dev.rougeL,
        notes: round.dev.step.map((step) => (step === round.chosen_step ? "kept" : "")),
        width: 1.8,
      };
    });
  const figure = curvesOf({
    series,
    xTitle: "step (ringed: the checkpoint that was kept)",
    yTitle: "dev ROUGE-L",
    percentage: true,
  });
  const kept = training.flatMap((round) => {
    const at = round.dev?.step?.indexOf(round.chosen_step) ?? -1;
    return at < 0 ? [] : [[round.chosen_step, round.dev.rougeL[at]]];
  });
  figure.traces.push({
    type: "scatter",
    mode: "markers",
    x: kept.map((k) => k[0]),
    y: kept.map((k) => k[1]),
    hoverinfo: "skip",
    cliponaxis: false,
    marker: {
      symbol: "circle-open",
      size: 15,
      color: color("ink"),
      line: { width: 1.8, color: color("ink") },
    },
  });
  return figure;
}
