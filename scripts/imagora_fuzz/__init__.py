"""Fuzzing of all that parses foreign bytes: see `scripts/fuzz`."""
