"""What every rule script shares: the config and the job."""
