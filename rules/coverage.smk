rule coverage:
    """How often each promise is broken where the truth is known, and how often it may be."""
    input:
        val=f"{RESULTS}/scores/val.parquet",
        test=f"{RESULTS}/scores/test.parquet",
        sweep=f"{RESULTS}/sweep.parquet",
        calibration=f"{RESULTS}/calibration.parquet",
        timings=f"{TABLES_OF}/timings.parquet",
    output:
        f"{RESULTS}/coverage.parquet",
    log:
        f"{RESULTS}/logs/coverage.log",
    benchmark:
        f"{RESULTS}/benchmarks/coverage.tsv"
    conda:
        "../envs/analysis.yaml"
    threads: 4
    resources:
        budget=1,
        mem_mb=8000,
        runtime=240,
    params:
        code=code("coverage"),
        batch_size=config["batch_size"],
        effort=config["coverage"],
    script:
        "../scripts/coverage.py"


rule coverage_page:
    """Stated and measured rates, promise by promise, as a page with one figure."""
    input:
        table=f"{RESULTS}/coverage.parquet",
        figure=f"{RESULTS}/figures/coverage.svg",
    output:
        f"{RESULTS}/coverage.md",
    log:
        f"{RESULTS}/logs/coverage_page.log",
    benchmark:
        f"{RESULTS}/benchmarks/coverage_page.tsv"
    conda:
        "../envs/analysis.yaml"
    resources:
        **LIGHT,
    params:
        code=code("coverage_page"),
    script:
        "../scripts/coverage_page.py"
