"""Maps in real PostgreSQL and MariaDB: queries, odd keys, servers that go and come back, and a node that uses one."""

from __future__ import annotations

import asyncio
import smtplib
from collections.abc import Awaitable, Iterator
from pathlib import Path
from typing import Any

import pytest
import trustme

from postroad.maps.databases import mysql_driver
from postroad.maps.face import Answer, Map, NotNow
from postroad.maps.maps import Maps, make
from postroad.maps.options import MapKind, MapOptions
from postroad.maps.waiting import WaitingOptions
from postroad.world.clock import SystemClock
from postroad.world.problem import Problem
from tests.peers.harness import maildir, ports
from tests.peers.harness.databases import Mariadb, Postgres
from tests.peers.harness.postroad import Node, local_domain, mx_listener
from tests.peers.harness.process import folder, own_to, until

pytestmark = pytest.mark.peer

TABLES = """
CREATE TABLE alias (address varchar(200), goto varchar(200), active int);
INSERT INTO alias VALUES ('sales@x.org', 'ada@x.org', 1), ('sales@x.org', 'bob@x.org', 1),
    ('old@x.org', 'ada@x.org', 0), ('o''brien@x.org', 'quote', 1), ('100%@x.org', 'percent', 1),
    ('back\\slash@x.org', 'back', 1),
    ('ä@x.org', 'ö', 1);
"""
Server = Postgres | Mariadb


@pytest.fixture(scope="module", params=[MapKind.POSTGRESQL, MapKind.MYSQL])
def server(request: pytest.FixtureRequest, place: Path) -> Iterator[Server]:
    kind: Any = Postgres if request.param is MapKind.POSTGRESQL else Mariadb
    made: Server = kind(place / f"server-{request.param.value}")
    with made:
        if isinstance(made, Mariadb):
            made.sql("USE mail;" + TABLES.replace("\\", "\\\\"))
        else:
            made.sql(TABLES)
        yield made


def options(server: Server, query: str, place: Path, **more: Any) -> MapOptions:
    (place / "password").write_text("secret\n")
    kind = MapKind.POSTGRESQL if isinstance(server, Postgres) else MapKind.MYSQL
    usual = {"timeout_s": 30, "failures_max": 2, "pause_s": 0.1, "cache_s": 0, "cache_missing_s": 0}
    waiting = WaitingOptions(**{**usual, **more})
    return MapOptions(
        "it", kind, url=server.url, password_file=str(place / "password"), query=query, waiting=waiting
    )


def made(*wanted: MapOptions) -> Maps:
    found = make(wanted, SystemClock(), lambda level, text: None)
    assert isinstance(found, Maps), found
    return found


async def ask(map: Map, key: str) -> Answer:
    found: Answer | Awaitable[Answer] = map.look_up(key)
    return found if found is None or isinstance(found, str | NotNow) else await found


QUERY = "SELECT goto FROM alias WHERE address = '%s' AND active = 1 ORDER BY goto"
PARTS = "SELECT goto FROM alias WHERE address = '%u@%d' AND address LIKE '%%@%d' AND active = 1"


async def test_queries(server: Server, tmp_path: Path) -> None:
    keys = {
        "Sales@X.org": "ada@x.org,bob@x.org", "old@x.org": None, "nobody@x.org": None, "o'brien@x.org": "quote",
        "100%@x.org": "percent", "back\\slash@x.org": "back", "ä@x.org": "ö", "' OR '1'='1": None,
        "x\\' OR 1=1 -- @x.org": None, "x'; DROP TABLE alias; --@x.org": None, "\0": None, "a" * 900 + "@x.org": None,
    }  # fmt: skip
    for query in (QUERY, PARTS):
        maps = made(options(server, query, tmp_path))
        for key, value in keys.items():
            assert await ask(maps["it"], key) == value, (query, key)
        maps.close()
    if isinstance(server, Mariadb):  # where a backslash means nothing in a text
        server.sql("SET GLOBAL sql_mode = 'NO_BACKSLASH_ESCAPES'")
        maps = made(options(server, QUERY, tmp_path))
        for key, value in keys.items():
            assert await ask(maps["it"], key) == value, key
        maps.close()
        server.sql("SET GLOBAL sql_mode = ''")


async def test_many_at_once_share_few_connections(server: Server, tmp_path: Path) -> None:
    maps = made(options(server, QUERY, tmp_path, at_once_max=3, timeout_s=30))
    keys = [*(f"{number}@x.org" for number in range(200)), "sales@x.org"]
    found = await asyncio.gather(*(ask(maps["it"], key) for key in keys))
    assert found == [None] * 200 + ["ada@x.org,bob@x.org"]
    assert len(maps["it"].source._driver.connections) == 3  # type: ignore[attr-defined]
    maps.close()


async def test_an_answer_is_whole_or_none(server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A list with many members has all of them; one with too many is told, and nobody gets a part of it."""
    members = ", ".join(f"('many@x.org', 'u{number}@x.org', 1)" for number in range(3_000))
    server.sql(f"{'USE mail; ' if isinstance(server, Mariadb) else ''}INSERT INTO alias VALUES {members}")
    maps = made(options(server, QUERY, tmp_path))
    answer = await ask(maps["it"], "many@x.org")
    assert isinstance(answer, str) and len(answer.split(",")) == 3_000
    maps.close()
    monkeypatch.setattr("postroad.maps.sql.ROWS_MAX", 2_999)
    monkeypatch.setattr("postroad.maps.databases.ROWS_MAX", 2_999)
    maps = made(options(server, QUERY, tmp_path))
    answer = await ask(maps["it"], "many@x.org")
    assert isinstance(answer, NotNow) and "more than 2,999 rows" in answer.text
    maps.close()


async def test_a_query_that_takes_too_long_is_given_up_and_the_next_one_answers(server: Server, tmp_path: Path) -> None:
    sleep = "pg_sleep(30) IS NULL" if isinstance(server, Postgres) else "sleep(30) = 5"
    query = f"SELECT goto FROM alias WHERE address = '%s' AND (active = 1 OR {sleep})"
    maps = made(options(server, query, tmp_path, timeout_s=5.0, failures_max=9))
    assert await ask(maps["it"], "sales@x.org") == "ada@x.org,bob@x.org"
    answer = await ask(maps["it"], "old@x.org")
    assert isinstance(answer, NotNow) and "no answer in 5 s" in answer.text
    assert await ask(maps["it"], "sales@x.org") == "ada@x.org,bob@x.org"
    maps.close()


async def test_a_wrong_query_or_password_is_not_now(server: Server, tmp_path: Path) -> None:
    maps = made(options(server, "SELECT goto FROM nowhere WHERE a = '%s'", tmp_path))
    answer = await ask(maps["it"], "a")
    assert isinstance(answer, NotNow) and "nowhere" in answer.text
    wanted = options(server, QUERY, tmp_path)
    (tmp_path / "password").write_text("wrong\n")
    maps = made(wanted)
    for _ in range(2):
        answer = await ask(maps["it"], "sales@x.org")
        assert isinstance(answer, NotNow) and "secret" not in answer.text
    assert maps.counts()[0].away != ""


async def test_a_server_that_goes_and_comes_back(server: Server, tmp_path: Path) -> None:
    maps = made(options(server, QUERY, tmp_path, last_good_s=0.0), )
    kept = made(options(server, QUERY, tmp_path))
    for each in (maps, kept):
        assert await ask(each["it"], "sales@x.org") == "ada@x.org,bob@x.org"
    server.stop()
    assert isinstance(await ask(maps["it"], "sales@x.org"), NotNow)
    assert await ask(kept["it"], "sales@x.org") == "ada@x.org,bob@x.org"
    assert isinstance(await ask(kept["it"], "new@x.org"), NotNow)
    server.start()
    await asyncio.sleep(0.2)  # longer than the pause
    for each in (maps, kept):
        assert await ask(each["it"], "sales@x.org") == "ada@x.org,bob@x.org"
        assert await ask(each["it"], "new@x.org") is None
        each.close()


async def test_kept_connections_that_broke_are_replaced(server: Server, tmp_path: Path) -> None:
    maps = made(options(server, QUERY, tmp_path))
    await asyncio.gather(*(ask(maps["it"], f"{number}@x.org") for number in range(4)))
    server.stop()
    server.start()
    assert await ask(maps["it"], "sales@x.org") == "ada@x.org,bob@x.org"
    maps.close()


async def test_a_prepared_query_survives_what_a_pool_or_a_new_table_does(server: Server, tmp_path: Path) -> None:
    """What a pool between does: the prepared statement is missing, or is there already, because this query comes by
    another connection to the server. And a table of other columns."""
    if not isinstance(server, Postgres):
        return  # only queries to PostgreSQL are prepared
    server.sql("CREATE TABLE other (address text, goto varchar(20)); INSERT INTO other VALUES ('a', '1')")
    query = "SELECT goto FROM other WHERE address = '%s'"

    def kept(maps: Maps) -> Any:
        return maps["it"].source._driver.connections._free[0]  # type: ignore[attr-defined]

    for spoil in ("DEALLOCATE ALL", "ALTER TABLE other ALTER COLUMN goto TYPE text"):
        maps = made(options(server, query, tmp_path))
        assert await ask(maps["it"], "a") == "1"
        name = kept(maps).prepared.get_name()
        await kept(maps).connection.execute(spoil)
        assert await ask(maps["it"], "a") == "1", spoil
        assert await ask(maps["it"], "b") is None
        assert (kept(maps).prepared is None) == (spoil == "DEALLOCATE ALL"), spoil
        maps.close()
    maps = made(options(server, query, tmp_path))
    assert await ask(maps["it"], "a") == "1"
    kept(maps).prepared = None  # so that it is prepared a second time: it is there already
    assert await ask(maps["it"], "a") == "1"
    assert await ask(maps["it"], "b") is None and kept(maps).prepared is None
    maps.close()
    maps = made(options(server, query.replace("goto", "goto || 'x'"), tmp_path))
    assert await ask(maps["it"], "a") == "1x"
    assert kept(maps).prepared.get_name() not in ("", name)
    maps.close()


async def test_tls(tmp_path: Path) -> None:
    """The server's certificate must prove its name. Without TLS these servers refuse the user."""
    with folder("sqltls") as place:
        roots, files = place / "roots.pem", {}
        authority = trustme.CA()
        authority.cert_pem.write_to_path(roots)
        stranger = tmp_path / "stranger.pem"
        trustme.CA().cert_pem.write_to_path(stranger)
        for user in ("postgres", "mysql"):
            issued = authority.issue_cert("127.0.0.1")
            files[user] = place / f"{user}.pem", place / f"{user}.key"
            issued.cert_chain_pems[0].write_to_path(files[user][0])
            issued.private_key_pem.write_to_path(files[user][1])
            files[user][1].chmod(0o600)
            for path in files[user]:
                own_to(path, user)
        certificate, key = files["postgres"]
        ssl = ("-c", "ssl=on", "-c", f"ssl_cert_file={certificate}", "-c", f"ssl_key_file={key}")
        with Postgres(place / "p", *ssl) as postgres:
            await _asked_under_tls(postgres, tmp_path, f"sslmode=verify-full&sslrootcert={roots}",
                                   f"sslmode=verify-full&sslrootcert={stranger}")  # fmt: skip
        certificate, key = files["mysql"]
        with Mariadb(place / "m", f"--ssl-cert={certificate}", f"--ssl-key={key}") as mariadb:
            await _asked_under_tls(mariadb, tmp_path, f"ssl_ca={roots}", f"ssl_ca={stranger}")
            mariadb.sql("ALTER USER postroad@'127.0.0.1' REQUIRE SSL")
            maps = made(options(mariadb, QUERY, tmp_path))
            assert isinstance(await ask(maps["it"], "sales@x.org"), NotNow)
            maps.close()
            mariadb.sql("CREATE USER postroad@localhost IDENTIFIED BY 'secret';"
                        "GRANT SELECT ON mail.* TO postroad@localhost")
            mariadb.url = f"mysql://postroad@localhost/mail?unix_socket={mariadb.socket}"
            maps = made(options(mariadb, QUERY, tmp_path))
            assert await ask(maps["it"], "sales@x.org") == "ada@x.org,bob@x.org"
            maps.close()


async def _asked_under_tls(server: Server, place: Path, right: str, wrong: str) -> None:
    server.sql("USE mail;" + TABLES.replace("\\", "\\\\") if isinstance(server, Mariadb) else TABLES)
    url = server.url
    for parameters, value in ((right, "ada@x.org,bob@x.org"), (wrong, None)):
        server.url = f"{url}?{parameters}"
        maps = made(options(server, QUERY, place))
        answer = await ask(maps["it"], "sales@x.org")
        if value is None:
            assert isinstance(answer, NotNow) and "certificate" in answer.text
        else:
            assert answer == value
        maps.close()
    server.url = url


def test_a_parameter_that_means_nothing_is_told(tmp_path: Path) -> None:
    for parameters in ("ssl-ca=/x", "ssl_ca=/x&ssl=", "charset=utf8"):
        found = mysql_driver("map it", f"mysql://u@localhost/mail?{parameters}", "", QUERY)
        assert isinstance(found, Problem) and "which means nothing here" in found.text


def test_a_node_with_aliases_and_recipients_in_a_database(server: Server, place: Path) -> None:
    folder = place / f"node-{type(server).__name__}"
    folder.mkdir(parents=True)
    (folder / "password").write_text("secret\n")
    kind = "postgresql" if isinstance(server, Postgres) else "mysql"
    common = {"kind": kind, "url": server.url, "password_file": "password", "pause_s": 0.2, "failures_max": 1}
    node = Node(folder, {
        "listener": [mx_listener(ports.port(), tls="none")], "alias_maps": ["aliases"],
        "map": [{"name": "aliases", "query": QUERY, **common, "last_good_s": 0, "cache_s": 0},
                {"name": "people", "query": "SELECT 1 FROM alias WHERE goto = '%s'", **common}],
        "domain": [local_domain("x.org", ["eve"], recipient_maps=["people"])],
    })  # fmt: skip
    node.command("check")
    with node:
        assert _codes(node, "sales@x.org", "ada+x@x.org", "nobody@x.org") == {"nobody@x.org": 550}
        maildir.wait(node.maildir("bob@x.org"))
        maildir.wait(node.maildir("ada@x.org"))
        server.stop()
        assert _codes(node, "sales@x.org", "nobody2@x.org") == {"sales@x.org": 451, "nobody2@x.org": 451}
        assert "cannot answer now" in node.command("map", "list")
        server.start()
        until(lambda: _codes(node, "sales@x.org") == {}, "the map answers again", within_s=30, pause_s=0.3)
        maildir.wait(node.maildir("bob@x.org"), 2)


def _codes(node: Node, *to: str) -> dict[str, int]:
    with smtplib.SMTP("127.0.0.1", node.port, timeout=20) as client:
        try:
            refused = client.sendmail("sender@remote.example", to, "Subject: hello\r\n\r\nhello\r\n")
        except smtplib.SMTPRecipientsRefused as error:
            refused = error.recipients
        except smtplib.SMTPDataError as error:
            return {"": error.smtp_code}
    return {address: code for address, (code, _) in refused.items()}
