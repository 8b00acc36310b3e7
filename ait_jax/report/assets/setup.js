// Configuration and commands, to read and to copy.

const FOOTER = "one file, no network · drawn with plotly.js (MIT)";

function drawSetup(node, head) {
  const commands = (head.commands || []).map((command) =>
    element(
      "div",
      { class: "command" },
      element(
        "div",
        { class: "command-head" },
        foreign(command.what),
        copyButton(command.line, "command"),
      ),
      element("pre", { tabindex: "0" }, foreign(command.line)),
    ),
  );
  const config = head.config
    ? element(
        "details",
        { class: "card config" },
        element(
          "summary",
          {},
          element("strong", {}, "config.gin"),
          element("span", { class: "faint" }, ` ${plural(head.config.split("\n").length, "line")}`),
        ),
        element("div", { class: "command-head end" }, copyButton(head.config, "configuration")),
        element("pre", { tabindex: "0" }, foreign(head.config)),
      )
    : null;
  node.replaceChildren(
    element(
      "div",
      { class: "card" },
      commands.length ? commands : element("p", { class: "faint" }, "No commands were recorded."),
    ),
    config || "",
  );
}
