rule logits:
    """The one pass over a split: all exits' raw logits, and the seconds of every part."""
    input:
        data=DATA,
        weights=weights_input,
    output:
        logits=f"{RESULTS}/logits/{{split}}.parquet",
        timings=f"{RESULTS}/timings/{{split}}.parquet",
    log:
        f"{RESULTS}/logs/logits_{{split}}.log",
    benchmark:
        f"{RESULTS}/benchmarks/logits_{{split}}.tsv"
    conda:
        "../envs/torch.yaml"
    threads: 4
    resources:
        **TIMED,
    params:
        **model_params(),
        code=code("logits"),
        batch_size=config["batch_size"],
    script:
        "../scripts/logits.py"


rule probe:
    """The seconds of every part over a grid of batch sizes, and of removal over who stays."""
    input:
        data=DATA,
        weights=weights_input,
    output:
        f"{RESULTS}/timings/probe.parquet",
    log:
        f"{RESULTS}/logs/probe.log",
    benchmark:
        f"{RESULTS}/benchmarks/probe.tsv"
    conda:
        "../envs/torch.yaml"
    threads: 4
    resources:
        **TIMED,
    params:
        **model_params(),
        code=code("probe"),
        batch_size=config["batch_size"],
        criterion=config["criterion"],
        temperatures=config["calibration"]["temperatures"],
    script:
        "../scripts/probe.py"


rule timings:
    """All timings in one table: one row a measurement."""
    input:
        expand("{results}/timings/{part}.parquet", results=RESULTS, part=[*SPLITS, "probe"]),
    output:
        f"{RESULTS}/timings.parquet",
    log:
        f"{RESULTS}/logs/timings.log",
    benchmark:
        f"{RESULTS}/benchmarks/timings.tsv"
    conda:
        "../envs/analysis.yaml"
    resources:
        **LIGHT,
    params:
        code=code("timings"),
    script:
        "../scripts/timings.py"
