rule rival:
    """The cascade at its best policy, its full network, and a plain network, in turn; by name."""
    input:
        data=DATA,
        weights=weights_input,
        rival=rival_weights,
        policy=f"{RESULTS}/policies/best.json",
    output:
        f"{RESULTS}/rival.parquet",
    log:
        f"{RESULTS}/logs/rival.log",
    benchmark:
        f"{RESULTS}/benchmarks/rival.tsv"
    conda:
        "../envs/torch.yaml"
    threads: 4
    resources:
        budget=BUDGET,
        mem_mb=4000,
        runtime=30,
    params:
        **model_params(),
        code=code("rival"),
        batch_size=config["batch_size"],
        rival=config["rival"],
        rival_weights=sha256(config["rival"]["weights"]) if config["rival"] else None,
    script:
        "../scripts/rival.py"
