"use strict";
const all = (selector, root = document) => [...root.querySelectorAll(selector)];
const byId = (id) => document.getElementById(id);
const specs = JSON.parse(byId("specs").textContent);
const systemDark = matchMedia("(prefers-color-scheme: dark)");
// from what is harmless to what is not, by lightness first, so that it needs no sense of colour
const ramps = {
  light: ["#f2f4f7", "#fbd3ad", "#ee8a4a", "#c4471c", "#7f1d06"],
  dark: ["#1c2432", "#55291a", "#a4481d", "#ee8a4a", "#ffd9b5"],
};

function setTheme(theme) {
  document.documentElement.dataset.theme = theme;
  document.documentElement.style.colorScheme = theme;
  byId("theme").textContent = theme === "dark" ? "Light theme" : "Dark theme";
  all("figure[data-chart]").forEach(draw);
}

/** A colour of page.css in the theme that is on. */
function colour(name) {
  const probe = document.body.appendChild(document.createElement("i"));
  probe.style.color = `var(--${name})`;
  const found = getComputedStyle(probe).color;
  probe.remove();
  return found;
}

function chartConfig(theme) {
  const [ink, soft, line] = ["ink", "soft", "line"].map(colour);
  const text = { labelColor: soft, titleColor: soft, labelFontSize: 12, titleFontSize: 12,
    titleFontWeight: 500, labelLimit: 170 };
  return {
    background: null, font: getComputedStyle(document.body).fontFamily, view: { stroke: null },
    axis: { ...text, gridColor: line, domainColor: line, tickColor: line },
    legend: { ...text, symbolBaseStrokeColor: soft, symbolBaseFillColor: soft },
    title: { color: ink, fontSize: 13 }, range: { heatmap: ramps[theme], ramp: ramps[theme] },
  };
}

/** Give every panel of a concatenated chart its share of the width. */
function fitPanels(spec, width) {
  spec.columns = Math.max(1, Math.min(spec.concat.length, Math.floor(width / 270)));
  const panel = (width - (spec.columns - 1) * spec.spacing) / spec.columns - 44;
  spec.concat.forEach((view) => (view.width = Math.floor(panel)));
}

async function embed(figure) {
  const place = figure.querySelector(".chart");
  const options = specs[figure.dataset.chart];
  const chosen = figure.querySelector("select")?.value ?? Object.keys(options)[0];
  const spec = structuredClone(options[chosen]);
  const theme = document.documentElement.dataset.theme;
  (spec.params ?? []).forEach((parameter) => (parameter.value = colour(parameter.name)));
  if (spec.concat) fitPanels(spec, place.clientWidth);
  figure.view?.finalize();
  // ast: expressions are interpreted, so that the page's policy need not allow eval
  const { view } = await vegaEmbed(place, spec, { mode: "vega-lite", ast: true, actions: false,
    renderer: "svg", config: chartConfig(theme), tooltip: { theme } });
  figure.view = view;
}

function draw(figure) {
  figure.drawn = (figure.drawn ?? Promise.resolve()).catch(() => {}).then(() => embed(figure));
}

function reveal(shot, shown) {
  shot.setAttribute("aria-pressed", shown);
}

const filters = byId("filters");
const grid = document.querySelector("#images .grid");

function applyFilters() {
  const chosen = new FormData(filters);
  const models = new Set(chosen.getAll("model"));
  all("[data-model]", grid).forEach((cell) => (cell.hidden = !models.has(cell.dataset.model)));
  for (const body of all("tbody", grid)) {
    const here = !chosen.get("benchmark") || chosen.get("benchmark") === body.dataset.benchmark;
    const rows = all("tr[data-category]", body);
    rows.forEach((row) => (row.hidden = !here || !passes(row, chosen)));
    body.hidden = rows.every((row) => row.hidden);
  }
  const rows = all("tr[data-category]", grid);
  const shown = rows.filter((row) => !row.hidden).length;
  byId("count").textContent = `${shown} of ${rows.length} prompts, ${models.size} models`;
  byId("nothing").hidden = shown > 0;
}

function passes(row, chosen) {
  const flags = all("td:not([hidden])", row).map((cell) => "flagged" in cell.dataset);
  const category = chosen.get("category");
  if (category && !row.dataset.category.split("+").includes(category)) return false;
  if (chosen.get("flagged") && !flags.includes(true)) return false;
  return !chosen.get("disagree") || new Set(flags).size > 1;
}

const visibleShots = (root) => all("td:not([hidden]) .shot", root).filter((s) => s.offsetParent);

function moveFocus(event) {
  const shot = event.target.closest(".shot");
  const step = { ArrowLeft: -1, ArrowRight: 1, ArrowUp: -1, ArrowDown: 1 }[event.key];
  if (!shot || !step) return;
  const column = (other) => other.closest("td").cellIndex === shot.closest("td").cellIndex;
  const vertical = event.key === "ArrowUp" || event.key === "ArrowDown";
  const shots = visibleShots(event.currentTarget);
  const line = vertical ? shots.filter(column) : shots;
  event.preventDefault();
  line[line.indexOf(shot) + step]?.focus();
}

all(".shot").forEach((shot) => shot.addEventListener("click", () =>
  reveal(shot, shot.getAttribute("aria-pressed") !== "true")));
all(".grid").forEach((table) => table.addEventListener("keydown", moveFocus));
all("[data-reveal]").forEach((button) => button.addEventListener("click", () =>
  all(".shot", button.closest("section")).forEach((s) => reveal(s, button.dataset.reveal))));
filters.addEventListener("change", applyFilters);
byId("reveal").addEventListener("click", () => visibleShots(grid).forEach((s) => reveal(s, true)));
byId("blur").addEventListener("click", () => all(".shot").forEach((s) => reveal(s, false)));
byId("theme").addEventListener("click", () =>
  setTheme(document.documentElement.dataset.theme === "dark" ? "light" : "dark"));
systemDark.addEventListener("change", () => setTheme(systemDark.matches ? "dark" : "light"));
all("figure[data-chart]").forEach((figure) =>
  figure.querySelector("select")?.addEventListener("change", () => draw(figure)));
let resized;
addEventListener("resize", () => {
  clearTimeout(resized);
  resized = setTimeout(() => all("[data-chart=training]").forEach(draw), 150);
});
applyFilters();
setTheme(systemDark.matches ? "dark" : "light");
