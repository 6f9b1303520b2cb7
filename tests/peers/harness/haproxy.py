"""A private HAProxy: TCP frontends on 127.0.0.1, each with one server behind it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from tests.peers.harness import need, ports
from tests.peers.harness.process import Program, listens

_GLOBAL = """\
global
  maxconn 200
defaults
  mode tcp
  timeout connect 5s
  timeout client 30s
  timeout server 30s
"""


@dataclass(frozen=True)
class Front:
    """One frontend and its server at 127.0.0.1:`to`. `send`: options of the server line, as ``send-proxy-v2``.

    `bind`: options of the bind line, as ``ssl crt FILE``; `lines`: further lines of the frontend.
    """

    name: str
    to: int
    send: str
    bind: str = ""
    lines: Sequence[str] = ()
    port: int = field(default_factory=ports.port)

    def config(self) -> str:
        lines = "".join(f"  {line}\n" for line in self.lines)
        return (
            f"frontend {self.name}\n  bind 127.0.0.1:{self.port} {self.bind}\n{lines}"
            f"  default_backend {self.name}\n"
            f"backend {self.name}\n  server only 127.0.0.1:{self.to} {self.send}\n"
        )


class HaProxy:
    def __init__(self, directory: Path, fronts: Sequence[Front]) -> None:
        directory.mkdir(parents=True, exist_ok=True)
        self.fronts = {front.name: front for front in fronts}
        config = directory / "haproxy.cfg"
        config.write_text(_GLOBAL + "".join(front.config() for front in fronts))
        self._program = Program([need.program("haproxy"), "-db", "-f", str(config)], directory / "haproxy.log")

    def port(self, name: str) -> int:
        return self.fronts[name].port

    def start(self) -> None:
        self._program.start()
        self._program.ready(
            lambda: all(listens("127.0.0.1", front.port) for front in self.fronts.values()), "haproxy listens"
        )

    def stop(self) -> None:
        self._program.stop()

    def log(self) -> str:
        return self._program.log()

    def __enter__(self) -> HaProxy:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()
