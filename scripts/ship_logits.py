"""Rule `ship_logits`: a run's logits and timings -> what the project ships of them."""

import shutil
from typing import TYPE_CHECKING

from offramp.tables.shipped import pack_logits, write_sums
from offramp.workflow.job import job_log

if TYPE_CHECKING:
    from snakemake.script import snakemake

with job_log(snakemake.log[0]):
    paths, output = snakemake.input, snakemake.output
    pack_logits(paths.val, output.val)
    pack_logits(paths.test, output.test)
    shutil.copyfile(paths.timings, output.timings)
    write_sums(output.sums, [output.val, output.test, output.timings])
