"""The workflow's own shape."""

import re

import pytest
from snakemake.utils import available_cpu_count
from workflow_helpers import (
    OWN_RULES,
    RESULTS,
    ROOT,
    UNUSED,
    rule_texts,
    snakemake,
    succeed,
)
from workflow_tables import FIGURES, TIMING_RULES

from offramp.report.captions import CAPTIONS

pytest_plugins = ["workflow_helpers"]


def test_the_linter_finds_nothing(pristine):
    run = snakemake(pristine, "--lint", configs=())
    assert run.code == 0, run.output


@pytest.mark.parametrize("configs", [(), ("examples/cpu.yaml",)])
def test_a_shipped_network_downloads_and_does_not_train(clone, configs):
    run = succeed(clone, "-n", configs=configs)
    assert "download" in run.jobs and "train" not in run.jobs
    assert "cifar10" in run.output


@pytest.mark.parametrize("configs", [(), ("examples/cpu.yaml",), ("examples/baseline.yaml",)])
def test_each_network_can_be_trained_from_nothing(clone, configs):
    run = succeed(clone, "train", "-n", configs=configs)
    assert run.jobs == {"download": 1, "train": 1}


def test_a_figure_of_the_sweep_alone_is_drawn_without_the_live_cascade(clone):
    jobs = succeed(clone, "results/figures/accuracy_cutoff.svg", "-n", configs=()).jobs
    assert {"sweep", "figure_accuracy_cutoff"} <= jobs.keys()
    assert not {"verification", "leaving", "summary"} & jobs.keys()


def test_the_report_shows_every_figure_under_its_task(tree):
    succeed(tree, "--report", "report.html")
    page = (tree / "report.html").read_text()
    answer = page.split('id="workflow-desc"')[1].split("</script>")[0]
    assert "Use policies/best.json" in answer or "Use the full network" in answer
    assert "1b or 2b?" in answer and "What was measured" not in answer
    assert [c for c in {*FIGURES.values(), "Answers"} if c not in page] == []
    assert [name for name in FIGURES if f"{RESULTS}/figures/{name}.svg" not in page] == []


def test_every_figure_has_a_category_and_a_caption():
    text = (ROOT / "rules/report.smk").read_text()
    found = dict(re.findall(r'^    "(\w+)": \(\s*"([^"]+)"', text, re.MULTILINE))
    by_name = {"training": "Training", "baseline": "Look closer", "coverage": "Look closer"}
    assert found == FIGURES | by_name
    assert set(CAPTIONS) == set(found)


def test_every_rule_has_a_docstring(pristine):
    listed = succeed(pristine, "--list", configs=()).output
    described = dict(re.findall(r"^(\w+) \((.+)\)$", listed, re.MULTILINE))
    assert set(described) | OWN_RULES == set(rule_texts())


@pytest.mark.parametrize("rule", sorted(rule_texts().keys() - {"all"}))
def test_every_rule_has_all_that_a_cluster_and_a_reader_need(rule):
    text = rule_texts()[rule]
    directives = set(re.findall(r"^    (\w+):", text, re.MULTILINE))
    assert {"log", "benchmark", "conda", "resources", "script"} <= directives
    assert {"budget", "mem_mb", "runtime"} <= set(
        re.findall(r"^        (\w+)=", text, re.MULTILINE)
    )


def budgets(run):
    """The budget that every job of a run takes, by rule."""
    blocks = re.findall(r"^(?:local)?rule (\w+):\n((?: +.*\n)+)", run.output, re.MULTILINE)
    taken = {name: re.search(r"\bbudget=(\d+)", block) for name, block in blocks if name != "all"}
    return {name: int(found[1]) if found else None for name, found in taken.items()}


def whole_budget(run):
    return int(re.search(r"^Provided resources:.*\bbudget\b\D*(\d+)", run.output, re.MULTILINE)[1])


@pytest.mark.parametrize("more", [(), ("--resources", "mem_mb=100000")])
def test_a_timing_job_takes_the_whole_budget_and_any_other_one_unit(tree, more):
    run = succeed(tree, "-n", "--forceall", *more)
    taken = budgets(run)
    assert set(taken) == set(rule_texts()) - {"all"} - UNUSED
    (tree / RESULTS / "sweep.parquet").unlink()
    whole = whole_budget(succeed(tree, f"{RESULTS}/sweep.parquet", "--cores", "2", *more))
    assert whole == available_cpu_count() > 1
    assert {name for name, budget in taken.items() if budget == whole} == TIMING_RULES - UNUSED
    assert {taken[name] for name in taken.keys() - TIMING_RULES} == {1}


def test_the_rules_that_take_timings_are_those_that_say_so():
    assert {n for n, text in rule_texts().items() if "budget=BUDGET" in text} == TIMING_RULES


def test_nothing_runs_beside_a_timing_job(finished_run):
    output = finished_run[1].output
    running, beside = {}, []
    for rule, job, done in re.findall(
        r"^(?:local)?rule (\w+):\n(?: +.*\n)*?    jobid: (\d+)|^Finished jobid: (\d+)",
        output,
        re.MULTILINE,
    ):
        if done:
            running.pop(done)
        else:
            running[job] = rule
            if len(running) > 1 and TIMING_RULES & set(running.values()):
                beside.append(sorted(running.values()))
    assert beside == []
    assert running == {}
