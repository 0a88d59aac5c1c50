"""A server among members that fail at random, for as long as one likes: see `scripts/soak`."""
