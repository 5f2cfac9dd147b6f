"""Rule `own_logits`: the user's logits, checked -> logits tables."""

from pathlib import Path
from typing import TYPE_CHECKING

from offramp.tables.files import provenance, write
from offramp.tables.own import OWN, check_own_splits, own_files, own_table, own_weights, read_own
from offramp.workflow.job import job_log

if TYPE_CHECKING:
    from snakemake.script import snakemake

with job_log(snakemake.log[0]):
    sources = snakemake.params.logits
    splits = {split: read_own(source, split) for split, source in sources.items()}
    check_own_splits(splits)
    weights = own_weights(splits)
    listed = ", ".join(file for source in sources.values() for file in own_files(source))
    for path in snakemake.output:
        split = Path(path).stem
        samples = splits[split]
        about = {"dataset": OWN, "model": OWN} | samples.origin | {"split": split, "logits": listed}
        origin = provenance(snakemake.config, weights, split) | about
        write(path, own_table(samples), "logits", origin)
