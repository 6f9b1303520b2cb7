"""Reading a delivery status notification with Python's own parser (RFC 3462, RFC 3464)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from email.message import EmailMessage, Message
from pathlib import Path
from typing import cast

from tests.peers.harness import maildir
from tests.peers.harness.process import PATIENCE_S


@dataclass(frozen=True)
class Report:
    """`per_message` and `recipients` are the fields of message/delivery-status; `returned` is the third part's type."""

    message: EmailMessage
    text: str
    per_message: Mapping[str, str]
    recipients: list[Mapping[str, str]]
    returned: str


def parse(octets: bytes) -> Report:
    """Raises AssertionError where it is no DSN."""
    message = maildir.parse(octets)
    assert message.get_content_type() == "multipart/report", octets
    assert message.get_param("report-type") == "delivery-status"
    text, status, returned = cast(list[EmailMessage], list(message.iter_parts()))
    assert status.get_content_type() == "message/delivery-status"
    groups = [_fields(group) for group in cast(list[Message], status.get_payload())]
    return Report(message, str(text.get_content()), groups[0], groups[1:], returned.get_content_type())


def wait(path: Path, of: str, count: int = 1, within_s: float = PATIENCE_S) -> list[Report]:
    """Waits until there are `count` messages with `of` in the Maildir, and reads them as DSNs."""
    return [parse(octets) for octets in maildir.wait(path, count, of=of, within_s=within_s)]


def _fields(group: Message) -> Mapping[str, str]:
    return {name: str(value) for name, value in group.items()}
