"use strict";
// Shared by the other files: data out of the page, the particle table, colours, and who is selected.

const $ = (id) => document.getElementById(id);
const page = JSON.parse($("page-data").textContent);

function blobLines(name) {
  const node = $("blob-" + name);
  return node ? node.textContent.split("\n") : null;
}

function bytesOf(base64) {
  const text = atob(base64);
  const bytes = new Uint8Array(text.length);
  for (let i = 0; i < text.length; i++) bytes[i] = text.charCodeAt(i);
  return bytes;
}

async function inflate(bytes) {
  const stream = new Blob([bytes]).stream().pipeThrough(new DecompressionStream("deflate"));
  return new Uint8Array(await new Response(stream).arrayBuffer());
}

// Quotes, commas and line breaks inside fields are allowed, as pandas writes them.
function parseCsv(text) {
  const records = [];
  let record = [], field = "", quoted = false;
  for (let i = 0; i < text.length; i++) {
    const c = text[i];
    if (quoted) {
      if (c !== '"') field += c;
      else if (text[i + 1] === '"') { field += '"'; i++; }
      else quoted = false;
    } else if (c === '"') quoted = true;
    else if (c === ",") { record.push(field); field = ""; }
    else if (c === "\n") { record.push(field); records.push(record); record = []; field = ""; }
    else field += c;
  }
  return records;
}

const particles = { columns: [], n: 0, text: {}, number: {}, csv: "" };
const state = { selected: -1, colourBy: "score", showDropped: false };
const listeners = { select: [], colour: [] };
const on = (event, action) => listeners[event].push(action);
const tell = (event, detail) => listeners[event].forEach((action) => action(detail));

async function loadParticles() {
  particles.csv = new TextDecoder().decode(await inflate(bytesOf(blobLines("csv")[0])));
  const [columns, ...records] = parseCsv(particles.csv);
  particles.columns = columns;
  particles.n = records.length;
  columns.forEach((name, k) => {
    const texts = records.map((r) => r[k].replace(/^'(?='*[=+\-@\t\r])/, ""));  // for spreadsheets alone
    particles.text[name] = texts;
    if (texts.every((t) => t === "" || !Number.isNaN(Number(t)))) {
      particles.number[name] = Float64Array.from(texts, (t) => (t === "" ? NaN : Number(t)));
    }
  });
  particles.rowOfLabel = new Map();
  particles.rowOfId = new Map();
  for (let row = 0; row < particles.n; row++) {
    particles.rowOfId.set(particles.text.particle_id[row], row);
    const label = particles.number.label ? particles.number.label[row] : 0;
    if (label > 0 && !isDropped(row)) particles.rowOfLabel.set(label, row);
  }
}

const isDropped = (row) => particles.text.dropped_by[row] !== "";

function select(row, source) {
  state.selected = row;
  tell("select", { row, source });
}

// Colours are for dark backgrounds and differ in lightness too, for who sees no red or green.
const SCORE_COLOURS = ["#ff5a5a", "#ff8a3d", "#ffb43d", "#ffe066", "#d8f070", "#9be88a", "#5fdcc0", "#55c8ff"];
const CLASS_COLOURS = ["#55c8ff", "#ffb43d", "#7ee081", "#ff7ac0", "#ffe066", "#b9a0ff", "#ff6b57", "#a8e6e0", "#d9b38c", "#f2f2f2"];
const OUTCOME_COLOURS = { TP: "#5fe08a", merged: "#ffb43d", split: "#c9a0ff", FP: "#ff5a6e", "": "#c5ccd3" };
const OUTCOME_WORDS = { TP: "right (TP)", merged: "merged", split: "split", FP: "false (FP)" };
const MISS_COLOUR = "#55c8ff";
const DROPPED_COLOUR = "#aab4be";

let classNames = [];
const scoreBin = (score) => Math.max(0, Math.min(7, Math.floor(score * 8)));

function colourOf(row) {
  if (isDropped(row)) return DROPPED_COLOUR;
  if (state.colourBy === "score") {
    const score = particles.number.score ? particles.number.score[row] : NaN;
    return Number.isNaN(score) ? OUTCOME_COLOURS[""] : SCORE_COLOURS[scoreBin(score)];
  }
  if (state.colourBy === "class") return CLASS_COLOURS[classNames.indexOf(particles.text.class[row]) % CLASS_COLOURS.length];
  if (state.colourBy === "outcome") return OUTCOME_COLOURS[particles.text.outcome[row]] || OUTCOME_COLOURS[""];
  return CLASS_COLOURS[(row * 7) % CLASS_COLOURS.length];
}

function legendEntries() {
  const entries = [];
  if (state.colourBy === "score") {
    entries.push([SCORE_COLOURS[0], "score 0"], [SCORE_COLOURS[3], "0.4"], [SCORE_COLOURS[5], "0.7"], [SCORE_COLOURS[7], "1"]);
  } else if (state.colourBy === "class") {
    classNames.slice(0, CLASS_COLOURS.length).forEach((name, k) => entries.push([CLASS_COLOURS[k], name || "no class"]));
  } else if (state.colourBy === "outcome") {
    Object.entries(OUTCOME_WORDS).forEach(([name, words]) => entries.push([OUTCOME_COLOURS[name], words]));
    entries.push([MISS_COLOUR, "missed (FN)"]);
  }
  return entries;
}

function startColours() {
  const counts = new Map();
  particles.text.class.forEach((name) => counts.set(name, (counts.get(name) || 0) + 1));
  classNames = [...counts.keys()].sort((a, b) => counts.get(b) - counts.get(a));
  const choices = [["score", "score"]];
  if (classNames.length > 1) choices.push(["class", "class"]);
  if (particles.columns.includes("outcome")) choices.push(["outcome", "right or wrong"]);
  choices.push(["each", "each its own"]);
  if (particles.columns.includes("outcome")) state.colourBy = "outcome";
  const menu = $("colour-by");
  if (!menu) return;
  choices.forEach(([value, text]) => menu.add(new Option(text, value, false, value === state.colourBy)));
  const draw = () => {
    $("legend").replaceChildren(...legendEntries().map(([colour, text]) => {
      const item = document.createElement("li");
      const swatch = document.createElement("i");
      swatch.style.background = colour;
      item.append(swatch, text);
      return item;
    }));
  };
  menu.addEventListener("change", () => { state.colourBy = menu.value; draw(); tell("colour"); });
  draw();
}

function tidy(name, row) {
  const text = particles.text[name][row];
  const value = particles.number[name] ? particles.number[name][row] : NaN;
  if (name === "outcome") return OUTCOME_WORDS[text] || text;
  if (name === "touches_border") return text === "True" ? "yes" : text === "False" ? "no" : text;
  if (name === "volume_angstrom3" && value > 0) return (value / 1000).toLocaleString("en", { maximumFractionDigits: value < 1e5 ? 2 : 0 });
  if (Number.isNaN(value) || name === "particle_id" || name === "label") return text;
  if (Math.abs(value) >= 10000) return Math.round(value).toLocaleString("en");
  if (Number.isInteger(value)) return text;
  return name === "score" ? value.toFixed(3) : value.toFixed(1);
}
