"""Composition of the federation server: settings, processes, command line."""

__version__ = "0.1.0"
