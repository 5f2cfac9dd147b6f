# What was trained stands. A finished training of this purpose is a file like any other, which no
# rule makes: nothing that Snakemake notices, such as an edited script, can undo it.
if TRAINING_STANDS:

    rule train:
        """The network, trained already; nothing is to be done."""
        input:
            weights=f"{RESULTS}/model/weights.safetensors",
            curves=f"{RESULTS}/training.parquet",

else:

    rule train:
        """Train the network from nothing; after a kill it goes on from the last whole epoch."""
        input:
            data=training_data,
        output:
            weights=f"{RESULTS}/model/weights.safetensors",
            curves=f"{RESULTS}/training.parquet",
        log:
            f"{RESULTS}/logs/train.log",
        benchmark:
            f"{RESULTS}/benchmarks/train.tsv"
        conda:
            "../envs/torch.yaml"
        threads: 4
        resources:
            budget=1,
            mem_mb=6000,
            # cpunet takes up to five hours on two cores without bf16.
            runtime=480,
        params:
            dataset=config["dataset"]["name"],
            validation=config["dataset"]["validation"],
            model=config["model"]["name"],
            device=config["device"],
            threads=config["threads"],
            train=config["train"],
            # Not an output: Snakemake would delete it before a rerun, and with it what to go on from.
            # It is deleted once all is done (see Snakefile).
            resume=f"{RESULTS}/model/resume.pt",
        script:
            "../scripts/train.py"


rule ship:
    """For those who build the project: put weights trained here, and their card, into weights/."""
    input:
        data=DATA,
        weights=f"{RESULTS}/model/weights.safetensors",
        curves=f"{RESULTS}/training.parquet",
        figure=f"{RESULTS}/figures/training.png",
    output:
        # The weights, the figure and their place in the index are written beside it. They are not
        # declared, so that nobody who only uses them has them trained anew.
        card=f"weights/{config['model']['name']}.md",
    log:
        f"{RESULTS}/logs/ship.log",
    benchmark:
        f"{RESULTS}/benchmarks/ship.tsv"
    conda:
        "../envs/torch.yaml"
    threads: 4
    resources:
        budget=1,
        mem_mb=4000,
        runtime=10,
    params:
        code=code("ship"),
        dataset=config["dataset"]["name"],
        validation=config["dataset"]["validation"],
        model=config["model"]["name"],
        device=config["device"],
        threads=config["threads"],
    script:
        "../scripts/ship.py"


rule network:
    """Shapes, parameters and multiply-adds of every block and head."""
    input:
        weights=weights_input,
    output:
        f"{RESULTS}/network.parquet",
    log:
        f"{RESULTS}/logs/network.log",
    benchmark:
        f"{RESULTS}/benchmarks/network.tsv"
    conda:
        "../envs/torch.yaml"
    resources:
        budget=1,
        mem_mb=2000,
        runtime=10,
    params:
        **model_params(),
        code=code("network"),
    script:
        "../scripts/network.py"
