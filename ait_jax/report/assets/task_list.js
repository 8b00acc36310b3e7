// The tasks that match, beside the map: only the rows in sight exist; arrow keys walk through all.

const ROW_HEIGHT = 46;

function makeTaskList(run, view, map) {
  const list = { run, view, map, round: null, before: null, rows: [], count: element("strong") };
  list.inner = element("div", { class: "list-inner", role: "presentation" });
  list.box = element("div", {
    class: "list",
    id: "task-list",
    role: "listbox",
    tabindex: "0",
    "aria-label": "Matching tasks; Enter opens one",
    onscroll: () => drawRows(list),
    onkeydown: (event) => listKey(list, event),
  });
  list.box.append(list.inner);
  const order = selectBox("Order of the list", ORDERS, view.state.order, (value) =>
    view.set({ order: value }),
  );
  list.node = element(
    "div",
    { class: "map-right" },
    element("div", { class: "list-head" }, list.count, order),
    list.box,
  );
  view.on((changed) => {
    if (changed.has("task") || changed.has("active")) drawRows(list);
  });
  new ResizeObserver(() => drawRows(list)).observe(list.box);
  return {
    node: list.node,
    show(round, before, mask) {
      Object.assign(list, { round, before });
      list.rows = orderedRows(run, round, before, mask, view.state.order);
      list.count.textContent =
        list.rows.length === round.task.length
          ? plural(list.rows.length, "task")
          : `${grouped(list.rows.length)} of ${plural(round.task.length, "task")}`;
      list.inner.style.height = `${Math.max(1, list.rows.length) * ROW_HEIGHT}px`;
      drawRows(list);
    },
  };
}

function drawRows(list) {
  if (!list.round) return;
  const { box, rows } = list;
  if (!rows.length) {
    list.inner.replaceChildren(
      element("p", { class: "faint empty" }, "No task matches. Reset brings all back."),
    );
    box.removeAttribute("aria-activedescendant");
    return;
  }
  const from = Math.max(0, Math.floor(box.scrollTop / ROW_HEIGHT) - 4);
  const to = Math.min(rows.length, Math.ceil((box.scrollTop + box.clientHeight) / ROW_HEIGHT) + 4);
  const parts = [];
  for (let i = from; i < to; i += 1) parts.push(listRow(list, i));
  list.inner.replaceChildren(...parts);
  const active = parts.find((part) => part.classList.contains("active"));
  if (active) box.setAttribute("aria-activedescendant", active.id);
  else box.removeAttribute("aria-activedescendant");
}

function listRow(list, i) {
  const { run, view, round } = list;
  const row = list.rows[i],
    task = round.task[row],
    region = REGIONS[round.region[row]];
  const active = view.state.active === task,
    opened = view.state.task === task;
  return element(
    "div",
    {
      class: `list-row${active ? " active" : ""}${opened ? " opened" : ""}`,
      role: "option",
      id: `option-${task}`,
      "aria-selected": String(opened),
      "aria-setsize": list.rows.length,
      "aria-posinset": i + 1,
      style: { top: `${i * ROW_HEIGHT}px` },
      onclick: () => view.set({ task, active: task }),
    },
    drawing(
      "svg",
      { viewBox: "0 0 18 18", width: 18, height: 18, "aria-hidden": "true" },
      round.selected[task]
        ? drawing("circle", {
            cx: 9,
            cy: 9,
            r: 7.6,
            fill: "none",
            stroke: "var(--ink)",
            "stroke-width": 1.4,
          })
        : "",
      markerShape(SYMBOLS[run.type[task]], 9, 9, 4.2, `var(--${region})`),
    ),
    element(
      "div",
      { class: "list-text" },
      foreign(run.names[task], { class: "list-name" }),
      element(
        "span",
        { class: "faint list-note" },
        `${typeName(run, task)} · ${region} · `,
        foreign(categoryName(run, task)),
      ),
    ),
    element(
      "div",
      { class: "list-numbers number" },
      element("span", {}, score(round.uncertainty[row])),
      element("span", { class: "faint" }, score(round.probability[row])),
    ),
  );
}

function listKey(list, event) {
  const { view, round, rows } = list;
  if (!rows.length || event.altKey || event.ctrlKey || event.metaKey) return;
  const page = Math.max(1, Math.floor(list.box.clientHeight / ROW_HEIGHT) - 1);
  const at = rows.findIndex((row) => round.task[row] === view.state.active);
  const steps = {
    ArrowDown: 1,
    ArrowUp: -1,
    PageDown: page,
    PageUp: -page,
    Home: -rows.length,
    End: rows.length,
  };
  if (event.key === "Enter" || event.key === " ") {
    event.preventDefault();
    if (at >= 0) view.set({ task: view.state.active });
    byId("detail").querySelector("h2")?.focus();
    return;
  }
  if (!(event.key in steps)) return;
  event.preventDefault();
  const next =
    at < 0
      ? steps[event.key] < 0
        ? rows.length - 1
        : 0
      : Math.max(0, Math.min(rows.length - 1, at + steps[event.key]));
  const top = next * ROW_HEIGHT;
  if (top < list.box.scrollTop) list.box.scrollTop = top;
  if (top + ROW_HEIGHT > list.box.scrollTop + list.box.clientHeight)
    list.box.scrollTop = top + ROW_HEIGHT - list.box.clientHeight;
  const task = round.task[rows[next]];
  // With a task open, walking through the list turns its pages.
  view.set(view.state.task >= 0 ? { active: task, task } : { active: task });
}
