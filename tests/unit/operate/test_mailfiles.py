"""Mail as files: all of an envelope comes back as it was."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import msgspec
import pytest

from postroad.mail.address import Address
from postroad.mail.envelope import Body, Envelope, Forwarded, Notify, Peer, Recipient, Ret, Via
from postroad.mail.tls_details import TlsDetails
from postroad.operate import mailfiles
from postroad.store.values import Waiting

CONTENT = b"Subject: x\r\n\r\nhello\r\n"
PEER = Peer(
    "192.0.2.1", 4711, "client.test", "ESMTPSA", "TLSv1.3", "ada", "submission",
    Via("PROXY v2", "192.0.2.2", 1, "192.0.2.3", 2, "sni.test", "smtp", "id", "CN"), "client.name.test",
    Forwarded("a.test", "192.0.2.4", 3, "ESMTP", "helo.test", "ident", "REMOTE"),
    TlsDetails(256, "mx.test", "CN=a", "CN=b", "00ff", True), True,
)  # fmt: skip
RECIPIENT = Recipient(
    Address("ada", "a.test"), Notify.FAILURE | Notify.DELAY, "rfc822;b@a.test", Address("b", "a.test"),
    (("RRVS", "x"),), sender=Address("owner-list", "a.test"),
)  # fmt: skip
ENVELOPE = Envelope(
    1 << 40, Address("s", "x.test"), (RECIPIENT, Recipient(Address("c", "a.test"))), len(CONTENT),
    1_700_000_000_000_000, PEER, Body.EIGHT_BIT_MIME, True, Ret.HDRS, "envid", "<id@x.test>", (("AUTH", "<>"),), 7,
    classes=("bulk",),
)  # fmt: skip
WAITING = (
    Waiting(0, 1_700_000_001_000_000, "a.test", 3, True, True, "4.4.1", "away", "mx.a.test", 5, True),
    Waiting(1, 1_700_000_002_000_000, "a.test"),
)
NOT_CARRIED = {"parent", "prefix", "long_lines"}  # of this spool only, or found again
NOT_CARRIED_OF_RECIPIENTS = {"destination", "released"}  # the other node has routes of its own


def test_what_is_exported_comes_back(tmp_path: Path) -> None:
    path = mailfiles.write(tmp_path, ENVELOPE, WAITING, CONTENT)
    found = mailfiles.read(path)
    assert found.waiting == tuple(msgspec.structs.replace(each, last_us=0) for each in WAITING)
    assert found.envelope == msgspec.structs.replace(ENVELOPE, parent=0)


def _values(value: Any, path: str = "") -> dict[str, Any]:
    if isinstance(value, msgspec.Struct):
        found: dict[str, Any] = {}
        for name in value.__struct_fields__:
            found |= _values(getattr(value, name), f"{path}.{name}")
        return found
    return {path: value}


@pytest.mark.parametrize(("value", "without"), [
    (ENVELOPE, NOT_CARRIED), (PEER, set[str]()), (RECIPIENT, NOT_CARRIED_OF_RECIPIENTS), (WAITING[0], {"last_us"}),
])  # fmt: skip
def test_the_example_says_something_in_each_field(value: msgspec.Struct, without: set[str]) -> None:
    """A field that is added later must be added here, and so to the files."""
    left = {path for path, each in _values(value).items() if not each and path.split(".")[1] not in without}
    assert left - {".recipients"} - {".index"} == set()


@pytest.mark.parametrize("place", [("via", "alpn"), ("forwarded", "ident"), ("tls_details", "subject"), ("name",)])
def test_control_characters_are_refused_anywhere(tmp_path: Path, place: tuple[str, ...]) -> None:
    path = mailfiles.write(tmp_path, ENVELOPE, WAITING, CONTENT)
    exported = json.loads(path.read_text())
    inner = exported["peer"]
    for name in place[:-1]:
        inner = inner[name]
    inner[place[-1]] = "a\nb"
    path.write_text(json.dumps(exported))
    with pytest.raises(mailfiles.UnfitFile, match=rf"peer\.{'.'.join(place)}: holds a control character"):
        mailfiles.read(path)


def test_files_of_older_versions_are_read(tmp_path: Path) -> None:
    path = mailfiles.write(tmp_path, ENVELOPE, WAITING, CONTENT)
    exported = json.loads(path.read_text())
    for name in ("via", "name", "forwarded", "tls_details", "trusted"):
        del exported["peer"][name]
    for each in exported["recipients"]:
        del each["remote"]
    path.write_text(json.dumps(exported))
    assert mailfiles.read(path).envelope.peer == Peer(*(getattr(PEER, name) for name in PEER.__struct_fields__[:7]))
