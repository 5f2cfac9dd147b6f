MEASURED = ["backends", "machine", "time_model", "tables", "thresholds", "student"]
if config["dataset"]["name"] == "cifar10":
    MEASURED.append("public")  # whose accuracy others have published


rule benchmark:
    """What is measured against something else, in turn in one run; not part of `all`."""
    input:
        data=DATA,
        weights=of_the_project,
        logits=expand("{results}/logits/{split}.parquet", results=RESULTS, split=["val", "test"]),
        scores=expand("{results}/scores/{split}.parquet", results=RESULTS, split=["val", "test"]),
        timings=f"{RESULTS}/timings.parquet",
        network=f"{RESULTS}/network.parquet",
        policy=f"{RESULTS}/policies/best.json",
    output:
        f"{RESULTS}/measured/{{part}}.parquet",
    log:
        f"{RESULTS}/logs/benchmark_{{part}}.log",
    benchmark:
        f"{RESULTS}/benchmarks/benchmark_{{part}}.tsv"
    wildcard_constraints:
        part="|".join(MEASURED),
    conda:
        "../envs/torch.yaml"
    threads: 4
    resources:
        **EXCLUSIVE,
        **GPU,
        budget=BUDGET,
        mem_mb=6000,
        runtime=120,
    params:
        **model_params(),
        code=code("benchmark"),
        batch_size=config["batch_size"],
        report_cutoff=config["sweep"]["report_cutoff"],
    script:
        "../scripts/benchmark.py"


rule benchmark_run:
    """Where the seconds of a cold run of the whole workflow go, rule by rule."""
    input:
        data=DATA,
        weights=of_the_project,
    output:
        f"{RESULTS}/measured/run.parquet",
    log:
        f"{RESULTS}/logs/benchmark_run.log",
    benchmark:
        f"{RESULTS}/benchmarks/benchmark_run.tsv"
    conda:
        "../envs/torch.yaml"
    threads: 4
    resources:
        **EXCLUSIVE,
        **GPU,
        budget=BUDGET,
        mem_mb=6000,
        runtime=120,
    params:
        **model_params(),
        code=code("benchmark_run"),
        files={rule.name: Path(rule.snakefile).name for rule in workflow.rules},
    script:
        "../scripts/benchmark_run.py"


rule benchmarks_page:
    """The benchmarks as one table, a page and a figure."""
    input:
        expand("{results}/measured/{part}.parquet", results=RESULTS, part=[*MEASURED, "run"]),
    output:
        table=f"{RESULTS}/benchmarks.parquet",
        page=f"{RESULTS}/benchmarks.md",
        svg=report(
            f"{RESULTS}/figures/benchmarks.svg",
            caption="captions/benchmarks.rst",
            category="Benchmarks",
        ),
        png=f"{RESULTS}/figures/benchmarks.png",
    log:
        f"{RESULTS}/logs/benchmarks_page.log",
    benchmark:
        f"{RESULTS}/benchmarks/benchmarks_page.tsv"
    conda:
        "../envs/analysis.yaml"
    resources:
        **LIGHT,
    params:
        code=code("benchmarks_page"),
    script:
        "../scripts/benchmarks_page.py"


rule measured_page:
    """One part of the benchmarks as a page of its own."""
    input:
        f"{RESULTS}/measured/{{part}}.parquet",
    output:
        f"{RESULTS}/measured/{{part}}.md",
    log:
        f"{RESULTS}/logs/measured_page_{{part}}.log",
    benchmark:
        f"{RESULTS}/benchmarks/measured_page_{{part}}.tsv"
    wildcard_constraints:
        part="|".join([*MEASURED, "run"]),
    conda:
        "../envs/analysis.yaml"
    resources:
        **LIGHT,
    params:
        code=code("measured_page"),
    script:
        "../scripts/measured_page.py"


rule multiply_adds:
    """Accuracy over multiply-adds, beside what others publish, as a figure."""
    input:
        f"{RESULTS}/measured/thresholds.parquet",
    output:
        svg=report(
            f"{RESULTS}/figures/multiply_adds.svg",
            caption="captions/multiply_adds.rst",
            category="Benchmarks",
        ),
        png=f"{RESULTS}/figures/multiply_adds.png",
    log:
        f"{RESULTS}/logs/multiply_adds.log",
    benchmark:
        f"{RESULTS}/benchmarks/multiply_adds.tsv"
    conda:
        "../envs/analysis.yaml"
    resources:
        **LIGHT,
    params:
        code=code("multiply_adds"),
    script:
        "../scripts/multiply_adds.py"
