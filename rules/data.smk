localrules:
    download,


rule download:
    """Get the dataset from the first source that serves it, checked, as plain arrays."""
    input:
        place_for_data,
    output:
        # Whoever is without a network when they are to be taken anew keeps what was there.
        [update(file) for file in DATA],
    log:
        f"{RESULTS}/logs/download.log",
    benchmark:
        f"{RESULTS}/benchmarks/download.tsv"
    conda:
        "../envs/torch.yaml"
    resources:
        budget=1,
        mem_mb=2000,
        runtime=120,
    params:
        code=code("download"),
        dataset=the_dataset,
    script:
        "../scripts/download.py"
