"""Photograph the report of the demo: ``make demo``, then ``python docs/screenshots.py runs/demo``.

Needs selenium, chromium and chromedriver. ``python docs/screenshots.py napari runs/demo`` does the same for napari,
where napari and a screen are (``xvfb-run`` is one).
"""

from __future__ import annotations

import sys
import time
from pathlib import Path
from tempfile import TemporaryDirectory

from PIL import Image

ROOT = Path(__file__).parents[1]
PICTURES = ROOT / "docs" / "pages" / "pictures"


def photograph_report(demo: Path) -> None:
    """``report.webp``: its summary and slices; ``report_gallery.webp``: what is further down."""
    from selenium import webdriver

    options = webdriver.ChromeOptions()
    for option in ("--headless=new", "--no-sandbox", "--hide-scrollbars", "--enable-unsafe-swiftshader"):
        options.add_argument(option)
    with webdriver.Chrome(options=options) as browser:
        size = {"width": 1240, "height": 1420, "deviceScaleFactor": 1, "mobile": False}
        browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)
        browser.get(next(demo.glob("detections/*/*_report.html")).resolve().as_uri())
        while browser.execute_script("return document.body.dataset.ready") != "all":  # slices are unpacked, plots drawn
            time.sleep(0.1)
        browser.save_screenshot(str(PICTURES / "report.png"))
        browser.find_element("id", "gallery").screenshot(str(PICTURES / "report_gallery.png"))
    for name in ("report", "report_gallery"):
        shrink(PICTURES / f"{name}.png")


def photograph_napari(demo: Path) -> None:
    """``napari.webp``: what ``python -m scripts view`` shows."""
    import napari

    sys.path.insert(0, str(ROOT))
    from scripts.report.inputs import load_run
    from scripts.view.view import add_layers

    viewer = napari.Viewer(show=True)
    viewer.window.resize(1240, 860)
    add_layers(viewer, load_run(next(demo.glob("detections/*"))))
    napari.utils.notifications.notification_manager.records.clear()
    viewer.window.screenshot(str(PICTURES / "napari.png"), canvas_only=False)
    shrink(PICTURES / "napari.png")
    viewer.close()


def photograph_questions(demo: Path) -> None:
    """``napari_teach.webp``: what ``python -m scripts view --teach`` shows, of five examples."""
    import napari
    import pandas as pd

    from scripts.teach.candidates import open_candidates
    from scripts.teach.questions import open_questions
    from scripts.view.questions import bind_questions
    from scripts.view.view import add_layers

    detection = next(demo.glob("detections/*"))
    truth = pd.read_csv(next(demo.glob("simulated/*/particles.csv")))
    positions = ["class", "x_angstrom", "y_angstrom", "z_angstrom"]
    with TemporaryDirectory() as folder:
        examples = Path(folder, "examples.csv")
        truth.loc[truth["class"] == "complex320", positions].head(5).to_csv(examples, index=False)
        questions = open_questions(open_candidates(detection / detection.name), str(examples), restart=True)
    viewer = napari.Viewer(show=True)
    viewer.window.resize(820, 560)
    for layer in add_layers(viewer, questions.candidates.run):
        layer.visible = False
    bind_questions(viewer, questions)
    napari.utils.notifications.notification_manager.records.clear()
    viewer.window.screenshot(str(PICTURES / "napari_teach.png"), canvas_only=False)
    shrink(PICTURES / "napari_teach.png", quality=50)


def shrink(path: Path, quality: int = 85) -> None:
    """Store a PNG as WebP, at a quarter of the size."""
    with Image.open(path) as picture:
        picture.convert("RGB").save(path.with_suffix(".webp"), quality=quality, method=6)
    path.unlink()
    print(path.with_suffix(".webp").relative_to(ROOT))


if __name__ == "__main__":
    if sys.argv[1] == "napari":
        photograph_napari(Path(sys.argv[2]))
        photograph_questions(Path(sys.argv[2]))
    else:
        photograph_report(Path(sys.argv[1]))
