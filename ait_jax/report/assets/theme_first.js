// Before the first paint, so that a page kept dark never flashes light.
try {
  const kept = localStorage.getItem("ait-jax-theme");
  if (kept === "light" || kept === "dark") document.documentElement.dataset.theme = kept;
} catch (error) {
  // A page from disk may have no storage; the system's theme is used.
}
