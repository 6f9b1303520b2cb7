"""From a file to settings, or to all of its problems with line, key and remedy."""

from __future__ import annotations

import sqlite3
from pathlib import Path

import pytest

from postroad.config.load import at, at_listener, load, parse
from postroad.config.problem import ConfigProblem
from postroad.config.settings import Settings
from postroad.mail.policy import Role
from postroad.world import problem as world
from postroad.world import system

RIGHT = """\
hostname = "mail.example.org"
state_dir = "state"

[[listener]]
name = "mx"
address = "127.0.0.1"
port = 2525

[[domain]]
name = "example.org"
recipients = "any"
path = "mail/{domain}/{local_part}"
"""


def problems(text: str, folder: Path, *, files: bool = False) -> list[ConfigProblem]:
    found = parse(text, folder / "postroad.toml", files=files)
    return found if isinstance(found, list) else []


def settings(text: str, folder: Path) -> Settings:
    found = parse(text, folder / "postroad.toml", files=False)
    assert isinstance(found, Settings), [str(problem) for problem in found]
    return found


def test_a_right_file_gives_frozen_settings(tmp_path: Path) -> None:
    (tmp_path / "postroad.toml").write_text(RIGHT)
    found = load(tmp_path / "postroad.toml")
    assert isinstance(found, Settings), found
    assert found.listener[0].address == ("127.0.0.1",)
    assert found.listener[0].role is Role.MX
    assert found.state_dir == tmp_path / "state"
    assert found.domain[0].path == tmp_path / "mail/{domain}/{local_part}"
    with pytest.raises(ValueError, match="frozen"):
        found.workers = 3


def test_an_absolute_path_stays_as_it_is(tmp_path: Path) -> None:
    assert settings(RIGHT.replace('"state"', '"/srv/state"'), tmp_path).state_dir == Path("/srv/state")


# Each case: what is put in place of what in RIGHT ("" is put at the end); line, key, words of the text and the remedy.
CASES: list[tuple[str, str, str, tuple[int, str, str, str]]] = [
    ("unknown key", "", "[limits]\ncomand_s = 300", (14, "limits.comand_s", "no setting", "Did you mean 'command_s'?")),
    ("former key", "", "[store]\ncompany_s = 0", (14, "store.company_s", "no setting", "called 'commit_wait_s' now")),
    ("unknown table", "", "[limit]\n", (13, "limit", "no setting 'limit'", "Did you mean 'limits'?")),
    ("unknown in an element", "port = 2525", "prot = 2525", (7, "listener[1].prot", "no setting", "'port'")),
    ("in another table", "", "[queue]\ncommand_s = 300", (14, "queue.command_s", "no setting", "under [limits]. Move")),
    ("below the first table", "", '[log]\naliases = "a"', (14, "log.aliases", "no setting", "at the top of the file")),
    ("the name of a table", "", '[queue]\nprogram = "a"', (14, "queue.program", "no setting", "[program] is a table")),
    (
        "misspelt in another table",
        "",
        "[queue]\ntrust_netwrk = 1",
        (14, "queue.trust_netwrk", "", "listener.trust_network"),
    ),
    ("nowhere near", "", "[log]\nzzzzzz = 1", (14, "log.zzzzzz", "no setting", "The keys known here are batch_max")),
    ("a text for a number", "port = 2525", 'port = "2525"', (7, "listener[1].port", "a text", "whole number, without")),
    ("a broken number", "port = 2525", "port = 25.25", (7, "listener[1].port", "a number", "whole number")),
    ("true for a number", "port = 2525", "port = true", (7, "listener[1].port", "true or false", "whole number")),
    ("a number for a text", 'name = "mx"', "name = 5", (5, "listener[1].name", "a number", "text in quotes")),
    ("a text for true", "", '[receive]\nrepair = "yes"', (14, "receive.repair", "a text", "true or false")),
    ("a date", "", "[receive]\nrepair = 2026-01-01", (14, "receive.repair", "a date", "true or false")),
    ("a table for a number", "port = 2525", "port = { a = 1 }", (7, "listener[1].port", "a table", "whole number")),
    (
        "a number for a table",
        'state_dir = "state"',
        'state_dir = "state"\nqueue = 5',
        (3, "queue", "a number", "Write a table"),
    ),
    ("one table for an array", "[[domain]]", "[domain]", (9, "domain", "array of tables", "brackets: [[domain]]")),
    ("too large", "port = 2525", "port = 65536", (7, "listener[1].port", "65536 is too large", "1 to 65535")),
    ("too small", "port = 2525", "port = 0", (7, "listener[1].port", "0 is too small", "1 to 65535")),
    (
        "below the RFC",
        "",
        "[limits]\nrecipients_max = 99",
        (14, "limits.recipients_max", "too small", "RFC 5321 §4.5.3.1.8"),
    ),
    (
        "a time below the RFC",
        "",
        '[limits]\ncommand_s = "299s"',
        (14, "limits.command_s", "'299s' is too", "5m or more (RFC"),
    ),
    (
        "a size below the RFC",
        "",
        '[limits]\nsize_max = "63K"',
        (14, "limits.size_max", "'63K' is too", "64K or more (RFC"),
    ),
    (  # it would be asked by BDAT for ever
        "a memory too short",
        "",
        '[outbound]\nbdat_memory_s = "0s"',
        (14, "outbound.bdat_memory_s", "'0s' is too small", "1m or more"),
    ),
    (
        "too few hops",
        "",
        "[limits]\nhops_max = 99",
        (14, "limits.hops_max", "99 is too small", "100 or more (RFC 5321 §6.3)"),
    ),
    ("no duration", "", '[limits]\ncommand_s = "soon"', (14, "limits.command_s", "'soon' is not a duration", '"5m"')),
    ("no such word", "port = 2525", 'role = "mix"', (7, "listener[1].role", "'mix' is not a", "'mx', 'submission'")),
    ("no address", '"127.0.0.1"', '["::", "localhost"]', (6, "listener[1].address[2]", "'localhost'", "192.0.2.1")),
    ("no addresses", '"127.0.0.1"', "[]", (6, "listener[1].address", "too short", "1 of them or more")),
    (
        "host bits",
        "port = 2525",
        'trusted_networks = ["10.0.0.1/8"]',
        (7, "listener[1].trusted_networks[1]", "", "10.0.0.0/8"),
    ),
    ("missing key", 'name = "mx"\n', "", (4, "listener[1].name", "'name' is missing", "name = …")),
    (
        "missing at the top",
        'hostname = "mail.example.org"\n',
        "",
        (0, "hostname", "'hostname' is missing", "hostname = …"),
    ),
    ("no domain name", '"mail.example.org"', '"mail_!"', (1, "hostname", "'mail_!' is not a domain", "example.org")),
    ("an empty path", '"state"', '""', (2, "state_dir", "'' is not a path", "path of a file")),
    ("no TOML", "port = 2525", "port 2525", (7, "", "not TOML", "Correct the line")),
    ("a key twice", "port = 2525", "port = 2525\nport = 26", (8, "", "'port' is given twice", "Remove one of the two")),
    ("a text without end", "", 'a = """\n\n', (15, "", "not TOML", "Correct the line")),
]


@pytest.mark.parametrize(("old", "new", "expected"), [case[1:] for case in CASES], ids=[case[0] for case in CASES])
def test_a_problem_names_line_key_and_remedy(
    old: str, new: str, expected: tuple[int, str, str, str], tmp_path: Path
) -> None:
    assert old in RIGHT
    found = problems(RIGHT.replace(old, new, 1) if old else RIGHT + new, tmp_path)
    line, key, text, remedy = expected
    assert [(each.line, each.key) for each in found] == [(line, key)]
    assert found[0].file == tmp_path / "postroad.toml"
    assert text in found[0].text
    assert remedy in found[0].remedy


def test_all_problems_are_told_at_once_causes_first_then_in_the_order_of_their_lines(tmp_path: Path) -> None:
    text = """\
hostname = "mail.example.org"
state_dir = 5
wokers = 2

[[listener]]
name = "mx"
port = "25"

[[listener]]
port = 2525

[[listener]]
name = "smtp"
address = "127.0.0.1"
port = 2526
tls = "implicit"

[[listener]]
name = "smtp"
address = "127.0.0.1"
port = 2526

[[domain]]
name = "example.org"
recipients = "any"
deliver = "lmtp"

[limits]
command_s = 1
size_max = "1"

[queue]
retry_first_s = "2d"
"""
    assert [(each.line, each.key) for each in problems(text, tmp_path)] == [
        (2, "state_dir"),
        (3, "wokers"),
        (7, "listener[1].port"),
        (9, "listener[2].name"),
        (29, "limits.command_s"),
        (30, "limits.size_max"),
        (16, "listener[3].tls"),
        (19, "listener[4].name"),
        (21, "listener[4].port"),
        (23, "domain[1].socket"),
        (33, "queue.retry_first_s"),
    ]


@pytest.mark.parametrize(
    ("name", "text", "expected"),
    [
        ("users of the wrong type", '[[listener]]\nname = "s"\nport = 587\nrole = "submission"\n[auth]\nusers = 5',
         ["auth.users", "listener[2].role"]),
        ("a domain without a name", RIGHT.replace('name = "example.org"\n', ""), ["domain[1].name"]),
        ("a wrong address", RIGHT.replace('"127.0.0.1"', '"x"'), ["listener[1].address[1]"]),
    ],
)  # fmt: skip
def test_a_consequence_is_no_problem_of_its_own(name: str, text: str, expected: list[str], tmp_path: Path) -> None:
    whole = text if text.startswith("hostname") else RIGHT + text
    found = [each.key for each in problems(whole, tmp_path)]
    # A submission listener without TLS is wrong for a reason of its own; that it lacks accounts follows from line 18.
    assert found == [key.replace("role", "tls") for key in expected]


def test_a_cause_is_named_first_and_what_follows_from_a_slip_not_at_all(tmp_path: Path) -> None:
    late = '[tls]\ncertificat = "tls.pem"\n'
    text = RIGHT.replace("port = 2525", 'port = 2525\ntls = "required"')
    assert [each.key for each in problems(text + late, tmp_path)] == ["tls.certificat"]
    other = text.replace('recipients = "any"\n', "") + "[limits]\nsize_max = 5\n"
    found = [each.key for each in problems(other, tmp_path)]
    assert found == ["limits.size_max", "listener[1].tls", "domain[1].recipients"]


def test_a_problem_reads_as_one_line(tmp_path: Path) -> None:
    found = problems(RIGHT.replace("port = 2525", "prot = 2525"), tmp_path)
    assert str(found[0]) == (
        f"{tmp_path}/postroad.toml:7: listener[1].prot: There is no setting 'prot'. Did you mean 'port'?"
    )


def test_a_missing_file_is_one_problem(tmp_path: Path) -> None:
    found = load(tmp_path / "none.toml")
    assert isinstance(found, list)
    assert [(each.line, each.text) for each in found] == [(0, "The file does not exist")]
    assert "postroad config example" in found[0].remedy


def test_a_folder_and_other_encodings_are_problems(tmp_path: Path) -> None:
    folder = load(tmp_path)
    assert isinstance(folder, list) and "Is a directory" in folder[0].text
    assert folder[0].remedy == "Give the path of another file"
    file = tmp_path / "postroad.toml"
    file.write_bytes(b'a = 1\nb = "\xff"\n')
    found = load(file)
    assert isinstance(found, list)
    assert [(each.line, each.text) for each in found] == [(2, "This line is not in UTF-8")]


def test_line_ends_of_other_systems_are_read(tmp_path: Path) -> None:
    file = tmp_path / "postroad.toml"
    file.write_bytes(RIGHT.replace("\n", "\r\n").encode())
    assert isinstance(load(file), Settings)
    file.write_bytes(RIGHT.replace("port = 2525", "prot = 1").replace("\n", "\r\n").encode())
    found = load(file)
    assert isinstance(found, list) and found[0].line == 7


def test_a_later_problem_finds_its_line(tmp_path: Path) -> None:
    file = tmp_path / "postroad.toml"
    file.write_text(RIGHT)
    found = at(file, ("listener", 0, "port"), "the port is taken", "take another")
    assert (found.line, found.key) == (7, "listener[1].port")
    assert at(tmp_path / "gone.toml", ("listener", 0), "x", "y").line == 0
    file.write_text("no toml")
    assert at(file, ("listener", 0), "x", "y").line == 0


@pytest.mark.parametrize(
    ("place", "line", "key"),
    [
        ("127.0.0.1:2525", 7, "listener[1].port"),
        ("[::1]:2526", 15, "listener[2].port"),
        ("unix:/run/x", 14, "listener[2].address"),
        ("192.0.2.1:25", 4, "listener"),
    ],
)
def test_a_place_that_is_taken_is_found_at_its_listener(place: str, line: int, key: str, tmp_path: Path) -> None:
    text = RIGHT + '[[listener]]\naddress = ["::1", "unix:/run/x"]\nport = 2526\nname = "y"\n'
    (tmp_path / "postroad.toml").write_text(text)
    problem = world.Problem(place, "is in use", "Stop it")
    found = at_listener(tmp_path / "postroad.toml", settings(text, tmp_path), place, problem)
    assert (found.line, found.key, found.text) == (line, key, f"{place} is in use")


def test_an_address_that_is_not_ours_is_to_blame_itself(tmp_path: Path) -> None:
    text = RIGHT + '[[listener]]\naddress = "192.0.2.77"\nport = 2526\nname = "y"\n'
    (tmp_path / "postroad.toml").write_text(text)
    problem = system.bind("192.0.2.77", 2526)
    assert isinstance(problem, world.Problem)
    found = at_listener(tmp_path / "postroad.toml", settings(text, tmp_path), "192.0.2.77:2526", problem)
    assert (found.line, found.key) == (14, "listener[2].address")


@pytest.mark.parametrize(
    ("text", "line", "header"),
    [
        ('hostname = "m.example.org"\nstate_dir = "s"\n[listener]\nname = "x"\nport = 25\n', 3, "[[listener]]"),
        ('hostname = "m.example.org"\nstate_dir = "s"\n[relay.domain]\nname = "a.example"\n', 3, "[[relay.domain]]"),
        ('hostname = "m.example.org"\n[listener]\nname = "x"\n[ listener ] # two\nname = "y"\n', 2, "[[listener]]"),
        ('hostname = "m.example.org"\n[listener]\nname = "x"\n[[listener]]\nname = "y"\n', 2, "[[listener]]"),
        ('hostname = "m.example.org"\n[[domain]]\nname = "x.example"\n[domain]\nname = "y"\n', 4, "[[domain]]"),
    ],
)
def test_single_brackets_where_there_may_be_several(text: str, line: int, header: str, tmp_path: Path) -> None:
    found = parse(text, tmp_path / "postroad.toml", files=False)
    assert isinstance(found, list)
    assert (found[0].line, found[0].remedy) == (line, f"Write the header with double brackets: {header}")


def test_a_table_that_is_there_twice_is_no_matter_of_brackets(tmp_path: Path) -> None:
    found = parse('hostname = "m.example.org"\n[tls]\n[tls]\n', tmp_path / "postroad.toml", files=False)
    assert isinstance(found, list)
    assert (found[0].text, found[0].remedy) == ("[tls] is there twice", "Write all its keys under one header")


@pytest.mark.parametrize(
    ("line", "text", "remedy"),
    [
        ("hostname = mail.example.org", "Invalid value", 'Write a text in quotes: hostname = "mail.example.org"'),
        ("state_dir = /var/lib/postroad", "Invalid value", 'state_dir = "/var/lib/postroad"'),
        ("shutdown_s = 30s", "after a statement", 'shutdown_s = "30s"'),
        ("workers = yes", "yes is not a value", "workers = true or workers = false, in small letters"),
        ("workers = 1\nworkers = 2", "'workers' is given twice", "Remove one of the two lines"),
        ("workers: 1", "Expected '='", "Correct the line"),
        ("hostname = \u201cm.example.org\u201d", "typographic quotes", 'straight quotes: hostname = "m.example.org"'),
        ('hostname = "x', "Illegal character", "Correct the line"),
        ("relayhost = [smtp.example.net]:587", "Invalid value", "Correct the line"),
    ],
)
def test_a_line_that_is_no_toml(line: str, text: str, remedy: str, tmp_path: Path) -> None:
    (found,) = problems(f"{line}\n", tmp_path)
    assert text in found.text and remedy in found.remedy
    assert found.line == line.count("\n") + 1


def test_a_mark_at_the_beginning_of_the_file_and_lines_with_crlf(tmp_path: Path) -> None:
    (tmp_path / "postroad.toml").write_bytes(b"\xef\xbb\xbf" + RIGHT.replace("\n", "\r\n").encode())
    assert isinstance(load(tmp_path / "postroad.toml", files=False), Settings)


def test_a_missing_key_names_the_words_that_it_may_be(tmp_path: Path) -> None:
    [found] = problems(RIGHT + '[[map]]\nname = "people"\nentries = ["a b"]\n', tmp_path)
    assert found.text == "'kind' is missing"
    assert found.remedy.startswith('Add a line: kind = …. Possible values: "inline", "text", "aliases", ')
    [found] = problems('state_dir = "state"\n', tmp_path)
    assert found.remedy == "Add a line: hostname = …"


@pytest.mark.parametrize(
    ("value", "remedy"),
    [
        ("lmtp:unix:/run/lmtp", 'Write deliver = "lmtp" and socket = "/run/lmtp"'),
        ("lmtp:unix:private/lmtp", 'Write deliver = "lmtp" and socket = "/var/spool/postfix/private/lmtp", or'),
        ("lmtp:inet:127.0.0.1:24", 'Write deliver = "lmtp", host and port'),
        ("maildir:/var/mail", 'Write deliver = "maildir"'),
        ("dovecot:", "Write 'maildir', 'mbox', 'lmtp'"),
    ],
)
def test_a_transport_of_postfix_in_deliver(value: str, remedy: str, tmp_path: Path) -> None:
    [found] = problems(f'{RIGHT}deliver = "{value}"\n', tmp_path)
    assert found.text.endswith("is not a possible value") and found.remedy.startswith(remedy)


def test_a_single_value_in_the_place_of_a_list_is_shown(tmp_path: Path) -> None:
    [found] = problems(RIGHT + '[rewrite]\ncanonical_classes = "envelope"\n', tmp_path)
    assert found.text == "'envelope' is not a possible value"


@pytest.mark.parametrize("name", ["virtual.db", "virtual"])
@pytest.mark.parametrize("kind", ["", "text", "aliases", "regexp"])
def test_a_compiled_table_of_postfix_is_told_from_a_text_in_another_encoding(
    tmp_path: Path, name: str, kind: str
) -> None:
    (tmp_path / name).write_bytes(b"a: \xff\n")
    text = f'aliases = "{name}"\n{RIGHT}'
    if kind:
        text = f'alias_maps = ["v"]\n{RIGHT}[[map]]\nname = "v"\nkind = "{kind}"\nfile = "{name}"\n'
    [found] = problems(text, tmp_path, files=True)
    wanted = "Name the text file from which it was made" if name.endswith(".db") else "Save the file in UTF-8"
    assert wanted in str(found)


def test_a_query_that_the_database_refuses_is_not_a_missing_file(tmp_path: Path) -> None:
    with sqlite3.connect(tmp_path / "mail.db") as database:
        database.execute("CREATE TABLE alias (address TEXT)")
    for name, wanted in (("mail.db", "the query"), ("other.db", "Make the file")):
        text = f'alias_maps = ["v"]\n{RIGHT}[[map]]\nname = "v"\nkind = "sqlite"\nfile = "{name}"\n'
        [found] = problems(text + "query = \"SELECT goto FROM alias WHERE address = '%s'\"\n", tmp_path, files=True)
        assert wanted in str(found)


@pytest.mark.parametrize("key", ["checks.waiting_max_s", "mta_sts.time_s", "feedback.post_s"])
@pytest.mark.parametrize("written", ["0", "-5", '"0s"'])
def test_a_wait_cannot_be_nothing_or_less(key: str, written: str, tmp_path: Path) -> None:
    section, _, name = key.partition(".")
    (found,) = problems(f"{RIGHT}[{section}]\n{name} = {written}\n", tmp_path)
    assert (found.key, "is too small" in found.text) == (key, True)
