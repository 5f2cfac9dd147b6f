"""Samples: datasets, splits, downloads."""
