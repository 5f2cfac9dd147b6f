"""The workflow's own cost: a cold run, by Snakemake's account of every rule."""

import csv
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

from offramp import OfframpError
from offramp.studies.bench_live import row
from offramp.workflow.paths import PROJECT

# What is not there, or not used, where a run is cold; data lie where the run is.
LEFT_OUT = {".git", ".snakemake", ".venv", "data", "results"}
# What Snakemake and Python take to start a rule's script.
NOTHING = """
rule nothing:
    output: touch("nothing/{n}")
    benchmark: "nothing/{n}.tsv"
    script: "nothing.py"
"""


def cold_run(
    config: Mapping[str, Any], weights: str, data: str | Path, files: Mapping[str, str]
) -> list[dict]:
    """Rows of seconds: of `snakemake --cores 4` by the clock, of each of its rules, of a rule that
    does nothing.

    Runs in a folder of its own with links to the project's files and to ``data``, the folder of all
    datasets. ``files`` has the file in rules/ by rule. Raises OfframpError when a run fails.
    """
    with tempfile.TemporaryDirectory() as folder:
        tree = Path(folder)
        (tree / "data").symlink_to(Path(data).absolute())
        for path in PROJECT.iterdir():
            if path.name not in LEFT_OUT:
                (tree / path.name).symlink_to(path)
        model = config["model"] | {"weights": str(Path(weights).absolute())}
        cold = {**config, "model": model, "results": "results"}
        (tree / "cold.yaml").write_text(yaml.safe_dump(cold))
        seconds = _snakemake(tree, "all", "--cores", "4", "--configfile", "cold.yaml")
        rows = [row("run", "the whole run", 1, seconds, "seconds")]
        for name, seconds in _account(tree / "results/benchmarks"):
            rule = name if name in files else name.rpartition("_")[0]
            rows.append(row("run", name, 1, seconds, "seconds", case=files[rule]))
        (tree / "nothing.smk").write_text(NOTHING)
        (tree / "nothing.py").touch()
        targets = [f"nothing/{n}" for n in range(3)]
        _snakemake(tree, *targets, "--cores", "1", "--snakefile", "nothing.smk")
        for n, (_, seconds) in enumerate(_account(tree / "nothing"), 1):
            rows.append(row("run", "a rule that does nothing", n, seconds, "seconds"))
    return rows


def _snakemake(folder: Path, *arguments: str) -> float:
    """Seconds by the clock of a run there."""
    # Beside this Python; a conda environment has none, so then the user's own.
    places = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
    program = shutil.which("snakemake", path=places) or "snakemake"
    start = time.perf_counter()
    process = subprocess.run([program, *arguments], cwd=folder)
    if process.returncode:
        raise OfframpError(f"`snakemake {' '.join(arguments)}` failed, as said above")
    return time.perf_counter() - start


def _account(folder: Path) -> list[tuple[str, float]]:
    """Name and seconds of every job that Snakemake noted there."""
    jobs = []
    for path in sorted(folder.glob("*.tsv")):
        with path.open() as file:
            jobs += [(path.stem, float(job["s"])) for job in csv.DictReader(file, delimiter="\t")]
    return jobs
