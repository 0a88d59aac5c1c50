"""Pixels, decoded in a bounded pool of processes: foreign codecs work on foreign data there (DESIGN §6)."""
