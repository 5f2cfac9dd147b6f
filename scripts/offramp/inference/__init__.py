"""A network run: once for the tables, timed, and live to prove them. With torch."""
