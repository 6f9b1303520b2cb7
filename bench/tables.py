"""What tables cost: an alias file of 100,000 entries, virtual domains from SQLite and a transport map in use.

    python -m bench.tables [--rounds N] [--quick]

Three servers relay 4 KB messages over kept connections (50 sessions), in turns: Postroad without tables, the same
build with them, and Postfix with the same tables (`hash`). Each message is to another recipient: a domain that the
table of domains has, an alias of the file, and the way of its target by the transport map. The nodes without and with
tables must be within a few percent of each other.

Then a node whose aliases are in PostgreSQL, with 5 ms for each answer, beside the one without tables: each recipient is
asked for once, so that no answer is there before.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import sqlite3
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

from tests.peers.harness import need, ports
from tests.peers.harness.databases import Postgres
from tests.peers.harness.postroad import Node, next_hop, relay_listener
from tests.peers.harness.smtptools import Sink

from bench.compare import Mode, Server, Turn, measure, running, warm
from bench.servers import PostfixServer, PostroadServer

ENTRIES: Final = 100_000
_COUNTS: Final = {"*": 12_000, "postfix": 2_500}
_QUICK: Final = {"*": 5_000, "postfix": 1_000}
PLAIN: Final = Mode("plain", "4 KB, kept, no tables", "messages/s", 50, _COUNTS, _QUICK, keep=True, numbered=True)
TABLES: Final = Mode(
    "tables", "4 KB, kept, with tables", "messages/s", 50, _COUNTS, _QUICK, keep=True, recipient="user@shop7.test",
    numbered=True,
)
SQL: Final = Mode(
    "sql", "4 KB, kept, aliases in PostgreSQL", "messages/s", 50, _COUNTS, _QUICK, keep=True,
    recipient="user@shop7.test", numbered=True,
)


class TablesNode(Node):
    """Postroad with tables. `aliases`: the map of aliases."""

    def __init__(self, name: str, directory: Path, next_port: int, folder: Path, aliases: dict[str, Any]) -> None:
        self.name = name
        settings = {
            "listener": [relay_listener(ports.port(), tls="none")],
            "next_hop": [next_hop("*", next_port)],
            "postmaster": "postmaster@elsewhere.test",
            "alias_maps": ["aliases"],
            "routing": {"transport_maps": ["transports"], "tls": "never"},
            "domain": [{"domain_maps": ["domains"], "deliver": "aliases"}],
            "map": [
                {"name": "aliases", **aliases},
                {"name": "transports", "kind": "text", "file": str(folder / "transport")},
                {"name": "domains", "kind": "sqlite", "file": str(folder / "domains.sqlite"),
                 "query": "SELECT 1 FROM domain WHERE name = '%s'"},
            ],
        }
        super().__init__(directory, settings, defaults={"hostname": "postroad.test", "state_dir": "state"})


def write_tables(folder: Path, next_port: int) -> None:
    """The tables of both servers: text for Postroad and postmap, a database for Postroad's domains."""
    folder.mkdir()
    aliases = (f"{number}user@shop7.test  {number}box@hosted{number % 50}.test\n" for number in range(ENTRIES))
    (folder / "virtual").write_text("".join(aliases))
    names = [f"shop{number}.test" for number in range(1_000)]
    (folder / "domains").write_text("".join(f"{name}  x\n" for name in names))
    ways = "".join(f"hosted{number}.test  smtp:[127.0.0.1]:{next_port}\n" for number in range(50))
    (folder / "transport").write_text(ways)
    for name in ("virtual", "domains", "transport"):
        subprocess.run([need.program("postmap"), "-c", str(_empty(folder)), f"hash:{folder / name}"], check=True)
    with contextlib.closing(sqlite3.connect(folder / "domains.sqlite")) as database, database:
        database.execute("CREATE TABLE domain (name TEXT PRIMARY KEY)")
        database.executemany("INSERT INTO domain VALUES (?)", [(name,) for name in names])


def _empty(folder: Path) -> Path:
    """A folder of configuration for postmap, which needs one."""
    made = folder / "etc"
    made.mkdir(exist_ok=True)
    (made / "main.cf").write_text("compatibility_level = 3.6\n")
    return made


def fill(database: Postgres) -> str:
    """The same aliases in PostgreSQL; the query, whose answer takes 5 ms."""
    database.sql(
        "CREATE TABLE alias (address text PRIMARY KEY, goto text);"
        "INSERT INTO alias SELECT n || 'user@shop7.test', n || 'box@hosted' || (n % 50) || '.test' "
        f"FROM generate_series(0, {ENTRIES - 1}) n; ANALYZE alias;"
    )
    return "SELECT goto FROM alias, pg_sleep(0.005) WHERE address = '%s'"


def rounds(servers: Sequence[tuple[Server, Mode]], sink: Sink, count: int, *, quick: bool) -> list[Turn]:
    """All servers in turns; who begins changes."""
    turns = []
    for server, mode in servers:
        measure(server, warm(mode, server.name), 0, sink, quick=quick)
    for number in range(1, count + 1):
        for server, mode in servers[:: 1 if number % 2 else -1]:
            turn = measure(server, mode, number, sink, quick=quick)
            figures = f"{turn.rate:>9.1f}/s {turn.cpu_us:>8.1f} µs CPU each"
            print(f"  round {number}  {mode.name:<7}{server.name:<9}{figures}", flush=True)
            turns.append(turn)
    return turns


def median(turns: Sequence[Turn], server: str, mode: str) -> float:
    return statistics.median(turn.rate for turn in turns if (turn.server, turn.mode) == (server, mode))


def compare(base: Path, count: int, *, quick: bool) -> None:
    with contextlib.ExitStack() as stack:
        sink = stack.enter_context(Sink())
        folder = base / "tables"
        write_tables(folder, sink.port)
        text = {"kind": "text", "file": str(folder / "virtual")}
        plain = stack.enter_context(running(PostroadServer(base / "plain", sink.port)))
        tables = stack.enter_context(running(TablesNode("postroad", base / "node", sink.port, folder, text)))
        postfix = stack.enter_context(running(PostfixServer(base / "postfix", sink.port, {
            "virtual_alias_maps": f"hash:{folder}/virtual", "virtual_alias_domains": f"hash:{folder}/domains",
            "transport_maps": f"hash:{folder}/transport",
        })))
        turns = rounds([(plain, PLAIN), (tables, TABLES), (postfix, TABLES)], sink, count, quick=quick)
        rate, without = median(turns, "postroad", "tables"), median(turns, "postroad", "plain")
        other = median(turns, "postfix", "tables")
        print(f"tables: {rate:.0f}/s, without {without:.0f}/s, Postfix with the same tables {other:.0f}/s")
        print(f"ratio to the same build without tables: {rate / without:.2f}; to Postfix: {rate / other:.1f}")
        database = stack.enter_context(Postgres(base / "postgres"))
        (base / "password").write_text("secret\n")
        sql = {"kind": "postgresql", "url": database.url, "password_file": str(base / "password"),
               "query": fill(database)}
        node = stack.enter_context(running(TablesNode("postroad", base / "sql", sink.port, folder, sql)))
        turns = rounds([(plain, PLAIN), (node, SQL)], sink, count, quick=quick)
        rate, without = median(turns, "postroad", "sql"), median(turns, "postroad", "plain")
        print(f"aliases in PostgreSQL, 5 ms each: {rate:.0f}/s, without tables {without:.0f}/s, "
              f"ratio {rate / without:.2f}")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--quick", action="store_true", help="few messages: a look, not a result")
    parser.add_argument("--folder", type=Path, default=Path("/var/tmp"), help="where the queues stand: a real disk")
    asked = parser.parse_args()
    if os.geteuid() != 0 or need.find("postfix") is None:
        print("bench: a private Postfix can only be started by root, and postfix must be installed", file=sys.stderr)
        return 1
    with tempfile.TemporaryDirectory(prefix="postroad-bench-", dir=asked.folder) as base:
        Path(base).chmod(0o755)
        compare(Path(base), 1 if asked.quick else asked.rounds, quick=asked.quick)
    return 0


if __name__ == "__main__":
    sys.exit(main())
