"""OpenDKIM, Mail::DKIM and Exim beside us: what we sign and seal they verify, what they sign and seal we verify.

OpenDKIM reads messages from files and keys from a table of its own (TestDNSData); Mail::DKIM gets its answers of the
DNS from a file, too. Exim asks a DNS server of the test, which its own /etc/resolv.conf names.
"""

from __future__ import annotations

import re
import shutil
import socket
import subprocess
import threading
from collections.abc import Iterator
from pathlib import Path

import dns.flags
import dns.message
import dns.rcode
import dns.rrset
import pytest

from postroad.trust.dkim_body import Canonicalization
from postroad.trust.dkim_sign import DkimSigner, SigningKey, SigningOptions, public_record
from tests.peers.harness import need
from tests.peers.harness.exim import CACHE as EXIM
from tests.peers.harness.process import own_to
from tests.peers.harness.remote import Remote
from tests.unit.trust.dkim_parts import MESSAGE, NOW_S, Zone, keys, pem, verify
from tests.unit.trust.test_arc import KEYS, sealed, validate

pytestmark = pytest.mark.peer

ALL_KEYS = (*keys(), *KEYS)
RSA = ALL_KEYS[0]
FORMS = [(head, body) for head in Canonicalization for body in Canonicalization]
LATER_S = 2_000_000_000

_PERL_DNS = r"""
use strict; use warnings; use Net::DNS; use Mail::DKIM::DNS;
my %records; open(my $file, '<', shift) or die;
while (<$file>) { chomp; my ($n, $t) = split(/ /, $_, 2); $records{$n} = $t }
no warnings 'redefine';
*Mail::DKIM::DNS::query = sub {
  my ($name, $type) = @_; $name = lc $name;
  return unless $records{$name};
  return Net::DNS::RR->new(name => $name, type => 'TXT', txtdata => [$records{$name} =~ /(.{1,200})/g]);
};
my ($way, @words) = @ARGV; binmode STDIN; binmode STDOUT;
"""
_VERIFY = r"""
use Mail::DKIM::Verifier; use Mail::DKIM::ARC::Verifier;
my $verifier = $way eq 'arc' ? Mail::DKIM::ARC::Verifier->new : Mail::DKIM::Verifier->new;
$verifier->PRINT($_) while <STDIN>; $verifier->CLOSE;
print $way eq 'arc' ? $verifier->result_detail :
  join("\n", map { $_->algorithm . ' ' . $_->result_detail } $verifier->signatures);
"""
_SIGN = r"""
use Mail::DKIM::Signer; use Mail::DKIM::ARC::Signer;
my ($domain, $selector, $key, $method, $chain) = @words;
my $signer = $way eq 'arc'
  ? Mail::DKIM::ARC::Signer->new(Algorithm => 'rsa-sha256', Chain => $chain, Domain => $domain, SrvId => 'mx.example',
      Selector => $selector, KeyFile => $key)
  : Mail::DKIM::Signer->new(Algorithm => 'rsa-sha256', Method => $method, Domain => $domain,
      Selector => $selector, KeyFile => $key);
$signer->PRINT($_) while <STDIN>; $signer->CLOSE;
print $way eq 'arc' ? join("\r\n", $signer->as_strings) : $signer->signature->as_string; print "\r\n";
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    need.root()
    made = tmp_path_factory.mktemp("dkim")
    (made / "dns").write_text("".join(f"{each}\n" for each in _records()))
    for key in ALL_KEYS:
        (made / f"{key.domain}.{key.selector}.pem").write_bytes(pem(key.private))
        (made / f"{key.domain}.{key.selector}.pem").chmod(0o600)
    return made


def _records() -> list[str]:
    return [f"{each.selector}._domainkey.{each.domain} {public_record(each.private)}" for each in ALL_KEYS]


def zone() -> Zone:
    return Zone(dict(each.split(" ", 1) for each in _records()))


def perl(folder: Path, program: str, message: bytes, *words: str) -> bytes:
    if subprocess.run(["perl", "-MMail::DKIM", "-e", ""], capture_output=True, timeout=60, check=False).returncode:
        need.missing("Mail::DKIM is not installed (make peers installs it)")
    source = folder / "program.pl"
    source.write_text(_PERL_DNS + program)
    done = subprocess.run(
        ["perl", str(source), str(folder / "dns"), *words], input=message, capture_output=True, timeout=60, check=False
    )
    assert done.returncode == 0, done.stderr.decode()
    return done.stdout


def opendkim(folder: Path, message: bytes, *lines: str) -> str:
    """What it would do to this message."""
    (folder / "opendkim.conf").write_text("\n".join([f"TestDNSData {folder}/dns", "UserID root", *lines, ""]))
    (folder / "message").write_bytes(message.replace(b"\r\n", b"\n"))
    done = subprocess.run(
        [need.program("opendkim"), "-x", str(folder / "opendkim.conf"), "-vv", "-t", str(folder / "message")],
        stdin=subprocess.DEVNULL, capture_output=True, timeout=60, check=False,
    )  # fmt: skip
    return done.stdout.decode() + done.stderr.decode()


def signed(head: Canonicalization, body: Canonicalization) -> bytes:
    return DkimSigner(keys(), SigningOptions(head=head, body=body)).sign_content(MESSAGE, NOW_S) + MESSAGE


@pytest.mark.parametrize(("head", "body"), FORMS)
def test_opendkim_verifies_what_we_sign(folder: Path, head: Canonicalization, body: Canonicalization) -> None:
    whole = signed(head, body)
    said = opendkim(folder, whole, "Mode v")
    assert re.findall(r"dkim=(\w+)[^;]* header\.a=([\w-]+)", said) == [
        ("pass", "rsa-sha256"), ("pass", "ed25519-sha256"),
    ], said  # fmt: skip
    said = opendkim(folder, whole.replace(b"Subject: A", b"Subject: B"), "Mode v")
    assert re.findall(r"dkim=(\w+)", said)[:2] == ["fail", "fail"], said


# What OpenDKIM 2.11.0~beta2 signs with Ed25519 and simple fields it does not verify itself.
OPENDKIM_SIGNS = [
    (key, head, body) for key in ALL_KEYS[:2] for head, body in FORMS if key is RSA or head.value == "relaxed"
]


@pytest.mark.parametrize(("key", "head", "body"), OPENDKIM_SIGNS)
def test_we_verify_what_opendkim_signs(
    folder: Path, key: SigningKey, head: Canonicalization, body: Canonicalization
) -> None:
    said = opendkim(
        folder, MESSAGE, "Mode s", f"Domain {key.domain}", f"Selector {key.selector}",
        f"KeyFile {folder}/{key.domain}.{key.selector}.pem", f"Canonicalization {head.value}/{body.value}",
        f"SignatureAlgorithm {key.kind.value}-sha256", "OversignHeaders From", "InternalHosts 0.0.0.0/0",
    )  # fmt: skip
    found = re.search(r"hname='DKIM-Signature' hvalue='([^']*)'", said)
    assert found is not None, said
    field = b"DKIM-Signature: " + found[1].strip().encode().replace(b"\n", b"\r\n") + b"\r\n"
    (result,) = verify(field + MESSAGE, zone(), now_s=LATER_S)
    assert (result.result, result.reason, result.algorithm) == ("pass", "", f"{key.kind.value}-sha256")
    (changed,) = verify(field + MESSAGE.replace(b"last", b"lost"), zone(), now_s=LATER_S)
    assert changed.result == "fail"


@pytest.mark.parametrize(("head", "body"), FORMS)
def test_mail_dkim_verifies_what_we_sign(folder: Path, head: Canonicalization, body: Canonicalization) -> None:
    """It does not know Ed25519, and must not mind such a signature beside its own."""
    rsa, ed25519 = perl(folder, _VERIFY, signed(head, body), "dkim").decode().splitlines()
    assert rsa == "rsa-sha256 pass" and ed25519.startswith("ed25519-sha256 invalid (unsupported algorithm")
    changed = perl(folder, _VERIFY, signed(head, body) + b"more\r\n", "dkim").decode()
    assert changed.startswith("rsa-sha256 fail")


@pytest.mark.parametrize(("head", "body"), FORMS)
def test_we_verify_what_mail_dkim_signs(folder: Path, head: Canonicalization, body: Canonicalization) -> None:
    pem_file = f"{folder}/{RSA.domain}.{RSA.selector}.pem"
    words = (RSA.domain, RSA.selector, pem_file, f"{head.value}/{body.value}")
    field = perl(folder, _SIGN, MESSAGE, "dkim", *words)
    (result,) = verify(field + MESSAGE, zone(), now_s=LATER_S)
    assert (result.result, result.reason) == ("pass", "")
    assert verify(field + MESSAGE.replace(b"last", b"lost"), zone(), now_s=LATER_S)[0].result == "fail"


@pytest.mark.parametrize("count", [1, 3])
def test_mail_dkim_validates_what_we_seal(folder: Path, count: int) -> None:
    assert perl(folder, _VERIFY, sealed(count), "arc").startswith(b"pass")
    assert perl(folder, _VERIFY, sealed(count) + b"more\r\n", "arc").startswith(b"fail")


def test_we_validate_what_mail_dkim_seals(folder: Path) -> None:
    """Two sets of it, then one of ours, then it again."""
    whole = MESSAGE
    for number, key in enumerate((*KEYS, KEYS[0])):
        if number == 2:
            whole = sealed(1, whole)
        else:
            chain = "pass" if number else "none"
            results = f"Authentication-Results: mx.example; arc={chain}; spf=pass smtp.mailfrom=a.example\r\n".encode()
            pem_file = f"{folder}/{key.domain}.{key.selector}.pem"
            whole = perl(folder, _SIGN, results + whole, "arc", key.domain, key.selector, pem_file, "", chain) + whole
        found = validate(whole)
        assert (found.result, found.reason, found.instances) == ("pass", "", number + 1)
    assert perl(folder, _VERIFY, whole, "arc").startswith(b"pass")


_EXIM = """\
primary_hostname = mx.example.test
exim_path = {place}/exim4
spool_directory = {place}/spool
log_file_path = {place}/log/%slog
exim_user = Debian-exim
exim_group = Debian-exim
keep_environment =
host_lookup =
queue_only = {queue_only}
acl_smtp_rcpt = accept
acl_smtp_dkim = acl_dkim
acl_smtp_data = accept
begin acl
acl_dkim:
  accept logwrite = judged $dkim_algo $dkim_verify_status
begin routers
out:
  driver = manualroute
  route_list = * 127.0.0.1
  self = send
  transport = remote
begin transports
remote:
  driver = smtp
  port = {port}
  allow_localhost
  dkim_domain = example.org
  dkim_selector = {selector}
  dkim_private_key = {place}/key.pem
  dkim_canon = {canon}
  dkim_hash = sha256
"""


def _answer(query: bytes, records: dict[str, str]) -> bytes:
    asked = dns.message.from_wire(query)
    answer = dns.message.make_response(asked)
    answer.flags |= dns.flags.RA
    name = asked.question[0].name
    record = records.get(name.to_text().rstrip(".").lower())
    if record is None:
        answer.set_rcode(dns.rcode.NXDOMAIN)
    else:
        strings = " ".join(f'"{record[at : at + 200]}"' for at in range(0, len(record), 200))
        answer.answer.append(dns.rrset.from_text(name, 60, "IN", "TXT", strings))
    return answer.to_wire(max_size=4096)


@pytest.fixture
def dns_server() -> Iterator[str]:
    """Answers on port 53, the only one that /etc/resolv.conf can mean, of a loopback address that nobody else has."""
    need.root()
    records = dict(each.split(" ", 1) for each in _records())
    address = next(iter(_free_addresses()))
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        sock.bind((address, 53))
        sock.settimeout(0.2)
        ended = threading.Event()

        def serve() -> None:
            while not ended.is_set():
                try:
                    query, client = sock.recvfrom(4096)
                except TimeoutError:
                    continue
                sock.sendto(_answer(query, records), client)

        thread = threading.Thread(target=serve, daemon=True)
        thread.start()
        yield address
        ended.set()
        thread.join()


def _free_addresses() -> Iterator[str]:
    for number in range(1, 250):
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
            try:
                probe.bind((f"127.88.0.{number}", 53))
            except OSError:
                continue
        yield f"127.88.0.{number}"


def exim(
    place: Path, server: str, message: bytes, *, port: int = 1, key: SigningKey = RSA, canon: str = ""
) -> list[str]:
    """What it says of each signature of a message that comes by SMTP on its standard input. With `canon` it sends the
    message on to this port, signed with this key."""
    binary = EXIM / "usr" / "sbin" / "exim4"
    if not binary.exists():
        need.missing("Exim is not unpacked (make peers does it)")
    for each in ("spool", "log"):
        (place / each).mkdir(exist_ok=True)
        own_to(place / each, "Debian-exim")
    shutil.copy(binary, place / "exim4")
    (place / "exim.conf").write_text(
        _EXIM.format(
            place=place,
            port=port,
            selector=key.selector,
            canon=canon or "simple",
            queue_only="false" if canon else "true",
        )
    )
    (place / "key.pem").write_bytes(pem(key.private))
    own_to(place / "key.pem", "Debian-exim")
    (place / "resolv.conf").write_text(f"nameserver {server}\n")
    (place / "log" / "mainlog").unlink(missing_ok=True)
    commands = b"EHLO x\r\nMAIL FROM:<a@example.org>\r\nRCPT TO:<b@example.test>\r\nDATA\r\n"
    script = f"mount --bind {place}/resolv.conf /etc/resolv.conf && exec {place}/exim4 -C {place}/exim.conf -odi -bs"
    done = subprocess.run(
        ["unshare", "--mount", "sh", "-c", script], input=commands + message + b".\r\nQUIT\r\n",
        capture_output=True, timeout=60, check=False,
    )  # fmt: skip
    assert b"250 OK id=" in done.stdout, (done.stdout, done.stderr)
    return re.findall(r"judged (\S+ \S+)", (place / "log" / "mainlog").read_text())


@pytest.mark.parametrize(("head", "body"), FORMS)
def test_exim_verifies_what_we_sign(
    place: Path, dns_server: str, head: Canonicalization, body: Canonicalization
) -> None:
    need.root()
    place.mkdir(parents=True, exist_ok=True)
    whole = signed(head, body)
    assert sorted(exim(place, dns_server, whole)) == ["ed25519-sha256 pass", "rsa-sha256 pass"]
    changed = whole.replace(b"Subject: A", b"Subject: B")
    assert sorted(exim(place, dns_server, changed)) == ["ed25519-sha256 fail", "rsa-sha256 fail"]


@pytest.mark.parametrize("canon", ["simple", "relaxed"])
@pytest.mark.parametrize("key", keys(), ids=["rsa", "ed25519"])
def test_we_verify_what_exim_signs(place: Path, dns_server: str, key: SigningKey, canon: str) -> None:
    need.root()
    place.mkdir(parents=True, exist_ok=True)
    with Remote() as remote:
        exim(place, dns_server, MESSAGE, port=remote.port, key=key, canon=canon)
        (sent,) = remote.wait()
    assert sent.content.startswith(b"DKIM-Signature:")
    (result,) = verify(sent.content, zone(), now_s=LATER_S)
    assert (result.result, result.reason, result.algorithm) == ("pass", "", f"{key.kind.value}-sha256")
    assert verify(sent.content + b"more\r\n", zone(), now_s=LATER_S)[0].result == "fail"
