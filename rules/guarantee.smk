rule guarantee:
    """How often empirical and guaranteed thresholds fall below the target on new data."""
    input:
        val=f"{RESULTS}/scores/val.parquet",
        test=f"{RESULTS}/scores/test.parquet",
        timings=f"{RESULTS}/timings.parquet",
    output:
        f"{RESULTS}/guarantee.parquet",
    log:
        f"{RESULTS}/logs/guarantee.log",
    benchmark:
        f"{RESULTS}/benchmarks/guarantee.tsv"
    conda:
        "../envs/analysis.yaml"
    resources:
        budget=1,
        mem_mb=2000,
        runtime=30,
    params:
        code=code("guarantee"),
        batch_size=config["batch_size"],
        confidence=config["calibration"]["confidence"],
    script:
        "../scripts/guarantee.py"


rule promise:
    """How often a chosen policy loses more than it may on new data, and what the promise costs."""
    input:
        scores=expand("{results}/scores/{split}.parquet", results=RESULTS, split=["val", "test"]),
        logits=expand("{results}/logits/{split}.parquet", results=RESULTS, split=["val", "test"]),
        timings=f"{RESULTS}/timings.parquet",
        sweep=f"{RESULTS}/sweep.parquet",
        calibration=f"{RESULTS}/calibration.parquet",
    output:
        table=f"{RESULTS}/promise.parquet",
        page=f"{RESULTS}/promise.md",
    log:
        f"{RESULTS}/logs/promise.log",
    benchmark:
        f"{RESULTS}/benchmarks/promise.tsv"
    conda:
        "../envs/analysis.yaml"
    threads: 4
    resources:
        budget=1,
        mem_mb=4000,
        runtime=60,
    params:
        code=code("promise"),
        batch_size=config["batch_size"],
        calibration=config["calibration"],
        selection=config["selection"],
    script:
        "../scripts/promise.py"
