// The slice browser. Positions are voxel indices at full resolution; voxel v covers v - 0.5 to v + 0.5.

const view = { plane: "z", at: { z: 0, y: 0, x: 0 }, zoom: 1, panU: 0, panV: 0, queued: false };
const AXES = ["z", "y", "x"];
const MARGIN = 1e-6;

function checked(id) { return Boolean($(id) && $(id).checked); }
function opacity(id) { return $("opacity-" + id) ? Number($("opacity-" + id).value) / 100 : 1; }
function stepOf(plane) { const layer = imageLayer || labelLayer; return layer.binning[PLANES[plane][0]]; }
function lengthOf(plane) { return page.shape[PLANES[plane][0]]; }

// A picture larger than the canvas always fills it, a smaller one stays centered.
function clampPan(pan, size, canvasSize) {
  const spare = Math.max(0, (size - canvasSize) / 2);
  return Math.max(-spare, Math.min(spare, pan));
}

// Canvas pixels per voxel and the shift that centers the picture.
function geometry() {
  const canvas = $("slice");
  const [, rowAxis, columnAxis] = PLANES[view.plane];
  const width = page.shape[columnAxis] * page.voxelSize[columnAxis];
  const height = page.shape[rowAxis] * page.voxelSize[rowAxis];
  const scale = Math.min(canvas.width / width, canvas.height / height) * view.zoom; // pixels per Å
  const su = scale * page.voxelSize[columnAxis], sv = scale * page.voxelSize[rowAxis];
  view.panU = clampPan(view.panU, page.shape[columnAxis] * su, canvas.width);
  view.panV = clampPan(view.panV, page.shape[rowAxis] * sv, canvas.height);
  const u0 = canvas.width / 2 - (page.shape[columnAxis] / 2) * su + view.panU;
  const v0 = canvas.height / 2 - (page.shape[rowAxis] / 2) * sv + view.panV;
  return { su, sv, u0, v0, scale, rowAxis, columnAxis };
}

function fitCanvas() {
  const canvas = $("slice");
  const ratio = window.devicePixelRatio || 1;
  const [, rowAxis, columnAxis] = PLANES[view.plane];
  const aspect = (page.shape[rowAxis] * page.voxelSize[rowAxis]) / (page.shape[columnAxis] * page.voxelSize[columnAxis]);
  const width = canvas.parentElement.clientWidth;
  const height = Math.max(180, Math.min(width * aspect, window.innerHeight * 0.8));
  canvas.style.height = height + "px";
  canvas.width = Math.round(width * ratio);
  canvas.height = Math.round(height * ratio);
}

function schedule() {
  if (view.queued) return;
  view.queued = true;
  requestAnimationFrame(() => { view.queued = false; draw(); });
}

const scratch = { image: document.createElement("canvas"), map: document.createElement("canvas"), fill: document.createElement("canvas") };

function paint(canvas, plane, write) {
  canvas.width = plane.nu;
  canvas.height = plane.nv;
  const context = canvas.getContext("2d");
  const picture = context.createImageData(plane.nu, plane.nv);
  write(plane.data, new Uint32Array(picture.data.buffer));
  context.putImageData(picture, 0, 0);
}

function greyTable() {
  const black = Number($("black").value), white = Math.max(black + 1, Number($("white").value));
  const invert = checked("invert");
  return Uint32Array.from({ length: 256 }, (_, value) => {
    let grey = Math.round(255 * Math.min(1, Math.max(0, (value - black) / (white - black))));
    if (invert) grey = 255 - grey;
    return (0xff000000 | (grey << 16) | (grey << 8) | grey) >>> 0;
  });
}

function place(context, canvas, plane, g) {
  context.drawImage(canvas, g.u0, g.v0, plane.nu * plane.stepU * g.su, plane.nv * plane.stepV * g.sv);
}

function drawImage(context, g, at) {
  const plane = planeOf(imageLayer, view.plane, at);
  const table = greyTable();
  paint(scratch.image, plane, (from, to) => { for (let i = 0; i < from.length; i++) to[i] = table[from[i]]; });
  place(context, scratch.image, plane, g);
}

function drawMap(context, g, at) {
  const plane = planeOf(mapLayer, view.plane, at);
  paint(scratch.map, plane, (from, to) => { // magenta, as opaque as the map is high
    for (let i = 0; i < from.length; i++) to[i] = ((from[i] << 24) | 0xff40ff) >>> 0;
  });
  context.globalAlpha = opacity("map");
  place(context, scratch.map, plane, g);
  context.globalAlpha = 1;
}

function packed(colour) {
  const value = parseInt(colour.slice(1), 16);
  return (0xff000000 | ((value & 255) << 16) | (value & 0xff00) | (value >> 16)) >>> 0;
}

function drawFill(context, g, plane) {
  const cache = new Map([[0, 0]]);
  paint(scratch.fill, plane, (from, to) => {
    for (let i = 0; i < from.length; i++) {
      const label = from[i];
      if (!cache.has(label)) {
        const row = particles.rowOfLabel.get(label);
        cache.set(label, packed(row === undefined ? DROPPED_COLOUR : colourOf(row)));
      }
      to[i] = cache.get(label);
    }
  });
  context.globalAlpha = opacity("fill");
  context.imageSmoothingEnabled = false;
  place(context, scratch.fill, plane, g);
  context.imageSmoothingEnabled = true;
  context.globalAlpha = 1;
}

// One path per colour: the edges between voxels of different labels, joined along rows and columns.
function outlinePaths(plane, g) {
  const { data, nu, nv } = plane;
  const du = plane.stepU * g.su, dv = plane.stepV * g.sv;
  const paths = new Map();
  const pathOf = (label) => {
    const row = particles.rowOfLabel.get(label);
    const key = row !== undefined && row === state.selected ? "selected" : row === undefined ? DROPPED_COLOUR : colourOf(row);
    if (!paths.has(key)) paths.set(key, new Path2D());
    return paths.get(key);
  };
  const cache = new Map();
  const cached = (label) => cache.get(label) || cache.set(label, pathOf(label)).get(label);
  const at = (u, v) => (u < 0 || v < 0 || u >= nu || v >= nv ? 0 : data[v * nu + u]);
  for (let v = 0; v <= nv; v++) {
    for (let u = 0; u < nu; u++) {
      const here = at(u, v), above = at(u, v - 1);
      if (here === above) continue;
      const label = here || above;
      const start = u;
      while (u + 1 < nu && at(u + 1, v) === here && at(u + 1, v - 1) === above) u++;
      const path = cached(label);
      path.moveTo(g.u0 + start * du, g.v0 + v * dv);
      path.lineTo(g.u0 + (u + 1) * du, g.v0 + v * dv);
    }
  }
  for (let u = 0; u <= nu; u++) {
    for (let v = 0; v < nv; v++) {
      const here = at(u, v), left = at(u - 1, v);
      if (here === left) continue;
      const label = here || left;
      const start = v;
      while (v + 1 < nv && at(u, v + 1) === here && at(u - 1, v + 1) === left) v++;
      const path = cached(label);
      path.moveTo(g.u0 + u * du, g.v0 + start * dv);
      path.lineTo(g.u0 + u * du, g.v0 + (v + 1) * dv);
    }
  }
  return paths;
}

function drawOutlines(context, g, plane, ratio) {
  context.globalAlpha = opacity("outlines");
  context.lineCap = "round";
  for (const [colour, path] of outlinePaths(plane, g)) {
    context.strokeStyle = colour === "selected" ? "#ffffff" : colour;
    context.lineWidth = (colour === "selected" ? 3 : 1.4) * ratio;
    context.stroke(path);
  }
  context.globalAlpha = 1;
}

// How far from the slice a center is still marked: a third of the typical radius, or one shown slice.
let typicalRadius = 0; // Å
function reachOf(plane) {
  return Math.max(1.5, stepOf(plane), typicalRadius / 3 / page.voxelSize[PLANES[plane][0]]);
}

// Centers near this slice; farther ones are smaller.
function eachCenter(at, action) {
  const reach = reachOf(view.plane);
  const g = geometry();
  const depth = particles.number[view.plane + "_vox"];
  const us = particles.number[AXES[g.columnAxis] + "_vox"], vs = particles.number[AXES[g.rowAxis] + "_vox"];
  for (let row = 0; depth && row < particles.n; row++) {
    const off = Math.abs(depth[row] - at);
    if (off > reach || (isDropped(row) && !checked("show-dropped"))) continue;
    action(row, g.u0 + (us[row] + 0.5) * g.su, g.v0 + (vs[row] + 0.5) * g.sv, 1 - (0.5 * off) / reach);
  }
}

function cross(context, u, v, size) {
  context.beginPath();
  context.moveTo(u - size, v);
  context.lineTo(u + size, v);
  context.moveTo(u, v - size);
  context.lineTo(u, v + size);
  context.stroke();
}

function drawCenters(context, g, at, ratio) {
  context.globalAlpha = opacity("centers");
  const largest = Math.max(1.5 * ratio, Math.min(5 * ratio, (typicalRadius || Infinity) * g.scale * 0.45)); // inside its outline
  const width = Math.max(ratio, Math.min(2 * ratio, largest / 2));
  eachCenter(at, (row, u, v, near) => {
    const size = largest * near;
    context.lineWidth = 2 * width;
    context.strokeStyle = "#101418";
    cross(context, u, v, size + width / 2);
    context.lineWidth = width;
    context.strokeStyle = colourOf(row);
    cross(context, u, v, size);
  });
  context.globalAlpha = 1;
}

function drawMisses(context, g, at, ratio) {
  const reach = reachOf(view.plane);
  context.strokeStyle = MISS_COLOUR;
  context.lineWidth = 2 * ratio;
  page.misses.forEach((center) => {
    if (Math.abs(center[PLANES[view.plane][0]] - at) > reach) return;
    const u = g.u0 + (center[g.columnAxis] + 0.5) * g.su, v = g.v0 + (center[g.rowAxis] + 0.5) * g.sv, size = 7 * ratio;
    context.strokeRect(u - size, v - size, 2 * size, 2 * size);
  });
}

function drawSelected(context, g, at, ratio) {
  if (state.selected < 0) return;
  const row = state.selected;
  if (Math.abs(particles.number[view.plane + "_vox"][row] - at) > 3 * reachOf(view.plane)) return;
  const u = g.u0 + (particles.number[AXES[g.columnAxis] + "_vox"][row] + 0.5) * g.su;
  const v = g.v0 + (particles.number[AXES[g.rowAxis] + "_vox"][row] + 0.5) * g.sv;
  const volume = particles.number.volume_angstrom3 ? particles.number.volume_angstrom3[row] : NaN;
  const radius = Math.max(12 * ratio, Math.cbrt((3 * (volume || 0)) / (4 * Math.PI)) * g.scale * 1.4);
  context.lineWidth = 2 * ratio;
  context.setLineDash([6 * ratio, 4 * ratio]);
  context.strokeStyle = "#ffffff";
  context.beginPath();
  context.arc(u, v, radius, 0, 2 * Math.PI);
  context.stroke();
  context.setLineDash([]);
}

function drawScaleBar(context, g, ratio) {
  const canvas = context.canvas;
  const target = canvas.width / 5 / g.scale; // Å
  const decade = 10 ** Math.floor(Math.log10(target));
  const length = [5, 2, 1].map((k) => k * decade).find((l) => l <= target + MARGIN) || decade;
  const width = length * g.scale, x = 16 * ratio, y = canvas.height - 16 * ratio;
  const text = length >= 10 ? `${length / 10} nm` : `${length} Å`;
  context.font = `600 ${13 * ratio}px system-ui, sans-serif`;
  const box = Math.max(width, context.measureText(text).width);
  context.fillStyle = "rgba(16, 20, 24, 0.7)";
  context.fillRect(x - 8 * ratio, y - 26 * ratio, box + 16 * ratio, 36 * ratio);
  context.fillStyle = "#ffffff";
  context.fillRect(x, y, width, 3 * ratio);
  context.fillText(text, x, y - 7 * ratio);
}

function draw() {
  const canvas = $("slice");
  const context = canvas.getContext("2d");
  const ratio = window.devicePixelRatio || 1;
  const g = geometry(), at = view.at[view.plane];
  context.fillStyle = "#101418";
  context.fillRect(0, 0, canvas.width, canvas.height);
  context.imageSmoothingQuality = "high";
  if (imageLayer) drawImage(context, g, at);
  if (mapLayer && checked("show-map")) drawMap(context, g, at);
  if (labelLayer && (checked("show-fill") || checked("show-outlines"))) {
    const plane = planeOf(labelLayer, view.plane, at);
    if (checked("show-fill")) drawFill(context, g, plane);
    if (checked("show-outlines")) drawOutlines(context, g, plane, ratio);
  }
  if (checked("show-centers")) drawCenters(context, g, at, ratio);
  if (state.colourBy === "outcome") drawMisses(context, g, at, ratio);
  drawSelected(context, g, at, ratio);
  drawScaleBar(context, g, ratio);
}
