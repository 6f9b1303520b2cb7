"""What new settings mean for a session that is open, and what another client (XCLIENT) takes over: nothing."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from msgspec.structs import replace

from postroad.accounts.authenticate import AuthOptions
from postroad.check import policy
from postroad.check.policy import PolicyOptions
from postroad.mail.envelope import Via
from postroad.mail.event import Refused, SessionEnded
from postroad.mail.policy import Role, Rules, reject
from postroad.protocol.limits import ProtocolLimits
from postroad.protocol.offer import Dialect
from postroad.receive.client import Client as Known
from postroad.receive.client import obstacle
from postroad.receive.options import ExtensionOptions, ListenerOptions, ListenerTls, Proxy, ReceiveOptions
from postroad.receive.setup import listener_setup
from postroad.world.tls import ClientCertificatePolicy, ClientCertificates
from postroad.world.tls_facts import Certificate, TlsFacts
from tests.unit.accounts.test_accounts import HASHER, change
from tests.unit.receive.fakes import KNOWN, Client, House, opened, with_door
from tests.unit.receive.test_auth import PASSWORD, PLAIN, authenticator, house_of, wait
from tests.unit.receive.test_session import MESSAGE

NETWORK = "192.0.2.0/24"  # of the client of `fakes`
NAMED = "203.0.113.0/24"  # of clients that it names
ELSEWHERE = "10.0.0.0/8"
OUT = ("MAIL FROM:<a@b.test>", "RCPT TO:<x@elsewhere.test>")
OPTIONS = ReceiveOptions(hostname="mx.local.test", default_domain="local.test")


def relay(**more: Any) -> ListenerOptions:
    return ListenerOptions("front", Role.RELAY, **{"trusted_networks": (NETWORK,), **more})


def reload(
    house: House, listener: ListenerOptions, options: ReceiveOptions = OPTIONS, *, more: dict[str, Any] | None = None
) -> None:
    """The listener has other settings from here on. `more`: other doors."""
    doors = house.doors
    for name, value in (more or {}).items():
        doors = with_door(doors, name, value)
    lmtp = listener.protocol is Dialect.LMTP
    rules = policy.rules(listener.role, PolicyOptions(), KNOWN, lmtp=lmtp)
    house.listener.take(listener_setup(listener, options, rules, doors))


def trusted(**more: Any) -> tuple[House, Client]:
    house = House(listener=relay(**more))
    client = opened(house)
    assert client.codes(*OUT, "RSET") == ["250 2.1.0", "250 2.1.5", "250 2.0.0"]
    return house, client


# ---- trust


@pytest.mark.parametrize("ehlo", [(), ("EHLO client.test",)])
def test_trust_that_was_taken_back_is_gone_at_the_next_transaction(ehlo: tuple[str, ...]) -> None:
    house, client = trusted()
    reload(house, relay(trusted_networks=(ELSEWHERE,)))
    assert client.codes(*ehlo, *OUT)[len(ehlo) :] == ["250 2.1.0", "550 5.7.1"]


def test_trust_that_was_given_is_there_at_the_next_transaction() -> None:
    house = House(listener=relay(trusted_networks=(ELSEWHERE,)))
    client = opened(house)
    assert client.codes(*OUT, "RSET") == ["250 2.1.0", "550 5.7.1", "250 2.0.0"]
    reload(house, relay())
    assert client.codes(*OUT) == ["250 2.1.0", "250 2.1.5"]


@pytest.mark.parametrize("at", ["RCPT", "DATA", "."])
@pytest.mark.parametrize("dialect", list(Dialect))
def test_a_transaction_ends_where_its_client_loses_its_trust(at: str, dialect: Dialect) -> None:
    house = House(listener=relay(protocol=dialect))
    client = opened(house, "LHLO a.test" if dialect is Dialect.LMTP else "EHLO a.test")
    client.codes("MAIL FROM:<a@b.test>", "RCPT TO:<ann@local.test>")
    if at != "RCPT":
        client.codes("RCPT TO:<bob@local.test>")
    if at == ".":
        client.say("DATA\r\n")
    reload(house, relay(trusted_networks=(ELSEWHERE,), protocol=dialect))
    said = {"RCPT": "RCPT TO:<bob@local.test>\r\n", "DATA": "DATA\r\n", ".": MESSAGE + b".\r\n"}[at]
    answers = client.say(said).split("\n")
    assert [answer[:9] for answer in answers] == ["451 4.7.1"] * (2 if at == "." and dialect is Dialect.LMTP else 1)
    assert not house.spool.stored
    assert [event.phase for event in house.recorded if isinstance(event, Refused)] == ["DATA" if at == "." else at]
    hello = "LHLO" if dialect is Dialect.LMTP else "EHLO"
    client.codes("RSET", f"{hello} a.test", "MAIL FROM:<a@b.test>", "RCPT TO:<ann@local.test>", "DATA")
    assert client.say(MESSAGE + b".\r\n").startswith("250"), "it comes again, as who it is now"


def test_content_in_chunks_ends_as_well() -> None:
    house, client = trusted()
    client.codes(*OUT, "BDAT 3\r\nabc")
    reload(house, relay(trusted_networks=(ELSEWHERE,)))
    assert client.say("BDAT 5 LAST\r\ndef\r\n")[:9] == "451 4.7.1"
    assert not house.spool.stored


def test_a_stranger_loses_nothing_in_the_midst_of_its_message() -> None:
    house = House(listener=relay(trusted_networks=(ELSEWHERE,)))
    client = opened(house)
    client.codes("MAIL FROM:<a@b.test>", "RCPT TO:<ann@local.test>", "DATA")
    reload(house, relay(trusted_networks=()))
    assert client.say(MESSAGE + b".\r\n").startswith("250")


def test_a_certificate_proves_nothing_where_others_are_asked_for() -> None:
    asking = ClientCertificatePolicy(ClientCertificates.ASKED, "/a")
    house = House(listener=relay(asking=asking, trusted_certificates=("ab",)))
    made = house.listener.setup
    client = Known("198.51.100.1", 1, None, trusted=False, since=0.0, since_us=0)
    client.secured(TlsFacts("TLSv1.3", certificate=Certificate(sha256="ab"), verified=True), asking, bindable=True)
    client.look(made)
    assert client.trusted
    asked_otherwise = replace(made.listener, asking=ClientCertificatePolicy(ClientCertificates.ASKED, "/b"))
    other = listener_setup(asked_otherwise, OPTIONS, made.rules, made.doors)
    assert client.has_lost_a_right(other)
    client.look(other)
    assert not client.trusted


# ---- who speaks for others


def test_the_right_to_speak_for_others_is_gone() -> None:
    house, client = trusted(xclient_networks=(NETWORK,), xforward_networks=(NETWORK,))
    reload(house, relay())
    assert client.codes("XCLIENT ADDR=203.0.113.1", "XFORWARD ADDR=203.0.113.1") == ["500 5.5.2", "500 5.5.2"]
    assert not {"XCLIENT", "XFORWARD"} & set(client.say("EHLO client.test\r\n").replace("-", " ").split())


def test_whom_xclient_named_cannot_stay_where_it_is_not_allowed_any_more() -> None:
    house, client = trusted(xclient_networks=(NETWORK,))
    client.codes("XCLIENT ADDR=203.0.113.1 LOGIN=ann", "EHLO a.test")
    reload(house, relay())
    assert client.say("MAIL FROM:<a@b.test>\r\n")[:9] == "421 4.3.2"
    assert client.transport.closed


def test_another_client_takes_over_nothing() -> None:
    """The next client does not pay for the one before: neither its errors nor its refusals nor its idle commands."""
    listener = ListenerOptions("front", Role.MX, xclient_networks=(NETWORK, NAMED))
    limits = ProtocolLimits(errors_max=3, idle_commands_max=12)
    house = House(listener=listener, options=replace(OPTIONS, limits=limits, unknown_recipients_max=2, refusals_max=2))
    client = opened(house)
    for number in range(1, 5):
        assert client.codes(f"XCLIENT ADDR=203.0.113.{number}", "EHLO a.test") == ["220 mx.local.test", "250 XCLIENT"]
        assert client.codes("NONSENSE", "NONSENSE") == ["500 5.5.2"] * 2
        assert client.codes("MAIL FROM:<a@b.test>", "RCPT TO:<no@local.test>", "RCPT TO:<no@local.test>", "RSET") == [
            "250 2.1.0", "550 5.1.1", "550 5.1.1", "250 2.0.0",
        ]  # fmt: skip
        assert client.codes(*["NOOP"] * 8) == ["250 2.0.0"] * 8
    client.hang_up()
    ended = [(event.peer.address, event.errors) for event in house.logged if isinstance(event, SessionEnded)]
    assert ended == [(f"203.0.113.{number}", 2) for number in range(1, 5)], "the log tells of each for itself"


def test_another_client_has_as_many_commands_as_any_but_naming_others_comes_to_an_end() -> None:
    listener = ListenerOptions("front", Role.MX, xclient_networks=(NETWORK, NAMED))
    few = replace(OPTIONS, limits=ProtocolLimits(commands_max=1_000, recipients_max=100))
    client = opened(House(listener=listener, options=few))
    for number in range(1, 31):  # 3,150 commands
        assert client.codes(f"XCLIENT ADDR=203.0.113.{number}", "EHLO a.test") == ["220 mx.local.test", "250 XCLIENT"]
        answers = client.codes("MAIL FROM:<a@b.test>", *["RCPT TO:<ann@local.test>"] * 101, "RSET")
        assert answers[-2:] == ["452 4.5.3", "250 2.0.0"]
    client = opened(House(listener=listener, options=few))
    count = 0
    while client.codes("XCLIENT ADDR=203.0.113.1", "EHLO a.test")[0] == "220 mx.local.test" and count < 2_000:
        count += 1
    assert 500 < count < 1_200 and client.transport.closed


def test_octets_that_were_thrown_away_are_not_those_of_another_client() -> None:
    listener = ListenerOptions("front", Role.MX, xclient_networks=(NETWORK, NAMED))
    few = replace(OPTIONS, limits=ProtocolLimits(size_max=65_536, swallow_max=1_048_576))
    client = opened(House(listener=listener, options=few))
    for number in range(1, 5):
        assert client.codes(f"XCLIENT ADDR=203.0.113.{number}", "EHLO a.test") == ["220 mx.local.test", "250 XCLIENT"]
        client.codes("MAIL FROM:<a@b.test>", "RCPT TO:<ann@local.test>", "DATA")
        assert client.say((b"x" * 98 + b"\r\n") * 1_000) == "", "refused from here on"
        assert client.say((b"x" * 98 + b"\r\n") * 7_000) == ""
        assert client.say("\r\n.\r\n")[:9] == "552 5.3.4"


def test_a_client_known_better_is_still_the_same() -> None:
    listener = ListenerOptions("front", Role.MX, xclient_networks=(NETWORK,))
    house = House(listener=listener, options=replace(OPTIONS, limits=ProtocolLimits(errors_max=3)))
    client = opened(house)
    answers = [client.codes("NONSENSE", "XCLIENT NAME=a.example", "EHLO a.test")[0] for _ in range(4)]
    assert answers == ["500 5.5.2"] * 3 + ["421 4.7.0"]


def test_the_certificate_of_a_proxy_is_not_that_of_its_client() -> None:
    asking = ClientCertificatePolicy(ClientCertificates.ASKED, "/a")
    listener = relay(asking=asking, trusted_certificates=("ab",), xclient_networks=(NETWORK,))
    house = House(listener=listener)
    client = house.client()
    dialog = client.session._dialog
    assert dialog is not None
    shown = TlsFacts("TLSv1.3", certificate=Certificate(subject="CN=proxy", sha256="ab"), verified=True)
    dialog.client.secured(shown, asking, bindable=True)
    client.codes("EHLO proxy.test", "XCLIENT ADDR=198.51.100.1", "EHLO a.test")
    told = dialog.who()
    assert told.tls == "TLSv1.3" and told.tls_details is not None and not told.tls_details.subject
    reload(house, replace(listener, vrfy=listener.vrfy))
    assert client.codes(*OUT) == ["250 2.1.0", "550 5.7.1"], "nor is it trusted for it after a reload"


# ---- accounts


def test_an_account_that_is_gone_is_logged_out(tmp_path: Path) -> None:
    """Not only for its own addresses: a null reverse-path would still be relayed."""
    house = house_of(tmp_path)
    client = opened(house)
    assert wait(client, PLAIN) == "235 2.7.0"
    assert client.codes("MAIL FROM:<>", "RSET") == ["250 2.1.0", "250 2.0.0"]
    change(tmp_path / "users", f"bob:{HASHER.hash('x')}\n", 2)
    known = house.doors.knowing.authenticator
    assert known is not None and known._known is not None
    known._known.refresh()
    assert client.codes("MAIL FROM:<>") == ["530 5.7.0"]
    assert "AUTH" in client.say("EHLO client.test\r\n")
    change(tmp_path / "users", f"ann:{HASHER.hash(PASSWORD)}\n", 3)
    assert wait(client, PLAIN) == "235 2.7.0", "it may log in again where it is known again"


def test_who_logged_in_by_a_backend_that_is_gone_is_logged_out(tmp_path: Path) -> None:
    house = house_of(tmp_path)
    client = opened(house)
    assert wait(client, PLAIN) == "235 2.7.0"
    other = authenticator(tmp_path, house.loop, AuthOptions())
    other._backends = {"dovecot /run/auth": other._backends["users"]}
    reload(house, house.listener_options, more={"authenticator": other})
    assert client.codes("MAIL FROM:<ann@local.test>") == ["530 5.7.0"]


def test_who_logged_in_stays_so_where_the_same_is_asked(tmp_path: Path) -> None:
    house = house_of(tmp_path)
    client = opened(house)
    assert wait(client, PLAIN) == "235 2.7.0"
    reload(house, house.listener_options, more={"authenticator": authenticator(tmp_path, house.loop, AuthOptions())})
    assert client.codes("MAIL FROM:<ann@local.test>") == ["250 2.1.0"]


# ---- TLS demands


def test_tls_is_demanded_from_now_on() -> None:
    house = House(listener=relay(tls=ListenerTls.STARTTLS), tls_context=lambda asking: object())
    client = opened(house)
    client.codes("MAIL FROM:<a@b.test>", "RSET")
    reload(house, relay(tls=ListenerTls.REQUIRED))
    assert client.codes("MAIL FROM:<a@b.test>", "NOOP") == ["530 5.7.0", "250 2.0.0"]


@pytest.mark.parametrize(
    "changed",
    [
        relay(tls=ListenerTls.IMPLICIT),
        relay(protocol=Dialect.LMTP),
    ],
    ids=["implicit TLS", "LMTP"],
)
def test_a_session_that_cannot_go_on_is_told_to_come_again(changed: ListenerOptions) -> None:
    house, client = trusted()
    reload(house, changed)
    assert client.say("MAIL FROM:<a@b.test>\r\n") == (
        "421 4.3.2 The settings of this service have changed, connect again"
    )
    assert client.transport.closed
    client.hang_up()
    assert house.clients.sessions == 0


def test_what_stands_in_the_way_of_a_session() -> None:
    asked, demanded = (
        ClientCertificatePolicy(ClientCertificates.ASKED, "/a"),
        ClientCertificatePolicy(ClientCertificates.DEMANDED, "/a"),
    )
    made = House(listener=relay()).listener.setup

    def why(listener: ListenerOptions, client: Known, proxy: Any = None) -> str:
        changed = listener_setup(listener, OPTIONS, made.rules, made.doors)
        return obstacle(client, changed, made, proxy=proxy, xclient=False)

    def client(asking: ClientCertificatePolicy | None = None, *, bindable: bool = True) -> Known:
        found = Known("198.51.100.1", 1, None, trusted=False, since=0.0, since_us=0)
        if asking is not None:
            found.secured(TlsFacts("TLSv1.3"), asking, bindable=bindable)
        return found

    assert why(relay(), client()) == ""
    assert "certificate" in why(relay(asking=demanded), client(asked))
    assert why(relay(asking=demanded), client(demanded)) == ""
    assert why(relay(asking=demanded), client()) == "", "STARTTLS will ask"
    assert "TLS of the proxy" in why(relay(proxy_tls=False), client(ClientCertificatePolicy(), bindable=False))
    proxy = Via("PROXY v2", "192.0.2.9", 1)
    assert "proxy" in why(relay(), client(), proxy)
    assert "proxy" in why(relay(proxy=Proxy.ANY, proxy_networks=(ELSEWHERE,)), client(), proxy)
    assert why(relay(proxy=Proxy.ANY, proxy_networks=(NETWORK,)), client(), proxy) == ""


# ---- limits and keywords


def test_new_limits_hold_for_the_next_transaction() -> None:
    house, client = trusted()
    reload(house, relay(), replace(OPTIONS, limits=ProtocolLimits(size_max=65_536)))
    assert client.codes("MAIL FROM:<a@b.test> SIZE=70000") == ["552 5.3.4"]
    assert "SIZE 65536" in client.say("EHLO client.test\r\n")


def test_limits_below_what_was_used_end_the_session_at_the_next_transaction() -> None:
    house, client = trusted()
    client.codes("MAIL FROM:<a@b.test>", "RSET", "MAIL FROM:<a@b.test>")
    reload(house, relay(), replace(OPTIONS, limits=ProtocolLimits(transactions_max=2)))
    assert client.codes("RCPT TO:<x@elsewhere.test>", "RSET") == ["250 2.1.5", "250 2.0.0"], "one under way goes on"
    assert client.codes("MAIL FROM:<a@b.test>") == ["421 4.7.0"]


@pytest.mark.parametrize(("before", "now", "left"), [(10_000, 1_000, 1_000), (1_000, 2_000, 2_000)])
def test_a_new_limit_of_commands_holds_for_a_session_that_is_open(before: int, now: int, left: int) -> None:
    house = House(
        listener=relay(), options=replace(OPTIONS, limits=ProtocolLimits(commands_max=before, recipients_max=100))
    )
    client = opened(house)
    reload(house, relay(), replace(OPTIONS, limits=ProtocolLimits(commands_max=now, recipients_max=100)))
    assert client.codes("MAIL FROM:<a@b.test>") == ["250 2.1.0"]
    answers = client.codes(*["RCPT TO:<x@elsewhere.test>"] * (left + 98))  # with EHLO and MAIL
    assert answers[-1] == "452 4.5.3" and client.codes("RSET") == ["421 4.7.0"]


def test_recipients_are_counted_by_the_limit_of_their_transaction() -> None:
    house, client = trusted()
    client.codes("MAIL FROM:<a@b.test>", *["RCPT TO:<x@elsewhere.test>"] * 101)
    reload(house, relay(), replace(OPTIONS, limits=ProtocolLimits(recipients_max=100)))
    assert client.codes("RCPT TO:<x@elsewhere.test>") == ["250 2.1.5"]
    client.codes("RSET", "MAIL FROM:<a@b.test>", *["RCPT TO:<x@elsewhere.test>"] * 100)
    assert client.codes("RCPT TO:<x@elsewhere.test>") == ["452 4.5.3"]


WITHOUT = replace(OPTIONS, extensions=ExtensionOptions(deliver_by=False, rrvs=False))


@pytest.mark.parametrize("pipelined", [False, True])
def test_a_parameter_that_has_vanished_is_refused_for_now(pipelined: bool) -> None:
    """EHLO has promised it, so a permanent refusal would be a lie: 451, and the client may say EHLO again."""
    house, client = trusted()
    if pipelined:  # it is on its way while the message before it is being committed
        house.spool.patient = True
        client.codes("MAIL FROM:<a@b.test>", "RCPT TO:<ann@local.test>", "DATA")
        assert client.say(MESSAGE + b".\r\nMAIL FROM:<a@b.test> BY=120;R\r\n") == ""
        reload(house, relay(), WITHOUT)
        house.spool.commit()
        first, second = client.heard().decode().split("\r\n")[:2]
        assert first[:9] == "250 2.0.0" and second[:9] == "451 4.3.2"
    else:
        reload(house, relay(), WITHOUT)
        assert client.codes("MAIL FROM:<a@b.test> BY=120;R") == ["451 4.3.2"]
    assert client.codes("MAIL FROM:<a@b.test>") == ["250 2.1.0"], "without it, nothing is in the way"
    since = "RRVS=2014-04-03T23:01:00Z"
    assert client.codes(f"RCPT TO:<ann@local.test> {since}", "RCPT TO:<ann@local.test>") == ["451 4.3.2", "250 2.1.5"]
    assert "DELIVERBY" not in client.say("EHLO client.test\r\n")
    assert client.codes("MAIL FROM:<a@b.test> BY=120;R") == ["555 5.5.4"], "a new EHLO has not promised it"


def test_a_new_keyword_has_to_be_announced_first() -> None:
    house = House(listener=relay(), options=WITHOUT)
    client = opened(house)
    reload(house, relay(), OPTIONS)
    assert client.codes("MAIL FROM:<a@b.test> BY=120;R") == ["555 5.5.4"]
    assert "DELIVERBY" in client.say("EHLO client.test\r\n")
    assert client.codes("MAIL FROM:<a@b.test> BY=120;R") == ["250 2.1.0"]


def test_ehlo_in_the_midst_of_a_transaction_tells_what_holds_now() -> None:
    house, client = trusted()
    client.codes(*OUT)
    reload(house, relay(trusted_networks=(ELSEWHERE,)), WITHOUT)
    assert "DELIVERBY" not in client.say("EHLO client.test\r\n")
    assert client.codes(*OUT) == ["250 2.1.0", "550 5.7.1"]


def test_a_session_that_may_only_quit_may_do_no_more_after_a_reload() -> None:
    refusing = House(rules=Rules(connect=lambda context: reject(554, "5.7.1", "no", "no")))
    client = refusing.client()
    reload(refusing, refusing.listener_options)
    assert client.codes("EHLO a.test", "QUIT") == ["503 5.5.1", "221 2.0.0"]


def test_a_loose_path_with_a_parameter_that_has_vanished_is_refused_for_now() -> None:
    house = House(listener=relay(loose_paths=True))
    client = opened(house)
    reload(house, relay(loose_paths=True), WITHOUT)
    assert client.codes("MAIL FROM:<a@b.test>") == ["250 2.1.0"]
    for path in ("x@elsewhere.test", "x..y@elsewhere.test"):
        assert client.codes(f"RCPT TO:<{path}> RRVS=2014-04-03T23:01:00Z") == ["451 4.3.2"]
