"""The servers that are compared: a private Postfix and a Postroad node, each relaying all it gets to one next hop.

Both relay for loopback without TLS and without DNS; both write a log. Everything else is their own default, but for
what would hold Postfix back in such a test (in_flow_delay, concurrency) or stop the large message at the door (size
limits).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Final, Protocol

from tests.peers.harness import ports
from tests.peers.harness.postfix import Postfix
from tests.peers.harness.postroad import Node, next_hop, relay_listener

POSTFIX_SETTINGS: Final[Mapping[str, str]] = {
    "in_flow_delay": "0",
    "default_destination_concurrency_limit": "100",
    "initial_destination_concurrency": "20",
    "smtpd_client_connection_count_limit": "0",
    "message_size_limit": "0",
    "mailbox_size_limit": "0",
    "smtpd_recipient_limit": "2000",
}


class Server(Protocol):
    """What is measured: `port` takes mail, `pid` is the root of its processes."""

    @property
    def name(self) -> str: ...
    @property
    def port(self) -> int: ...
    @property
    def pid(self) -> int: ...
    def start(self) -> None: ...
    def stop(self) -> None: ...
    def log(self) -> str: ...


class PostfixServer(Postfix):
    """Postfix with the next hop `next_port`; `settings` win over POSTFIX_SETTINGS."""

    name = "postfix"

    def __init__(
        self, directory: Path, next_port: int, settings: Mapping[str, str] | None = None, services: Sequence[str] = (),
    ) -> None:
        relay = {"relayhost": f"[127.0.0.1]:{next_port}"}
        super().__init__(directory, settings={**POSTFIX_SETTINGS, **relay, **(settings or {})}, services=services)


class PostroadServer(Node):
    """Postroad in its default configuration, which names only a listener, what it may relay and the next hop."""

    name = "postroad"

    def __init__(self, directory: Path, next_port: int) -> None:
        settings = {
            "listener": [relay_listener(ports.port(), tls="none")],
            "next_hop": [next_hop("*", next_port)],
        }
        super().__init__(directory, settings, defaults={"hostname": "postroad.test", "state_dir": "state"})
