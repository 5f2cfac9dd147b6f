"""README and docs, rendered from their templates and the record of real runs: `make docs`.

The templates lie in docs/templates/, the record in docs/record/ (taken from results by
`offramp.documentation.record`). Numbers stand in the record alone, so new weights can't leave old
sentences.
"""

import json
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import yaml
from jinja2 import Environment, FileSystemLoader, StrictUndefined, select_autoescape

from offramp.documentation.gallery import FIGURES as PICTURED
from offramp.report.captions import CAPTIONS

Rows = list[dict[str, str]]
NETWORKS = ("branchynet", "cpunet")
RUNS = (*NETWORKS, "checkpoint", "fashion_mnist")
# A longer default stands beside the description, so that its column stays narrow.
LONGEST = 40
# Records of a single file.
SINGLE = ("baseline", "frontiers", "gpu", "commands")


def pages(root: Path) -> dict[str, str]:
    """The text of every rendered file, by its path from the root."""
    environment = Environment(
        loader=FileSystemLoader(root / "docs/templates"),
        autoescape=select_autoescape(),
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    environment.filters |= {"percent": percent, "points": points, "number": number}
    facts = record(root)
    texts = {}
    for name in sorted(environment.list_templates(extensions=["j2"])):
        target = name.removesuffix(".j2")
        if not target.startswith("_"):
            path = target if target == "README.md" else f"docs/{target}"
            text = environment.get_template(name).render(facts)
            texts[path] = re.sub(r"[ \t]+$", "", text, flags=re.MULTILINE)
    return texts


def record(root: Path) -> dict[str, Any]:
    """All that templates may speak of."""
    folder = root / "docs/record"
    facts = {name: json.loads((folder / f"{name}.json").read_text()) for name in SINGLE}
    for name in RUNS:
        summary = json.loads((folder / name / "summary.json").read_text())
        facts[name] = summary | json.loads((folder / name / "run.json").read_text())
    schema = yaml.safe_load((root / "rules/config.schema.yaml").read_text())
    return facts | {
        "bench": {
            path.parent.name: tables_of(path) for path in sorted(folder.glob("*/benchmarks.md"))
        },
        "coverage": tables_of(root / "docs/coverage.md"),
        "sections": list(config_sections(schema)),
        "gallery": PICTURED,
        "captions": CAPTIONS,
        "policies": policies,
        "scale": scale,
        "cell": cell,
        "strip": strip,
    }


def policies(run: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    """The policies of a run, each with its name, what it loses, and its live figures."""
    full = run["full_network"]["test"]["accuracy"]
    chosen = {
        f"cutoff {run['task_1a']['cutoff']:g} at every exit (1a)": run["task_1a"],
        f"{run['task_2a']['target']:.0%} wanted, calibrated on val (2a)": run["task_2a"],
        f"best shared cutoff (1b): {origin(run['task_1b']['best'])}": run["task_1b"]["best"],
        f"best calibrated on train (2b): {origin(run['task_2b']['best'])}": run["task_2b"]["best"],
        f"best of all: {origin(run['best'])}": run["best"],
    }
    for name, policy in chosen.items():
        live = policy["live"]
        lost = {"points": live["accuracy"] - full, "low": None, "high": None}
        yield {"name": name, "against": policy.get("against_full_network", lost), **live}


def origin(policy: Mapping[str, Any]) -> str:
    """Where a policy comes from, in words."""
    source = policy["origin"]
    if source is None:
        return "none qualifies, all exits disabled"
    if "cutoff" in source:
        return f"cutoff {source['cutoff']:.4f}"
    return f"{100 * source['target']:g}% wanted, {source['method']} on {source['calibrated_on']}"


def tables_of(path: Path) -> dict[str, Rows]:
    """The first table under each heading of a page, as rows by column name; a column without one is
    called by its place."""
    tables: dict[str, Rows] = {}
    title, header = "", list[str]()
    for line in path.read_text().splitlines():
        if line.startswith("#"):
            title, header = line.lstrip("# "), []
        elif line.startswith("| "):
            cells = [text.strip() for text in line.strip("|").split("|")]
            if not header:
                header = [text or f"column {place}" for place, text in enumerate(cells, 1)]
            elif not set(cells) <= {"---"}:
                tables.setdefault(title, []).append(dict(zip(header, cells, strict=True)))
    return tables


def cell(rows: Rows, column: str, **where: str) -> str:
    """One cell of a table of a page, of the only row that has these values; a column is named by
    its beginning."""
    fits = [
        row
        for row in rows
        if all(_cell_of(row, name.replace("_", " ")) == text for name, text in where.items())
    ]
    if len(fits) != 1:
        raise ValueError(f"{len(fits)} rows, not one, with {where}")
    return _cell_of(fits[0], column)


def _cell_of(row: Mapping[str, str], column: str) -> str:
    return next(value for name, value in row.items() if name.startswith(column))


def config_sections(schema: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    """The config by section: first the keys that have none, then one section per key that holds
    others."""
    keys = schema["properties"]
    plain = {name: key for name, key in keys.items() if "properties" not in key}
    yield {"name": "", "description": "", "keys": list(config_keys(plain))}
    for name, key in keys.items():
        if "properties" in key:
            inner = list(config_keys(key["properties"]))
            yield {"name": name, "description": key["description"], "keys": inner}


def config_keys(keys: Mapping[str, Any], path: str = "") -> Iterator[dict[str, str]]:
    """Every key, with those that it holds by dotted names: its description, default and values."""
    for name, key in keys.items():
        if "properties" in key:
            yield {"name": path + name, "default": "", "description": key["description"]}
            yield from config_keys(key["properties"], f"{path}{name}.")
            continue
        words = key["description"]
        if "enum" in key:
            words += " One of " + ", ".join(f"`{value}`" for value in key["enum"]) + "."
        default = f"`{json.dumps(key['default'])}`" if "default" in key else ""
        if len(default) > LONGEST:
            words, default = f"{words} Default: {default}.", "a list"
        yield {"name": path + name, "default": default, "description": words}


def percent(share: float, digits: int = 2) -> str:
    """A share as 83.42%."""
    return f"{share:.{digits}%}"


def points(difference: Mapping[str, float | None]) -> str:
    """A difference in points of accuracy, with its interval if there is one."""
    low, high = difference["low"], difference["high"]
    text = f"{100 * (difference['points'] or 0):+.2f}"
    return text if low is None or high is None else f"{text} [{100 * low:+.2f}, {100 * high:+.2f}]"


def number(value: float, digits: int = 2) -> str:
    """A number with so many digits after the point, thousands apart."""
    return f"{value:,.{digits}f}"


def scale(low: float, high: float, start: float, end: float) -> Any:
    """From values between low and high to pixels between start and end."""
    return lambda value: round(start + (value - low) / (high - low) * (end - start), 1)


def strip(text: str) -> str:
    """A median without the bracket after it."""
    return re.sub(r" \[.*\]", "", text)


def main(root: Path) -> None:
    """Write every page."""
    for path, text in pages(root).items():
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        (root / path).write_text(text)
        print(path)


if __name__ == "__main__":
    main(Path.cwd())
