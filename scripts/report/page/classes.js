// Only in pages of several classes: the same colour for a class in slices, plots and pictures, and its scores in the table.

CLASS_COLOURS.splice(0, CLASS_COLOURS.length, ...page.classColours);
if (page.classColours.length > 1) state.colourBy = "class";
USUAL.splice(USUAL.indexOf("class") + 1, 0, "class_score", "runner_up");
Object.assign(TITLES, { class_score: "class score", runner_up: "next best", runner_up_score: "its score" });

const tidyOther = tidy;
tidy = (name, row) => {
  const value = name.endsWith("_score") && particles.number[name] ? particles.number[name][row] : NaN;
  return Number.isNaN(value) ? tidyOther(name, row) : value.toFixed(3);
};
