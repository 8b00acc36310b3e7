// Light or dark: the system's until the button is pressed, then kept where there is storage.

const darkSystem = matchMedia("(prefers-color-scheme: dark)");
const themeListeners = [];

function isDark() {
  const chosen = document.documentElement.dataset.theme;
  return chosen ? chosen === "dark" : darkSystem.matches;
}

function onTheme(listener) {
  themeListeners.push(listener);
}

function themeChanged() {
  const button = byId("theme");
  button.textContent = isDark() ? "Light" : "Dark";
  button.setAttribute("aria-label", `Change to ${isDark() ? "light" : "dark"} colours`);
  for (const listener of themeListeners) listener();
}

function startTheme() {
  byId("theme").addEventListener("click", () => {
    const theme = isDark() ? "light" : "dark";
    document.documentElement.dataset.theme = theme;
    try {
      localStorage.setItem("ait-jax-theme", theme);
    } catch (error) {
      // Not kept then.
    }
    themeChanged();
  });
  darkSystem.addEventListener("change", themeChanged);
  themeChanged();
}

// The colours of page.css, by their names there.
function color(name) {
  return getComputedStyle(document.documentElement).getPropertyValue(`--${name}`).trim();
}
