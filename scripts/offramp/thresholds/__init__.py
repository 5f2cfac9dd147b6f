"""Which policy: time, sweep, calibration, guarantees, selection."""
