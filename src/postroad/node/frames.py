"""The frames between the supervisor and a worker: one struct for each kind, as MessagePack.

Each frame is a struct with its class name as the tag. `ToWorker` and `FromWorker` name all frames that each side may
get. The receiver does `match frame` with `assert_never`, so that mypy finds a kind that is forgotten. No frame carries
code, and none carries a process's own objects: frames may cross machines. Listening sockets cannot; their descriptors
go beside the frame (`node.link`).

The supervisor sends, in this order to a worker that starts:
1. `BansTold` with all bans in force, then each change;
2. `TicketSecretTold`, then each new secret;
3. `Start`, with the listening sockets; once.
Later, as often as needed:
- `TallyTold`, `TallyForgotten`, `SendingTold`, `SendingForgotten`: counts; `NoticeWanted`: mail to the postmaster;
- `KeysChanged`: there are other keys that sign mail;
- `Granted`, `TokensGranted`, `PermitWanted`: permits and rates;
- `Prepare`, then `Commit` (with the sockets of new endpoints) or `Abandon`, then `Sync`: a reload;
- `Operate`, `AskPaces`, `AskMapUse`, `AskActivity`: for operators;
- `StsTold` to the worker that asked, `StsChanged`; `FetchSts` to one worker: MTA-STS;
- `StartQueue`, and `QueueStarted` to the worker that asked: ETRN;
- `Stop`: the last one.

A worker sends:
- `Ready` when it serves, or `Misconfigured`; then `Alive` each second; `Leaving` when it stops;
- `AskPermits`, `ReleasePermit`, `Succeeded`, `OpeningFailed`, `AskTokens`: permits and rates;
- `AskSts`, and `StsFetchDone` for each `FetchSts`: MTA-STS;
- `TallyTold`, `SendingTold`, `LimitReached`: its counts, and who is over a limit;
- `StartQueue`: a client's ETRN, to be done by all workers;
- one answer (`Answer`) for each frame that has a `question`, with its number.

How it fails: `BadFrame` for octets that are no frame of the kind that is expected, whatever they are.
"""

from __future__ import annotations

from typing import Any, Final, Generic, TypeVar

import msgspec

from postroad.check.bans import Ban
from postroad.check.tally import TallyFrame
from postroad.mail.tls_policy import StsAnswer
from postroad.node.sockets import Endpoint
from postroad.operate.operator import OperatorRequest, OperatorResult
from postroad.operate.requests import Activity, Doing
from postroad.protocol.etrn import Wish
from postroad.trust.sts_fetch import StsFetched

Scopes = tuple[str, ...]


class BadFrame(Exception):
    """These octets are no frame; the text says why."""


class Frame(msgspec.Struct, frozen=True, tag=True, tag_field="frame", omit_defaults=True):
    """The base of all frames."""


# ---- both ways ------------------------------------------------------------------------------------------------------


class TallyTold(Frame, frozen=True):
    """Counts that have changed (`check.tally`): the worker's own, or those of the others."""

    counts: TallyFrame


class SendingTold(Frame, frozen=True):
    """The same of what was sent (`check.sending`)."""

    counts: TallyFrame


class StartQueue(Frame, frozen=True):
    """ETRN. From a worker: all workers should start this queue. To a worker: start it, and answer `QueueCounted`.
    `by`: who asks, for the log."""

    question: int
    wish: Wish
    by: str


# ---- to a worker ----------------------------------------------------------------------------------------------------


class BansTold(Frame, frozen=True):
    """`lifted` None: only what is in `added` is in force."""

    added: tuple[Ban, ...]
    lifted: tuple[str, ...] | None = None


class TicketSecretTold(Frame, frozen=True):
    """The secret of which the keys of TLS session tickets are made."""

    secret: bytes


class Start(Frame, frozen=True):
    """Begin to serve. `settings`: as `config.carried` writes them."""

    number: int
    shards: tuple[int, ...]
    settings: dict[str, Any]
    endpoints: tuple[Endpoint, ...]


class Stop(Frame, frozen=True):
    """End within this time."""

    limit_s: float


class Granted(Frame, frozen=True):
    """Permits for connections, for a destination that has asked."""

    destination_key: str
    count: int


class TokensGranted(Frame, frozen=True):
    """Messages that a rate lets go now, for a destination that has asked."""

    destination_key: str
    count: int


class PermitWanted(Frame, frozen=True):
    """Another worker waits for a connection of this scope: give one up."""

    scope: str


class StsTold(Frame, frozen=True):
    """What holds for a domain that has been asked about with this id. `until_us`: until when to believe it, unless
    its record has another id by then; `expires_us`: of the policy, 0 if there is none."""

    domain: str
    id: str
    answer: StsAnswer
    until_us: int
    expires_us: int = 0


class StsChanged(Frame, frozen=True):
    """What was told of the MTA-STS policy of this domain is not so any more."""

    domain: str


class FetchSts(Frame, frozen=True):
    """Fetch the MTA-STS policy of this domain. `id`: of its record; "": look. Answered by `StsFetchDone`."""

    question: int
    domain: str
    id: str


class TallyForgotten(Frame, frozen=True):
    """What was counted for these keys within a time counts no more."""

    keys: tuple[str, ...]


class SendingForgotten(Frame, frozen=True):
    """The same of what was sent."""

    keys: tuple[str, ...]


class NoticeWanted(Frame, frozen=True):
    """Tell the postmaster. Without `lines`, `text` says that somebody has reached a limit of what may be sent; with
    them, it is the subject of the message that they make."""

    text: str
    lines: tuple[str, ...] = ()


class KeysChanged(Frame, frozen=True):
    """The keys that sign mail have changed: read their folder. Answered by `KeysTaken`."""

    question: int


class Prepare(Frame, frozen=True):
    """Make ready for these settings. Answered by `Prepared`."""

    question: int
    settings: dict[str, Any]


class Commit(Frame, frozen=True):
    """Take what was prepared; `endpoints`: those that are new."""

    endpoints: tuple[Endpoint, ...]


class Abandon(Frame, frozen=True):
    """Drop what was prepared."""


class Sync(Frame, frozen=True):
    """Answered by `Synced` when all that came before is done."""

    question: int


class Operate(Frame, frozen=True):
    """What an operator wants done to the queue. Answered by `Operated`."""

    question: int
    request: OperatorRequest


class AskPaces(Frame, frozen=True):
    """What does the mail of these destinations wait for? Answered by `Paces`."""

    question: int
    destination_keys: tuple[str, ...]


class AskMapUse(Frame, frozen=True):
    """Which entries of this map were an answer? Answered by `MapUse`."""

    question: int
    name: str


class AskActivity(Frame, frozen=True):
    """How is the worker? Answered by `ActivityTold`."""

    question: int


class QueueStarted(Frame, frozen=True):
    """What the workers counted for the queue that this worker's client wanted started; None: no answer."""

    question: int
    counts: tuple[int | None, ...]


# ---- from a worker --------------------------------------------------------------------------------------------------


class Ready(Frame, frozen=True):
    """The worker serves."""


class Misconfigured(Frame, frozen=True):
    """The worker cannot start with these settings and their files, and ends."""

    text: str


class Alive(Frame, frozen=True):
    """The worker's event loop goes round."""


class Leaving(Frame, frozen=True):
    """The worker stops: its silence means nothing from here on."""


class AskPermits(Frame, frozen=True):
    """Up to `count` connections that count in all these scopes; the first is the destination's key."""

    scopes: Scopes
    count: int


class ReleasePermit(Frame, frozen=True):
    """A connection is closed."""

    scopes: Scopes


class Succeeded(Frame, frozen=True):
    """So many messages went well while the destination waits for a further connection."""

    scopes: Scopes
    count: int


class OpeningFailed(Frame, frozen=True):
    """A connection could not be opened; `others`: while others to the same destination work."""

    scopes: Scopes
    others: bool


class AskSts(Frame, frozen=True):
    """Which MTA-STS policy does this domain have? `id`: of its record as the DNS has it, "" for none. Answered by
    `StsTold`, perhaps after a fetch."""

    domain: str
    id: str


class StsFetchDone(Frame, frozen=True):
    question: int
    found: StsFetched


class LimitReached(Frame, frozen=True):
    """Somebody has reached a limit of what may be sent; `key`: of the tally."""

    key: str
    text: str


class AskTokens(Frame, frozen=True):
    """Up to `count` messages of the rates of these scopes."""

    destination_key: str
    scopes: Scopes
    count: int


class Prepared(Frame, frozen=True):
    """`problem`: why the settings cannot be taken, "" if they can."""

    question: int
    problem: str = ""


class Synced(Frame, frozen=True):
    question: int


class Operated(Frame, frozen=True):
    question: int
    results: tuple[OperatorResult, ...]


class LanePace(msgspec.Struct, frozen=True):
    """Of one destination in one worker: its scopes, those of them with a rate, recipients that are ready, what they
    wait for ("permit", "rate", else in words; "" for nothing) and because of what, and what is under way.
    `left_alone_s`: how long the destination is left alone yet, if that is what they wait for."""

    scopes: Scopes
    rated: Scopes = ()
    ready: int = 0
    waits: str = ""
    because: str = ""
    domains: tuple[str, ...] = ()
    doing: tuple[Doing, ...] = ()
    left_alone_s: float = 0.0


class Paces(Frame, frozen=True):
    question: int
    found: dict[str, LanePace]


class MapUse(Frame, frozen=True):
    """`used`: by key, when the entry was last an answer, in microseconds since 1970."""

    question: int
    used: dict[str, int]


class ActivityTold(Frame, frozen=True):
    question: int
    activity: Activity


class KeysTaken(Frame, frozen=True):
    """The worker has the keys as they were when it was told."""

    question: int


class QueueCounted(Frame, frozen=True):
    """`count`: messages of the queue in this worker; None: it could not look."""

    question: int
    count: int | None


Answer = Prepared | Synced | Operated | Paces | MapUse | ActivityTold | QueueCounted | KeysTaken

# What only a worker that is ready hears.
ToReadyWorker = (
    PermitWanted
    | TallyTold
    | TallyForgotten
    | SendingTold
    | SendingForgotten
    | NoticeWanted
    | KeysChanged
    | Prepare
    | Commit
    | Abandon
    | Operate
    | AskPaces
    | AskMapUse
    | AskActivity
    | StartQueue
)

ToWorker = (
    BansTold
    | TicketSecretTold
    | Start
    | Stop
    | Granted
    | TokensGranted
    | QueueStarted
    | Sync
    | StsTold
    | StsChanged
    | FetchSts
    | ToReadyWorker
)

FromWorker = (
    Ready
    | Misconfigured
    | Alive
    | Leaving
    | AskPermits
    | ReleasePermit
    | Succeeded
    | OpeningFailed
    | AskTokens
    | TallyTold
    | SendingTold
    | LimitReached
    | AskSts
    | StsFetchDone
    | StartQueue
    | Prepared
    | Synced
    | Operated
    | Paces
    | MapUse
    | ActivityTold
    | QueueCounted
    | KeysTaken
)


# ---- octets ---------------------------------------------------------------------------------------------------------

_Heard = TypeVar("_Heard")
_ENCODER: Final = msgspec.msgpack.Encoder()


def encode(frame: Frame) -> bytes:
    return _ENCODER.encode(frame)


class Reader(Generic[_Heard]):
    """Reads the frames that one side may hear."""

    def __init__(self, kinds: Any) -> None:
        self._decoder = msgspec.msgpack.Decoder(kinds)

    def __call__(self, octets: bytes) -> _Heard:
        """Raises BadFrame."""
        try:
            frame: _Heard = self._decoder.decode(octets)
        except (msgspec.DecodeError, ValueError, RecursionError) as error:
            raise BadFrame(f"a frame of {len(octets)} octets cannot be read: {error}") from error
        else:
            return frame


read_to_worker: Final[Reader[ToWorker]] = Reader(ToWorker)
read_from_worker: Final[Reader[FromWorker]] = Reader(FromWorker)
