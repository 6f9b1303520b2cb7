"""For all tests: no example of a property fails for the time it took, which says more of the machine than the code.
With CI set the examples are the same in each run, so that a change alone can make it fail; elsewhere they differ.

With CI set nothing may be skipped: a run that skipped a test has failed.

Programs that tests start keep compiled files, whatever the machine says: else each would take twice as long to start.
"""

from __future__ import annotations

import os

import pytest
from hypothesis import settings

os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
settings.register_profile("untimed", settings.get_profile(settings.get_current_profile_name()), deadline=None)
settings.register_profile("repeatable", settings.get_profile("untimed"), derandomize=True, database=None)
settings.load_profile("repeatable" if os.environ.get("CI") else "untimed")


def pytest_sessionfinish(session: pytest.Session) -> None:
    """In the process that reports, after all workers have ended."""
    reporter = session.config.pluginmanager.get_plugin("terminalreporter")
    if os.environ.get("CI") and reporter is not None and reporter.stats.get("skipped"):
        session.exitstatus = pytest.ExitCode.TESTS_FAILED


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    skipped = len(terminalreporter.stats.get("skipped", ()))
    if os.environ.get("CI") and skipped:
        terminalreporter.write_line(f"CI is set: nothing may be skipped, but {skipped} were", red=True, bold=True)
