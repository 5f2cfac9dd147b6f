"""The cluster profiles: what they submit, and that they hold together."""

import re
from typing import NamedTuple

import pytest
import yaml
from snakemake.utils import available_cpu_count
from workflow_helpers import ROOT, copy_tree, rule_texts, succeed
from workflow_tables import TIMING_RULES

pytest_plugins = ["workflow_helpers"]

PROFILES = {
    path.parent.name: yaml.safe_load(path.read_text())
    for path in sorted((ROOT / "profiles").glob("*/profile.yaml"))
}
CLUSTERS = sorted(PROFILES.keys() - {"default"})
LOCAL = {"all", "download"}
# Jobs of their own: timings, and what may take minutes or more.
ALONE = TIMING_RULES | {"train", "ship", "ship_logits", "coverage", "frontiers"}
BY_NAME = ["benchmarks.md", "measured/machine.md", "coverage.md", "frontiers.md", "network.parquet"]
BY_NAME += ["figures/baseline.svg", "figures/training.svg", "figures/multiply_adds.svg"]


class Told(NamedTuple):
    """A dry run's jobs that stand alone, those in groups, and the groups that are submitted."""

    alone: list[tuple[str, str]]
    grouped: list[tuple[str, str]]
    groups: list[str]

    def that_ask(self, pattern: str) -> set[str]:
        """The rules of which a job has this."""
        return {rule for rule, text in self.alone + self.grouped if re.search(pattern, text)}


def dry_run(folder, *arguments, configs=()) -> Told:
    told = succeed(
        folder, *arguments, "-n", "--workflow-profile", "profiles/slurm", configs=configs
    ).output
    jobs = re.findall(r"^( *)(?:local)?rule (\w+):\n((?:\1    .*\n)+)", told, re.MULTILINE)
    return Told(
        [(rule, text) for indent, rule, text in jobs if not indent and rule not in LOCAL],
        [(rule, text) for indent, rule, text in jobs if indent],
        re.findall(r"Group job (\w+)", told),
    )


@pytest.fixture(scope="module")
def clone(pristine, tmp_path_factory):
    return copy_tree(pristine, tmp_path_factory.mktemp("profiles") / "offramp")


@pytest.fixture(scope="module")
def told(clone):
    """What a whole run on a cluster with GPUs would do."""
    return dry_run(clone, "--config", "device=cuda", configs=["examples/digits.yaml"])


def test_a_whole_run_is_at_most_eight_submissions(told):
    assert sorted(told.groups) == ["analysis", "report"]
    assert len(told.alone) + len(told.groups) <= 8
    assert len(told.alone) + len(told.grouped) == 35


def test_what_runs_the_network_on_cuda_asks_for_a_gpu_and_nothing_else_does(told):
    asking = TIMING_RULES | {"train", "ship"}
    assert {name for name, text in rule_texts().items() if "**GPU" in text} == asking
    assert told.that_ask(r"\bgpu=1\b") == told.that_ask(r"") & asking


@pytest.mark.parametrize("rule", sorted(rule_texts().keys() - {"all"}))
def test_a_rule_asks_for_a_gpu_where_its_script_computes_on_the_configs_device(rule):
    text = rule_texts()[rule]
    script = (ROOT / "rules" / re.search(r'"(\.\./scripts/\w+\.py)"', text)[1]).read_text()
    runs = "import prepare" in script or "inference.opening" in script
    assert runs == ("**GPU" in text)


def test_jobs_that_take_timings_and_no_others_have_their_node_to_themselves(told):
    assert {name for name, text in rule_texts().items() if "**EXCLUSIVE" in text} == TIMING_RULES
    assert told.that_ask("slurm_extra=--exclusive") == {"logits", "probe", "verification"}


def test_a_job_asks_for_what_a_node_of_two_cpus_has(told):
    assert told.that_ask(r"threads: (?!2\n)") == set()
    assert told.that_ask(r"threads: 2\n") == {"train", "logits", "probe", "verification"}
    memory = re.findall(r"mem_mb=(\d+)", "".join(text for _, text in told.alone + told.grouped))
    assert max(map(int, memory)) <= 6000


def test_a_cluster_runs_more_jobs_at_once_than_one_machine_has_cpus(told):
    budgets = {int(re.search(r"\bbudget=(\d+)", text)[1]) for _, text in told.alone}
    assert min(budgets) == 1 and max(budgets) > available_cpu_count()


def test_on_one_machine_jobs_ask_for_nothing_that_only_a_cluster_knows(finished_run):
    assert not re.search(r"slurm_extra|\bgpu|Group job", finished_run[1].output)


def test_what_is_made_by_name_fits_the_groups_too(clone):
    """No path leaves a group and comes back into it: Snakemake refuses that."""
    targets = [f"results/cpu/{name}" for name in BY_NAME]
    found = dry_run(clone, *targets, configs=["examples/cpu.yaml"])
    assert sorted(found.groups) == ["analysis", "report"]
    assert {"benchmark", "coverage", "frontiers"} <= {rule for rule, _ in found.alone} <= ALONE


@pytest.mark.parametrize("name", PROFILES)
def test_profiles_name_only_rules_that_exist(name):
    for key in ("set-resources", "set-threads", "groups"):
        assert set(PROFILES[name].get(key, ())) <= set(rule_texts()), key


@pytest.mark.parametrize("name", CLUSTERS)
def test_every_rule_is_a_job_of_its_own_or_in_a_group(name):
    groups = PROFILES[name]["groups"]
    assert set(groups) == set(rule_texts()) - ALONE - LOCAL
    assert groups == PROFILES["slurm"]["groups"]
    assert set(groups.values()) == set(PROFILES[name]["group-components"])


def test_the_slurm_profile_leaves_the_users_own_file_its_keys():
    assert not {"default-resources", "set-resources", "set-threads"} & set(PROFILES["slurm"])


@pytest.mark.parametrize("name", ["generic", "kubernetes"])
def test_a_profile_that_nobody_has_run_says_so_first(name):
    first = (ROOT / f"profiles/{name}/profile.yaml").read_text().splitlines()[0]
    assert "could not be run here" in first


def test_the_generic_profile_gives_timings_their_node_and_fills_its_command():
    profile = PROFILES["generic"]
    assert profile["set-resources"] == {rule: {"place": "excl"} for rule in TIMING_RULES}
    named = set(re.findall(r"\{resources\.(\w+)\}", profile["cluster-generic-submit-cmd"]))
    assert named <= {"mem_mb", "runtime", *profile["default-resources"]}
