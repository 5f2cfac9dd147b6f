POLICIES = ["report_cutoff", "target", "best_cutoff", "best_train", "best"]
SCORES = expand("{results}/scores/{split}.parquet", results=RESULTS, split=HERE)


rule temperatures:
    """A temperature per exit, fitted to half of the validation data."""
    input:
        f"{TABLES_OF}/logits/val.parquet",
    output:
        f"{RESULTS}/temperatures.parquet",
    log:
        f"{RESULTS}/logs/temperatures.log",
    benchmark:
        f"{RESULTS}/benchmarks/temperatures.tsv"
    conda:
        "../envs/analysis.yaml"
    resources:
        **LIGHT,
    params:
        code=code("temperatures"),
    script:
        "../scripts/temperatures.py"


rule reliability:
    """How often each exit is right when it is so and so sure, with temperatures and without."""
    input:
        temperatures=f"{RESULTS}/temperatures.parquet",
        val=f"{TABLES_OF}/logits/val.parquet",
        test=f"{TABLES_OF}/logits/test.parquet",
    output:
        reliability=f"{RESULTS}/reliability.parquet",
        confidence=f"{RESULTS}/confidence.parquet",
    log:
        f"{RESULTS}/logs/reliability.log",
    benchmark:
        f"{RESULTS}/benchmarks/reliability.tsv"
    conda:
        "../envs/analysis.yaml"
    resources:
        **LIGHT,
    params:
        code=code("reliability"),
    script:
        "../scripts/reliability.py"


rule deferral:
    """What leaving at each side exit may lose, fitted to validation data: the criterion `deferral`."""
    input:
        f"{TABLES_OF}/logits/val.parquet",
    output:
        f"{RESULTS}/deferral.parquet",
    log:
        f"{RESULTS}/logs/deferral.log",
    benchmark:
        f"{RESULTS}/benchmarks/deferral.tsv"
    conda:
        "../envs/analysis.yaml"
    resources:
        **LIGHT,
    params:
        code=code("deferral"),
    script:
        "../scripts/deferral.py"


rule scores:
    """The criterion's score and correctness of every sample at every exit."""
    input:
        logits=f"{TABLES_OF}/logits/{{split}}.parquet",
        temperatures=(
            f"{RESULTS}/temperatures.parquet" if config["calibration"]["temperatures"] else []
        ),
        deferral=f"{RESULTS}/deferral.parquet" if config["criterion"] == "deferral" else [],
    output:
        f"{RESULTS}/scores/{{split}}.parquet",
    log:
        f"{RESULTS}/logs/scores_{{split}}.log",
    benchmark:
        f"{RESULTS}/benchmarks/scores_{{split}}.tsv"
    conda:
        "../envs/analysis.yaml"
    resources:
        **LIGHT,
    params:
        code=code("scores"),
        criterion=config["criterion"],
        temperatures=config["calibration"]["temperatures"],
    script:
        "../scripts/scores.py"


rule sweep:
    """Task 1b: every shared cutoff, exactly, from the tables."""
    input:
        scores=SCORES,
        timings=f"{TABLES_OF}/timings.parquet",
    output:
        f"{RESULTS}/sweep.parquet",
    log:
        f"{RESULTS}/logs/sweep.log",
    benchmark:
        f"{RESULTS}/benchmarks/sweep.tsv"
    conda:
        "../envs/analysis.yaml"
    resources:
        **LIGHT,
    params:
        code=code("sweep"),
        batch_size=config["batch_size"],
        sweep=config["sweep"],
    script:
        "../scripts/sweep.py"


rule calibration:
    """Tasks 2a and 2b: a threshold per exit for every wanted accuracy."""
    input:
        scores=SCORES,
        logits=f"{TABLES_OF}/logits/val.parquet",
        timings=f"{TABLES_OF}/timings.parquet",
    output:
        f"{RESULTS}/calibration.parquet",
    log:
        f"{RESULTS}/logs/calibration.log",
    benchmark:
        f"{RESULTS}/benchmarks/calibration.tsv"
    conda:
        "../envs/analysis.yaml"
    resources:
        **LIGHT,
    params:
        code=code("calibration"),
        batch_size=config["batch_size"],
        calibration=config["calibration"],
    script:
        "../scripts/calibration.py"


rule optimism:
    """How much more thresholds fitted to validation data lose on new data, by resampling these."""
    input:
        scores=f"{RESULTS}/scores/val.parquet",
        logits=f"{TABLES_OF}/logits/val.parquet",
        timings=f"{TABLES_OF}/timings.parquet",
    output:
        f"{RESULTS}/optimism.parquet",
    log:
        f"{RESULTS}/logs/optimism.log",
    benchmark:
        f"{RESULTS}/benchmarks/optimism.tsv"
    conda:
        "../envs/analysis.yaml"
    resources:
        **LIGHT,
    params:
        code=code("optimism"),
        batch_size=config["batch_size"],
        calibration=config["calibration"],
    script:
        "../scripts/optimism.py"


rule policies:
    """The chosen policies, each by its rule from validation data, as files the cascade can load."""
    input:
        scores=f"{RESULTS}/scores/val.parquet",
        sweep=f"{RESULTS}/sweep.parquet",
        calibration=f"{RESULTS}/calibration.parquet",
        optimism=f"{RESULTS}/optimism.parquet",
    output:
        expand("{results}/policies/{name}.json", results=RESULTS, name=POLICIES),
    log:
        f"{RESULTS}/logs/policies.log",
    benchmark:
        f"{RESULTS}/benchmarks/policies.tsv"
    conda:
        "../envs/analysis.yaml"
    resources:
        **LIGHT,
    params:
        code=code("policies"),
        # Of own logits and another run's, what the tables say of the network counts.
        weights=WEIGHTS if OWN is None else TABLES_OF,
        options=config["model"]["options"] if OWN is None else {},
        report_cutoff=config["sweep"]["report_cutoff"],
        target=config["calibration"]["target"],
        selection=config["selection"],
    script:
        "../scripts/policies.py"


rule leaving:
    """Who leaves where under the best policy and as what, how exits agree, what an oracle would do."""
    input:
        logits=f"{TABLES_OF}/logits/test.parquet",
        timings=f"{TABLES_OF}/timings.parquet",
        policy=f"{RESULTS}/policies/best.json",
    output:
        leaving=f"{RESULTS}/leaving.parquet",
        agreement=f"{RESULTS}/agreement.parquet",
        oracle=f"{RESULTS}/oracle.parquet",
    log:
        f"{RESULTS}/logs/leaving.log",
    benchmark:
        f"{RESULTS}/benchmarks/leaving.tsv"
    conda:
        "../envs/analysis.yaml"
    resources:
        **LIGHT,
    params:
        code=code("leaving"),
        batch_size=config["batch_size"],
    script:
        "../scripts/leaving.py"
