"""Networks of one's own: found, tried on a few samples, and given exits."""
