rule train:
    """Train by the recipe in networks/recipes.json; a killed run goes on from its last whole epoch."""
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
        **GPU,
        budget=1,
        mem_mb=6000,
        # cpunet takes a night on two cores, longer where they lack bf16.
        runtime=1440,
    params:
        # Nothing else: what was trained stands as long as these do.
        purpose=purpose_now(config),
    script:
        "../scripts/train.py"


rule ship:
    """For those who build the project: put weights trained here, and their card, into weights/."""
    input:
        data=DATA,
        weights=lambda wildcards: of_the_project(wildcards)
        and f"{RESULTS}/model/weights.safetensors",
        curves=f"{RESULTS}/training.parquet",
        figure=f"{RESULTS}/figures/training.png",
    output:
        # The weights, the figure and their place in the index are written beside it. They are not
        # declared, so that nobody who only uses them has them trained anew.
        card=f"weights/{SHIPPED}.md",
    log:
        f"{RESULTS}/logs/ship.log",
    benchmark:
        f"{RESULTS}/benchmarks/ship.tsv"
    conda:
        "../envs/torch.yaml"
    threads: 4
    resources:
        **GPU,
        budget=1,
        mem_mb=4000,
        runtime=10,
    params:
        code=code("ship"),
        dataset=the_dataset,
        validation=config["dataset"]["validation"],
        model=MODEL,
        device=config["device"],
        threads=config["threads"],
    script:
        "../scripts/ship.py"


rule ship_logits:
    """For those who build the project: put a run's logits and timings, packed, into weights/logits/."""
    input:
        val=f"{RESULTS}/logits/val.parquet",
        test=f"{RESULTS}/logits/test.parquet",
        timings=f"{RESULTS}/timings.parquet",
    output:
        val=f"weights/logits/{SHIPPED}/val.parquet",
        test=f"weights/logits/{SHIPPED}/test.parquet",
        timings=f"weights/logits/{SHIPPED}/timings.parquet",
        sums=f"weights/logits/{SHIPPED}/SHA256SUMS",
    log:
        f"{RESULTS}/logs/ship_logits.log",
    benchmark:
        f"{RESULTS}/benchmarks/ship_logits.tsv"
    conda:
        "../envs/analysis.yaml"
    resources:
        **LIGHT,
    params:
        code=code("ship_logits"),
    script:
        "../scripts/ship_logits.py"


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
        **LIGHT,
    params:
        **model_params(),
        code=code("network"),
    script:
        "../scripts/network.py"
