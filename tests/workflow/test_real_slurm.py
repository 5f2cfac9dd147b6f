"""The digits example through profiles/slurm as docs/guides/cluster.md says, on a real Slurm."""

import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
import textwrap
from datetime import datetime
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pyarrow.parquet as pq
import pytest
import yaml
from conftest import documented
from real_slurm import Record, Slurm, end_with_us, slurm, until
from safetensors.numpy import load_file
from workflow_helpers import RESULTS, ROOT, SMALL, UNUSED, config_file, copy_tree, rule_texts
from workflow_tables import TIMING_RULES, frame

pytest_plugins = ["workflow_helpers"]
pytestmark = pytest.mark.slurm

GUIDE = (ROOT / "docs/guides/cluster.md").read_text()
# One thread, so that a training repeats itself; three epochs, so that there is time to cut it off.
CONFIG = SMALL | {"threads": 1, "train": {"epochs": 3, "batch_size": 64}}
# Logs to read, and how soon to ask whether a job has ended: after 2 s, 12 more, 22 more.
QUICK = {"slurm-init-seconds-before-status-checks": 2, "slurm-keep-successful-logs": True}
LOCAL = {"all", "download"}
TRAINING = str(RESULTS / "training.parquet")
WEIGHTS = RESULTS / "model/weights.safetensors"


def said_in_guide(pattern: str) -> list[str]:
    """The words of a command in the guide."""
    [line] = re.findall(rf"^ {{6,}}({pattern}.*)$", GUIDE, re.MULTILINE)
    return shlex.split(line)


def site_file() -> dict:
    """The user's own file: what the guide shows of it, in one."""
    blocks = re.findall(r"^( *)```yaml\n(.*?)^ *```", GUIDE, re.MULTILINE | re.DOTALL)
    parts = [yaml.safe_load(textwrap.dedent(block)) for _, block in blocks]
    assert len(parts) == 2
    return parts[0] | parts[1]


class Run(NamedTuple):
    """A Snakemake at work, or one that has ended."""

    process: subprocess.Popen
    log: Path

    @property
    def output(self) -> str:
        return self.log.read_text()

    @property
    def id(self) -> str:
        found = until(lambda: re.search(r"SLURM run ID: (\S+)", self.output), 60, "it has an id")
        return found[1]

    def end(self) -> int:
        return self.process.wait(600)


class Site:
    """A user of the cluster, with files of their own."""

    def __init__(self, home: Path, cluster: Slurm):
        self.home, self.slurm, self.runs = home, cluster, []
        profile = home / ".config/snakemake/site"
        profile.mkdir(parents=True)
        config_file(profile, "profile.yaml", site_file() | QUICK)

    def start(self, folder: Path, words: list[str], *more: str) -> Run:
        ours = {"SLURM", "SNAKEMAKE", "OFFRAMP"}
        env = {key: value for key, value in os.environ.items() if key.split("_")[0] not in ours}
        env |= {"XDG_CONFIG_HOME": str(self.home / ".config")}
        env |= {"PATH": f"{Path(sys.executable).parent}:{env['PATH']}"}
        log = self.home / f"run{len(self.runs)}.log"
        with log.open("w") as out:
            process = subprocess.Popen(
                [*words, *more],
                cwd=folder,
                env=env,
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=subprocess.STDOUT,
                start_new_session=True,
                preexec_fn=end_with_us,
            )
        self.runs.append(Run(process, log))
        return self.runs[-1]

    def snakemake(self, folder: Path, *more: str) -> Run:
        """The guide's command, begun."""
        words = said_in_guide("snakemake --profile")
        return self.start(
            folder, [*words, *more, "--configfile", "examples/digits.yaml", "mine.yaml"]
        )

    def succeed(self, folder: Path, *more: str) -> Run:
        run = self.snakemake(folder, *more)
        assert run.end() == 0, run.output
        return run


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    signal.signal(signal.SIGTERM, lambda *_: pytest.exit("ended by SIGTERM"))
    with slurm() as cluster:
        site = Site(tmp_path_factory.mktemp("home"), cluster)
        yield site
        for run in site.runs:
            if run.process.poll() is None:
                run.process.kill()
                run.process.wait()


@pytest.fixture
def clone(pristine, tmp_path):
    """A fresh clone, with the config."""
    folder = copy_tree(pristine, tmp_path / "offramp")
    config_file(folder, "mine.yaml", CONFIG)
    return folder


@pytest.fixture(scope="module")
def whole(site, pristine, tmp_path_factory):
    """A folder where everything has run on the cluster, and that run."""
    folder = copy_tree(pristine, tmp_path_factory.mktemp("whole") / "offramp")
    config_file(folder, "mine.yaml", CONFIG)
    return folder, site.succeed(folder)


@pytest.fixture
def again(whole, tmp_path):
    """A copy of the finished folder to act on."""
    return copy_tree(whole[0], tmp_path / "offramp")


@pytest.fixture(scope="module")
def records(site, whole) -> list[Record]:
    return site.slurm.records(whole[1].id)


def message(run: Run, pattern: str) -> str:
    found = re.search(pattern, run.output, re.DOTALL)
    assert found, run.output
    return found[0]


def log_of(folder: Path, record: Record) -> str:
    """What a job printed on its node."""
    [log] = (folder / ".snakemake/slurm_logs").rglob(f"{record.id}.log")
    return log.read_text()


def rules_in(folder: Path, record: Record) -> set[str]:
    """The rules that a job ran, by what it printed."""
    return set(re.findall(r"^ *(?:local)?rule (\w+):$", log_of(folder, record), re.MULTILINE))


def test_every_rule_but_the_local_ones_ran_in_a_job_of_slurm(whole, records):
    assert {record.state for record in records} == {"COMPLETED"}
    ran = [rules_in(whole[0], record) for record in records]
    assert set.union(*ran) == set(rule_texts()) - LOCAL - UNUSED
    assert len(re.findall(r"^localrule (?!all)", whole[1].output, re.MULTILINE)) == 1


def test_a_whole_run_is_at_most_eight_submissions(records):
    assert len(records) <= 8


def test_a_node_of_two_cpus_takes_every_job_as_it_is(records):
    asked = [dict(part.split("=") for part in record.said["Tres"].split(",")) for record in records]
    assert {job["cpu"] for job in asked} == {"2"}
    memory = {record.comment: job["mem"] for record, job in zip(records, asked, strict=True)}
    assert max(int(mem.removesuffix("M")) for mem in memory.values()) <= 7000
    assert memory["rule_probe"] == "4000M"


def test_account_partition_and_resources_are_those_of_the_users_own_file(records):
    assert {record.said["Partition"] for record in records} == {"my_partition"}
    assert {record.said["Account"] for record in records} == {"my_account"}
    [train] = [record.said for record in records if record.comment == "rule_train"]
    assert train["TimeLimit"] == "2880" and "mem=7000M" in train["Tres"]


def test_jobs_that_take_timings_and_no_others_have_the_node_to_themselves(whole, records):
    timing = [record for record in records if rules_in(whole[0], record) & TIMING_RULES]
    assert len(timing) == 5
    assert [record for record in records if record.exclusive] == timing
    for record in timing:
        others = [other for other in records if other is not record]
        assert all(seconds(record, other) <= 0 for other in others), record.comment


def seconds(record: Record, other: Record) -> float:
    """How long two jobs ran side by side; negative: how long between them."""
    times = [
        [datetime.fromisoformat(r.said[f"{name}Time"]) for r in (record, other)]
        for name in ("Start", "End")
    ]
    return (min(times[1]) - max(times[0])).total_seconds()


def test_a_job_cancelled_in_mid_run_is_resumed_to_the_same_tables(site, whole, again):
    wanted = [f"{RESULTS}/{name}.parquet" for name in ("sweep", "calibration", "optimism")]
    shutil.rmtree(again / RESULTS / "scores")
    for name in wanted:
        (again / name).unlink()
    run = site.snakemake(again, *wanted)
    scores = again / RESULTS / "scores/val.parquet"
    until(scores.exists, 120, "the job has written a table")
    job = site.slurm.running(run.id, "rule_analysis")
    site.slurm.ask("scancel", job)
    assert run.end() == 1
    assert documented(message(run, r"slurmstepd\S*: error: [^\n]*"))
    assert not [name for name in wanted if (again / name).exists()]
    resumed = site.succeed(again, *wanted)
    assert [record.state for record in site.slurm.records(resumed.id)] == ["COMPLETED"]
    for name in wanted:
        assert pq.read_table(again / name).equals(pq.read_table(whole[0] / name)), name


def test_a_run_whose_snakemake_was_killed_is_recovered_as_the_guide_says(site, whole, clone):
    copy_tree(whole[0] / "data", clone / "data")
    run = site.snakemake(clone, TRAINING)
    resume = clone / RESULTS / "model/resume.pt"
    until(resume.exists, 120, "an epoch is done")
    run.process.send_signal(signal.SIGKILL)
    assert run.end() == -signal.SIGKILL
    assert site.slurm.running(run.id, "rule_train"), "its job runs on"
    words = [word.replace("RUN_ID", run.id) for word in said_in_guide("scancel")]
    site.slurm.ask(*words)
    until(lambda: not site.slurm.running(run.id, "rule_train"), 20, "the job has ended")
    locked = site.snakemake(clone, TRAINING)
    assert locked.end() == 1
    assert documented(message(locked, "Directory cannot be locked[^\n]*"))
    unlocked = site.start(clone, said_in_guide("snakemake --unlock"))
    assert unlocked.end() == 0, unlocked.output
    site.succeed(clone, TRAINING)
    assert "going on after epoch" in (clone / RESULTS / "logs/train.log").read_text()
    curves = [frame(folder, "training").drop(columns="seconds") for folder in (clone, whole[0])]
    assert np.allclose(*curves, atol=1e-3)
    weights, straight = (load_file(folder / WEIGHTS) for folder in (clone, whole[0]))
    for name, values in straight.items():
        np.testing.assert_allclose(weights[name], values, rtol=1e-4, atol=1e-4, err_msg=name)


def test_more_cpus_than_a_node_has_are_refused_at_once(site, again):
    run = site.snakemake(again, "--cores", "4", "--forcerun", "probe", "--until", "probe")
    assert run.end() == 1
    assert documented(message(run, r"SLURM sbatch failed\..*?permitted'"))
    assert "--cpus-per-task=4" in run.output


def test_a_timing_job_on_cuda_asks_for_a_gpu_and_has_the_node_that_it_does_not_fill(site, again):
    run = site.snakemake(again, "--cores", "1", "--until", "probe", "--config", "device=cuda")
    [record] = until(lambda: site.slurm.records(run.id), 120, "its job has ended")
    run.process.kill()
    said = (again / RESULTS / "logs/probe.log").read_text()
    assert "device: cuda is not available here" in said
    told = site.slurm.ask("scontrol", "show", "job", record.id)
    assert "TresPerJob=gres:gpu:1" in told and "CPUs/Task=1" in told
    assert record.exclusive and record.said["ProcCnt"] == "2"
