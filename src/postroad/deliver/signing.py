"""Signs messages on their way out (RFC 6376 §5): the last thing that happens to a message before it is sent.

A courier asks for the signature of one outgoing form: the content as it leaves for this remote, with its lines broken
and its parts converted, and with all fields on top. So nothing that is changed on the way out breaks a signature.

What always holds:
- One form is signed once, however many recipients and connections it goes to. What was made is kept for KEPT_S, up to
  KEPT_OCTETS, if others may need it; who asks while it is being made waits for it.
- As soon as keys have changed nothing is used again, and what is being made is made anew.
- The loop hashes no content above LOOP_MAX and reads no file.
- Mail of strangers is not signed, and mail that has a right signature of the same key gets no second one. What is
  forwarded of strangers may get an ARC set (RFC 8617), if a listener of ours has judged its chain.

How it fails: if keys are there and none can be used, the message goes without a signature or waits, as it is set. An
exception is a bug; it is logged, and the message waits.
"""

from __future__ import annotations

import asyncio
import ipaddress
import logging
from collections import OrderedDict
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import Executor
from functools import partial
from typing import Final

import msgspec

from postroad.deliver.signing_keys import Chosen, SigningKeys
from postroad.deliver.signing_options import DkimOutOptions, KeyTrouble, SignedOrigin
from postroad.mail import own_listeners
from postroad.mail.address import Address
from postroad.mail.attempt import Outcome, Reach
from postroad.mail.envelope import Envelope
from postroad.mail.job import Job
from postroad.mail.message import HEADER_MAX, Content, header_end, header_is_whole
from postroad.protocol.sending import Result
from postroad.protocol.seven_bit import Plan
from postroad.trust import authres_reading
from postroad.trust.arc import ArcResult, as_judged
from postroad.trust.arc_seal import ArcSealer
from postroad.trust.asking import client_address
from postroad.trust.author import addresses
from postroad.trust.dkim_body import BodyForm, BodyHashes
from postroad.trust.dkim_head import SignedHead
from postroad.trust.dkim_key import KeyKind
from postroad.trust.dkim_sign import has_signed
from postroad.trust.dkim_signature import key_name
from postroad.trust.keyring import DomainKeys
from postroad.trust.results import ARC
from postroad.world.clock import Clock

_LOG: Final = logging.getLogger(__name__)

LOOP_MAX: Final = 65_536  # octets of content that the loop hashes
KEPT_S: Final = 900.0  # how long a signature is used again
KEPT_OCTETS: Final = 8_388_608  # of what is kept, header sections included
AUTHORS_MAX: Final = 4  # authors of one message whose keys sign
_HEAD_MAX: Final = 2 * HEADER_MAX  # octets of a header section with what we have put on top
_OWN_LISTENERS: Final = own_listeners.OWN
_FROM: Final = b"from"


class SignedForm(msgspec.Struct, frozen=True):
    """What goes on top of one outgoing form: `fields`, each with its CRLF. `names`: where the DNS has the keys that
    have signed. `why_not`: why a message that should be signed is not, or not by all keys."""

    fields: bytes = b""
    names: tuple[str, ...] = ()
    why_not: str = ""


UNSIGNED: Final = SignedForm()
Signature = SignedForm | Result
Maker = Callable[[Iterable[bytes], int], SignedForm]
"""Makes the fields of one message: the body in pieces, seconds since 1970."""


class AwaitedSignature:
    """A signature that is being made. `then` is called once, on the loop, when it is there."""

    __slots__ = ("_waiting",)

    def __init__(self) -> None:
        self._waiting: list[Callable[[Signature], None]] = []

    def then(self, told: Callable[[Signature], None]) -> None:
        self._waiting.append(told)

    def tell(self, made: Signature) -> None:
        for told in self._waiting:
            told(made)


class Form(msgspec.Struct, frozen=True):
    """One outgoing form. `content`: as it leaves if it is in memory; in a file, as it is before `plan` and `line_max`
    have changed it. `prefix`: what goes before all else of the message. `seals`: it gets an ARC set instead of DKIM
    signatures."""

    envelope: Envelope
    content: Content
    prefix: bytes
    plan: Plan | None
    line_max: int
    seals: bool = False


Pieces = Callable[[Form], Iterable[bytes]]
"""A content that is in a file, or is large, piece by piece as it leaves, without `Form.prefix`."""

_Key = tuple[object, ...]


class _Kept(msgspec.Struct, frozen=True):
    form: SignedForm
    until: float  # loop time
    octets: int


class Signing:
    """Signs for all couriers of a worker. `pieces`: reads large content. `on`: whether there is any key; nobody need be
    asked as long as there is none."""

    def __init__(self, *, clock: Clock, loop: asyncio.AbstractEventLoop, pool: Executor, pieces: Pieces) -> None:
        self.on = False
        self._clock = clock
        self._loop = loop
        self._pool = pool
        self._pieces = pieces
        self._options = DkimOutOptions()
        self._keys: SigningKeys | None = None
        self._edition = 0
        self._origins: frozenset[SignedOrigin] = frozenset()
        self._unchecked: tuple[ipaddress.IPv4Network | ipaddress.IPv6Network, ...] = ()
        self._kept: OrderedDict[_Key, _Kept] = OrderedDict()
        self._kept_octets = 0
        self._awaited: dict[_Key, AwaitedSignature] = {}

    def take(self, options: DkimOutOptions, keys: SigningKeys | None) -> None:
        """New settings. `keys`: None if nothing is signed."""
        self._options, self._keys = options, keys
        self.on = keys is not None and keys.any
        self._origins = frozenset(options.origins)
        self._unchecked = tuple(map(ipaddress.ip_network, options.unchecked_networks))
        self._forget()

    def look(self) -> None:
        """Look for keys that have changed."""
        if self._keys is not None:
            self._keys.look()

    def take_stored(self, domains: Mapping[str, DomainKeys]) -> None:
        """Other keys are in the store."""
        if self._keys is not None:
            self._keys.take_stored(domains)
            self.on = self._keys.any

    def of(
        self, job: Job, content: Content, plan: Plan | None, prefix: bytes, line_max: int, *, final: bool
    ) -> Signature | AwaitedSignature:
        """The signature of what a job sends. `final`: the mail comes to its end there (LMTP)."""
        keys, seals = self._keys, False
        if keys is None or job.asks_only:
            return UNSIGNED
        if not self._concerns(job.envelope, final):
            seals = self._seals(job.envelope, final)
            if not seals:
                return UNSIGNED
        if keys.edition != self._edition:
            self._forget()
        left = plan if content is job.content else None  # what is still to be converted, piece by piece
        if isinstance(content, bytes) and len(content) <= LOOP_MAX and left is None and not line_max:
            return self._small(keys, job, content, plan, prefix, seals)
        form = Form(job.envelope, content, prefix, left, line_max, seals)
        return self._on_thread(_key_of(form, plan), form, keep=True)

    def _concerns(self, envelope: Envelope, final: bool) -> bool:
        """Whether a message is to be signed for whom it comes from."""
        if final and not self._options.lmtp:
            return False
        peer = envelope.peer
        if peer.identity:
            return SignedOrigin.ACCOUNTS in self._origins
        if peer.trusted:
            return SignedOrigin.TRUSTED in self._origins
        return peer.listener in _OWN_LISTENERS and not peer.address and SignedOrigin.OWN in self._origins

    def _seals(self, envelope: Envelope, final: bool) -> bool:
        """Whether a message of a stranger is to be sealed: it came by a listener that has judged its chain. Of mail
        from networks that are not checked, Authentication-Results with our name can be forged."""
        options, peer = self._options, envelope.peer
        if not options.arc_seal or final or peer.is_known or peer.listener not in options.arc_listeners:
            return False
        address = client_address(peer.address) if peer.address else None
        return address is not None and not any(address in network for network in self._unchecked)

    # -- small content -------------------------------------------------------------------------------------------------

    def _small(
        self, keys: SigningKeys, job: Job, content: bytes, plan: Plan | None, prefix: bytes, seals: bool
    ) -> Signature | AwaitedSignature:
        """Content in memory, as it leaves."""
        envelope = job.envelope
        end = header_end(content)
        section = prefix + content[:end]
        shared = len(job.recipients) < len(envelope.recipients)
        key: _Key = (envelope.id, None if plan is None else plan.target, len(content), section)
        if shared and (known := self._known(key)) is not None:
            return known
        head = SignedHead(section)
        try:
            make = self._maker(keys, head, seals)
            if make is None:
                return self._on_thread(key, Form(envelope, content, prefix, None, 0, seals), keep=shared)
            if isinstance(make, SignedForm | Result):
                return make
            made = make((content[_body_start(content, end) :],), self._now_s())
        except Exception as error:  # a bug; the mail waits
            return _broken(error)
        if shared:
            self._keep(key, made)
        return made

    def _now_s(self) -> int:
        return self._clock.now_us() // 1_000_000

    def _maker(self, keys: SigningKeys, head: SignedHead, seals: bool) -> Maker | Signature | None:
        """Who makes the fields; what is to be done instead if nobody can; None if a file must be read first."""
        if seals:
            return _sealer(keys, head, self._options)
        authors = _authors(head)
        if isinstance(authors, str):
            return SignedForm(why_not=authors)
        found: list[Chosen] = []
        for author in authors:
            chosen = keys.find(author)
            if chosen is None:
                return None
            found.append(chosen)
        chosen = found[0] if len(found) == 1 else _together(found, keys)
        if chosen.keys:
            return partial(_signed, chosen, keys, head)
        if not chosen.troubles:
            return SignedForm(why_not="; ".join(dict.fromkeys(keys.lack(each.domain) for each in authors)))
        why = "; ".join(chosen.troubles)
        if self._options.key_trouble is KeyTrouble.WAIT:
            return Result(Outcome.DEFERRED, Reach.MESSAGE, "4.7.5", f"it cannot be signed now: {why}")
        return SignedForm(why_not=why)

    # -- on a thread ---------------------------------------------------------------------------------------------------

    def _on_thread(self, key: _Key, form: Form, *, keep: bool) -> Signature | AwaitedSignature:
        known = self._known(key)
        if known is not None:
            return known
        awaited = self._awaited.get(key)
        if awaited is None:
            awaited = self._awaited[key] = AwaitedSignature()
            self._begin(key, form, awaited, keep)
        return awaited

    def _begin(self, key: _Key, form: Form, awaited: AwaitedSignature, keep: bool) -> None:
        keys = self._keys
        if keys is None:
            self._loop.call_soon(self._told, key, awaited, UNSIGNED)
            return
        edition = keys.edition
        future = self._loop.run_in_executor(self._pool, self._work, keys, form, self._now_s())

        def done(future: asyncio.Future[Signature]) -> None:
            if keys is not self._keys or keys.edition != edition:
                self._begin(key, form, awaited, keep)  # keys have changed meanwhile
                return
            try:
                made = future.result()
            except Exception as error:  # a bug; the mail waits
                made = _broken(error)
            if keep and isinstance(made, SignedForm):
                self._keep(key, made)
            self._told(key, awaited, made)

        future.add_done_callback(done)

    def _told(self, key: _Key, awaited: AwaitedSignature, made: Signature) -> None:
        if self._awaited.get(key) is awaited:
            del self._awaited[key]
        awaited.tell(made)

    def _work(self, keys: SigningKeys, form: Form, now_s: int) -> Signature:
        """On a thread: reads the content, and files of keys that were not read yet."""
        try:
            if isinstance(form.content, bytes) and form.plan is None and not form.line_max:
                pieces: Iterator[bytes] = iter((form.content,))
            else:
                pieces = iter(self._pieces(form))
            section, rest = _head_of(pieces)
            head = SignedHead(form.prefix + section)
            authors = [_sealing_author(self._options)] if form.seals else _authors(head)
            for author in authors if isinstance(authors, list) else ():
                if keys.find(author) is None:
                    keys.read(author)
            make = self._maker(keys, head, form.seals)
            if make is None:  # others have pushed out what was read
                return Result(Outcome.DEFERRED, Reach.MESSAGE, "4.3.0", "its key could not be kept in memory")
            return make if isinstance(make, SignedForm | Result) else make(_chain(rest, pieces), now_s)
        except OSError as error:
            text = f"the content could not be read: {error.strerror or error}"
            return Result(Outcome.DEFERRED, Reach.MESSAGE, "4.3.0", text)

    # -- what is kept --------------------------------------------------------------------------------------------------

    def _known(self, key: _Key) -> SignedForm | None:
        kept = self._kept.get(key)
        return kept.form if kept is not None and kept.until > self._loop.time() else None

    def _keep(self, key: _Key, form: SignedForm) -> None:
        before = self._kept.pop(key, None)
        if before is not None:
            self._kept_octets -= before.octets
        octets = len(form.fields) + sum(len(each) for each in key if isinstance(each, bytes)) + 500
        lifetime_s = self._options.fields.lifetime_s
        lasts = KEPT_S if not lifetime_s else min(KEPT_S, lifetime_s / 10)
        self._kept[key] = _Kept(form, self._loop.time() + lasts, octets)
        self._kept_octets += octets
        while self._kept_octets > KEPT_OCTETS:
            self._kept_octets -= self._kept.popitem(last=False)[1].octets

    def _forget(self) -> None:
        """Keys or settings have changed."""
        self._edition = 0 if self._keys is None else self._keys.edition
        self._kept.clear()
        self._kept_octets = 0


def _key_of(form: Form, plan: Plan | None) -> _Key:
    """What a form is known by. `plan`: how it was converted, or will be. The header section of a file follows from the
    fields on top and from `start`."""
    content, on_top = form.content, form.prefix + form.envelope.prefix
    target = None if plan is None else plan.target
    if isinstance(content, bytes):
        section = on_top + content[: header_end(content)]
        return (form.envelope.id, target, form.plan is None, form.line_max, len(content), section)
    return (form.envelope.id, target, form.line_max, content.start, content.size, on_top)


def _body_start(content: bytes, end: int) -> int:
    return end + 2 if content.startswith(b"\r\n", end) else end


def _head_of(pieces: Iterator[bytes]) -> tuple[bytes, bytes]:
    """The header section, and what was read of the body."""
    read = b""
    for piece in pieces:
        read = read + piece if read else piece
        if header_is_whole(read) or len(read) > _HEAD_MAX:
            break
    end = header_end(read)
    return read[:end], read[_body_start(read, end) :]


def _chain(first: bytes, pieces: Iterator[bytes]) -> Iterator[bytes]:
    yield first
    yield from pieces


def _authors(head: SignedHead) -> list[Address] | str:
    """The authors, one of each domain; or why nobody can sign for them."""
    lines = head.relaxed(_FROM)
    if len(lines) != 1:
        return "it has no From field" if not lines else f"it has {len(lines)} From fields"
    found: dict[str, Address] = {}
    for each in addresses(lines[0]):
        found.setdefault(each.domain, each)
    return list(found.values())[:AUTHORS_MAX] or "its From field names no domain"


def _together(found: list[Chosen], keys: SigningKeys) -> Chosen:
    """The keys for several authors."""
    all_keys = tuple(dict.fromkeys(key for chosen in found for key in chosen.keys))
    troubles = tuple(dict.fromkeys(trouble for chosen in found for trouble in chosen.troubles))
    return Chosen(all_keys, troubles, keys.signer(all_keys) if all_keys else None)


def _signed(
    chosen: Chosen, keys: SigningKeys, head: SignedHead, body: Iterable[bytes], now_s: int
) -> SignedForm:
    signer = chosen.signer
    assert signer is not None
    digest = _digest(signer.form, body)
    if head.relaxed(b"dkim-signature"):
        left = tuple(key for key in signer.keys if not has_signed(key, head, signer.form, digest, now_s))
        if not left:
            return SignedForm(why_not="it has a signature of the same key")
        if left != signer.keys:
            signer = keys.signer(left)
    why_not = "; ".join(chosen.troubles) if chosen.troubles else ""
    return SignedForm(signer.sign(head, digest, now_s), signer.key_names, why_not)


def _sealing_author(options: DkimOutOptions) -> Address:
    return Address("postmaster", options.arc_seal)


def _sealer(keys: SigningKeys, head: SignedHead, options: DkimOutOptions) -> Maker | Signature | None:
    """Who seals a message of a stranger, by what we found of its chain when it came."""
    found = keys.find(_sealing_author(options))
    if found is None:
        return None
    key = next((each for each in found.keys if each.kind is KeyKind.RSA), next(iter(found.keys), None))
    if key is None:
        why = "; ".join(found.troubles) or keys.lack(options.arc_seal)
        return SignedForm(why_not=f"it cannot be sealed (ARC): {why}")
    section = head.section + b"\r\n"
    ours = authres_reading.values(section, (options.authserv_id,))
    results = authres_reading.read(ours[0]).results if ours else ()
    judged = next((each.result for each in results if each.method == ARC), "")
    if not judged:
        return UNSIGNED  # nobody looked at its chain
    return partial(_sealed, ArcSealer(key, options.fields), section, ours[0], as_judged(head, judged))


def _sealed(
    sealer: ArcSealer, section: bytes, payload: bytes, chain: ArcResult, body: Iterable[bytes], now_s: int
) -> SignedForm:
    fields = sealer.seal(section, _digest(sealer.form, body), payload, chain, now_s)
    return SignedForm(fields, (key_name(sealer.key.selector, sealer.key.domain),)) if fields else UNSIGNED


def _digest(form: BodyForm, body: Iterable[bytes]) -> bytes:
    bodies = BodyHashes((form,))
    for piece in body:
        bodies.feed(piece)
    return bodies.results()[form].digest


def _broken(error: Exception) -> Result:
    _LOG.error("signing a message", exc_info=error)
    return Result(Outcome.DEFERRED, Reach.MESSAGE, "4.3.0", f"internal error: {type(error).__name__}")
