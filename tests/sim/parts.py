"""The parts that a run may have (`part`), by the names that a plan gives them."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

from tests.sim.by_http import ByHttp
from tests.sim.copied import Copied
from tests.sim.feedback import Feedback
from tests.sim.held import HeldMail
from tests.sim.leading import Leading
from tests.sim.origin import Origin
from tests.sim.part import Part
from tests.sim.policies import Policies
from tests.sim.published import Published
from tests.sim.reporting import Reporting
from tests.sim.signed_mail import SignedMail
from tests.sim.sized import Sized
from tests.sim.sts import StsDomain
from tests.sim.targets import Targets
from tests.sim.users import Users
from tests.sim.variable import Variable
from tests.sim.verifying import Verifying

if TYPE_CHECKING:
    from tests.sim.house import House

KINDS: dict[str, type[Part]] = {
    "http": ByHttp, "verified": Verifying, "held": HeldMail, "sized": Sized, "verp": Variable, "copied": Copied,
    "targets": Targets, "users": Users, "leading": Leading, "policies": Policies,
    "reporting": Reporting, "origin": Origin, "published": Published, "dkim": SignedMail, "sts": StsDomain,
    "feedback": Feedback,
}  # fmt: skip


def parts(house: House, names: Iterable[str]) -> list[Part]:
    return [kind(house) for name, kind in KINDS.items() if name in names]
