"""Look-ups in the DNS, and the values of their answers. Whatever happens, a look-up ends with a DnsAnswer.

RFC 1034/1035, RFC 2308 (negative answers), RFC 6698 (TLSA), RFC 6891 (EDNS0), RFC 7766 (TCP), RFC 5452 (forged
answers), RFC 9520 (failures), RFC 6840 §5.7 (AD). The server that we ask is a recursive one, best on this machine.

What always holds:
- A look-up ends within `total_s`. Equal questions in flight are one. An answer counts for its TTL, within set bounds.
- Each query goes from a socket of its own, connected to the server: the kernel chooses its port at random, and packets
  from other addresses never arrive; its id is random, and the answer must repeat the question (RFC 5452 §9). A kept
  socket would save some 15 µs for each query, but a forger would have unlimited time to find its port.
- Memory is bounded: answers kept, records per answer, queries under way and waiting all have a limit.

How it fails: status ERROR with a text that names the servers and what each did. An error is remembered for a moment
(`error_ttl_s`), so that a broken domain is not asked about for each of its recipients.

Not here: DNSSEC validation (the AD bit of a trusted server is reported), /etc/hosts, search lists.
"""

from __future__ import annotations

import asyncio
import enum
import ipaddress
import socket
from collections import OrderedDict, deque
from random import Random
from typing import Annotated, Final, Generic, Protocol, TypeVar

import msgspec
from msgspec import Meta

from postroad.world import wire
from postroad.world.clock import Clock
from postroad.world.files import Stamp, stamp
from postroad.world.problem import Problem
from postroad.world.wire import MxRecord as MxRecord
from postroad.world.wire import ResourceRecord, Value
from postroad.world.wire import TlsaRecord as TlsaRecord

T = TypeVar("T")


class DnsStatus(enum.Enum):
    FOUND = "found"
    NODATA = "nodata"  # the name exists, records of this type do not
    NXDOMAIN = "nxdomain"  # the name does not exist, nor anything below it (RFC 8020)
    ERROR = "error"  # nobody knows: time limit, SERVFAIL, REFUSED, garbage


class DnsAnswer(msgspec.Struct, Generic[T], frozen=True):
    """What a look-up found. `records` is empty unless FOUND. `text`: for people, why there are none.

    `secure`: a server that we trust has validated it by DNSSEC (AD bit), also that there is no such record or name.
    `expires_us`: until when it counts. `name`: the name at the end of the CNAME records, the one asked if there were
    none. `followed`: the names that have these CNAME records, from the one asked on; empty if there were none.
    """

    status: DnsStatus
    records: tuple[T, ...] = ()
    text: str = ""
    secure: bool = False
    expires_us: int = 0
    name: str = ""
    followed: tuple[str, ...] = ()

    @property
    def chain(self) -> str:
        """The names from the one asked to `name`, for people."""
        return " → ".join((*self.followed, self.name))


class Resolver(Protocol):
    """Names in canonical form (lower-case A-labels). Never raises but for cancellation."""

    async def mx(self, domain: str) -> DnsAnswer[MxRecord]:
        """MX records, most preferred first; equals in the order in which they came."""
        ...

    async def addresses(self, host: str) -> DnsAnswer[str]:
        """A and AAAA records as text, A first; FOUND if one of the two has any."""
        ...

    async def a(self, host: str) -> DnsAnswer[str]:
        """The A records alone, whether or not this node connects by IPv4. Unlike `addresses`, it always asks."""
        ...

    async def aaaa(self, host: str) -> DnsAnswer[str]:
        """The AAAA records alone, as with `a`."""
        ...

    async def reverse(self, address: str) -> DnsAnswer[str]:
        """The PTR names of an IP address."""
        ...

    async def text(self, name: str) -> DnsAnswer[str]:
        """TXT records, the strings of each put together."""
        ...

    async def tlsa(self, host: str, port: int) -> DnsAnswer[TlsaRecord]:
        """The TLSA records of the server on this TCP port (RFC 6698 §3). NXDOMAIN and NODATA say that there are none;
        ERROR says that nobody knows. Only an answer that is `secure` means something to DANE."""
        ...

    async def cname(self, name: str) -> DnsAnswer[str]:
        """Of which name this one is an alias: its own CNAME record, not followed any further."""
        ...


class DnsOptions(msgspec.Struct, frozen=True):
    """How to ask. `payload`: 1232 octets fit in any path."""

    servers: Annotated[tuple[str, ...], Meta(description="The resolvers to ask. Empty: those of `resolv_conf`.")] = ()
    resolv_conf: Annotated[
        str, Meta(description="The file that names the system's resolvers. It is used if `servers` is empty.")
    ] = "/etc/resolv.conf"
    ipv4: Annotated[bool, Meta(description="Whether the node connects to hosts by IPv4.")] = True
    ipv6: Annotated[bool, Meta(description="Whether the node connects to hosts by IPv6.")] = True
    timeout_s: Annotated[float, Meta(ge=0.1, description="How long one try of a look-up may take.")] = 3.0
    attempts: Annotated[int, Meta(ge=1, le=10, description="How often a look-up tries all resolvers.")] = 3
    total_s: Annotated[float, Meta(ge=0.1, description="How long a look-up may take with all its tries.")] = 15.0
    server_pause_s: Annotated[
        float,
        Meta(
            ge=0,
            description="How long a resolver that did not answer is asked only after the others.",
        ),
    ] = 10.0
    payload: Annotated[
        int,
        Meta(
            ge=0,
            le=65_535,
            description="The largest answer accepted over UDP. 0: no EDNS.",
        ),
    ] = 1232
    validating: Annotated[
        bool,
        Meta(
            description="Whether the resolvers in `servers` validate answers by DNSSEC, and nobody can change answers "
            "on the path from them, so that the node believes their AD bit. DANE needs this. Use it only for a "
            "resolver on this machine or in your own network.",
        ),
    ] = False
    ttl_min_s: Annotated[int, Meta(ge=0, description="The shortest time that an answer is remembered.")] = 5
    ttl_max_s: Annotated[int, Meta(ge=0, description="The longest time that an answer is remembered.")] = 86_400
    negative_ttl_max_s: Annotated[
        int,
        Meta(
            ge=0,
            description="The longest time that the node remembers that a name does not exist.",
        ),
    ] = 3_600
    error_ttl_s: Annotated[int, Meta(ge=0, description="How long a failed look-up is remembered.")] = 5
    cache_max: Annotated[int, Meta(ge=0, description="The most answers that one worker remembers.")] = 50_000
    queries_max: Annotated[
        int,
        Meta(
            ge=1,
            description="The most look-ups of one worker that are under way at a time.",
        ),
    ] = 500
    waiting_max: Annotated[
        int,
        Meta(
            ge=0,
            description="The most look-ups of one worker that may wait until they can start.",
        ),
    ] = 10_000
    records_max: Annotated[int, Meta(ge=1, description="The most records that the node uses from one answer.")] = 100
    cnames_max: Annotated[int, Meta(ge=0, description="The most aliases (CNAME) that one look-up follows.")] = 8

    @property
    def is_trusted(self) -> bool:
        """Whether the operator has named resolvers, and says that they validate."""
        return self.validating and bool(self.servers)


def problems(options: DnsOptions) -> tuple[Problem, ...]:
    """What is wrong with the options."""
    found = [server for server in map(parse_server, options.servers) if isinstance(server, Problem)]
    if not (options.ipv4 or options.ipv6):
        found.append(Problem("ipv4, ipv6", "both are off", "Turn on at least one; otherwise no host has an address."))
    if not 512 <= options.payload <= 65_535 and options.payload != 0:
        found.append(Problem("payload", f"is {options.payload}", "Set 512 to 65535 octets, or 0 for no EDNS."))
    return tuple(found)


class ServerAddress(msgspec.Struct, frozen=True):
    address: str
    port: int = 53

    def __str__(self) -> str:
        if self.port == 53:
            return self.address
        return f"[{self.address}]:{self.port}" if ":" in self.address else f"{self.address}:{self.port}"


def parse_server(text: str) -> ServerAddress | Problem:
    """``address``, ``address:port`` or ``[address]:port``."""
    address, port = text, "53"
    if text.startswith("["):
        address, _, rest = text[1:].partition("]")
        port = rest[1:] if rest.startswith(":") else rest or "53"
    elif text.count(":") == 1:
        address, _, port = text.partition(":")
    try:
        canonical = str(ipaddress.ip_address(address))
    except ValueError:
        return Problem(
            text, "is not the address of a DNS server", 'Write an IP address, such as "127.0.0.1" or "[::1]:5353".'
        )
    if not (port.isascii() and port.isdigit() and 0 < int(port) < 65_536):
        return Problem(text, "has no valid port", 'Write the port as a number from 1 to 65535: "127.0.0.1:5353".')
    return ServerAddress(canonical, int(port))


def read_resolv_conf(text: str) -> tuple[ServerAddress, ...]:
    """The servers of a resolv.conf(5): at most three; 127.0.0.1 if it names none."""
    found = []
    for line in text.splitlines():
        words = line.split()
        if len(words) >= 2 and words[0] == "nameserver":
            server = parse_server(f"[{words[1]}]")
            if isinstance(server, ServerAddress):
                found.append(server)
    return tuple(found[:3]) or (ServerAddress("127.0.0.1"),)


class _Server:
    """A server and how it does. `paused_until` in the loop's time."""

    __slots__ = ("address", "family", "name", "paused_until", "sockaddr", "trusted")

    def __init__(self, address: ServerAddress, validating: bool) -> None:
        self.address = address
        parsed = ipaddress.ip_address(address.address)
        self.family = socket.AF_INET6 if parsed.version == 6 else socket.AF_INET
        self.sockaddr = (address.address, address.port)
        self.trusted = validating
        self.name = str(address)
        self.paused_until = 0.0


# Datagrams with a wrong id or question on one socket that show somebody is guessing (RFC 5452 §9.2): TCP is used then.
_FORGED_MAX: Final = 8
_RESOLV_CONF_CHECK_S: Final = 10.0

_Key = tuple[str, int]


class DnsResolver:
    """The Resolver over UDP and TCP. `random` must be unpredictable in a real node: `random.SystemRandom()`."""

    def __init__(self, options: DnsOptions, clock: Clock, random: Random) -> None:
        self.options = options
        self.clock = clock
        self.random = random
        self._cache: OrderedDict[_Key, DnsAnswer[Value]] = OrderedDict()
        self._inquiries: dict[_Key, _Inquiry] = {}
        self._waiting: deque[_Inquiry] = deque()
        self._active = 0
        self._servers: list[_Server] = []
        self._servers_stamp: Stamp | None = None
        self._servers_checked = 0.0
        self.queries = 0  # sent so far, for the metrics
        self.hits = 0

    async def mx(self, domain: str) -> DnsAnswer[MxRecord]:
        return await self._look_up(domain, wire.MX)  # type: ignore[return-value]  # MX records hold MxRecords

    async def text(self, name: str) -> DnsAnswer[str]:
        return await self._look_up(name, wire.TXT)  # type: ignore[return-value]  # TXT records hold texts

    async def tlsa(self, host: str, port: int) -> DnsAnswer[TlsaRecord]:
        return await self._look_up(f"_{port}._tcp.{host}", wire.TLSA)  # type: ignore[return-value]  # as above

    async def cname(self, name: str) -> DnsAnswer[str]:
        return await self._look_up(name, wire.CNAME)  # type: ignore[return-value]  # CNAME records hold names

    async def a(self, host: str) -> DnsAnswer[str]:
        return await self._look_up(host, wire.A)  # type: ignore[return-value]  # A records hold texts

    async def aaaa(self, host: str) -> DnsAnswer[str]:
        return await self._look_up(host, wire.AAAA)  # type: ignore[return-value]  # AAAA records hold texts

    async def reverse(self, address: str) -> DnsAnswer[str]:
        try:
            name = ipaddress.ip_address(address).reverse_pointer
        except ValueError:
            return DnsAnswer(DnsStatus.NXDOMAIN, (), f"{address} is not an IP address", name=address)
        return await self._look_up(name, wire.PTR)  # type: ignore[return-value]  # PTR records hold names

    async def addresses(self, host: str) -> DnsAnswer[str]:
        known = _known_address(host, self.options)
        if known is not None:
            return known
        types = [wire.A] if self.options.ipv4 else []
        if self.options.ipv6:
            types.append(wire.AAAA)
        # Both are under way before either is waited for.
        under_way = [self._begin(host, type) for type in types]
        answers = [answer if isinstance(answer, DnsAnswer) else await answer for answer in under_way]
        return _both(answers)  # type: ignore[arg-type]  # A and AAAA records hold texts

    def forget(self) -> None:
        """Drop all answers kept."""
        self._cache.clear()

    def close(self) -> None:
        """End what is under way with ERROR."""
        for inquiry in list(self._inquiries.values()):
            inquiry.abandon("the resolver is being closed")

    async def _look_up(self, name: str, type: int) -> DnsAnswer[Value]:
        answer = self._begin(name, type)
        return answer if isinstance(answer, DnsAnswer) else await answer

    def _begin(self, name: str, type: int) -> DnsAnswer[Value] | asyncio.Future[DnsAnswer[Value]]:
        """The answer if it is at hand, else a future of it: of this question's own inquiry or one under way."""
        key = (name, type)
        answer = self._kept(key)
        if answer is not None:
            self.hits += 1
            return answer
        inquiry = self._inquiries.get(key)
        if inquiry is None:
            refused = self._refuse(name)
            if refused is not None:
                return refused
            inquiry = _Inquiry(self, name, type)
            self._inquiries[key] = inquiry
            inquiry.begin()
        return inquiry.wait()

    def _refuse(self, name: str) -> DnsAnswer[Value] | None:
        """The answer to what is not asked at all."""
        if wire.encode_name(name) is None or name == "invalid" or name.endswith(".invalid"):  # RFC 6761 §6.4
            return DnsAnswer(DnsStatus.NXDOMAIN, (), f"{name} is not a name that the DNS can hold", name=name)
        if len(self._inquiries) >= self.options.queries_max + self.options.waiting_max:
            return DnsAnswer(DnsStatus.ERROR, (), "too many DNS look-ups are waiting", name=name)
        return None

    def _kept(self, key: _Key) -> DnsAnswer[Value] | None:
        answer = self._cache.get(key)
        if answer is None:
            return None
        remaining_us = answer.expires_us - self.clock.now_us()
        # More than the longest time that an answer is kept for means that the clock was set back.
        if 0 < remaining_us <= self.options.ttl_max_s * 1_000_000:
            self._cache.move_to_end(key)
            return answer
        del self._cache[key]
        return None

    # What inquiries use.

    def keep(self, name: str, type: int, answer: DnsAnswer[Value]) -> None:
        """The end of an inquiry: its answer is kept for its time, and the next that waits may go."""
        self._inquiries.pop((name, type), None)
        if answer.expires_us > self.clock.now_us():
            self._cache[name, type] = answer
            if len(self._cache) > self.options.cache_max:
                self._cache.popitem(last=False)

    def enter(self, inquiry: _Inquiry) -> bool:
        """Whether an inquiry may go now; else it is called (`go`) when its turn comes."""
        if self._active < self.options.queries_max:
            self._active += 1
            inquiry.entered = True
            return True
        self._waiting.append(inquiry)
        return False

    def leave(self) -> None:
        """An inquiry that had entered is over."""
        self._active -= 1
        while self._waiting and self._active < self.options.queries_max:
            inquiry = self._waiting.popleft()
            if inquiry.ended is None:
                self._active += 1
                inquiry.entered = True
                inquiry.go_soon()  # not from here: were all to fail at once, they would call each other without end

    def plan(self, now: float) -> list[_Server]:
        """The servers in the order in which to ask them, the paused ones last."""
        if now >= self._servers_checked:
            self._check_servers(now)
        if len(self._servers) == 1:
            return list(self._servers)
        return sorted(self._servers, key=lambda server: server.paused_until > now)

    def _check_servers(self, now: float) -> None:
        options = self.options
        if options.servers:
            self._servers_checked = float("inf")
            parsed = map(parse_server, options.servers)
            addresses = tuple(server for server in parsed if isinstance(server, ServerAddress))
        else:
            self._servers_checked = now + _RESOLV_CONF_CHECK_S
            state = stamp(options.resolv_conf)
            if state == self._servers_stamp:
                return
            self._servers_stamp = state
            addresses = read_resolv_conf(_read(options.resolv_conf))
        self._servers = [_Server(address, options.is_trusted) for address in addresses]


class _Inquiry:
    """One question on its way to its answer: tries, one after another, each a datagram and where needed a TCP exchange.

    It belongs to the look-ups that wait for it, but goes on to its end whether or not they still wait. Driven by
    callbacks of the loop; each waits on a future of its own, so that one that is cancelled disturbs no other.
    """

    __slots__ = (
        "_aliases", "_asked", "_deadline", "_edns", "_failures", "_forged", "_id", "_loop", "_message_name", "_name",
        "_resolver", "_secure", "_server", "_socket", "_task", "_timer", "_tries", "_ttl_s", "_type", "_waiters",
        "ended", "entered",
    )  # fmt: skip

    def __init__(self, resolver: DnsResolver, name: str, type: int) -> None:
        self._resolver = resolver
        self._name = name
        self._type = type
        self._asked = name  # the name asked for now: the end of the CNAME records so far
        self._aliases = {name: None}  # the names so far, in order
        self._secure = True
        self._ttl_s = resolver.options.ttl_max_s  # the least of all records on the way
        self._loop = asyncio.get_running_loop()
        self._waiters: list[asyncio.Future[DnsAnswer[Value]]] = []
        self._tries: list[_Server] = []
        self._server: _Server | None = None
        self._failures: dict[str, str] = {}
        self._edns = resolver.options.payload
        self._id = 0
        self._forged = 0
        self._message_name = b""
        self._socket: socket.socket | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._task: asyncio.Task[None] | None = None
        self._deadline = 0.0
        self.entered = False
        self.ended: DnsAnswer[Value] | None = None

    def wait(self) -> DnsAnswer[Value] | asyncio.Future[DnsAnswer[Value]]:
        if self.ended is not None:
            return self.ended
        waiter: asyncio.Future[DnsAnswer[Value]] = self._loop.create_future()
        self._waiters.append(waiter)
        return waiter

    def begin(self) -> None:
        options = self._resolver.options
        self._deadline = self._loop.time() + options.total_s
        if self._resolver.enter(self):
            self.go()
        else:
            self._timer = self._loop.call_later(options.total_s, self.abandon, "no query was free in time")

    def go(self) -> None:
        """Its turn has come."""
        if self.ended is None:
            self._ask(self._asked)

    def go_soon(self) -> None:
        self._loop.call_soon(self.go)

    def abandon(self, why: str) -> None:
        """Give up."""
        if self.ended is None:
            self._end(DnsAnswer(DnsStatus.ERROR, (), why, name=self._asked))

    def _ask(self, name: str) -> None:
        """Begin with the first try for `name`."""
        self._asked = name
        encoded = wire.encode_name(name)
        if encoded is None:
            self._end(self._error(f"its alias {name} is not a name that the DNS can hold"))
            return
        self._message_name = encoded
        self._tries = self._resolver.plan(self._loop.time()) * self._resolver.options.attempts
        self._next_try()

    def _next_try(self) -> None:
        self._release()
        while self._tries and self._loop.time() < self._deadline:
            server = self._tries.pop(0)
            if server is not self._server:
                self._server = server
                self._edns = self._resolver.options.payload
            self._forged = 0
            if self._send(server):
                return
        said = "; ".join(f"{server}: {text}" for server, text in self._failures.items()) or "no time left"
        self._end(self._error(said))

    def _send(self, server: _Server) -> bool:
        """One datagram from a socket of its own. False: it did not even leave."""
        query = self._query()
        try:
            sock = socket.socket(server.family, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK | socket.SOCK_CLOEXEC)
        except OSError as error:
            self._failures[server.name] = error.strerror or str(error)
            return False
        try:
            sock.connect(server.sockaddr)
            sock.send(query)
        except OSError as error:
            sock.close()
            self._blame(error.strerror or str(error))
            return False
        self._socket = sock
        self._loop.add_reader(sock.fileno(), self._readable)
        self._timer = self._loop.call_later(self._try_s(), self._timed_out)
        self._resolver.queries += 1
        return True

    def _query(self) -> bytes:
        self._id = self._resolver.random.getrandbits(16)
        return wire.encode_query(self._id, self._message_name, self._type, self._edns)

    def _try_s(self) -> float:
        return max(0.0, min(self._resolver.options.timeout_s, self._deadline - self._loop.time()))

    def _readable(self) -> None:
        assert self._socket is not None
        try:
            octets = self._socket.recv(65_535)
        except (BlockingIOError, InterruptedError):
            return
        except OSError as error:  # an ICMP message: nobody listens there
            self._blame(error.strerror or str(error))
            self._next_try()
            return
        if wire.message_id(octets) != self._id:
            self._suspect()
            return
        message = wire.decode(octets)
        if message is None:
            self._blame("its answer cannot be read")
            self._next_try()
        elif not self._is_ours(message):
            self._suspect()
        elif message.truncated:
            self._use_tcp()
        else:
            self._take(message)

    def _is_ours(self, message: wire.Message) -> bool:
        """Whether it answers our question (RFC 5452 §9.1). Some servers leave the question out of an error."""
        if message.question is None:
            return message.rcode not in (wire.NOERROR, wire.NXDOMAIN)
        return message.question == (self._asked, self._type)

    def _suspect(self) -> None:
        """A datagram that is not the answer: ignored, unless there are too many to be chance."""
        self._forged += 1
        if self._forged >= _FORGED_MAX:
            self._use_tcp()

    def _timed_out(self) -> None:
        self._blame(f"no answer in {self._resolver.options.timeout_s:g} s")
        self._next_try()

    def _blame(self, text: str) -> None:
        """The server failed as such: others are asked first for a while."""
        assert self._server is not None
        self._failures[self._server.name] = text
        self._server.paused_until = self._loop.time() + self._resolver.options.server_pause_s

    def _take(self, message: wire.Message) -> None:
        assert self._server is not None
        match message.rcode:
            case wire.NOERROR | wire.NXDOMAIN:
                self._server.paused_until = 0.0
                self._follow(message)
            case wire.FORMERR | wire.NOTIMP | wire.BADVERS if self._edns:
                # RFC 6891 §7: the server may not know EDNS; the same one is asked again without.
                self._edns = 0
                self._tries.insert(0, self._server)
                self._next_try()
            case _:
                self._failures[self._server.name] = wire.rcode_text(message.rcode)
                self._next_try()

    def _follow(self, message: wire.Message) -> None:
        """Walk from the question along CNAME records (RFC 1034 §3.6.2) to what was asked for."""
        assert self._server is not None
        self._secure = self._secure and message.authentic and self._server.trusted
        name = self._asked
        aliases: dict[str, ResourceRecord] = {}
        for record in message.answers:
            if record.type == wire.CNAME:
                aliases.setdefault(record.owner, record)
        while True:
            found = [record for record in message.answers if record.owner == name and record.type == self._type]
            if found:
                self._end(self._found(name, found))
                return
            alias = aliases.get(name)
            if alias is None:
                break
            name = str(alias.value)
            self._ttl_s = min(self._ttl_s, wire.bounded_ttl_s(alias.ttl_s))
            if name in self._aliases or len(self._aliases) > self._resolver.options.cnames_max:
                self._end(self._error(f"too many aliases (CNAME), or a ring of them, at {name}"))
                return
            self._aliases[name] = None
        self._nothing(name, message)

    def _nothing(self, name: str, message: wire.Message) -> None:
        """The answer has no record of the type for `name`, where its aliases end."""
        assert self._server is not None
        if message.rcode == wire.NXDOMAIN:  # RFC 6604 §3: it speaks of the last name
            self._end(self._negative(DnsStatus.NXDOMAIN, name, f"{name} does not exist", message))
        elif message.referral:
            self._failures[self._server.name] = "it refers to other servers and does not resolve for us"
            self._next_try()
        elif name != self._asked and message.negative_ttl_s is None:
            self._release()
            self._ask(name)  # the server does not know the alias's target: a question of its own
        else:
            kind = _TYPE_NAMES.get(self._type, "such")
            self._end(self._negative(DnsStatus.NODATA, name, f"{name} has no {kind} records", message))

    def _found(self, name: str, found: list[ResourceRecord]) -> DnsAnswer[Value]:
        options = self._resolver.options
        values = [record.value for record in found]
        if self._type == wire.MX:
            values.sort(key=_preference)  # before the cut, so that it takes the least wanted
        ttl_s = min(self._ttl_s, *(wire.bounded_ttl_s(record.ttl_s) for record in found))
        unique = tuple(dict.fromkeys(values))[: options.records_max]
        expires_us = self._resolver.clock.now_us() + max(options.ttl_min_s, ttl_s) * 1_000_000
        return DnsAnswer(DnsStatus.FOUND, unique, "", self._secure, expires_us, name, self._followed())

    def _negative(self, status: DnsStatus, name: str, text: str, message: wire.Message) -> DnsAnswer[Value]:
        """RFC 2308 §5: kept for the SOA's time; without one not at all."""
        options = self._resolver.options
        expires_us = 0
        if message.negative_ttl_s is not None:
            ttl_s = max(options.ttl_min_s, min(self._ttl_s, message.negative_ttl_s, options.negative_ttl_max_s))
            expires_us = self._resolver.clock.now_us() + ttl_s * 1_000_000
        return DnsAnswer(status, (), text, self._secure, expires_us, name, self._followed())

    def _followed(self) -> tuple[str, ...]:
        """The names whose CNAME records were followed."""
        return tuple(self._aliases)[:-1] if len(self._aliases) > 1 else ()

    def _error(self, text: str) -> DnsAnswer[Value]:
        expires_us = self._resolver.clock.now_us() + self._resolver.options.error_ttl_s * 1_000_000
        text = f"DNS look-up of {self._asked}: {text}"
        return DnsAnswer(DnsStatus.ERROR, (), text, False, expires_us, self._asked, self._followed())

    def _use_tcp(self) -> None:
        """RFC 7766 §5: what does not fit into a datagram is asked for again over TCP, at the same server."""
        assert self._server is not None
        self._release()
        self._timer = self._loop.call_later(self._try_s(), self._timed_out)
        self._task = self._loop.create_task(self._exchange_tcp(self._server))
        self._resolver.queries += 1

    async def _exchange_tcp(self, server: _Server) -> None:
        try:
            octets = await _over_tcp(server, self._query())
        except (OSError, asyncio.IncompleteReadError) as error:
            self._task = None
            self._blame(f"over TCP: {error}")
            self._next_try()
            return
        self._task = None
        message = wire.decode(octets) if wire.message_id(octets) == self._id else None
        if message is None or message.truncated or not self._is_ours(message):
            self._blame("its answer over TCP cannot be read")
            self._next_try()
        else:
            self._take(message)

    def _release(self) -> None:
        """Let go of what the last try held."""
        if self._socket is not None:
            self._loop.remove_reader(self._socket.fileno())
            self._socket.close()
            self._socket = None
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if self._task is not None:
            self._task.cancel()
            self._task = None

    def _end(self, answer: DnsAnswer[Value]) -> None:
        self._release()
        self.ended = answer
        self._resolver.keep(self._name, self._type, answer)
        for waiter in self._waiters:
            if not waiter.done():  # it may have been cancelled
                waiter.set_result(answer)
        self._waiters.clear()
        if self.entered:
            self.entered = False
            self._resolver.leave()


async def _over_tcp(server: _Server, query: bytes) -> bytes:
    """One query and its answer over a connection of its own, each behind its length (RFC 1035 §4.2.2)."""
    reader, writer = await asyncio.open_connection(*server.sockaddr)
    try:
        writer.write(len(query).to_bytes(2, "big") + query)
        length = int.from_bytes(await reader.readexactly(2), "big")
        return await reader.readexactly(length)
    finally:
        writer.transport.abort()


def _preference(value: Value) -> int:
    return value.preference if isinstance(value, MxRecord) else 0


def _known_address(host: str, options: DnsOptions) -> DnsAnswer[str] | None:
    """The answer for what needs no question: an IP address, and localhost (RFC 6761 §6.3)."""
    if host == "localhost" or host.endswith(".localhost"):
        both = ("127.0.0.1",) * options.ipv4 + ("::1",) * options.ipv6
        return DnsAnswer(DnsStatus.FOUND, both, name=host)
    if not (host[-1:].isdigit() or ":" in host):
        return None
    try:
        address = ipaddress.ip_address(host)
    except ValueError:
        return None
    return DnsAnswer(DnsStatus.FOUND, (str(address),), name=host)


def _both(answers: list[DnsAnswer[str]]) -> DnsAnswer[str]:
    """A and AAAA as one answer: what was found counts, an error only if nothing was."""
    if len(answers) == 1:
        return answers[0]
    found = [answer for answer in answers if answer.status is DnsStatus.FOUND]
    if found:
        records = tuple(record for answer in found for record in answer.records)
        secure = all(answer.secure for answer in found)
        return DnsAnswer(
            DnsStatus.FOUND, records, "", secure, min(answer.expires_us for answer in found), found[0].name,
            found[0].followed,
        )  # fmt: skip
    for status in (DnsStatus.ERROR, DnsStatus.NODATA):
        for answer in answers:
            if answer.status is status:
                if status is DnsStatus.NODATA:
                    text = f"{answer.name} has neither A nor AAAA records"
                    return msgspec.structs.replace(answer, text=text)
                return answer
    return answers[0]


_TYPE_NAMES: Final = {
    wire.A: "A", wire.AAAA: "AAAA", wire.CNAME: "CNAME", wire.MX: "MX", wire.PTR: "PTR", wire.TLSA: "TLSA",
    wire.TXT: "TXT",
}  # fmt: skip


def _read(path: str) -> str:
    try:
        with open(path, encoding="utf-8", errors="replace") as file:
            return file.read(65_536)
    except OSError:
        return ""
