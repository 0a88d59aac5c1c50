"""The command line. Exit status: 0 done, 1 failed, 2 wrong command line or settings."""

from __future__ import annotations

from typing import Any

import click

from imagora import __version__
from imagora.commands.common import config_option, explain
from imagora.commands.lazy import LazyGroup

COMMANDS = {
    "exams": "imagora.commands.exams:exams",
    "migrate": "imagora.commands.migrate:migrate",
    "oppositions": "imagora.commands.oppositions:oppositions",
    "practitioners": "imagora.commands.practitioners:practitioners",
    "search": "imagora.commands.search:search",
    "serve": "imagora.commands.serve:serve",
    "sites": "imagora.commands.sites:sites",
    "token": "imagora.commands.token:token",
    "traces": "imagora.commands.traces:traces",
}


class Root(LazyGroup):
    """Tells every error in words, whichever command it comes from."""

    def invoke(self, ctx: click.Context) -> Any:
        try:
            return super().invoke(ctx)
        except (click.exceptions.Exit, click.Abort, BrokenPipeError):
            raise  # click's own
        except Exception as error:
            raise explain(error) from None


@click.group(cls=Root, table=COMMANDS, context_settings={"help_option_names": ["-h", "--help"]})
@config_option
@click.version_option(__version__, message="imagora %(version)s")
def cli() -> None:
    """Imagora: one DICOMweb façade over every PACS of a region."""


def main() -> None:
    """The program `imagora`."""
    cli.main(prog_name="imagora")
