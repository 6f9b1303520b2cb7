"""The users of the machine as a map."""

from __future__ import annotations

import os
import pwd

import pytest

from postroad.maps import users
from postroad.maps.face import NotNow
from postroad.maps.options import MapKind, MapOptions
from postroad.maps.users import UsersDriver
from postroad.maps.waiting import Away, WaitingOptions, WaitingSource
from postroad.world.identity import UserEntry, find_user


def test_a_user_as_the_machine_knows_him() -> None:
    entry = pwd.getpwuid(os.getuid())
    assert find_user(entry.pw_name) == UserEntry(entry.pw_uid, entry.pw_dir)
    assert find_user("no-such-user-here") is None


async def test_who_is_in_the_map(monkeypatch: pytest.MonkeyPatch) -> None:
    known = {"ada": UserEntry(1000, "/home/ada"), "list": UserEntry(38, "/"), "nobody": UserEntry(65534, "/")}
    monkeypatch.setattr(users, "find_user", known.get)
    driver = UsersDriver(1000, 2)
    names = ("ada", "list", "nobody", "eve", "ada@example.org", "a\0b", "x" * 300)
    assert [await driver.fetch(name, part=True) for name in names] == ["/home/ada", *[None] * 6]
    driver.close()
    low = UsersDriver(1, 2)
    assert await low.fetch("list", part=True) == "/"
    low.close()


async def test_a_directory_of_users_that_is_away_is_no_unknown_user(monkeypatch: pytest.MonkeyPatch) -> None:
    def away(name: str) -> None:
        raise OSError(5, "Input/output error")

    monkeypatch.setattr(users, "find_user", away)
    driver = UsersDriver(1000, 1)
    with pytest.raises(Away, match="cannot be looked up"):
        await driver.fetch("ada", part=True)
    source = WaitingSource(driver, WaitingOptions(), "users", lambda level, text: None)
    answer = source.look_up("ada")
    assert not isinstance(answer, str | NotNow) and answer is not None
    assert isinstance(await answer, NotNow)
    source.close()
    driver.close()
    assert MapOptions("users", MapKind.USERS).uid_min == 1000
