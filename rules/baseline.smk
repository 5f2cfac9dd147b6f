rule baseline:
    """The cascade at its best policy, its full network, and a plain network, in turn; by name."""
    input:
        data=DATA,
        weights=weights_input,
        baseline=baseline_weights,
        policy=f"{RESULTS}/policies/best.json",
    output:
        f"{RESULTS}/baseline.parquet",
    log:
        f"{RESULTS}/logs/baseline.log",
    benchmark:
        f"{RESULTS}/benchmarks/baseline.tsv"
    conda:
        "../envs/torch.yaml"
    threads: 4
    resources:
        **TIMED,
    params:
        **model_params(),
        code=code("baseline"),
        batch_size=config["batch_size"],
        baseline=config["baseline"],
        baseline_weights=sha256(config["baseline"]["weights"]) if config["baseline"] else None,
    script:
        "../scripts/baseline.py"
