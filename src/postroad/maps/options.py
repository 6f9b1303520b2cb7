"""The settings of a map, with their defaults."""

from __future__ import annotations

import enum
from typing import Annotated, Final

import msgspec
from msgspec import Meta

from postroad.maps.waiting import WaitingOptions


class MapKind(enum.Enum):
    """What answers."""

    INLINE = "inline"
    TEXT = "text"
    ALIASES = "aliases"
    REGEXP = "regexp"
    PCRE = "pcre"
    CIDR = "cidr"
    STATIC = "static"
    FIRST = "first"
    UNION = "union"
    CDB = "cdb"
    LMDB = "lmdb"
    SQLITE = "sqlite"
    POSTGRESQL = "postgresql"
    MYSQL = "mysql"
    LDAP = "ldap"
    HTTP = "http"
    SOCKETMAP = "socketmap"
    TCP = "tcp"
    POLICY = "policy"
    PYTHON = "python"
    USERS = "users"


class MapOptions(msgspec.Struct, frozen=True):
    """One map. Which fields count depends on its kind: `NEEDED`."""

    name: Annotated[str, Meta(description="The name by which settings and `postroad map` mean this map.")]
    kind: Annotated[
        MapKind,
        Meta(
            description="What the map is. `inline`: `entries`. `text`: a file of lines `key value`, as postmap reads "
            "them. `aliases`: a file in the format of aliases(5). `regexp`, `pcre`: a file of patterns with values. "
            "`cidr`: a file of networks with values. `static`: `value` for every key. `first`: the first of `maps` "
            "that has the key. `union`: the values of all `maps`, with commas between them. `cdb`, `lmdb`: a file "
            "that `postmap` has made of one. `sqlite`: a `query` to the database in `file`. `postgresql`, "
            "`mysql`: a `query` to the database at `url`; `mysql` is for MariaDB, too. `ldap`: a search. `http`, "
            "`socketmap`, `tcp`: a server at `url`, asked by HTTP or as Postfix asks its socketmap and tcp tables. "
            "`policy`: a policy server at `url`, as check_policy_service of Postfix asks one. `python`: a `function` "
            "of yours. `users`: the users of this machine. docs/maps.md describes each.",
        ),
    ]
    file: Annotated[
        str,
        Meta(
            description="text, aliases, regexp, pcre, cidr, cdb, lmdb, sqlite: the file. The node "
            "reads it again when it changes. If it cannot be read, the old entries stay in force.",
        ),
    ] = ""
    entries: Annotated[
        tuple[str, ...], Meta(description="inline: the entries, each written `key value`, as in a file.")
    ] = ()
    value: Annotated[str, Meta(description="static: the value.")] = ""
    maps: Annotated[tuple[str, ...], Meta(description="first, union: the names of the maps.")] = ()
    query: Annotated[
        str,
        Meta(
            description="sqlite, postgresql, mysql: the query. ldap: the filter. `%s` stands for the key, `%u` for its "
            "local-part, `%d` for its domain, `%1` to `%9` for the labels of its domain from the right. Several rows, "
            "columns or values are one value, with commas between them. A key cannot change the query, whatever is in "
            "it.",
        ),
    ] = ""
    url: Annotated[
        str,
        Meta(
            description="postgresql, mysql: the database, written `postgresql://user@host/database` or "
            "`mysql://user@host/database`. ldap: the server, the base, the attributes that are the answer and the "
            "scope (`base`, `one` or `sub`), written `ldaps://host/dc=example,dc=org?mail?sub`. http: the URL to GET, "
            "with `{key}` where the key stands; the answer is 200 with the value as text, or 404. socketmap, tcp, "
            "policy: the server, written `127.0.0.1:10001` or `unix:/path`.",
        ),
    ] = ""
    user: Annotated[
        str, Meta(description="ldap: the name to bind as, such as `cn=postroad,dc=example,dc=org`. Unset: no bind.")
    ] = ""
    starttls: Annotated[bool, Meta(description="ldap: whether TLS is started on an `ldap://` connection.")] = False
    password_file: Annotated[
        str,
        Meta(
            description="postgresql, mysql, ldap: a file whose first line is the password. http: one whose first line "
            "is a token, sent as `Authorization: Bearer`. It is read at start and reload.",
        ),
    ] = ""
    ca_file: Annotated[
        str, Meta(description="ldap, http: the roots to which the certificate must lead. Unset: those of the system.")
    ] = ""
    table: Annotated[str, Meta(description="socketmap: the name of the map that the server is asked for.")] = ""
    function: Annotated[
        str,
        Meta(
            description="python: a function `look_up(key)`, plain or async, which returns a text or None, written "
            "`module:function` or `/path/file.py:function`. It is loaded anew at each reload.",
        ),
    ] = ""
    uid_min: Annotated[
        int, Meta(ge=1, description="users: users with a smaller number (uid) are not in the map.")
    ] = 1000
    waiting: WaitingOptions = WaitingOptions()


_WAITING: Final = WaitingOptions.__struct_fields__

# By kind: the fields that must be given, and those that may be; others but `name` and `kind` must not be.
OPTIONAL: dict[MapKind, tuple[str, ...]] = {
    MapKind.POSTGRESQL: ("password_file", *_WAITING),
    MapKind.MYSQL: ("password_file", *_WAITING),
    MapKind.LDAP: ("user", "password_file", "ca_file", "starttls", *_WAITING),
    MapKind.HTTP: ("password_file", "ca_file", *_WAITING),
    MapKind.SOCKETMAP: _WAITING,
    MapKind.TCP: _WAITING,
    MapKind.POLICY: _WAITING,
    MapKind.PYTHON: _WAITING,
    MapKind.USERS: ("uid_min", *_WAITING),
}
NEEDED: dict[MapKind, tuple[str, ...]] = {
    MapKind.INLINE: ("entries",),
    MapKind.TEXT: ("file",),
    MapKind.ALIASES: ("file",),
    MapKind.REGEXP: ("file",),
    MapKind.PCRE: ("file",),
    MapKind.CIDR: ("file",),
    MapKind.STATIC: ("value",),
    MapKind.FIRST: ("maps",),
    MapKind.UNION: ("maps",),
    MapKind.CDB: ("file",),
    MapKind.LMDB: ("file",),
    MapKind.SQLITE: ("file", "query"),
    MapKind.POSTGRESQL: ("url", "query"),
    MapKind.MYSQL: ("url", "query"),
    MapKind.LDAP: ("url", "query"),
    MapKind.HTTP: ("url",),
    MapKind.SOCKETMAP: ("url", "table"),
    MapKind.TCP: ("url",),
    MapKind.POLICY: ("url",),
    MapKind.PYTHON: ("function",),
    MapKind.USERS: (),
}
