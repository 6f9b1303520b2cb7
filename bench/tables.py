"""What tables cost: an alias file of 100,000 entries, virtual domains from SQLite and a transport map in use.

    python -m bench.tables [--rounds N] [--quick]

Three servers relay 4 KB messages over kept connections (50 sessions), in turns: Postroad without tables, the same
build with them, and Postfix with the same tables (`hash`). What the mail is:

- `plain`: to recipients elsewhere, each another one, on the node without tables.
- `ten`: the same from ten clients at once, as `mix` has them: what `mix` and `sqlmix` are measured by. The rate of
  these three is that of the time in which all ten send (50 sessions).
- `vain`: the same mail on the servers with tables, which are asked and have nothing for it.
- `mix`: ten clients at once. One in five messages goes through an alias; half of the mail of each kind goes to one
  popular recipient, the other half each to another one.
- `tables`: each message goes through another alias, to another domain by the transport map.

Then a node whose aliases are in PostgreSQL, with 5 ms for each answer (`sql`, mail as `tables`; `sqlmix`, mail as
`mix`). No alias that is numbered comes twice in all rounds, so that no answer is there before.
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

_COUNTS: Final = {"*": 10_000, "postfix": 2_500}
_QUICK: Final = {"*": 5_000, "postfix": 1_000}
ROUNDS_MAX: Final = 7
# Aliases of a domain. Each round, and what warms up, has a domain of its own for each of the two modes.
_OF: Final = {"shop": 11_000, "mix": 1_500}
ELSEWHERE: Final = "user@sink.test"


def _mode(name: str, what: str, **more: Any) -> Mode:
    return Mode(name, f"4 KB, kept, {what}", "messages/s", 50, _COUNTS, _QUICK, keep=True, numbered=True, **more)


def modes(number: int) -> dict[str, Mode]:
    """What is sent in a round."""
    alias = f"user@shop{number}.test"
    aliases = (f"user@mix{number}.test", True), (f"1user@mix{number}.test", False)
    mix = (*aliases, *((ELSEWHERE, each < 4) for each in range(8)))
    found = (
        _mode("plain", "no tables", recipient=ELSEWHERE),
        _mode("ten", "no tables, ten clients", mix=tuple((ELSEWHERE, each < 5) for each in range(10))),
        _mode("vain", "tables asked in vain", recipient=ELSEWHERE),
        _mode("mix", "one in five through an alias", mix=mix),
        _mode("tables", "all through aliases", recipient=alias),
        _mode("sql", "all through aliases in PostgreSQL", recipient=alias),
        _mode("sqlmix", "one in five through an alias in PostgreSQL", mix=mix),
    )
    return {mode.name: mode for mode in found}


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
    aliases = (
        f"{number}user@{name}{each}.test  {number}box@hosted{number % 50}.test\n"
        for name, count in _OF.items() for each in range(ROUNDS_MAX + 1) for number in range(count)
    )
    (folder / "virtual").write_text("".join(aliases))
    names = [f"{name}{each}.test" for name in _OF for each in range(500)]
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
        + "".join(
            f"INSERT INTO alias SELECT n || 'user@{name}' || each || '.test', n || 'box@hosted' || (n % 50) || '.test' "
            f"FROM generate_series(0, {count - 1}) n, generate_series(0, {ROUNDS_MAX}) each;"
            for name, count in _OF.items()
        )
        + "ANALYZE alias;"
    )
    return "SELECT goto FROM alias, pg_sleep(0.005) WHERE address = '%s'"


def rounds(servers: Sequence[tuple[Server, str]], sink: Sink, count: int, *, quick: bool) -> list[Turn]:
    """All servers with their modes in turns; who begins changes."""
    turns = []
    for server, name in servers:
        measure(server, warm(modes(0)[name], server.name), 0, sink, quick=quick)
    for number in range(1, count + 1):
        for server, name in servers[:: 1 if number % 2 else -1]:
            turn = measure(server, modes(number)[name], number, sink, quick=quick)
            figures = f"{turn.rate:>9.1f}/s {turn.cpu_us:>8.1f} µs CPU each"
            print(f"  round {number}  {name:<7}{server.name:<9}{figures}", flush=True)
            turns.append(turn)
    return turns


def tell(turns: Sequence[Turn]) -> None:
    """The medians of each server and mode, and what they are beside the same clients without tables."""
    of: dict[tuple[str, str], list[Turn]] = {(turn.server, turn.mode): [] for turn in turns}
    for turn in turns:
        of[turn.server, turn.mode].append(turn)
    figures = {
        key: (statistics.median(each.rate for each in found), statistics.median(each.cpu_us for each in found))
        for key, found in of.items()
    }
    for (server, mode), (its_rate, its_cpu_us) in figures.items():
        base = "ten" if mode in ("ten", "mix", "sqlmix") else "plain"
        rate, cpu_us = figures["postroad", base]
        beside = f"{its_rate / rate:>6.2f} of the rate of {base}, {its_cpu_us / cpu_us:>5.2f} times its CPU time"
        print(f"{mode:<8}{server:<9}{its_rate:>9.0f}/s{its_cpu_us:>9.0f} µs{beside}", flush=True)


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
        kinds = ("vain", "mix", "tables")
        without = [(plain, "plain"), (plain, "ten")]
        servers = [*without, *((tables, kind) for kind in kinds), *((postfix, kind) for kind in kinds[1:])]
        tell(rounds(servers, sink, count, quick=quick))
        database = stack.enter_context(Postgres(base / "postgres"))
        (base / "password").write_text("secret\n")
        sql = {"kind": "postgresql", "url": database.url, "password_file": str(base / "password"),
               "query": fill(database)}
        node = stack.enter_context(running(TablesNode("postroad", base / "sql", sink.port, folder, sql)))
        tell(rounds([*without, (node, "sqlmix"), (node, "sql")], sink, count, quick=quick))


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5, choices=range(1, ROUNDS_MAX + 1))
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
