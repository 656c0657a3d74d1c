"""The report's page in a browser: it renders, answers to pointer and keyboard, and fits a phone, the dark and paper."""

import base64
import json
import re
import shutil

import pytest

from sol_learner import compare
from sol_symbols import resolve_rule
from sol_symbols.cli import main

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
DRIVER = shutil.which("chromedriver")
selenium = pytest.importorskip("selenium", reason="selenium is not installed")
pytestmark = pytest.mark.skipif(
    not (CHROMIUM and DRIVER), reason="no Chromium with its driver (Debian: chromium, chromium-driver)"
)
SETTINGS = {
    "episodes": 2, "meta-batch": 2, "validation-episodes": 2, "library-generations": 2, "generations": 2,
    "evaluation-episodes": 3, "prune-episodes": 1, "tuning-episodes": 1, "record-episodes": 2, "max-terms": 5,
}  # fmt: skip
CONTRAST = """
const channel = (v) => (v /= 255) <= 0.03928 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4;
const parse = (text) => text.match(/[\\d.]+/g).map(Number);
const light = ([r, g, b]) => 0.2126 * channel(r) + 0.7152 * channel(g) + 0.0722 * channel(b);
const behind = (node) => { for (; node; node = node.parentElement) {
  const c = parse(getComputedStyle(node).backgroundColor);
  if (c.length < 4 || c[3] > 0) return c; } return [255, 255, 255]; };
const worst = [];
for (const node of document.querySelectorAll("h1,h2,h3,p,small,td,th,li,code,a,caption,figcaption,summary,svg text")) {
  if (!node.textContent.trim() || !node.getClientRects().length) continue;
  const style = getComputedStyle(node);
  const ink = light(parse(node.namespaceURI.endsWith("svg") ? style.fill : style.color));
  const paper = light(behind(node));
  worst.push([(Math.max(ink, paper) + 0.05) / (Math.min(ink, paper) + 0.05), node.outerHTML.slice(0, 80)]);
}
return worst.sort((a, b) => a[0] - b[0])[0];
"""


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    folder = tmp_path_factory.mktemp("runs") / "quadratic"
    words = [word for name, value in SETTINGS.items() for word in (f"--{name}", str(value))]
    assert main(["learn", "quadratic", "--out", str(folder), *words]) == 0
    return folder


@pytest.fixture(scope="module")
def study(tmp_path_factory):
    """The page of a study of two tasks, with seven optimizers, one of which diverges."""
    path = tmp_path_factory.mktemp("studies") / "study.json"
    rules = ["ad*cd where lr = 0.1, T = 60", *(f"{rule} where lr = 0.01" for rule in ("g", "m", "sign(g)", "ad", "rs"))]
    names = [*rules, "exp(9*abs(g))*g where lr = 99"]
    record = {
        "study": {"shows": "Table 9", "title": "toys", "size": "cpu", "notes": ["Small."], "settings": {"a": {"b": 1}}},
        "rules": {"learned": rules[0]},
        "comparisons": [compare(task, names, episodes=3).record(True) for task in ("quadratic", "rosenbrock")],
    }
    path.write_text(json.dumps(record))
    assert main(["report", str(path)]) == 0
    return path.with_suffix(".html")


@pytest.fixture(scope="module")
def browser():
    from selenium import webdriver
    from selenium.webdriver.chrome.service import Service

    options = webdriver.ChromeOptions()
    for argument in ("--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage"):
        options.add_argument(argument)
    options.binary_location = CHROMIUM
    options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
    driver = webdriver.Chrome(options=options, service=Service(DRIVER))
    yield driver
    driver.quit()


@pytest.fixture
def shown(browser, request):
    """Open the page of the run or of the study: ``shown(width, dark, of)``."""

    def show(width=1200, dark=False, of="run"):
        path = request.getfixturevalue(of)
        metrics = {"width": width, "height": 900, "deviceScaleFactor": 1, "mobile": width < 500}
        browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", metrics)
        features = [{"name": "prefers-color-scheme", "value": "dark" if dark else "light"}]
        browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": features})
        browser.get((path / "report.html" if path.is_dir() else path).as_uri())
        return browser

    return show


def visible_rules(browser):
    articles = browser.find_elements("css selector", "[data-choice]")
    return [int(article.get_attribute("data-choice")) for article in articles if article.is_displayed()]


def test_it_renders_without_a_word_on_the_console_and_without_a_request(shown, run):
    page = shown()
    assert "quadratic" in page.title
    assert page.get_log("browser") == []
    requests = [m for m in re.findall(r'"url":"([^"]*)"', str(page.get_log("performance"))) if m.startswith("http")]
    assert requests == []
    formula = page.find_element("css selector", ".equations math")
    assert formula.size["width"] > 20
    assert formula.size["height"] > 10
    terms = page.find_elements("css selector", ".equations .formula:last-child math")
    assert len(terms) == 1 + len(resolve_rule(str(run)).expression.as_ordered_terms())


def test_the_pointer_and_the_keyboard_choose_a_formula(shown):
    from selenium.webdriver import ActionChains, Keys

    page = shown()
    marks = page.find_elements("css selector", "[data-mark]")
    selected = visible_rules(page)
    assert len(selected) == 1
    assert len(marks) >= 3
    ActionChains(page).scroll_to_element(marks[0]).move_to_element(marks[0]).perform()
    assert visible_rules(page) == [0]
    assert marks[0].get_attribute("aria-pressed") == "true"
    marks[0].send_keys(Keys.ARROW_RIGHT)
    assert visible_rules(page) == [1]
    assert page.switch_to.active_element == marks[1]
    marks[1].send_keys(Keys.END)
    assert visible_rules(page) == [len(marks) - 1]
    assert [mark.get_attribute("tabindex") for mark in marks].count("0") == 1


def test_values_are_read_off_the_curves(shown):
    from selenium.webdriver import ActionChains

    page = shown()
    chart = page.find_element("css selector", ".comparison svg[data-lines]")
    ActionChains(page).scroll_to_element(chart).move_to_element(chart).perform()
    values = [output.text for output in page.find_elements("css selector", ".comparison .wide output")]
    assert len(values) == 3
    assert all(re.fullmatch(r"[\d.e-]+ at \d+", value) for value in values)
    assert page.find_element("css selector", ".comparison .cursor").get_attribute("visibility") == "visible"


@pytest.mark.parametrize("of", ["run", "study"])
@pytest.mark.parametrize("width", [320, 360, 768, 1600])
def test_nothing_is_wider_than_the_screen(shown, width, of):
    page = shown(width, of=of)
    page.execute_script("document.querySelectorAll('details').forEach((d) => (d.open = true))")
    assert page.execute_script("return document.documentElement.scrollWidth") <= width
    wide = "return [...document.querySelectorAll('main *')].filter((e) => !e.closest('.formula, pre, svg') && "
    wide += "e.getBoundingClientRect().right > innerWidth + 1).map((e) => e.outerHTML.slice(0, 80))"
    assert page.execute_script(wide) == []
    small = (
        "return Math.min(...[...document.querySelectorAll('svg text')].map((e) => e.getBoundingClientRect().height))"
    )
    assert page.execute_script(small) >= 9


@pytest.mark.parametrize("of", ["run", "study"])
@pytest.mark.parametrize("dark", [False, True])
def test_text_stands_out(shown, dark, of):
    page = shown(dark=dark, of=of)
    page.execute_script("document.querySelectorAll('details').forEach((d) => (d.open = true))")
    background = page.execute_script("return getComputedStyle(document.body).backgroundColor")
    assert (sum(map(int, re.findall(r"\d+", background)[:3])) < 150) == dark
    ratio, where = page.execute_script(CONTRAST)
    assert ratio >= 4.5, where


@pytest.mark.parametrize("of", ["run", "study"])
def test_every_control_and_picture_has_a_name(shown, of):
    page = shown(of=of)
    nameless = "return [...document.querySelectorAll('a, button, [role=button], svg[role], summary')].filter((e) => "
    nameless += "!(e.getAttribute('aria-label') || e.textContent).trim()).length"
    assert page.execute_script(nameless) == 0
    assert page.find_element("css selector", "html").get_attribute("lang") == "en"
    labels = "return [...document.querySelectorAll('svg.chart')].map((e) => e.querySelectorAll('.label').length)"
    assert {*page.execute_script(labels)} == {2}  # both axes


def test_paper_has_every_formula_of_the_front_and_all_settings(shown, tmp_path):
    page = shown()
    page.execute_cdp_cmd("Emulation.setEmulatedMedia", {"media": "print"})
    assert len(visible_rules(page)) == len(page.find_elements("css selector", "[data-mark]"))
    pdf = base64.b64decode(page.execute_cdp_cmd("Page.printToPDF", {})["data"])
    assert pdf.startswith(b"%PDF")


def test_a_study_renders_and_its_names_single_out_curves(shown):
    from selenium.webdriver import ActionChains

    page = shown(of="study")
    assert "Table 9" in page.title
    assert page.get_log("browser") == []
    assert not re.search(r'"url":"http', str(page.get_log("performance")))
    figure = page.find_element("css selector", ".comparison figure")
    opacity = "return [...arguments[0].querySelectorAll('.series')].map((line) => getComputedStyle(line).opacity)"
    assert {*page.execute_script(opacity, figure)} == {"1"}
    names = figure.find_elements("css selector", "button.key")
    ActionChains(page).scroll_to_element(names[2]).move_to_element(names[2]).perform()
    assert [n for n, value in enumerate(page.execute_script(opacity, figure)) if value == "1"] == [2]
    names[2].click()
    ActionChains(page).move_to_element(page.find_element("css selector", "h1")).perform()
    assert names[2].get_attribute("aria-pressed") == "true"
    assert [n for n, value in enumerate(page.execute_script(opacity, figure)) if value == "1"] == [2]
    styles = "return [...arguments[0].querySelectorAll('.line')].map((e) => getComputedStyle(e)).map((s) => "
    styles += "s.stroke + s.strokeDasharray)"
    assert len({*page.execute_script(styles, figure)}) == len(names) == 7


def test_nothing_of_a_study_is_cut_off_on_paper(shown):
    page = shown(width=760, of="study")
    page.execute_cdp_cmd("Emulation.setEmulatedMedia", {"media": "print"})
    page.execute_script("document.querySelectorAll('details').forEach((d) => (d.open = true))")
    cut = "return [...document.querySelectorAll('.scroll')].filter((e) => e.scrollWidth > e.clientWidth + 1).length"
    assert page.execute_script(cut) == 0
    assert page.execute_script("return document.documentElement.scrollWidth") <= 760


def test_without_a_script_everything_is_there(browser, shown):
    browser.execute_cdp_cmd("Emulation.setScriptExecutionDisabled", {"value": True})
    try:
        page = shown()
        assert len(visible_rules(page)) >= 3
    finally:
        browser.execute_cdp_cmd("Emulation.setScriptExecutionDisabled", {"value": False})


def test_a_file_is_downloaded(browser, shown, run, tmp_path):
    import time

    behavior = {"behavior": "allow", "downloadPath": str(tmp_path)}
    browser.execute_cdp_cmd("Browser.setDownloadBehavior", behavior)
    page = shown()
    page.execute_script("document.querySelector('a[download=\"optimizer.py\"]').click()")
    for _ in range(100):
        if (tmp_path / "optimizer.py").exists():
            break
        time.sleep(0.1)
    assert (tmp_path / "optimizer.py").read_bytes() == (run / "optimizer.py").read_bytes()
