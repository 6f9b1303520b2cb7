"""Paths of mailboxes by map: at once, waited for, and what is no path."""

from __future__ import annotations

import pytest

from postroad.mail.address import Address
from postroad.mail.attempt import Attempt, Outcome
from postroad.mail.envelope import Envelope, Recipient
from postroad.mail.route import Destination, Transport
from postroad.maps.face import NotNow
from postroad.route.options import LocalDomain, RoutingOptions
from postroad.route.path_maps import PathRoute
from postroad.route.recipients import Recipients, mailboxes_of
from postroad.route.table import RoutingTable
from tests.unit.maps.fakes import Fixed, Waiting, named

OPTIONS = RoutingOptions(local=(
    LocalDomain("box.test", path_maps=("paths",), path_base="/base"),
    LocalDomain("both.test", path_maps=("paths",), path="/usual/{local_part}"),
))  # fmt: skip
VALUES = {
    "ada@box.test": "ada/", "bob@box.test": "x/bob", "abs@box.test": "/other/abs/", "up@box.test": "../up/",
    "away@box.test": NotNow("it is away"), "odd@box.test": "{local_part}/", "eve@both.test": "eve/",
    "root@box.test": "/", "ada/.sent@box.test": "ada/.Sent/", "ada/.sent@both.test": "ada/.Sent/",
}  # fmt: skip


@pytest.mark.parametrize("kind", [Fixed, Waiting])
@pytest.mark.parametrize(
    ("mailbox", "key"),
    [
        ("ada@box.test", "maildir:box.test:/base/ada"), ("ada+x@box.test", "maildir:box.test:/base/ada"),
        ("bob@box.test", "mbox:box.test:/base/x/bob"),
        ("abs@box.test", "maildir:box.test:/other/abs"), ("nobody@box.test", "5.1.1"), ("up@box.test", "4.3.0"),
        ("away@box.test", "4.3.0"), ("odd@box.test", "4.3.0"), ("root@box.test", "4.3.0"),
        ("nobody@both.test", "maildir:both.test"), ("eve@both.test", "4.3.0"), ("x@far.test", "far.test"),
        ("ada/.sent@box.test", "5.1.1"), ("ada/.sent@both.test", "maildir:both.test"),
    ],
)  # fmt: skip
async def test_paths(kind: type[Fixed] | type[Waiting], mailbox: str, key: str) -> None:
    maps = (named(kind(VALUES)),)  # type: ignore[arg-type]
    route = PathRoute(OPTIONS, lambda names: maps, RoutingTable(OPTIONS).route)
    recipient = Recipient(Address(*mailbox.split("@")))
    found = route(Envelope(1, None, (recipient,), 0, 0), recipient)
    if not isinstance(found, Destination | Attempt):
        found = await found
    if isinstance(found, Attempt):
        assert found.status == key and (found.outcome is Outcome.DEFERRED) is key.startswith("4")
    else:
        assert found.key == key and (found.transport is Transport.MBOX) is key.startswith("mbox")


@pytest.mark.parametrize(("local_part", "there"), [("ada", True), ("ada/.sent", False), ("nobody", False)])
def test_a_name_with_a_slash_is_not_there_by_a_map(local_part: str, there: bool) -> None:
    recipients = Recipients(mailboxes_of(OPTIONS, lambda names: (named(Fixed(VALUES)),) if names else ()))
    assert recipients.known(Address(local_part, "box.test")) is there
