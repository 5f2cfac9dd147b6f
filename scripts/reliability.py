"""Rule `reliability`: logits and temperatures -> how true the exits' probabilities are."""

from typing import TYPE_CHECKING

from offramp.scoring.scores import fitting_part
from offramp.scoring.temperatures import answers_of, confidence_table, reliability_table
from offramp.tables.files import origin_of, read, read_logits, same_weights, write
from offramp.workflow.job import job_log

if TYPE_CHECKING:
    from snakemake.script import snakemake

with job_log(snakemake.log[0]):
    paths = snakemake.input
    temperatures = read(paths.temperatures, "temperatures")
    splits, tables = {}, [temperatures]
    for split in ("val", "test"):
        dumped = read_logits(getattr(paths, split))
        rest = slice(fitting_part(len(dumped.label)) if split == "val" else 0, None)
        splits[split] = dumped.logits[rest], dumped.label[rest]
        tables.append(dumped.table)
    same_weights(tables)
    divisors = temperatures["temperature"].to_pylist()
    origin = origin_of(tables[-1]) | {"split": "val, test"}
    # Answered twice, since all at once may be more than the memory holds.
    for name, table_of in (("reliability", reliability_table), ("confidence", confidence_table)):
        table = table_of(answers_of(splits, divisors))
        write(getattr(snakemake.output, name), table, name, origin)
