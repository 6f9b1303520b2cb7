"""The users of this machine who hand over mail: who they are, what they may do, and how much.

The kernel says who calls: by the credentials of a connection, or by the owner of a file. What users say about
themselves does not count. Counts are kept for each user id; a worker that starts again begins at 0.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Awaitable, Callable
from typing import Final

import msgspec

from postroad.accounts.sender_maps import Owns
from postroad.mail.address import Address
from postroad.mail.reply import Reply, reply
from postroad.maps.face import NotNow
from postroad.protocol import mailboxes as lists
from postroad.protocol.grammar import parse_mailbox
from postroad.receive.options import LocalOptions, LocalSender

USERS_MAX: Final = 4096  # users whose counts are kept at a time; those who did nothing lately go first
_NOT_ALLOWED: Final = reply(550, "5.7.1", "You may not send mail")
_NOT_YOURS: Final = reply(553, "5.7.1", "This sender is not yours")
_UNSURE: Final = reply(451, "4.3.0", "Nobody can tell now who may use this sender, try again later")


class LocalUser(msgspec.Struct, frozen=True):
    """`full_name`: as the system's user database has it, "" if it has none. `unlimited`: root or the node's user."""

    uid: int
    name: str
    full_name: str = ""
    unlimited: bool = False

    @property
    def label(self) -> str:
        """For trace fields, log and history."""
        return f"{self.name}/uid={self.uid}"


def own_mailbox(user: LocalUser, options: LocalOptions) -> Address:
    """The mailbox that a user has if it names none."""
    return Address(user.name, options.domain)


def mailbox(written: str, domain: str) -> Address | None:
    """A mailbox as a user writes it: one without a domain is of `domain`. None: it is none."""
    text = written.strip()
    if text.startswith("<") and text.endswith(">"):
        text = text[1:-1]
    return parse_mailbox(text) or (parse_mailbox(f"{text}@{domain}") if "@" not in text or text[0] == '"' else None)


def mailboxes(written: str, domain: str) -> list[Address | None]:
    """The mailboxes in an argument, as Postfix reads one: a mailbox, or a list as in an address field, with names and
    comments. None stands for something that is no mailbox."""
    one = mailbox(written, domain)
    return [one] if one is not None else lists.mailboxes(written, domain=domain) or [None]


def refusal(
    user: LocalUser, sender: Address | None, options: LocalOptions, owns: Owns
) -> Reply | Awaitable[Reply | None] | None:
    """Why a user may not send with this envelope sender; None if it may. `owns`: whether the account of a name may send
    from there, which may have to be waited for."""
    if user.unlimited:
        return None
    if options.users and user.name not in options.users:
        return _NOT_ALLOWED
    if options.sender is LocalSender.ANY:
        return None
    if sender is None:
        return None if options.sender is LocalSender.OWN else _NOT_YOURS
    own = own_mailbox(user, options)
    if sender.domain == own.domain and sender.local_part.lower() == own.local_part.lower():
        return None
    if options.sender is not LocalSender.OWN:
        return _NOT_YOURS
    found = owns(user.name, sender)
    return _refusal(found) if isinstance(found, bool | NotNow) else _refusal_later(found)


def _refusal(found: bool | NotNow) -> Reply | None:
    if isinstance(found, NotNow):
        return _UNSURE
    return None if found else _NOT_YOURS


async def _refusal_later(found: Awaitable[bool | NotNow]) -> Reply | None:
    return _refusal(await found)


class LocalCounts:
    """How much each user does. Called on the loop only. `now`: loop time."""

    def __init__(self, now: Callable[[], float]) -> None:
        self._now = now
        self._at_once: dict[int, int] = {}
        self._taken: dict[int, deque[float]] = {}

    def enter(self, user: LocalUser, options: LocalOptions) -> Reply | None:
        """One more message of a user is under way; why not, else None. Each that was not refused is followed by
        `leave`."""
        at_once = self._at_once.get(user.uid, 0)
        if not user.unlimited:
            if at_once >= options.at_once_max:
                return reply(451, "4.7.0", f"{at_once} messages of {user.name} are under way")
            if self._is_over_rate(user, options):
                text = f"{user.name} has sent {options.messages_max} messages in {options.window_s:g} s"
                return reply(451, "4.7.0", text)
        self._at_once[user.uid] = at_once + 1
        return None

    def leave(self, user: LocalUser, options: LocalOptions, *, taken: bool) -> None:
        """A message of the user is not under way any more; `taken`: the node has it."""
        at_once = self._at_once.pop(user.uid) - 1
        if at_once:
            self._at_once[user.uid] = at_once
        if taken and not user.unlimited and options.messages_max:
            times = self._taken.pop(user.uid, None)  # the user stands last now
            if times is None:
                times = deque()
            self._taken[user.uid] = times
            times.append(self._now())
            if len(self._taken) > USERS_MAX:
                del self._taken[next(iter(self._taken))]

    def _is_over_rate(self, user: LocalUser, options: LocalOptions) -> bool:
        times = self._taken.get(user.uid)
        if times is None or not options.messages_max:
            return False
        since = self._now() - options.window_s
        while times and times[0] <= since:
            times.popleft()
        return len(times) >= options.messages_max
