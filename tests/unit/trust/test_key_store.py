"""The folder of keys: who may read and write it, what a crash leaves, what a changed file does."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import msgspec
import pytest

from postroad.trust import keyring
from postroad.trust.dkim_key import KeyKind
from postroad.trust.key_store import KeyStore
from postroad.trust.keyring import DomainKeys
from postroad.world.clock import SystemClock
from postroad.world.problem import Problem

_KEY = keyring.made("e1", keyring.generate(KeyKind.ED25519, 0), 7)
_OTHER = keyring.made("e2", keyring.generate(KeyKind.ED25519, 0), 9)
_FAR_US = 4_000_000_000_000_000  # no folder is young then


def _store(folder: Path) -> KeyStore:
    return KeyStore(folder / "dkim", lambda: _FAR_US)


def _write(store: KeyStore, *keys: DomainKeys) -> None:
    with store.changing():
        for each in keys:
            store.write(each)


def _touch(folder: Path) -> None:
    """Gives a folder another time than it had, however coarse the clock of its file system is."""
    later_ns = folder.stat().st_mtime_ns + 1_000_000_000
    os.utime(folder, ns=(later_ns, later_ns))


def test_no_folder_is_no_keys(tmp_path: Path) -> None:
    store = _store(tmp_path)
    assert store.load() == ()
    assert store.domains == {}
    assert store.domain("example.org") is None


def test_keys_are_kept_for_the_owner_alone(tmp_path: Path) -> None:
    os.umask(0)
    store = _store(tmp_path)
    _write(store, DomainKeys("example.org", (_KEY,)))
    os.umask(0o022)
    assert (tmp_path / "dkim").stat().st_mode & 0o777 == 0o700
    assert (tmp_path / "dkim" / "example.org.json").stat().st_mode & 0o777 == 0o600
    assert store.load() == ()
    assert store.domains == {"example.org": DomainKeys("example.org", (_KEY,))}


def test_a_change_is_read_and_the_others_stay_the_same_values(tmp_path: Path) -> None:
    store = _store(tmp_path)
    _write(store, DomainKeys("example.org", (_KEY,)), DomainKeys("example.net", (_KEY,)))
    store.load()
    before = store.domains
    assert store.load() == ()
    assert store.domains is before
    _write(store, DomainKeys("example.org", (_KEY, _OTHER)))
    store.load()
    assert store.domains is not before
    assert store.domains["example.net"] is before["example.net"]
    assert len(store.domains["example.org"].keys) == 2
    _write(store, DomainKeys("example.net"))
    store.load()
    assert list(store.domains) == ["example.org"]
    assert not (tmp_path / "dkim" / "example.net.json").exists()


def test_two_changes_within_one_tick_of_the_file_system_are_both_read(tmp_path: Path) -> None:
    store = KeyStore(tmp_path / "dkim", lambda: os.stat(tmp_path / "dkim").st_mtime_ns // 1000)
    _write(store, DomainKeys("example.org", (_KEY,)))
    then = os.stat(tmp_path / "dkim").st_mtime_ns
    store.load()
    _write(store, DomainKeys("example.net", (_KEY,)))
    os.utime(tmp_path / "dkim", ns=(then, then))
    store.load()
    assert set(store.domains) == {"example.org", "example.net"}


@pytest.mark.parametrize(
    ("harm", "text"),
    [
        (lambda file: file.chmod(0o640), "other users may read"),
        (lambda file: file.write_bytes(b"{}"), "is no file of keys"),
        (lambda file: file.write_bytes(b"x" * (keyring.OCTETS_MAX + 1)), "more than"),
        (lambda file: file.write_bytes(keyring.encode(DomainKeys("example.net"))), "has the keys of example.net"),
        (lambda file: (file.unlink(), file.mkdir()), "is no regular file"),
        (lambda file: (file.rename(file.parent / "x"), file.symlink_to("x")), "cannot be read"),
        (lambda file: file.parent.chmod(0o770), "other users may write to it"),
    ],
)
def test_keys_of_a_file_that_cannot_be_used_stay_as_they_were(
    tmp_path: Path, harm: Callable[[Path], Any], text: str
) -> None:
    store = _store(tmp_path)
    _write(store, DomainKeys("example.org", (_KEY,)), DomainKeys("example.net", (_KEY,)))
    store.load()
    harm(tmp_path / "dkim" / "example.org.json")
    _touch(tmp_path / "dkim")
    problems = store.load()
    assert len(problems) == 1
    assert text in str(problems[0])
    assert set(store.domains) == {"example.org", "example.net"}
    _touch(tmp_path / "dkim")
    assert store.load() == ()  # it is said once
    fresh = _store(tmp_path)
    fresh.load()
    assert "example.org" not in fresh.domains


def test_a_file_that_is_right_again_is_read_though_its_folder_has_not_changed(tmp_path: Path) -> None:
    """Rights, owners and octets of a file change nothing of its folder."""
    now_us = [_FAR_US]
    store = KeyStore(tmp_path / "dkim", lambda: now_us[0])
    _write(store, DomainKeys("example.org", (_KEY,)))
    file = tmp_path / "dkim" / "example.org.json"
    file.chmod(0o644)
    assert len(store.load()) == 1 and not store.domains
    now_us[0] += 40_000_000
    assert store.load() == ()  # it is said once
    file.chmod(0o600)
    assert store.load() == () and not store.domains  # not at each look: there may be many files
    now_us[0] += 40_000_000
    assert store.load() == ()
    assert set(store.domains) == {"example.org"}
    restored = keyring.encode(DomainKeys("example.org", (_OTHER,)))
    file.write_bytes(restored)  # from a backup, in place
    now_us[0] += 40_000_000
    assert store.load() == ()
    assert [each.selector for each in store.domains["example.org"].keys] == ["e2"]


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root, to give a file to another user")
def test_a_file_of_another_user_is_not_used(tmp_path: Path) -> None:
    store = _store(tmp_path)
    _write(store, DomainKeys("example.org", (_KEY,)))
    os.chown(tmp_path / "dkim" / "example.org.json", 65_534, 65_534)
    found = store.domain("example.org")
    assert isinstance(found, Problem)
    assert "belongs to another user" in str(found)
    os.chown(tmp_path / "dkim", 65_534, 65_534)
    assert "belongs to another user" in str(store.load()[0])
    with pytest.raises(PermissionError), store.changing():
        pass


def test_what_a_change_that_was_ended_left_goes_with_the_keys(tmp_path: Path) -> None:
    store = _store(tmp_path)
    _write(store, DomainKeys("example.org", (_KEY,)))
    (tmp_path / "dkim" / "example.org.json.new").write_bytes(b"a private key")
    _write(store, DomainKeys("example.org"))
    assert os.listdir(tmp_path / "dkim") == []


def test_a_new_folder_is_durable_before_there_are_keys_in_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    synced: list[str] = []
    plain = os.fsync

    def fsync(handle: int) -> None:
        synced.append(os.readlink(f"/proc/self/fd/{handle}"))
        plain(handle)

    monkeypatch.setattr(os, "fsync", fsync)
    store = _store(tmp_path)
    _write(store, DomainKeys("example.org", (_KEY,)))
    assert synced[0] == str(tmp_path) and synced[-1] == str(tmp_path / "dkim")


def test_one_changes_keys_at_a_time(tmp_path: Path) -> None:
    store = _store(tmp_path)
    with store.changing(), pytest.raises(BlockingIOError), _store(tmp_path).changing():
        pass
    with _store(tmp_path).changing():
        pass


_CALLS = ("mkdir", "open", "unlink", "fsync", "rename", "close")


def _ended_by_a_crash(work: Callable[[], None], at: int) -> bool:
    """Do it in a process that ends before its call number `at`, counted from 0, to the file system."""
    child = os.fork()
    if child:
        return os.waitpid(child, 0)[1] != 0
    left = [at]

    def counted(call: Callable[..., Any]) -> Callable[..., Any]:
        def counting(*given: Any, **named: Any) -> Any:
            left[0] -= 1
            if left[0] < 0:
                os._exit(9)
            return call(*given, **named)

        return counting

    for name in _CALLS:
        setattr(os, name, counted(getattr(os, name)))
    work()
    os._exit(0)


@pytest.mark.parametrize("after", [DomainKeys("example.org", (_KEY, _OTHER)), DomainKeys("example.org")])
def test_a_crash_between_any_two_calls_leaves_the_keys_of_before_or_after(tmp_path: Path, after: DomainKeys) -> None:
    before = DomainKeys("example.org", (keyring.made("e0", keyring.generate(KeyKind.ED25519, 0), 1),))
    seen = set()
    for at in range(100):
        (tmp_path / str(at)).mkdir()
        store = _store(tmp_path / str(at))
        _write(store, before)
        crashed = _ended_by_a_crash(lambda: _write(store, after), at)  # noqa: B023  # called at once
        found = _store(tmp_path / str(at)).domain("example.org") or DomainKeys("example.org")
        assert found in (before, after)
        seen.add(found)
        _write(store, after)  # what was left behind hinders nobody
        assert (_store(tmp_path / str(at)).domain("example.org") or DomainKeys("example.org")) == after
        if not after.keys:
            assert os.listdir(tmp_path / str(at) / "dkim") == []  # nothing of a private key is left
        if not crashed:
            break
    assert seen == {before, after}
    assert at > 3


def test_changes_within_one_tick_of_the_clock_of_files_are_found(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A file that is replaced twice at once may have the same time, and even the same inode."""
    look = Path.lstat

    def at_whole_seconds(path: Path) -> Any:
        found = look(path)
        second_ns = found.st_ctime_ns // 1_000_000_000 * 1_000_000_000
        return SimpleNamespace(st_ctime_ns=second_ns, st_ino=1, st_size=found.st_size, st_mode=found.st_mode)

    monkeypatch.setattr(Path, "lstat", at_whole_seconds)
    store = KeyStore(tmp_path / "dkim", SystemClock().now_us)
    for number in range(200):
        keys = DomainKeys("example.org", (msgspec.structs.replace(_KEY, since_us=number),))
        _write(store, keys)
        store.load()
        assert store.domains["example.org"] == keys
