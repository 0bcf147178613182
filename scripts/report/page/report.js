// Start everything; `document.body.dataset.ready` tells tests and the printer how far it is.

function startGallery() {
  document.querySelectorAll("button[data-at]").forEach((button) => {
    button.addEventListener("click", () => {
      const row = particles.rowOfId.get(button.dataset.particle);
      if (row !== undefined) select(row, "gallery");
      else if ($("slice")) showPlace(button.dataset.at.split(",").map(Number));
      ($("browser") || $("table")).scrollIntoView({ block: "start" });
    });
  });
  const outlines = $("gallery-outlines");
  if (outlines) outlines.addEventListener("change", () => $("gallery").classList.toggle("bare", !outlines.checked));
}

async function start() {
  await loadParticles();
  startColours();
  startTable();
  startGallery();
  const slices = $("slice") ? startViewer() : Promise.resolve();
  document.body.dataset.ready = "table";
  await slices;
  document.body.dataset.ready = "slices";
  await startCharts();
  document.body.dataset.ready = "all";
}

start().catch((error) => {
  const box = document.createElement("p");
  box.className = "checks";
  box.setAttribute("role", "alert");
  box.textContent = `This browser could not show the interactive part (${error}). Use a current Firefox, Chrome, Edge or Safari.`;
  document.querySelector("main").prepend(box);
  throw error;
});
