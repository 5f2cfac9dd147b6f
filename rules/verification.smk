rule verification:
    """The live cascade on test data against the tables, sample by sample and second by second."""
    input:
        data=DATA,
        weights=weights_input,
        logits=f"{RESULTS}/logits/test.parquet",
        timings=f"{RESULTS}/timings.parquet",
        policies=expand("{results}/policies/{name}.json", results=RESULTS, name=POLICIES),
    output:
        f"{RESULTS}/verification.parquet",
    log:
        f"{RESULTS}/logs/verification.log",
    benchmark:
        f"{RESULTS}/benchmarks/verification.tsv"
    conda:
        "../envs/torch.yaml"
    threads: 4
    resources:
        **TIMED,
    params:
        **model_params(),
        code=code("verification"),
        batch_size=config["batch_size"],
    script:
        "../scripts/verification.py"
