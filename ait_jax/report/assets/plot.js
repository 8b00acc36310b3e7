// Charts: plotly is unpacked after the first paint, and every chart follows the theme.

let plotlyPromise = null,
  plotlyText = null;
const charts = new Map();

// Unpacking needs no attention; the page's first data are read meanwhile.
function unpackPlotly() {
  plotlyText = plotlyText || readText("plotly");
  return plotlyText;
}

// The policy of this page knows plotly's hash, so an element with any other text would not run.
async function loadPlotly() {
  const script = document.createElement("script");
  script.textContent = await unpackPlotly();
  await nextPaint();
  performance.mark("plotly unpacked");
  document.head.append(script);
  performance.mark("plotly started");
  if (!window.Plotly) throw new Error("plotly could not be started in this browser.");
  return window.Plotly;
}

function plotly() {
  plotlyPromise = plotlyPromise || loadPlotly();
  return plotlyPromise;
}

// Plotly reads a small HTML in labels. Direction controls cannot be isolated in its text.
function plotText(text, most = 48) {
  const plain = String(text ?? "").replace(
    /[\u0000-\u001f\u007f\u200e\u200f\u2028-\u202e\u2066-\u2069]/g,
    " ",
  );
  const cut = plain.length > most ? `${plain.slice(0, most - 1)}…` : plain;
  // %{...} would be a place for a value in hover texts.
  return cut
    .replaceAll("%{", "% {")
    .replaceAll("&", "&amp;")
    .replaceAll("<", "&lt;")
    .replaceAll(">", "&gt;");
}

let webgl = null;
function hasWebgl() {
  if (webgl === null) {
    const context = document.createElement("canvas").getContext("webgl");
    webgl = Boolean(context);
    context?.getExtension("WEBGL_lose_context")?.loseContext();
  }
  return webgl;
}

function forgetWebgl(node) {
  webgl = false;
  window.Plotly.purge(node);
}

function axis(changes = {}) {
  return {
    gridcolor: color("grid"),
    linecolor: color("line"),
    zerolinecolor: color("grid"),
    tickfont: { color: color("faint"), size: 12 },
    automargin: true,
    showline: true,
    ticks: "",
    ...changes,
    title: { text: changes.title || "", font: { color: color("faint"), size: 12.5 }, standoff: 10 },
  };
}

function layoutOf(changes) {
  return {
    paper_bgcolor: "rgba(0,0,0,0)",
    plot_bgcolor: "rgba(0,0,0,0)",
    font: {
      family: "system-ui, -apple-system, 'Segoe UI', Roboto, 'DejaVu Sans', sans-serif",
      size: 12.5,
      color: color("ink"),
    },
    margin: { l: 52, r: 16, t: 12, b: 48 },
    showlegend: false,
    hovermode: "closest",
    dragmode: matchMedia("(pointer: coarse)").matches ? false : "zoom",
    hoverlabel: {
      bgcolor: color("card"),
      bordercolor: color("line"),
      align: "left",
      font: { color: color("ink"), size: 12.5 },
    },
    transition: { duration: 0 },
    ...changes,
  };
}

const CONFIG = {
  displaylogo: false,
  responsive: true,
  typesetMath: false,
  showTips: false,
  // Named one by one: some of plotly's own would send the data to a server.
  modeBarButtons: [["toImage"], ["zoom2d", "pan2d", "zoomIn2d", "zoomOut2d", "resetScale2d"]],
  displayModeBar: matchMedia("(pointer: coarse)").matches ? false : "hover",
  plotlyServerURL: "",
  topojsonURL: "",
};

// make() returns {traces, layout}; called again when the theme changes.
async function draw(node, make, file) {
  charts.set(node, make);
  const library = await plotly();
  if (charts.get(node) !== make || !node.isConnected) return;
  const { traces, layout } = make();
  const options = { ...CONFIG, toImageButtonOptions: { filename: file || "chart", scale: 2 } };
  await library.react(node, traces, layoutOf(layout), options);
}

function forgetChart(node) {
  charts.delete(node);
  if (window.Plotly) window.Plotly.purge(node);
}

onTheme(() => {
  if (!window.Plotly) return;
  for (const [node, make] of charts) {
    if (node.isConnected) draw(node, make);
    else charts.delete(node);
  }
});

// Draws when the chart comes near the window: what nobody looks at costs nothing.
function drawWhenNear(node, action) {
  const observer = new IntersectionObserver(
    (entries) => {
      if (!entries.some((entry) => entry.isIntersecting)) return;
      observer.disconnect();
      action();
    },
    { rootMargin: "400px" },
  );
  observer.observe(node);
}
