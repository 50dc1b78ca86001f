"""Work side by side: results and errors in order, nothing begun after one."""

from __future__ import annotations

import threading

import pytest

from facelm_sdk import machine, parallel
from facelm_sdk.parallel import checked_workers, map_in_order


def test_results_come_in_order_whoever_is_done_first():
    later = threading.Event()

    def work(index):
        if index == 0:
            assert later.wait(30)  # until another thread has done the second
        elif index == 1:
            later.set()
        return index

    assert list(map_in_order(work, range(20), 2)) == list(range(20))


@pytest.mark.parametrize("workers", [1, 3])
def test_the_first_error_in_order_is_raised_once_all_has_ended(workers):
    running: set[int] = set()

    def work(index):
        running.add(index)
        try:
            if index in (4, 5):
                raise ValueError(index)
            return index
        finally:
            running.discard(index)

    found = []
    with pytest.raises(ValueError, match="4"):
        found.extend(map_in_order(work, range(1000), workers))
    assert not running and found in ([], [0, 1, 2, 3])


def test_an_error_of_the_items_has_its_place_too():
    def items():
        yield 1
        raise KeyError("items")

    found = map_in_order(str, items(), 2)
    assert next(found) == "1"
    with pytest.raises(KeyError, match="items"):
        next(found)


def test_whoever_stops_early_leaves_no_thread():
    before = threading.active_count()
    results = map_in_order(str, iter(range(10**9)), 4)
    assert next(results) == "0"
    results.close()
    assert threading.active_count() == before


def test_one_worker_is_the_calling_thread():
    assert set(map_in_order(lambda _: threading.get_ident(), range(5), 1)) == {threading.get_ident()}


def test_workers_by_default(monkeypatch):
    for cores, expected in ((1, 1), (2, 2), (64, parallel.MOST_WORKERS)):
        monkeypatch.setattr(machine, "usable_cores", lambda cores=cores: cores)
        assert checked_workers(None) == expected
