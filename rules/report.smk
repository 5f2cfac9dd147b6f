# The figures of a run, and those asked for by name: their place in the report, and the tables that
# they are drawn from.
FIGURES = {
    "report_cutoff": ("Task 1a", ["sweep", "policies"]),
    "time_accuracy": ("Task 1b", ["sweep", "verification", "policies", "scores"]),
    "time_cutoff": ("Task 1b", ["sweep", "verification", "policies", "scores"]),
    "accuracy_cutoff": ("Task 1b", ["sweep", "policies", "scores"]),
    "exit_shares": ("Task 1b", ["sweep", "policies"]),
    "target": ("Task 2a", ["calibration", "policies"]),
    "targets": ("Task 2b", ["sweep", "calibration", "policies", "scores"]),
    "entropy": ("Look closer", ["scores", "policies"]),
    "prediction": ("Look closer", ["verification"]),
    "reliability": ("Look closer", ["reliability", "temperatures"]),
    "leaving": ("Look closer", ["leaving"]),
    "confusion": ("Look closer", ["leaving"]),
    "agreement": ("Look closer", ["agreement", "oracle"]),
}
BY_NAME = {
    "training": ("Training", ["training"]),
    "baseline": ("Look closer", ["baseline", "sweep"]),
    "coverage": ("Look closer", ["coverage"]),
}
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
    del FIGURES["prediction"]
    for _, tables in FIGURES.values():
        tables[:] = [name for name in tables if name != "verification"]


for figure, (category, tables) in {**FIGURES, **BY_NAME}.items():

    rule:
        """A figure, as SVG and PNG."""
        name:
            f"figure_{figure}"
        input:
            **{name: TABLES.get(name, f"{RESULTS}/{name}.parquet") for name in tables},
        output:
            svg=report(
                f"{RESULTS}/figures/{figure}.svg",
                caption=f"captions/{figure}.rst",
                category=category,
            ),
            png=f"{RESULTS}/figures/{figure}.png",
        log:
            f"{RESULTS}/logs/figure_{figure}.log",
        benchmark:
            f"{RESULTS}/benchmarks/figure_{figure}.tsv"
        conda:
            "../envs/analysis.yaml"
        resources:
            budget=1,
            mem_mb=1000,
            runtime=5,
        params:
            code=code("figure"),
        script:
            "../scripts/figure.py"


# The interactive page's own files, whose content counts like that of a module.
EXPLORER_PAGE = sorted((SCRIPTS / "offramp/report/explorer_page").rglob("*.*"))


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
        images=DATA[0] if OWN is None else [],
    output:
        f"{RESULTS}/explorer.html",
    log:
        f"{RESULTS}/logs/explorer.log",
    benchmark:
        f"{RESULTS}/benchmarks/explorer.tsv"
    conda:
        "../envs/analysis.yaml"
    resources:
        budget=1,
        mem_mb=2000,
        runtime=10,
    params:
        code=code("explorer"),
        page=[sha256(file) for file in EXPLORER_PAGE],
        dataset=config["dataset"]["name"],
        batch_size=config["batch_size"],
    script:
        "../scripts/explorer.py"


rule summary:
    """The answers to tasks 1a to 2b, from the tables."""
    input:
        **TABLES,
    output:
        markdown=report(f"{RESULTS}/summary.md", caption="captions/summary.rst", category="Answers"),
        json=f"{RESULTS}/summary.json",
    log:
        f"{RESULTS}/logs/summary.log",
    benchmark:
        f"{RESULTS}/benchmarks/summary.tsv"
    conda:
        "../envs/analysis.yaml"
    resources:
        budget=1,
        mem_mb=2000,
        runtime=10,
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
