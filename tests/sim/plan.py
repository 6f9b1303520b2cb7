"""What a seed means: which faults a run has, how the node is set, what the world looks like, who sends what when.

Not every run has every fault: a run with few of them finds what a restart would mend or a dead disk would hide. All
chance is drawn here and in the world from generators that the seed alone determines.
"""

from __future__ import annotations

import datetime
import random
from dataclasses import dataclass, replace
from pathlib import Path

import argon2

from postroad.world.self_signed import make_self_signed
from tests.sim import line_ends, signing
from tests.sim.dropping import shared_folder
from tests.sim.remote import Host
from tests.sim.sender import Order

DEAD_ADDRESS = "203.0.113.250"  # nobody is there
DOORS = {"relay": "192.0.2.1:25", "mx": "192.0.2.1:26", "submission": "192.0.2.1:587", "lmtp": "192.0.2.1:24"}
ACCOUNT_DOOR = "192.0.2.1:588"  # of who logs in
LOGIN = ("ann", "what ann knows")
STAYING = "198.51.101.7"  # a client that stays over reloads
ACCOUNT = ("us", "a secret")  # at the server for auth.test
USERS = ("ann", "bob", "cid", "dora")
RING, RING_HOST = "ring@home.test", "203.0.113.202"  # an alias whose mailboxes, at a host of their own, lead back to it
AGAIN = "again@prog.test"  # a program that hands back to it what it gets
OLD, NEW = "old@home.test", "bob@home.test"  # a canonical map makes the one the other
ALIASES = {
    OLD: (NEW,),
    RING: ("w1@ring.test", "w2@ring.test"),
    "team@home.test": ("ann@home.test", "bob@home.test", "u1@r0.test"),
    "one@home.test": ("dora@home.test",),
    "out@home.test": ("u2@r1.test", "u3@r2.test"),
}
_HASHER = argon2.PasswordHasher(time_cost=1, memory_cost=8, parallelism=1)  # quick
_MADE = datetime.datetime(2027, 1, 1, tzinfo=datetime.UTC)
_ALIAS_FILE = "team: ann, bob, u1@r0.test\none: dora\nout: u2@r1.test, u3@r2.test\nring: w1@ring.test, w2@ring.test\n"
KEYWORDS = (
    "PIPELINING", "SIZE 100000", "8BITMIME", "DSN", "CHUNKING", "ENHANCEDSTATUSCODES", "STARTTLS",
    "LIMITS RCPTMAX=2 MAILMAX=3",
)  # fmt: skip
LIES = (
    "EHLO", "SIZE", "DSN", "CHUNKING", "PIPELINING", "STARTTLS", "8BITMIME", "ENHANCEDSTATUSCODES", "LIMITS",
)  # fmt: skip
# Of `parts.KINDS`. New ones stand at the end, so that what a seed means stays.
PARTS = (
    "http", "verified", "held", "sized", "verp", "copied", "targets", "users", "leading", "policies", "reporting",
    "origin", "published", "dkim", "sts", "feedback",
)  # fmt: skip
_PART_SHARE = 0.2
INSPECTED = 'inspectors = ["tests.sim.inspecting:Marking"]'  # of each listener


@dataclass(frozen=True)
class Plan:
    """One run. Shares are of sessions, counts are for the whole time."""

    seed: int
    days: float
    workers: int
    messages: int
    trouble: float
    dns: bool
    network: float
    crashes: int
    power_cuts: int
    restarts: int
    disk: int
    reloads: int
    operators: int
    jumps: int
    lifetime_days: float
    settings: tuple[str, ...]  # of [queue], [store], [limits], [outbound], each a line
    postmaster: bool
    tls: bool
    dead_address: bool  # each host has one first at which nobody is
    burst: bool  # mail comes all at some few moments
    loops: int = 0  # messages that others hand back, again and again
    odd: int = 0  # messages with stray line ends and long lines
    packed: bool = False  # at the end the disk becomes full to the last octet while mail waits
    crowd: bool = False  # at the end comes who guesses passwords, and who sends commands without end
    dropped: int = 0  # messages that users leave in the drop folder
    rewritten: bool = False  # a mailbox is called by another name, which a canonical map leads back
    signed: str = ""  # by SRS and BATV ("sign"), or so that reports need the tag ("require")
    limited: bool = False  # two clients may send only so much within an hour
    parts: frozenset[str] = frozenset()  # names of `parts.KINDS`
    looked_up: bool = False  # destinations of some domains must be looked up in a map, which fails at times


def plan(seed: int, days: float | None = None) -> Plan:
    """The plan of a seed."""
    chance = random.Random(f"plan {seed}")

    def some(share: float, most: int) -> int:
        return chance.randint(1, most) if chance.random() < share else 0

    length = days if days is not None else chance.choices((0.2, 0.5, 1.0, 2.0, 5.0, 21.0), (6, 5, 4, 3, 1, 1))[0]
    return Plan(
        seed=seed,
        days=length,
        workers=chance.choice((1, 1, 2, 3)),
        messages=chance.randint(5, 24),
        trouble=chance.choice((0.0, 0.1, 0.3, 0.7)),
        dns=chance.random() < 0.4,
        network=chance.choice((0.0, 0.0, 0.05, 0.2)),
        crashes=some(0.45, 6),
        power_cuts=some(0.3, 3),
        restarts=some(0.25, 3),
        disk=some(0.3, 3),
        reloads=some(0.3, 4),
        operators=some(0.4, 8),
        jumps=some(0.15, 2),
        lifetime_days=chance.choice((0.2, 0.5, 2.0)),
        settings=_settings(chance, random.Random(f"line ends {seed}")),
        postmaster=chance.random() < 0.5,
        tls=chance.random() < 0.08,
        dead_address=chance.random() < 0.15,
        burst=chance.random() < 0.25,
        loops=random.Random(f"loops {seed}").choice((0, 0, 1, 3)),
        odd=random.Random(f"odd {seed}").choice((0, 2, 4, 8)),
        packed=random.Random(f"packed {seed}").random() < 0.2,
        crowd=random.Random(f"crowd {seed}").random() < 0.2,
        dropped=random.Random(f"dropped {seed}").choice((0, 0, 0, 6)),
        looked_up=random.Random(f"looked up {seed}").random() < 0.25,
        parts=_some_parts(random.Random(f"parts {seed}")),
        limited=random.Random(f"limited {seed}").random() < 0.25,
        rewritten=random.Random(f"rewritten {seed}").random() < 0.4,
        signed=random.Random(f"signed {seed}").choice(("", "", "", "sign", "require")),
    )


def _some_parts(chance: random.Random) -> frozenset[str]:
    return frozenset(name for name in PARTS if chance.random() < _PART_SHARE)


def _settings(chance: random.Random, further: random.Random) -> tuple[str, ...]:
    """Small limits in some runs, so that their edges are met. `further`: for what came later, so that what a seed means
    stays."""
    lines = ["[queue]"]
    for name, values in (
        ("concurrency", (1, 2, 2, 20)),
        ("connections_max", (1, 2, 400)),
        ("recipients_per_job_max", (1, 2, 100)),
        ("ready_max", (1, 3, 2000)),
        ("load_max", (1, 3, 200)),
        ("lanes_max", (20, 2000)),
        ("messages_max", (3, 6, 50_000)),
        ("memory_max", (0, 3000, 67_108_864)),
        ("retry_first_s", (60, 300, 1800)),
        ("retry_max_s", (1800, 14_400)),
        ("backoff_first_s", (1, 60)),
        ("delay_notice_s", (0, 3600, 14_400)),
        ("unsettled_max", (1, 3, 500)),
    ):
        lines.append(f"{name} = {chance.choice(values) if chance.random() < 0.6 else values[-1]}")
    lines += [
        "[store]", f"inline_max = {chance.choice((500, 1_048_576))}", "free_min = 1000", "reserve = 65536",
        f"settle_s = {chance.choice((0, 0.005))}",
        "[limits]", f'stray_line_ends = "{further.choice(("known", "known", "known", "repair", "refuse"))}"',
        f"piece_size = {further.choice((4096, 65_536))}", f"memory_content_max = {chance.choice((500, 1_048_576))}",
        "[outbound]", f"whole_max = {chance.choice((300, 1_048_576))}", "piece_size = 4096",
        f"bdat_size_min = {chance.choice((0, 1000, 1_048_576))}", f"messages_max = {chance.choice((1, 3, 1000))}",
        f"idle_s = {chance.choice((0, 5, 30))}",
    ]  # fmt: skip
    return tuple(lines)


def trusts_staying(variant: int) -> bool:
    """Whether the relay listener trusts the client that stays."""
    return variant % 2 == 0


_REWRITE = f"""[rewrite]
recipient_canonical_maps = "renamed"
recipient_canonical_classes = "envelope_recipient"
[[map]]
name = "renamed"
kind = "inline"
entries = "{OLD} {NEW}"
"""


MESSAGES_MAX = 2  # that each of these clients may send within an hour
RECIPIENTS_MAX = 3
REFUSED, HELD, SENDER = "198.51.100.97", "198.51.100.98", "dora@home.test"
LIMITED_LOGIN = ("lim", "what lim knows")
_LIMITS = "".join(
    f'[[sending.limit]]\nwhose = "client"\nwho = ["{address}"]\nmessages_per_hour = {MESSAGES_MAX}\nover = "{over}"\n'
    for address, over in ((REFUSED, "refuse"), (HELD, "hold"))
) + f"""[[sending.limit]]
whose = "sender"
who = ["{SENDER}"]
recipients_per_hour = {RECIPIENTS_MAX}
[[sending.limit]]
whose = "account"
who = ["{LIMITED_LOGIN[0]}"]
messages_per_hour = {MESSAGES_MAX}
"""


# The transport map, which changes at each reload: a list whose first server is dead, what means nothing, nothing. It
# leads no two domains to one host, so that what `measure` counts by host is one destination's. Mail for what means
# nothing waits until somebody mends the file (`mend_ways`): no reload is needed for that.
_WAYS = (
    "r1.test smtp:[mx0.r1.test]:26, [mx0.r1.test]:25\n",
    "r1.test dovecot:\nr0.test smtp:\n",
    "r1.test smtp:\nr0.test :\n",
    "",
)


def mend_ways(folder: Path) -> None:
    """Nothing in the transport map is without a meaning any more."""
    (folder / "ways").write_text("r1.test smtp:\n")


def toml(made: Plan, folder: Path, *, variant: int = 0) -> str:
    """The node's configuration. `variant`: what a reload changes."""
    (folder / "aliases").write_text(_ALIAS_FILE)
    # Roots of its own: reading the system's takes longer than a short run.
    problem = make_self_signed(("roots.test",), str(folder / "roots.pem"), str(folder / "roots.key"), _MADE)
    assert problem is None, problem
    users = {LOGIN: "ann@home.test", **({LIMITED_LOGIN: "bob@home.test"} if made.limited else {})}
    (folder / "users").write_text(
        "".join(f"{name}:{_HASHER.hash(secret)}:{owned}\n" for (name, secret), owned in users.items())
    )
    (folder / "ways").write_text(_WAYS[variant % len(_WAYS)])
    boxes = '[[map]]\nname = "boxes"\nkind = "inline"\nentries = "box.test ours"\n' if made.looked_up else ""
    ways = f'{boxes}[[map]]\nname = "ways"\nkind = "text"\nfile = "ways"\n' if made.looked_up else ""
    seconds = round(made.lifetime_days * 86_400)
    settings = "\n".join(made.settings)
    if variant % 2:
        settings = settings.replace("concurrency = 1\n", "concurrency = 3\n")
        settings = settings.replace("concurrency = 20", "concurrency = 2")
    hop = '[[next_hop]]\ndomain = "r2.test"\nhost = "mx0.r0.test"\n' if variant in (1, 2) else ""
    trusted = 'trusted_networks = ["198.51.100.0/24"]'
    relaying = trusted.replace("]", f', "{STAYING}"]') if trusts_staying(variant) else trusted
    listeners = "".join(
        f'[[listener]]\nname = "{name}"\naddress = "192.0.2.1"\nport = {place.rpartition(":")[2]}\n'
        f"{INSPECTED}\n{extra}\n"
        for (name, place), extra in zip(
            DOORS.items(),
            (
                f'role = "relay"\n{relaying}', 'role = "mx"\ndsn_for_strangers = true',
                f'role = "submission"\nauth = false\ntrust_network = true\n{trusted}', 'protocol = "lmtp"',
            ),
            strict=True,
        )
    )  # fmt: skip
    rewrite = _REWRITE if made.rewritten else ""
    limits = _LIMITS if made.limited else ""
    sendmail = f'[sendmail]\nfolder = "{shared_folder(folder)}"\ndomain = "home.test"' if made.dropped else ""
    return f"""
hostname = "mx.home.test"
state_dir = "{folder / 'state'}"
shutdown_s = 30
aliases = "{folder / 'aliases'}"
{'postmaster = "dora@home.test"' if made.postmaster else ''}
{listeners}
[[listener]]
name = "accounts"
address = "192.0.2.1"
port = {ACCOUNT_DOOR.rpartition(":")[2]}
{INSPECTED}
role = "submission"
tls = "none"
auth = true
auth_without_tls = true
[auth]
users = "{folder / 'users'}"
queue_max = 16
network_max = 12
{sendmail}
{rewrite}
{signing.settings(made.signed, folder, variant)}
{limits}
[[domain]]
name = "home.test"
recipients = ["ann", "bob", "cid", "dora", "postmaster"]
{f'batv = "{made.signed}"' if made.signed else ""}
path = "{folder}/mail/{{domain}}/{{local_part}}"
[[domain]]
{'domain_maps = ["boxes"]' if made.looked_up else 'name = "box.test"'}
recipients = "any"
deliver = "lmtp"
host = "203.0.113.200"
[[domain]]
name = "mbox.test"
recipients = "any"
deliver = "mbox"
path = "{folder}/mail/{{domain}}/{{local_part}}"
[mbox]
quoting = "mboxrd"
[[domain]]
name = "prog.test"
recipients = "any"
deliver = "program"
command = ["/usr/bin/keep", "{{recipient}}"]
{hop}
{ways}
[[next_hop]]
domain = "ring.test"
host = "{RING_HOST}"
tls = "never"
[[next_hop]]
domain = "auth.test"
hosts = ["203.0.113.201", "203.0.113.204"]
fallback = "203.0.113.203"
tls = "never"
retry_max_s = "1h"
username = "{ACCOUNT[0]}"
password = "{ACCOUNT[1]}"
auth_without_tls = true
[outbound.tls]
ca_file = "{folder / 'roots.pem'}"
[routing]
tls = "{'may' if made.tls else 'never'}"
{'transport_maps = ["ways"]' if made.looked_up else ''}
{settings.replace('[queue]', f'[queue]{chr(10)}lifetime_s = {seconds}{chr(10)}lifetime_dsn_s = {seconds}')}
[dsn]
strangers_address_max = 0
strangers_max = 0
[log]
path = "{folder / 'log'}"
"""


def hosts(made: Plan, chance: random.Random) -> tuple[list[Host], dict[str, tuple[tuple[int, str], ...]]]:
    """The remote hosts, and the MX records that name them."""
    found: list[Host] = []
    zones: dict[str, tuple[tuple[int, str], ...]] = {}
    for number in range(chance.randint(3, 6)):
        domain = f"r{number}.test"
        records = []
        for index in range(chance.choice((1, 1, 2, 3))):
            name = f"mx{index}.{domain}"
            host = Host(
                name,
                f"203.0.113.{10 * number + index + 1}",
                trouble=made.trouble * chance.choice((0.0, 1.0, 1.4)),
                offers=tuple(word for word in KEYWORDS if chance.random() < 0.6),
                lies=frozenset(
                    word for word in LIES if made.trouble and chance.random() < 0.06
                ),
                grey_s=chance.choice((0.0, 0.0, 0.0, 1200.0)),
                messages_max=chance.choice((0, 0, 2)),
            )  # fmt: skip
            found.append(host)
            records.append((10 * chance.randint(1, 2), name))
        zones[domain] = tuple(records)
    if chance.random() < 0.3:  # two domains share their server
        zones["r1.test"] = zones["r0.test"]
    box = ("PIPELINING", "8BITMIME", "ENHANCEDSTATUSCODES", *(("DSN",) if chance.random() < 0.5 else ()))
    found.append(Host("box", "203.0.113.200", lmtp=True, trouble=made.trouble, offers=box))
    ways = chance.choice(("AUTH PLAIN", "AUTH LOGIN", "AUTH LOGIN PLAIN"))
    found += (
        Host(name, address, trouble=made.trouble, offers=("PIPELINING", "DSN", ways), account=ACCOUNT)
        for name, address in (("smart", "203.0.113.201"), ("smarter", "203.0.113.204"))
    )
    # Where it must never come with that account, though it is offered.
    found.append(Host("spare", "203.0.113.203", trouble=made.trouble, offers=("PIPELINING", ways)))
    zones["null.test"] = ((0, ""),)
    return found, zones


def _in_parts(text: bytes, chance: random.Random) -> tuple[str, bytes]:
    """8-bit text as it is, as a text by MIME, or in a multipart beside other parts: header fields and body."""
    eight_bit = "Content-Transfer-Encoding: 8bit\r\n"
    match chance.randrange(3):
        case 0:
            return "", text
        case 1:
            return f"MIME-Version: 1.0\r\nContent-Type: text/plain; charset=utf-8\r\n{eight_bit}", text
    octets = bytes(chance.choice(range(128, 256)) for _ in range(chance.choice((1, 100))))
    parts = (
        f"Content-Type: text/plain; charset=utf-8\r\n{eight_bit}\r\n".encode() + text,
        b"Content-Type: text/plain\r\n\r\nascii -- \r\n.\r\n--x\r\n",
        f"Content-Type: application/octet-stream\r\n{eight_bit}\r\n".encode() + octets,
        f"Content-Type: message/rfc822\r\n{eight_bit}\r\nSubject: inner\r\n\r\n".encode() + text,
    )
    body = b"".join(b"--parts\r\n" + chance.choice(parts) + b"\r\n" for _ in range(chance.randint(1, 4)))
    return f"MIME-Version: 1.0\r\nContent-Type: multipart/mixed; boundary=parts\r\n{eight_bit}", body + b"--parts--\r\n"


def orders(made: Plan, domains: list[str], chance: random.Random) -> list[tuple[float, Order, int]]:
    """Who sends what when, and how often it is tried."""
    found = []
    moments = [made.days * 86_400 * chance.random() for _ in range(3)]
    for number in range(made.messages):
        if made.burst:
            at = chance.choice(moments) + 2.0 * chance.random()
        else:
            at = made.days * 86_400 * chance.random() ** chance.choice((1, 3))
        found.append((at, _called(made, _order(number, domains, chance)), chance.choice((1, 3, 6))))
    return sorted(found, key=lambda each: each[0])


def _called(made: Plan, order: Order) -> Order:
    """With the other name of a mailbox, if a map knows it."""
    if not made.rewritten:
        return order
    return replace(
        order, recipients=tuple((OLD if to == NEW else to, notify) for to, notify in order.recipients)
    )


def _order(number: int, domains: list[str], chance: random.Random) -> Order:
    role = chance.choices(list(DOORS), (6, 2, 2, 1))[0]
    homes = {"cid": "mbox.test"}
    local = [f"{user}@{homes.get(user, 'home.test')}" for user in USERS]
    local += [each for each in ALIASES if each not in (RING, OLD)]
    local += ["eve@box.test", "fay@box.test", "gus@prog.test"]
    remote = [f"{chance.choice(('u1', 'u2', 'u3', 'bad1', 'later1'))}@{domain}" for domain in domains]
    remote += ["u1@auth.test", "bad1@auth.test"]
    remote += ["x@null.test", "x@nowhere.test", "nobody@home.test"] if chance.random() < 0.2 else []
    everyone = local if role in ("mx", "lmtp") else [*local[: chance.randint(0, len(local))], *remote, *remote]
    count = min(chance.choice((1, 1, 1, 2, 4, 9)), len(set(everyone)))
    recipients = chance.sample(sorted(set(everyone)), count)
    sender = chance.choices(
        ["ann@home.test", f"s{number}@{chance.choice(domains)}", "", "bad9@r0.test", "cid@home.test"], (4, 3, 2, 1, 2)
    )[0]
    if role == "submission" and not sender:
        sender = "ann@home.test"
    notifies = ("", "", "", "NEVER", "SUCCESS", "FAILURE", "SUCCESS,FAILURE", "SUCCESS,FAILURE,DELAY", "DELAY")
    size = chance.choice((0, 1, 40, 400, 900, 900, 6000, 20_000))
    letters = "abc .\r\n" if chance.random() < 0.9 else "äß.x\n"
    body = "".join(chance.choice(letters) for _ in range(min(size, 200))) * max(1, size // 200)
    octets = body.replace("\r", "").replace("\n", "\r\n").encode() + b"\r\n"
    fields = ""
    if not octets.isascii():
        fields, octets = _in_parts(octets, random.Random(number))
    return Order(
        number=number,
        door=DOORS[role],
        lmtp=role == "lmtp",
        fields=fields,
        address=f"198.51.100.{chance.randint(1, 9)}",
        sender=sender,
        recipients=tuple((to, chance.choice(notifies)) for to in recipients),
        body=octets,
        pipelining=chance.random() < 0.6,
        bdat=chance.random() < 0.25,
        leaves=chance.choice(("", "", "", "", "", "", "hello", "mail", "rcpt", "content", "end")),
        envid=chance.choice(("", "", f"env{number}")),
        eight_bit=not octets.isascii(),
        follow=chance.choice((0, 0, 0, 1, 3)),
    )


def odd(made: Plan, domains: list[str]) -> list[tuple[float, Order, int]]:
    """Messages with stray line ends and long lines, of known and of strange clients."""
    chance = random.Random(f"odd orders {made.seed}")
    found = []
    for number in range(2000, 2000 + made.odd):
        order = _called(made, _order(number, domains, chance))
        body = line_ends.odd_body(chance, bdat=order.bdat)
        fields = line_ends.odd_field(chance)
        if not body.isascii():  # it may be encoded on its way
            eight_bit = "Content-Transfer-Encoding: 8bit\r\n"
            fields = f"MIME-Version: 1.0\r\nContent-Type: text/plain; charset=utf-8\r\n{eight_bit}"
            body += b"\r\n"
        segment = chance.choice((0, 1448, 9000))
        order = replace(order, body=body, fields=fields, eight_bit=not body.isascii(), segment=segment)
        lmtp = ("eve@box.test", "")  # lines go whole to it
        if chance.random() < 0.4 and lmtp[0] not in dict(order.recipients):
            order = replace(order, recipients=(*order.recipients, lmtp))
        found.append((made.days * 86_400 * chance.random(), order, chance.choice((1, 3))))
    return found


def looping(made: Plan) -> list[tuple[float, Order, int]]:
    """What goes to where it is handed back."""
    chance = random.Random(f"looping {made.seed}")
    found = []
    for number in range(1000, 1000 + made.loops):
        order = Order(
            number=number, door=DOORS["mx"], lmtp=False, address="198.51.100.8",
            sender=chance.choice(("cid@home.test", "s@r0.test", "")),
            recipients=tuple((to, "") for to in chance.choice(((RING,), (AGAIN,), (RING, AGAIN, "bob@home.test")))),
            body=b"round and round\r\n" * chance.choice((1, 100)), pipelining=True, bdat=False, leaves="",
        )  # fmt: skip
        found.append((made.days * 86_400 * chance.random(), order, 3))
    return found
