"""Files on disk: schemas, reading, writing, provenance."""
