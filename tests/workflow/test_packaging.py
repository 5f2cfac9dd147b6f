"""Locks, conda environments and the package itself hold together."""

import ast
import email
import os
import re
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import numpy as np
import pytest
import yaml

ROOT = Path(__file__).parents[2]
LOCKS = {name: (ROOT / f"locks/{name}.txt").read_text() for name in ("main", "torch")}
CONDA_NAMES = {"pytorch": "torch"}
IMPORTED_AS = {
    "pyyaml": "yaml",
    "scikit-learn": "sklearn",
    "pillow": "PIL",
    "markdown-it-py": "markdown_it",
}


def locked_versions() -> dict[str, set[str]]:
    found: dict[str, set[str]] = {}
    for text in LOCKS.values():
        for name, version in re.findall(r"^([\w.-]+)==([\w.]+)", text, re.MULTILINE):
            found.setdefault(name, set()).add(version)
    return found


@pytest.mark.parametrize("name", ["main", "torch", "bench"])
def test_every_locked_package_has_a_hash_and_no_address(name):
    text = (ROOT / f"locks/{name}.txt").read_text()
    entries = re.split(r"\n(?=\S)", text.strip())
    packages = [entry for entry in entries if "==" in entry.splitlines()[0]]
    assert len(packages) > (0 if name == "bench" else 10)
    assert all("--hash=sha256:" in entry for entry in packages)
    assert "://" not in text


# What would run code that a file or a config brings along, and what keeps a call from it.
UNPICKLERS = {"pickle", "cPickle", "dill", "cloudpickle", "marshal", "shelve"}
SAFE_CALLS = {"torch.load": ("weights_only", True), "np.load": ("allow_pickle", False)}
NEVER = {
    "eval",
    "exec",
    "yaml.load",
    "torch.jit.load",
    "torch.hub.load",
    "os.system",
    "joblib.load",
    "pd.read_pickle",
}


def dangers(source: str) -> list[str]:
    """Calls and imports in a Python source through which data could run code."""
    found = []
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import | ast.ImportFrom):
            names = [getattr(node, "module", None) or "", *(alias.name for alias in node.names)]
            found += [name for name in names if name.split(".")[0] in UNPICKLERS]
        elif isinstance(node, ast.Call):
            name = ast.unparse(node.func)
            given = {word.arg: ast.unparse(word.value) for word in node.keywords}
            keyword, value = SAFE_CALLS.get(name, ("shell", given.get("shell") and False))
            safe = given.get(keyword) == (str(value) if value is not None else None)
            found += [ast.unparse(node)] if name in NEVER or not safe else []
    return found


def test_nothing_that_comes_from_outside_can_run_code():
    bad = "import pickle; torch.load(f); np.load(f, mmap_mode='r'); eval(x); run(x, shell=True)"
    assert len(dangers(bad)) == 5
    assert dangers("torch.load(f, weights_only=True); np.load(f, allow_pickle=False)") == []
    files = sorted((ROOT / "scripts").rglob("*.py"))
    assert len(files) > 80
    assert {file.name: found for file in files if (found := dangers(file.read_text()))} == {}


def test_torch_and_torchvision_are_locked_apart():
    assert "torch==" in LOCKS["torch"] and "torchvision==" in LOCKS["torch"]
    assert not re.search(r"^(torch|torchvision|nvidia-\S+)==", LOCKS["main"], re.MULTILINE)


@pytest.mark.parametrize("environment", ["torch", "analysis", "export"])
def test_conda_pins_are_the_locked_versions(environment):
    listed = yaml.safe_load((ROOT / f"envs/{environment}.yaml").read_text())["dependencies"]
    pins = dict(re.fullmatch(r"(\S+) =(\S+)", entry).groups() for entry in listed)
    del pins["python"]
    versions = locked_versions()
    wrong = {n: v for n, v in pins.items() if v not in versions[CONDA_NAMES.get(n, n)]}
    assert not wrong


@pytest.mark.parametrize("environment", ["torch", "analysis", "export"])
def test_conda_environments_hold_what_their_scripts_import(environment):
    listed = yaml.safe_load((ROOT / f"envs/{environment}.yaml").read_text())["dependencies"]
    names = {entry.split()[0] for entry in listed}
    have = {IMPORTED_AS.get(n, n) for n in names}
    have = {CONDA_NAMES.get(n, n) for n in have} | {"offramp"}
    wanted = set()
    for script in scripts_of(environment):
        wanted |= third_party(ROOT / f"scripts/{script}.py")
    assert wanted <= have


def test_the_rooms_import_only_what_lies_below_them_and_the_analysis_half_no_torch():
    linter = Path(sys.executable).with_name("lint-imports")
    known = {**os.environ, "PYTHONPATH": str(ROOT / "scripts")}
    found = subprocess.run(
        [linter, ROOT / "pyproject.toml", "--no-cache"], capture_output=True, text=True, env=known
    )
    assert found.returncode == 0 and "2 kept, 0 broken" in found.stdout, found.stdout


def test_no_module_of_the_analysis_half_has_torch_imported_when_it_is():
    rooms = ("common", "tables", "scoring", "thresholds", "report", "figures", "workflow")
    files = [f for room in rooms for f in (ROOT / "scripts/offramp" / room).glob("[a-z]*.py")]
    modules = [f"offramp.{file.parent.name}.{file.stem}" for file in files]
    assert {"offramp.thresholds.joint", "offramp.scoring.deferral"} <= set(modules)
    asked = f"import sys, {', '.join(modules)}; print('torch' in sys.modules)"
    command = [sys.executable, "-c", asked]
    assert subprocess.check_output(command, text=True, cwd=ROOT / "scripts") == "False\n"


def test_no_room_has_more_than_a_dozen_modules():
    for room in (ROOT / "scripts/offramp").iterdir():
        if room.is_dir():
            assert len(list(room.glob("[a-z]*.py"))) <= 12, room.name


def test_the_analysis_environment_has_no_torch():
    assert "torch" not in (ROOT / "envs/analysis.yaml").read_text()


def scripts_of(environment: str) -> list[str]:
    rules = "\n".join(path.read_text() for path in (ROOT / "rules").glob("*.smk"))
    pairs = re.findall(r"envs/(\w+)\.yaml.*?scripts/(\w+)\.py", rules, re.DOTALL)
    found = [script for name, script in pairs if name == environment]
    assert found
    return found


def third_party(file: Path, seen: set[Path] | None = None) -> set[str]:
    """Top-level modules that a file imports at its top, directly or through the library."""
    seen = set() if seen is None else seen
    seen.add(file)
    found = set()
    for node in ast.parse(file.read_text()).body:
        if isinstance(node, ast.Import):
            found |= {alias.name.split(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            found.add(node.module.split(".")[0])
            names = [node.module, *(f"{node.module}.{alias.name}" for alias in node.names)]
            for name in names:
                path = ROOT / "scripts" / f"{name.replace('.', '/')}.py"
                if name.startswith("offramp") and path.exists() and path not in seen:
                    found |= third_party(path, seen)
    return found - set(__import__("sys").stdlib_module_names)


FAKE_PYTHON = """#!/bin/sh
# python -m venv DIR: a folder with a pip and a uv that only note how they were called.
mkdir -p .venv/bin
printf 'export PATH="$PWD/.venv/bin:$PATH"\\n' > .venv/bin/activate
printf '#!/bin/sh\\necho "pip $@" >> calls\\n' > .venv/bin/pip
printf '#!/bin/sh\\necho "uv $@" >> calls\\nexit %s\\n' "$UV_FAILS" > .venv/bin/uv
chmod +x .venv/bin/*
"""
LOCKED = "pip install --require-hashes -r locks/torch.txt"


@pytest.mark.parametrize(
    ("torch", "uv_fails", "wanted"),
    [
        (None, 0, ["uv pip install --torch-backend auto -r locks/torch.in"]),
        ("TORCH=cpu", 0, ["uv pip install --torch-backend cpu -r locks/torch.in"]),
        (None, 1, ["uv pip install --torch-backend auto -r locks/torch.in", LOCKED]),
        ("TORCH=locked", 1, [LOCKED]),
    ],
)
def test_torch_comes_without_cuda_unless_that_cannot_be_had(tmp_path, torch, uv_fails, wanted):
    (tmp_path / "Makefile").write_text((ROOT / "Makefile").read_text())
    (tmp_path / "locks").mkdir()
    for name in ("locks/main.txt", "locks/torch.txt", "pyproject.toml"):
        (tmp_path / name).write_text("")
    python = tmp_path / "python"
    python.write_text(FAKE_PYTHON)
    python.chmod(0o755)
    run = subprocess.run(
        ["make", "venv", "PYTHON=./python", *([torch] if torch else [])],
        cwd=tmp_path, capture_output=True, text=True,
        env={"PATH": "/usr/bin:/bin", "UV_FAILS": str(uv_fails)},
    )  # fmt: skip
    assert run.returncode == 0, run.stderr
    calls = (tmp_path / "calls").read_text().splitlines()
    assert [call for call in calls if "torch" in call] == wanted
    fell_back = "taking the locked build of the ordinary one instead, with CUDA" in run.stderr
    assert fell_back == (len(wanted) == 2)


@pytest.fixture(scope="module")
def wheel(tmp_path_factory):
    """The wheel that `pip install .` makes of the tracked files."""
    source, out = (tmp_path_factory.mktemp(name) for name in ("source", "wheel"))
    tracked = subprocess.check_output(["git", "ls-files", "-z"], cwd=ROOT, text=True).split("\0")
    for name in filter(None, tracked):
        if not name.startswith(("tests/", "docs/")) and not name.endswith(".safetensors"):
            (source / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(ROOT / name, source / name)
    build = f"import setuptools.build_meta as b; b.build_wheel({str(out)!r})"
    subprocess.run([sys.executable, "-c", build], cwd=source, check=True, capture_output=True)
    [file] = out.glob("offramp-*.whl")
    with zipfile.ZipFile(file) as packed:
        packed.extractall(out / "site")
    return out / "site", source


def test_the_core_needs_torch_numpy_and_safetensors_alone(wheel):
    [metadata] = wheel[0].glob("*.dist-info/METADATA")
    wanted = email.message_from_string(metadata.read_text()).get_all("Requires-Dist")
    assert {one for one in wanted if "extra ==" not in one} == {"torch", "numpy", "safetensors"}
    assert sum("extra == 'pipeline'" in one.replace('"', "'") for one in wanted) > 10


def test_the_wheel_holds_the_library_and_the_pipeline_whole(wheel):
    site, source = wheel
    packages = {
        p.relative_to(source / "scripts") for p in (source / "scripts/offramp").rglob("*.*")
    }
    assert Path("offramp/report/explorer_page/vendor/d3.min.js") in packages
    assert [str(file) for file in packages if not (site / file).exists()] == []
    [share] = site.glob("*.data/data/share/offramp")
    parts = [source / "Snakefile", source / "config.yaml", *(source / "rules").rglob("*.*")]
    parts += [*(source / "scripts").glob("*.py"), *(source / "envs").iterdir()]
    assert len(parts) > 60
    assert [str(p) for p in parts if not (share / p.relative_to(source)).exists()] == []


def test_an_installed_pipeline_plans_the_analysis_of_saved_logits(wheel, tmp_path):
    [snakefile] = wheel[0].glob("*.data/data/share/offramp/Snakefile")
    for name in ("val", "test"):
        np.savez(tmp_path / f"{name}.npz", logits=np.zeros((9, 2, 3)), labels=np.zeros(9, int))
    own = {
        "logits": {"val": "val.npz", "test": "test.npz"},
        "costs": {"up_to": [1, 2], "unit": "s"},
    }
    (tmp_path / "own.yaml").write_text(yaml.safe_dump(own))
    command = [sys.executable, "-m", "snakemake", "-n", "--snakefile", snakefile]
    run = subprocess.run(
        [*command, "--configfile", "own.yaml"], cwd=tmp_path, capture_output=True, text=True,
        env={**os.environ, "PYTHONPATH": str(wheel[0])},
    )  # fmt: skip
    assert run.returncode == 0, run.stderr
    assert re.search(r"^own_logits +1$", run.stdout, re.M)
    assert "explorer" in run.stdout and "verification" not in run.stdout
