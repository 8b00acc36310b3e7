// Tables that sort, filter, turn pages and go to a CSV file.
//
// A column: {title, value(row), text(row)?, node(row)?, numeric?, csv?(row), descending?}.
// `value` sorts and goes to CSV, `text` is shown, `node` draws a cell that text cannot.

function makeTable(options) {
  const { caption, columns, rows, file, pageSize = 15, filterable = true, open = null } = options;
  const table = { rows, sort: options.sort || null, page: 0, query: "", shown: [] };
  const head = element(
    "tr",
    {},
    columns.map((column, i) => headCell(table, column, i, update)),
  );
  const body = element("tbody");
  const count = element("span", { class: "faint count" });
  const pager = element("div", { class: "pager" });
  const node = element(
    "div",
    { class: "table-block card" },
    element(
      "div",
      { class: "table-tools" },
      element("h3", {}, caption),
      count,
      filterable
        ? filterBox(caption, (query) => {
            table.query = query;
            table.page = 0;
            update();
          })
        : null,
      element(
        "button",
        { type: "button", class: "quiet", onclick: () => saveCsv(file, columns, table.shown) },
        "CSV",
      ),
    ),
    element(
      "div",
      { class: "scroll", tabindex: "0", role: "region", "aria-label": caption },
      element(
        "table",
        {},
        element("caption", { class: "visually-hidden" }, caption),
        element("thead", {}, head),
        body,
      ),
    ),
    pager,
  );
  const texts = filterable ? lazyTexts(columns) : null;

  function update() {
    table.shown = sorted(filtered(table.rows, table.query, texts), columns, table.sort);
    const pages = Math.max(1, Math.ceil(table.shown.length / pageSize));
    table.page = Math.min(table.page, pages - 1);
    const from = table.page * pageSize;
    const part = table.shown.slice(from, from + pageSize);
    body.replaceChildren(...part.map((row) => bodyRow(row, columns, open)));
    if (!part.length) {
      body.append(
        element(
          "tr",
          {},
          element(
            "td",
            { colspan: columns.length, class: "empty" },
            table.rows.length ? "Nothing matches the filter." : options.empty || "Nothing yet.",
          ),
        ),
      );
    }
    count.textContent =
      table.shown.length === table.rows.length
        ? plural(table.rows.length, "row")
        : `${grouped(table.shown.length)} of ${plural(table.rows.length, "row")}`;
    drawPager(pager, table, pages, from, part.length, update);
    [...head.children].forEach((cell, i) =>
      cell.setAttribute(
        "aria-sort",
        table.sort?.column === i ? (table.sort.descending ? "descending" : "ascending") : "none",
      ),
    );
  }

  update();
  return { node };
}

function headCell(table, column, index, update) {
  const press = () => {
    const first = column.descending ?? Boolean(column.numeric);
    const same = table.sort?.column === index;
    table.sort = { column: index, descending: same ? !table.sort.descending : first };
    table.page = 0;
    update();
  };
  return element(
    "th",
    { scope: "col", class: column.numeric ? "number" : null },
    element(
      "button",
      { type: "button", onclick: press, title: column.hint },
      foreign(column.title),
    ),
  );
}

function bodyRow(row, columns, open) {
  const cells = columns.map((column, i) => {
    const content = column.node ? column.node(row) : foreign(textOf(column, row));
    const shown =
      open && i === 0
        ? element("button", { type: "button", class: "link", onclick: () => open(row) }, content)
        : content;
    return element(
      i === 0 ? "th" : "td",
      { class: column.numeric ? "number" : null, scope: i === 0 ? "row" : null },
      shown,
    );
  });
  return element("tr", {}, cells);
}

function textOf(column, row) {
  if (column.text) return column.text(row);
  const value = column.value(row);
  return value === null || value === undefined ? DASH : String(value);
}

function filterBox(caption, onchange) {
  const input = element("input", {
    type: "search",
    placeholder: "Filter",
    class: "filter",
    "aria-label": `Filter ${caption}`,
    spellcheck: "false",
  });
  input.addEventListener(
    "input",
    debounce(150, () => onchange(input.value.trim().toLowerCase())),
  );
  return input;
}

// The lower-case text of a row's worded columns, made when it is first searched.
function lazyTexts(columns) {
  const worded = columns.filter((column) => !column.numeric);
  const texts = new Map();
  return (row) => {
    if (!texts.has(row)) {
      texts.set(
        row,
        worded
          .map((column) => String(column.value(row) ?? ""))
          .join("\n")
          .toLowerCase(),
      );
    }
    return texts.get(row);
  };
}

function filtered(rows, query, texts) {
  if (!query) return rows;
  const words = query.split(/\s+/);
  return rows.filter((row) => words.every((word) => texts(row).includes(word)));
}

function sorted(rows, columns, sort) {
  if (!sort) return rows;
  const value = columns[sort.column].value;
  const keys = rows.map(value);
  const missing = (key) => key === null || key === undefined || Number.isNaN(key);
  const order = keys
    .map((_, i) => i)
    .sort((a, b) => {
      if (missing(keys[a]) || missing(keys[b])) return missing(keys[a]) - missing(keys[b]) || a - b;
      const sign =
        typeof keys[a] === "string" && typeof keys[b] === "string"
          ? collator.compare(keys[a], keys[b])
          : (keys[a] > keys[b]) - (keys[a] < keys[b]);
      return (sort.descending ? -sign : sign) || a - b;
    });
  return order.map((i) => rows[i]);
}

const collator = new Intl.Collator("en", { numeric: true });

function drawPager(pager, table, pages, from, length, update) {
  pager.hidden = pages < 2;
  if (pages < 2) return;
  const step = (label, sign, target) =>
    element(
      "button",
      {
        type: "button",
        class: "quiet",
        "aria-label": label,
        disabled: target < 0 || target >= pages || target === table.page,
        onclick: () => {
          table.page = target;
          update();
          refocus(pager, label);
        },
      },
      sign,
    );
  pager.replaceChildren(
    step("First page", "«", 0),
    step("Previous page", "‹", table.page - 1),
    element(
      "span",
      { class: "faint" },
      `${grouped(from + 1)}–${grouped(from + length)} of ${grouped(table.shown.length)}`,
    ),
    step("Next page", "›", table.page + 1),
    step("Last page", "»", pages - 1),
  );
}

function refocus(pager, label) {
  const button = [...pager.querySelectorAll("button")].find(
    (b) => b.getAttribute("aria-label") === label,
  );
  (button?.disabled ? pager.querySelector("button:not(:disabled)") : button)?.focus();
}

function saveCsv(file, columns, rows) {
  download(`${file}.csv`, csvText(columns, rows), "text/csv;charset=utf-8");
  announce(`${plural(rows.length, "row")} saved as ${file}.csv`);
}

function csvText(columns, rows) {
  const lines = [columns.map((column) => csvCell(column.title)).join(",")];
  for (const row of rows) {
    lines.push(columns.map((column) => csvCell((column.csv || column.value)(row))).join(","));
  }
  return `${lines.join("\r\n")}\r\n`;
}

// A spreadsheet takes text that begins so for a formula, also behind space and in the wide forms of
// East Asia; an apostrophe keeps it text. `csv_text.py` has the same.
function csvCell(value) {
  if (value === null || value === undefined || Number.isNaN(value)) return "";
  if (typeof value === "number") return String(value);
  let text = String(value);
  const isFormula =
    /^(?:[\s\u0000-\u0020\ufeff\u200b-\u200f]*[=+\-@\uff1d\uff0b\uff0d\uff20]|[\t\r\n])/;
  const isNumber = /^[+-]?(\d+\.?\d*|\.\d+)(e[+-]?\d+)?$/i;
  if (isFormula.test(text) && !isNumber.test(text)) text = `'${text}`;
  return /[",\r\n]/.test(text) ? `"${text.replaceAll('"', '""')}"` : text;
}

// A number with a bar under it: how it compares with the largest of its column.
function barCell(value, largest, text) {
  const share = known(value) && largest > 0 ? Math.max(0, Math.min(1, value / largest)) : 0;
  return element(
    "span",
    { class: "bar-cell", style: { "--share": `${100 * share}%` } },
    element("span", {}, text),
  );
}
