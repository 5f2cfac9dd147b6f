rule logits:
    """The one pass over a split: all exits' raw logits, and the seconds of every part."""
    input:
        data=DATA,
        weights=weights_input,
    output:
        logits=f"{RESULTS}/logits/{{split}}.parquet",
        timings=f"{RESULTS}/timings/{{split}}.parquet",
    params:
        **model_params(),
        code=code("logits"),
        batch_size=config["batch_size"],
    log:
        f"{RESULTS}/logs/logits_{{split}}.log",
    benchmark:
        f"{RESULTS}/benchmarks/logits_{{split}}.tsv"
    threads: 4
    resources:
        budget=BUDGET,
        mem_mb=4000,
        runtime=60,
    conda:
        "../envs/torch.yaml"
    script:
        "../scripts/logits.py"


rule probe:
    """The seconds of every part over a grid of batch sizes, and of removal over who stays."""
    input:
        data=DATA,
        weights=weights_input,
    output:
        f"{RESULTS}/timings/probe.parquet",
    params:
        **model_params(),
        code=code("probe"),
        batch_size=config["batch_size"],
    log:
        f"{RESULTS}/logs/probe.log",
    benchmark:
        f"{RESULTS}/benchmarks/probe.tsv"
    threads: 4
    resources:
        budget=BUDGET,
        mem_mb=4000,
        runtime=30,
    conda:
        "../envs/torch.yaml"
    script:
        "../scripts/probe.py"


rule timings:
    """All timings in one table: one row a measurement."""
    input:
        expand("{results}/timings/{part}.parquet", results=RESULTS, part=[*SPLITS, "probe"]),
    output:
        f"{RESULTS}/timings.parquet",
    params:
        code=code("timings"),
    log:
        f"{RESULTS}/logs/timings.log",
    benchmark:
        f"{RESULTS}/benchmarks/timings.tsv"
    resources:
        budget=1,
        mem_mb=1000,
        runtime=10,
    conda:
        "../envs/analysis.yaml"
    script:
        "../scripts/timings.py"
