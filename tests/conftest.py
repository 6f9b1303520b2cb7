"""For all tests: no example of a property fails for the time it took, which says more of the machine than the code."""

from __future__ import annotations

from hypothesis import settings

settings.register_profile("untimed", settings.get_profile(settings.get_current_profile_name()), deadline=None)
settings.load_profile("untimed")
