"""A resolver that has validated what it says: answers of another DNS server, with the AD bit for some zones (RFC 4035
§3.2.3). DNSSEC itself is not played; the bit of a server that is trusted is all that Postroad goes by.
"""

from __future__ import annotations

import contextlib
import socketserver
from collections.abc import Collection
from threading import Thread
from types import TracebackType

import dns.flags
import dns.message
import dns.query


class Validating:
    """On 127.0.0.1:`port`; asks the server on 127.0.0.1:`behind`. `signed`: the zones whose answers are proved."""

    def __init__(self, behind: int, signed: Collection[str]) -> None:
        names = tuple(f".{zone}." for zone in signed)

        class Handler(socketserver.BaseRequestHandler):
            def handle(self) -> None:
                octets, sock = self.request
                with contextlib.suppress(Exception):  # a question that cannot be answered is asked again
                    question = dns.message.from_wire(octets)
                    answer = dns.query.udp(question, "127.0.0.1", port=behind, timeout=5)
                    if f".{question.question[0].name}".endswith(names):
                        answer.flags |= dns.flags.AD
                    sock.sendto(answer.to_wire(), self.client_address)

        self._server = socketserver.ThreadingUDPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self.port = int(self._server.server_address[1])
        self._thread = Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True)

    def __enter__(self) -> Validating:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()
