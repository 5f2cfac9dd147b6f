"""The record behind README and docs: small files and pictures of real runs, taken from results."""

import json
import shutil
import statistics
import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from offramp.documentation.gallery import take_gallery
from offramp.networks.index import recipe_of
from offramp.tables.files import origin_of, read

# The networks in docs/record/, the folders that their runs fill, and the command.
RUNS = {
    "branchynet": ("results", "snakemake --cores 4"),
    "cpunet": ("results/cpu", "snakemake --cores 4 --configfile examples/cpu.yaml"),
    "checkpoint": ("results/checkpoint", "snakemake --cores 4 --configfile mine.yaml"),
    "fashion_mnist": (
        "results/fashion_mnist",
        "snakemake --cores 4 --configfile examples/fashion_mnist.yaml",
    ),
}
# Those that are held against each other, criterion by criterion.
COMPARED = ("branchynet", "cpunet", "checkpoint")
# The row of the frontiers, in words, by criterion and method; at so many points lost.
CRITERIA_SHOWN = {
    ("entropy", "empirical"): "entropy, the same accuracy at every exit",
    ("entropy", "joint"): "entropy, thresholds chosen together",
    ("max_probability", "joint"): "max probability, chosen together",
    ("margin", "joint"): "margin, chosen together",
    ("energy", "joint"): "energy, chosen together",
    ("patience", "joint"): "patience, chosen together",
    ("agreement", "joint"): "agreement, chosen together",
    ("deferral", "shared"): "one shared cutoff of deferral",
    ("deferral", "joint"): "deferral, chosen together",
}
POINTS_LOST = 0.5
CONTESTANTS = {"cascade": "cascade", "baseline": "plain network", "full": "full network"}
# What is shown of a run, where the run made it.
PICTURES = {
    "branchynet": ("time_accuracy.svg", "leaving.svg", "multiply_adds.svg"),
    "cpunet": (
        "time_accuracy.svg",
        "baseline.png",
        "frontier.png",
        "benchmarks.png",
        "multiply_adds.svg",
    ),
    "checkpoint": (),
    "fashion_mnist": ("time_accuracy.svg",),
}


def take_all(root: Path) -> list[Path]:
    """Take the record of every run that is complete; the folders taken."""
    taken = []
    for network, (results, command) in RUNS.items():
        if (root / results / "summary.json").exists():
            take_run(root / results, root / "docs/record" / network, command)
            taken.append(root / results)
    folders = {name: root / results for name, (results, _) in RUNS.items()}
    take_gallery(folders, root / "docs/record/gallery")
    if (root / "results/coverage.md").exists():
        take_coverage(root / "results", root / "docs")
    if all((root / RUNS[name][0] / "equal_accuracy.parquet").exists() for name in COMPARED):
        write_json(root / "docs/record/frontiers.json", frontiers(root))
    if (root / "results/cpu/baseline.parquet").exists():
        write_json(root / "docs/record/baseline.json", baseline(root, root / "results/cpu"))
    return taken


def take_run(results: Path, record: Path, command: str) -> None:
    """Copy what is shown of one run, with its day; what the run did not make stays as it is."""
    record.mkdir(parents=True, exist_ok=True)
    summary = json.loads((results / "summary.json").read_text())
    write_json(record / "summary.json", without_folders(summary))
    take_policies(results, record)
    for name in PICTURES[record.name]:
        if (results / "figures" / name).exists():
            shutil.copyfile(results / "figures" / name, record / name)
    file = record / "run.json"
    about = json.loads(file.read_text()) if file.exists() else {}
    about |= {"command": command, "measured": day_of(results / "summary.json")}
    take_benchmarks(results, record / "benchmarks.md", about)
    write_json(file, about)


def take_policies(results: Path, record: Path) -> None:
    """Copy the run's policies in the place of those that are there."""
    shutil.rmtree(record / "policies", ignore_errors=True)
    (record / "policies").mkdir()
    for path in sorted((results / "policies").glob("*.json")):
        policy = without_folders(json.loads(path.read_text()))
        (record / "policies" / path.name).write_text(json.dumps(policy, indent=2) + "\n")


def take_benchmarks(results: Path, page: Path, about: dict[str, Any]) -> None:
    """Copy the run's benchmarks to ``page``, all of them or the parts that were measured again, and
    note in ``about`` when and from what commit."""
    if (results / "benchmarks.md").exists():
        shutil.copyfile(results / "benchmarks.md", page)
        day = day_of(results / "benchmarks.md")
        commit = commit_of(results / "benchmarks.parquet")
        about["benchmarks"] = {"measured": day, "commit": commit}
        return
    for part in sorted((results / "measured").glob("*.md")):
        before = page.read_text() if page.exists() else part.read_text()
        titles, whole = with_part(before, part.read_text())
        page.write_text(whole)
        origin = origin_of(read(part.with_suffix(".parquet"), "benchmarks"))
        measured = {"measured": day_of(part), "commit": origin["git_commit"][:12]}
        again = about.setdefault("benchmarks", {}).setdefault("again", {})
        again |= dict.fromkeys(titles, measured)


def without_folders(value: Any) -> Any:
    """The same with weights files by their name alone where their path is one of this machine."""
    if isinstance(value, list):
        return [without_folders(entry) for entry in value]
    if not isinstance(value, dict):
        return value
    return {
        key: Path(entry).name
        if key == "weights" and isinstance(entry, str) and Path(entry).is_absolute()
        else without_folders(entry)
        for key, entry in value.items()
    }


def with_part(page: str, part: str) -> tuple[list[str], str]:
    """The page of all benchmarks with the sections of a part that was measured again, or that are
    new; their titles come first."""
    old = {section.splitlines()[0]: section.rstrip() for section in page.split("\n## ")}
    new = {section.splitlines()[0]: section.rstrip() for section in part.split("\n## ")[1:]}
    return list(new), "\n\n## ".join((old | new).values()) + "\n"


def take_coverage(results: Path, docs: Path) -> None:
    """Copy the page of the coverage study and its figure, which then lies beside it."""
    page = (results / "coverage.md").read_text().replace("figures/coverage.svg", "coverage.svg")
    (docs / "coverage.md").write_text(page)
    shutil.copyfile(results / "figures/coverage.svg", docs / "coverage.svg")


def frontiers(root: Path) -> dict[str, Any]:
    """How many times as fast as the best shared cutoff of the entropy each criterion is, at equal
    accuracy, with its interval, by network."""
    by_network: dict[str, dict[tuple[str, str], list[float]]] = {}
    for network in COMPARED:
        results, _ = RUNS[network]
        table = read(root / results / "equal_accuracy.parquet", "equal_accuracy")
        by_network[network] = {
            (row["criterion"], row["method"]): [
                round(row[f"over_shared{end}"], 2) for end in ("", "_low", "_high")
            ]
            for row in table.to_pylist()
            if row["points_lost"] == POINTS_LOST
            and not row["scaled"]
            and (row["criterion"], row["method"]) in CRITERIA_SHOWN
        }
    rows = [
        {"criterion": words} | {network: by_network[network][kind] for network in COMPARED}
        for kind, words in CRITERIA_SHOWN.items()
    ]
    about = _about(root / "results/equal_accuracy.parquet", "snakemake results/frontiers.md")
    return about | {"points_lost": POINTS_LOST, "rows": rows}


def baseline(root: Path, results: Path) -> dict[str, Any]:
    """The cascade, a plain network and the full one, each with its seconds over the repeats."""
    rows = read(results / "baseline.parquet", "baseline").to_pylist()
    networks = []
    for name, words in CONTESTANTS.items():
        repeats = [row for row in rows if row["network"] == name]
        seconds = [row["seconds"] for row in repeats]
        ends = (min(seconds), max(seconds)) if len(seconds) > 1 else (None, None)
        networks.append(
            {"name": words, "accuracy": repeats[0]["correct"] / repeats[0]["n"]}
            | {"seconds": statistics.median(seconds), "low": ends[0], "high": ends[1]}
        )
    plain = next(row for row in rows if row["network"] == "baseline")
    worse = (-plain[f"difference{end}"] for end in ("", "_high", "_low"))
    command = "snakemake results/cpu/figures/baseline.svg --configfile examples/cpu.yaml"
    return _about(results / "baseline.parquet", command) | {
        "epochs": recipe_of("cpunet_static")["epochs"],
        "networks": networks,
        "plain_worse": {
            end: round(100 * value, 2)
            for end, value in zip(("points", "low", "high"), worse, strict=True)
        },
    }


def _about(table: Path, command: str) -> dict[str, str]:
    return {"measured": day_of(table), "commit": commit_of(table), "command": command}


def write_json(path: Path, value: Any) -> None:
    """As JSON that a diff shows well and that stays small."""
    path.write_text(json.dumps(value, indent=1, ensure_ascii=False) + "\n")


def day_of(path: Path) -> str:
    """The day on which a file was made."""
    return datetime.fromtimestamp(path.stat().st_mtime, UTC).date().isoformat()


def commit_of(table: Path) -> str:
    """The commit whose code made a table, as the table says; another one may be checked out now."""
    return origin_of(read(table, table.stem))["git_commit"][:12]


if __name__ == "__main__":
    taken = take_all(Path.cwd())
    print("taken:", *taken)
    sys.exit(not taken)
