rule frontiers:
    """Time against accuracy on test data by criterion and method, and seconds at equal accuracy."""
    input:
        val=f"{TABLES_OF}/logits/val.parquet",
        test=f"{TABLES_OF}/logits/test.parquet",
        temperatures=f"{RESULTS}/temperatures.parquet",
        deferral=f"{RESULTS}/deferral.parquet",
        timings=f"{TABLES_OF}/timings.parquet",
    output:
        frontiers=f"{RESULTS}/frontiers.parquet",
        equal_accuracy=f"{RESULTS}/equal_accuracy.parquet",
    log:
        f"{RESULTS}/logs/frontiers.log",
    benchmark:
        f"{RESULTS}/benchmarks/frontiers.tsv"
    conda:
        "../envs/analysis.yaml"
    resources:
        budget=1,
        mem_mb=4000,
        runtime=30,
    params:
        code=code("frontiers"),
        batch_size=config["batch_size"],
    script:
        "../scripts/frontiers.py"


rule frontiers_page:
    """Criteria and methods at equal accuracy, as a page and two figures."""
    input:
        frontiers=f"{RESULTS}/frontiers.parquet",
        equal_accuracy=f"{RESULTS}/equal_accuracy.parquet",
    output:
        page=f"{RESULTS}/frontiers.md",
        svg=[
            report(
                f"{RESULTS}/figures/{name}.svg",
                caption=f"captions/{name}.rst",
                category="Look closer",
            )
            for name in ("frontier", "criteria")
        ],
        png=expand("{results}/figures/{name}.png", results=RESULTS, name=["frontier", "criteria"]),
    log:
        f"{RESULTS}/logs/frontiers_page.log",
    benchmark:
        f"{RESULTS}/benchmarks/frontiers_page.tsv"
    conda:
        "../envs/analysis.yaml"
    resources:
        **LIGHT,
    params:
        code=code("frontiers_page"),
    script:
        "../scripts/frontiers_page.py"
