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


rule rival_figure:
    """Time against accuracy: cascade, full network, rival."""
    input:
        rival=f"{RESULTS}/rival.parquet",
        sweep=f"{RESULTS}/sweep.parquet",
    output:
        svg=report(
            f"{RESULTS}/figures/rival.svg", caption="captions/rival.rst", category="Look closer"
        ),
        png=f"{RESULTS}/figures/rival.png",
    log:
        f"{RESULTS}/logs/rival_figure.log",
    benchmark:
        f"{RESULTS}/benchmarks/rival_figure.tsv"
    conda:
        "../envs/analysis.yaml"
    resources:
        budget=1,
        mem_mb=1000,
        runtime=10,
    params:
        code=code("rival_figure"),
    script:
        "../scripts/rival_figure.py"
