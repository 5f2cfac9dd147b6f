rule export:
    """The best policy and its network as ONNX files with a runner, proved on test data and timed."""
    input:
        data=DATA,
        weights=weights_input,
        logits=f"{RESULTS}/logits/test.parquet",
        policy=f"{RESULTS}/policies/best.json",
    output:
        folder=directory(f"{RESULTS}/export"),
        table=f"{RESULTS}/export.parquet",
    log:
        f"{RESULTS}/logs/export.log",
    benchmark:
        f"{RESULTS}/benchmarks/export.tsv"
    conda:
        "../envs/export.yaml"
    threads: 4
    resources:
        **TIMED,
    params:
        **model_params(),
        code=code("export"),
    script:
        "../scripts/export.py"
