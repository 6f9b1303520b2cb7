"""Programs run without a shell, on asyncio's loop and on uvloop's."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import TypeVar

import pytest
import uvloop

from postroad.world.programs import ProgramResult, SystemPrograms

pytestmark = pytest.mark.slow

T = TypeVar("T")
Run = Callable[[Awaitable[T]], T]


@pytest.fixture(params=["asyncio", "uvloop"])
def loop_factory(request: pytest.FixtureRequest) -> Callable[[], asyncio.AbstractEventLoop] | None:
    return uvloop.new_event_loop if request.param == "uvloop" else None


Factory = Callable[[], asyncio.AbstractEventLoop] | None


def run(factory: Factory, *command: str, stdin: bytes | Path = b"", timeout_s: float = 20, output_max: int = 1000,
        environment: dict[str, str] | None = None, directory: str = "/") -> ProgramResult:  # fmt: skip
    async def main() -> ProgramResult:
        return await SystemPrograms().run(
            command, stdin=stdin, environment=environment or {}, directory=directory, timeout_s=timeout_s,
            output_max=output_max,
        )  # fmt: skip

    with asyncio.Runner(loop_factory=factory) as each:
        return each.run(main())


def python(code: str) -> tuple[str, ...]:
    return sys.executable, "-S", "-c", code


def test_output_and_exit_code(loop_factory: Factory) -> None:
    code = "import sys; print('out', flush=True); print('err', file=sys.stderr); sys.exit(7)"
    assert run(loop_factory, *python(code)) == ProgramResult(7, output=b"out\nerr\n")
    assert run(loop_factory, "/bin/true") == ProgramResult(0)


@pytest.mark.parametrize("size", [0, 1, 1_000_000])
@pytest.mark.parametrize("as_file", [False, True])
def test_its_input(loop_factory: Factory, tmp_path: Path, size: int, as_file: bool) -> None:
    octets = b"x" * size
    path = tmp_path / "content"
    path.write_bytes(octets)
    ended = run(loop_factory, "/usr/bin/wc", "-c", stdin=path if as_file else octets)
    assert (ended.exit_code, ended.output.strip()) == (0, str(size).encode())


def test_a_program_that_does_not_read_its_input(loop_factory: Factory) -> None:
    assert run(loop_factory, "/bin/true", stdin=b"x" * 1_000_000).exit_code == 0


def test_no_shell_sees_the_words(loop_factory: Factory, tmp_path: Path) -> None:
    words = ["; touch gone", "$(touch gone)", "`touch gone`", "a b", "-n", "*", "\n"]
    ended = run(loop_factory, "/usr/bin/printf", "[%s]", *words, directory=str(tmp_path))
    assert ended.output == "".join(f"[{word}]" for word in words).encode()
    assert os.listdir(tmp_path) == []


def test_the_environment_is_what_it_is_given(loop_factory: Factory, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SECRET", "x")
    assert run(loop_factory, "/usr/bin/env", environment={"SENDER": "a@b"}).output == b"SENDER=a@b\n"
    assert run(loop_factory, "/usr/bin/env").output == b""


def test_directory_and_descriptors(loop_factory: Factory, tmp_path: Path) -> None:
    with open(tmp_path / "open", "w") as ours:
        os.set_inheritable(ours.fileno(), True)  # as listening sockets of workers are
        ended = run(loop_factory, *python("import os; print(os.getcwd(), sorted(os.listdir('/proc/self/fd')))"),
                    directory=str(tmp_path))  # fmt: skip
    assert ended.output.decode().startswith(str(tmp_path))
    assert ended.output.decode().strip().endswith("['0', '1', '2', '3']")  # 3 is that of listdir itself


def test_output_is_bounded_and_never_blocks(loop_factory: Factory) -> None:
    ended = run(loop_factory, *python("print('x' * 3_000_000)"), output_max=10)
    assert ended == ProgramResult(0, output=b"x" * 10)


def test_the_time_limit_kills_the_whole_group(loop_factory: Factory, tmp_path: Path) -> None:
    # A shell: it says what it has started long before its time is over.
    ended = run(loop_factory, "/bin/sh", "-c", "/bin/sleep 60 & echo $! $$; wait", timeout_s=2.0)
    assert ended.timed_out and ended.signal_number == signal.SIGTERM and ended.exit_code == -1
    pids = [int(pid) for pid in ended.output.split()]
    assert len(set(pids)) == 2 and all(map(gone, pids))


def test_one_that_ignores_sigterm(loop_factory: Factory, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("postroad.world.programs._GRACE_S", 0.2)
    ended = run(loop_factory, "/bin/sh", "-c", "trap '' TERM; echo ready; exec /bin/sleep 60", timeout_s=2.0)
    assert ended.timed_out and ended.signal_number == signal.SIGKILL and ended.output == b"ready\n"


LEAVES = """
import os, time
if not os.fork():
    {closes}
    while not os.path.exists({mark!r} + '.go'):
        time.sleep(0.01)
    open({mark!r}, 'w').write('done')
"""


def test_what_it_leaves_running_does_its_work(loop_factory: Factory, tmp_path: Path) -> None:
    """A list server takes a message, says 0, and sends it to the members afterwards."""
    mark, go = tmp_path / "mark", tmp_path / "mark.go"
    ended = run(loop_factory, *python(LEAVES.format(closes="os.close(1); os.close(2)", mark=str(mark))))
    assert ended == ProgramResult(0) and not mark.exists()
    go.touch()
    until = time.monotonic() + 60
    while not mark.exists() and time.monotonic() < until:
        time.sleep(0.01)
    assert mark.exists()


def test_who_holds_its_output_open_is_waited_for(loop_factory: Factory, tmp_path: Path) -> None:
    mark, go = tmp_path / "mark", tmp_path / "mark.go"
    code = python(LEAVES.format(closes="pass", mark=str(mark)))
    ended = run(loop_factory, "/bin/sh", "-c", f'"$0" "$@"; (sleep 3; touch {go}) & exit 5', *code)
    assert ended.exit_code == 5 and mark.read_text() == "done"


def test_what_it_leaves_running_is_killed_when_its_time_is_over(loop_factory: Factory) -> None:
    ended = run(loop_factory, "/bin/sh", "-c", "/bin/sleep 60 & echo $!", timeout_s=2.0)
    assert ended.exit_code == 0 and not ended.timed_out
    assert gone(int(ended.output))


def test_cancelling_leaves_alone_what_an_ended_program_has_left(loop_factory: Factory, tmp_path: Path) -> None:
    mark, go = tmp_path / "mark", tmp_path / "mark.go"
    left = f"(echo $$ > {mark}.sh; while [ ! -e {go} ]; do sleep 0.05; done; touch {mark}) & exit 0"

    async def main() -> None:
        running = asyncio.ensure_future(SystemPrograms().run(("/bin/sh", "-c", left), environment={}, timeout_s=60))
        shell = Path(f"{mark}.sh")
        while not (shell.exists() and shell.read_text().endswith("\n") and _is_zombie(int(shell.read_text()))):
            await asyncio.sleep(0.01)
        await asyncio.sleep(0.05)  # the loop hears of it
        running.cancel()
        ended = await running
        assert (ended.exit_code, ended.broken_off, mark.exists()) == (0, True, False)
        go.touch()
        while not mark.exists():
            await asyncio.sleep(0.01)

    with asyncio.Runner(loop_factory=loop_factory) as each:
        each.run(main())


def _is_zombie(pid: int) -> bool:
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z"


def test_cancelling_kills_it(loop_factory: Factory, tmp_path: Path) -> None:
    mark = tmp_path / "pid"
    code = f"import os, time; open({str(mark)!r}, 'w').write(str(os.getpid()) + '.'); time.sleep(60)"

    async def main() -> None:
        task = asyncio.ensure_future(
            SystemPrograms().run(python(code), environment={}, timeout_s=60, output_max=10)
        )
        while not (mark.exists() and mark.read_text().endswith(".")):
            await asyncio.sleep(0.01)  # another process writes it
        task.cancel()
        ended = await task
        assert ended.broken_off and not ended.timed_out and ended.signal_number == signal.SIGTERM

    with asyncio.Runner(loop_factory=loop_factory) as each:
        each.run(main())
    assert gone(int(mark.read_text().rstrip(".")))


@pytest.mark.parametrize(
    ("command", "word"),
    [(("/absent/program",), "No such file"), (("/etc/passwd",), "ermission"), (("/bin/echo", "a\0b"), "null")],
)
def test_what_cannot_be_started(loop_factory: Factory, command: tuple[str, ...], word: str) -> None:
    ended = run(loop_factory, *command)
    assert ended.exit_code == -1 and word in ended.error and command[0] in ended.error


def test_an_input_file_that_is_absent(loop_factory: Factory, tmp_path: Path) -> None:
    assert "No such file" in run(loop_factory, "/bin/true", stdin=tmp_path / "absent").error


def test_without_pidfd_a_thread_waits(loop_factory: Factory, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(os, "pidfd_open")
    assert run(loop_factory, *python("print(1); raise SystemExit(3)")) == ProgramResult(3, output=b"1\n")
    ended = run(loop_factory, "/bin/sleep", "60", timeout_s=0.1)
    assert ended.timed_out and ended.signal_number == signal.SIGTERM


def test_nothing_stays_open(loop_factory: Factory) -> None:
    before = len(os.listdir("/proc/self/fd"))
    for _ in range(3):
        run(loop_factory, "/bin/cat", stdin=b"x")
        run(loop_factory, "/bin/sleep", "60", timeout_s=0.05)
        run(loop_factory, "/absent")
    assert len(os.listdir("/proc/self/fd")) == before


def gone(pid: int) -> bool:
    """Whether a process has ended, zombies included, within a moment."""
    until = time.monotonic() + 30
    while time.monotonic() < until:
        try:
            state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
        except (FileNotFoundError, ProcessLookupError):
            return True
        if state == "Z":
            return True
        time.sleep(0.01)
    return False
