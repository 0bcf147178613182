"""report: the page in a real browser, without a network."""

from __future__ import annotations

import importlib.util
import json
import shutil
import time

import numpy as np
import pandas as pd
import pytest

from scripts.report.inputs import NO_CLASS_COLOUR, load_run
from scripts.report.report import make_report
from tests.report.conftest import SHAPE, Run
from tests.report.test_report import HOSTILE, matches_of

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
DRIVER = shutil.which("chromedriver")
pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(
        CHROMIUM is None or DRIVER is None or importlib.util.find_spec("selenium") is None,
        reason="needs selenium, chromium and chromedriver (Debian: apt-get install chromium chromium-driver)",
    ),
]
OPTIONS = (
    "--headless=new",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--force-prefers-reduced-motion",
    "--enable-unsafe-swiftshader",
    "--window-size=1400,1000",
)


def until(condition, seconds: float = 60.0):
    """Wait for a condition and return its value; fail when time is over."""
    end = time.monotonic() + seconds
    while not (value := condition()):
        if time.monotonic() > end:
            pytest.fail(f"nothing after {seconds} s")
        time.sleep(0.05)
    return value


@pytest.fixture(scope="module")
def browser(tmp_path_factory):
    from selenium import webdriver
    from selenium.webdriver.chrome.service import Service

    options = webdriver.ChromeOptions()
    options.binary_location = CHROMIUM
    downloads = tmp_path_factory.mktemp("downloads")
    for option in (*OPTIONS, f"--user-data-dir={tmp_path_factory.mktemp('profile')}"):
        options.add_argument(option)
    options.add_experimental_option("prefs", {"download.default_directory": str(downloads)})
    options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
    driver = webdriver.Chrome(options=options, service=Service(DRIVER))
    driver.downloads = downloads
    yield driver
    driver.quit()


def open_page(browser, path) -> None:
    browser.get_log("browser")
    browser.get_log("performance")
    browser.get(path.as_uri())
    until(lambda: browser.execute_script("return document.body.dataset.ready") == "all")


def check_quiet(browser) -> None:
    """No error on the console, and nothing was asked of any host."""
    errors = [entry for entry in browser.get_log("browser") if entry["level"] == "SEVERE"]
    messages = [json.loads(entry["message"])["message"] for entry in browser.get_log("performance")]
    urls = [m["params"]["request"]["url"] for m in messages if m["method"] == "Network.requestWillBeSent"]
    assert errors == [] and urls
    own = ("file:", "data:", "blob:", "chrome:", "chrome-untrusted:")  # the last two: the browser's new tab
    assert [url for url in urls if not url.startswith(own)] == []


def find(browser, selector: str):
    return browser.find_element("css selector", selector)


@pytest.fixture(scope="module")
def page(browser, detected, tmp_path_factory):
    run = Run(shutil.copytree(detected.folder, tmp_path_factory.mktemp("report") / "TS_01"))
    names = {"class": [HOSTILE, "=1+1", "ribosome", ""], "score": [0.9, 0.7, 0.4, 0.1]}
    run.table = run.table.assign(**names)
    open_page(browser, make_report(run.folder, evaluation={"metrics": {"f1": 0.5}, "matches": matches_of()}))
    return load_run(run.folder)


def pixels(browser) -> int:
    """A number that changes when the picture does."""
    return browser.execute_script(
        "draw(); const c = $('slice'); const d = c.getContext('2d').getImageData(0, 0, c.width, c.height).data;"
        "let h = 0; for (let i = 0; i < d.length; i++) h = (h * 31 + d[i]) | 0; return h;"
    )


def test_slices_hold_the_volumes_that_went_in(browser, page):
    sent = browser.execute_script("return [Array.from(labelLayer.data), Array.from(imageLayer.data)]")
    assert sent[0] == page.instances.ravel().tolist()
    dark = [grey for grey, label in zip(sent[1], sent[0], strict=True) if label > 0]
    assert sum(dark) / len(dark) < 0.6 * sum(sent[1]) / len(sent[1])


def test_keys_wheel_and_slider_scrub_and_change_the_plane(browser, page):
    from selenium.webdriver.common.action_chains import ActionChains
    from selenium.webdriver.common.actions.wheel_input import ScrollOrigin
    from selenium.webdriver.common.keys import Keys

    canvas, at = find(browser, "#slice"), lambda: find(browser, "#slice-number").text
    browser.execute_script("setPlane('z'); goTo('z', 6)")
    canvas.send_keys(Keys.ARROW_UP)
    assert at() == "z 7 of 0–11"
    canvas.send_keys(Keys.PAGE_DOWN)
    assert at() == "z 0 of 0–11"
    ActionChains(browser).scroll_from_origin(ScrollOrigin.from_element(canvas), 0, 100).perform()
    until(lambda: at() == "z 2 of 0–11")
    find(browser, "#slice-index").send_keys(Keys.ARROW_RIGHT)
    assert at() == "z 3 of 0–11"
    for plane, length in (("y", SHAPE[1]), ("x", SHAPE[2]), ("z", SHAPE[0])):
        canvas.send_keys(plane)
        assert at().startswith(plane) and at().endswith(f"0–{length - 1}")
        canvas.send_keys(Keys.END)
        assert at() == f"{plane} {length - 1} of 0–{length - 1}"
    browser.execute_script("goTo('z', 3)")
    status = find(browser, "#slice-status")
    until(lambda: "Slice z 3: 2 particles cut by it." in status.text)


def test_overlays_and_contrast_change_the_picture_and_change_it_back(browser, page):
    browser.execute_script("setPlane('z'); goTo('z', 6)")
    canvas, start = find(browser, "#slice"), pixels(browser)
    for key in "ofcm":
        canvas.send_keys(key)
        assert pixels(browser) != start
        canvas.send_keys(key)
        assert pixels(browser) == start
    find(browser, "#invert").click()
    assert pixels(browser) != start
    find(browser, "#reset-view").click()
    assert pixels(browser) == start


def test_click_on_a_particle_finds_its_row_and_a_row_finds_its_slice(browser, page):
    from selenium.webdriver.common.action_chains import ActionChains

    browser.execute_script("setPlane('z'); goTo('z', 3); $('slice').scrollIntoView({block: 'center'})")
    x, y = browser.execute_script(
        "const g = geometry(), c = $('slice'), b = c.getBoundingClientRect(), s = b.width / c.width;"
        "return [(g.u0 + 6.5 * g.su) * s - b.width / 2, (g.v0 + 5.5 * g.sv) * s - b.height / 2];"
    )
    ActionChains(browser).move_to_element_with_offset(find(browser, "#slice"), round(x), round(y)).click().perform()
    selected = until(lambda: browser.find_elements("css selector", "tr[aria-selected=true]"))
    assert selected[0].find_element("css selector", "td").text == "1"
    assert "particle 1" in find(browser, "#selected").text.replace("\n", " ")
    row = find(browser, "tr[data-row='1']")
    browser.execute_script("arguments[0].scrollIntoView({block: 'center'})", row)
    row.click()
    assert find(browser, "#slice-number").text == "z 5 of 0–11"
    find(browser, "#slice").send_keys("n")
    assert "particle 3" in find(browser, "#selected").text.replace("\n", " ")


def test_pictures_lead_to_their_place(browser, page):
    click = "arguments[0].click()"
    browser.execute_script(click, find(browser, "#gallery button[data-particle='2']"))
    assert find(browser, "#slice-number").text == "z 5 of 0–11"
    missed = [b for b in browser.find_elements("css selector", "#gallery button") if b.text == "missed 1"]
    browser.execute_script(click, missed[0])
    assert find(browser, "#slice-number").text == "z 9 of 0–11"


def test_table_sorts_filters_and_shows_hostile_names_as_text(browser, page):
    def ids():
        return [
            row.find_element("css selector", "td").text for row in browser.find_elements("css selector", "tr[data-row]")
        ]

    browser.execute_script("$('which').value = 'kept'; $('which').dispatchEvent(new Event('change'))")
    assert ids() == ["1", "2", "3"]
    header = find(browser, "th button[data-column=score]")
    browser.execute_script("arguments[0].click()", header)
    assert ids() == ["3", "2", "1"]
    assert find(browser, "th[aria-sort=ascending]").text.startswith("score")
    browser.execute_script("$('which').value = 'all'; $('which').dispatchEvent(new Event('change'))")
    assert ids() == ["4", "3", "2", "1"]
    browser.execute_script("$('search').value = '<SCRIPT'; $('search').dispatchEvent(new Event('input'))")
    assert ids() == ["1"] and "<script>alert" in find(browser, "tr[data-row='0']").text
    browser.execute_script("$('search').value = '=1'; $('search').dispatchEvent(new Event('input'))")
    assert ids() == ["2"] and "'=1+1" not in find(browser, "tr[data-row='1']").text
    browser.execute_script("$('search').value = ''; $('search').dispatchEvent(new Event('input'))")


def test_classes_have_the_colours_of_the_summary(browser, page):
    js = "$('colour-by').value = 'class'; $('colour-by').dispatchEvent(new Event('change'));"
    kept = [row for row in range(4) if not page.particles["dropped_by"][row]]
    drawn = browser.execute_script(js + "return arguments[0].map(colourOf)", kept)
    assert drawn == [page.classes.get(page.particles["class"][row], NO_CLASS_COLOUR) for row in kept]
    assert len(set(drawn)) > 1 and len(browser.find_elements("css selector", "#legend li")) == 4
    assert browser.execute_script("return $('plot-class-0').data[0].marker.color") in page.classes.values()
    browser.execute_script(js.replace("'class'", "'outcome'"))


def test_download_is_the_table(browser, page):
    browser.execute_script("$('download').click()")
    file = browser.downloads / "TS_01_particles.csv"
    until(file.is_file)
    assert file.read_text().splitlines()[0] == ",".join([*page.particles.columns, "outcome", "reason"])
    assert "<script>alert('x')</script>\"\"&" in file.read_text()


def test_plots_are_drawn_and_a_point_selects_its_particle(browser, page):
    drawn = browser.execute_script(
        "return ['3d', 'score', 'volume', 'neighbor', 'recall'].map((n) => $('plot-' + n).data.length)"
    )
    assert drawn == [2, 2, 2, 1, 1]  # 3D: found and missed
    browser.execute_script("$('plot-3d').emit('plotly_click', {points: [{customdata: 1}]})")
    assert "particle 2" in find(browser, "#selected").text.replace("\n", " ")


def test_print_shows_rows_and_still_pictures(browser, page):
    browser.execute_script("window.dispatchEvent(new Event('beforeprint'))")
    browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"media": "print"})
    stills = "return [...document.querySelectorAll('img.still')].filter((one) => one.offsetParent).length"
    until(lambda: browser.execute_script(stills) == 8)  # three are of classes
    assert find(browser, "#printed-rows").text.startswith("Printed: ")
    assert len(browser.find_elements("css selector", "tr[data-row]")) >= 1
    assert not find(browser, "#controls").is_displayed()
    browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"media": ""})
    browser.execute_script("window.dispatchEvent(new Event('afterprint'))")


def test_every_control_has_a_name(browser, page):
    unnamed = browser.execute_script(
        "return [...document.querySelectorAll('main input, main select, main button, canvas#slice')].filter((e) => "
        "!e.closest('.plot') && !e.labels?.length && !e.getAttribute('aria-label') && !e.textContent.trim())"
        ".map((e) => e.outerHTML)"
    )
    assert unnamed == []


@pytest.mark.parametrize("width", [1400, 800, 400])
def test_page_is_not_wider_than_the_window(browser, page, width):
    browser.set_window_size(width, 900)
    until(lambda: browser.execute_script("return document.documentElement.scrollWidth <= window.innerWidth"), 5)
    browser.set_window_size(1400, 1000)


def test_no_error_was_logged_and_no_host_was_asked(browser, page):
    check_quiet(browser)


@pytest.mark.parametrize("n", [0, 1])
def test_zero_particles_and_one_particle_open_without_an_error(browser, run, n):
    run.table = run.table.head(n)
    open_page(browser, make_report(run.folder))
    assert ("No particle was found." in find(browser, "#particles").text) == (n == 0)
    check_quiet(browser)


def test_65536_particles_open_and_only_a_few_rows_are_in_the_document(browser, run):
    rng = np.random.default_rng(0)
    table = pd.concat([run.table.head(1)] * 65_536, ignore_index=True)
    run.table = table.assign(particle_id=table.index + 1, label=table.index + 1, score=rng.random(65_536))
    labels = np.zeros(SHAPE, np.int32)
    labels[6, 10, 13] = 65_536
    run.relabel(labels)
    open_page(browser, make_report(run.folder))
    assert browser.execute_script("return labelLayer.data[(6 * 20 + 10) * 28 + 13]") == 65_536
    assert len(browser.find_elements("css selector", "tr[data-row]")) < 60
    browser.execute_script("select(65535, 'table')")
    assert find(browser, "tr[aria-selected=true] td").text == "65536"
    check_quiet(browser)
