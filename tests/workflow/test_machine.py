"""What is of the machine: full disks, git, and settings that a user has for other work."""

import os
import subprocess
import sys

import pytest
import yaml
from conftest import documented
from workflow_helpers import RESULTS, ROOT, succeed

from offramp.common.markdown import short_commit
from offramp.tables.files import commit_of
from offramp.workflow.config import check_config

pytest_plugins = ["workflow_helpers"]

JOB = """
import errno, os, sys
from offramp import OfframpError
from offramp.workflow.job import job_log
with job_log(sys.argv[1]):
    {work}
"""


def job(log, work: str) -> subprocess.CompletedProcess:
    """A job of its own process, as Snakemake starts one: its log, and what else reaches stderr."""
    return subprocess.run(
        [sys.executable, "-c", JOB.format(work=work), str(log)],
        env=os.environ | {"PYTHONPATH": str(ROOT / "scripts")},
        capture_output=True,
        text=True,
    )


FULL = "raise OSError(errno.ENOSPC, 'No space left on device', 'results/sweep.parquet')"


@pytest.mark.parametrize(
    ("work", "words"),
    [
        (FULL, ["error: results/sweep.parquet: can't be written: No space left", "run again"]),
        ("raise OfframpError('one line')", ["error: one line"]),
        ("print('a progress line', flush=True)", ["No space left"]),
        ("print('what waits for the end')", ["No space left"]),
        ("{}['absent']", ["KeyError", "absent"]),
    ],
)
def test_what_the_log_has_no_room_for_is_said_on_the_terminal(work, words):
    run = job("/dev/full", work)
    assert run.returncode == 1
    assert [word for word in words if word not in run.stderr] == []
    if "KeyError" not in words:
        assert len(run.stderr.splitlines()) == 1
    if work == FULL:
        assert documented(run.stderr)


def test_a_log_that_has_room_holds_the_reason_and_the_terminal_nothing(tmp_path):
    run = job(tmp_path / "job.log", FULL)
    assert (run.returncode, run.stderr) == (1, "")
    assert "results/sweep.parquet: can't be written" in (tmp_path / "job.log").read_text()


def test_a_log_that_can_not_be_opened_is_named():
    run = job("/sys/job.log", "pass")  # no file can be made there
    assert run.returncode == 1
    assert run.stderr.startswith("error: /sys/job.log: can't be written: ")
    assert documented(run.stderr)


def git(folder, *arguments):
    identity = ["-c", "user.name=test", "-c", "user.email=test@localhost"]
    subprocess.run(["git", *identity, *arguments], cwd=folder, check=True, capture_output=True)


@pytest.fixture
def project(tmp_path):
    """A small project in a repository of its own, and its commit."""
    root = tmp_path / "project"
    (root / "scripts").mkdir(parents=True)
    (root / "scripts/a.py").write_text("1")
    (root / "README.md").write_text("read")
    for arguments in (["init", "-q"], ["add", "-A"], ["commit", "-qm", "all"]):
        git(root, *arguments)
    head = subprocess.run(["git", "rev-parse", "HEAD"], cwd=root, capture_output=True, text=True)
    return root, head.stdout.strip()


def test_a_table_is_of_the_commit_that_is_checked_out(project):
    root, commit = project
    (root / "README.md").write_text("another page is not another code")
    (root / "results.parquet").write_text("nor are results")
    assert commit_of(root) == commit


@pytest.mark.parametrize("file", ["scripts/a.py", "scripts/new.py", "Snakefile", "rules/new.smk"])
def test_edited_code_is_recorded_as_such(project, file):
    root, commit = project
    (root / file).parent.mkdir(exist_ok=True)
    (root / file).write_text("2")
    assert commit_of(root) == f"{commit}-dirty"
    assert short_commit(f"{commit}-dirty") == f"{commit[:12]}-dirty"


@pytest.mark.parametrize("committed", [False, True])
def test_a_copy_inside_another_repository_is_not_of_its_commit(project, committed):
    root, _ = project
    copy = root / "vendored/offramp"
    (copy / "scripts").mkdir(parents=True)
    (copy / "scripts/a.py").write_text("1")
    if committed:
        git(root, "add", "-A")
        git(root, "commit", "-qm", "more")
    assert commit_of(copy) == "unknown"


def test_without_git_or_a_repository_the_commit_is_unknown(project, tmp_path, monkeypatch):
    assert commit_of(tmp_path) == "unknown"
    monkeypatch.setenv("PATH", str(tmp_path))
    assert commit_of(project[0]) == "unknown"


def test_a_clone_of_somebody_else_has_its_commit(project, monkeypatch):
    """Git itself says no more of it than that its ownership is dubious."""
    root, commit = project
    run = subprocess.run

    def by_another(command, env, **options):
        return run(command, env=env | {"GIT_TEST_ASSUME_DIFFERENT_OWNER": "1"}, **options)

    asked = ["git", "rev-parse", "HEAD"]
    refused = by_another(asked, dict(os.environ), cwd=root, capture_output=True, text=True)
    assert "dubious ownership" in refused.stderr
    monkeypatch.setattr("offramp.tables.files.subprocess.run", by_another)
    assert commit_of(root) == commit


def test_another_repository_in_the_environment_is_not_believed(project, monkeypatch):
    root, commit = project
    monkeypatch.setenv("GIT_DIR", str(ROOT / ".git"))
    monkeypatch.setenv("GIT_WORK_TREE", str(ROOT))
    assert commit_of(root) == commit


def test_a_users_own_matplotlib_settings_change_no_byte_and_break_nothing(tree):
    figure = tree / RESULTS / "figures/accuracy_cutoff.svg"
    before = [figure.read_bytes(), figure.with_suffix(".png").read_bytes()]
    settings = "text.usetex: True\naxes.facecolor: red\nfont.size: 30\nsavefig.transparent: True\n"
    (tree / "matplotlibrc").write_text(settings)
    succeed(
        tree, f"{RESULTS}/figures/accuracy_cutoff.svg", "--forcerun", "figure",
        "--cores", "1", MPLBACKEND="nowhere",
    )  # fmt: skip
    assert [figure.read_bytes(), figure.with_suffix(".png").read_bytes()] == before


def test_a_batch_larger_than_any_split_is_that_split(capsys):
    config = yaml.safe_load((ROOT / "config.yaml").read_text())
    schema = yaml.safe_load((ROOT / "rules/config.schema.yaml").read_text())
    digits = yaml.safe_load((ROOT / "examples/digits.yaml").read_text())
    config |= {"batch_size": 1_000_000, "results": digits["results"]}
    config["dataset"] |= digits["dataset"]
    config["model"] |= digits["model"]
    check_config(config, schema)
    assert config["batch_size"] == 1258
    assert documented(capsys.readouterr().err)


def test_a_lasting_log_holds_what_all_runs_said(tmp_path):
    log, lasting = tmp_path / "train.log", tmp_path / "lasting.log"
    for text in ("first", "second"):
        log.unlink(missing_ok=True)  # as Snakemake does before every job
        work = f"print({text!r})"
        source = JOB.format(work=work).replace(
            "sys.argv[1])", f"sys.argv[1], Path({str(lasting)!r}))"
        )
        command = [sys.executable, "-c", f"from pathlib import Path\n{source}", str(log)]
        subprocess.run(command, env=os.environ | {"PYTHONPATH": str(ROOT / "scripts")}, check=True)
    lines = log.read_text().splitlines()
    assert [line for line in lines if not line.startswith("-- 20")] == ["first", "second"]
    assert len(lines) == 4
