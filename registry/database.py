"""The one place that speaks to PostgreSQL."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager, contextmanager, suppress
from typing import Any, Literal, Self, TypeAlias, cast

import asyncpg
import orjson

from registry import migrate
from registry.errors import DatabaseError, DatabaseUnavailable, translated

__all__ = ["Connection", "Database", "DatabaseError", "DatabaseUnavailable", "Row"]

Row: TypeAlias = Mapping[str, Any]
Isolation: TypeAlias = Literal["read_committed", "repeatable_read", "serializable"]

#: How long a command may take, and how long to wait for a free connection.
COMMAND_TIMEOUT_S = 10.0
ACQUIRE_TIMEOUT_S = 5.0
READY_TIMEOUT_S = 2.0
#: Connections of one pool, at most.
CONNECTIONS_MAX = 8

#: → how many connections the server lets us have
_ALLOWED = """
SELECT current_setting('max_connections')::int - current_setting('superuser_reserved_connections')::int
       - coalesce(current_setting('reserved_connections', true), '0')::int
"""


class Connection:
    """One connection of ours, with errors translated. Rows are read by column name."""

    __slots__ = ("_raw",)

    def __init__(self, raw: asyncpg.Connection[asyncpg.Record]) -> None:
        self._raw = raw

    async def fetch(self, sql: str, *values: object, timeout: float | None = None) -> Sequence[Row]:  # noqa: ASYNC109
        with self._guarded():
            return cast("Sequence[Row]", await self._raw.fetch(sql, *values, timeout=timeout))

    async def fetchrow(self, sql: str, *values: object, timeout: float | None = None) -> Row | None:  # noqa: ASYNC109
        with self._guarded():
            return cast("Row | None", await self._raw.fetchrow(sql, *values, timeout=timeout))

    async def fetchval(self, sql: str, *values: object, timeout: float | None = None) -> Any:  # noqa: ASYNC109
        with self._guarded():
            return await self._raw.fetchval(sql, *values, timeout=timeout)

    async def execute(self, sql: str, *values: object, timeout: float | None = None) -> str:  # noqa: ASYNC109
        """Returns the command's tag, as in `UPDATE 1`."""
        with self._guarded():
            return await self._raw.execute(sql, *values, timeout=timeout)

    async def stream(self, sql: str, *values: object, rows_at_once: int = 1000) -> AsyncIterator[Row]:
        """Rows as they are read, however many there are. Only inside a transaction."""
        with self._guarded():
            async for row in self._raw.cursor(sql, *values, prefetch=rows_at_once):
                yield cast("Row", row)

    async def executemany(self, sql: str, rows: Iterable[Sequence[object]]) -> None:
        """All rows or none of them."""
        with self._guarded():
            await self._raw.executemany(sql, rows)

    async def listen(self, channel: str, heard: Callable[[str], object]) -> None:
        """Call `heard` with each message on the channel, for as long as this connection lives."""

        def notified(*told: object) -> None:
            heard(str(told[-1]))  # connection, process, channel, message

        with self._guarded():
            await self._raw.add_listener(channel, notified)

    @asynccontextmanager
    async def transaction(self, isolation: Isolation = "read_committed") -> AsyncIterator[None]:
        transaction = self._raw.transaction(isolation=isolation)
        with self._guarded():
            await transaction.start()
        try:
            yield
        except BaseException:
            with suppress(DatabaseError), self._guarded():
                await transaction.rollback()
            raise
        else:
            with self._guarded():
                await transaction.commit()

    @contextmanager
    def _guarded(self) -> Iterator[None]:
        try:
            with translated():
                yield
        except (DatabaseUnavailable, asyncio.CancelledError):
            # A connection that still owes an answer is not fit for another command, and giving it back to the pool
            # would wait for it, perhaps in vain.
            with suppress(asyncpg.InterfaceError):  # it was ended before, and this is what follows from that
                self._raw.terminate()
            raise


class Database:
    """A pool of connections to one PostgreSQL.

    `open` connects and raises `DatabaseUnavailable` when it can't. Later losses heal by themselves: a command fails
    while the database is gone and works again once it is back.
    """

    def __init__(self, url: str, *, application: str = "imagora", connections_max: int = CONNECTIONS_MAX) -> None:
        self._url = url
        self._application = application
        self._connections_max = connections_max
        self._pool: asyncpg.Pool[asyncpg.Record] | None = None

    async def open(self) -> None:
        if self._pool is not None:
            return
        with translated():
            pool = asyncpg.create_pool(
                self._url,
                min_size=1,
                max_size=self._connections_max,
                command_timeout=COMMAND_TIMEOUT_S,
                timeout=ACQUIRE_TIMEOUT_S,
                init=_prepare,
                server_settings={"application_name": self._application},
            )
            try:
                await pool
            except BaseException:
                pool.terminate()
                raise
        self._pool = pool

    async def aclose(self) -> None:
        """Close all connections: running commands get a moment, then they are cut."""
        pool, self._pool = self._pool, None
        if pool is None:
            return
        try:
            async with asyncio.timeout(COMMAND_TIMEOUT_S):
                await pool.close()
        except (TimeoutError, OSError, asyncpg.PostgresError, asyncpg.InterfaceError):
            pool.terminate()

    async def __aenter__(self) -> Self:
        await self.open()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.aclose()

    @asynccontextmanager
    async def connection(self) -> AsyncIterator[Connection]:
        """A connection of the pool."""
        if self._pool is None:
            raise DatabaseUnavailable("the database is closed")
        with translated():
            raw = await self._pool.acquire(timeout=ACQUIRE_TIMEOUT_S)
        try:
            yield Connection(cast("asyncpg.Connection[asyncpg.Record]", raw))
        finally:
            with suppress(DatabaseError), translated():
                await self._pool.release(raw, timeout=ACQUIRE_TIMEOUT_S)

    @asynccontextmanager
    async def session(self) -> AsyncIterator[Connection]:
        """A connection outside the pool, for one who keeps it: a listener, a writer."""
        with translated():
            raw = await asyncpg.connect(
                self._url,
                timeout=ACQUIRE_TIMEOUT_S,
                command_timeout=COMMAND_TIMEOUT_S,
                server_settings={"application_name": self._application},
            )
            try:
                await _prepare(raw)
            except BaseException:
                raw.terminate()
                raise
        try:
            yield Connection(raw)
        except BaseException:
            raw.terminate()
            raise
        else:
            with suppress(DatabaseError), translated():
                await raw.close(timeout=1.0)

    @asynccontextmanager
    async def transaction(self, isolation: Isolation = "read_committed") -> AsyncIterator[Connection]:
        async with self.connection() as connection, connection.transaction(isolation):
            yield connection

    async def fetch(self, sql: str, *values: object) -> Sequence[Row]:
        async with self.connection() as connection:
            return await connection.fetch(sql, *values)

    async def fetchrow(self, sql: str, *values: object) -> Row | None:
        async with self.connection() as connection:
            return await connection.fetchrow(sql, *values)

    async def fetchval(self, sql: str, *values: object) -> Any:
        async with self.connection() as connection:
            return await connection.fetchval(sql, *values)

    async def execute(self, sql: str, *values: object) -> str:
        async with self.connection() as connection:
            return await connection.execute(sql, *values)

    async def executemany(self, sql: str, rows: Iterable[Sequence[object]]) -> None:
        async with self.connection() as connection:
            await connection.executemany(sql, rows)

    async def connections_allowed(self) -> int:
        """How many connections the server gives to all who use it together."""
        return int(await self.fetchval(_ALLOWED))

    async def ready(self) -> bool:
        """True if the database answers within two seconds and has every migration of this program."""
        try:
            async with asyncio.timeout(READY_TIMEOUT_S):
                return migrate.is_current(await self.fetchval(migrate.VERSION))
        except (DatabaseError, TimeoutError):
            return False


async def _prepare(connection: Any) -> None:
    for name in ("json", "jsonb"):
        await connection.set_type_codec(
            name, schema="pg_catalog", encoder=lambda value: orjson.dumps(value).decode(), decoder=orjson.loads
        )
