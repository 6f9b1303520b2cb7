"""The promises, checked from the outside: what clients were told, what came where, and what the history says of it.

For each message that was accepted, acknowledged or not, and each of its final mailboxes:
1. it was delivered, or failed with the report that is due, or was removed by an operator: one end, which the history
   tells and the outside confirms; with a 250 and without any of these it is lost;
2. a delivery that the node knows of is the last one: a second one needs a 250 that was lost, or a crash between the
   remote's 250 and our commit, of what was in flight then;
3. what was delivered is whole: trace fields in front, stray line ends repaired as `line_ends` says, long lines broken
   for other hosts, and nothing else changed; what nobody sent is not accepted;
4. reports go to who may want them, once for each end, never for a message with the null reverse-path;
5. what readers of the stream hear of was committed, and the second durable reader (`report.counting`) has counted each
   committed event once;
6. a message that is handed back to where it has been is not taken again (`sender.hand_back`), so that the number of its
   copies is bounded;
7. senders are signed as they should be, and reports to them come back (`signing`, `returning`);
8. nobody sends more than the limit (`sending_limits`).
"""

from __future__ import annotations

import email
import re
import sqlite3
from collections import Counter, defaultdict
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from postroad.deliver.mbox import LOCK
from postroad.mail import identifier
from postroad.mail.attempt import Outcome
from postroad.mail.event import Accepted, Attempted, Event, Expanded, Failed, Held, Released, Removed, Reported
from postroad.report.counting import EventCounts, counted, total
from postroad.report.own_mail import LISTENER_FEEDBACK
from postroad.store.sqlite import codec, schema
from postroad.store.sqlite.dayfile import DayReader, path_of
from postroad.store.sqlite.history import day_files
from postroad.store.sqlite.searching import HistoryReader
from tests.sim import dropping, line_ends, mboxes, sending_limits, signing, targets
from tests.sim.inspecting import all_marked
from tests.sim.ledger import Delivery, Submitted, message_id_of
from tests.sim.part import Seen
from tests.sim.plan import ALIASES
from tests.sim.routing import NOT_NOW

if TYPE_CHECKING:
    from tests.sim.house import House

_TRACE = re.compile(
    r"((Return-Path|Delivered-To|Received|X-Postroad-Loop|X-Sim-(First|Second)|Authentication-Results): "
    r".*\n([ \t].*\n)*)+"
)
_ID = re.compile(r"^\tby \S+ \(Postroad\) with \S+ id ([^\s;]+)", re.MULTILINE)
_SEVERAL = re.compile(r"\d+ (hosts|addresses of \S+) tried: ")
_NOT_KNOWN = (NOT_NOW, "its destination is not known")
_NO_HOST = ("5.1.2", "4.1.2", "5.4.4", "4.4.3", "5.1.10")  # of a domain whose hosts DNS should tell
_NUMBER = re.compile(r"#(\d+)")
_ENDS = {Outcome.DELIVERED: "delivered", Outcome.RELAYED: "relayed", Outcome.FAILED: "failed"}


@dataclass
class Life:
    """What the history tells of one message."""

    accepted: Accepted
    ends: dict[str, list[str]] = field(default_factory=lambda: defaultdict(list))  # recipient → its ends
    expanded: dict[str, tuple[str, ...]] = field(default_factory=dict)
    reported: list[Reported] = field(default_factory=list)
    passed: set[str] = field(default_factory=set)  # relayed to who takes the wish for a report with it
    by_operator: set[str] = field(default_factory=set)
    deferred_us: dict[str, int] = field(default_factory=dict)  # recipient → its last deferral


@dataclass(frozen=True)
class Dsn:
    """A report as it arrived."""

    message_id: str
    about: str  # Message-ID of the message it reports on
    action: str
    recipients: tuple[str, ...]
    to: str


def check(house: House) -> None:
    events = [event for event in _events(house) if event.id]
    lives = _lives(house, events)
    waiting = {(id, recipient) for id, _, recipient, _, _ in house.node.waiting()}
    deliveries: dict[tuple[str, str], list[Delivery]] = defaultdict(list)
    for delivery in house.ledger.deliveries:
        deliveries[delivery.message_id, delivery.recipient].append(delivery)
    dsns = list(_dsns(house))
    submitted = {each.message_id: each for each in house.ledger.submitted}
    by_id = _by_message_id(house, lives)
    _acknowledged(house, lives, by_id, submitted)
    _sent(house, lives, submitted)
    for id, life in lives.items():
        _one_end_each(house, id, life, waiting, deliveries)
    _deliveries_known(house, lives, by_id, deliveries)
    signing.check(house, submitted)
    _whole(house, submitted)
    _maildirs(house, deliveries)
    _mbox_files(house, deliveries)
    _reports(house, lives, by_id, submitted, dsns, deliveries)
    dropping.check(house)
    for part in house.parts:
        part.check(Seen(events, lives, by_id, submitted, deliveries, dsns))
    _trace_agrees(house, lives)
    _stream(house, lives)


# -- the history ---------------------------------------------------------------------------------------------


def _events(house: House) -> Iterator[Event]:
    """All events, each once: of the day files, and of the journals what is not there yet."""
    marks: dict[str, int] = {}
    for _, path in day_files(house.node.history):
        reader = DayReader(schema.connect_reader(path))
        marks[path.name] = reader.mark
        yield from reader.all()
        reader.close()
    for worker in house.node.workers:
        for shard in house.node.shards_of(worker):
            connection = sqlite3.connect(schema.database(house.node.spool, shard))
            rows = connection.execute("SELECT seq, at_us, events FROM journal ORDER BY seq").fetchall()
            connection.close()
            for seq, at_us, octets in rows:
                if seq > marks.get(path_of(house.node.history, at_us, shard).name, 0):
                    yield from codec.decode_journal(octets)


def _lives(house: House, events: list[Event]) -> dict[int, Life]:
    lives: dict[int, Life] = {}
    if not house.plan.jumps:  # else what came later may stand in the file of an earlier day
        _holds(house, events)
    sending_limits.check(house, events)
    for event in events:
        if isinstance(event, Accepted):
            if event.id in lives:
                house.ledger.fault(f"the history accepts {identifier.text(event.id)} twice")
            lives[event.id] = Life(event)
    for event in events:
        life = lives.get(event.id)
        if isinstance(event, Attempted) and life is not None:
            _own_words(house, life, event)
            _known_destination(house, event)
            _ours(house, event)
            _each_host(house, event)
        if life is None:
            if isinstance(event, Attempted | Failed | Removed):
                house.ledger.fault(f"the history has an end of a message it never accepted: {event}"[:300])
            continue
        match event:
            case Attempted() if event.attempt.outcome in _ENDS:
                for recipient in event.recipients:
                    life.ends[recipient].append(_ENDS[event.attempt.outcome])
                    if event.attempt.dsn_passed:
                        life.passed.add(recipient)
            case Attempted() if event.next_us > event.at_us:  # else the next host is tried at once
                for recipient in event.recipients:
                    life.deferred_us[recipient] = max(event.at_us, life.deferred_us.get(recipient, 0))
            case Failed() | Removed():
                for recipient in event.recipients:
                    life.ends[recipient].append("failed" if isinstance(event, Failed) else "removed")
                    life.by_operator.add(recipient)
                if event.by != "op" and not (isinstance(event, Failed) and event.text.startswith("refused: ")):
                    house.ledger.fault(f"nobody asked for this: {event}"[:300])
            case Expanded():
                life.expanded[event.recipient] = event.into
            case Reported():
                life.reported.append(event)
            case _:
                pass
    return lives


def _own_words(house: House, life: Life, event: Attempted) -> None:
    """The refusal that an attempt tells was said of this message, and of its recipient."""
    found = _NUMBER.search(str(event.attempt.reply)) if event.attempt.reply is not None else None
    if found is None:
        return
    sender, recipient = house.ledger.refusals[int(found[1])]
    known = sender == _sender(house, life, event.recipients[0]) and (not recipient or recipient in event.recipients)
    if not known and event.attempt.outcome is Outcome.FAILED:
        told = f"{event.attempt.reply} was said of {sender} to {recipient or 'all'}"
        house.ledger.fault(f"{told}, not of {life.accepted.reverse_path} to {event.recipients}"[:300])


def _known_destination(house: House, event: Attempted) -> None:
    """Nobody fails only because a map does not answer now (if his lifetime is over, the text says so first)."""
    attempt = event.attempt
    if attempt.outcome is Outcome.FAILED and attempt.text.startswith(_NOT_KNOWN):
        house.ledger.fault(f"{event.recipients} failed, but only the look-up did: {attempt.text}"[:300])


def _ours(house: House, event: Attempted) -> None:
    """A domain that is ours by a map is never taken for a foreign one, whose hosts are looked for by DNS."""
    attempt = event.attempt
    foreign = attempt.transport == "smtp" or attempt.status in _NO_HOST
    if foreign and any(each.endswith("@box.test") for each in event.recipients):
        house.ledger.fault(f"{event.recipients} are ours, and were taken for foreign ones: {attempt.text}"[:300])


def _each_host(house: House, event: Attempted) -> None:
    """An attempt for which several hosts were tried keeps each of them, with what it said."""
    attempt = event.attempt
    if not _SEVERAL.match(attempt.text):
        return
    tries = attempt.tries
    known = {(each.address, each.status) for each in tries}
    if len(tries) < 2 or (attempt.remote_address, attempt.status) not in known:
        house.ledger.fault(f"not all hosts of the attempt {attempt.text!r} are kept: {tries}"[:300])


def _holds(house: House, events: list[Event]) -> None:
    """Who is held is not tried until he is released."""
    held: set[tuple[int, str]] = set()
    for event in events:
        match event:
            case Held():
                held.update((event.id, recipient) for recipient in event.recipients)
            case Released() | Failed() | Removed():
                held.difference_update((event.id, recipient) for recipient in event.recipients)
            case Attempted():
                for recipient in event.recipients:
                    if (event.id, recipient) in held:
                        house.ledger.fault(f"{identifier.text(event.id)} for {recipient} is held, and was tried")
            case _:
                pass


def _by_message_id(house: House, lives: dict[int, Life]) -> dict[str, int]:
    found: dict[str, int] = {}
    for id, life in lives.items():
        message_id = life.accepted.message_id
        if message_id in found:
            house.ledger.fault(f"{message_id} was accepted twice")
        found[message_id] = id
    return found


# -- 1. ends -------------------------------------------------------------------------------------------------


def _acknowledged(
    house: House, lives: dict[int, Life], by_id: dict[str, int], submitted: dict[str, Submitted]
) -> None:
    """What had its 250 is known, under the id that was told, with all its recipients."""
    for each in submitted.values():
        if not each.told:
            continue
        id = by_id.get(each.message_id)
        if id is None:
            house.ledger.fault(f"lost: {each.message_id} had its 250 ({each.queue_id}), the history does not know it")
            continue
        if not each.is_left and identifier.text(id) != each.queue_id:
            house.ledger.fault(f"{each.message_id} was told {each.queue_id}, the history says {identifier.text(id)}")
        final = {mailbox for told in each.told for mailbox in _mailboxes(house, lives[id], told)}
        there = set(lives[id].accepted.recipients)
        if not final <= there:
            house.ledger.fault(f"{each.message_id}: recipients {sorted(final - there)} had their 250 and are not there")


def _sent(house: House, lives: dict[int, Life], submitted: dict[str, Submitted]) -> None:
    """What is accepted was sent, or is a report; no content was taken for a further message."""
    for life in lives.values():
        accepted = life.accepted
        is_ours = (
            accepted.parent or ".notice@" in accepted.message_id or accepted.peer.listener == LISTENER_FEEDBACK
        )
        if not is_ours and accepted.message_id not in submitted:
            house.ledger.fault(f"{accepted.message_id!r} of <{accepted.reverse_path}> was accepted, and nobody sent it")


def _one_end_each(
    house: House,
    id: int,
    life: Life,
    waiting: set[tuple[int, str]],
    deliveries: dict[tuple[str, str], list[Delivery]],
) -> None:
    fault, accepted = house.ledger.fault, life.accepted
    for recipient in accepted.recipients:
        name = f"{accepted.message_id} for {recipient} ({identifier.text(id)})"
        ends = life.ends.get(recipient, [])
        came = deliveries.get((accepted.message_id, recipient), [])
        if (id, recipient) in waiting:
            if ends:
                fault(f"{name} waits and has ended: {ends}")
            continue
        if len(ends) != 1:
            fault(f"{name} has {'no end' if not ends else f'ends {ends}'} in the history; delivered {len(came)} times")
            if not ends:
                continue
        if ends[0] in ("delivered", "relayed") and not came:
            fault(f"lost: {name} is {ends[0]} in the history, and came nowhere")
        if ends[0] in ("failed", "removed") and any(each.known for each in came):
            fault(f"{name} was delivered at {came[0].place}, and the history says {ends[0]}")
        late = [each for each in came if each.known]
        if len(late) > 1:
            fault(f"duplicate: {name} came {len(came)} times, {len(late)} of them known: {[each.at for each in came]}")
        elif late and came[-1] is not late[-1]:
            fault(f"duplicate: {name} came again after a delivery that was known: {[each.at for each in came]}")
    for recipient in life.ends:
        if recipient not in accepted.recipients:
            fault(f"{accepted.message_id}: an end of {recipient}, who is no recipient")
    for queue_id, recipient in house.removed:
        if queue_id == identifier.text(id) and life.ends.get(recipient) != ["removed"]:
            fault(f"{queue_id} for {recipient} was removed, as the operator was told: {life.ends.get(recipient)}")


# -- 2. and 3. deliveries ------------------------------------------------------------------------------------


def _deliveries_known(
    house: House,
    lives: dict[int, Life],
    by_id: dict[str, int],
    deliveries: dict[tuple[str, str], list[Delivery]],
) -> None:
    """Nothing comes anywhere that was not accepted, for nobody who was not named."""
    for (message_id, recipient), came in deliveries.items():
        id = by_id.get(message_id)
        if id is None:
            house.ledger.fault(f"{message_id} came to {came[0].place} and was never accepted")
        elif recipient not in lives[id].accepted.recipients:
            house.ledger.fault(f"{message_id} came to {recipient}, who is no recipient of it")
        elif came[0].sender != _sender(house, lives[id], recipient):
            house.ledger.fault(f"{message_id} came with the reverse-path <{came[0].sender}> to {recipient}")


def _whole(house: House, submitted: dict[str, Submitted]) -> None:
    for delivery in house.ledger.deliveries:
        sent = submitted.get(delivery.message_id)
        if sent is None:
            continue
        if sent.kept is None:
            house.ledger.fault(f"{delivery.message_id} has stray line ends, and came to {delivery.place}")
            continue
        came = delivery.content.replace(b"\r\n", b"\n")
        whole = delivery.final or (came.isascii() and not sent.kept.isascii())  # or encoded, in short lines
        went = (sent.kept if whole else line_ends.broken(sent.kept)).replace(b"\r\n", b"\n")
        if not went.endswith(b"\n"):  # by DATA a line end is added
            came = came.removesuffix(b"\n")
        if not delivery.eight_bit_offered and came.isascii() and not went.isascii():  # RFC 6152 §3: converted
            if not _decodes_to(came, went):
                house.ledger.fault(f"{delivery.message_id} is not what it was at {delivery.place}: {len(came)} octets")
            continue
        trace = came[: -len(went)].decode()
        once = len(_ID.findall(trace)) == 1 if sent.is_left else _received_once_a_time(trace)
        if not came.endswith(went) or not _TRACE.fullmatch(trace) or not once:
            house.ledger.fault(f"{delivery.message_id} is not whole at {delivery.place}: {len(came)} octets")


def _received_once_a_time(trace: str) -> bool:
    """Whether there is one Received field for each time that the node took the message, and at least one, each with
    the marks of its inspection above it."""
    ids = _ID.findall(trace)
    return 0 < len(ids) == len(set(ids)) and all_marked(trace, ids)


def _decodes_to(came: bytes, went: bytes) -> bool:
    """Whether the one, in 7 bit, has the fields of the other, and parts that decode to the same."""
    header = [line for line in went.partition(b"\n\n")[0].split(b"\n") if not line.startswith(b"Content-")]
    kept = all(line in came.partition(b"\n\n")[0].split(b"\n") for line in header)
    return kept and _leaves(came) == _leaves(went)


def _leaves(content: bytes) -> list[tuple[str, object]]:
    found: list[tuple[str, object]] = []
    for part in email.message_from_bytes(content).walk():
        if not part.is_multipart():
            decoded = part.get_payload(decode=True)
            whole = decoded.replace(b"\r\n", b"\n") if isinstance(decoded, bytes) else decoded
            found.append((part.get_content_type(), whole))
    return found


def _maildirs(house: House, deliveries: dict[tuple[str, str], list[Delivery]]) -> None:
    """What the folders hold is what the ledger says came into them."""
    held = Counter(path.read_bytes() for path in (house.folder / "mail").glob("*/*/new/*"))
    came = Counter(each.content for all_of in deliveries.values() for each in all_of if each.place == "maildir")
    for content, count in ((held - came) + (came - held)).items():
        house.ledger.fault(f"{message_id_of(content)}: Maildirs hold {held[content]}, {came[content]} came ({count})")


def _mbox_files(house: House, deliveries: dict[tuple[str, str], list[Delivery]]) -> None:
    """The same of mbox files: whole messages, and no half ones between them."""
    files = [path for name in ("mbox.test", targets.FOLDER) for path in (house.folder / "mail" / name).glob("*")]
    held = Counter(each for path in files if path.suffix != LOCK for each in mboxes.messages(path.read_bytes()))
    came = Counter(each.content for all_of in deliveries.values() for each in all_of if each.place == "mbox")
    for content, count in ((held - came) + (came - held)).items():
        house.ledger.fault(f"{message_id_of(content)}: mbox files hold {held[content]}, {came[content]} came ({count})")


# -- 4. reports ----------------------------------------------------------------------------------------------


def _dsns(house: House) -> Iterator[Dsn]:
    seen: set[tuple[str, str]] = set()
    for delivery in house.ledger.deliveries:
        if ".report@" not in delivery.message_id or (delivery.message_id, delivery.recipient) in seen:
            continue
        seen.add((delivery.message_id, delivery.recipient))
        parsed: Any = email.message_from_bytes(delivery.content)
        if parsed.get_content_type() != "multipart/report" or delivery.sender:
            house.ledger.fault(f"{delivery.message_id} is no report, or has a reverse-path")
            continue
        try:
            groups = [dict(group.items()) for group in parsed.get_payload()[1].get_payload()][1:]
            recipients = tuple(
                signing.untagged(group["Final-Recipient"].partition(";")[2].strip()) for group in groups
            )
        except (AttributeError, IndexError, KeyError) as error:
            house.ledger.fault(f"{delivery.message_id} is no whole report: {error!r}")
            continue
        about, action = parsed["In-Reply-To"] or "", groups[0]["Action"]
        yield Dsn(delivery.message_id, about, action, recipients, delivery.recipient)


def _reports(
    house: House,
    lives: dict[int, Life],
    by_id: dict[str, int],
    submitted: dict[str, Submitted],
    dsns: list[Dsn],
    deliveries: dict[tuple[str, str], list[Delivery]],
) -> None:
    fault = house.ledger.fault
    told: Counter[tuple[str, str, str]] = Counter()
    for dsn in dsns:
        id = by_id.get(dsn.about)
        if id is None:
            fault(f"a report {dsn.message_id} on {dsn.about!r}, which was never accepted")
            continue
        accepted = lives[id].accepted
        senders = {_sender(house, lives[id], recipient) for recipient in dsn.recipients}
        if dsn.to == targets.READER and senders == {targets.OWNER}:
            continue  # the part sees to that
        if accepted.reverse_path != signing.plain(dsn.to) and not (not accepted.reverse_path and house.plan.postmaster):
            fault(f"the report {dsn.message_id} on a message of <{accepted.reverse_path}> went to {dsn.to}")
        for recipient in dsn.recipients:
            told[dsn.about, recipient, dsn.action] += 1
    for (about, recipient, action), count in told.items():
        if count > len(_mailboxes(house, lives[by_id[about]], recipient)):
            fault(f"{count} reports that {about} for {recipient} is {action}")
        _truthful(house, lives[by_id[about]], recipient, action)
    _children(house, lives)
    for id, life in lives.items():
        _due(house, id, life, lives, submitted.get(life.accepted.message_id), told)


def _truthful(house: House, life: Life, recipient: str, action: str) -> None:
    """A mailbox that an alias led to is named as the client named it."""
    named = [each for each in life.ends if each == recipient or each in _mailboxes(house, life, recipient)]
    ends = next((life.ends[each] for each in named if life.ends[each] == [action]), [])
    if (action == "failed" and ends != ["failed"]) or (action in ("delivered", "relayed") and ends != [action]):
        house.ledger.fault(f"a report says {action}: {life.accepted.message_id} for {recipient}, the history {ends}")


def _children(house: House, lives: dict[int, Life]) -> None:
    """At most two reports for each recipient and one for each alias; none for who has no return address."""
    children: Counter[int] = Counter(life.accepted.parent for life in lives.values() if life.accepted.parent)
    for parent, count in children.items():
        life = lives.get(parent)
        if life is None:
            house.ledger.fault(f"a report on {identifier.text(parent)}, which the history does not know")
            continue
        if count > 2 * len(life.accepted.recipients) + len(life.expanded):
            house.ledger.fault(f"{count} reports on {life.accepted.message_id}: a storm")
        if not life.accepted.reverse_path and not (house.plan.postmaster and life.accepted.parent == 0):
            grand = [each for each in lives.values() if each.accepted.parent == parent]
            to_postmaster = house.plan.postmaster and all(
                each.accepted.recipients == ("dora@home.test",) for each in grand
            )
            if not to_postmaster:
                house.ledger.fault(f"a report on {life.accepted.message_id}, which has no return address")


def _due(
    house: House,
    id: int,
    life: Life,
    lives: dict[int, Life],
    sent: Submitted | None,
    told: Counter[tuple[str, str, str]],
) -> None:
    """Who is to hear of an end hears of it, or the report has itself come to an end without arriving."""
    accepted = life.accepted
    if sent is None or not accepted.reverse_path:
        return
    for recipient, ends in life.ends.items():
        notify = _notify(sent, life, recipient)
        if notify is None:
            continue
        name = f"{accepted.message_id} for {recipient} ({identifier.text(id)})"
        if ends == ["failed"]:
            _arrived(house, life, lives, told, name, recipient, "failed", not notify or "FAILURE" in notify)
        elif ends[:1] in (["delivered"], ["relayed"]):
            wanted = "SUCCESS" in notify and recipient not in life.passed
            _arrived(house, life, lives, told, name, recipient, ends[0], wanted)
    notice_us = round(house.node.settings.queue.delay_notice_s * 1_000_000)
    for recipient in accepted.recipients:
        notify = _notify(sent, life, recipient)
        if notify is not None:
            late = life.deferred_us.get(recipient, 0) >= accepted.at_us + notice_us > accepted.at_us
            wanted = late and (not notify or "DELAY" in notify)
            name = f"{accepted.message_id} for {recipient} ({identifier.text(id)})"
            _arrived(house, life, lives, told, name, recipient, "delayed", wanted)


def _arrived(
    house: House,
    life: Life,
    lives: dict[int, Life],
    told: Counter[tuple[str, str, str]],
    name: str,
    recipient: str,
    action: str,
    wanted: bool,
) -> None:
    names = [recipient, *(alias for alias in life.expanded if recipient in ALIASES.get(alias, ()))]
    count = sum(told[life.accepted.message_id, each, action] for each in names)
    if told[life.accepted.message_id, recipient, action] and not wanted:
        house.ledger.fault(f"{name} is {action}, and nobody wanted to be told")
    if count or not wanted:
        return
    made = [each.report for each in life.reported if recipient in each.recipients and each.action == action]
    children = [lives[report] for report in made if report in lives]
    if not children:
        house.ledger.fault(f"{name} is {action}, and no report was made: {life.reported}"[:400])
        return
    to = life.accepted.reverse_path
    if any(ends in (["failed"], ["removed"]) for ends in children[0].ends.values()):
        return
    if children[0].expanded or to in ALIASES:
        return
    house.ledger.fault(f"{name} is {action}, and its report {children[0].accepted.message_id} did not arrive")


def _notify(sent: Submitted, life: Life, recipient: str) -> str | None:
    """The NOTIFY of a final mailbox; None where several ways lead to it, so that it is of several."""
    sources = [told for told in sent.taken if recipient in ALIASES.get(told, (told,))]
    if len(sources) != 1:
        return None
    notify = sent.taken[sources[0]]
    into = ALIASES.get(sources[0], ())
    if len(into) > 1 and "SUCCESS" in notify:
        left = ",".join(word for word in notify.split(",") if word != "SUCCESS")
        return left or "NEVER"
    return notify


# -- the stream ----------------------------------------------------------------------------------------------


def _stream(house: House, lives: dict[int, Life]) -> None:
    for id, was_accepted in house.ledger.heard.items():
        if was_accepted and id not in lives:
            house.ledger.fault(f"{identifier.text(id)} was accepted, says the stream; the history does not know it")


def check_counts(house: House) -> None:
    """The second reader of the journal has counted each event once. Its workers must be up."""
    parts = []
    for worker in house.node.workers:
        if worker.assembly is None:
            return
        while worker.assembly.counting.catch_up():
            pass
        parts.append(worker.assembly.counting.counts())
    found = total(parts)
    due = counted(EventCounts(found.since_us), _events(house))
    if found != due:
        house.ledger.fault(f"counted {found}, and there were {due}")


# -- trace ---------------------------------------------------------------------------------------------------


def _mailboxes(house: House, life: Life, told: str) -> tuple[str, ...]:
    """What a recipient has become, as the client named it."""
    found = [made for part in house.parts if (made := part.mailboxes(told, life)) is not None]
    return found[0] if found else ALIASES.get(told, (told,))


def _sender(house: House, life: Life, recipient: str) -> str:
    found = [made for part in house.parts if (made := part.sender(life, recipient)) is not None]
    return found[0] if found else life.accepted.reverse_path


def _trace_agrees(house: House, lives: dict[int, Life]) -> None:
    """What `trace` finds of a message by its id and its Message-ID is what there is."""
    reader = HistoryReader(house.node.history, house.node.spool)
    for id in list(lives)[:2]:
        life = lives[id]
        found = reader.events(id)
        ends = Counter(
            recipient
            for event in found
            if isinstance(event, Failed | Removed) or (isinstance(event, Attempted) and event.attempt.outcome in _ENDS)
            for recipient in event.recipients
        )
        if ends != Counter({recipient: len(each) for recipient, each in life.ends.items()}):
            house.ledger.fault(f"trace of {identifier.text(id)} finds other ends than there are: {ends}")
        if id not in reader.find(message_id=life.accepted.message_id):
            house.ledger.fault(f"trace does not find {life.accepted.message_id}")
    if reader.faults:
        house.ledger.fault(f"the history cannot be read: {reader.faults}")
