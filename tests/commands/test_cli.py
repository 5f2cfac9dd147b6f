"""The command line: what it prints, to people and to machines, and how it says no."""

import json
import subprocess
import sys
from pathlib import Path

import click
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pytest
import yaml
from click.testing import CliRunner
from conftest import ORIGIN, documented, probe_table

from offramp.commands import picture, pipeline
from offramp.commands.cli import offramp
from offramp.scoring.criteria import scores_of
from offramp.scoring.policy import Policy, exits_of, save_policy
from offramp.scoring.scores import how_decided, scores_table
from offramp.tables.files import write
from offramp.tables.schemas import logits_schema

ROOT = Path(__file__).parents[2]
SAMPLES, EXITS, CLASSES = 40, 3, 10
LOGITS = np.random.default_rng(6).normal(0, 3, (SAMPLES, EXITS, CLASSES)).astype(np.float32)
LABEL = LOGITS[:, -1].argmax(1)
LABEL[::5] = 3
IDS = np.arange(SAMPLES) * 2 + 100
ENTROPY = scores_of("entropy", LOGITS)
MIDDLE = float(np.sort(ENTROPY[:, 0])[18:20].mean())
ABOUT = {"provenance": {"model": "toy", "dataset": "digits", "weights_sha256": "a" * 64}}
POLICY = ["policy", "policy show", "policy compare"]
COMMANDS = ["run", "from-logits", "sweep", "explain", *POLICY, "export", "predict"]


@pytest.fixture
def results(tmp_path, monkeypatch):
    """A results folder made by hand, with what the commands read, and the images beside it."""
    monkeypatch.chdir(tmp_path)
    origin = ORIGIN | {"dataset": "digits", "split": "test"}
    lists = [pa.FixedSizeListArray.from_arrays(LOGITS[:, k].ravel(), CLASSES) for k in range(EXITS)]
    table = pa.Table.from_arrays([IDS, LABEL, *lists], schema=logits_schema(EXITS, CLASSES))
    write("results/logits/test.parquet", table, "logits", origin)
    scores = scores_table(IDS, LABEL, LOGITS, ENTROPY, "entropy")
    write("results/scores/test.parquet", scores, "scores", origin | how_decided("entropy", None))
    probe = probe_table(EXITS)
    passed = probe.filter(pc.equal(probe["batch_size"], 8))
    passed = passed.set_column(0, probe.schema.field(0), pa.array(["test"] * len(passed)))
    write("results/timings.parquet", pa.concat_tables([probe, passed]), "timings", origin)
    Path("results/policies").mkdir()
    save_policy("results/policies/best.json", Policy("entropy", (MIDDLE, None)), **ABOUT)
    save_policy("results/policies/none.json", Policy("entropy", (None, None)), **ABOUT)
    Path("data/digits").mkdir(parents=True)
    images = np.arange(200 * 32 * 32 * 3, dtype=np.uint32).reshape(200, 32, 32, 3) % 256
    np.save("data/digits/all_images.npy", images.astype(np.uint8))
    return tmp_path


def run(*arguments: str, code: int = 0) -> str:
    done = CliRunner().invoke(offramp, arguments, prog_name="offramp")
    assert done.exit_code == code, done.output
    if code:
        assert "Traceback" not in done.output
    return done.output


@pytest.mark.parametrize("command", ["", *COMMANDS])
def test_help_says_what_a_command_is_for(command):
    text = run(*command.split(), "--help")
    assert text.startswith(f"Usage: offramp {command}".rstrip())
    described = text.split("\n\n")[1].strip()
    assert len(described) > 20 and described.endswith(".")


def test_the_program_starts_without_the_heavy_libraries():
    code = "import sys; from offramp.commands import cli, main; print(sorted({'torch', 'pyarrow', "
    code += "'snakemake', 'onnxruntime'} & set(sys.modules)))"
    found = subprocess.check_output([sys.executable, "-c", code], text=True, cwd=ROOT / "scripts")
    assert found == "[]\n"


@pytest.mark.parametrize("missing", ["pyarrow", "onnxruntime"])
def test_a_missing_package_is_named_with_its_extra(results, monkeypatch, missing):
    def gone(*_: object, **__: object) -> None:
        raise ModuleNotFoundError(name=missing)

    monkeypatch.setattr(click.Group, "invoke", gone)
    extra = {"pyarrow": "pipeline", "onnxruntime": "onnxruntime"}[missing]
    said = run("sweep", "0.5", code=1)
    assert said == f"Error: needs the package {missing}: pip install '.[{extra}]', in a clone\n"


def test_sweep_counts_as_a_slow_loop_does(results):
    rows = json.loads(run("sweep", "1.1,0.4", "--json"))
    assert [row["cutoff"] for row in rows] == [0.4, 1.1]
    for row in rows:
        exits = exits_of(ENTROPY, (row["cutoff"],) * (EXITS - 1))
        right = LOGITS[np.arange(SAMPLES), exits - 1].argmax(1) == LABEL
        assert row["accuracy"] == right.mean()
        shares = [row[f"exit_{k}"] for k in range(1, EXITS + 1)]
        assert shares == [float((exits == k).mean()) for k in range(1, EXITS + 1)]
        assert row["seconds"] > 0 and row["speedup"] > 0
    table = run("sweep", "0.4").splitlines()
    assert table[0].split()[:4] == ["cutoff", "accuracy", "seconds", "speedup"]
    assert table[1].split()[0] == "0.4000"


@pytest.mark.parametrize("place", [0, 1, 2, 7, 11])
def test_explain_says_where_a_sample_leaves_and_why(results, place):
    found = json.loads(run("explain", str(IDS[place]), "--json"))
    leaves = 1 if ENTROPY[place, 0] <= MIDDLE else 3
    assert found["exit"] == leaves and found["label"] == str(LABEL[place])
    assert found["answer"] == str(LOGITS[place, leaves - 1].argmax())
    assert [row["answer"] for row in found["exits"]] == [str(z.argmax()) for z in LOGITS[place]]
    np.testing.assert_allclose([row["entropy"] for row in found["exits"]], ENTROPY[place])
    assert found["exits"][1]["what"] == "is disabled"
    assert ("is at most the threshold" in found["why"]) == (leaves == 1)
    assert ("(right)" in found["why"]) == (found["answer"] == found["label"])
    text = run("explain", str(IDS[place]))
    assert len(text.splitlines()) == 16 + 1 + EXITS + 1 and text.endswith(found["why"] + "\n")


def test_an_image_is_drawn_with_and_without_colours():
    image = np.zeros((4, 3, 3), dtype=np.uint8)
    image[:2] = 255
    assert picture.drawn(image, colours=False) == "@@@\n   "
    first, second = picture.drawn(image, colours=True).splitlines()
    assert first.count("\033[38;2;255;255;255;48;2;255;255;255m▀") == 3
    assert second.count("\033[38;2;0;0;0;48;2;0;0;0m▀") == 3


def test_two_policies_are_compared_sample_by_sample(results):
    found = json.loads(run("policy", "compare", "best", "none", "--json"))
    exits = exits_of(ENTROPY, (MIDDLE, None))
    right = LOGITS[np.arange(SAMPLES), exits - 1].argmax(1) == LABEL
    full = LOGITS[:, -1].argmax(1) == LABEL
    assert [row["accuracy"] for row in found["policies"]] == [right.mean(), full.mean()]
    assert found["difference"] == pytest.approx(right.mean() - full.mean())
    assert found["low"] < found["difference"] < found["high"]
    assert found["policies"][1]["speedup"] == pytest.approx(1.0)
    assert "best less results/policies/none.json: " in run(
        "policy", "compare", "best", "results/policies/none.json"
    )


def test_a_policy_is_shown_in_words(results):
    text = run("policy", "show", "results/policies/best.json")
    assert "toy on digits" in text and "disabled (exits 1 to 2; lower scores leave)" in text
    assert json.loads(run("policy", "show", "results/policies/best.json", "--json"))


def other_policy() -> None:
    origin = ABOUT["provenance"] | {"model": "other", "weights_sha256": "b" * 64}
    save_policy("other.json", Policy("entropy", (None, None)), provenance=origin)


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        (["sweep", "a,b"], 2, "a,b: want numbers, as in 0.3,0.6"),
        (["sweep", "nan"], 1, "cutoffs: want finite numbers"),
        (["sweep", "1", "--results", "nowhere"], 1, "nowhere/scores/test.parquet: no such file"),
        (["sweep", "1", "--split", "tset"], 2, "'tset' is not one of"),
        (["explain", "7"], 1, "results/logits/test.parquet: no sample 7"),
        (["explain", "100", "--policy", "bst"], 1, "bst: no such file"),
        (["policy", "compare", "best", "other.json"], 1, "other.json: chosen for other with"),
        (["policy", "show", "x.json"], 1, "x.json: no such file"),
        (["predict", ".", "a.png"], 1, ".: no manifest.json; want a folder that `offramp export`"),
        (["export", "results/policies/best.json", "out"], 1, "'toy', which is none of those here"),
        (["run"], 1, "no Snakefile here"),
        (["swep"], 2, "No such command"),
    ],
)
def test_what_goes_wrong_is_said_in_one_line(results, arguments, code, words):
    other_policy()
    errors = [line for line in run(*arguments, code=code).splitlines() if "Error: " in line]
    assert len(errors) == 1 and words in errors[0]
    if words.startswith(("no Snakefile", "other.json")):
        assert documented(errors[0])


@pytest.fixture
def snakemake(results, monkeypatch):
    """What Snakemake is called with, in place of calling it."""
    seen = []

    def fake(command, **options):
        seen.append(command)
        return subprocess.CompletedProcess(command, 3)

    monkeypatch.setattr(pipeline.subprocess, "run", fake)
    return seen


def test_run_passes_on_targets_configs_and_the_exit_code(snakemake):
    Path("Snakefile").touch()
    run("run", "results/sweep.parquet", "-c", "a.yaml", "-c", "b.yaml", "-n", code=3)
    assert snakemake[0][1:] == [
        *("-m", "snakemake", "--cores", "4", "results/sweep.parquet", "-n"),
        *("--configfile", "a.yaml", "b.yaml"),
    ]


def test_from_logits_writes_the_config_that_it_runs(snakemake):
    for name in ("v.npz", "t.npz"):
        Path(name).touch()
    assert "want numbers" in run("from-logits", "v.npz", "t.npz", "--costs", "1,x", code=2)
    arguments = ["v.npz", "t.npz", "--costs", "1,2.5", "--unit", "mJ", "--results", "o"]
    run("from-logits", *arguments, code=3)
    # Without a Snakefile here, that of the clone which the library lies in.
    assert snakemake[0][-4:] == [
        *("--snakefile", str(ROOT / "Snakefile"), "--configfile", "o/config.yaml")
    ]
    assert yaml.safe_load(Path("o/config.yaml").read_text()) == {
        "results": "o",
        "logits": {"val": "v.npz", "test": "t.npz"},
        "costs": {"blocks": [1.0, 2.5], "heads": [0.0, 0.0], "unit": "mJ"},
    }
    Path("Snakefile").touch()
    run("from-logits", *arguments, code=3)
    assert "--snakefile" not in snakemake[1]


SAID = """Job stats:
job      count
-----  -------
all          1
sweep        2
total        3

two words
"""


def test_a_machine_is_told_what_ran_and_the_rest_goes_to_stderr(results, monkeypatch):
    Path("Snakefile").touch()
    fake = [sys.executable, "-c", f"import sys; print({SAID!r}); sys.exit(3)"]
    popen = subprocess.Popen
    monkeypatch.setattr(pipeline.subprocess, "Popen", lambda command, **o: popen(fake, **o))
    found = CliRunner().invoke(offramp, ["run", "-n", "--json"])
    told = json.loads(found.stdout)
    assert found.exit_code == told["exit_code"] == 3 and told["jobs"] == {"sweep": 2}
    assert told["seconds"] > 0 and SAID in found.stderr


def test_an_export_tells_a_machine_its_manifest(results, monkeypatch):
    written = {"opset": 18, "sha256": {"run.py": "ab"}}
    monkeypatch.setattr("offramp.inference.export.export", lambda *_: written)
    told = json.loads(run("export", "best.json", "out", "--json"))
    assert told == {"folder": "out", **written}


class FakeRunner:
    """Answers by the first pixel."""

    def __init__(self, folder: Path):
        wanted = {"dtype": "uint8", "shape": ["N", 32, 32, 3]}
        self.manifest = {"input": wanted, "classes": ["dark", "light"]}

    def __call__(self, images):
        assert images.dtype == np.uint8 and images.shape[1:] == (32, 32, 3)
        light = (images[:, 0, 0, 0] > 127).astype(int)
        return light, light + 1, light / 2


def test_predict_reads_pictures_of_any_size(results, monkeypatch):
    from PIL import Image

    monkeypatch.setattr("offramp.inference.runner.Runner", FakeRunner)
    Path("manifest.json").touch()
    Image.new("RGB", (100, 60), "white").save("white.jpg")
    Image.new("P", (32, 32), 0).save("black.png")
    rows = json.loads(run("predict", ".", "white.jpg", "black.png", "--json"))
    assert rows == [
        {"image": "white.jpg", "label": "light", "exit": 2, "score": 0.5},
        {"image": "black.png", "label": "dark", "exit": 1, "score": 0.0},
    ]
    Path("text.png").write_text("no picture")
    for file, words in (
        ("text.png", "text.png: not a picture"),
        ("no.png", "can't be read (No such"),
    ):
        assert words in run("predict", ".", file, code=1)
