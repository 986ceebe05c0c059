"""Jobs that are done side by side: order, errors, and what is left of them."""

from __future__ import annotations

import threading
import time

import pytest
import torch

from umbel.kernels.workers import in_order

CPU = torch.device("cpu")


@pytest.fixture(autouse=True)
def _two_threads():
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    yield
    torch.set_num_threads(before)


def test_results_are_in_order_and_made_by_several_threads_of_one_each():
    both, seen = threading.Barrier(2), set()

    def make(i: int) -> tuple[int, int]:
        both.wait(5)  # two are under way at a time
        seen.add(threading.get_ident())
        return i, torch.get_num_threads()

    assert in_order(make, 4, CPU) == [(i, 1) for i in range(4)]
    assert len(seen) == 2
    assert torch.get_num_threads() == 2
    later = threading.Thread(target=lambda: seen.add(-torch.get_num_threads()))
    later.start()
    later.join()
    assert -2 in seen, "a thread that is made later has one processor"


def test_the_first_error_ends_it():
    made = []

    def make(i: int) -> int:
        made.append(i)
        time.sleep(0.01)
        raise ValueError(f"job {i}")

    with pytest.raises(ValueError, match="job 0"):
        in_order(make, 100, CPU)
    assert len(made) < 100


def test_one_thread_makes_them_itself():
    torch.set_num_threads(1)
    assert in_order(lambda _: threading.get_ident(), 3, CPU) == [threading.get_ident()] * 3
