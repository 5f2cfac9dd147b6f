"""The tests for a GPU run here too, at small size, so that they are known to run where one is."""

import os
import subprocess
import sys
from pathlib import Path


def test_the_gpu_tests_pass_on_a_cpu():
    run = subprocess.run(
        # Compiling takes a minute and is tested in test_backends.py.
        [sys.executable, "-m", "pytest", "-qs", "-m", "gpu", "-k", "not compiled",
         "tests/inference/test_gpu.py"],
        capture_output=True, text=True, cwd=Path(__file__).parents[2],
        env={**os.environ, "OFFRAMP_TEST_DEVICE": "cpu"},
    )  # fmt: skip
    assert run.returncode == 0, run.stdout[-3000:]
    assert "14 passed" in run.stdout
    for finding in ("excused by the float exceptions:", "microseconds of waiting once an exit"):
        assert finding in run.stdout
