// The particle table: only the rows in sight are in the document, so 20,000 of them cost nothing.

const ROW_HEIGHT = 30;
const PRINTED_ROWS = 40;
const USUAL = ["particle_id", "class", "outcome", "score", "x_vox", "y_vox", "z_vox", "volume_angstrom3", "diameter_angstrom", "neighbors", "touches_border", "dropped_by", "flags"];
const TITLES = { particle_id: "particle", x_vox: "x (voxel)", y_vox: "y (voxel)", z_vox: "z (voxel)", x_angstrom: "x (Å)", y_angstrom: "y (Å)", z_angstrom: "z (Å)",
  volume_vox: "volume (voxels)", volume_angstrom3: "volume (nm³)", diameter_angstrom: "diameter (Å)", touches_border: "touches border",
  neighbors: "neighbours", dropped_by: "dropped by" };
const list = { order: [], sortBy: "", down: false, columns: [], first: -1, last: -1, printing: false };

function shownColumns() {
  if ($("all-columns").checked) return particles.columns;
  const filled = (c) => !["class", "dropped_by", "flags"].includes(c) || (particles.text[c].some((t) => t !== "") && (c !== "dropped_by" || $("which").value !== "kept"));
  return USUAL.filter((c) => particles.columns.includes(c) && filled(c));
}

function arrange() {
  const which = $("which").value, search = $("search").value.trim().toLowerCase();
  const searched = ["particle_id", "class", "dropped_by", "flags", "outcome"].filter((c) => particles.columns.includes(c));
  const rows = [];
  for (let row = 0; row < particles.n; row++) {
    if (which !== "all" && isDropped(row) !== (which === "dropped")) continue;
    if (search && !searched.some((c) => (c === "particle_id" ? particles.text[c][row] === search : particles.text[c][row].toLowerCase().includes(search)))) continue;
    rows.push(row);
  }
  if (list.sortBy) {
    const numbers = particles.number[list.sortBy], texts = particles.text[list.sortBy], sign = list.down ? -1 : 1;
    rows.sort(numbers
      ? (a, b) => { // unknown values last, both ways
        if (Number.isNaN(numbers[a]) || Number.isNaN(numbers[b])) return Number.isNaN(numbers[a]) - Number.isNaN(numbers[b]) || a - b;
        return sign * (numbers[a] - numbers[b]) || a - b;
      }
      : (a, b) => sign * texts[a].localeCompare(texts[b]) || a - b);
  }
  list.order = rows;
  list.first = -1;
  $("row-count").textContent = `${rows.length.toLocaleString("en")} of ${particles.n.toLocaleString("en")} rows`;
  drawRows();
}

function drawHead() {
  list.columns = shownColumns();
  const row = document.createElement("tr");
  list.columns.forEach((name) => {
    const cell = document.createElement("th"), button = document.createElement("button");
    cell.scope = "col";
    button.type = "button";
    const sorted = list.sortBy === name;
    cell.setAttribute("aria-sort", sorted ? (list.down ? "descending" : "ascending") : "none");
    button.textContent = (TITLES[name] || name) + (sorted ? (list.down ? " ▼" : " ▲") : "");
    button.dataset.column = name;
    button.addEventListener("click", () => {
      list.down = list.sortBy === name ? !list.down : name === "score";
      list.sortBy = name;
      drawHead();
      arrange();
      document.querySelector(`#particles th button[data-column="${CSS.escape(name)}"]`).focus();
    });
    if (particles.number[name]) cell.className = "number";
    cell.append(button);
    row.append(cell);
  });
  document.querySelector("#particles thead").replaceChildren(row);
  list.first = -1;
}

function spacer(height) {
  const row = document.createElement("tr"), cell = document.createElement("td");
  row.setAttribute("aria-hidden", "true");
  row.className = "spacer";
  cell.colSpan = list.columns.length;
  cell.style.height = height + "px";
  row.append(cell);
  return row;
}

function drawRows(force) {
  const box = $("rows");
  const first = list.printing ? 0 : Math.max(0, Math.floor(box.scrollTop / ROW_HEIGHT) - 10);
  const seen = list.printing ? PRINTED_ROWS : Math.ceil((box.scrollTop + Math.max(400, box.clientHeight)) / ROW_HEIGHT) + 10;
  const last = Math.min(list.order.length, seen);
  if (!force && first === list.first && last === list.last) return;
  list.first = first;
  list.last = last;
  const shown = list.order.slice(first, last).map((row, k) => {
    const line = document.createElement("tr");
    line.dataset.row = row;
    line.setAttribute("aria-rowindex", first + k + 2);
    line.setAttribute("aria-selected", row === state.selected);
    list.columns.forEach((name) => {
      const cell = document.createElement("td");
      cell.textContent = tidy(name, row);
      if (particles.number[name]) cell.className = "number";
      line.append(cell);
    });
    return line;
  });
  if (!list.order.length) {
    const line = document.createElement("tr"), cell = document.createElement("td");
    cell.colSpan = list.columns.length;
    cell.textContent = particles.n ? "No particle fits this search." : "No particle was found.";
    line.append(cell);
    shown.push(line);
  }
  const body = document.querySelector("#particles tbody");
  body.replaceChildren(spacer(first * ROW_HEIGHT), ...shown, spacer(list.printing ? 0 : (list.order.length - last) * ROW_HEIGHT));
  $("printed-rows").textContent = `Printed: ${last - first} of ${particles.n.toLocaleString("en")} rows.`;
  $("particles").setAttribute("aria-rowcount", list.order.length + 1);
  hintColumns();
}

function scrollToRow(row) {
  let index = list.order.indexOf(row);
  if (index < 0 && row >= 0) { // hidden by the search or the choice of rows
    $("search").value = "";
    if (isDropped(row) !== ($("which").value === "dropped")) $("which").value = "all";
    drawHead();
    arrange();
    index = list.order.indexOf(row);
  }
  const box = $("rows"), top = index * ROW_HEIGHT, head = 36;
  if (index >= 0 && (top < box.scrollTop || top + ROW_HEIGHT + head > box.scrollTop + box.clientHeight)) {
    box.scrollTop = top - box.clientHeight / 2 + head;
  }
  drawRows(true);
}

function stepRow(step) {
  if (!list.order.length) return;
  const now = list.order.indexOf(state.selected);
  const next = now < 0 ? (step > 0 ? 0 : list.order.length - 1) : Math.max(0, Math.min(list.order.length - 1, now + step));
  select(list.order[next], "table");
}

function download() {
  const link = document.createElement("a");
  link.href = URL.createObjectURL(new Blob([particles.csv], { type: "text/csv" }));
  link.download = page.name + "_particles.csv";
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 10000);
}

function hintColumns() {
  const box = $("rows");
  $("more-columns").hidden = box.scrollLeft + box.clientWidth >= box.scrollWidth - 1;
}

function startTable() {
  const box = $("rows");
  if (!particles.text.dropped_by.some((t) => t !== "")) $("which").parentElement.hidden = true;
  if (particles.number.score) { list.sortBy = "score"; list.down = true; }
  box.addEventListener("scroll", () => { drawRows(); hintColumns(); });
  window.addEventListener("resize", hintColumns);
  box.addEventListener("click", (event) => {
    const line = event.target.closest("tr[data-row]");
    if (line) select(Number(line.dataset.row), "table");
  });
  box.addEventListener("keydown", (event) => {
    const steps = { ArrowDown: 1, ArrowUp: -1, PageDown: 10, PageUp: -10 };
    if (event.target !== box) return;
    if (event.key in steps) stepRow(steps[event.key]);
    else if (event.key === "Enter" && state.selected >= 0 && $("slice")) $("slice").focus();
    else return;
    event.preventDefault();
  });
  $("search").addEventListener("input", arrange);
  $("which").addEventListener("change", () => { drawHead(); arrange(); });
  $("all-columns").addEventListener("change", () => { drawHead(); drawRows(true); });
  $("download").addEventListener("click", download);
  on("select", ({ row }) => scrollToRow(row));
  const print = (now) => () => { list.printing = now; drawRows(true); };
  window.addEventListener("beforeprint", print(true));
  window.addEventListener("afterprint", print(false));
  drawHead();
  arrange();
}
