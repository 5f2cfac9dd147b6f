"""Rule `reliability`: logits and temperatures -> how true the exits' probabilities are."""

from typing import TYPE_CHECKING

from offramp.job import job_log
from offramp.tables import origin_of, read, read_logits, same_weights, write
from offramp.temperatures import reliability_table
from offramp.thresholds import fitting_part

if TYPE_CHECKING:
    from snakemake.script import snakemake

with job_log(snakemake.log[0]):
    paths = snakemake.input
    temperatures = read(paths.temperatures, "temperatures")
    splits, tables = {}, [temperatures]
    for split in ("val", "test"):
        _, label, logits, table = read_logits(getattr(paths, split))
        rest = slice(fitting_part(len(label)) if split == "val" else 0, None)
        splits[split] = logits[rest], label[rest]
        tables.append(table)
    same_weights(tables)
    found = reliability_table(splits, temperatures["temperature"].to_pylist())
    write(snakemake.output[0], found, "reliability", origin_of(table) | {"split": "val, test"})
