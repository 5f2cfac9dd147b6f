rule download:
    """Get the dataset from the first source that serves it, checked, as plain arrays."""
    output:
        DATA,
    params:
        code=code("download"),
        dataset=config["dataset"]["name"],
    log:
        f"{RESULTS}/logs/download.log",
    benchmark:
        f"{RESULTS}/benchmarks/download.tsv"
    resources:
        budget=1,
        mem_mb=2000,
        runtime=120,
    conda:
        "../envs/torch.yaml"
    script:
        "../scripts/download.py"
