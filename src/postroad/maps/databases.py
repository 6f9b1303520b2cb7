"""SQL databases as maps: PostgreSQL (asyncpg), MySQL and MariaDB (asyncmy).

Connections are kept (`maps.kept`). What always holds: keys never become a part of a statement: PostgreSQL gets them as
parameters, MySQL as hexadecimal literals, which mean the same in every `sql_mode`.

How it fails: `maps.waiting`. If there is no connection, no right to log in, or there are too many connections, the map
is Away. An error of a query concerns only its key.
"""

from __future__ import annotations

import re
import ssl
from collections.abc import Sequence
from hashlib import sha256
from pathlib import Path
from typing import Any, Final, Protocol
from urllib.parse import parse_qs, unquote, urlsplit

from postroad.maps.kept import KeptConnections
from postroad.maps.sql import ROWS_MAX, SqlForm, SqlStatement, joined, statement
from postroad.world.problem import Problem, unreadable

POSTGRESQL: Final = SqlForm(
    lambda number: f"${number}", lambda number: f"${number}::text", lambda parts: f"concat({', '.join(parts)})"
)
MYSQL: Final = SqlForm(
    lambda number: f"\0{number}\0", lambda number: f"\0{number}\0", lambda parts: f"concat({', '.join(parts)})"
)
_MARK: Final = re.compile("\0([0-9]+)\0")
# Of MySQL and MariaDB: too many connections, no such user or database, shutdown and the like; those of the client.
_AWAY: Final = frozenset((1040, 1042, 1043, 1044, 1045, 1047, 1049, 1053, 1129, 1130, 1135, 1203, 1226, 1927, 3159))
_CLIENT_ERRORS: Final = 2000
_PARAMETERS: Final = frozenset(("ssl_ca", "unix_socket"))  # of a URL of MySQL
# Of PostgreSQL: the columns of a table are others than when the statement was prepared; there is no such prepared
# statement; there is one already.
_TABLE_CHANGED: Final = "0A000"
_NOT_PREPARED: Final = frozenset((_TABLE_CHANGED, "26000", "42P05"))


Rows = Sequence[Sequence[Any]]


class SqlBackend(Protocol):
    """One database server."""

    async def connect(self) -> Any: ...

    async def query(self, connection: Any, query: SqlStatement, arguments: tuple[str, ...]) -> Rows: ...

    def abort(self, connection: Any) -> None:
        """Close a connection at once."""

    def is_away(self, error: Exception) -> bool:
        """Whether an error says that nothing can be asked now."""


class SqlDriver:
    """A query to a database. See the module."""

    folds = True

    def __init__(self, backend: SqlBackend, query: SqlStatement) -> None:
        self._backend = backend
        self._query = query
        self.connections: KeptConnections[Any] = KeptConnections(backend.connect, backend.abort, backend.is_away)

    async def fetch(self, key: str, part: bool) -> str | None:
        arguments = self._query.arguments(key)
        if arguments is None or "\0" in key:  # which no text of a database holds
            return None
        rows = await self.connections.use(lambda connection: self._backend.query(connection, self._query, arguments))
        return joined(rows)

    def close(self) -> None:
        self.connections.close()


class PostgresConnection:
    """A connection, and its query once that is prepared."""

    __slots__ = ("connection", "prepared")

    def __init__(self, connection: Any) -> None:
        self.connection = connection
        self.prepared: Any = None


class PostgresBackend:
    """PostgreSQL. Each connection prepares the query once.

    A pool such as PgBouncer may stand between, which gives a connection to another server process for each query. There
    the prepared statement may be missing, or there already. Its name is a hash of the query, so that a statement of
    this name is always this query, whoever prepared it. If it is missing or there already, the query is sent as it is,
    and from then on nothing is prepared.
    """

    def __init__(self, asyncpg: Any, url: str, password: str) -> None:
        self._asyncpg = asyncpg
        self._url = url
        self._password = password
        self._prepares = True

    async def connect(self) -> PostgresConnection:
        more = {"password": self._password} if self._password else {}
        made = await self._asyncpg.connect(
            self._url, statement_cache_size=0, server_settings={"application_name": "postroad"}, **more
        )
        return PostgresConnection(made)

    async def query(self, connection: PostgresConnection, query: SqlStatement, arguments: tuple[str, ...]) -> Rows:
        rows = await self._prepared(connection, query, arguments) if self._prepares else None
        if rows is None:
            rows = await connection.connection.fetch(query.text, *arguments)
        return rows

    async def _prepared(
        self, connection: PostgresConnection, query: SqlStatement, arguments: tuple[str, ...]
    ) -> Rows | None:
        """None if it must be asked without."""
        try:
            if connection.prepared is None:
                name = f"postroad_{sha256(query.text.encode()).hexdigest()[:32]}"
                connection.prepared = await connection.connection.prepare(query.text, name=name)
            rows: Rows = await connection.prepared.fetch(*arguments)
        except self._asyncpg.PostgresError as error:
            if error.sqlstate not in _NOT_PREPARED:
                raise
            connection.prepared = None
            self._prepares = error.sqlstate == _TABLE_CHANGED
            return None
        return rows

    def abort(self, connection: PostgresConnection) -> None:
        connection.connection.terminate()

    def is_away(self, error: Exception) -> bool:
        # Classes 08 (connection), 53 (resources), 57 (operator intervention), 28 (log-in), 3D (no such database), 25.
        code = str(getattr(error, "sqlstate", "") or "")
        return isinstance(error, self._asyncpg.InterfaceError) or code[:2] in ("08", "53", "57", "28", "3D", "25")


class MysqlBackend:
    """MySQL and MariaDB."""

    def __init__(self, asyncmy: Any, url: str, password: str, tls: ssl.SSLContext | None) -> None:
        self._asyncmy = asyncmy
        parts = urlsplit(url)
        more = parse_qs(parts.query)
        self._given: dict[str, Any] = {
            "host": parts.hostname or "localhost", "port": parts.port or 3306, "user": unquote(parts.username or ""),
            "password": password or unquote(parts.password or ""), "database": unquote(parts.path.lstrip("/")),
            "charset": "utf8mb4", "autocommit": True, "ssl": tls,
        }  # fmt: skip
        if "unix_socket" in more:
            self._given["unix_socket"] = more["unix_socket"][0]

    async def connect(self) -> Any:
        return await self._asyncmy.connect(**self._given)

    async def query(self, connection: Any, query: SqlStatement, arguments: tuple[str, ...]) -> Rows:
        text = _MARK.sub(lambda found: _literal(arguments[int(found[1]) - 1]), query.text)
        async with connection.cursor() as cursor:
            await cursor.execute(text)
            rows: Rows = await cursor.fetchmany(ROWS_MAX + 1)
        return rows

    def abort(self, connection: Any) -> None:
        connection.close()

    def is_away(self, error: Exception) -> bool:
        errors = self._asyncmy.errors
        if isinstance(error, errors.InterfaceError):
            return True
        code = error.args[0] if error.args and isinstance(error.args[0], int) else 0
        return isinstance(error, errors.OperationalError) and (code in _AWAY or code >= _CLIENT_ERRORS or code == 0)


def _literal(value: str) -> str:
    return f"_utf8mb4 X'{value.encode().hex()}'"


# ---- making ---------------------------------------------------------------------------------------------------------


def postgres_driver(where: str, url: str, password_file: str, query: str) -> SqlDriver | Problem:
    try:
        import asyncpg
    except ImportError:
        return _missing(where, "postgresql", "asyncpg")
    if urlsplit(url).scheme not in ("postgresql", "postgres"):
        return Problem(where, "url must begin with postgresql://", "Write postgresql://user@host/database.")
    password = read_password(password_file)
    made = statement(query, POSTGRESQL)
    if isinstance(password, Problem):
        return password
    if isinstance(made, str):
        return Problem(where, made, "Correct the query.")
    return SqlDriver(PostgresBackend(asyncpg, url, password), made)


def mysql_driver(where: str, url: str, password_file: str, query: str) -> SqlDriver | Problem:
    try:
        import asyncmy
        import asyncmy.errors
    except ImportError:
        return _missing(where, "mysql", "asyncmy")
    parts = urlsplit(url)
    if parts.scheme not in ("mysql", "mariadb"):
        return Problem(where, "url must begin with mysql://", "Write mysql://user@host/database.")
    password = read_password(password_file)
    made = statement(query, MYSQL)
    if isinstance(password, Problem):
        return password
    if isinstance(made, str):
        return Problem(where, made, "Correct the query.")
    unknown = parse_qs(parts.query, keep_blank_values=True).keys() - _PARAMETERS
    if unknown:  # a misspelt ssl_ca would send the password without TLS
        text = f"url has the parameter {min(unknown)!r}, which means nothing here"
        return Problem(where, text, f"Write {' or '.join(sorted(_PARAMETERS))}.")
    tls: ssl.SSLContext | None = None
    roots = roots_of(url)
    if roots:
        try:
            tls = ssl.create_default_context(cafile=roots)
        except OSError as error:
            return unreadable(roots, error)
    return SqlDriver(MysqlBackend(asyncmy, url, password, tls), made)


def roots_of(url: str) -> str:
    """The file of roots that a URL of MySQL names; "" for none."""
    return "" if "ssl_ca" not in url else (parse_qs(urlsplit(url).query).get("ssl_ca") or [""])[0]


def read_password(path: str) -> str | Problem:
    """The first line of a file; "" if there is no file."""
    if not path:
        return ""
    try:
        return Path(path).read_text("utf-8").partition("\n")[0].rstrip("\r")
    except OSError as error:
        return unreadable(path, error)
    except UnicodeDecodeError:
        return Problem(path, "is not in UTF-8", "Save it in UTF-8.")


def _missing(where: str, extra: str, package: str) -> Problem:
    text = f"a map of kind {extra} needs the package {package}, which is not installed"
    return Problem(where, text, f"Install it: pip install 'postroad[{extra}]'.")
