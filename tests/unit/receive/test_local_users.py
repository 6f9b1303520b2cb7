"""What users of this machine may send, and how much."""

from __future__ import annotations

import pytest

from postroad.mail.address import Address
from postroad.mail.reply import Reply
from postroad.maps.face import NotNow
from postroad.receive.local_users import USERS_MAX, LocalCounts, LocalUser, mailboxes, refusal
from postroad.receive.options import LocalOptions, LocalSender

ANN = LocalUser(1000, "ann")
ROOT = LocalUser(0, "root", unlimited=True)


@pytest.mark.parametrize(
    ("sender", "options", "code"),
    [
        ("eve@x.test", LocalOptions(), 0),
        ("ann@h.test", LocalOptions(sender=LocalSender.OWN), 0),
        ("Ann@h.test", LocalOptions(sender=LocalSender.OWN), 0),
        ("", LocalOptions(sender=LocalSender.OWN), 0),
        ("hers@x.test", LocalOptions(sender=LocalSender.OWN), 0),
        ("eve@h.test", LocalOptions(sender=LocalSender.OWN), 553),
        ("ann@x.test", LocalOptions(sender=LocalSender.OWN), 553),
        ("ann@h.test", LocalOptions(users=("www-data",)), 550),
        ("ann@h.test", LocalOptions(users=("www-data", "ann")), 0),
    ],
)
def test_which_sender_a_user_may_name(sender: str, options: LocalOptions, code: int) -> None:
    options = LocalOptions(domain="h.test", users=options.users, sender=options.sender)
    address = Address(*sender.split("@")) if sender else None

    def owns(account: str, mailbox: Address) -> bool:
        return (account, str(mailbox)) == ("ann", "hers@x.test")

    found = refusal(ANN, address, options, owns)
    assert found is None or isinstance(found, Reply)
    assert (found.code if found is not None else 0) == code
    assert refusal(ROOT, address, options, owns) is None


@pytest.mark.parametrize(("answer", "code"), [(True, 0), (False, 553), (NotNow("away"), 451)])
async def test_a_map_may_have_to_be_waited_for(answer: bool | NotNow, code: int) -> None:
    async def later() -> bool | NotNow:
        return answer

    options = LocalOptions(domain="h.test", sender=LocalSender.OWN)
    for owns in (lambda account, mailbox: later(), lambda account, mailbox: answer):
        found = refusal(ANN, Address("team", "x.test"), options, owns)
        if found is not None and not isinstance(found, Reply):
            found = await found
        assert (found.code if found is not None else 0) == code


class _Clock:
    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


def _send(counts: LocalCounts, user: LocalUser, options: LocalOptions, *, taken: bool = True) -> Reply | None:
    refused = counts.enter(user, options)
    if refused is None:
        counts.leave(user, options, taken=taken)
    return refused


def test_the_rate_of_a_user_is_its_own() -> None:
    clock = _Clock()
    counts, options = LocalCounts(clock), LocalOptions(messages_max=2, window_s=60)
    assert [_send(counts, ANN, options) is None for _ in range(3)] == [True, True, False]
    assert _send(counts, LocalUser(1001, "bob"), options) is None
    assert all(_send(counts, ROOT, options) is None for _ in range(9))
    clock.now = 60.5
    assert [_send(counts, ANN, options) is None for _ in range(3)] == [True, True, False]


def test_what_was_refused_does_not_count() -> None:
    counts, options = LocalCounts(_Clock()), LocalOptions(messages_max=1)
    assert all(_send(counts, ANN, options, taken=False) is None for _ in range(5))


def test_at_most_so_many_at_a_time() -> None:
    counts, options = LocalCounts(_Clock()), LocalOptions(at_once_max=2, messages_max=0)
    assert counts.enter(ANN, options) is None and counts.enter(ANN, options) is None
    refused = counts.enter(ANN, options)
    assert refused is not None and refused.code == 451
    counts.leave(ANN, options, taken=True)
    assert counts.enter(ANN, options) is None


def test_users_without_end_take_no_memory_without_end() -> None:
    counts, options = LocalCounts(_Clock()), LocalOptions(messages_max=1)
    for uid in range(USERS_MAX + 10):
        assert _send(counts, LocalUser(uid + 2000, "x"), options) is None
    assert len(counts._taken) == USERS_MAX


@pytest.mark.parametrize(
    ("written", "found"),
    [
        ("ada", ["ada@host.test"]), ("<ada@x.test>", ["ada@x.test"]), 
        ("ada@x.test, bob", ["ada@x.test", "bob@host.test"]),
        ("Ada (at work) <ada@x.test>", ["ada@x.test"]), ('"b, c" <b@x.test>', ["b@x.test"]), ("", [None]),
        ("a@b@c", [None]), ("ada@x.test, b c", ["ada@x.test", None]), (",", [None]),
    ],
)  # fmt: skip
def test_an_argument_names_mailboxes(written: str, found: list[str | None]) -> None:
    assert [each if each is None else str(each) for each in mailboxes(written, "host.test")] == found
