"""What `sendmail -bv` is told (`wiring.local`)."""

from __future__ import annotations

import asyncio
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from postroad.mail.address import Address
from postroad.mail.envelope import Recipient
from postroad.mail.expansion import Expansion
from postroad.node.wiring import local
from postroad.operate.requests import RouteQuestion
from postroad.receive.local_users import LocalOptions, LocalUser

ROOT, ADA = LocalUser(0, "root", unlimited=True), LocalUser(1000, "ada")


FAR = Recipient(Address("bob", "far.example"))
HOP = "[192.0.2.1]:25"


@pytest.mark.parametrize(
    ("user", "ends", "routes", "said"),
    [
        (ROOT, (FAR,), {"bob@far.example": HOP}, "would be accepted, and goes to [192.0.2.1]:25"),
        (ROOT, (FAR,), {}, "would be accepted"),  # only maps know where it goes, and nobody has asked them
        (ADA, (FAR,), {"bob@far.example": HOP}, "would be accepted"),
        (
            ROOT, (Recipient(Address("eve", "far.example")), Recipient(Address("ann", "b.example"))),
            {"eve@far.example": HOP},
            "would be accepted, and leads to eve@far.example (goes to [192.0.2.1]:25), ann@b.example",
        ),
        (ROOT, (), {}, "would be accepted"),
    ],
)
async def test_the_way_of_an_address(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, user: LocalUser, ends: tuple[Recipient, ...],
    routes: dict[str, str], said: str,
) -> None:
    def answered(state_dir: Path, asked: list[RouteQuestion]) -> dict[str, str]:
        return {each.key: routes[each.recipient] for each in asked if each.recipient in routes}

    monkeypatch.setattr(local.control, "routes", answered)
    knowing = SimpleNamespace(expand=lambda id, now_us, recipients: Expansion(ends))
    setup: Any = SimpleNamespace(rules=SimpleNamespace(rcpt=None), doors=SimpleNamespace(knowing=knowing))
    names: Any = None
    help = local.LocalHelp(
        names, tmp_path, asyncio.get_running_loop(), lambda: setup, lambda: LocalOptions(domain="example.org")
    )
    reply = await help.verify(user, ("bob@far.example",))
    assert (reply.code, reply.lines) == (250, (f"bob@far.example: {said}",))
