"""What tables that are made from tables say of their origin."""

from collections.abc import Mapping, Sequence
from typing import Any

import pyarrow as pa

from offramp.tables.files import origin_of, provenance, same_weights

# What the timings table says of what was timed and how; unit and logits where these are the user's.
PASSED_ON = ("dataset", "known", "model", "unit", "logits", "device_name", "threads", "torch")


def derived(config: Mapping[str, Any], tables: Sequence[pa.Table], split: str = "all") -> dict:
    """The origin of what is made from tables, the timings first: of their dataset and model, which
    need not be the config's, and in their unit.

    Raises OfframpError when they are of different weights.
    """
    of_timings = origin_of(tables[0])
    passed_on = {key: of_timings[key] for key in PASSED_ON if key in of_timings}
    return provenance(config, same_weights(tables), split) | passed_on
