"""offramp: run a multi-exit network once, then answer every early-exit question from tables.

The analysis half (criteria, risk, policy, tables, sweep, calibration, joint, timemodel, selection,
figures, summary) needs no torch; the other half (datasets, branchynet, networks, training,
forward, probe, cascade) does.
"""

__version__ = "0.1.0"


class OfframpError(Exception):
    """Something a user can mend; its message says what is wrong and what to do about it."""
