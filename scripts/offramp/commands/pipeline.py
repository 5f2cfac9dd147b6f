"""Running the pipeline: which Snakefile, and what a run says to a machine."""

import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import suppress
from importlib.metadata import PackageNotFoundError, files
from pathlib import Path
from typing import IO, Any

from offramp import OfframpError


def snakefile() -> Path:
    """The pipeline's Snakefile: here, in the clone that this library lies in, or installed with it.

    The installed one lacks the weights that ship, so it is enough for saved logits alone.
    """
    places = [Path("Snakefile"), Path(__file__).parents[3] / "Snakefile"]
    with suppress(PackageNotFoundError):  # imported from where it lies
        installed = files("offramp") or []
        places += [Path(str(file.locate())) for file in installed if file.name == "Snakefile"]
    for place in places:
        if place.exists():
            return place
    raise OfframpError("no Snakefile here: go into a clone of the repository, then run again")


def snakemake(
    snakefile: Path,
    cores: int,
    arguments: Sequence[str],
    configs: Sequence[str],
    for_machine: bool,
) -> dict[str, Any]:
    """Run Snakemake in this folder. Returns its ``exit_code``, the ``seconds`` that it took and, if
    ``for_machine``, the ``jobs`` that it wanted, by rule; all that it says then goes to stderr."""
    command = [sys.executable, "-m", "snakemake", "--cores", str(cores), *arguments]
    command += [] if snakefile == Path("Snakefile") else ["--snakefile", str(snakefile)]
    command += ["--configfile", *configs] if configs else []
    start = time.perf_counter()
    if not for_machine:
        code, jobs = subprocess.run(command).returncode, None
    else:
        with subprocess.Popen(
            command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
        ) as process:
            jobs = dict(_jobs(_passed_on(process.stdout)))
        code = process.returncode
    outcome = {"exit_code": code, "seconds": round(time.perf_counter() - start, 3)}
    return outcome | ({} if jobs is None else {"jobs": jobs})


def _passed_on(lines: IO[str] | None) -> Iterator[str]:
    for line in lines or []:
        sys.stderr.write(line)
        yield line


def _jobs(lines: Iterator[str]) -> Iterator[tuple[str, int]]:
    """The rows of Snakemake's table of jobs, in all that it says."""
    inside = False
    for line in lines:
        cells = line.split()
        inside = cells == ["job", "count"] or (inside and len(cells) == 2)
        if inside and cells[1].isdigit() and cells[0] not in ("all", "total"):
            yield cells[0], int(cells[1])
