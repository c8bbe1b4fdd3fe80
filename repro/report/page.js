// The table of runs: sort, filter, open a run; what a point of a figure is; training curves of the run that is opened.
// All that comes from a run is set as text, never as markup.
"use strict";
const data = JSON.parse(document.getElementById("data").textContent);
const at = (column, row) =>
  "same" in column ? column.same : "codes" in column ? column.levels[column.codes[row]] : column.values[row];
const named = new Map(data.columns.map((column) => [column.name, column]));
const raw = (name, row) => (named.has(name) ? at(named.get(name), row) : null);
const keyOf = (names) => JSON.stringify(names.filter(Boolean).map(String)); // a table may have no sweeps
const element = (tag, text, attributes = {}) => {
  const made = document.createElement(tag);
  if (text !== undefined) made.textContent = text;
  for (const [name, value] of Object.entries(attributes)) made.setAttribute(name, value);
  return made;
};
const rowOf = new Map(); // by [sweep, run id]: the same run may stand in two sweeps
for (let row = data.count - 1; row >= 0; row--) rowOf.set(keyOf([raw("sweep", row), raw("run_id", row)]), row);

const CHUNK = 200; // rows drawn at once: more are asked for, or found by the filter
const FILTERS = ["sweep", "setup", "loss", "status"];
const shown = data.shown;
const state = { by: null, down: false, rows: [], drawn: 0, open: new Set() };
const table = document.getElementById("table");
const body = table.tBodies[0];
const search = document.getElementById("search");
const selects = new Map();

function buildHead() {
  const head = table.tHead.insertRow();
  for (const column of shown) {
    const cell = element("th", undefined, { scope: "col", "aria-sort": "none" });
    const button = element("button", column.name, { type: "button" });
    button.addEventListener("click", () => sortBy(column, cell));
    cell.append(button);
    head.append(cell);
  }
  const controls = document.getElementById("controls");
  for (const name of FILTERS) {
    const column = shown.find((one) => one.name === name);
    const values = [...new Set(Array.from({ length: data.count }, (_, row) => at(column, row)))].sort();
    if (values.length < 2) continue;
    const select = element("select", undefined, { "aria-label": name });
    select.append(element("option", `${name}: all`, { value: "" }));
    for (const value of values) select.append(element("option", value || "(none)", { value: `=${value}` }));
    select.addEventListener("change", refresh);
    selects.set(column, select);
    controls.append(select);
  }
}

function matches(row) {
  for (const [column, select] of selects) if (select.value && select.value !== `=${at(column, row)}`) return false;
  const words = search.value.toLowerCase().split(/\s+/).filter(Boolean);
  if (!words.length) return true;
  const text = shown.map((column) => at(column, row)).join(" ").toLowerCase();
  return words.every((word) => text.includes(word));
}

function compare(a, b) {
  const [first, second] = [raw(state.by, a), raw(state.by, b)];
  const empty = (value) => value === null || value === "";
  if (empty(first) || empty(second)) return empty(first) - empty(second) || a - b; // what is empty comes last, both ways
  const order =
    typeof first === "number" && typeof second === "number" ? first - second : String(first).localeCompare(String(second));
  return (state.down ? -order : order) || a - b;
}

function sortBy(column, cell) {
  state.down = state.by === column.by ? !state.down : false;
  state.by = column.by;
  for (const other of table.tHead.rows[0].cells) other.setAttribute("aria-sort", "none");
  cell.setAttribute("aria-sort", state.down ? "descending" : "ascending");
  refresh();
}

function refresh() {
  state.rows = Array.from({ length: data.count }, (_, row) => row).filter(matches);
  if (state.by !== null) state.rows.sort(compare);
  body.replaceChildren();
  state.drawn = 0;
  draw(CHUNK);
}

function draw(count) {
  for (const row of state.rows.slice(state.drawn, state.drawn + count)) {
    const line = element("tr", undefined, { class: "run", tabindex: "0", "aria-expanded": "false" });
    line.dataset.row = row;
    for (const column of shown) line.append(element("td", at(column, row)));
    body.append(line);
    if (state.open.has(row)) unfold(line, row);
  }
  state.drawn = Math.min(state.rows.length, state.drawn + count);
  const left = state.rows.length - state.drawn;
  document.getElementById("counted").textContent = `${state.rows.length.toLocaleString("en")} of ${data.count.toLocaleString("en")} runs`;
  const more = document.getElementById("more");
  more.hidden = left === 0;
  more.textContent = `Show all (${left.toLocaleString("en")} more)`;
}

function toggle(line) {
  const row = Number(line.dataset.row);
  if (state.open.delete(row)) {
    line.classList.remove("open");
    line.setAttribute("aria-expanded", "false");
    line.nextElementSibling.remove();
  } else {
    state.open.add(row);
    unfold(line, row);
  }
}

function unfold(line, row) {
  line.classList.add("open");
  line.setAttribute("aria-expanded", "true");
  const cell = element("td", undefined, { colspan: shown.length });
  const within = element("div", undefined, { class: "within" });
  within.append(curvesOf(row));
  const cells = element("div", undefined, { class: "cells" });
  for (const column of data.columns) {
    const value = at(column, row);
    if (value === null || value === "") continue;
    const entry = element("div");
    entry.append(element("span", `${column.name} `), document.createTextNode(String(value)));
    cells.append(entry);
  }
  within.append(cells);
  cell.append(within);
  const detail = element("tr", undefined, { class: "detail" });
  detail.append(cell);
  line.after(detail);
}

function curvesOf(row) {
  const curves = data.curves[row];
  const box = element("div", undefined, { class: `curves ${raw("loss", row) === "softmax" ? "softmax" : ""}` });
  if (!curves) {
    box.append(element("p", "No training curve of this run is in the page.", { class: "small" }));
    return box;
  }
  for (const [name, values] of Object.entries(curves)) if (name !== "examples") box.append(curve(name, curves.examples, values));
  return box;
}

function curve(name, examples, values) {
  const [width, height] = [240, 90];
  const finite = values.filter((value) => value !== null);
  const [low, high] = [Math.min(...finite), Math.max(...finite)];
  const end = examples[examples.length - 1] || 1;
  const y = (value) => height - 4 - ((height - 8) * (value - low)) / (high - low || 1);
  let path = "";
  let pen = "M";
  values.forEach((value, place) => {
    if (value === null) return void (pen = "M");
    path += `${pen}${((width * examples[place]) / end).toFixed(1)},${y(value).toFixed(1)}`;
    pen = "L";
  });
  const svgElement = (tag, attributes) => {
    const made = document.createElementNS("http://www.w3.org/2000/svg", tag);
    for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, value);
    return made;
  };
  const title = name.replaceAll("_", " ");
  const svg = svgElement("svg", { viewBox: `0 0 ${width} ${height}`, role: "img", "aria-label": title });
  svg.append(svgElement("path", { d: path }));
  const figure = element("figure");
  figure.append(element("figcaption", `${title}: ${low} to ${high}, to ${end.toLocaleString("en")} examples`), svg);
  return figure;
}

function show(row) {
  if (!state.rows.includes(row)) {
    search.value = "";
    for (const select of selects.values()) select.value = "";
    refresh();
  }
  const place = state.rows.indexOf(row);
  if (place >= state.drawn) draw(place + 1 - state.drawn);
  const line = body.querySelector(`tr.run[data-row="${row}"]`);
  if (!state.open.has(row)) toggle(line);
  line.scrollIntoView({ block: "center" });
  line.focus({ preventScroll: true });
}

function rowAt(hash) {
  // The row that a link means, such as #run-batch-size/<id>; undefined where it means none.
  if (!hash.startsWith("#run-")) return undefined;
  try {
    return rowOf.get(keyOf(hash.slice(5).split("/").map((part) => decodeURIComponent(part))));
  } catch {
    return undefined; // a % that quotes nothing
  }
}

const hrefOf = (target) => {
  const link = target.closest && target.closest("svg a");
  return (link && (link.getAttribute("xlink:href") || link.getAttribute("href"))) || "";
};
const tip = document.getElementById("tip");

document.addEventListener("click", (event) => {
  const href = hrefOf(event.target);
  const row = rowAt(href);
  if (row === undefined) return;
  event.preventDefault();
  history.replaceState(null, "", href);
  show(row);
});
document.addEventListener("pointerover", (event) => {
  const row = rowAt(hrefOf(event.target));
  tip.hidden = row === undefined;
  if (tip.hidden) return;
  const facts = shown.filter((column) => at(column, row) && column.name !== "run" && column.name !== "reason");
  tip.textContent = facts.map((column) => `${column.name} ${at(column, row)}`).join("\n");
  const box = event.target.closest("a").getBoundingClientRect();
  tip.style.left = `${Math.max(4, Math.min(box.right + 8, innerWidth - tip.offsetWidth - 4))}px`;
  tip.style.top = `${Math.max(4, Math.min(box.bottom + 8, innerHeight - tip.offsetHeight - 4))}px`;
});
body.addEventListener("click", (event) => {
  const line = event.target.closest("tr.run");
  if (line && !getSelection().toString()) toggle(line);
});
body.addEventListener("keydown", (event) => {
  const line = event.target.closest("tr.run");
  if (!line || !["Enter", " "].includes(event.key)) return;
  event.preventDefault(); // a space would scroll
  toggle(line);
});
search.addEventListener("input", refresh);
document.getElementById("more").addEventListener("click", () => draw(state.rows.length));
function showAddressed() {
  const row = rowAt(location.hash);
  if (row !== undefined) show(row);
}
addEventListener("hashchange", showAddressed);
buildHead();
refresh();
showAddressed();
