"""README and docs: rendered from the record, short, complete, and without dead links."""

import json
import re
from itertools import takewhile
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
import yaml
from conftest import ORIGIN, faults
from PIL import Image

from offramp.documentation import gallery, record
from offramp.documentation import pages as docs
from offramp.tables import schemas as tables
from offramp.tables.files import write

ROOT = Path(__file__).parents[2]
RENDERED = docs.pages(ROOT)
GUIDES = sorted((ROOT / "docs/guides").glob("*.md"))
PAGES = [
    ROOT / "README.md",
    ROOT / "CONTRIBUTING.md",
    ROOT / "results/README.md",
    *sorted((ROOT / "docs").rglob("*.md")),
]
SCHEMA = yaml.safe_load((ROOT / "rules/config.schema.yaml").read_text())
CONFIG = yaml.safe_load((ROOT / "config.yaml").read_text())
OPTIONAL = ("baseline.", "logits.", "costs.", "train.")
SCHEMAS = {
    name.lower(): value for name, value in vars(tables).items() if isinstance(value, pa.Schema)
} | {"logits": tables.logits_schema(6, 10), "scores": tables.scores_schema(6, "entropy")}


@pytest.mark.parametrize("path", RENDERED)
def test_what_is_committed_is_what_the_record_gives(path):
    assert (ROOT / path).read_bytes() == RENDERED[path].encode(), "run `make docs`"


def test_every_template_is_rendered():
    names = {path.name for path in (ROOT / "docs/templates").iterdir()}
    rendered = {f"{Path(path).name}.j2" for path in RENDERED}
    assert {name for name in names if not name.startswith("_")} == rendered


def test_readme_is_short_and_says_at_once_what_this_is():
    lines = (ROOT / "README.md").read_text().splitlines()
    assert len(lines) <= 80
    assert len(lines[2].split()) <= 20
    assert sum(line.startswith("- **") for line in lines) == 5


@pytest.mark.parametrize("guide", GUIDES, ids=lambda path: path.stem)
def test_a_guide_is_short(guide):
    assert len(guide.read_text().splitlines()) <= 50


@pytest.mark.parametrize("page", ["results", "benchmarks"])
def test_a_table_of_results_has_at_most_six_rows(page):
    lines = (ROOT / f"docs/{page}.md").read_text().splitlines()
    for place, line in enumerate(lines):
        if line.startswith("| ---"):
            assert len(list(takewhile(lambda row: row.startswith("|"), lines[place + 1 :]))) <= 6


@pytest.mark.parametrize("page", PAGES, ids=lambda path: str(path.relative_to(ROOT)))
def test_links_lead_somewhere(page):
    text = re.sub(r"```.*?```", "", page.read_text(), flags=re.DOTALL)
    for link in re.findall(r"\]\(([^)\s]+)\)", text):
        if "://" in link:
            continue
        path, _, place = link.partition("#")
        target = page.parent / path if path else page
        assert target.exists(), link
        if place:
            assert place in anchors(target), link


def anchors(page: Path) -> set[str]:
    """The anchors of a page's headings, as GitHub makes them."""
    headings = re.findall(r"^#+ (.+)$", page.read_text(), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", text.lower()).replace(" ", "-") for text in headings}


def test_every_page_is_linked_from_readme_or_from_a_page_that_is():
    seen, waiting = set(), [ROOT / "README.md"]
    while waiting:
        page = waiting.pop()
        seen.add(page)
        for link in re.findall(r"\]\(([^)#\s]+\.md)", page.read_text()):
            target = (page.parent / link).resolve()
            if "://" not in link and target not in seen:
                waiting.append(target)
    assert set((ROOT / "docs").rglob("*.md")) <= seen


@pytest.mark.parametrize("name", SCHEMAS)
def test_every_column_is_described(name):
    sections = re.split(r"^## ", (ROOT / "docs/outputs.md").read_text(), flags=re.MULTILINE)
    file = f"{name}/" if name in ("logits", "scores") else f"{name}.parquet"
    section = next(section for section in sections if section.startswith(file))
    first_cells = " ".join(re.findall(r"^\|([^|]*)\|", section, re.MULTILINE))
    described = set(re.findall(r"`(\w+)`", first_cells))
    per_exit = {f"{c}_{k}" for c in ("exit", "entropy", "correct") for k in range(2, 7)}
    assert set(SCHEMAS[name].names) - per_exit <= described


def keys(schema: dict, config: dict | None, path: str = ""):
    """Every key of the schema: its dotted name, what the schema says of it, and its value."""
    for name, key in schema["properties"].items():
        value = None if config is None else config.get(name)
        yield path + name, key, value
        if "properties" in key:
            yield from keys(key, value, f"{path}{name}.")


@pytest.mark.parametrize(
    ("name", "key", "value"), list(keys(SCHEMA, CONFIG)), ids=[n for n, *_ in keys(SCHEMA, CONFIG)]
)
def test_every_key_of_the_config_is_described_with_its_default(name, key, value):
    assert key["description"].endswith(".")
    is_section = "properties" in key and "default" not in key
    if not is_section and not name.startswith(OPTIONAL):  # what may be left out has none
        assert key["default"] == value


def test_the_snippet_of_readme_runs(monkeypatch):
    monkeypatch.chdir(ROOT)
    snippet = re.search(r"```python\n(.*?)```", (ROOT / "README.md").read_text(), re.DOTALL)[1]
    names: dict = {}
    exec(snippet, names)
    assert names["labels"].shape == names["exits"].shape == (256,)


def test_the_record_is_small():
    for file in (ROOT / "docs/record").rglob("*.json"):
        assert file.stat().st_size < 60_000, file


@pytest.mark.parametrize("network", docs.NETWORKS)
def test_what_is_shown_of_a_network_is_of_the_weights_that_ship(network):
    index = json.loads((ROOT / "weights/index.json").read_text())
    folder = ROOT / "docs/record" / network
    summary = json.loads((folder / "summary.json").read_text())
    shipped = index[f"{network}.safetensors"]["sha256"]
    assert summary["about"]["weights_sha256"] == shipped
    for policy in (folder / "policies").glob("*.json"):
        assert json.loads(policy.read_text())["provenance"]["weights_sha256"] == shipped


def test_a_record_is_taken_of_what_a_run_made(tmp_path):
    for name in ("summary.json", "policies/best.json"):
        source = ROOT / "docs/record/branchynet" / name
        target = tmp_path / "results" / name
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(source.read_bytes())
    (tmp_path / "results/figures").mkdir()
    (tmp_path / "results/figures/coverage.svg").write_text("<svg/>")
    (tmp_path / "results/figures/leaving.svg").write_text("<svg/>")
    (tmp_path / "results/coverage.md").write_text("![rates](figures/coverage.svg)\n")
    assert record.take_all(tmp_path) == [tmp_path / "results"]
    taken = tmp_path / "docs/record/branchynet"
    summary = (taken / "summary.json").read_text()
    assert summary == (ROOT / "docs/record/branchynet/summary.json").read_text()
    assert json.loads((taken / "run.json").read_text())["command"] == "snakemake --cores 4"
    assert (taken / "policies/best.json").exists() and (taken / "leaving.svg").exists()
    assert (tmp_path / "docs/coverage.md").read_text() == "![rates](coverage.svg)\n"
    assert (tmp_path / "docs/coverage.svg").exists()


def test_a_part_measured_again_takes_the_place_of_its_sections_and_brings_new_ones():
    page = "# All\n\nhead\n\n## A\n\nold a\n\n## B\n\nold b\n"
    part = "# Part\n\nother\n\n## B\n\nnew b\n\n## C\n\nnew c\n"
    titles, whole = record.with_part(page, part)
    assert titles == ["B", "C"]
    assert whole == "# All\n\nhead\n\n## A\n\nold a\n\n## B\n\nnew b\n\n## C\n\nnew c\n"
    assert record.with_part(part, part) == (titles, part)


def test_no_record_is_taken_where_nothing_ran(tmp_path):
    assert record.take_all(tmp_path) == []


PAGE = """# Page

## First

|  | unit |
| --- | --- |
| a | 1 [0, 2] |
| b | 3 |
"""


def test_tables_of_a_page_are_read_by_heading_and_column(tmp_path):
    (tmp_path / "page.md").write_text(PAGE)
    rows = docs.tables_of(tmp_path / "page.md")["First"]
    assert docs.strip(docs.cell(rows, "unit", column_1="a")) == "1"
    with pytest.raises(ValueError, match="0 rows"):
        docs.cell(rows, "unit", column_1="c")


@pytest.mark.parametrize(
    ("difference", "words"),
    [
        ({"points": -0.0025, "low": -0.004, "high": -0.0011}, "-0.25 [-0.40, -0.11]"),
        ({"points": -0.0025, "low": None, "high": None}, "-0.25"),
        ({"points": -0.0, "low": None, "high": None}, "+0.00"),
    ],
)
def test_points_have_a_sign_and_an_interval(difference, words):
    assert docs.points(difference) == words


@pytest.mark.parametrize(("message", "test"), faults(), ids=lambda value: value[-60:])
def test_a_documented_fault_is_met_by_the_test_it_names(message, test):
    path, name = test.split("::")
    found = re.findall(
        r"^def (\w+)\((.*?)(?=^(?:def|class|@|[A-Z])|\Z)",
        (ROOT / path).read_text(),
        re.DOTALL | re.MULTILINE,
    )
    bodies = dict(found)
    assert name in bodies, f"no {test}"
    asking, before = {"documented"}, set()
    while asking != before:  # itself, or through what it calls
        before = set(asking)
        asking |= {f for f, body in found if any(f"{word}(" in body for word in before)}
    assert name in asking


@pytest.mark.parametrize("page", sorted((ROOT / "docs").rglob("*.md")), ids=lambda page: page.stem)
def test_commands_of_a_page_run_as_they_stand(page):
    """In a shell that has nothing activated, and without the profile of this folder."""
    plain = re.sub(r"^ *```.*?^ *```", "", page.read_text(), flags=re.DOTALL | re.M)
    program = re.findall(r"^ {4,}((?:snakemake |offramp |python examples).*)", plain, re.M)
    if program:
        assert ".venv/bin/activate" in plain[: plain.index(f"    {program[0]}")]
    needs_none = r" (-n|--unlock|--report|--profile)\b"
    runs = [line for line in program if "snakemake " in line and not re.search(needs_none, line)]
    assert [line for line in runs if "--cores" not in line] == []


def test_the_gallery_is_of_pictures_that_are_there_and_small():
    folder = ROOT / "docs/record/gallery"
    named = re.findall(r"record/gallery/(\w+\.png)", (ROOT / "docs/gallery.md").read_text())
    assert set(named) == {path.name for path in folder.iterdir()} and len(named) > 15
    assert sum(path.stat().st_size for path in folder.iterdir()) < 1_500_000


def test_a_picture_is_taken_small_and_the_same_each_time(tmp_path):
    shades = np.random.default_rng(0).integers(0, 255, (300, 1660, 3)).astype(np.uint8)
    (tmp_path / "run/figures").mkdir(parents=True)
    Image.fromarray(shades).save(tmp_path / "run/figures/baseline.png")
    for place in ("a", "b"):
        gallery.take_gallery({"cpunet": tmp_path / "run"}, tmp_path / place)
    [first], [again] = ([*(tmp_path / place).iterdir()] for place in ("a", "b"))
    assert first.name == "cpunet_baseline.png" and first.read_bytes() == again.read_bytes()
    with Image.open(first) as taken:
        assert taken.size == (gallery.WIDTH, 150)


def test_a_record_names_the_commit_whose_code_made_the_table(tmp_path):
    row = {"exit": 1, "temperature": 1.0, "n": 5, "nll": 0.1, "nll_scaled": 0.1}
    table = pa.Table.from_pylist([row], schema=tables.TEMPERATURES)
    path = tmp_path / "temperatures.parquet"
    write(path, table, "temperatures", ORIGIN | {"git_commit": "0123456789abcdef" * 2})
    assert record.commit_of(path) == "0123456789ab"
