"""`python -m tests.fuzz.seeds`: writes the corpus anew from the transcripts of tests/dialogs and some shapes of chunks.

A transcript of a server gives its C: lines to `server`, its S: lines to `client`, and its MAIL and RCPT lines to
`grammar`; one of our client gives the S: lines of its first connection to `client`. The corpus stands in the tree, so
that a run begins where the last one did.
"""

from __future__ import annotations

import hashlib
from itertools import product
from pathlib import Path

import msgspec
from msgspec.structs import replace

from postroad.deliver.porter import PorterAnswer, PorterOutlet, PorterRequest
from postroad.mail.attempt import Outcome
from postroad.mail.route import Quota, Transport
from postroad.protocol.offer import Dialect
from postroad.trust.arc import ArcResult
from postroad.trust.arc_seal import ArcSealer
from postroad.trust.dkim_body import BodyForm, BodyHashes, Canonicalization
from postroad.trust.dkim_head import body_start
from postroad.trust.dkim_sign import DkimSigner, SigningOptions
from tests.dialogs import sending
from tests.dialogs.playing import Transcript, read, steps
from tests.fuzz import dkim, inbound, spf, sts, trust
from tests.fuzz.choices import written
from tests.unit.trust import test_dkim_rfcs

_DIALOGS = Path(__file__).parents[1] / "dialogs" / "server"
_OUTWARD = Path(__file__).parents[1] / "dialogs" / "client"
_LMTP, _BDAT, _STARTTLS, _AUTH = 1, 2, 4, 8


def corpus() -> dict[str, dict[str, bytes]]:
    """Target → name → input."""
    made: dict[str, dict[str, bytes]] = {"server": {}, "client": _remotes(), "grammar": {}, "bdat": _chunks()}
    made["porter"] = _requests()
    made |= trust.seeds()
    made["spf"] = spf.seeds()
    made["reports"] = inbound.seeds()
    made["sts"] = sts.seeds()
    made["dkim"] = _signatures()
    for place in sorted(_DIALOGS.glob("*.txt")):
        transcript = read(place)
        mode = _LMTP if transcript.dialect is Dialect.LMTP else 0
        sent = b"".join(what for kind, what in steps(transcript) if kind == "C" and isinstance(what, bytes))
        made["server"][place.stem] = written(mode, 7, 11, sent)
        made["client"][place.stem] = written(mode | 0b1110, 5, 3, _said(transcript))
        for line in sent.split(b"\r\n"):
            if line[:5].upper() in (b"MAIL ", b"RCPT ") and b" " in line[10:]:
                made["grammar"][f"{place.stem}-{hashlib.sha1(line).hexdigest()[:8]}"] = written(0, 9, 5, line)
            elif line[:8].upper() in (b"XCLIENT ", b"XFORWARD"):
                attributes = line.partition(b" ")[2]
                name = f"{place.stem}-{hashlib.sha1(attributes).hexdigest()[:8]}"
                made["grammar"][name] = written(0, 9, 5, attributes)
    made["client"] |= {f"met_{place.stem}": _met(sending.read(place)) for place in sorted(_OUTWARD.glob("*.txt"))}
    return made


def _requests() -> dict[str, bytes]:
    """Requests to the process that delivers as other users, and answers of it."""
    sender = ("bob", "example.net")
    plain = PorterRequest("dir.example", "ada", "dir.example", sender, "A" * 16, 7, 1, False, b"Received: x\r\n", 9)
    made: dict[str, PorterRequest | PorterAnswer] = {
        "maildir": plain,
        "null_sender": replace(plain, sender=None, mark="", binary=True),
        "extension": replace(plain, domain="file.example", local_part="ada+lists", quota=Quota(9, 9)),
        "program": replace(plain, domain="prog.example", local_part="-x"),
        "not_ascii": replace(plain, local_part="jürgen", at="xn--bcher-kva.example"),
        "delivered": PorterAnswer(Outcome.DELIVERED, "2.0.0", "delivered to /home/ada"),
        "failed": PorterAnswer(Outcome.FAILED, "5.1.1", ""),
    }
    for number, outlet in enumerate((
        PorterOutlet(Transport.PROGRAM, "", ("/bin/x", "a b", "{recipient}")),
        PorterOutlet(Transport.MBOX, "/var/mail/archive"), PorterOutlet(Transport.MAILDIR, "/home/ada/Maildir"),
        PorterOutlet(Transport.MBOX, "/var/../etc/x"), PorterOutlet(Transport.PROGRAM, "", ("x",)),
        PorterOutlet(Transport.SMTP, "/x\0"),
    )):
        made[f"outlet-{number}"] = replace(plain, domain="aliases", outlet=outlet)
        made[f"forward-{number}"] = replace(plain, domain="forward:home.example", outlet=outlet)
    made["reads"] = replace(plain, domain="home.example", reads=True)
    made["reads_elsewhere"] = replace(plain, reads=True)
    odd = ("", "..", "../x", "root", "a b", "Ada+x", "ada.lock", "a@b", "$x")
    for number, (domain, name) in enumerate(product(("dir.example", "file.example", "prog.example"), odd)):
        made[f"{domain}-{number}"] = replace(plain, domain=domain, local_part=name)
    return {name: written(0, 9, 5, msgspec.msgpack.encode(each)) for name, each in made.items()}


def _signatures() -> dict[str, bytes]:
    """Messages that were signed and sealed by a key that stands before them, whole and with one tag changed."""
    message = b"From: a@example.org\r\nTo: b\r\n\tc\r\nSubject:  x \r\n\r\nHello  x \r\n\r\nb\t\r\n\r\n"
    record, now_s, no_chain = dkim.RECORD.encode(), dkim.NOW_S, ArcResult("none")
    made = {"rfc6376": (test_dkim_rfcs.RFC_6376_KEY.encode(), test_dkim_rfcs.RFC_6376)}
    for name, key in test_dkim_rfcs.RFC_8463_KEYS.items():
        made[f"rfc8463_{name.partition('.')[0]}"] = (key.encode(), test_dkim_rfcs.RFC_8463)
    for head, body in product(Canonicalization, Canonicalization):
        signer = DkimSigner((dkim.KEY,), SigningOptions(head=head, body=body, lifetime_s=9))
        made[f"{head.value}_{body.value}"] = (record, signer.sign_content(message, now_s) + message)
    signed = made["relaxed_relaxed"][1]
    sealer, bodies = ArcSealer(dkim.KEY, SigningOptions()), BodyHashes([BodyForm(Canonicalization.RELAXED)])
    bodies.feed(message[body_start(message) :])
    section, digest = message[: body_start(message) - 2], bodies.results()[sealer.form].digest
    sealed = sealer.seal(section, digest, b"mx.example; none", no_chain, now_s) + message
    made["sealed"] = (record, sealed)
    for number, (old, new) in enumerate((
        (b"v=1;", b"v=2;"), (b"a=ed25519", b"a=rsa"), (b"c=relaxed/relaxed", b"c=simple"), (b"d=example.org", b"d=x y"),
        (b"s=e1;", b"s=;"), (b"h=from:", b"h=:"), (b"bh=", b"l=3; bh="), (b"t=", b"t=9"), (b" x=", b" x=0"),
        (b"d=example.org", b"d=example.org; i=a=20b@x.example.org"), (b"b=", b"b=="), (b"; ", b";;"),
        (b"Hello", b"hello"), (b"h=from", b"h=dkim-signature:from"),
    )):  # fmt: skip
        made[f"changed-{number}"] = (record, signed.replace(old, new, 1))
    for number, (old, new) in enumerate((
        (b"i=1;", b"i=2;"), (b"cv=none", b"cv=fail"), (b"cv=none;", b"cv=none; h=x;"), (b"i=1; mx", b"mx"),
        (b"ARC-Seal", b"ARC-Seals"), (b"Hello", b"hello"),
    )):  # fmt: skip
        made[f"chain-{number}"] = (record, sealed.replace(old, new, 1))
    flags = (b"t=s", b"t=y", b"h=sha1", b"h=sha256:x", b"s=*", b"n=x", b"p=", b"v=DKIM1", b"k=rsa")
    for number, tag in enumerate(flags):
        made[f"key-{number}"] = (record + b"; " + tag, signed)
    return {name: written(0, 9, 5, key + b"\r\n" + octets) for name, (key, octets) in made.items()}


def _met(transcript: sending.Transcript) -> bytes:
    """A remote of our client, to a player that does what it offers."""
    lines = transcript.connections[0]
    said = b"".join(f"{text}\r\n".encode() for kind, text in lines if kind == "S:")
    mode = _LMTP if transcript.setting.transport == "lmtp" else 0
    for verb, switch in (("BDAT", _BDAT), ("STARTTLS", _STARTTLS), ("AUTH", _AUTH)):
        mode |= switch if any(kind == "C:" and text.startswith(verb) for kind, text in lines) else 0
    return written(mode, 64, 30, said)


def _said(transcript: Transcript) -> bytes:
    return b"".join(f"{text}\r\n".encode() for kind, text in transcript.lines if kind == "S:")


def _remotes() -> dict[str, bytes]:
    """Remotes as the client machine meets them; the player sends to three recipients."""
    offer = b"220 mx\r\n250-mx\r\n250-PIPELINING\r\n250-STARTTLS\r\n250-AUTH PLAIN\r\n"
    offer += b"250-CHUNKING\r\n250 XFORWARD NAME\r\n"
    bare = b"220 mx\r\n250 mx\r\n"
    ok = b"250 2.0.0 ok\r\n"
    refused, later = b"550 5.1.1 no\r\n", b"450 4.2.1 later\r\n"
    shapes = {
        "taken": (0, bare + ok * 4 + b"354 go\r\n" + ok + ok * 4 + b"354 go\r\n" + ok),
        "mixed": (0, bare + ok * 2 + refused + later + b"354 go\r\n" + ok + refused + ok),
        "deferred_at_the_end": (0, bare + ok * 4 + b"354 go\r\n" + later + ok * 4),
        "refused_at_the_end": (0, bare + ok * 4 + b"354 go\r\n" + refused + b"221 bye\r\n"),
        "lmtp_taken": (1, bare + ok * 4 + b"354 go\r\n" + ok * 3),
        "lmtp_mixed": (1, bare + ok * 2 + refused + ok + b"354 go\r\n" + ok + later + ok * 4),
        "excess": (0, bare + ok * 2 + b"452 4.5.3 many\r\n" * 2 + b"354 go\r\n" + ok),
        "pipelined": (0, offer + ok * 5 + b"354 go\r\n" + ok),
        "chunks": (0b10, offer + ok * 6 + later),
        "starttls": (0b100, offer + b"220 go\r\n250 mx\r\n" + ok * 4 + b"354 go\r\n" + ok),
        "starttls_injected": (0b10000100, offer.partition(b"250-AUTH")[0] + b"250 mx\r\n220 go\r\n250 mx\r\n" + ok),
        "auth": (0b1000, offer + b"334 \r\n235 2.7.0 in\r\n" + ok * 5 + b"354 go\r\n" + ok),
        "helo": (0, b"220 mx\r\n500 what\r\n" + ok * 5 + b"354 go\r\n" + ok),
        "nobody": (0, offer + ok * 2 + refused * 3 + b"354 go\r\n" + refused),
    }
    return {f"remote_{name}": written(mode, 64, 30, wire) for name, (mode, wire) in shapes.items()}


def _chunks() -> dict[str, bytes]:
    """One octet of size, one of switches (7: LAST), then the chunk."""
    shapes = {
        "one": [(b"a: b\r\n\r\nc\r\n", 7)],
        "empty": [(b"", 0), (b"", 7)],
        "divided_line_end": [(b"a: b\r", 0), (b"\n\r", 0), (b"\nc\r\n", 7)],
        "looks_like_commands": [(b"RSET\r\nQUIT\r\nBDAT 5 LAST\r\n", 8), (b".\r\n", 7)],
        "stray": [(b"a\nb", 0), (b"c\r\n", 7), (b"fine\r\n", 7)],
        "nul": [(b"a\0b\r\n", 7), (b"ok", 7)],
        "big": [(b"x" * 78 + b"\r\n", 0)] * 7 + [(b"", 7)],
        "long_line": [(b"x" * 90, 0), (b"\r\n", 7)],
    }
    return {
        f"{name}_{mode}": written(mode, 13, 40, b"".join(bytes((len(each), last)) + each for each, last in chunks))
        for name, chunks in shapes.items()
        for mode in (0, 1, 2, 4, 8)
    }


def write(root: Path) -> None:
    for target, inputs in corpus().items():
        folder = root / target
        folder.mkdir(parents=True, exist_ok=True)
        for stale in folder.glob("*"):
            stale.unlink()
        for name, data in inputs.items():
            (folder / name).write_bytes(data)


if __name__ == "__main__":
    write(Path(__file__).parent / "corpus")
