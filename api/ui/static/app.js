// What every page needs beside htmx: the menu on a phone, dialogs, colours, copying, charts. Pages work without it, charts apart.
"use strict";

document.addEventListener("click", (event) => {
  const target = event.target.closest("[data-open],[data-close],[data-theme-toggle],[data-menu],[data-copy]");
  if (!target) return;
  if (target.dataset.open) document.getElementById(target.dataset.open).showModal();
  else if ("close" in target.dataset) target.closest("dialog").close();
  else if ("menu" in target.dataset) {
    const open = document.querySelector(".side").classList.toggle("open");
    target.setAttribute("aria-expanded", String(open));
  } else if ("themeToggle" in target.dataset) toggleTheme();
  else if (target.dataset.copy) copy(target);
});

function toggleTheme() {
  const root = document.documentElement;
  const dark = root.dataset.theme ? root.dataset.theme === "dark" : matchMedia("(prefers-color-scheme: dark)").matches;
  root.dataset.theme = dark ? "light" : "dark";
  try { localStorage.setItem("consilium-theme", root.dataset.theme); } catch { /* not kept, then */ }
  drawCharts(document);
}

async function copy(button) {
  const source = document.getElementById(button.dataset.copy);
  const text = "value" in source ? source.value : source.textContent;
  try { await navigator.clipboard.writeText(text); } catch {
    const range = document.createRange();
    range.selectNodeContents(source);
    getSelection().removeAllRanges();
    getSelection().addRange(range);
    document.execCommand("copy");
  }
  const status = document.getElementById("status");
  if (status) status.textContent = "Copied";
  const was = button.dataset.label || (button.dataset.label = button.textContent);
  button.textContent = "Copied";
  setTimeout(() => { button.textContent = was; }, 1500);
}

// A select that leads on as soon as it is changed, where there is a button for those without scripts.
document.addEventListener("change", (event) => {
  if (event.target.matches("[data-submit]")) event.target.form.requestSubmit();
  if (event.target.matches("[data-load-into]") && event.target.files.length) {
    event.target.files[0].text().then((text) => { document.getElementById(event.target.dataset.loadInto).value = text; });
  }
});

// --- charts: each canvas names the element that holds its data as JSON ---
const drawn = new Map();

function colour(name) {
  return getComputedStyle(document.documentElement).getPropertyValue(name).trim();
}

function drawCharts(root) {
  if (typeof Chart === "undefined") return;
  for (const canvas of root.querySelectorAll("canvas[data-chart]")) {
    const given = JSON.parse(document.getElementById(canvas.dataset.chart).textContent);
    if (drawn.has(canvas.id)) drawn.get(canvas.id).destroy();
    drawn.set(canvas.id, new Chart(canvas, configOf(given)));
  }
}

function configOf(given) {
  const grid = colour("--line"), text = colour("--muted");
  const datasets = given.series.map((series, index) => {
    const shade = colour(series.colour || `--series-${(index % 6) + 1}`);
    return { ...series, backgroundColor: shade, borderColor: shade, borderWidth: given.type === "bar" ? 0 : 2, pointRadius: given.type === "scatter" ? 5 : 0, tension: 0.25, ...(series.line ? { showLine: true } : {}) };
  });
  const axis = (title, more) => ({ grid: { color: grid }, border: { color: grid }, ticks: { color: text, maxRotation: 0, autoSkipPadding: 16 }, title: { display: Boolean(title), text: title, color: text }, ...more });
  return {
    type: given.type,
    data: { labels: given.labels, datasets },
    options: {
      animation: false, responsive: true, maintainAspectRatio: false, interaction: { mode: given.type === "scatter" ? "nearest" : "index", intersect: false },
      indexAxis: given.horizontal ? "y" : "x",
      scales: { x: axis(given.x, { ...(given.type === "bar" && !given.horizontal ? { grid: { display: false } } : {}), stacked: Boolean(given.stacked), ...(given.type === "scatter" ? { type: "linear", ticks: { color: text, maxRotation: 0, callback: (value) => String(Number(value.toPrecision(3))) } } : {}) }), y: axis(given.y, { stacked: Boolean(given.stacked), beginAtZero: given.type !== "scatter", ticks: { color: text, precision: given.whole ? 0 : undefined } }) },
      plugins: {
        legend: { display: given.series.length > 1, labels: { color: text, boxWidth: 12, boxHeight: 12 } },
        tooltip: { callbacks: given.names ? { label: (item) => `${item.dataset.names ? item.dataset.names[item.dataIndex] : item.dataset.label}: ${item.formattedValue}` } : {} },
      },
    },
  };
}

document.addEventListener("DOMContentLoaded", () => drawCharts(document));
document.addEventListener("htmx:afterSwap", () => drawCharts(document));
// An answer that says no is shown where the answer would have been; one without a session leads to the login.
document.addEventListener("htmx:beforeSwap", (event) => {
  if (event.detail.xhr.status >= 400 && event.detail.xhr.status !== 401) { event.detail.shouldSwap = true; event.detail.isError = false; }
});
matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => drawCharts(document));
