# Logits and costs of the user's own in place of a network's.
from offramp.tables.own import own_files

SOURCES = {split: OWN[split] for split in HERE}
OWN_FILES = [file for source in SOURCES.values() for file in own_files(source)]


rule own_logits:
    """The user's logits, checked, as tables."""
    input:
        OWN_FILES,
    output:
        expand("{results}/logits/{split}.parquet", results=RESULTS, split=HERE),
    log:
        f"{RESULTS}/logs/own_logits.log",
    benchmark:
        f"{RESULTS}/benchmarks/own_logits.tsv"
    conda:
        "../envs/analysis.yaml"
    resources:
        budget=1,
        mem_mb=4000,
        runtime=10,
    params:
        code=code("own_logits"),
        logits=SOURCES,
    script:
        "../scripts/own_logits.py"


rule own_costs:
    """What a sample costs at each block and head, as the user says, in place of timings."""
    input:
        logits=f"{RESULTS}/logits/val.parquet",
        costs=config["costs"] if isinstance(config["costs"], str) else [],
    output:
        f"{RESULTS}/timings.parquet",
    log:
        f"{RESULTS}/logs/own_costs.log",
    benchmark:
        f"{RESULTS}/benchmarks/own_costs.tsv"
    conda:
        "../envs/analysis.yaml"
    resources:
        **LIGHT,
    params:
        code=code("own_costs"),
        costs=config["costs"],
        batch_size=config["batch_size"],
    script:
        "../scripts/own_costs.py"
