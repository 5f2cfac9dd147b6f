RUNS = [folder.rstrip("/") for folder in config.get("compare") or ()]


def compared_runs(wildcards):
    """What is read of the results folders to compare."""
    if not RUNS:
        raise WorkflowError(
            "compare: name the results folders to put side by side, the first as what the others are "
            "held against: compare: [results, results/cpu]"
        )
    return expand("{run}/{file}", run=RUNS, file=["summary.json", "scores/test.parquet"])


rule compare:
    """Any number of finished runs and variants side by side; by name."""
    input:
        compared_runs,
    output:
        f"{RESULTS}/compare.md",
    log:
        f"{RESULTS}/logs/compare.log",
    benchmark:
        f"{RESULTS}/benchmarks/compare.tsv"
    conda:
        "../envs/analysis.yaml"
    resources:
        budget=1,
        mem_mb=1000,
        runtime=10,
    params:
        code=code("compare"),
        runs=RUNS,
    script:
        "../scripts/compare.py"
