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
        **LIGHT,
    params:
        code=code("compare"),
        runs=COMPARED,
    script:
        "../scripts/compare.py"
