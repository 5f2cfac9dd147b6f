# The experiment: download -> train -> logits and timings -> sweep, calibration -> verification ->
# figures and summary. What is wanted stands here, how it is made in rules/.


import time


configfile: "config.yaml"


include: "rules/common.smk"
include: "rules/data.smk"
include: "rules/model.smk"
include: "rules/inference.smk"
include: "rules/analysis.smk"
include: "rules/verification.smk"
include: "rules/baseline.smk"
include: "rules/coverage.smk"
include: "rules/frontiers.smk"
include: "rules/report.smk"
include: "rules/benchmarks.smk"


report: "rules/captions/workflow.rst"


localrules:
    all,
    download,


STARTED = time.time()


onsuccess:
    # Not after a success of other rules while a training is cut off.
    if Path(RESULTS, "model/weights.safetensors").exists():
        Path(RESULTS, "model/resume.pt").unlink(missing_ok=True)
    page = Path(RESULTS, "summary.html")
    if page.exists() and page.stat().st_mtime >= STARTED:
        print(
            f"The answers:  {RESULTS}/summary.md",
            f"The figures:  {RESULTS}/figures/",
            f"On one page:  {page} (open it in a browser)",
            sep="\n",
            file=sys.stderr,
        )


rule all:
    """Everything: the answers, the tables and figures behind them, and their live proof."""
    input:
        f"{RESULTS}/summary.html",
        f"{RESULTS}/summary.md",
        f"{RESULTS}/summary.json",
        f"{RESULTS}/sweep.parquet",
        f"{RESULTS}/calibration.parquet",
        f"{RESULTS}/verification.parquet",
        f"{RESULTS}/timings.parquet",
        expand(
            "{results}/figures/{name}.{kind}", results=RESULTS, name=FIGURES, kind=["svg", "png"]
        ),
        f"{RESULTS}/figures/training.svg" if TRAINED else [],
