// Elements are made here. Text goes in as text nodes: nothing in this page parses markup.

function element(tag, attributes = {}, ...children) {
  const node = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (value === null || value === undefined || value === false) continue;
    if (name.startsWith("on")) node.addEventListener(name.slice(2), value);
    else if (name === "style")
      for (const [k, v] of Object.entries(value)) node.style.setProperty(k, v);
    else node.setAttribute(name, value === true ? "" : value);
  }
  node.append(...children.flat().filter((child) => child !== null && child !== undefined));
  return node;
}

// Text from tasks, models or files: isolated, so that its writing direction stays its own.
function foreign(text, attributes = {}) {
  return element("bdi", attributes, String(text ?? ""));
}

// A name that may break after its underscores and slashes; its text stays the name.
function foreignName(name, attributes = {}) {
  const parts = String(name ?? "").split(/(?<=[_/])/);
  return element(
    "bdi",
    attributes,
    parts.flatMap((part, i) => (i ? [element("wbr"), part] : [part])),
  );
}

function drawing(tag, attributes = {}, ...children) {
  const node = document.createElementNS("http://www.w3.org/2000/svg", tag);
  for (const [name, value] of Object.entries(attributes)) node.setAttribute(name, value);
  node.append(...children);
  return node;
}

function byId(id) {
  return document.getElementById(id);
}

function bodyOf(section) {
  return byId(section).querySelector("[data-body]");
}

function debounce(milliseconds, action) {
  let timer = 0;
  return (...values) => {
    clearTimeout(timer);
    timer = setTimeout(() => action(...values), milliseconds);
  };
}

function nextPaint() {
  // A hidden tab gets no frames, so a timer stands in for one.
  return new Promise((resolve) => {
    const timer = setTimeout(resolve, 100);
    requestAnimationFrame(() =>
      setTimeout(() => {
        clearTimeout(timer);
        resolve();
      }),
    );
  });
}

function announce(text) {
  byId("announcements").textContent = text;
}

function toggleButton(label, pressed, onchange, attributes = {}) {
  const button = element(
    "button",
    {
      type: "button",
      class: "chip",
      "aria-pressed": String(pressed),
      ...attributes,
      onclick: () => {
        const now = button.getAttribute("aria-pressed") !== "true";
        button.setAttribute("aria-pressed", String(now));
        onchange(now);
      },
    },
    ...[label].flat(),
  );
  return button;
}

// One of a few: radio buttons that look like one control; arrow keys work as in any radio group.
function choice(legend, name, options, value, onchange) {
  const inputs = options.map(([key, text]) =>
    element(
      "label",
      {},
      element("input", {
        type: "radio",
        name,
        value: key,
        checked: key === value,
        onchange: () => onchange(key),
      }),
      element("span", {}, text),
    ),
  );
  return element(
    "fieldset",
    { class: "choice" },
    element("legend", { class: "visually-hidden" }, legend),
    inputs,
  );
}

function selectBox(label, options, value, onchange) {
  const select = element(
    "select",
    { "aria-label": label, onchange: () => onchange(select.value) },
    options.map(([key, text]) => element("option", { value: key, selected: key === value }, text)),
  );
  return select;
}

function copyButton(text, what) {
  const button = element(
    "button",
    {
      type: "button",
      class: "quiet",
      "aria-label": `Copy ${what}`,
      onclick: async () => {
        const done = await copy(text);
        button.textContent = done ? "Copied" : "Press Ctrl+C";
        announce(done ? `${what} copied` : "Copying is not allowed here");
        setTimeout(() => {
          button.textContent = "Copy";
        }, 1600);
      },
    },
    "Copy",
  );
  return button;
}

async function copy(text) {
  try {
    await navigator.clipboard.writeText(text);
    return true;
  } catch (error) {
    // The clipboard needs a secure page in some browsers; the old way works from disk.
    const area = element("textarea", { class: "visually-hidden", "aria-hidden": "true" });
    area.value = text;
    document.body.append(area);
    area.select();
    const done = document.execCommand("copy");
    area.remove();
    return done;
  }
}

function download(name, text, type) {
  const url = URL.createObjectURL(new Blob([text], { type }));
  const link = element("a", { href: url, download: name });
  document.body.append(link);
  link.click();
  link.remove();
  setTimeout(() => URL.revokeObjectURL(url), 10000);
}

// A page that cannot be drawn says so at its top.
function orSayWhyNot(drawn) {
  drawn.catch((error) => {
    byId("main").prepend(
      element(
        "p",
        { class: "failure", role: "alert" },
        `This page could not draw itself: ${error.message}. It needs a browser from 2023 or later.`,
      ),
    );
    throw error;
  });
}
