rule train:
    """Train the network from nothing; after a kill it goes on from the last whole epoch."""
    input:
        DATA,
    output:
        weights=f"{RESULTS}/model/weights.safetensors",
        curves=f"{RESULTS}/training.parquet",
    params:
        code=code("train"),
        dataset=config["dataset"]["name"],
        folder=DATA_FOLDER,
        validation=config["dataset"]["validation"],
        model=config["model"]["name"],
        device=config["device"],
        threads=config["threads"],
        train=config["train"],
        # Not an output: Snakemake would delete it before a rerun, and with it what to go on from.
        resume=f"{RESULTS}/model/resume.pt",
    log:
        f"{RESULTS}/logs/train.log",
    benchmark:
        f"{RESULTS}/benchmarks/train.tsv"
    threads: 4
    resources:
        budget=1,
        mem_mb=6000,
        runtime=120,
    conda:
        "../envs/torch.yaml"
    script:
        "../scripts/train.py"


rule network:
    """Shapes, parameters and multiply-adds of every block and head."""
    input:
        weights=weights_input,
    output:
        f"{RESULTS}/network.parquet",
    params:
        **model_params(),
        code=code("network"),
    log:
        f"{RESULTS}/logs/network.log",
    benchmark:
        f"{RESULTS}/benchmarks/network.tsv"
    resources:
        budget=1,
        mem_mb=2000,
        runtime=10,
    conda:
        "../envs/torch.yaml"
    script:
        "../scripts/network.py"
