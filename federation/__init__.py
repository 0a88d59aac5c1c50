"""The engine, which knows no protocol: fan-out, merge, identity, tagging, locating, relaying, health."""
