"""Every setting reaches a room, and every option of a room can be set."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, get_args, get_origin

import msgspec
import pytest

from postroad.config import options
from postroad.config.field import Section
from postroad.config.load import parse
from postroad.config.settings import Settings
from postroad.mail.address import Address
from postroad.mail.policy import Role
from postroad.mail.route import Destination, TlsDemand, Transport
from postroad.receive.options import ListenerOptions, ListenerTls
from postroad.route import options as route
from postroad.route.table import RoutingTable, destination_of_hop
from postroad.world.tls import CertificateFiles

HEAD = 'hostname = "mail.example.org"\nstate_dir = "state"\n'
WHOLE = """
[[listener]]
name = "mx"
address = ["127.0.0.1", "::1", "unix:/run/mx"]
port = 2525
hello_syntax = true
[[listener]]
name = "submission"
address = "127.0.0.1"
port = 587
role = "submission"
tls = "required"
[tls]
certificate = "a.pem"
key = "a.key"
[[tls.further]]
certificate = "b.pem"
[auth]
users = "users"
[[domain]]
name = "example.org"
recipients = "any"
path = "mail"
"""


def settings(text: str) -> Settings:
    found = parse(HEAD + text, Path("/srv/postroad.toml"), files=False)
    assert isinstance(found, Settings), [str(each) for each in found]
    return found


DEFAULTS = settings("")

BUILDERS: list[tuple[Callable[[Settings], Any], dict[str, Any]]] = [
    (options.auth_options, {}),
    (options.client_options, {}),
    (options.client_tls_options, {}),
    (options.deliver_options, {}),
    (options.dns_options, {}),
    (options.log_options, {}),
    (options.memory_options, {}),
    (options.mx_options, {}),
    (options.queue_options, {}),
    (options.routing_options, {"local": options.routing_options(DEFAULTS).local}),  # postmaster's, by state_dir
    (options.receive_options, {"hostname": "mail.example.org", "default_domain": "mail.example.org"}),
    (options.spool_options, {}),
    (options.srs_options, {}),
    (options.batv_options, {}),
    (options.history_options, {}),
    (options.report_options, {"hostname": "mail.example.org"}),
    (options.origin_options, {"receiver": "mail.example.org"}),
]


@pytest.mark.parametrize(("build", "changed"), BUILDERS, ids=[build.__name__ for build, _ in BUILDERS])
def test_without_a_word_in_the_file_each_room_has_its_own_defaults(
    build: Callable[[Settings], msgspec.Struct], changed: dict[str, Any]
) -> None:
    made = build(DEFAULTS)
    assert made == msgspec.structs.replace(type(made)(), **changed)


def _value(value: Any) -> tuple[str, Any] | None:
    """Another value of the same kind: as it is written, and as the room has it."""
    match value:
        case bool():
            return str(not value).lower(), not value
        case int():
            return str(value + 1), value + 1
        case float():
            return str(value + 0.5), value + 0.5
    return None


# Which room takes the numbers and truths of which table.
SECTIONS: list[tuple[str, Callable[[Settings], Any]]] = [
    ("auth", options.auth_options),
    ("outbound", options.deliver_options),
    ("routing", options.routing_options),
    ("maildir", lambda found: options.deliver_options(found).maildir),
    ("program", lambda found: options.deliver_options(found).program),
    ("mx", options.mx_options),
    ("dns", options.dns_options),
    ("queue", options.queue_options),
    ("store", options.spool_options),
    ("history", options.history_options),
    ("dsn", options.report_options),
    ("dsn", options.report_limits),
    ("log", options.log_options),
    ("srs", options.srs_options),
    ("batv", options.batv_options),
    ("memory", options.memory_options),
    ("receive", options.receive_options),
    ("limits", options.alias_limits),
    ("limits", options.receive_options),
    ("limits", lambda found: options.receive_options(found).limits),
    ("limits", options.client_options),
    ("auth", options.client_options),
    ("bans", options.ban_options),
    ("limits", lambda found: options.policy_options(found, found.listener[0])),
    ("receive", lambda found: options.policy_options(found, found.listener[0])),
    ("checks", options.origin_options),
    ("checks", lambda found: options.origin_options(found).asking),
    ("checks", lambda found: options.origin_options(found).dkim),
]
CHANGES = [
    (section, name, *changed, build)
    for section, build in SECTIONS
    for name, value in getattr(DEFAULTS, section)
    if (changed := _value(value)) and hasattr(build(settings(WHOLE)), name)
]
# These stand at their greatest value already.
CHANGES = [each for each in CHANGES if each[1] not in ("header_size_max",)]


@pytest.mark.parametrize(
    ("section", "name", "text", "value", "build"), CHANGES, ids=[f"{each[0]}.{each[1]}" for each in CHANGES]
)
def test_a_setting_reaches_its_room(
    section: str, name: str, text: str, value: Any, build: Callable[[Settings], Any]
) -> None:
    beside = 'servers = ["127.0.0.1"]\n' if name == "validating" else ""
    found = settings(WHOLE.replace("[auth]", f"[auth]\n{name} = {text}") if section == "auth" else
                     f"{WHOLE}[{section}]\n{name} = {text}\n{beside}")  # fmt: skip
    assert getattr(build(found), name) == value


def test_no_number_or_truth_of_these_tables_is_left_lying() -> None:
    reached = {(section, name) for section, name, *_ in CHANGES}
    sections = {section for section, _ in SECTIONS}
    left = [
        f"{section}.{name}"
        for section in sorted(sections)
        for name, value in getattr(DEFAULTS, section)
        if _value(value) and (section, name) not in reached
    ]
    assert left == ["checks.clock_skew_s", "limits.header_size_max"]


# Keys that are no field of a room: `config` or `node` works out what follows from them.
OWN = """
hostname state_dir user group workers shutdown_s worker_hang_s postmaster aliases alias_maps
listener.address listener.client_certificates listener.client_ca_file listener.client_certificate_purpose
tls.certificate tls.key tls.client_ca_file tls.further.certificate tls.further.key tls.next_certificates
outbound.tls.certificate outbound.tls.key
auth.users auth.sender_maps auth.dovecot auth.function auth.introspection.client_secret_file
domain.deliver domain.username domain.password_file relay.domains
next_hop.username next_hop.password next_hop.password_file next_hop.token_file next_hop.token_command
next_hop.mechanism next_hop.cram_md5 next_hop.auth_without_tls
"""


def _undeclared(section: type[Section], path: str = "") -> Iterator[str]:
    for key, info in section.model_fields.items():
        inner = get_args(info.annotation)[0] if get_origin(info.annotation) is tuple else info.annotation
        if isinstance(inner, type) and issubclass(inner, Section):
            yield from _undeclared(inner, f"{path}{key}.")
        elif "field" not in info.json_schema_extra:
            yield path + key


def test_a_key_names_the_field_of_the_room_that_obeys_it() -> None:
    assert set(_undeclared(Settings)) == set(OWN.split())


def test_a_listener_is_one_for_each_address() -> None:
    found = options.listener_options(settings(WHOLE))
    mx = ListenerOptions("mx", Role.MX, tls=ListenerTls.STARTTLS, complete_domain=settings(WHOLE).hostname)
    assert found == (
        msgspec.structs.replace(mx, address="127.0.0.1", port=2525),
        msgspec.structs.replace(mx, address="::1", port=2525),
        msgspec.structs.replace(mx, port=2525, path="/run/mx"),
        ListenerOptions(
            "submission",
            Role.SUBMISSION,
            address="127.0.0.1",
            port=587,
            tls=ListenerTls.REQUIRED,
            auth=True,
            loose_paths=True,
            complete_domain=settings(WHOLE).hostname,
        ),
    )


def test_rules_are_those_of_the_listener() -> None:
    found = settings(WHOLE)
    assert [options.policy_options(found, each).hello_syntax for each in found.listener] == [True, False]


def test_certificates_are_those_named_the_first_one_first() -> None:
    made = options.server_tls_options(settings(WHOLE))
    assert made is not None
    assert made.certificates == (CertificateFiles("/srv/a.pem", "/srv/a.key"), CertificateFiles("/srv/b.pem", ""))
    assert options.server_tls_options(DEFAULTS) is None


def test_our_own_certificate_goes_out_where_one_is_named() -> None:
    found = settings('[outbound.tls]\ncertificate = "c.pem"\nca_file = "r.pem"\n')
    made = options.client_tls_options(found)
    assert (made.certificate, made.ca_file) == (CertificateFiles("/srv/c.pem", ""), "/srv/r.pem")


def test_the_bare_postmaster_belongs_to_the_first_domain() -> None:
    assert options.receive_options(settings(WHOLE)).default_domain == "example.org"
    named = settings(WHOLE + '[receive]\ndefault_domain = "Example.net"\n')
    assert options.receive_options(named).default_domain == "example.net"


def test_an_option_that_no_section_has_is_an_error() -> None:
    class Options(msgspec.Struct, frozen=True):
        forgotten: int = 1

    with pytest.raises(LookupError, match=r"Options\.forgotten"):
        options._into(Options, DEFAULTS.queue)


def test_the_routing_table_has_domains_relay_domains_and_next_hops() -> None:
    found = settings(
        """
[[domain]]
name = "a.example"
recipients = "any"
path = "mail/{local_part}"
[[domain]]
name = "b.example"
recipients = ["x"]
deliver = "lmtp"
socket = "lmtp"
[relay]
domains = [".c.example"]
[[relay.domain]]
name = "d.example"
recipients_file = "d"
[[next_hop]]
domain = "*"
host = "smtp.example"
port = 587
tls = "verify"
username = "u"
password = "p"
[[next_hop]]
domain = "e.example"
tls = "encrypt"
"""
    )
    made = options.routing_options(found)
    assert made.local == (
        route.LocalDomain("a.example", ("any",), path="/srv/mail/{local_part}"),
        route.LocalDomain("b.example", ("x",), deliver=Transport.LMTP, socket="/srv/lmtp"),
    )
    assert made.relay == (route.RelayDomain(".c.example"), route.RelayDomain("d.example", (), "/srv/d"))
    assert made.next_hops == (
        route.NextHop("*", "smtp.example", 587, tls=TlsDemand.VERIFY, credentials="*"),
        route.NextHop("e.example", tls=TlsDemand.ENCRYPT),
    )


def test_a_domain_with_a_pace_is_a_destination_of_its_own_behind_a_next_hop() -> None:
    """Else its limits would be those of nobody: a next hop is one destination for all its domains."""
    written = settings(
        """
[[next_hop]]
domain = "*"
host = "smtp.isp.example"
[[pace]]
domain = ["slow.example", ".below.example"]
rate = "2/1m"
[[pace]]
domain = "*"
connections_max = 4
"""
    )
    table = RoutingTable(options.routing_options(written))
    limits = options.pace_table(written)
    rated = {}
    for domain in ("slow.example", "a.below.example", "other.example"):
        found = table.destination(Address("x", domain))
        assert isinstance(found, Destination)
        rated[found.key] = limits.of(found).rated
    assert rated == {
        "[smtp.isp.example]:25/@slow.example": ("[smtp.isp.example]:25/@slow.example",),
        "[smtp.isp.example]:25/@a.below.example": ("[smtp.isp.example]:25/@a.below.example",),
        "[smtp.isp.example]:25": (),
    }


def test_two_accounts_for_mail_of_the_same_senders_are_two_destinations() -> None:
    """Else a connection that was opened with one account would carry mail of the other."""
    account = 'username = "{0}"\npassword = "{0}"\ntls = "verify"\n'
    table = '[[next_hop]]\ndomain = "*"\nhost = "smtp.example"\n'
    written = settings(
        table + account.format("a")
        + table + 'size_min = "1M"\n' + account.format("b")
        + table + 'classes = "bulk"\n' + account.format("c")
        + table + 'senders = "x.example"\n' + account.format("d")
    )
    hops = options.routing_options(written).next_hops
    assert len({hop.credentials for hop in hops}) == 4
    assert len({destination_of_hop(hop).key for hop in hops}) == 4


def test_clocks_of_signers() -> None:
    assert options.origin_options(settings('[checks]\nclock_skew_s = "10m"\n')).dkim.skew_s == 600


def test_who_checks_where_mail_comes_from() -> None:
    """Mail from anywhere is marked; mail of clients that are known, and by LMTP, is left alone."""
    listeners = (
        '[[listener]]\nname = "a"\nport = 1025\n'
        '[[listener]]\nname = "b"\nport = 1026\nrole = "relay"\ntrusted_networks = "192.0.2.0/24"\n'
        '[[listener]]\nname = "c"\nport = 1027\nprotocol = "lmtp"\n'
        '[[listener]]\nname = "d"\nport = 1028\nspf = "enforce"\ndmarc = "off"\n'
        '[[domain]]\nname = "example.org"\nrecipients = "any"\npath = "mail/{local_part}"\n'
    )
    made = settings(listeners)
    found = [options.origin_checks(each) for each in made.listener]
    modes = [[each.spf.value, each.dkim.value, each.dmarc.value, each.arc.value, each.iprev.value] for each in found]
    assert modes == [["mark"] * 5, ["off"] * 5, ["off"] * 5, ["enforce", "mark", "off", "mark", "mark"]]
    assert [each.wanted for each in found] == [True, False, False, True]
    common = options.origin_options(made)
    assert (common.receiver, common.authserv_id) == ("mail.example.org", "")
    assert common.exempt_networks == ("127.0.0.0/8", "::1/128") and common.exempt_accounts == ("*",)


def test_how_much_tls_is_demanded_of_servers_found_by_mx() -> None:
    """DANE and MTA-STS, if the operator has named resolvers that validate."""
    named = '[dns]\nservers = ["127.0.0.1"]\n'
    assert options.routing_options(settings("")).tls is TlsDemand.MAY
    assert options.routing_options(settings(named)).tls is TlsDemand.MAY
    assert options.routing_options(settings(f"{named}validating = true\n")).tls is TlsDemand.STS
    set_otherwise = f'{named}validating = true\n[routing]\ntls = "may"\n'
    assert options.routing_options(settings(set_otherwise)).tls is TlsDemand.MAY
