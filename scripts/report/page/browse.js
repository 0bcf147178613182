// What the reader does with the slice browser: scrub, zoom, click, toggle.

function goTo(plane, voxel) {
  const step = stepOf(plane), length = lengthOf(plane);
  const slices = Math.ceil(length / step);
  const index = Math.max(0, Math.min(slices - 1, Math.floor((voxel + 0.5) / step)));
  view.at[plane] = Math.min(length - 1, index * step + (step - 1) / 2);
  const slider = $("slice-index");
  slider.max = slices - 1;
  slider.value = index;
  const first = index * step, last = Math.min(length, first + step) - 1;
  const name = first === last ? `${plane} ${first}` : `${plane} ${first}–${last}`;
  $("slice-number").textContent = `${name} of 0–${length - 1}`;
  slider.setAttribute("aria-valuetext", name);
  schedule();
  sayStatus(name);
}

let statusTimer = 0;
function sayStatus(name) {
  clearTimeout(statusTimer);
  statusTimer = setTimeout(() => {
    const at = view.at[view.plane];
    let shown = 0, what = "near their center";
    if (labelLayer) {
      const cut = new Set(planeOf(labelLayer, view.plane, at).data);
      cut.delete(0);
      shown = cut.size;
      what = "cut by it";
    } else eachCenter(at, (row) => { if (!isDropped(row)) shown++; });
    const main = imageLayer || labelLayer;
    const loading = main.count < main.nz ? ` Loading slices: ${Math.round((100 * main.count) / main.nz)} %.` : "";
    $("slice-status").textContent = `Slice ${name}: ${shown} particle${shown === 1 ? "" : "s"} ${what}.${loading}`;
  }, 150);
}

function scrub(slices) { goTo(view.plane, view.at[view.plane] + slices * stepOf(view.plane)); }

function setPlane(plane) {
  view.plane = plane;
  view.zoom = 1;
  view.panU = view.panV = 0;
  document.querySelector(`input[name=plane][value=${plane}]`).checked = true;
  fitCanvas();
  goTo(plane, view.at[plane]);
}

function zoomBy(factor, u, v) {
  const canvas = $("slice");
  const zoom = Math.max(1, Math.min(20, view.zoom * factor)), change = zoom / view.zoom;
  const du = (u === undefined ? canvas.width / 2 : u) - canvas.width / 2;
  const dv = (v === undefined ? canvas.height / 2 : v) - canvas.height / 2;
  view.panU = zoom === 1 ? 0 : du - (du - view.panU) * change;
  view.panV = zoom === 1 ? 0 : dv - (dv - view.panV) * change;
  view.zoom = zoom;
  schedule();
}

function showParticle(row) {
  showPlace(AXES.map((axis) => particles.number[axis + "_vox"][row]));
}

function showPlace(center) {
  AXES.forEach((axis, k) => { if (axis !== view.plane) goToQuietly(axis, center[k]); });
  goTo(view.plane, center[AXES.indexOf(view.plane)]);
  if (view.zoom > 1) centerOn(center);
}

function goToQuietly(axis, voxel) {
  const step = stepOf(axis);
  view.at[axis] = Math.max(0, Math.min(lengthOf(axis) - 1, Math.floor((voxel + 0.5) / step) * step + (step - 1) / 2));
}

function centerOn(center) {
  const g = geometry(), canvas = $("slice");
  view.panU += canvas.width / 2 - (g.u0 + (center[g.columnAxis] + 0.5) * g.su);
  view.panV += canvas.height / 2 - (g.v0 + (center[g.rowAxis] + 0.5) * g.sv);
  schedule();
}

// The particle under the pointer: by its label, else the nearest center within 14 pixels.
function rowAt(u, v) {
  const at = view.at[view.plane], g = geometry();
  if (labelLayer) {
    const plane = planeOf(labelLayer, view.plane, at);
    const pu = Math.floor((u - g.u0) / (plane.stepU * g.su)), pv = Math.floor((v - g.v0) / (plane.stepV * g.sv));
    if (pu >= 0 && pv >= 0 && pu < plane.nu && pv < plane.nv) {
      const row = particles.rowOfLabel.get(plane.data[pv * plane.nu + pu]);
      if (row !== undefined) return row;
    }
  }
  let best = -1, nearest = 14 * (window.devicePixelRatio || 1);
  eachCenter(at, (row, cu, cv) => {
    const distance = Math.hypot(cu - u, cv - v);
    if (distance < nearest) { nearest = distance; best = row; }
  });
  return best;
}

function pointer(event) {
  const canvas = $("slice"), box = canvas.getBoundingClientRect();
  return [((event.clientX - box.left) * canvas.width) / box.width, ((event.clientY - box.top) * canvas.height) / box.height];
}

function startPointer() {
  const canvas = $("slice");
  let drag = null;
  canvas.addEventListener("pointerdown", (event) => {
    drag = { at: pointer(event), moved: 0 };
    canvas.setPointerCapture(event.pointerId);
  });
  canvas.addEventListener("pointermove", (event) => {
    if (!drag) return;
    const [u, v] = pointer(event);
    drag.moved += Math.hypot(u - drag.at[0], v - drag.at[1]);
    if (view.zoom > 1) { view.panU += u - drag.at[0]; view.panV += v - drag.at[1]; schedule(); }
    drag.at = [u, v];
  });
  canvas.addEventListener("pointerup", (event) => {
    if (drag && drag.moved < 5) { const row = rowAt(...pointer(event)); select(row, "slice"); }
    drag = null;
  });
  let wheel = 0;
  canvas.addEventListener("wheel", (event) => {
    if (event.ctrlKey) { event.preventDefault(); zoomBy(event.deltaY < 0 ? 1.2 : 1 / 1.2, ...pointer(event)); return; }
    const index = Number($("slice-index").value), end = event.deltaY > 0 ? Number($("slice-index").max) : 0;
    if (index === end) return; // past the last slice the page scrolls on
    event.preventDefault();
    wheel += event.deltaMode === 1 ? event.deltaY * 30 : event.deltaY;
    const slices = Math.trunc(wheel / 40);
    if (slices) { wheel -= slices * 40; scrub(Math.max(-3, Math.min(3, slices))); }
  }, { passive: false });
}

const OVERLAY_KEYS = { o: "show-outlines", f: "show-fill", c: "show-centers", m: "show-map", d: "show-dropped" };

function startKeys() {
  const moves = { ArrowUp: 1, ArrowRight: 1, ArrowDown: -1, ArrowLeft: -1, PageUp: 10, PageDown: -10 };
  $("slice").addEventListener("keydown", (event) => {
    if (event.ctrlKey || event.metaKey || event.altKey) return;
    const key = event.key;
    if (key in moves) scrub(moves[key]);
    else if (key === "Home") goTo(view.plane, 0);
    else if (key === "End") goTo(view.plane, lengthOf(view.plane) - 1);
    else if (AXES.includes(key)) setPlane(key);
    else if (key === "+" || key === "=") zoomBy(1.25);
    else if (key === "-") zoomBy(1 / 1.25);
    else if (key === "0") resetView();
    else if (key === "n" || key === "p") stepRow(key === "n" ? 1 : -1);
    else if (OVERLAY_KEYS[key] && $(OVERLAY_KEYS[key])) { $(OVERLAY_KEYS[key]).checked ^= 1; schedule(); }
    else return;
    event.preventDefault();
  });
}

function resetView() {
  if ($("black")) { $("black").value = 0; $("white").value = 255; $("invert").checked = false; }
  view.zoom = 1;
  view.panU = view.panV = 0;
  schedule();
}

function describeSelected(row) {
  const box = $("selected");
  if (row < 0) { box.textContent = "No particle there. Click inside an outline or on a center."; return; }
  const facts = [["particle", "particle_id"], ["class", "class"], ["score", "score"], ["x", "x_vox"], ["y", "y_vox"], ["z", "z_vox"],
    ["volume (nm³)", "volume_angstrom3"], ["neighbours", "neighbors"], ["touches border", "touches_border"], ["dropped by", "dropped_by"], ["flags", "flags"], ["outcome", "outcome"], ["because", "reason"]];
  box.replaceChildren(...facts.filter(([, c]) => particles.columns.includes(c) && particles.text[c][row] !== "").map(([name, c]) => {
    const part = document.createElement("span");
    const value = document.createElement("b");
    value.textContent = tidy(c, row);
    part.append(name + " ", value);
    return part;
  }));
}

function startViewer() {
  const volumes = Array.from(particles.number.volume_angstrom3 || []).filter((v) => v > 0).sort((a, b) => a - b);
  if (volumes.length) typicalRadius = Math.cbrt((3 * volumes[volumes.length >> 1]) / (4 * Math.PI));
  AXES.forEach((axis, k) => { view.at[axis] = Math.floor(page.shape[k] / 2); });
  startPointer();
  startKeys();
  $("controls").addEventListener("submit", (event) => event.preventDefault());
  $("controls").addEventListener("input", (event) => {
    if (event.target.name === "plane") setPlane(event.target.value);
    else schedule();
  });
  $("slice-index").addEventListener("input", (event) => goTo(view.plane, Number(event.target.value) * stepOf(view.plane)));
  $("zoom-in").addEventListener("click", () => zoomBy(1.5));
  $("zoom-out").addEventListener("click", () => zoomBy(1 / 1.5));
  $("reset-view").addEventListener("click", resetView);
  new ResizeObserver(() => { fitCanvas(); draw(); }).observe($("slice").parentElement);
  on("colour", schedule);
  on("select", ({ row, source }) => { describeSelected(row); if (row >= 0 && source !== "slice") showParticle(row); schedule(); });
  setPlane("z");
  const wanted = (layer) => Math.floor(view.at.z / layer.binning[0]);
  const progress = (z) => {
    const main = imageLayer || labelLayer;
    if (view.plane !== "z" ? z % 16 === 0 : true) schedule();
    if (main.count === main.nz || main.count % 16 === 0) scrub(0);
  };
  const jobs = [];
  if (imageLayer) jobs.push(decodeSlices(imageLayer, "slices", wanted, progress));
  if (labelLayer) jobs.push(decodeLabels(labelLayer, progress));
  if (mapLayer) jobs.push(decodeSlices(mapLayer, "center", wanted, progress));
  return Promise.all(jobs).then(() => { schedule(); scrub(0); });
}
