"""Runs of Snakemake as a user starts it, each in a folder of its own; a pytest plugin.

PYTEST_DONT_REWRITE: the tests import it before pytest does, and its asserts carry messages.
"""

import fcntl
import json
import os
import re
import shutil
import subprocess
import sys
import time
from pathlib import Path
from typing import NamedTuple

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import yaml

ROOT = Path(__file__).parents[2]
SNAKEMAKE = str(Path(sys.executable).parent / "snakemake")
RESULTS = Path("results/digits")
SPLITS = {"train": 1258, "val": 180, "test": 359}
EXITS = 6
SMALL = {
    "train": {"epochs": 1, "batch_size": 64},
    "batch_size": 64,
    "sweep": {"cutoffs": 20},
    "calibration": {"targets": [0.6, 0.8, 0.9]},
}
CONFIGS = ("examples/digits.yaml", "small.yaml")
# Rules that stand in for a network's.
OWN_RULES = {"own_logits", "own_costs"}
# Rules that a run of the example has no need of.
UNUSED = {
    *OWN_RULES,
    "compare",
    "ship_logits",
    "benchmark",
    "benchmark_run",
    "benchmarks_page",
    "measured_page",
    "multiply_adds",
    "frontiers",
    "frontiers_page",
    "coverage",
    "coverage_page",
    "deferral",
    "baseline",
    "export",
    "ship",
}


class Run(NamedTuple):
    """A finished run: exit code, stdout and stderr together, wall seconds."""

    code: int
    output: str
    seconds: float

    @property
    def jobs(self) -> dict[str, int]:
        """How many jobs of each rule the run wanted, by its own table, without `all`; the rule
        `figure` counts by the figures that it draws."""
        table = re.search(r"^Job stats:\n.*\n-.*\n((?:\w+ +\d+\n)+)", self.output, re.MULTILINE)
        rows = dict(line.split() for line in table[1].splitlines()) if table else {}
        drawn = re.findall(
            r"^(?:local)?rule figure:\n(?: +.*\n)*?    wildcards: figure=(\w+)", self.output, re.M
        )
        rows |= {f"figure_{name}": "1" for name in drawn}
        return {name: int(n) for name, n in rows.items() if name not in ("all", "total", "figure")}

    @property
    def started(self) -> bool:
        """Whether any job was begun."""
        return bool(re.search(r"^(local)?rule \w+:", self.output, re.MULTILINE))


def environment(**more: str) -> dict[str, str]:
    return {k: v for k, v in os.environ.items() if k != "OFFRAMP_DATA"} | more


def command(*arguments: str, configs=CONFIGS) -> list[str]:
    """The command line; targets come first, since --configfile takes all that follows it."""
    return [SNAKEMAKE, *arguments, *(["--configfile", *configs] if configs else [])]


def snakemake(folder: Path, *arguments: str, configs=CONFIGS, **more_environment: str) -> Run:
    """Run Snakemake to its end in a folder, whatever the end is."""
    start = time.perf_counter()
    done = subprocess.run(
        command(*arguments, configs=configs),
        cwd=folder,
        env=environment(**more_environment),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    return Run(done.returncode, done.stdout, time.perf_counter() - start)


def succeed(folder: Path, *arguments: str, configs=CONFIGS, **more_environment: str) -> Run:
    """Run Snakemake and demand that it ends well."""
    run = snakemake(folder, *arguments, configs=configs, **more_environment)
    assert run.code == 0, run.output
    return run


def config_file(folder: Path, name: str, settings: dict) -> str:
    (folder / name).write_text(yaml.safe_dump(settings))
    return name


def copy_tree(source: Path, target: Path) -> Path:
    """A copy with all dates, which Snakemake decides by."""
    return Path(shutil.copytree(source, target, copy_function=shutil.copy2, symlinks=True))


def rewrite(path: Path, table: pa.Table, **metadata: str) -> None:
    """Write a changed table over the old one, with the old metadata but for what is given."""
    old = pq.read_schema(path).metadata
    new = {key.encode(): value.encode() for key, value in metadata.items()}
    pq.write_table(table.replace_schema_metadata(old | new), path)


def with_cell(table: pa.Table, column: str, row: int, value) -> pa.Table:
    """The table with one cell changed."""
    values = table[column].to_pylist()
    values[row] = value
    array = pa.array(values, type=table.schema.field(column).type)
    return table.set_column(table.column_names.index(column), table.schema.field(column), array)


# What rules share of resources, in rules/common.smk.
SHARED = {
    "**LIGHT,": "budget=1, mem_mb=2000, runtime=10,",
    "**TIMED,": "**EXCLUSIVE, **GPU, budget=BUDGET, mem_mb=4000, runtime=60,",
}


def rule_texts() -> dict[str, str]:
    """The text of every rule, by name, with what it shares spelt out."""
    texts = {}
    for file in (ROOT / "Snakefile", *sorted((ROOT / "rules").glob("*.smk"))):
        text = file.read_text()
        for name, meaning in SHARED.items():
            text = text.replace(name, meaning.replace(", ", ",\n        "))
        blocks = re.findall(r"^rule (\w+):\n((?:(?:[ \t].*)?\n)+)", text, re.MULTILINE)
        texts |= dict(blocks)
    return texts


@pytest.fixture(scope="session")
def pristine(tmp_path_factory):
    """The repository's files as a user clones them, never run in; copy it to change it."""
    folder = tmp_path_factory.mktemp("clone") / "offramp"
    listed = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, text=True)
    assert listed.returncode == 0, listed.stderr
    for name in filter(None, listed.stdout.split("\0")):
        if (ROOT / name).exists():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(ROOT / name, folder / name)
    identity = ["-c", "user.name=test", "-c", "user.email=test@localhost"]
    for arguments in (["init", "-q"], ["add", "-A"], [*identity, "commit", "-qm", "all"]):
        subprocess.run(["git", *arguments], cwd=folder, check=True)
    config_file(folder, "small.yaml", SMALL)
    return folder


@pytest.fixture(scope="session")
def finished_run(pristine, tmp_path_factory):
    """A folder where the whole digits pipeline has run once, and that run. Workers of one test run
    share it: the first makes it, the others wait."""
    base = tmp_path_factory.getbasetemp()
    shared = base.parent if os.environ.get("PYTEST_XDIST_WORKER") else base
    folder, note = shared / "finished/offramp", shared / "finished.json"
    with (shared / "finished.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not note.exists():
            copy_tree(pristine, folder)
            note.write_text(json.dumps(succeed(folder, "--cores", "2")))
    return folder, Run(*json.loads(note.read_text()))


@pytest.fixture(scope="session")
def finished(finished_run):
    """The folder of the finished run: to look at, not to change."""
    return finished_run[0]


@pytest.fixture
def clone(pristine, tmp_path):
    """A fresh clone to act on."""
    return copy_tree(pristine, tmp_path / "offramp")


@pytest.fixture
def tree(finished, tmp_path):
    """A copy of the finished folder to act on."""
    return copy_tree(finished, tmp_path / "offramp")
