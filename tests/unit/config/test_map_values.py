"""Values of maps that nothing can use are told before mail comes."""

from __future__ import annotations

from pathlib import Path

import pytest

from postroad.config import map_values
from postroad.config.load import parse
from postroad.config.settings import Settings

HEAD = 'hostname = "mail.example.org"\nstate_dir = "state"\n'
DOMAIN = '[[domain]]\nname = "example.org"\npath_maps = ["m"]\n'


@pytest.mark.parametrize(
    ("user", "value", "why"),
    [
        ('[sending]\nlimit_maps = ["m"]\n', "messages_per_hour=10 over=bounce", "over may be refuse or hold"),
        ('[sending]\nlimit_maps = ["m"]\n', "100", "there is no limit '100'"),
        ('[sending]\nlimit_maps = ["m"]\n', "messages_per_hour=10 over=hold", ""),
        ('[rewrite]\ncanonical_maps = ["m"]\n', "a@b.example, c@d.example", "it is not a single address"),
        ('[rewrite]\nsender_canonical_maps = ["m"]\n', "@not a domain", "it is not a single address"),
        ('[rewrite]\nrecipient_canonical_maps = ["m"]\n', "@new.example", ""),
        ('[rewrite]\ncanonical_maps = ["m"]\n', "ada", ""),
        (DOMAIN, "ada/", "it is not a whole path, and path_base is not set"),
        (f'{DOMAIN}path_base = "/var/mail"\n', "../ada/", "it is not the path of a mailbox"),
        (f'{DOMAIN}path_base = "/var/mail"\n', "ada/", ""),
        (DOMAIN, "/var/mail/ada/", ""),
        ('[routing]\ntls_policy_maps = ["m"]\n', "sure", "'sure' is not a level of TLS"),
        ('[routing]\ntls_policy_maps = ["m"]\n', "secure match=.example.net", ""),
    ],
)
def test_values_that_cannot_be_used(tmp_path: Path, user: str, value: str, why: str) -> None:
    text = f'{HEAD}{user}[[map]]\nname = "m"\nkind = "inline"\nentries = ["ada@example.org {value}"]\n'
    settings = parse(text, tmp_path / "postroad.toml", files=False)
    assert isinstance(settings, Settings), settings
    found = [(each.about, each.text) for each in map_values.find(settings, 0.0)]
    assert [about for about, _ in found] == ([(("map", 0),)] if why else [])
    assert all(f"for ada@example.org: {why}" in told for _, told in found)
