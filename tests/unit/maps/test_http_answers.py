"""What the status of an HTTP answer says: of one key, or of all."""

from __future__ import annotations

import pytest

from postroad.maps.services import HttpDriver
from postroad.maps.waiting import Away
from postroad.world.http import HttpRequest, HttpResponse


@pytest.mark.parametrize(
    ("status", "kind"),
    [(401, Away), (403, Away), (407, Away), (408, Away), (429, Away), (500, Away), (503, Away), (302, Away),
     (400, ValueError), (410, ValueError), (422, ValueError)],
)  # fmt: skip
async def test_a_server_that_lets_nobody_in_is_away_and_a_bad_key_is_only_this_key(
    status: int, kind: type[Exception]
) -> None:
    driver = HttpDriver("http://127.0.0.1:9/{key}", "token", "", 1, 1.0)

    async def fetch(request: HttpRequest) -> HttpResponse:
        return HttpResponse(status, b"no")

    driver._fetch = fetch
    with pytest.raises(kind):
        await driver.fetch("ada@example.org", part=False)
    driver.close()
