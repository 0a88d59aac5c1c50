"""Traces of tests that look at something else."""

from __future__ import annotations


async def traced(*_: object) -> None:
    """Takes what stores hand over before a change becomes one, and finds it durable."""
