"""`imagora token`: a bearer token of the demonstration"""

from __future__ import annotations

import click

from imagora.commands.common import Failure, config_option, settings_of
from imagora.demo_issuer import demo_token
from registry.people import check_rpps


@click.command()
@click.option("--as", "rpps", required=True, metavar="RPPS", help="Who asks: his RPPS, 11 digits.")
@config_option
@click.pass_context
def token(context: click.Context, rpps: str) -> None:
    """Print a bearer token of the built-in issuer, good for an hour (auth.mode = "demo" only).

    \b
    curl -H "Authorization: Bearer $(imagora token --as 10001234567)" http://127.0.0.1:8080/dicom-web/studies
    """
    settings = settings_of(context)
    if settings.auth.mode != "demo":
        raise Failure(f'auth.mode is "{settings.auth.mode}": only the demonstration has an issuer of its own')
    try:
        checked = check_rpps(rpps)
    except ValueError as error:
        raise click.BadParameter(str(error), context, param_hint="--as") from None
    click.echo(demo_token(settings, checked))
