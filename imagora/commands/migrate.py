"""`imagora migrate`"""

from __future__ import annotations

import click

from imagora.commands.common import config_option, run, settings_of
from imagora.settings import Settings
from registry import migrate as migrations
from registry.embedded import database_url


@click.command()
@config_option
@click.pass_context
def migrate(context: click.Context) -> None:
    """Bring the database to the tables that this version needs.

    Safe to run at any time, any number of times, from any number of machines at once.
    """
    if run(_migrate(settings_of(context))):
        click.echo(f"The database was brought to version {migrations.newest()}.")
    else:
        click.echo(f"Nothing to do: the database is at version {migrations.newest()} or newer.")


async def _migrate(settings: Settings) -> bool:
    async with database_url(settings) as url:
        return await migrations.migrate(url)
