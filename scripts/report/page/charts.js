// Plots, drawn by plotly.js, which is unpacked only after the slices and the table are there.

async function loadPlotly() {
  const script = document.createElement("script");
  script.textContent = new TextDecoder().decode(await inflate(bytesOf(blobLines("plotly")[0])));
  document.head.append(script);
  $("blob-plotly").remove();
}

const PLOT_OPTIONS = { responsive: true, displaylogo: false, showSendToCloud: false };
const plain = (text) => text.replace(/&/g, "&amp;").replace(/</g, "&lt;").replace(/>/g, "&gt;"); // plotly reads a little HTML

function hasWebgl() {
  const canvas = document.createElement("canvas");
  return Boolean(canvas.getContext("webgl2") || canvas.getContext("webgl"));
}

function angstrom(row, axis) { return particles.number[axis + "_vox"][row] * page.voxelSize[AXIS_OF[axis]]; }
const AXIS_OF = { z: 0, y: 1, x: 2 };

function traces(flat) {
  const rows = [];
  for (let row = 0; row < particles.n; row++) if (!isDropped(row)) rows.push(row);
  const text = rows.map((row) => plain(`particle ${particles.text.particle_id[row]} ${particles.text.class[row]}`
    + (particles.text.score ? ` score ${tidy("score", row)}` : "") + (particles.text.outcome ? ` ${tidy("outcome", row)}` : "")));
  const size = rows.length > 5000 ? 2.5 : rows.length > 500 ? 4 : 7;
  // Numbers with a stepped scale: plotly takes long over thousands of colour names.
  const palette = [...new Set(rows.map(colourOf))], place = new Map(palette.map((c, k) => [c, k]));
  const steps = palette.flatMap((c, k) => [[k / palette.length, c], [(k + 1) / palette.length, c]]);
  const scale = { colorscale: steps, cmin: -0.5, cmax: palette.length - 0.5 };
  const made = (points, colour, texts, name, symbol) => ({
    type: flat ? "scatter" : "scatter3d", mode: "markers", name, text: texts, customdata: points.map((p) => p.row),
    x: points.map((p) => p.x), y: points.map((p) => p.y), ...(flat ? {} : { z: points.map((p) => p.z) }),
    marker: { size: flat ? size + 2 : size, ...colour, symbol, opacity: 0.9, line: { width: 0 } },
    hovertemplate: "%{text}<br>x %{x:.0f} Å, y %{y:.0f} Å" + (flat ? "" : ", z %{z:.0f} Å") + "<extra></extra>",
  });
  const points = rows.map((row) => ({ row, x: angstrom(row, "x"), y: angstrom(row, "y"), z: angstrom(row, "z") }));
  const found = [made(points, { color: rows.map((row) => place.get(colourOf(row))), ...scale }, text, "found", "circle")];
  if (state.colourBy === "outcome" && page.misses.length) {
    const [sz, sy, sx] = page.voxelSize;
    const missed = page.misses.map(([z, y, x]) => ({ row: -1, x: x * sx, y: y * sy, z: z * sz }));
    found.push(made(missed, { color: MISS_COLOUR }, missed.map(() => "missed"), "missed", "diamond"));
  }
  return found;
}

function layout3d() {
  const axis = (name) => ({ title: { text: `${name} (Å)` }, color: "#dfe6ee", gridcolor: "#3b4653", backgroundcolor: "#151b22", showbackground: true,
    ...(page.shape ? { range: [0, page.shape[AXIS_OF[name]] * page.voxelSize[AXIS_OF[name]]] } : {}) });
  const yAxis = axis("y"); // row 0 at the top, as in the slices
  if (yAxis.range) yAxis.range.reverse();
  else yAxis.autorange = "reversed";
  const common = { paper_bgcolor: "#101418", font: { color: "#dfe6ee", family: "system-ui, sans-serif" }, showlegend: false,
    margin: { l: 0, r: 0, t: 0, b: 0 }, uirevision: "keep" };
  return { ...common, scene: { xaxis: axis("x"), yaxis: yAxis, zaxis: axis("z"), aspectmode: "data",
    camera: { eye: { x: 1.15, y: 1.45, z: 1.35 }, center: { x: 0, y: 0, z: -0.2 } } } };
}

function layoutFlat() {
  const axis = (title) => ({ title: { text: title }, color: "#dfe6ee", gridcolor: "#3b4653", zeroline: false });
  return { paper_bgcolor: "#101418", plot_bgcolor: "#151b22", font: { color: "#dfe6ee" }, showlegend: false, margin: { l: 70, r: 20, t: 40, b: 50 },
    title: { text: "This browser has no WebGL: seen from above", font: { size: 14 } }, uirevision: "keep",
    xaxis: axis("x (Å)"), yaxis: { ...axis("y (Å)"), autorange: "reversed", scaleanchor: "x" } };
}

// Plots keep the size of the screen and WebGL prints empty: the printer gets a still picture that fits its page.
async function keepStill(box, format) {
  const old = box.nextElementSibling;
  const still = old && old.classList.contains("still") ? old : document.createElement("img");
  still.className = "still";
  still.alt = box.getAttribute("aria-label");
  still.src = await window.Plotly.toImage(box, format === "svg" ? { format, width: 480, height: 300 } : { format, width: 1000, height: 600 });
  box.after(still);
}

async function startCharts() {
  if (!$("blob-plotly")) return;
  await loadPlotly();
  for (const [name, figure] of Object.entries(page.figures)) {
    const small = $("plot-" + name);
    if (!small) continue;
    await window.Plotly.newPlot(small, figure.data, figure.layout, { ...PLOT_OPTIONS, displayModeBar: false });
    await keepStill(small, "svg");
  }
  const box = $("plot-3d");
  if (!box || !particles.number.x_vox || !particles.n) return;
  if (particles.n <= MANY_POINTS) { await start3d(box); return; }
  const watcher = new IntersectionObserver((seen) => { // without a graphics card this takes seconds: only for who scrolls there
    if (seen.some((one) => one.isIntersecting)) { watcher.disconnect(); start3d(box); }
  }, { rootMargin: "400px" });
  watcher.observe(box);
}

const MANY_POINTS = 25000;

async function start3d(box) {
  const flat = !hasWebgl();
  const sorry = () => {
    const line = document.createElement("p");
    line.textContent = "This browser could not draw the centers in 3D, for which it needs WebGL. The slices and the table show the same particles.";
    box.replaceChildren(line);
  };
  box.replaceChildren();
  try {
    await window.Plotly.newPlot(box, traces(flat), flat ? layoutFlat() : layout3d(), PLOT_OPTIONS);
  } catch (error) {
    sorry();
    return;
  }
  box.on("plotly_webglcontextlost", sorry);
  box.on("plotly_click", ({ points }) => { if (points[0].customdata >= 0) select(points[0].customdata, "plot"); });
  let timer = 0;
  const later = () => { clearTimeout(timer); timer = setTimeout(() => keepStill(box, "png"), 1500); };
  box.on("plotly_relayout", later);
  later();
  on("colour", () => { window.Plotly.react(box, traces(flat), flat ? layoutFlat() : layout3d(), PLOT_OPTIONS); later(); });
}
