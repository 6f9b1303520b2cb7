"""What `sendmail -bv` is told (`wiring.local`)."""

from __future__ import annotations

import asyncio
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from postroad.node.wiring import local
from postroad.receive.local_users import LocalOptions, LocalUser

ROOT, ADA = LocalUser(0, "root", unlimited=True), LocalUser(1000, "ada")


@pytest.mark.parametrize(
    ("user", "routes", "said"),
    [
        (ROOT, {"bob@far.example": "[192.0.2.1]:25"}, "would be accepted, and goes to [192.0.2.1]:25"),
        (ROOT, {}, "would be accepted"),  # only maps know where it goes, and nobody has asked them
        (ADA, {"bob@far.example": "[192.0.2.1]:25"}, "would be accepted"),
    ],
)
async def test_the_way_of_an_address(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, user: LocalUser, routes: dict[str, str], said: str
) -> None:
    monkeypatch.setattr(local.control, "routes", lambda state_dir, asked: routes)
    setup: Any = SimpleNamespace(rules=SimpleNamespace(rcpt=None))
    names: Any = None
    help = local.LocalHelp(
        names, tmp_path, asyncio.get_running_loop(), lambda: setup, lambda: LocalOptions(domain="example.org")
    )
    reply = await help.verify(user, ("bob@far.example",))
    assert (reply.code, reply.lines) == (250, (f"bob@far.example: {said}",))
