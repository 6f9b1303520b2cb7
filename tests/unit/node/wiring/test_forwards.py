"""The files ``.forward`` of users as a map: what the porter answers, and what becomes of it."""

from __future__ import annotations

import asyncio
import os
from pathlib import Path

import msgspec
import pytest

from postroad.deliver.porter import PorterRequest, forward_answer
from postroad.maps.face import NotNow
from postroad.maps.waiting import Away, WaitingOptions, WaitingSource
from postroad.node.wiring import forwards
from postroad.node.wiring.forwards import ForwardDriver, OwnForwards
from postroad.route.forward_includes import value_of
from postroad.world.forward_file import ForwardFile
from postroad.world.identity import UserAccount
from postroad.world.problem import Problem


class Porter:
    """Gives these answers, one after the other; None: never."""

    def __init__(self, *answers: bytes | Problem | None) -> None:
        self.answers = list(answers)
        self.asked: list[PorterRequest] = []

    async def ask(self, request: bytes, content: int) -> bytes | Problem:
        self.asked.append(msgspec.msgpack.decode(request, type=PorterRequest))
        answer = self.answers.pop(0)
        if answer is None:
            await asyncio.get_running_loop().create_future()
        assert answer is not None
        return answer


async def test_what_is_asked_and_answered() -> None:
    told: list[str] = []
    bad = forward_answer(ForwardFile(fault="/home/ada/.forward: all users can write to it"))
    porter = Porter(forward_answer(ForwardFile("bob\n")), forward_answer(ForwardFile()), bad, bad)
    driver = ForwardDriver(porter, lambda level, text: told.append(text))
    assert [await driver.fetch("ada+x@h.example", False) for _ in range(4)] == [value_of("bob\n"), None, None, None]
    assert {(each.reads, each.domain, each.local_part, each.outlet) for each in porter.asked} == {
        (True, "h.example", "ada+x", None)
    }  # fmt: skip
    assert len(told) == 1 and "all users can write" in told[0]


async def test_a_home_that_is_away_keeps_only_its_own_mail_waiting(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(forwards, "_READ_S", 0.01)
    stale = forward_answer(ForwardFile(not_now="Stale file handle"))
    driver = ForwardDriver(Porter(stale, b"", b"?", None, forward_answer(ForwardFile("x"))), lambda *_: None)
    source = WaitingSource(driver, WaitingOptions(failures_max=1, last_good_s=0), "f", lambda *_: None)
    for name in ("a", "b", "c", "d"):
        pending = source.look_up(f"{name}@h.example")
        assert pending is not None and not isinstance(pending, str | NotNow)
        assert isinstance(await pending, NotNow)
    pending = source.look_up("e@h.example")
    assert pending is not None and not isinstance(pending, str | NotNow)
    assert await pending == value_of("x")


async def test_without_a_porter_nobody_can_tell() -> None:
    for porter in (None, Porter(Problem("the porter", "is gone", ""))):
        with pytest.raises(Away):
            await ForwardDriver(porter, lambda *_: None).fetch("ada@h.example", False)


async def test_the_user_of_the_node_needs_no_porter(tmp_path: Path) -> None:
    tmp_path.chmod(0o700)
    (tmp_path / ".forward").write_text(f"bob, :include:{tmp_path}/team\n")
    (tmp_path / "team").write_text("carol\n")
    own = OwnForwards(
        UserAccount("ada", os.getuid(), (os.getgid(),), str(tmp_path)), frozenset(("h.example",)), True, "+"
    )
    driver = ForwardDriver(None, lambda *_: None, own)
    wanted = value_of(f"bob, :include:{tmp_path}/team\n", ((f"{tmp_path}/team", "carol\n"),))
    assert [await driver.fetch(f"{name}@h.example", False) for name in ("ada", "ada+x", "bob", "root")] == [
        wanted, wanted, None, None
    ]  # fmt: skip
    with pytest.raises(Away):  # others have the porter
        await driver.fetch("ada@other.example", False)
    none = ForwardDriver(None, lambda *_: None, OwnForwards(None, frozenset(("h.example",))))
    assert await none.fetch("ada@h.example", False) is None
