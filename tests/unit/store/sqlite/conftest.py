from __future__ import annotations

import pytest

from postroad.store.sqlite.quickness import Quickness


@pytest.fixture(params=["thread", "loop"])
def commits_on(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """All commits that may be made on the loop are made there, or none."""
    place = str(request.param)
    monkeypatch.setattr(Quickness, "may_be_on_loop", lambda self: place == "loop")
    return place
