# The experiment: download -> train -> logits and timings -> sweep, calibration -> verification ->
# figures and summary. What is wanted stands here, how it is made in rules/.


import atexit
import time

# That beside this file, or one that a working directory elsewhere has of its own; rules/common.smk
# fills in what it lacks.
if Path("config.yaml").exists():

    configfile: "config.yaml"


include: "rules/common.smk"  # the checked config, paths, what makes a job run again
include: "rules/analysis.smk"  # from tables: scores, sweep, calibration, policies, ...


if OWN is None:

    include: "rules/data.smk"  # download
    include: "rules/model.smk"  # train; what the network is made of
    include: "rules/inference.smk"  # logits and seconds, once
    include: "rules/verification.smk"  # the live cascade against the tables
    include: "rules/baseline.smk"
    include: "rules/export.smk"

elif not isinstance(OWN, str):

    include: "rules/own.smk"  # logits and costs of the user's own


include: "rules/coverage.smk"  # are promises kept?
include: "rules/frontiers.smk"  # criteria and methods side by side
include: "rules/report.smk"  # figures, summary, explorer
include: "rules/compare.smk"  # runs side by side


if OWN is None:

    include: "rules/benchmarks.smk"  # last, since it looks at all the others


report: "rules/captions/workflow.rst"


localrules:
    all,


STARTED = time.time()


onsuccess:
    # Not after a success of other rules while a training is cut off.
    if (FOLDER / "model/weights.safetensors").exists():
        (FOLDER / "model/resume.pt").unlink(missing_ok=True)
    page = FOLDER / "summary.html"
    if page.exists() and page.stat().st_mtime >= STARTED:
        # At the very end, after Snakemake's own last lines.
        atexit.register(
            print,
            f"The answers:  {FOLDER}/summary.md",
            f"The figures:  {FOLDER}/figures/",
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
        f"{RESULTS}/explorer.html",
        f"{RESULTS}/sweep.parquet",
        f"{RESULTS}/calibration.parquet",
        f"{RESULTS}/verification.parquet" if OWN is None else [],
        f"{TABLES_OF}/timings.parquet",
        expand(
            "{results}/figures/{name}.{kind}", results=RESULTS, name=FIGURES, kind=["svg", "png"]
        ),
        f"{RESULTS}/figures/training.svg" if TRAINED else [],
