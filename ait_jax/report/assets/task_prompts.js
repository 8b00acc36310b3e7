// A task's instruction under the model's eyes: which words matter, and every perturbed form.

// Every word shaded by what losing it does to the likelihood of the answers.
function shadedInstruction(definition, effects) {
  const pieces = definition.split(/(\s+)/);
  const knownEffects = (effects || []).filter(known);
  const largest = Math.max(1e-9, ...knownEffects.map(Math.abs));
  let word = 0;
  const nodes = pieces.map((piece) => {
    if (!piece || /^\s+$/.test(piece)) return piece;
    const effect = effects?.[word];
    word += 1;
    if (!known(effect))
      return element("span", { class: "word never", title: "in every perturbed form" }, piece);
    const share = Math.round((100 * Math.abs(effect)) / largest);
    return element(
      "span",
      {
        class: `word ${effect >= 0 ? "moves" : "calms"}`,
        style: { "--share": `${share * 0.6}%` },
        title: `without it the likelihood moves by ${signed(effect, 4)}`,
      },
      piece,
    );
  });
  const text = element("p", { class: "instruction", dir: "auto" }, nodes);
  if (!knownEffects.length) return [text];
  return [text, effectLegend(largest), tellingWords(definition, effects)];
}

function effectLegend(largest) {
  return element(
    "div",
    { class: "effect-legend faint" },
    element("span", {}, `−${short(largest)}`),
    element("span", { class: "effect-scale", "aria-hidden": "true" }),
    element("span", {}, `+${short(largest)}`),
    element("span", {}, "how much more the answers' likelihood moves in forms without the word; "),
    element("span", { class: "word never" }, "never dropped"),
  );
}

// The same in words, for those who do not see the shades.
function tellingWords(definition, effects) {
  const words = definition.split(/\s+/).filter(Boolean);
  const ranked = effects
    .map((effect, i) => [effect, words[i]])
    .filter(([effect, word]) => known(effect) && effect > 0 && word)
    .sort((a, b) => b[0] - a[0])
    .slice(0, 5);
  if (!ranked.length) return "";
  return element(
    "p",
    { class: "telling" },
    element("span", { class: "faint" }, "Most telling: "),
    ranked
      .map(([effect, word], i) => [
        i ? ", " : "",
        foreign(word, { class: "strong" }),
        element("span", { class: "faint" }, ` ${signed(effect, 3)}`),
      ])
      .flat(),
  );
}

// The perturbed forms, the one that moves the answers most first and open.
function formsList(detail, forms) {
  const order = forms
    .map((_, j) => j)
    .sort((a, b) => (forms[b].change ?? -1) - (forms[a].change ?? -1) || a - b);
  const largest = Math.max(1e-9, ...forms.map((form) => form.change || 0));
  return order.map((j, place) => {
    const form = forms[j];
    const node = element("details", { class: "form" });
    const summary = element(
      "summary",
      {},
      element("span", { class: "form-name" }, `form ${j + 1}`),
      barCell(form.change, largest, fixed(form.change, 4)),
      element("span", { class: "faint form-note" }, formNote(detail, form)),
    );
    node.append(summary);
    const fill = () => {
      if (node.childElementCount > 1) return;
      node.append(
        element("p", { class: "instruction diff", dir: "auto" }, diffNodes(formDiff(detail, form))),
        form.examples ? examplesList(form.examples, "its examples") : "",
      );
    };
    node.addEventListener("toggle", () => {
      if (node.open) fill();
    });
    if (place === 0) {
      fill();
      node.open = true;
    }
    return node;
  });
}

function formDiff(detail, form) {
  return form.dropped
    ? droppedDiff(detail.definition, form.definition, form.dropped)
    : wordDiff(detail.definition, form.definition);
}

function formNote(detail, form) {
  const words = detail.definition.split(/\s+/).filter(Boolean).length;
  const diff = formDiff(detail, form);
  const lost = diff.filter((part) => part.kind === "dropped").length;
  const parts = [];
  if (lost) parts.push(`${plural(lost, "word")} of ${grouped(words)} dropped`);
  if (diff.some((part) => part.kind === "added")) parts.push("words added");
  if (form.examples) parts.push("other examples");
  return parts.join(", ") || "as the original";
}

function examplesList(examples, label) {
  if (!examples?.length) return "";
  return element(
    "details",
    { class: "examples" },
    element("summary", {}, `${label} (${examples.length})`),
    examples.map((example) =>
      element(
        "dl",
        { class: "pair" },
        element("dt", {}, "input"),
        element("dd", {}, foreign(example.input)),
        element("dt", {}, "output"),
        element("dd", {}, foreign(example.output)),
      ),
    ),
  );
}

// One instance: what was asked, what is right, what the model said, how likely it found that.
function instanceCard(instance, number) {
  return element(
    "article",
    { class: "instance" },
    element("h4", {}, `Instance ${number} `, foreign(instance.id, { class: "faint id" })),
    element(
      "dl",
      { class: "pair" },
      element("dt", {}, "input"),
      element("dd", { class: "clip" }, foreign(instance.input)),
      element("dt", {}, instance.outputs?.length > 1 ? "references" : "reference"),
      element(
        "dd",
        {},
        (instance.outputs || []).flatMap((text, i) => [
          i ? element("span", { class: "faint" }, " | ") : "",
          foreign(text),
        ]),
      ),
      element("dt", {}, "answer"),
      element(
        "dd",
        { class: "answer" },
        instance.answer === ""
          ? element("span", { class: "faint" }, "(empty)")
          : foreign(instance.answer),
      ),
    ),
    heatStrip(instance.p || []),
  );
}

// The answer's likelihood under the original instruction (0) and every form, as shade and number.
function heatStrip(p) {
  const cells = p.map((value, j) =>
    element(
      "td",
      {
        class: ["heat", value > 0.6 ? "strong-heat" : "", j === 0 ? "original" : ""].join(" "),
        style: { "--share": `${known(value) ? Math.round(100 * value) : 0}%` },
        title:
          j === 0
            ? "under the original instruction"
            : `under form ${j}: ${signed(value - p[0], 4)}`,
      },
      known(value) ? value.toFixed(3).replace(/^0/, "") : DASH,
    ),
  );
  const heads = p.map((_, j) => element("th", { scope: "col" }, j === 0 ? "original" : String(j)));
  return element(
    "div",
    {
      class: "scroll strip",
      tabindex: "0",
      role: "region",
      "aria-label": "Likelihood of the answer under every form",
    },
    element(
      "table",
      {},
      element("thead", {}, element("tr", {}, heads)),
      element("tbody", {}, element("tr", {}, cells)),
    ),
  );
}
