"""examples/ROLE.toml is the configuration of a recipe, which a test plays with real programs."""

from __future__ import annotations

import pytest

from tests.peers.harness.need import ROOT
from tests.peers.harness.recipe import Page

PAGES = {
    "null-client": "null-client",
    "smart-host": "behind-a-provider",
    "mx-before-dovecot": "mx-before-dovecot",
    "backup-mx": "backup-mx",
    "application-mailer": "application-mailer",
    "list-host": "list-host",
}


@pytest.mark.parametrize("role", PAGES)
def test_the_example_is_that_of_the_page(role: str) -> None:
    page = PAGES[role]
    expected = f"# The task, the other files and the commands: docs/recipes/{page}.md\n"
    expected += Page(page).files()["/etc/postroad/postroad.toml"].partition("\n")[2]
    path = ROOT / "examples" / f"{role}.toml"
    assert path.read_text("utf-8") == expected, f"write what docs/recipes/{page}.md has into {path}"
    assert (ROOT / f"tests/peers/test_recipe_{page.replace('-', '_')}.py").exists()
