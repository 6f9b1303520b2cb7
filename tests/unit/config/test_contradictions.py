"""Settings that are right by themselves and cannot work together."""

from __future__ import annotations

from pathlib import Path

import pytest

from postroad.config.load import parse

HEAD = 'hostname = "mail.example.org"\nstate_dir = "state"\n'
DOMAIN = '[[domain]]\nname = "example.org"\nrecipients = "any"\npath = "mail/{local_part}"\n'
TLS = '[tls]\ncertificate = "tls.pem"\n'
USERS = '[auth]\nusers = "users"\n'


def listener(*lines: str, name: str = "x", port: int = 2525) -> str:
    return "\n".join(["[[listener]]", f'name = "{name}"', 'address = "127.0.0.1"', f"port = {port}", *lines, ""])


def domain(*lines: str) -> str:
    return "\n".join(["[[domain]]", 'name = "example.org"', *lines, ""])


def hop(*lines: str) -> str:
    return "\n".join(["[[next_hop]]", 'domain = "*"', 'host = "smtp.example.net"', *lines, ""])


def found(text: str, folder: Path) -> list[tuple[str, str, str]]:
    parsed = parse(HEAD + text, folder / "postroad.toml", files=False)
    return [(each.key, each.text, each.remedy) for each in parsed] if isinstance(parsed, list) else []


ONE_MAP = '[[map]]\nname = "people"\nkind = "static"\nvalue = "x"\n'
NAMED = '[[next_hop]]\nname = "isp"\nhost = "smtp.isp.example"\n'
TRANSPORTS = '''
[routing]
transport_maps = ["ways"]
[[map]]
name = "ways"
kind = "static"
value = "next_hop:isp"
'''


MANY = '[[domain]]\ndomain_maps = ["names"]\n'
NAMES = '[[map]]\nname = "names"\nkind = "inline"\nentries = ["example.org  yes"]\n'
ALIASES_ONLY = 'deliver = "aliases"\n'

WRONG: list[tuple[str, str, str, str, str]] = [
    (
        "a redirection to nowhere", DOMAIN + listener('dmarc = "enforce"', 'quarantine = "redirect"'),
        "listener[1].quarantine", "There is no mailbox to which mail in quarantine goes", "Add quarantine_to",
    ),
    (
        "a mailbox for quarantine without a redirection",
        DOMAIN + listener('dmarc = "enforce"', 'quarantine_to = "a@example.org"'),
        "listener[1].quarantine_to", 'no effect without quarantine = "redirect"', 'Add quarantine = "redirect"',
    ),
    (
        "a field for quarantine that is held", DOMAIN + listener('dmarc = "enforce"', 'quarantine_field = "X-Junk: a"'),
        "listener[1].quarantine_field", 'no effect without quarantine = "field"', 'Add quarantine = "field"',
    ),
    (
        "quarantine without DMARC", DOMAIN + listener('quarantine = "field"'),
        "listener[1].quarantine", 'no effect without dmarc = "enforce"', 'Add dmarc = "enforce"',
    ),
    (
        "temporary failures of nothing", DOMAIN + listener('temporary_failure = "defer"'),
        "listener[1].temporary_failure", 'no check of this listener is set to "enforce"', "Set a check",
    ),
    (
        "seals that nobody looks at", DOMAIN + listener('arc = "off"') + '[checks]\narc_forwarders = "a.test"\n',
        "checks.arc_forwarders", "no listener looks at ARC", 'Add arc = "mark"',
    ),
    (
        "a node that believes itself", DOMAIN + listener() + '[checks]\nbelieved_authserv_ids = "mail.example.org"\n',
        "checks.believed_authserv_ids", "is the name of this node itself", "Name hosts in front",
    ),
    (
        "reports of somebody without a mailbox", '[feedback]\norganization = "Example"\n', "feedback.contact",
        "Without contact no report is sent", "Set contact",
    ),
    (
        "reports of nobody", '[feedback]\ncontact = "reports@example.org"\n', "feedback.organization",
        "Without organization no report is sent", "Set organization",
    ),
    (
        "reports without a history",
        '[feedback]\norganization = "x"\ncontact = "reports@example.org"\n[history]\nkeep_days = 0\n',
        "history.keep_days", "must be kept for a day at least", "Set history.keep_days to 1 or more",
    ),
    (
        "failure reports of nobody", "[feedback]\nfailures = true\n", "feedback.failures",
        "only sent if they can say who sends them", "Set organization and contact",
    ),
    (
        "a canonical map that is not there", '[rewrite]\ncanonical_maps = "hash:/etc/postfix/canonical"\n',
        "rewrite.canonical_maps[1]", "There is no map 'hash:/etc/postfix/canonical'", "Declare a table of Postfix",
    ),
    (
        "classes without their maps", '[rewrite]\nsender_canonical_classes = "envelope_sender"\n',
        "rewrite.sender_canonical_classes", "no effect without sender_canonical_maps", "Add sender_canonical_maps",
    ),
    (
        "header fields of nobody's mail", '[rewrite]\nheader_clients = "all"\nalways_bcc = "a@example.org"\n',
        "rewrite.header_clients", "no effect without canonical_maps or", "Add canonical_maps",
    ),
    (
        "names by a map that is not there", hop('generic_maps = "names"'), "next_hop[1].generic_maps[1]",
        "There is no map 'names'", "Add a [[map]]",
    ),
    (
        "two header sections for one server",
        '[[next_hop]]\ndomain = "a.example"\nhost = "192.0.2.1"\nremove_fields = "X-A"\n'
        '[[next_hop]]\ndomain = "b.example"\nhost = "192.0.2.1"\n',
        "next_hop[2].remove_fields", "two different values of remove_fields", "Write the same remove_fields in both",
    ),
    (
        "a listener that is not there", hop('listeners = ["lists"]'), "next_hop[1].listeners[1]",
        "There is no listener 'lists'", "sendmail",
    ),
    (
        "a lifetime that ends before the delay is told", hop('lifetime_s = "1h"'), "next_hop[1].lifetime_s",
        "less than delay_notice_s", "Set delay_notice_s of the table",
    ),
    (
        "two tables for the same size", hop("size_min = 5") + hop("size_min = 5"), "next_hop[2]",
        "'*' is used twice with 'if size=5'", "Remove one",
    ),
    ("a host and hosts", hop('hosts = ["a.example"]'), "next_hop[1].hosts", "a host and also hosts", "in hosts"),
    (
        "a server twice",
        hop('hosts = ["a.example", "[a.example]:25"]').replace('host = "smtp.example.net"\n', ""),
        "next_hop[1].hosts[2]", "[a.example]:25 is used twice", "Remove one",
    ),
    (
        "the MX of an IP address",
        '[routing]\nfallback = "192.0.2.1 mx"\n', "routing.fallback[1]", "192.0.2.1 has no MX records", "Remove mx",
    ),
    (
        "an address of the other family",
        hop('source_ipv6 = ["192.0.2.7"]'), "next_hop[1].source_ipv6[1]", "is an IPv4 address", "source_ipv4",
    ),
    (
        "one server, two addresses of ours",
        hop('source_ipv4 = ["192.0.2.7", "192.0.2.8"]')
        + hop('source_ipv4 = ["192.0.2.7"]').replace('"*"', '"example.net"'),
        "next_hop[2].source_ipv4", "two different values of source_ipv4", "Write the same source_ipv4",
    ),
    (
        "a name for EHLO of some mail alone",
        '[[next_hop]]\nsenders = "bulk.example"\nhello = "b.example"\n', "next_hop[1].hello",
        "only together with an address", "Add source_ipv4",
    ),
    (
        "a domain without a name",
        listener('role = "mx"') + '[[domain]]\nrecipients = "any"\npath = "mail/{local_part}"\n',
        "domain[1].name",
        "The table does not say for which domain it is",
        "Add name, or domain_maps",
    ),
    (
        "a name and also maps of names",
        listener('role = "mx"') + DOMAIN + 'domain_maps = ["names"]\n' + NAMES,
        "domain[1].domain_maps",
        "The table has a name and also domain_maps",
        "Write two tables",
    ),
    (
        "two tables with the same maps",
        listener('role = "mx"') + (MANY + 'recipients = "any"\npath = "mail/{local_part}"\n') * 2 + NAMES,
        "domain[2].domain_maps",
        "this one is never used",
        "Remove one of the two tables",
    ),
    (
        "every domain is a relay domain",
        listener('role = "mx"') + '[[relay.domain]]\ndomain_maps = ["people"]\nrecipients = "any"\n' + ONE_MAP,
        "relay.domain[1].domain_maps[1]",
        "every domain would be a relay domain: an open relay",
        "your own domains only",
    ),
    (
        "a map of domains that is not there",
        listener('role = "mx"') + MANY + 'recipients = "any"\npath = "mail/{local_part}"\n',
        "domain[1].domain_maps[1]",
        "There is no map 'names'",
        "Add a [[map]]",
    ),
    (
        "mailboxes in a domain that has none",
        'postmaster = "ada@example.net"\nalias_maps = ["people"]\n'
        + listener('role = "mx"') + MANY + ALIASES_ONLY + 'recipients = ["ada"]\n' + NAMES + ONE_MAP,
        "domain[1].recipients",
        "has no mailboxes",
        "another way of delivery",
    ),
    (
        "a path for a domain that has no mailboxes",
        'postmaster = "ada@example.net"\nalias_maps = ["people"]\n'
        + listener('role = "mx"') + MANY + ALIASES_ONLY + 'path = "mail"\n' + NAMES + ONE_MAP,
        "domain[1].path",
        'This has no effect with deliver = "aliases"',
        "Remove it",
    ),
    (
        "nobody is the postmaster of a domain without mailboxes",
        'alias_maps = ["people"]\n' + listener('role = "mx"') + MANY + ALIASES_ONLY + NAMES + ONE_MAP,
        "domain[1].deliver",
        "has no mailbox for its postmaster",
        "Set postmaster",
    ),
    (
        "only aliases, and there are none",
        'postmaster = "ada@example.net"\n' + listener('role = "mx"') + MANY + ALIASES_ONLY + NAMES,
        "domain[1].deliver",
        "has only aliases, but there are none",
        "Set aliases or alias_maps",
    ),
    (
        "a map that is not there",
        'alias_maps = ["people", "virtual"]\n' + listener('role = "mx"') + DOMAIN + ONE_MAP,
        "alias_maps[2]",
        "There is no map 'virtual'",
        "the maps are: people",
    ),
    (
        "a table of Postfix in the place of a map",
        'alias_maps = "hash:/etc/aliases"\n' + listener('role = "mx"') + DOMAIN,
        "alias_maps[1]",
        "There is no map 'hash:/etc/aliases'",
        "Declare a table of Postfix as a [[map]]",
    ),
    (
        "a map without what its kind needs",
        listener('role = "mx"') + DOMAIN + '[[map]]\nname = "people"\nkind = "sqlite"\nfile = "x.db"\n',
        "map[1].query",
        "A map of kind 'sqlite' needs query",
        "Add query",
    ),
    (
        "a map of no maps",
        listener('role = "mx"') + DOMAIN + '[[map]]\nname = "all"\nkind = "union"\nmaps = []\n',
        "map[1].maps",
        "A map of kind 'union' needs maps",
        "Set maps",
    ),
    (
        "a map without a value",
        listener('role = "mx"') + DOMAIN + '[[map]]\nname = "all"\nkind = "static"\nvalue = ""\n',
        "map[1].value",
        "A map of kind 'static' needs value",
        "Set value",
    ),
    (
        "a map with what its kind does not use",
        listener('role = "mx"') + DOMAIN + ONE_MAP + 'cache_s = 5\n',
        "map[1].cache_s",
        "A map of kind 'static' does not use cache_s",
        "it uses value",
    ),
    (
        "two maps of one name",
        listener('role = "mx"') + DOMAIN + ONE_MAP + ONE_MAP,
        "map[2].name",
        "'people' is used twice",
        "another name",
    ),
    (
        "a map of maps that come after it",
        listener('role = "mx"') + DOMAIN + '[[map]]\nname = "all"\nkind = "first"\nmaps = ["people"]\n' + ONE_MAP,
        "map[1].maps[1]",
        "There is no map 'people' before this one",
        "after these maps",
    ),
    (
        "an inspector without a module",
        listener('role = "mx"', 'inspectors = ["package.inspect:Checking", "Checking"]') + DOMAIN,
        "listener[1].inspectors",
        "'Checking' is not the name of an inspector",
        "module:name",
    ),
    (
        "everybody is trusted",
        listener('role = "relay"', 'trusted_networks = ["192.0.2.0/24", "0.0.0.0/0"]') + DOMAIN,
        "listener[1].trusted_networks[2]",
        "would be an open relay: 0.0.0.0/0 may relay to anywhere",
        "your own networks only",
    ),
    (
        "half of everybody is trusted on a submission listener",
        listener('role = "submission"', "auth = false", "trust_network = true", 'trusted_networks = "128.0.0.0/1"')
        + DOMAIN,
        "listener[1].trusted_networks[1]",
        "would be an open relay",
        "your own networks only",
    ),
    (
        "everybody who has IPv6 is trusted",
        listener('role = "relay"', 'trusted_networks = "2000::/3"') + DOMAIN,
        "listener[1].trusted_networks[1]",
        "would be an open relay",
        "your own networks only",
    ),
    (
        "mail from anybody is passed on to every domain",
        listener('role = "mx"') + '[relay]\ndomains = ["example.net", "*"]\n',
        "relay.domains[2]",
        "would be an open relay: anybody may send to every domain",
        'a [[next_hop]] with domain = "*"',
    ),
    (
        "mail from anybody is passed on to every domain of a country",
        listener('role = "relay"', 'trusted_networks = "192.0.2.0/24"') + '[relay]\ndomains = [".DE"]\n',
        "relay.domains[1]",
        "would be an open relay: anybody may send to every domain below .de",
        "your own domains only",
    ),
    (
        "mail from anybody is passed on to some mailboxes of every domain",
        listener('role = "mx"') + '[[relay.domain]]\nname = "*"\nrecipients = ["ada"]\n',
        "relay.domain[1].name",
        "would be an open relay",
        "your own domains only",
    ),
    (
        "a placeholder of a path that there is not",
        domain('path = "mail/{user}"', 'recipients = "any"'),
        "domain[1].path",
        "{user} is not a known placeholder. The known ones are {domain}, {local_part}",
        "one of these",
    ),
    (
        "a variable of Dovecot in a path",
        domain('path = "mail/%d/{local_part}"', 'recipients = "any"'),
        "domain[1].path",
        "%d is a placeholder of Dovecot",
        "Write {domain}",
    ),
    (
        "a placeholder of a command that there is not",
        domain('deliver = "program"', 'recipients = "any"', 'command = ["/bin/x", "--", "{rcpt}"]'),
        "domain[1].command[3]",
        "{rcpt} is not a known placeholder. The known ones are {recipient}, {local_part}, {domain}, {sender}",
        "one of these",
    ),
    (
        "a placeholder that is a part of an argument",
        domain('deliver = "program"', 'recipients = "any"', 'command = ["/bin/x", "--to={recipient}"]'),
        "domain[1].command[2]",
        "must be a whole argument",
        "a separate argument",
    ),
    (
        "a PROXY header from nobody",
        listener('proxy = "v2"') + DOMAIN,
        "listener[1].proxy",
        "trusts no proxy",
        "proxy_networks",
    ),
    (
        "proxies without a PROXY header",
        listener('proxy_networks = "192.0.2.1"') + DOMAIN,
        "listener[1].proxy_networks",
        "expects no PROXY header",
        'proxy = "v2"',
    ),
    (
        "ETRN for nobody",
        listener() + '[relay]\ndomains = ["a.example"]\n[[relay.etrn]]\ndomains = ["a.example"]\n',
        "relay.etrn[1].domains",
        "Nobody may use ETRN",
        "networks",
    ),
    (
        "ETRN for what is no relay domain",
        listener() + '[relay]\ndomains = [".a.example"]\n[[relay.etrn]]\ndomains = ["b.a.example", "b.example"]\n'
        'networks = ["192.0.2.0/24"]\n',
        "relay.etrn[1].domains[2]",
        "'b.example' is not a relay domain",
        "under [relay]",
    ),
    (
        "submission without accounts",
        listener('role = "submission"') + TLS,
        "listener[1].role",
        "no accounts are configured",
        "postroad user add",
    ),
    (
        "early talkers that nobody waits for",
        listener('early_talker = "refuse"') + DOMAIN,
        "listener[1].early_talker",
        "Without a delay",
        "greet_delay_s",
    ),
    (
        "a pause before the greeting under implicit TLS",
        listener('tls = "implicit"', "greet_delay_s = 2") + DOMAIN + TLS,
        "listener[1].greet_delay_s",
        "must speak before the greeting",
        "Remove greet_delay_s",
    ),
    (
        "AUTH asked for without accounts",
        listener("auth = true") + DOMAIN + TLS,
        "listener[1].auth",
        "no accounts are configured",
        "[auth]",
    ),
    (
        "submission without TLS",
        listener('role = "submission"') + USERS,
        "listener[1].tls",
        "but has no TLS",
        "certificate and key under [tls]",
    ),
    (
        "TLS demanded without a certificate",
        listener('tls = "required"') + DOMAIN,
        "listener[1].tls",
        "there is no certificate",
        'tls = "none"',
    ),
    ("a key without a certificate", '[tls]\nkey = "tls.key"', "tls.key", "no first certificate", "under [tls]"),
    (
        "two listeners at one place",
        listener(name="a") + listener(name="b") + DOMAIN,
        "listener[2].port",
        "127.0.0.1:2525 is already used by the listener 'a'",
        "its own address or port",
    ),
    (
        "all addresses and one of them",
        listener(name="a").replace("127.0.0.1", "0.0.0.0") + listener(name="b") + DOMAIN,
        "listener[2].port",
        "used by the listener 'a' (0.0.0.0:2525)",
        "its own address or port",
    ),
    (
        "one address twice",
        listener().replace('"127.0.0.1"', '["::1", "::1"]') + DOMAIN,
        "listener[1].address",
        "[::1]:2525 is already used",
        "its own address or port",
    ),
    (
        "one Unix socket twice",
        listener(name="a").replace("127.0.0.1", "unix:/s")
        + listener(name="b", port=3).replace("127.0.0.1", "unix:/s")
        + DOMAIN,
        "listener[2].address",
        "unix:/s is already used",
        "its own address or port",
    ),
    (
        "one name for two listeners",
        listener() + listener(port=3) + DOMAIN,
        "listener[2].name",
        "'x' is used twice",
        "give it another name",
    ),
    ("a domain twice", DOMAIN + DOMAIN.replace("example.org", "EXAMPLE.org"), "domain[2].name", "twice", "Remove"),
    (
        "one name for two next hops",
        TRANSPORTS + NAMED + NAMED,
        "next_hop[2].name",
        "'isp' is used twice",
        "another name",
    ),
    ("a name of a next hop without a map", NAMED, "next_hop[1].name", "no transport map", "Add transport_maps"),
    (
        "a next hop by name without a host",
        TRANSPORTS + '[[next_hop]]\nname = "isp"\n',
        "next_hop[1].name",
        "needs a host",
        "Add host",
    ),
    (
        "a transport map that is not there",
        '[routing]\ntransport_maps = ["other"]\n',
        "routing.transport_maps[1]",
        "There is no map 'other'",
        "Add a [[map]]",
    ),
    (
        "a report mailbox of others",
        '[report_mailboxes]\naddresses = ["dmarc@elsewhere.example"]',
        "report_mailboxes.addresses[1]",
        "no domain of this node",
        "Add a [[domain]]",
    ),
    (
        "keys of report mailboxes without any",
        '[report_mailboxes]\nkeep_days = 5',
        "report_mailboxes.keep_days",
        "no effect without addresses",
        "Name the mailboxes",
    ),
    ("SRS without keys", '[srs]\ndomain = "example.org"', "srs.domain", "SRS needs keys", "keys_file"),
    ("SRS without a domain", '[srs]\nkeys_file = "k"', "srs.keys_file", "has no domain", "Add a line"),
    (
        "hashes that are not taken back",
        '[srs]\ndomain = "example.org"\nkeys_file = "k"\nhash_length_min = 8',
        "srs.hash_length",
        "shorter hash",
        "at least as large",
    ),
    ("BATV without keys", DOMAIN + 'batv = "sign"', "domain[1].batv", "BATV needs keys", "keys_file"),
    ("BATV for no domain", DOMAIN + '[batv]\nkeys_file = "k"', "batv.keys_file", "No [[domain]] uses", 'batv = "sign"'),
    (
        "a bound of held mail without held mail",
        '[[sending.limit]]\nwhose = "account"\nmessages_per_hour = 1\nheld_max = 5',
        "sending.limit[1].held_max",
        "no effect without",
        'Add over = "hold"',
    ),
    ("a limit of nothing", '[[sending.limit]]\nwhose = "account"', "sending.limit[1].whose", "limits nothing", "Add"),
    (
        "two limits for all",
        '[[sending.limit]]\nwhose = "account"\nmessages_per_hour = 1\n' * 2,
        "sending.limit[2].whose",
        "limited twice",
        "Remove",
    ),
    (
        "a limit of a client that is not a network",
        '[[sending.limit]]\nwhose = "client"\nwho = "host.example.org"\nmessages_per_hour = 1',
        "sending.limit[1].who[1]",
        "is not an IP network",
        "192.0.2.0/24",
    ),
    (
        "a limit of the null sender",
        '[[sending.limit]]\nwhose = "sender"\nwho = ["a@b.example", "<>"]',
        "sending.limit[1].who[2]",
        "null sender",
        "account",
    ),
    (
        "a limit of a sender that is none",
        '[[sending.limit]]\nwhose = "sender"\nwho = "@b.example"',
        "sending.limit[1].who[1]",
        "is not a sender",
        "b.example",
    ),
    (
        "limits in a map that is not there",
        '[sending]\nlimit_maps = "x"',
        "sending.limit_maps[1]",
        "There is no map 'x'",
        "Add a [[map]]",
    ),
    ("one pattern for two next hops", hop() + hop(), "next_hop[2].domain", "'*' is used twice", "Remove"),
    (
        "one sender for two next hops",
        hop('senders = ["a.example", "B@b.example"]') + hop('senders = "b@B.example"'),
        "next_hop[2].senders[1]",
        "'*' is used twice with 'b@b.example'",
        "Remove",
    ),
    (
        "one account for two next hops",
        hop('accounts = "Ada@a.example"') + hop('accounts = "ada@a.example"'),
        "next_hop[2].accounts[1]",
        "'*' is used twice with 'account ada@a.example'",
        "Remove",
    ),
    (
        "one mailbox for two next hops",
        '[[next_hop]]\nrecipients = "a@b.example"\nhost = "x"\n' * 2,
        "next_hop[2].recipients[1]",
        "'a@b.example' is used twice",
        "Remove",
    ),
    ("a next hop for nobody", '[[next_hop]]\nhost = "x"', "next_hop[1].domain", "whose mail it takes", "Add domain"),
    ("recipients and a domain", hop('recipients = "a@b.example"'), "next_hop[1].recipients", "a domain", "two tables"),
    (
        "senders and accounts",
        hop('senders = "a.example"', 'accounts = "ada"'),
        "next_hop[1].accounts",
        "senders and also accounts",
        "two tables",
    ),
    (
        "TLS for some senders of a domain that goes by MX",
        '[[next_hop]]\nsenders = "a.example"\ntls = "verify"',
        "next_hop[1].tls",
        "Without a host",
        "Add host",
    ),
    (
        "a mailbox of a local domain that goes by MX",
        DOMAIN + '[[next_hop]]\nrecipients = "a@example.org"',
        "next_hop[1].recipients[1]",
        "its MX is this node",
        "Add host",
    ),
    (
        "two demands of TLS on one server",
        hop() + '[[next_hop]]\ndomain = "b.example"\nhost = "smtp.example.net"\ntls = "verify"',
        "next_hop[2].tls",
        "the same server [smtp.example.net]:25 have two different values of tls",
        "the same tls in both",
    ),
    (
        "other names for the mail of one domain only",
        hop() + '[[next_hop]]\ndomain = "b.example"\nhost = "smtp.example.net"\ngeneric = "a@h.local a@b.example"',
        "next_hop[2].generic",
        "two different values of generic",
        "in both",
    ),
    (
        "two new names for one mailbox",
        '[[next_hop]]\ndomain = "a.example"\ngeneric = ["Ada@h.local a@b.example", "ada@h.local b@b.example"]',
        "next_hop[1].generic[2]",
        "'ada@h.local' gets two new names",
        "Remove one",
    ),
    (
        "a server that is told of the client for one domain only",
        hop() + '[[next_hop]]\ndomain = "b.example"\nhost = "smtp.example.net"\nxforward = true',
        "next_hop[2].xforward",
        "two different values of xforward",
        "in both",
    ),
    (
        "a server for which we speak for the client for one domain only",
        hop() + '[[next_hop]]\ndomain = "b.example"\nhost = "smtp.example.net"\nxclient = true',
        "next_hop[2].xclient",
        "two different values of xclient",
        "in both",
    ),
    (
        "a client that is named to a server where we have an account",
        '[[next_hop]]\ndomain = "a.example"\nhost = "h"\nusername = "u"\npassword = "p"\nxclient = true',
        "next_hop[1].xclient",
        "After XCLIENT the server would forget the account",
        "Remove one of the two",
    ),
    (
        "the same over LMTP",
        domain('recipients = "any"', 'deliver = "lmtp"', 'host = "h"', 'username = "u"', 'password_file = "p"')
        + "xclient = true",
        "domain[1].xclient",
        "After XCLIENT the server would forget the account",
        "Remove one of the two",
    ),
    (
        "servers found by MX are told of no client",
        '[[next_hop]]\ndomain = "a.example"\nxforward = true',
        "next_hop[1].xforward",
        "no effect without a host",
        "Add host",
    ),
    (
        "two domains with one LMTP server, which may use CHUNKING for one of them",
        domain('recipients = "any"', 'deliver = "lmtp"', 'host = "h"')
        + domain('recipients = "any"', 'deliver = "lmtp"', 'host = "h"', 'ignored_extensions = "CHUNKING"').replace(
            "example.org", "example.net"
        ),
        "domain[2].ignored_extensions",
        "the same LMTP server",
        "in both",
    ),
    (
        "a local domain to be passed on",
        DOMAIN + '[relay]\ndomains = ["a.example", "example.org"]',
        "relay.domains[2]",
        "'example.org' is also a local domain",
        "remove it from one",
    ),
    ("mail for no domain", listener(), "listener[1].role", "there are no domains", "Add a [[domain]]"),
    (
        "a relay for nobody",
        listener('role = "relay"'),
        "listener[1].trusted_networks",
        "Nobody may relay",
        "192.0.2.0/24",
    ),
    (
        "a recipient that is not the local-part",
        domain('recipients = ["ada", "bo b"]', 'path = "mail"'),
        "domain[1].recipients[2]",
        "'bo b' is not the local-part",
        "the part before",
    ),
    (
        "a recipient of another domain",
        domain('recipients = ["bob@a.test"]', 'path = "mail"'),
        "domain[1].recipients[1]",
        "'bob@a.test' is not the local-part of a mailbox in 'example.org'",
        "ada@example.org",
    ),
    (
        "a key of another role",
        listener("trust_network = true") + DOMAIN,
        "listener[1].trust_network",
        "has no effect for the role 'mx'",
        '"submission"',
    ),
    (
        "another key of another role",
        listener("strangers = false") + DOMAIN,
        "listener[1].strangers",
        "has no effect",
        '"relay"',
    ),
    ("LMTP on port 25", listener('protocol = "lmtp"', port=25) + DOMAIN, "listener[1].port", "RFC 2033 §5", "port"),
    (
        "submission over LMTP",
        listener('protocol = "lmtp"', 'role = "submission"') + TLS + USERS,
        "listener[1].protocol",
        "uses SMTP",
        '"smtp"',
    ),
    ("a Maildir nowhere", domain('recipients = "any"'), "domain[1].path", "does not say where its mail", "Add path"),
    (
        "LMTP to nowhere",
        domain('recipients = "any"', 'deliver = "lmtp"'),
        "domain[1].socket",
        "does not say where its mail is delivered",
        "Add socket, or host",
    ),
    (
        "LMTP to two places",
        domain('recipients = "any"', 'deliver = "lmtp"', 'socket = "s"', 'host = "h"'),
        "domain[1].host",
        "also a socket",
        "remove the other",
    ),
    (
        "a program that is none",
        domain('recipients = "any"', 'deliver = "program"'),
        "domain[1].command",
        "does not say where its mail is delivered",
        "Add command",
    ),
    (
        "a key of another delivery",
        domain('recipients = "any"', 'path = "mail"', "port = 24"),
        "domain[1].port",
        'no effect with deliver = "maildir"',
        'deliver = "lmtp"',
    ),
    ("an mbox file nowhere", domain('recipients = "any"', 'deliver = "mbox"'), "domain[1].path",
     "does not say where its mail", "/var/mail/{local_part}"),
    ("HTTP to nowhere", domain('recipients = "any"', 'deliver = "http"'), "domain[1].url",
     "does not say where its mail", "Add url"),
    (
        "a quota of messages for mbox files",
        domain('recipients = "any"', 'deliver = "mbox"', 'path = "m/{local_part}"', "quota_messages = 5"),
        "domain[1].quota_messages",
        'has no effect with deliver = "mbox"',
        'deliver = "maildir"',
    ),
    (
        "a user that is a template",
        domain('recipients = "any"', 'path = "m/{local_part}"', 'user = "u-{local_part}"'),
        "domain[1].user",
        "is not a user",
        "{local_part}",
    ),
    (
        "a group without a user",
        domain('recipients = "any"', 'path = "m/{local_part}"', 'user_group = "mail"'),
        "domain[1].user_group",
        "no effect without user",
        "Add user",
    ),
    (
        "an LMTP account without a password",
        domain('recipients = "any"', 'deliver = "lmtp"', 'host = "h"', 'username = "p"'),
        "domain[1].username",
        "no password_file",
        "Add password_file",
    ),
    (
        "a name that a Unix socket has not",
        domain('recipients = "any"', 'deliver = "lmtp"', 'socket = "s"', 'tls = "verify"'),
        "domain[1].tls",
        "no name that a certificate could prove",
        "Remove tls",
    ),
    ("a domain without recipients", domain('path = "mail"'), "domain[1].recipients", "has no recipients", '"any"'),
    (
        "two passwords",
        hop('username = "u"', 'password = "p"', 'password_file = "f"'),
        "next_hop[1].password",
        "also a password_file",
        "Remove one",
    ),
    (
        "a token and a password",
        hop('username = "u"', 'password = "p"', 'token_file = "t"'),
        "next_hop[1].token_file",
        "There is a token and also a password",
        "Remove one",
    ),
    (
        "CRAM-MD5 without a password",
        hop('username = "u"', "cram_md5 = true", 'token_file = "t"'),
        "next_hop[1].cram_md5",
        "CRAM-MD5 is allowed",
        "Remove cram_md5",
    ),
    (
        "two tokens",
        hop('username = "u"', 'token_command = ["/bin/t"]', 'token_file = "t"'),
        "next_hop[1].token_command",
        "There is a token_file and also",
        "Remove one",
    ),
    ("a token of nobody", hop('token_file = "t"'), "next_hop[1].token_file", "no username", "Add username"),
    (
        "a password by OAUTHBEARER",
        hop('username = "u"', 'password = "p"', 'mechanism = "OAUTHBEARER"'),
        "next_hop[1].mechanism",
        "OAUTHBEARER needs a token, but none is set",
        "one that fits",
    ),
    (
        "a token by SCRAM",
        hop('username = "u"', 'token_file = "t"', 'mechanism = "SCRAM-SHA-256"'),
        "next_hop[1].mechanism",
        "SCRAM-SHA-256 needs a password, but a token is set",
        "one that fits",
    ),
    (
        "two who verify",
        '[auth]\ndovecot = "/run/dovecot/auth-client"\nfunction = "a:b"\n',
        "auth.function",
        "There is a function and also a Dovecot socket",
        "remove the other",
    ),
    ("no function", '[auth]\nfunction = "check"\n', "auth.function", "not the name of a function", "module:function"),
    (
        "certificates that nobody asks for",
        '[auth]\ncertificate_name = "mailbox"\n',
        "auth.certificate_name",
        "asks for none",
        'client_certificates = "asked"',
    ),
    (
        "certificates of anybody",
        '[auth]\ncertificate_name = "mailbox"\n' + TLS + 'client_certificates = "asked"\n',
        "auth.certificate_name",
        "any public CA",
        "client_ca_file",
    ),
    (
        "half an identity for introspection",
        '[auth.introspection]\nurl = "https://x.test/i"\nclient_id = "mail"\n',
        "auth.introspection.client_id",
        "belong together",
        "Set both",
    ),
    (
        "introspection nowhere",
        '[auth.introspection]\nscope = "smtp"\n',
        "auth.introspection.scope",
        "has no effect without a url",
        "Add url",
    ),
    ("no password", hop('username = "u"'), "next_hop[1].username", "no password", "password_file"),
    ("no username", hop('password = "p"'), "next_hop[1].password", "no username", "Add username"),
    (
        "DANE without a resolver that validates",
        '[routing]\ntls = "dane-only"\n',
        "routing.tls",
        "DANE needs a resolver",
        "validating = true",
    ),
    (
        "DANE of a table without such a resolver",
        hop('tls = "dane"'),
        "next_hop[1].tls",
        "DANE needs a resolver",
        "validating = true",
    ),
    (
        "resolvers of the system that validate",
        "[dns]\nvalidating = true\n",
        "dns.validating",
        "not known which resolvers validate",
        "servers",
    ),
    (
        "a fingerprint for all domains",
        '[routing]\ntls = "fingerprint"\n',
        "routing.tls",
        "cannot be that of all servers",
        "[[next_hop]]",
    ),
    (
        "a fingerprint without one",
        hop('tls = "fingerprint"'),
        "next_hop[1].tls",
        "need each other",
        "both",
    ),
    (
        "fingerprints that nothing compares",
        hop('tls = "verify"', f'tls_fingerprints = "{"ab" * 32}"'),
        "next_hop[1].tls",
        "need each other",
        "both",
    ),
    (
        "names that nothing compares",
        hop('tls = "encrypt"', 'tls_names = "x.example"'),
        "next_hop[1].tls_names",
        "compared only",
        "verify",
    ),
    (
        "MTA-STS of a server that was set",
        hop('tls = "sts"'),
        "next_hop[1].tls",
        "MX records",
        "dane",
    ),
    (
        "MTA-STS of an LMTP server",
        domain('recipients = "any"', 'deliver = "lmtp"', 'host = "h"', 'tls = "sts"'),
        "domain[1].tls",
        "not for the servers of local domains",
        "verify",
    ),
    (
        "a password for all to read",
        hop('username = "u"', 'password = "p"', 'tls = "never"'),
        "next_hop[1].tls",
        "anybody on the network path could read",
        'tls = "verify"',
    ),
    (
        "MX of an address",
        hop("mx = true").replace("smtp.example.net", "::1"),
        "next_hop[1].mx",
        "needs a domain as host",
        "mx = false",
    ),
    (
        "MX of nothing",
        '[[next_hop]]\ndomain = "*"\nmx = true',
        "next_hop[1].mx",
        "needs a domain as host",
        "Write a domain",
    ),
    ("a port of nothing", '[[next_hop]]\ndomain = "*"\nport = 26', "next_hop[1].port", "without a host", "Add host"),
    (
        "a relay domain twice",
        '[relay]\ndomains = ["a.example"]\n[[relay.domain]]\nname = "a.example"\nrecipients = ["x"]',
        "relay.domain[1].name",
        "'a.example' is used twice",
        "Remove",
    ),
    (
        "a relay domain that is ours",
        DOMAIN + '[[relay.domain]]\nname = "example.org"\nrecipients = ["x"]',
        "relay.domain[1].name",
        "also a local domain",
        "remove it from one",
    ),
    (
        "a relay domain without recipients",
        '[[relay.domain]]\nname = "example.org"',
        "relay.domain[1].recipients",
        "has no recipients",
        "domains under [relay]",
    ),
    ("no way out", "[dns]\nipv4 = false\nipv6 = false", "dns.ipv6", "no host can be reached", "Allow one"),
    (
        "too long a first pause",
        '[queue]\nretry_first_s = "5h"',
        "queue.retry_first_s",
        "more than retry_max_s",
        "at most",
    ),
    (
        "too short a longest pause",
        "[queue]\nretry_max_s = 9",
        "queue.retry_max_s",
        "less than retry_first_s",
        "at most",
    ),
    (
        "a notice too late",
        '[queue]\ndelay_notice_s = "6d"',
        "queue.delay_notice_s",
        "more than lifetime_s",
        "lifetime_s",
    ),
    ("a group alone", 'group = "mail"', "group", "no user", "Add user"),
]

RIGHT: list[tuple[str, str]] = [
    (
        "relay domains below one that is our own",
        listener('role = "mx"') + '[relay]\ndomains = [".example.net", ".internal", "example.com"]\n',
    ),
    (
        "relay domains where no stranger may send",
        listener('role = "relay"', 'trusted_networks = "192.0.2.0/24"', "strangers = false")
        + '[relay]\ndomains = ["*"]\n',
    ),
    ("nothing at all", ""),
    ("mail in", listener() + DOMAIN),
    (
        "mail in quarantine that goes elsewhere",
        listener('dmarc = "enforce"', 'quarantine = "redirect"', 'quarantine_to = "junk@example.org"') + DOMAIN,
    ),
    (
        "placeholders, and the braces of others",
        domain(
            'deliver = "program"', 'recipients = "any"',
            'command = ["/bin/sh", "-c", "f() { cat >${HOME}/{x}; }; f", "${HOME}", "{}", "--", "{sender}"]',
        ),
    ),
    (
        "one server for several senders, and a mailbox with its extension",
        '[[next_hop]]\nsenders = ["a.example", ".a.example", "<>"]\nhost = "x.example"\n'
        '[[next_hop]]\nsenders = "b.example"\nhost = "x.example"\n'
        '[[next_hop]]\nrecipients = ["a@c.example", "a+b@c.example"]\nhost = "x.example"\n'
        '[[next_hop]]\ndomain = "c.example"\nsenders = "b.example"\n',
    ),
    (
        "two demands of TLS on one server, which has its own connections for the slow domain",
        '[[pace]]\ndomain = "slow.example"\nconnections_max = 1\n'
        '[[next_hop]]\ndomain = "slow.example"\nhost = "x.example"\ntls = "verify"\n'
        '[[next_hop]]\ndomain = "*"\nhost = "x.example"\n',
    ),
    ("only TLS set for a domain", '[[next_hop]]\ndomain = "example.net"\ntls = "verify"'),
    ("mail for known recipients", listener() + '[[relay.domain]]\nname = "example.net"\nrecipients = ["x"]'),
    ("mail for relay domains", listener() + '[relay]\ndomains = [".example.net"]'),
    ("submission", listener('role = "submission"', 'tls = "required"') + TLS + USERS),
    ("submission without TLS on purpose", listener('role = "submission"', "auth_without_tls = true") + USERS),
    ("submission by network", listener('role = "submission"', "trust_network = true", "auth = false")),
    ("relay by network", listener('role = "relay"', 'trusted_networks = ["10.0.0.0/8"]', "strangers = false")),
    ("relay by account", listener('role = "relay"', "auth = true") + TLS + USERS),
    ("one port, two addresses", listener(name="a") + listener(name="b").replace("127.0.0.1", "127.0.0.2") + DOMAIN),
    (
        "one port, two families",
        listener(name="a").replace("127.0.0.1", "0.0.0.0") + listener(name="b").replace("127.0.0.1", "::") + DOMAIN,
    ),
    ("two ports, one address", listener(name="a") + listener(name="b", port=2526) + DOMAIN),
    ("two Unix sockets", listener(name="a").replace("127.0.0.1", "unix:/a")
     + listener(name="b").replace("127.0.0.1", "unix:/b") + DOMAIN),
    ("LMTP at a Unix socket", listener('protocol = "lmtp"', port=25).replace("127.0.0.1", "unix:/l") + DOMAIN),
    ("LMTP delivery", domain('recipients = "any"', 'deliver = "lmtp"', 'host = "::1"', "port = 2424")),
    ("mbox files", domain('recipients = "any"', 'deliver = "mbox"', 'path = "m/{local_part}"', 'quota_size = "1G"')),
    ("HTTP", domain('recipients = "any"', 'deliver = "http"', 'url = "https://a.test/"', 'format = "json"')),
    ("a user", domain('recipients = "any"', 'path = "m/{local_part}"', 'user = "{local_part}"')),
    ("a program", domain('recipients = ["a"]', 'deliver = "program"', 'command = ["/bin/cat"]')),
    ("recipients of a file", domain('recipients_file = "r"', 'path = "mail"')),
    ("a token", hop('username = "u"', 'token_file = "t"', 'mechanism = "XOAUTH2"')),
    ("a certificate as the account", hop('username = "u"', 'mechanism = "EXTERNAL"')),
    ("Dovecot's accounts", listener('role = "submission"') + TLS + '[auth]\ndovecot = "/run/dovecot/auth-client"\n'),
    ("a function's accounts", listener('role = "submission"') + TLS + '[auth]\nfunction = "/etc/a.py:check"\n'),
    ("a smart host", hop("port = 587", 'tls = "verify"', 'username = "u"', 'password_file = "p"')),
    (
        "a password without TLS on purpose",
        hop('username = "u"', 'password = "p"', 'tls = "never"', "auth_without_tls = true"),
    ),
    ("recipients with and without their domain", domain('recipients = ["ada", "bob@example.org"]', 'path = "mail"')),
    (
        "a relay for who shows a certificate",
        listener('role = "relay"', 'client_certificates = "asked"', f'trusted_certificates = ["{"ab" * 32}"]') + TLS,
    ),
    ("several servers", hop('hosts = ["a.example", "b.example"]').replace('host = "smtp.example.net"\n', "")),
    ("some mail from another address", hop() + '[[next_hop]]\nsenders = "bulk.example"\nsource_ipv4 = "192.0.2.7"\n'),
    ("an exact and a general next hop", hop() + hop().replace("*", "example.net")),
]  # fmt: skip


@pytest.mark.parametrize(
    ("text", "key", "said", "remedy"), [case[1:] for case in WRONG], ids=[case[0] for case in WRONG]
)
def test_a_contradiction_is_found_at_its_key(text: str, key: str, said: str, remedy: str, tmp_path: Path) -> None:
    problems = found(text, tmp_path)
    assert [each[0] for each in problems] == [key]
    assert said in problems[0][1]
    assert remedy in problems[0][2]


@pytest.mark.parametrize("text", [case[1] for case in RIGHT], ids=[case[0] for case in RIGHT])
def test_what_works_is_no_contradiction(text: str, tmp_path: Path) -> None:
    assert found(text, tmp_path) == []
