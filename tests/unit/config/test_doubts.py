"""What is allowed and yet hardly meant."""

from __future__ import annotations

import datetime
import os
import socket
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import trustme

from postroad.config import map_values
from postroad.config.load import parse, warnings
from postroad.config.settings import Settings
from tests.unit.rights import folder_for_all

RIGHT = """\
hostname = "mail.example.org"
state_dir = "state"
user = "root"
postmaster = "ada@example.org"

[[listener]]
name = "mx"

[[domain]]
name = "example.org"
recipients = "any"
path = "mail/{domain}/{local_part}"
"""


@pytest.fixture
def open_folder() -> Iterator[Path]:
    with folder_for_all() as folder:
        yield folder


def told(folder: Path, text: str, now_s: float | None = None) -> list[str]:
    """The warnings, each from its key on."""
    file = folder / "postroad.toml"
    file.write_text(text)
    found = parse(text, file)
    assert isinstance(found, Settings), [str(each) for each in found]
    lines = map(str, warnings(file, found, time.time() if now_s is None else now_s))
    return [line.partition(": ")[2] for line in lines]


def test_of_what_is_as_it_should_be_nothing_is_said(tmp_path: Path) -> None:
    assert told(tmp_path, RIGHT) == []


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("mail", "'mail' is not a fully qualified name"),
        ("localhost", "'localhost' is not a fully qualified name"),
        ("mail.localdomain", "'mail.localdomain' is a name that does not exist in the Internet"),
        ("mail.home.arpa", "'mail.home.arpa' is a name that does not exist in the Internet"),
    ],
)
def test_a_hostname_that_nobody_else_knows(tmp_path: Path, name: str, text: str) -> None:
    (line,) = told(tmp_path, RIGHT.replace("mail.example.org", name))
    assert line.startswith(f"hostname: {text}. Write the name")


def test_a_certificate_out_of_its_time(tmp_path: Path) -> None:
    until = datetime.datetime(2031, 3, 9, 12, tzinfo=datetime.UTC)
    authority = trustme.CA()
    authority.issue_cert("mail.example.org", not_after=until).private_key_and_cert_chain_pem.write_to_path(
        tmp_path / "tls.pem"
    )
    (tmp_path / "tls.pem").chmod(0o640)
    text = f'{RIGHT}[tls]\ncertificate = "tls.pem"\n'
    end_s = until.timestamp()
    for now_s, said in (
        (end_s - 8 * 86_400, ""),
        (end_s - 6 * 86_400, "the certificate expires on 2031-03-09 12:00 UTC."),
        (end_s, "the certificate expired on 2031-03-09 12:00 UTC."),
        (0, "the certificate is not valid before "),
    ):
        lines = told(tmp_path, text, now_s)
        assert [said in line and line.startswith("tls.certificate: ") for line in lines] == ([True] if said else [])


@pytest.mark.parametrize(
    ("url", "warned"),
    [
        ("http://login.example.org/introspect", True), ("http://192.0.2.1:8080/", True),
        ("https://login.example.org/introspect", False), ("http://localhost:8080/", False),
        ("http://127.0.0.9/", False), ("http://[::1]/", False),
    ],
)  # fmt: skip
def test_tokens_in_the_plain(tmp_path: Path, url: str, warned: bool) -> None:
    lines = told(tmp_path, f'{RIGHT}[auth.introspection]\nurl = "{url}"\n')
    assert [line.startswith("auth.introspection.url: Tokens") for line in lines] == ([True] if warned else [])


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can look with the rights of another user")
def test_a_dovecot_that_is_not_there(tmp_path: Path) -> None:
    (line,) = told(tmp_path, RIGHT.replace("[[domain]]", '[auth]\ndovecot = "none"\n[[domain]]', 1))
    assert line.startswith(f"auth.dovecot: The socket {tmp_path}/none does not exist")
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind(str(tmp_path / "none"))
        assert told(tmp_path, RIGHT.replace("[[domain]]", '[auth]\ndovecot = "none"\n[[domain]]', 1)) == []


@pytest.mark.parametrize(
    ("recipients", "warned"), [('"all"', True), ('["*"]', True), ('["all", "bob"]', False), ('"any"', False)]
)
def test_a_word_that_means_one_mailbox(tmp_path: Path, recipients: str, warned: bool) -> None:
    lines = told(tmp_path, RIGHT.replace('"any"', recipients).replace("ada@example.org", "ada@example.net"))
    assert [line.partition(":")[0] for line in lines] == ["domain[1].recipients"] * warned


@pytest.mark.parametrize(
    ("address", "host", "warned"),
    [
        ("127.0.0.1", "127.0.0.1", True),
        ("127.0.0.1", "localhost", True),
        ("0.0.0.0", "127.0.0.1", True),
        ("::", "localhost", True),
        ("192.0.2.1", "mail.example.org", True),
        ("192.0.2.1", "127.0.0.1", False),
        ("127.0.0.1", "smtp.example.net", False),
    ],
)
def test_a_next_hop_that_is_this_node(tmp_path: Path, address: str, host: str, warned: bool) -> None:
    listener = f'[[listener]]\nname = "in"\naddress = "{address}"\nport = 2525\n'
    hop = f'[[next_hop]]\ndomain = "*"\nhost = "{host}"\nport = 2525\n'
    lines = told(tmp_path, RIGHT + listener + hop)
    assert [line.partition(". Its mail")[0] for line in lines] == [
        f"next_hop[1].host: The host {host}:2525 is the listener 'in' of this node"
    ] * warned
    assert told(tmp_path, RIGHT + listener + hop.replace("2525", "2526")) == []


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can look with the rights of another user")
def test_a_folder_in_which_no_maildir_can_be_made(open_folder: Path) -> None:
    text = RIGHT.replace('user = "root"', 'user = "nobody"')
    mail = open_folder / "mail"
    own = mail / "example.org"
    for made in (open_folder, mail, own):
        made.mkdir(exist_ok=True)
        (line,) = told(open_folder, text)
        assert line.startswith(f"domain[1].path: The user 'nobody' cannot create Maildirs in {made}. "), line
        assert (f"install -d -m 750 -o nobody {own}" in line) == (made != own)
        assert (f"chown nobody {own}" in line) == (made == own)
    os.chown(own, 65534, -1)
    assert told(open_folder, text) == []  # as in docs/production.md: /var/mail itself belongs to others
    (open_folder / "hidden").mkdir(mode=0o700)
    (open_folder / "hidden" / "mail").mkdir(mode=0o777)
    (line,) = told(open_folder, text.replace('"mail/', '"hidden/mail/'))
    assert line.startswith(f"domain[1].path: The user 'nobody' cannot create Maildirs in {open_folder}/hidden. "), line


def test_a_disk_with_less_space_than_is_to_be_kept_free(tmp_path: Path) -> None:
    (line,) = told(tmp_path, f'{RIGHT}[store]\nfree_min = "900000G"\n')
    assert line.startswith(f"state_dir: The disk of {tmp_path} has ") and "921600000 MB" in line


RELAY = '[[listener]]\nname = "relay"\nport = 2526\nrole = "relay"\n'


def test_a_node_without_a_listener_accepts_no_mail(tmp_path: Path) -> None:
    (line,) = told(tmp_path, RIGHT.replace('[[listener]]\nname = "mx"\n', ""))
    assert line.startswith("listener: There is no listener: the node accepts mail only from `sendmail`")
    only_sends = RIGHT.replace('[[listener]]\nname = "mx"\n', f'[sendmail]\nfolder = "{tmp_path}/drop"\n')
    assert told(tmp_path, only_sends) == []


@pytest.mark.parametrize(
    ("hop", "key", "said"),
    [
        ('domain = "example.org"', "next_hop[1].domain", "The domain example.org is local"),
        ('accounts = "ada"', "next_hop[1].accounts", "No listener lets clients log in"),
        ('senders = "example.org"', "", ""),
        ('recipients = "ada@example.org"', "", ""),
    ],
)
def test_a_next_hop_that_no_mail_can_match(tmp_path: Path, hop: str, key: str, said: str) -> None:
    found = told(tmp_path, RIGHT + f'[[next_hop]]\n{hop}\nhost = "smart.example.net"\ntls = "verify"\n')
    assert [line.startswith(f"{key}: {said}") for line in found] == ([True] if said else []), found


def test_a_report_that_nobody_would_get(tmp_path: Path) -> None:
    (line,) = told(tmp_path, RIGHT.replace('postmaster = "ada@example.org"\n', ""))
    assert line.startswith("postmaster: If a report to a sender cannot be delivered, nobody gets it")
    assert "refused" not in line
    (line,) = told(tmp_path, 'hostname = "mail.example.org"\nstate_dir = "s"\n' + RELAY + 'trusted_networks = "::1"\n')
    assert "which every mail server must accept, goes into the Maildir" in line and "/s/postmaster, where" in line
    (line,) = told(
        tmp_path,
        'hostname = "mail.example.org"\nstate_dir = "s"\n' + RELAY + 'trusted_networks = "::1"\n'
        '[[next_hop]]\ndomain = "*"\nhost = "smart.example.org"\n',
    )
    assert "goes the way of all mail for it" in line


@pytest.mark.parametrize(
    ("listener", "said"),
    [
        ('[[listener]]\nname = "x"\nport = 2526\ntrusted_networks = "192.0.2.0/24"\n', "may not relay"),
        (
            '[[listener]]\nname = "x"\nport = 2526\nrole = "submission"\nauth = false\n'
            'trusted_networks = "192.0.2.0/24"\n',
            "must still authenticate",
        ),
        (
            '[[listener]]\nname = "x"\nport = 2526\nrole = "submission"\nauth = false\ntrust_network = true\n'
            'trusted_networks = "192.0.2.0/24"\n',
            "",
        ),
        (RELAY + 'trusted_networks = "192.0.2.0/24"\n', ""),
        (RELAY + 'trusted_networks = "unix"\n', ""),
        (RELAY + 'trusted_networks = ["10.0.0.0/8", "fd00::/8", "127.0.0.0/8"]\n', ""),
        (RELAY + 'trusted_networks = "81.0.0.0/8"\n', "more addresses than one organisation uses"),
        (RELAY + 'trusted_networks = "2a00::/16"\n', "more addresses than one organisation uses"),
    ],
)
def test_what_trusted_networks_do_here(tmp_path: Path, listener: str, said: str) -> None:
    lines = [line for line in told(tmp_path, RIGHT + listener) if "trusted_networks" in line]
    assert [said in line for line in lines] == ([True] if said else [])


ACCOUNTS = '[auth]\nusers = "users"\n'
SUBMISSION = '[[listener]]\nname = "x"\nport = 587\nrole = "submission"\nauth_without_tls = true\n'
MX, LMTP = '[[listener]]\nname = "x"\nport = 2526\n', '[[listener]]\nname = "x"\nport = 24\nprotocol = "lmtp"\n'
NETWORK = 'trusted_networks = "192.0.2.0/24"\n'


@pytest.mark.parametrize(
    ("text", "key", "said"),
    [
        (SUBMISSION + "add_missing = true\n" + ACCOUNTS, "add_missing", "adds missing fields already"),
        (SUBMISSION + "add_missing = true\n" + ACCOUNTS + "[receive]\nrepair = false\n", "add_missing", ""),
        (MX + "add_missing = true\n", "add_missing", "it has no trusted networks"),
        (MX + "add_missing = true\n" + NETWORK, "add_missing", ""),
        (MX + 'add_missing = true\nxclient_networks = "192.0.2.1"\n', "add_missing", ""),
        (RELAY + "add_missing = true\n" + NETWORK, "add_missing", ""),
        (MX + 'header_from = "owned"\n', "header_from", "no accounts"),
        (MX + 'header_from = "owned"\nxclient_networks = "192.0.2.1"\n', "header_from", ""),
        (SUBMISSION + 'header_from = "owned"\n' + ACCOUNTS, "header_from", ""),
        (SUBMISSION + "untrusted_routing = true\n" + ACCOUNTS, "untrusted_routing", "no mail from strangers"),
        (RELAY + "untrusted_routing = true\n" + NETWORK + "strangers = false\n", "untrusted_routing", "no mail from"),
        (MX + "untrusted_routing = true\n", "untrusted_routing", "no relay domains"),
        (LMTP + "untrusted_routing = true\n", "untrusted_routing", "only for local domains"),
        (MX + 'untrusted_routing = true\n[relay]\ndomains = ["inner.test"]\n', "untrusted_routing", ""),
        (MX + "dsn_for_strangers = true\n", "dsn_for_strangers", ""),
        (MX + 'dsn_for_strangers = true\nwithheld_extensions = "DSN"\n', "dsn_for_strangers", "withholds DSN"),
        (LMTP + "dsn_for_strangers = true\n", "dsn_for_strangers", "in any case"),
        (RELAY + "dsn_for_strangers = true\n" + NETWORK, "dsn_for_strangers", "in any case"),
        (SUBMISSION + "loose_paths = false\n" + ACCOUNTS, "no effect", ""),
    ],
)
def test_a_setting_without_effect(tmp_path: Path, text: str, key: str, said: str) -> None:
    (tmp_path / "users").touch(0o600)
    lines = [line for line in told(tmp_path, RIGHT + text) if key in line]
    assert [said in line and "has no effect on the listener" in line for line in lines] == ([True] if said else [])


@pytest.mark.parametrize(
    ("host", "tls", "said"),
    [
        ("smtp.example.net", "", 'tls = "may" checks no certificate. If the server does not offer TLS'),
        ("smtp.example.net", "encrypt", 'tls = "encrypt" checks no certificate'),
        ("smtp.example.net", "verify", ""),
        ("smtp.example.net", "implicit", ""),
        ("127.0.0.1", "", ""),
        ("localhost", "", ""),
    ],
)
def test_a_password_for_a_server_that_nothing_proves(tmp_path: Path, host: str, tls: str, said: str) -> None:
    (tmp_path / "password").write_text("secret\n")
    (tmp_path / "password").chmod(0o600)
    hop = f'[[next_hop]]\ndomain = "*"\nhost = "{host}"\nport = 587\nusername = "u"\npassword_file = "password"\n'
    lines = told(tmp_path, RIGHT + hop + (f'tls = "{tls}"\n' if tls else ""))
    assert [said in line and line.startswith("next_hop[1].tls: ") for line in lines] == ([True] if said else [])


def test_a_password_that_may_cross_the_network_without_tls(tmp_path: Path) -> None:
    (tmp_path / "password").write_text("secret\n")
    (tmp_path / "password").chmod(0o600)
    hop = '[[next_hop]]\ndomain = "*"\nhost = "smtp.example.net"\nusername = "u"\npassword_file = "password"\n'
    (line,) = told(tmp_path, RIGHT + hop + "auth_without_tls = true\n")
    assert "can be sent without TLS" in line


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can look with the rights of another user")
def test_an_lmtp_socket_that_is_missing_or_closed(open_folder: Path) -> None:
    text = RIGHT.replace('user = "root"', 'user = "nobody"').replace('recipients = "any"', 'recipients = "ada"')
    text = text.replace('path = "mail/{domain}/{local_part}"', 'deliver = "lmtp"\nsocket = "run/lmtp"')
    (open_folder / "run").mkdir(mode=0o755)
    path = open_folder / "run" / "lmtp"
    (line,) = told(open_folder, text)
    assert line.startswith(f"domain[1].socket: The socket {path} does not exist. Until it does, the mail for")
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind(str(path))
        path.chmod(0o600)
        (line,) = told(open_folder, text)
        assert f"The user 'nobody' may not use {path}" in line
        path.chmod(0o666)
        assert told(open_folder, text) == []
        (open_folder / "run").chmod(0o700)
        (line,) = told(open_folder, text)
        assert f"The user 'nobody' may not use {open_folder}/run" in line


def test_mail_for_recipients_that_only_the_next_server_knows(tmp_path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind(str(tmp_path / "lmtp"))
        lmtp = RIGHT.replace('path = "mail/{domain}/{local_part}"', 'deliver = "lmtp"\nsocket = "lmtp"')
        (line,) = told(tmp_path, lmtp)
        assert line.startswith("domain[1].recipients: Every recipient in example.org is accepted: ")
        assert told(tmp_path, lmtp.replace('"any"', '"ada"')) == []
    (line,) = told(tmp_path, f'{RIGHT}[relay]\ndomains = ["example.net"]\n')
    assert line.startswith("relay.domains[1]: Every recipient in example.net is accepted: ")
    own = RIGHT.replace('name = "mx"', 'name = "in"\nport = 2525\nrole = "relay"\ntrusted_networks = "192.0.2.0/24"')
    assert told(tmp_path, f'{own}[relay]\ndomains = ["example.net"]\n') == []


DOMAINS_BY_MAP = """
[[domain]]
domain_maps = ["boxes"]
recipients = "any"
path = "{domain}/{local_part}"
[[domain]]
domain_maps = ["others"]
recipients = "any"
path = "{domain}/{local_part}"
[[relay.domain]]
domain_maps = ["relayed"]
recipients = "any"
[[map]]
name = "boxes"
kind = "inline"
entries = ["shop.example  yes", "example.org  yes"]
[[map]]
name = "others"
kind = "inline"
entries = ["shop.example  yes", "own.example  yes"]
[[map]]
name = "relayed"
kind = "text"
file = "relayed"
"""


def test_a_domain_that_two_tables_have(tmp_path: Path) -> None:
    (tmp_path / "relayed").write_text("behind.example yes\n.own.example yes\nshop.example yes\n")
    said = [each for each in told(tmp_path, RIGHT + DOMAINS_BY_MAP) if " has the domain " in each]
    assert len(said) == 4
    assert sum("'shop.example'" in each for each in said) == 3
    assert sum("'example.org'" in each and "a table of its own" in each for each in said) == 1


def test_a_map_that_has_every_domain(tmp_path: Path) -> None:
    text = RIGHT + DOMAINS_BY_MAP.replace('kind = "text"', 'kind = "regexp"')
    (tmp_path / "relayed").write_text("/./ yes\n")
    said = [each for each in told(tmp_path, text) if "do not exist" in each]
    assert len(said) == 1 and "open relay" in said[0]


def secret_files(folder: Path) -> str:
    """A configuration with one file of each kind that others may not read or change, all of them right."""
    trustme.CA().issue_cert("mail.example.org").private_key_and_cert_chain_pem.write_to_path(folder / "tls.pem")
    (folder / "auth.py").write_text("def login(*_): return False\n")
    for name, text in (
        ("users", ""), ("password", "x\n"), ("token", "x\n"), ("secret", "x\n"), ("aliases", ""), ("names", "ada\n"),
        ("program", "#!/bin/sh\n"), ("relayed", "ada\n"),
    ):  # fmt: skip
        (folder / name).write_text(text)
    for each in folder.iterdir():
        each.chmod(0o750)
    hop = '[[next_hop]]\ndomain = "{}"\nhost = "smtp.example.net"\ntls = "verify"\nusername = "u"\n'
    return (
        RIGHT.replace("[[listener]]", 'aliases = "aliases"\n[[listener]]', 1)
        + '[[domain]]\nname = "example.net"\nrecipients_file = "names"\ndeliver = "program"\n'
        + f'command = ["{folder}/program"]\n'
        + '[tls]\ncertificate = "tls.pem"\nkey = "tls.pem"\n[outbound.tls]\ncertificate = "tls.pem"\n'
        + '[[tls.further]]\ncertificate = "tls.pem"\n'
        + f'[auth]\nusers = "users"\nfunction = "{folder}/auth.py:login"\n'
        + '[auth.introspection]\nurl = "https://login.example.org/x"\nclient_id = "x"\nclient_secret_file = "secret"\n'
        + hop.format("a.example") + 'password_file = "password"\n'
        + hop.format("b.example") + 'token_file = "token"\n'
        + hop.format("c.example") + f'token_command = ["{folder}/program"]\n'
        + '[[relay.domain]]\nname = "example.com"\nrecipients_file = "relayed"\n'
    )  # fmt: skip


@pytest.mark.parametrize(
    ("name", "keys"),
    [
        ("tls.pem", ["tls.key", "tls.further[1].certificate", "outbound.tls.certificate"]),
        ("users", ["auth.users"]),
        ("password", ["next_hop[1].password_file"]),
        ("token", ["next_hop[2].token_file"]),
        ("secret", ["auth.introspection.client_secret_file"]),
    ],
)
def test_a_secret_that_every_user_can_read(tmp_path: Path, name: str, keys: list[str]) -> None:
    text = secret_files(tmp_path)
    assert told(tmp_path, text) == []
    (tmp_path / name).chmod(0o644)
    lines = told(tmp_path, text)
    assert sorted(line.partition(":")[0] for line in lines) == sorted(keys)
    assert all(f"Every user of this machine can read {tmp_path / name}" in line for line in lines)


@pytest.mark.parametrize(
    ("name", "keys"),
    [
        ("aliases", ["aliases"]), ("names", ["domain[2].recipients_file"]), ("auth.py", ["auth.function"]),
        ("program", ["domain[2].command", "next_hop[3].token_command"]),
        ("relayed", ["relay.domain[1].recipients_file"]), ("users", ["auth.users"]),
    ],
)  # fmt: skip
def test_a_file_that_every_user_can_change(tmp_path: Path, name: str, keys: list[str]) -> None:
    text = secret_files(tmp_path)
    (tmp_path / name).chmod(0o752)
    lines = told(tmp_path, text)
    assert sorted(line.partition(":")[0] for line in lines) == sorted(keys)
    assert all(f"Every user of this machine can change {tmp_path / name}" in line for line in lines)


def test_a_password_in_a_configuration_that_every_user_can_read(tmp_path: Path) -> None:
    hop = '[[next_hop]]\ndomain = "*"\nhost = "smtp.example.net"\ntls = "verify"\nusername = "u"\npassword = "x"\n'
    file = tmp_path / "postroad.toml"
    file.touch(mode=0o600)
    assert told(tmp_path, RIGHT + hop) == []
    file.chmod(0o644)
    (line,) = told(tmp_path, RIGHT + hop)
    assert line.startswith("next_hop[1].password: Every user of this machine can read ")


def test_a_word_in_the_place_of_the_delimiter(tmp_path: Path) -> None:
    [said] = told(tmp_path, RIGHT + '[routing]\ndetail_delimiter = "plus"\n')
    assert "'plus' begins an address extension" in said
    assert told(tmp_path, RIGHT + '[routing]\ndetail_delimiter = "+-"\n') == []


def test_values_of_maps_that_mean_nothing(tmp_path: Path) -> None:
    (tmp_path / "transport").write_text("a.example dovecot:\nb.example smtp:[b]\nc.example next_hop:nope\n")
    (tmp_path / "virtual").write_text("info@example.org ada, |/bin/x\nsales@example.org ada bob\n")
    maps = "".join(
        f'[[map]]\nname = "{name}"\nkind = "text"\nfile = "{name}"\n' for name in ("transport", "virtual", "unused")
    )
    (tmp_path / "unused").write_text("a dovecot:\n")
    text = f'alias_maps = ["virtual"]\n{RIGHT}[routing]\ntransport_maps = ["transport"]\n{maps}'
    said = told(tmp_path, text)
    assert len(said) == 3, said
    assert "'dovecot:' for a.example: there is no transport 'dovecot'" in said[0]
    assert "'next_hop:nope' for c.example: no [[next_hop]] has this name" in said[1]
    assert "info@example.org" in said[2] and "programs are not allowed here" in said[2]


def test_aliases_of_maps_that_lead_in_a_circle(tmp_path: Path) -> None:
    (tmp_path / "one").write_text("a@example.org b@example.org\nc@example.org a@example.org, ada\n@x.test @y.test\n")
    (tmp_path / "two").write_text("b@example.org a@example.org\n@y.test @x.test\nd@example.org d@example.org\n")
    maps = "".join(f'[[map]]\nname = "{name}"\nkind = "text"\nfile = "{name}"\n' for name in ("one", "two"))
    said = told(tmp_path, f'alias_maps = ["one", "two"]\n{RIGHT}{maps}')
    assert [line.partition(" of a map leads in a circle")[0] for line in said] == [
        f"alias_maps: The alias {key}" for key in ("a@example.org", "@x.test", "b@example.org", "@y.test")
    ]


def test_of_many_wrong_values_some_are_told(tmp_path: Path) -> None:
    entries = ", ".join(f'"{number}.example dovecot:"' for number in range(30))
    text = f'{RIGHT}[routing]\ntransport_maps = ["t"]\n[[map]]\nname = "t"\nkind = "inline"\nentries = [{entries}]\n'
    assert len(told(tmp_path, text)) == map_values.FOUND_MAX


@pytest.mark.parametrize(
    ("postmaster", "copy", "said"),
    [
        ("ada@example.org", "ada+log@example.org", []),
        ("chief@example.org", "list@example.org", []),
        ("x@far.example", "y@far.example", []),
        ("eve@example.org", "archive@example.org", ["postmaster", "rewrite.always_bcc[1]"]),
    ],
)
def test_a_mailbox_that_a_setting_names_and_that_is_not_there(
    tmp_path: Path, postmaster: str, copy: str, said: list[str]
) -> None:
    (tmp_path / "aliases").write_text("chief: ada\nlist@example.org: ada, y@far.example\n")
    text = RIGHT.replace('"any"', '["ada"]').replace("ada@example.org", postmaster)
    found = told(tmp_path, f'aliases = "aliases"\n{text}[rewrite]\nalways_bcc = "{copy}"\n')
    assert [line.partition(": ")[0] for line in found] == said
    assert all("There is no mailbox and no alias" in line for line in found)
    by_map = f'alias_maps = ["m"]\n{text}[rewrite]\nalways_bcc = "{copy}"\n[[map]]\nname = "m"\nkind = "inline"\n'
    assert told(tmp_path, by_map + 'entries = ["z@example.org ada"]\n') == []


def test_mailboxes_of_reports_and_of_quarantine_that_are_not_there(tmp_path: Path) -> None:
    listener = 'dmarc = "enforce"\nquarantine = "redirect"\nquarantine_to = "{to}"\n'
    rest = '[dsn]\ncontact = "{to}"\n[feedback]\norganization = "E"\ntls = false\ncontact = "{to}"\n'
    text = RIGHT.replace('"any"', '["ada"]').replace("[[listener]]\n", "[[listener]]\n" + listener) + rest
    keys = ["listener[1].quarantine_to", "dsn.contact", "feedback.contact"]
    found = told(tmp_path, text.replace("{to}", "eve@example.org"))
    assert [line.partition(": ")[0] for line in found] == keys
    assert all("There is no mailbox and no alias eve@example.org" in line for line in found)
    assert told(tmp_path, text.replace("{to}", "ada@example.org")) == []
    reports = '[report_mailboxes]\naddresses = ["eve@example.org"]\n'
    assert told(tmp_path, text.replace("{to}", "eve@example.org") + reports) == []  # these exist without being named


def test_next_certificates_that_cannot_be_read_are_a_doubt(tmp_path: Path) -> None:
    (tmp_path / "next.pem").write_text("no key")
    for name, text in (("next.pem", "has no certificate and no key"), ("gone.pem", "there is no such file")):
        whole = f'{RIGHT}[tls]\nnext_certificates = ["{name}"]\n'
        path = tmp_path / "postroad.toml"
        found = parse(whole, path, files=False)
        assert isinstance(found, Settings), found
        [doubt] = [each for each in warnings(path, found, time.time()) if "next_certificates" in each.key]
        assert text in doubt.text
        assert "has no TLSA record" in doubt.text
