from offramp.report.captions import caption

# The figures of a run, and those asked for by name: their place in the report, what they are called
# there, and the tables that they are drawn from.
FIGURES = {
    "report_cutoff": ("Task 1a", "One cutoff, exit by exit", ["sweep", "policies"]),
    "time_accuracy": (
        "Task 1b",
        "Time against accuracy",
        ["sweep", "verification", "oracle", "policies", "scores"],
    ),
    "time_cutoff": ("Task 1b", "Time by cutoff", ["sweep", "verification", "policies", "scores"]),
    "accuracy_cutoff": ("Task 1b", "Accuracy by cutoff", ["sweep", "policies", "scores"]),
    "exit_shares": ("Task 1b", "Who leaves where, by cutoff", ["sweep", "policies"]),
    "target": ("Task 2a", "Calibrated thresholds, exit by exit", ["calibration", "policies"]),
    "targets": ("Task 2b", "Time against accuracy", ["sweep", "calibration", "policies", "scores"]),
    "entropy": ("Look closer", "Scores of right and wrong answers", ["scores", "policies"]),
    "prediction": ("Look closer", "Predicted against live", ["verification"]),
    "reliability": (
        "Look closer",
        "How true the probabilities are",
        ["reliability", "confidence", "temperatures"],
    ),
    "leaving": ("Look closer", "Which classes are easy", ["leaving"]),
    "confusion": ("Look closer", "What is taken for what", ["leaving"]),
    "agreement": ("Look closer", "Where exits disagree", ["agreement", "oracle"]),
}
BY_NAME = {
    "training": ("Training", "Loss and accuracy by epoch", ["training"]),
    "baseline": ("Look closer", "Against a plain network", ["baseline", "sweep"]),
    "coverage": ("Look closer", "Are the promises kept", ["coverage"]),
}
if OWN is not None:  # nothing runs live
    del FIGURES["prediction"]
    for *_, tables in FIGURES.values():
        tables[:] = [name for name in tables if name != "verification"]
DRAWN = FIGURES | BY_NAME
# What the summary reads.
TABLES = {
    "network": f"{RESULTS}/network.parquet",
    "sweep": f"{RESULTS}/sweep.parquet",
    "calibration": f"{RESULTS}/calibration.parquet",
    "verification": f"{RESULTS}/verification.parquet",
    "policies": expand("{results}/policies/{name}.json", results=RESULTS, name=POLICIES),
    "scores": SCORES,
    "timings": f"{TABLES_OF}/timings.parquet",
    "temperatures": f"{RESULTS}/temperatures.parquet",
    "reliability": f"{RESULTS}/reliability.parquet",
    "leaving": f"{RESULTS}/leaving.parquet",
    "agreement": f"{RESULTS}/agreement.parquet",
    "oracle": f"{RESULTS}/oracle.parquet",
}
if OWN is not None:  # nothing runs live
    del TABLES["verification"]
    TABLES["network"] = f"{TABLES_OF}/network.parquet"
    if not Path(TABLES["network"]).exists():
        del TABLES["network"]


rule figure:
    """A figure, as SVG and PNG."""
    input:
        unpack(
            lambda wildcards: {
                name: TABLES.get(name, f"{RESULTS}/{name}.parquet")
                for name in DRAWN[wildcards.figure][2]
            }
        ),
    output:
        svg=report(
            f"{RESULTS}/figures/{{figure}}.svg",
            caption="captions/figure.rst",
            category=lambda wildcards: DRAWN[wildcards.figure][0],
            labels=lambda wildcards: {"figure": DRAWN[wildcards.figure][1]},
        ),
        png=f"{RESULTS}/figures/{{figure}}.png",
    log:
        f"{RESULTS}/logs/figure_{{figure}}.log",
    benchmark:
        f"{RESULTS}/benchmarks/figure_{{figure}}.tsv"
    wildcard_constraints:
        figure="|".join(DRAWN),
    conda:
        "../envs/analysis.yaml"
    resources:
        **LIGHT,
    params:
        code=code("figure"),
        caption=lambda wildcards: caption(wildcards.figure, OWN is None, "train" in HERE),
    script:
        "../scripts/figure.py"


# The interactive page's own files, whose content counts like that of a module.
EXPLORER_PAGE = sorted((LIBRARY / "report/explorer_page").rglob("*.*"))


rule explorer:
    """The interactive page: thresholds to move, and what they do on validation data."""
    input:
        val=f"{RESULTS}/scores/val.parquet",
        test=f"{RESULTS}/scores/test.parquet",
        logits=f"{TABLES_OF}/logits/val.parquet",
        timings=f"{TABLES_OF}/timings.parquet",
        sweep=f"{RESULTS}/sweep.parquet",
        policies=TABLES["policies"],
        verification=f"{RESULTS}/verification.parquet" if OWN is None else [],
        images=DATA_OF_VAL,
    output:
        report(
            f"{RESULTS}/explorer.html",
            caption="captions/explorer.rst",
            category="Answers",
            labels={"page": "Explorer, to move the thresholds"},
        ),
    log:
        f"{RESULTS}/logs/explorer.log",
    benchmark:
        f"{RESULTS}/benchmarks/explorer.tsv"
    conda:
        "../envs/analysis.yaml"
    resources:
        **LIGHT,
    params:
        code=code("explorer"),
        page=[sha256(file) for file in EXPLORER_PAGE],
        dataset=the_dataset,
        batch_size=config["batch_size"],
    script:
        "../scripts/explorer.py"


rule summary:
    """The answers to tasks 1a to 2b, from the tables."""
    input:
        **TABLES,
    output:
        markdown=f"{RESULTS}/summary.md",
        json=f"{RESULTS}/summary.json",
    log:
        f"{RESULTS}/logs/summary.log",
    benchmark:
        f"{RESULTS}/benchmarks/summary.tsv"
    conda:
        "../envs/analysis.yaml"
    resources:
        **LIGHT,
    params:
        code=code("summary"),
        # What counts, for `compare` too; of own logits no network's keys.
        config={
            key: config.get(key)
            for key in (
                *(("model", "backend", "device", "threads") if OWN is None else ()),
                *("criterion", "batch_size", "sweep", "calibration", "selection"),
                *("logits", "costs"),
            )
        },
    script:
        "../scripts/summary.py"


rule summary_page:
    """The summary as one page with its figures inside, to open or to mail."""
    input:
        markdown=f"{RESULTS}/summary.md",
        figures=expand("{results}/figures/{name}.svg", results=RESULTS, name=FIGURES),
    output:
        report(
            f"{RESULTS}/summary.html",
            caption="captions/summary.rst",
            category="Answers",
            labels={"page": "Summary, with tables and figures"},
        ),
    log:
        f"{RESULTS}/logs/summary_page.log",
    benchmark:
        f"{RESULTS}/benchmarks/summary_page.tsv"
    conda:
        "../envs/analysis.yaml"
    resources:
        **LIGHT,
    params:
        code=code("summary_page"),
        parts=[sha256(part) for part in sorted((LIBRARY / "report/page").iterdir())],
        # Further pages to link to, by what they are called.
        links={"Move the thresholds": "explorer.html"},
    script:
        "../scripts/summary_page.py"
