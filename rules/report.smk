FIGURES = {
    "report_cutoff": "Task 1a",
    "time_accuracy": "Task 1b",
    "time_cutoff": "Task 1b",
    "accuracy_cutoff": "Task 1b",
    "exit_shares": "Task 1b",
    "target": "Task 2a",
    "targets": "Task 2b",
    "entropy": "Look closer",
    "prediction": "Look closer",
    "reliability": "Look closer",
    "leaving": "Look closer",
    "confusion": "Look closer",
    "agreement": "Look closer",
}
TABLES = {
    "sweep": f"{RESULTS}/sweep.parquet",
    "calibration": f"{RESULTS}/calibration.parquet",
    "verification": f"{RESULTS}/verification.parquet",
    "policies": expand("{results}/policies/{name}.json", results=RESULTS, name=POLICIES),
    "scores": SCORES,
    "network": f"{RESULTS}/network.parquet",
    "timings": f"{RESULTS}/timings.parquet",
    "temperatures": f"{RESULTS}/temperatures.parquet",
    "reliability": f"{RESULTS}/reliability.parquet",
    "leaving": f"{RESULTS}/leaving.parquet",
    "agreement": f"{RESULTS}/agreement.parquet",
    "oracle": f"{RESULTS}/oracle.parquet",
}


rule figures:
    """Every figure, as SVG and PNG."""
    input:
        **TABLES,
    output:
        svg=[
            report(
                f"{RESULTS}/figures/{name}.svg", caption=f"captions/{name}.rst", category=category
            )
            for name, category in FIGURES.items()
        ],
        png=expand("{results}/figures/{name}.png", results=RESULTS, name=FIGURES),
    log:
        f"{RESULTS}/logs/figures.log",
    benchmark:
        f"{RESULTS}/benchmarks/figures.tsv"
    conda:
        "../envs/analysis.yaml"
    resources:
        budget=1,
        mem_mb=2000,
        runtime=10,
    params:
        code=code("figures"),
    script:
        "../scripts/figures.py"


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
        config={key: config[key] for key in ("sweep", "calibration", "selection", "batch_size")},
    script:
        "../scripts/summary.py"
