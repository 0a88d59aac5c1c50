"""What can go wrong with the database, and the border at which asyncpg's errors become ours."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import asyncpg


class DatabaseError(Exception):
    """The database refused a command. The text names the kind of error, never a value."""


class DatabaseUnavailable(DatabaseError):
    """The database cannot be reached, or does not answer in time. Trying again later may help."""


#: Classes of SQLSTATE that speak of the server, not of the command (PostgreSQL manual, appendix A).
_UNAVAILABLE = ("08", "25006", "28", "3D", "53", "57", "58", "XX")
#: Classes whose messages name tables and roles, never values.
_HARMLESS = ("08", "28", "3D", "42", "53", "57", "58")


def in_words(error: asyncpg.PostgresError) -> str:
    """What PostgreSQL refused, without its details, which quote values."""
    state = error.sqlstate or ""
    text = f"{type(error).__name__} (SQLSTATE {state})"
    if state.startswith(_HARMLESS):
        text += f": {error.message}"
    if constraint := getattr(error, "constraint_name", None):
        text += f" on {constraint}"
    return text


@contextmanager
def translated() -> Iterator[None]:
    """Turns what asyncpg and the network raise into `DatabaseUnavailable` or `DatabaseError`.

    The original is not chained: its text and its traceback may hold values, that is, patients' data.
    """
    try:
        yield
    except asyncpg.PostgresError as error:
        text = in_words(error)
        if (error.sqlstate or "").startswith(_UNAVAILABLE):
            raise DatabaseUnavailable(f"the database cannot be used: {text}") from None
        raise DatabaseError(f"the database refused a command: {text}") from None
    except TimeoutError:
        raise DatabaseUnavailable("the database does not answer in time") from None
    except OSError as error:
        reason = error.strerror or type(error).__name__
        raise DatabaseUnavailable(f"the database cannot be reached: {reason}") from None
    except (asyncpg.InterfaceError, asyncpg.InternalClientError) as error:
        if isinstance(error, ValueError):  # a value, or a URL, that asyncpg cannot encode or read
            raise DatabaseError(f"the database refused a value: {type(error).__name__}") from None
        raise DatabaseUnavailable(f"the database cannot be used: {type(error).__name__}") from None
