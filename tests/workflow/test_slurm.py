"""The whole workflow through the Slurm executor, on stand-ins for Slurm that compute nothing."""

import json
import os
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path
from typing import NamedTuple

import pytest
from snakemake.utils import available_cpu_count
from workflow_helpers import ROOT, UNUSED, rule_texts

from offramp.tables.files import write
from offramp.tables.schemas import TRAINING

# The fixtures are costly: one worker makes them.
pytestmark = pytest.mark.xdist_group("slurm")

CONFIG = "examples/digits.yaml"
# Not submitted: local rules, and those that a run of the example has no need of.
LOCAL = {"all", "download"} | UNUSED
TIMING = {"logits", "probe", "verification"}
SLURM = ["sbatch", "sacct", "sacctmgr", "scancel", "scontrol", "sinfo", "squeue"]

# `sbatch` makes the files of the job that it is given and notes its arguments; `sacct` says of all
# jobs so far that they are done, and notes that it said so.
STAND_IN = r"""
import json, os, re, sys
from pathlib import Path

here, name, given = Path(__file__).parent, Path(sys.argv[0]).name, sys.argv[1:]
events = here / "events.jsonl"

def note(**event):
    with events.open("a") as file:
        file.write(json.dumps(event) + "\n")

if name == "sbatch":
    job = re.search(r"--target-jobs '?([^' ]+)", given[-1])[1]
    for path in map(Path, json.loads((here / "files.json").read_text())[job]):
        path.parent.mkdir(parents=True, exist_ok=True)
        # What was trained is asked for its recipe; an empty file could not tell.
        known = here / path.name
        path.write_bytes(known.read_bytes() if path.name == "training.parquet" else b"")
    note(id=os.getpid(), job=job, given=given)
    print(os.getpid())
elif name in ("sacct", "squeue") and any("JobIdRaw" in word or "%i" in word for word in given):
    seen = [json.loads(line) for line in events.read_text().splitlines()]
    done = [event["id"] for event in seen if "id" in event]
    note(done=done)
    print(*(f"{id}|COMPLETED" for id in done), sep="\n")
elif name == "scontrol":
    print("MaxArraySize = 1001\nMinJobAge = 300 sec")
elif name == "sacctmgr":
    print("abc")
"""


class Job(NamedTuple):
    """What a rule asks for, as a dry run tells it."""

    rule: str
    files: list[str]
    threads: int
    resources: dict[str, str]


class Submission(NamedTuple):
    """One call of sbatch, and the rules whose jobs were not yet known to be done."""

    job: str
    given: list[str]
    beside: list[str]

    @property
    def rule(self) -> str:
        return self.job.split(":")[0]

    @property
    def command(self) -> list[str]:
        return shlex.split(value(self.given, "--wrap"))


def value(words: list[str], *names: str) -> str | None:
    """What follows an option, given as `-t 10` or as `--time=10`."""
    for word, following in zip(words, [*words[1:], ""], strict=True):
        for name in names:
            if word == name:
                return following
            if word.startswith(f"{name}="):
                return word.removeprefix(f"{name}=")
    return None


class Cluster:
    """A copy of the repository, and the stand-ins first on PATH."""

    def __init__(self, folder: Path):
        self.copy, self.programs = folder / "copy", folder / "programs"
        tracked = subprocess.check_output(["git", "ls-files", "-z"], cwd=ROOT, text=True)
        for name in filter(None, tracked.split("\0")):
            (self.copy / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(ROOT / name, self.copy / name)
        self.programs.mkdir()
        for name in SLURM:
            (self.programs / name).write_text(f"#!{sys.executable} -IS\n{STAND_IN}")
            (self.programs / name).chmod(0o755)
        self.jobs = self.dry_run()
        files = {name: job.files for name, job in self.jobs.items()}
        (self.programs / "files.json").write_text(json.dumps(files))
        write(self.programs / "training.parquet", TRAINING.empty_table(), "training", {})

    def snakemake(self, *given: str) -> str:
        ours = {"SLURM", "SNAKEMAKE"}
        env = {key: value for key, value in os.environ.items() if key.split("_")[0] not in ours}
        env["PATH"] = os.pathsep.join(
            map(str, [self.programs, Path(sys.executable).parent, env["PATH"]])
        )
        done = subprocess.run(
            ["snakemake", *given, "--configfile", CONFIG],
            cwd=self.copy,
            env=env,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=300,
        )
        assert done.returncode == 0, done.stdout
        return done.stdout

    def dry_run(self) -> dict[str, Job]:
        """The jobs by the name that --target-jobs has for them, without the Slurm profile."""
        jobs = {}
        told = self.snakemake("--dry-run", "--forceall", "--cores", "100")
        for block in re.split(r"^\[.*\]$", told, flags=re.MULTILINE)[1:]:
            if not (rule := re.match(r"\s*(?:local)?rule (\w+):", block)):
                continue
            lines = dict(re.findall(r"^    (\w+): (.+)$", block, flags=re.MULTILINE))
            kinds = [lines[kind] for kind in ("output", "log", "benchmark") if kind in lines]
            jobs[f"{rule[1]}:{lines.get('wildcards', '')}"] = Job(
                rule[1],
                [file for kind in kinds for file in kind.split(", ")],
                int(lines.get("threads", 1)),
                dict(pair.split("=", 1) for pair in lines["resources"].split(", ")),
            )
        return jobs

    def submit(self, *given: str) -> list[Submission]:
        """What sbatch is given when a user runs the workflow on the cluster."""
        (self.programs / "events.jsonl").write_text("")
        waits = ["--slurm-init-seconds-before-status-checks", "1"]
        waits += ["--seconds-between-status-checks", "1"]
        self.snakemake("--workflow-profile", "profiles/slurm", *waits, *given)
        submissions, running = [], {}
        for line in (self.programs / "events.jsonl").read_text().splitlines():
            event = json.loads(line)
            for id_ in event.get("done", []):
                running.pop(id_, None)
            if "id" in event:
                found = Submission(event["job"], event["given"], list(running.values()))
                submissions.append(found)
                running[event["id"]] = found.rule
        return submissions


@pytest.fixture(scope="module")
def cluster(tmp_path_factory):
    return Cluster(tmp_path_factory.mktemp("slurm"))


@pytest.fixture(scope="module")
def submissions(cluster):
    return cluster.submit()


def test_every_job_of_every_rule_but_the_local_ones_is_submitted_once(cluster, submissions):
    assert {found.rule for found in submissions} == set(rule_texts()) - LOCAL
    wanted = [name for name, job in cluster.jobs.items() if job.rule not in LOCAL]
    assert sorted(found.job for found in submissions) == sorted(wanted)


def test_the_download_stays_on_the_users_own_node(cluster, submissions):
    made = [cluster.copy / file for file in cluster.jobs["download:"].files]
    assert made and all(file.stat().st_size for file in made if file.suffix == ".npy")


def test_jobs_ask_for_the_time_memory_and_cpus_that_their_rules_declare(cluster, submissions):
    for found in submissions:
        job = cluster.jobs[found.job]
        assert value(found.given, "-t", "--time") == job.resources["runtime"], found.job
        assert value(found.given, "--mem") == job.resources["mem_mb"], found.job
        assert value(found.given, "-c", "--cpus-per-task") == str(job.threads), found.job


def test_memory_is_never_asked_for_by_cpu_as_well(submissions):
    assert all(value(found.given, "--mem-per-cpu") is None for found in submissions)


def test_jobs_that_take_timings_and_no_others_have_their_node_to_themselves(submissions):
    for found in submissions:
        assert ("--exclusive" in found.given) == (found.rule in TIMING), found.job


def test_jobs_that_take_timings_and_no_others_take_the_whole_budget(cluster):
    budgets = [int(job.resources.get("budget", 1)) for job in cluster.jobs.values()]
    whole = max(budgets)
    assert set(budgets) == {1, whole}
    takers = zip(cluster.jobs.values(), budgets, strict=True)
    assert {job.rule for job, budget in takers if budget == whole} == TIMING


def test_a_cluster_runs_more_jobs_at_once_than_one_machine_has_cpus(cluster):
    told = cluster.snakemake("--dry-run", "--forceall", "--workflow-profile", "profiles/slurm")
    budgets = {int(budget) for budget in re.findall(r"\bbudget=(\d+)", told)}
    assert min(budgets) == 1
    assert max(budgets) > available_cpu_count()


def test_nothing_is_in_flight_beside_a_job_that_takes_timings(submissions):
    together = [{found.rule, other} for found in submissions for other in found.beside]
    assert together, "jobs without timings do run side by side, or nothing could be seen here"
    assert not [pair for pair in together if pair & TIMING]


def test_a_job_runs_its_rule_of_this_workflow_under_the_users_config(cluster, submissions):
    for found in submissions:
        assert found.command[1:3] == ["-m", "snakemake"]
        assert value(found.command, "--snakefile") == str(cluster.copy / "Snakefile")
        assert value(found.command, "--allowed-rules") == found.rule
        assert value(found.command, "--target-jobs") == found.job
        assert value(found.command, "--configfiles") == str(cluster.copy / CONFIG)
        assert value(found.given, "-D") == str(cluster.copy)


def test_account_and_partition_are_left_to_the_user(cluster, submissions):
    for found in submissions:
        assert value(found.given, "-A", "--account") is None
        assert value(found.given, "-p", "--partition") is None
    theirs = ["--default-resources", "slurm_account=abc", "slurm_partition=short"]
    [found] = cluster.submit("network", "--force", *theirs)
    assert value(found.given, "-A", "--account") == "abc"
    assert value(found.given, "-p", "--partition") == "short"
