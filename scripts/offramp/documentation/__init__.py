"""README and docs, rendered from the record of real runs."""
