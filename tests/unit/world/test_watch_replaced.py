"""A file that changes at each look: replaced as a whole, it is read in the end; written in place, it never is."""

from __future__ import annotations

from postroad.world.files import REPLACED_MAX, Stamp, Watch


def test_a_file_that_is_replaced_at_each_look_is_read_in_the_end() -> None:
    watch = Watch()
    assert watch.has_changed(Stamp(1, 1, 5, 1))
    looks = range(1, REPLACED_MAX * 2 + 1)
    taken = [look for look in looks if watch.has_changed(Stamp(1, 1 + look, 5, look), patient=True)]
    assert taken == [REPLACED_MAX, REPLACED_MAX * 2]


def test_a_file_that_grows_or_comes_and_goes_is_not_read_half() -> None:
    watch = Watch()
    assert watch.has_changed(Stamp(1, 1, 5, 1))
    assert not any(watch.has_changed(Stamp(1, 1, 5 + look, look), patient=True) for look in range(REPLACED_MAX * 3))
    coming = (Stamp() if look % 2 else Stamp(1, look + 2, look, look) for look in range(REPLACED_MAX * 3))
    assert not any(watch.has_changed(stamp, patient=True) for stamp in coming)
