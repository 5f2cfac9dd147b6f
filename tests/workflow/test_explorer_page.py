"""The interactive page of a finished run in a real browser, against the run's tables and its live
cascade."""

import json
import re
import statistics
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from browser import look, shoot
from made_runs import made_run
from selenium.webdriver.common.by import By
from selenium.webdriver.common.keys import Keys
from selenium.webdriver.support.ui import WebDriverWait
from workflow_helpers import RESULTS, succeed
from workflow_tables import POLICIES, frame, overall

from offramp.data.splits import load_images, open_split
from offramp.inference.cascade import run_cascade
from offramp.networks.loading import load
from offramp.report.explorer import write_explorer
from offramp.scoring.policy import Policy, load_policy, outcome_of_tables
from offramp.scoring.scores import read_scores
from offramp.tables.files import read, read_logits
from offramp.thresholds.evaluation import evaluate
from offramp.thresholds.time_model import fit_time_model

pytest_plugins = ["workflow_helpers", "browser"]
AXE = (Path(__file__).parents[1] / "report/vendor/axe.min.js").read_text()
BATCH = 64
# What the page shows, to the last digit.
SHOWN = """
const exact = (id) => Number(document.getElementById(id).dataset.exact);
const exits = [...document.querySelectorAll("#exits .about")].map((about) => about.dataset);
return {
  correct: exact("accuracy"), seconds: exact("seconds"), speedup: exact("speedup"),
  n: exits.map(({n}) => Number(n)), hits: exits.map(({correct}) => Number(correct)),
}
"""
# A slider moved by hand, and how many milliseconds until everything is drawn anew.
DRAG = """
const done = arguments[0];
const slider = document.querySelector("#exits input[type=range]");
const times = [];
const move = (step) => {
  if (step === 50) return done(times);
  slider.value = 0.2 + 0.012 * step;
  const start = performance.now();
  slider.dispatchEvent(new Event("input", { bubbles: true }));
  requestAnimationFrame(() => {
    document.body.getBoundingClientRect();
    times.push(performance.now() - start);
    setTimeout(() => move(step + 1));
  });
};
move(0);
"""
FAULTS = """
const done = arguments[0];
axe.run().then(({ violations }) => done(violations
  .filter(({ impact }) => ["serious", "critical"].includes(impact))
  .map(({ id, help, nodes }) => [id, help, nodes[0].html.slice(0, 200)])));
"""


@pytest.fixture
def page(finished, browser):
    """The page of the finished run, just opened."""
    return opened(browser, finished / RESULTS / "explorer.html")


def opened(browser, path, view=""):
    browser.get("about:blank")
    browser.get(path.as_uri() + view)
    return browser


@pytest.fixture(scope="module")
def val(finished):
    """What the tables say of the validation samples."""
    results = finished / RESULTS
    scores = read_scores(results / "scores/val.parquet")
    model = fit_time_model(read(results / "timings.parquet", "timings"))
    return SimpleNamespace(scores=scores.scores, correct=scores.correct, model=model)


def shown(page):
    return SimpleNamespace(**page.execute_script(SHOWN))


def type_in(page, label, text):
    field = page.find_element(By.CSS_SELECTOR, f"[aria-label='{label}, as a number']")
    field.send_keys(Keys.CONTROL, "a")
    field.send_keys(text, Keys.TAB)


def thresholds_in(page):
    """The thresholds of the side exits, to the last digit."""
    fields = page.find_elements(By.CSS_SELECTOR, "#exits input[type=text]")
    said = [field.get_attribute("data-exact") for field in fields]
    return tuple(float(threshold) if threshold else None for threshold in said)


def same_as_tables(page, val, thresholds):
    found, policy = shown(page), Policy("entropy", thresholds)
    wanted = evaluate(val.scores, val.correct, policy, val.model)
    assert [len(val.scores), *found.n] == wanted["n"].tolist()
    assert [found.correct, *found.hits] == wanted["correct"].tolist()
    assert found.seconds == pytest.approx(wanted["seconds"][0], rel=1e-12)
    assert found.speedup == pytest.approx(wanted["speedup"], rel=1e-12)


def test_every_cutoff_does_what_the_sweep_says(page, finished):
    sweep = frame(finished, "sweep")
    sweep = sweep[sweep["split"] == "val"]
    assert sweep["cutoff"].nunique() == 21
    for cutoff, rows in sweep.groupby("cutoff"):
        type_in(page, "Cutoff shared by all exits", repr(cutoff))
        found, exits, [total] = shown(page), rows[rows["exit"] > 0], overall(rows).itertuples()
        assert (found.n, found.hits) == (exits["n"].tolist(), exits["correct"].tolist())
        assert found.correct == total.correct
        assert found.seconds == pytest.approx(total.seconds, rel=1e-12)
        assert found.speedup == pytest.approx(total.speedup, rel=1e-12)
        assert page.find_element(By.ID, "accuracy").text == f"{100 * total.accuracy:.2f} %"


@pytest.mark.parametrize("name", [*POLICIES, "full"])
def test_a_policy_of_the_run_is_loaded_to_the_last_digit(page, finished, val, name):
    page.find_element(By.XPATH, f"//fieldset//input[@value='{name}']/..").click()
    path = finished / RESULTS / f"policies/{name}.json"
    wanted = (None,) * (val.scores.shape[1] - 1)
    wanted = wanted if name == "full" else load_policy(path).thresholds
    assert thresholds_in(page) == wanted
    same_as_tables(page, val, wanted)


def test_sliders_move_by_key_and_what_they_give_is_exact(page, val):
    sliders = page.find_elements(By.CSS_SELECTOR, "input[type=range]:enabled")
    assert len(sliders) > 1
    for i, slider in enumerate(sliders):
        before = thresholds_in(page)
        slider.send_keys(Keys.HOME, *[Keys.PAGE_UP] * (i + 2), Keys.ARROW_RIGHT)
        after = thresholds_in(page)
        assert after != before
        same_as_tables(page, val, after)


def test_an_exit_is_switched_off_and_on_again(page, val):
    type_in(page, "Cutoff shared by all exits", "0.7")
    switch = page.find_element(By.CSS_SELECTOR, "#exits input[type=checkbox]")
    switch.click()
    assert thresholds_in(page)[0] is None
    same_as_tables(page, val, thresholds_in(page))
    switch.click()
    assert thresholds_in(page) == (0.7,) * 5


def test_the_cascade_does_what_the_page_says_of_a_copied_policy(page, finished, tmp_path):
    opened(page, finished / RESULTS / "explorer.html", "#thresholds=0.9,off,0.71,0.533,1.2")
    permission = {"permissions": ["clipboardReadWrite", "clipboardSanitizedWrite"]}
    page.execute_cdp_cmd("Browser.grantPermissions", permission)
    page.find_element(By.ID, "copy").click()
    (tmp_path / "copied.json").write_text(
        page.execute_async_script("navigator.clipboard.readText().then(arguments[0])")
    )
    policy = load_policy(tmp_path / "copied.json")
    wanted = Policy("entropy", (0.9, None, 0.71, 0.533, 1.2))
    assert policy._replace(network=None) == wanted
    said = json.loads((tmp_path / "copied.json").read_text())
    saved = json.loads((finished / RESULTS / "policies/best.json").read_text())
    assert said["provenance"] == saved["provenance"]

    split = open_split(finished / "data/digits", "digits", "val", None)
    weights = finished / RESULTS / "model/weights.safetensors"
    network = load("branchynet", 10, weights, torch.device("cpu"))
    parts = [load_images(split, rows, "cpu") for rows in split.batches(BATCH)]
    live = [run_cascade(network, policy, images) for images in parts]
    labels, exits = (torch.cat(part).numpy() for part in zip(*live, strict=True))
    logits = read_logits(finished / RESULTS / "logits/val.parquet")
    tables = outcome_of_tables(policy, logits.logits)
    assert (exits == tables.exits).all() and (labels == tables.labels).all()
    found, right = shown(page), labels == split.labels
    assert found.n == [int((exits == k).sum()) for k in range(1, 7)]
    assert found.hits == [int(right[exits == k].sum()) for k in range(1, 7)]
    assert said["expected"]["accuracy"] == right.mean()


def test_a_point_of_a_frontier_is_loaded_by_key_and_by_click(page, val):
    for kind in ("shared", "targets", "joint"):
        point = page.find_element(By.CSS_SELECTOR, f"#frontier .marks .{kind} [tabindex='0']")
        point.send_keys(Keys.ARROW_LEFT)
        focused = page.switch_to.active_element
        name = focused.get_attribute("aria-label")
        focused.send_keys(Keys.ENTER)
        same_as_tables(page, val, thresholds_in(page))
        assert page.find_element(By.ID, "accuracy").text in name
    before = thresholds_in(page)
    page.find_element(By.CSS_SELECTOR, "#frontier .saved path").click()
    assert thresholds_in(page) != before


def test_a_view_is_sent_by_its_address(page, finished, val):
    type_in(page, "Threshold of exit 2", "0.123456789012345")
    page.find_element(By.CSS_SELECTOR, "#label option:nth-child(5)").click()
    thresholds = thresholds_in(page)
    assert thresholds[1] == 0.123456789012345
    WebDriverWait(page, 5).until(lambda page: "&class=3" in page.current_url)
    view = page.current_url
    opened(page, finished / RESULTS / "explorer.html")
    assert thresholds_in(page) != thresholds
    opened(page, finished / RESULTS / "explorer.html", "#" + view.split("#")[1])
    assert thresholds_in(page) == thresholds
    assert page.find_element(By.ID, "label").get_property("value") == "3"
    same_as_tables(page, val, thresholds)
    opened(page, finished / RESULTS / "explorer.html", "#thresholds=<b>,1")
    assert thresholds_in(page) == load_policy(finished / RESULTS / "policies/best.json").thresholds


def test_pictures_are_of_samples_that_leave_there(page, finished, val):
    type_in(page, "Cutoff shared by all exits", "1.1")
    strips = page.find_elements(By.CLASS_NAME, "strip")
    counts = [len(s.find_elements(By.CSS_SELECTOR, ".tile:not([hidden])")) for s in strips]
    assert counts == [min(30, n) for n in shown(page).n]
    tile = page.find_element(By.CSS_SELECTOR, ".strip .tile:not([hidden])")
    said = tile.get_attribute("aria-label")
    sample = int(said.split(":")[0].split()[-1])
    table = read_scores(finished / RESULTS / "scores/val.parquet").table.to_pandas()
    [row] = table[table["sample_id"] == sample].to_dict("records")
    scores = [float(score) for score in re.findall(r"exit \d (\S+?)(?:,|$)", said)]
    assert scores == pytest.approx([row[f"entropy_{k}"] for k in range(1, 7)], rel=1e-3)
    assert ("wrong" in said) != row["correct_1"]
    tile.send_keys(Keys.ARROW_RIGHT)
    card = page.find_element(By.ID, "card")
    assert card.is_displayed() and len(card.find_elements(By.TAG_NAME, "tr")) == 6
    page.find_element(By.CSS_SELECTOR, "#label option:nth-child(2)").click()
    for tile in page.find_elements(By.CSS_SELECTOR, ".tile.right:not([hidden])"):
        assert ": 0, right" in tile.get_attribute("aria-label")


def test_test_figures_do_not_move_with_the_sliders(page, finished):
    before = page.find_element(By.ID, "test").text
    rows = frame(finished, "verification")
    for row in overall(rows[rows["chosen"]]).itertuples():
        assert f"{100 * row.correct_live / row.n_live:.2f} %" in before
        assert f"{row.speedup_measured:.2f}×" in before
    type_in(page, "Cutoff shared by all exits", "0.31")
    assert page.find_element(By.ID, "test").text == before


def page_in_report(report, name):
    """Open a page from the report's first lines and step into it."""
    wait = WebDriverWait(report, 20)
    for css in (f"a.reference[href*={name}]", "a[iconname=eye]"):
        wait.until(lambda page, css=css: page.find_elements(By.CSS_SELECTOR, css))[0].click()
    report.switch_to.frame(wait.until(lambda page: page.find_element(By.TAG_NAME, "iframe")))
    return wait


def test_the_report_opens_its_pages_however_large_and_their_tables_sort(tree, browser):
    """Chromium shows nothing at a data: address of more than 2 MB."""
    with (tree / RESULTS / "explorer.html").open("a") as file:
        file.write(f"<!-- {'-' * 3_000_000} -->")
    succeed(tree, "--report", "report.html")
    report = opened(browser, tree / "report.html")
    wait = page_in_report(report, "explorer")
    wait.until(lambda page: page.find_element(By.ID, "accuracy").text.endswith(" %"))
    report.switch_to.default_content()
    opened(browser, tree / "report.html")
    wait = page_in_report(report, "summary")
    sortable = "table:has(th[tabindex])"
    table = wait.until(lambda page: page.find_elements(By.CSS_SELECTOR, sortable))[0]
    rows = [row.text for row in table.find_elements(By.CSS_SELECTOR, "tbody tr")]
    orders = []
    for _ in range(2):
        table.find_element(By.CSS_SELECTOR, "th").send_keys(Keys.ENTER)
        orders.append([row.text for row in table.find_elements(By.CSS_SELECTOR, "tbody tr")])
    assert len(rows) > 2 and sorted(orders[0]) == sorted(orders[1]) == sorted(rows)
    assert orders[0] != orders[1]
    report.switch_to.default_content()
    said = report.get_log("browser")
    assert [line["message"] for line in said if line["level"] == "SEVERE"] == []


def test_an_edited_file_of_the_page_makes_it_anew_and_nothing_else(tree):
    with (tree / "scripts/offramp/report/explorer_page/logic.js").open("a") as file:
        file.write("// edited\n")
    assert succeed(tree, "-n").jobs == {"explorer": 1}


@pytest.mark.parametrize("how", ["light", "dark", "phone"])
def test_the_page_is_for_everyone(page, finished, how):
    look(page, how)
    opened(page, finished / RESULTS / "explorer.html")
    widths = "return [document.documentElement.scrollWidth, innerWidth]"
    width, inner = page.execute_script(widths)
    assert width <= inner
    page.execute_script(AXE)
    assert page.execute_async_script(FAULTS) == []
    shoot(page, how, finished / RESULTS / f"explorer/{how}.png")


@pytest.mark.alone
def test_a_drag_is_drawn_at_once(browser, tmp_path):
    images = np.random.default_rng(0).integers(0, 256, (10_007, 8, 8, 3)).astype(np.uint8)
    run = made_run(samples=10_000, exits=6, classes=10, batch_size=256, images=images)
    write_explorer(tmp_path / "explorer.html", run)
    times = opened(browser, tmp_path / "explorer.html").execute_async_script(DRAG)
    assert len(times) == 50
    assert statistics.median(times) < 50


@pytest.mark.parametrize(
    "more", [{"exits": 1}, {"exits": 2}, {"exits": 12}, {"criterion": "energy"}, {"samples": 3}]
)
def test_other_runs_have_a_page_too(browser, tmp_path, more):
    write_explorer(tmp_path / "explorer.html", made_run(**more))
    page = opened(browser, tmp_path / "explorer.html")
    assert page.find_element(By.ID, "accuracy").text.endswith(" %")
    rows = page.find_elements(By.CSS_SELECTOR, "#gallery tr.sample")
    assert len(rows) == sum(min(30, n) for n in shown(page).n)
    page.execute_script(AXE)
    assert page.execute_async_script(FAULTS) == []
