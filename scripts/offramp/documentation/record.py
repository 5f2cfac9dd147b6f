"""The record behind README and docs: small files and pictures of real runs, taken from results."""

import json
import shutil
import subprocess
import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

# The networks in docs/record/, the folders that their runs fill, and the command.
RUNS = {
    "branchynet": ("results", "snakemake --cores 4"),
    "cpunet": ("results/cpu", "snakemake --cores 4 --configfile examples/cpu.yaml"),
}
# What is shown of a run, where the run made it.
PICTURES = (
    "figures/time_accuracy.svg",
    "figures/leaving.svg",
    "figures/rival.png",
    "figures/frontier.png",
    "figures/benchmarks.png",
)


def take_all(root: Path) -> list[Path]:
    """Take the record of every run that is complete; the folders taken."""
    taken = []
    for network, (results, command) in RUNS.items():
        if (root / results / "summary.json").exists():
            take(root / results, root / "docs/record" / network, command)
            taken.append(root / results)
    if (root / "results/coverage.md").exists():
        take_coverage(root / "results", root / "docs")
    return taken


def take(results: Path, record: Path, command: str) -> None:
    """Copy what is shown of one run, with its day; what the run did not make stays as it is."""
    record.mkdir(parents=True, exist_ok=True)
    summary = json.loads((results / "summary.json").read_text())
    write_json(record / "summary.json", summary)
    shutil.rmtree(record / "policies", ignore_errors=True)
    shutil.copytree(results / "policies", record / "policies")
    for name in PICTURES:
        if (results / name).exists():
            shutil.copyfile(results / name, record / Path(name).name)
    about = json.loads((record / "run.json").read_text()) if (record / "run.json").exists() else {}
    about |= {"command": command, "measured": day_of(results / "summary.json")}
    if (results / "benchmarks.md").exists():
        shutil.copyfile(results / "benchmarks.md", record / "benchmarks.md")
        about["benchmarks"] = {
            "measured": day_of(results / "benchmarks.md"),
            "commit": commit_of(results),
        }
    write_json(record / "run.json", about)


def take_coverage(results: Path, docs: Path) -> None:
    """Copy the page of the coverage study and its figure, which then lies beside it."""
    page = (results / "coverage.md").read_text().replace("figures/coverage.svg", "coverage.svg")
    (docs / "coverage.md").write_text(page)
    shutil.copyfile(results / "figures/coverage.svg", docs / "coverage.svg")


def write_json(path: Path, value: Any) -> None:
    """As JSON that a diff shows well and that stays small."""
    path.write_text(json.dumps(value, indent=1, ensure_ascii=False) + "\n")


def day_of(path: Path) -> str:
    """The day on which a file was made."""
    return datetime.fromtimestamp(path.stat().st_mtime, UTC).date().isoformat()


def commit_of(folder: Path) -> str:
    """The commit that is checked out."""
    command = ["git", "-C", str(folder), "rev-parse", "--short=12", "HEAD"]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()


if __name__ == "__main__":
    taken = take_all(Path.cwd())
    print("taken:", *taken)
    sys.exit(not taken)
