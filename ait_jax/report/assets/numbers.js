// Numbers as they are written in this page; a dash where there is none.

const DASH = "–";

function known(value) {
  return value !== null && value !== undefined && Number.isFinite(value);
}

function fixed(value, digits = 1) {
  return known(value) ? value.toFixed(digits) : DASH;
}

function signed(value, digits = 1) {
  if (!known(value)) return DASH;
  const text = value.toFixed(digits);
  return Number(text) > 0 ? `+${text}` : text.replace("-", "−");
}

// Three significant digits, never an exponent for what people read in a table.
function short(value) {
  if (!known(value)) return DASH;
  const size = Math.abs(value);
  if (size === 0) return "0";
  if (size >= 1e6 || size < 1e-5) return value.toExponential(2);
  if (size >= 1000) return grouped(Math.round(value));
  return String(Number(value.toPrecision(3)));
}

// Scores between 0 and 1: four places, so that columns line up.
function score(value) {
  return fixed(value, 4);
}

function grouped(value) {
  return known(value) ? value.toLocaleString("en-US") : DASH;
}

function percent(value, digits = 1) {
  return known(value) ? `${(100 * value).toFixed(digits)}%` : DASH;
}

function duration(seconds) {
  if (!known(seconds)) return DASH;
  if (seconds < 60) return `${seconds.toFixed(1)} s`;
  const whole = Math.round(seconds),
    hours = Math.floor(whole / 3600);
  const minutes = Math.floor((whole % 3600) / 60);
  if (hours) return `${hours} h ${String(minutes).padStart(2, "0")} min`;
  return `${minutes} min ${String(whole % 60).padStart(2, "0")} s`;
}

function plural(count, noun) {
  return `${grouped(count)} ${noun}${count === 1 ? "" : "s"}`;
}

function median(values) {
  const sorted = Float64Array.from(values).sort();
  if (!sorted.length) return null;
  const middle = sorted.length >> 1;
  return sorted.length % 2 ? sorted[middle] : (sorted[middle - 1] + sorted[middle]) / 2;
}
