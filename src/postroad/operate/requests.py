"""Requests of a command to a running node, and their answers: the schema of the control socket.

Each request is a struct with a name on the wire (its tag, in the field "command"), each answer is a struct or a list of
structs. The client is `operate.control`, the server `node.control`; both take the types from here, so that neither can
say what the other does not know. An interface for programs later speaks the same.

On the wire a request is one line of JSON, and so is the `ControlReply`. The first request of a connection is
`ControlHello`, with `VERSION`: a node and a command of different versions say so instead of misreading each other.
`VERSION` rises when a request or an answer changes so that the other side would misread it; a new field with a default
needs no new version.
"""

from __future__ import annotations

from typing import Any, Final

import msgspec

from postroad.check.banning import BanRequest
from postroad.mail.route import Destination
from postroad.maps.face import MapCounts
from postroad.operate.operator import OperatorRequest
from postroad.report.counting import EventCounts
from postroad.store.face import Missed

VERSION: Final = 1


# ---- requests -------------------------------------------------------------------------------------------------------


class _Command(msgspec.Struct, frozen=True, tag_field="command"):
    """The base of all requests."""


class ControlHello(_Command, frozen=True, tag="hello"):
    """The first request of a connection. `program`: the version of Postroad that asks. Answered by `Greeting`."""

    version: int
    program: str = ""


class StatusRequest(_Command, frozen=True, tag="status"):
    """How is the node? Answered by `NodeStatus`."""


class ConfigurationRequest(_Command, frozen=True, tag="configuration"):
    """Which values are in force? Answered by all settings, passwords hidden."""


class ReloadRequest(_Command, frozen=True, tag="reload"):
    """Take the configuration as its file has it now. Answered by `Reloaded`."""


class RouteQuestion(msgspec.Struct, frozen=True):
    """A recipient, and the reverse-path and the account of its message, because its way may depend on them. `sender`
    "" is the null reverse-path, `account` "" is none. `size`, `listener`, `priority` and `classes`: as of the envelope.
    `released`: whether an operator has released its mail, so that it is not held. `whole`: whether all this is known;
    if not, there is no answer if the settings look at it. `stored`: the destination that was stored with the recipient,
    such as a program that an alias names."""

    recipient: str
    sender: str = ""
    account: str = ""
    size: int = 0
    listener: str = ""
    priority: int = 0
    classes: tuple[str, ...] = ()
    released: bool = False
    whole: bool = True
    stored: Destination | None = None

    @property
    def key(self) -> str:
        """Its name in the answer."""
        what = (str(self.size), self.listener, str(self.priority), *self.classes, str(self.released))
        if self.stored is not None:
            what += (self.stored.key,)
        return "\n".join((self.recipient, self.sender, self.account, *what))


class RoutesRequest(_Command, frozen=True, tag="routes"):
    """Where would mail go? Answered by a destination key for each question, or why there is none, in parentheses.
    `request`: recipients whatever their message is, by which they are named in the answer; `asked`: with their
    messages."""

    request: tuple[str, ...] = ()
    asked: tuple[RouteQuestion, ...] = ()


class PaceRequest(_Command, frozen=True, tag="pace"):
    """What does the mail of these destinations wait for? "*": also those with most mail. Answered by `Paced` for each
    destination that is at work or left alone."""

    request: tuple[str, ...]


class MapUseRequest(_Command, frozen=True, tag="map-use"):
    """Which entries of the map of this name were an answer, and when? Answered by the time (microseconds since 1970) by
    key, since the workers have started or read the file; empty if the map does not know."""

    request: str


class BansRequest(_Command, frozen=True, tag="bans"):
    """List, add or lift bans. A list is answered by `check.bans.Ban`, a change by `check.banning.BanResult`."""

    request: BanRequest


class LimitsAsked(msgspec.Struct, frozen=True):
    """Accounts, senders and clients by name; () for all. `reset`: their counts begin anew."""

    names: tuple[str, ...] = ()
    reset: bool = False


class LimitsRequest(_Command, frozen=True, tag="limits"):
    """What was sent within the last hour and day? Answered by `SentCount` for each who was meant."""

    request: LimitsAsked


class KeysRequest(_Command, frozen=True, tag="keys"):
    """The keys that sign mail have changed on the disk: take them. `request`: what was done, for the log. Answered by
    `KeysSummary` when all workers have them."""

    request: tuple[str, ...] = ()


class OperateRequest(_Command, frozen=True, tag="operate"):
    """Change the queue. Answered by `operate.operator.OperatorResult` for each recipient that is meant."""

    request: OperatorRequest


Request = (
    ControlHello
    | StatusRequest
    | ConfigurationRequest
    | ReloadRequest
    | RoutesRequest
    | PaceRequest
    | MapUseRequest
    | BansRequest
    | LimitsRequest
    | KeysRequest
    | OperateRequest
)


# ---- answers --------------------------------------------------------------------------------------------------------


class ControlReply(msgspec.Struct, frozen=True):
    """What stands around each answer. `ok` False: `error` says why, and `result` means nothing."""

    ok: bool
    result: msgspec.Raw = msgspec.Raw(b"null")
    error: str = ""


class SentCount(msgspec.Struct, frozen=True):
    """What somebody has sent. `whose`: account, sender or client. `noticed_us`: when the postmaster was told that a
    limit is reached, 0 if not lately. `held_per_day`, `held_size_per_day`: messages that a limit has held, and their
    octets."""

    whose: str
    name: str
    messages_per_hour: int = 0
    recipients_per_hour: int = 0
    messages_per_day: int = 0
    recipients_per_day: int = 0
    noticed_us: int = 0
    held_per_day: int = 0
    held_size_per_day: int = 0


class Greeting(msgspec.Struct, frozen=True):
    """What the node says to `ControlHello`."""

    version: int
    program: str = ""


class Reloaded(msgspec.Struct, frozen=True):
    """What became of a reload; `problems`: why the new configuration was refused, as lines."""

    taken: bool
    problems: tuple[str, ...] = ()


class Configuration(msgspec.Struct, frozen=True):
    """Where the configuration in force comes from. `changed`: the file holds something else by now. `problems`: why the
    last reload was refused, if it was."""

    file: str = ""
    loaded_us: int = 0
    changed: bool = False
    refused_us: int = 0
    problems: tuple[str, ...] = ()


class Listening(msgspec.Struct, frozen=True):
    """One address of a listener."""

    name: str
    address: str
    role: str


class WorkerStatus(msgspec.Struct, frozen=True):
    """One worker as the supervisor sees it."""

    number: int
    pid: int
    ready: bool
    up_s: float


class LeftAlone(msgspec.Struct, frozen=True):
    """A destination that could not be reached: failures in a row, until when it is left alone, and why."""

    destination: str
    failures: int
    until_us: int
    reason: str


class HistoryBehind(msgspec.Struct, frozen=True):
    """A journal that is not moved to the history: since when its oldest row waits, and the last error."""

    shard: int
    since_us: int
    why: str = ""


class Activity(msgspec.Struct, frozen=True):
    """One worker as it sees itself: messages in memory, jobs under way, and what it has trouble with.

    `sessions`: those that it has now; `sessions_admitted`: all since the worker started. `counts`: what the journals of
    its shards hold, since they were first counted. `readers_missed`: readers of these journals that were too far behind
    (docs/reliability.md). `refuses`: why new mail is refused now, "" if it is not. `maps`: what each was asked."""

    number: int
    sessions: int = 0
    in_memory: int = 0
    carrying: int = 0
    left_alone: tuple[LeftAlone, ...] = ()
    history_behind: tuple[HistoryBehind, ...] = ()
    counts: EventCounts = EventCounts()
    readers_missed: tuple[Missed, ...] = ()
    refuses: str = ""
    sessions_admitted: int = 0
    maps: tuple[MapCounts, ...] = ()


class KeysSummary(msgspec.Struct, frozen=True):
    """The keys that sign mail: how many are in which state. `told`: those for which somebody must do something."""

    domains: int = 0
    signing: int = 0
    waiting: int = 0
    retired: int = 0
    removable: int = 0
    told: tuple[str, ...] = ()


class NodeStatus(msgspec.Struct, frozen=True):
    """What a running node tells of itself. `connections`: those that are held, by scope. `sessions`, `bans`: counts of
    the whole node."""

    pid: int
    version: str = ""
    state: str = ""
    started_us: int = 0
    configuration: Configuration = Configuration()
    listeners: tuple[Listening, ...] = ()
    shards: int = 0
    workers: tuple[WorkerStatus, ...] = ()
    connections: dict[str, int] = {}
    sessions: int = 0
    bans: int = 0
    activity: tuple[Activity, ...] = ()
    keys: KeysSummary = KeysSummary()


class Doing(msgspec.Struct, frozen=True):
    """What is under way for a destination, in words; `message`: the queue id of what is carried, "" for an opening."""

    message: str
    what: str


class Paced(msgspec.Struct, frozen=True):
    """A destination at work, or left alone: its connections over the whole node, how many it may have now and at most,
    and what its mail waits for; `because`: why it is left alone; `domains`: of recipients in
    memory; `doing`: transactions and openings under way."""

    destination: str
    connections: int
    connections_now_max: int
    connections_max: int
    in_memory: int
    waits_for: str
    because: str = ""
    domains: tuple[str, ...] = ()
    doing: tuple[Doing, ...] = ()

    @property
    def under_way(self) -> str:
        """What is under way, in short."""
        if not self.doing:
            return ""
        more = f", and {len(self.doing) - 1} more" if len(self.doing) > 1 else ""
        return self.doing[0].what + more

    @property
    def in_full(self) -> str:
        """What its mail waits for, with the reason."""
        return f"{self.waits_for}: {self.because}" if self.because else self.waits_for


# ---- on the wire ----------------------------------------------------------------------------------------------------

_REQUESTS: Final = msgspec.json.Decoder(Request)


def encode(value: Request | ControlReply) -> bytes:
    """One line."""
    return msgspec.json.encode(value) + b"\n"


def read_request(line: bytes) -> Request | str:
    """The request in a line, or what is wrong with it."""
    try:
        request: Request = _REQUESTS.decode(line)
    except (msgspec.DecodeError, RecursionError) as error:
        return f"not a request: {error}"
    else:
        return request


def answer(result: Any) -> ControlReply:
    """A reply with this result; a text is the reason why there is none."""
    if isinstance(result, str):
        return ControlReply(ok=False, error=result)
    return ControlReply(ok=True, result=msgspec.Raw(msgspec.json.encode(result)))


def other_version(asked: ControlHello, program: str) -> str:
    """Why a command and the node do not understand each other; "" if they do. `program`: the node's."""
    if asked.version == VERSION:
        return ""
    return (
        f"the node runs Postroad {program}, and this command is of Postroad {asked.program or 'another version'}: they "
        "do not understand each other; use the command of the node's version, or restart the node after an upgrade"
    )
