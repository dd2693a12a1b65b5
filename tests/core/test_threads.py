"""Threads where they pay: what torch was set to, and parts of rows."""

import threading

import pytest
import torch

from dodona.core.threads import SMALL, few_threads, in_blocks, num_weights


@pytest.fixture
def two_threads():
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    yield
    torch.set_num_threads(before)


def test_small_operations_get_one_thread_and_what_was_set_comes_back(two_threads):
    with few_threads(SMALL - 1):
        assert torch.get_num_threads() == 1
    assert torch.get_num_threads() == 2
    with few_threads(SMALL):
        assert torch.get_num_threads() == 2


def test_what_was_set_comes_back_after_an_error(two_threads):
    with pytest.raises(KeyError), few_threads(1):
        raise KeyError
    assert torch.get_num_threads() == 2


@pytest.mark.parametrize("num_rows", [0, 1, 7, 79, 80, 81, 1000])
def test_parts_cover_every_row_once_and_come_in_order(two_threads, num_rows):
    parts = in_blocks(lambda block, begin, end: (begin, end), num_rows, block=20)
    rows = [row for begin, end in parts for row in range(begin, end)]
    assert rows == list(range(num_rows))


def test_large_work_is_shared_and_small_work_is_not(two_threads):
    def where(block, begin, end):
        return threading.get_ident(), torch.get_num_threads()

    here = threading.get_ident()
    assert [ident for ident, _ in in_blocks(where, 50, block=20)] == [here]
    shared = in_blocks(where, 10_000, block=20)
    assert len(shared) == 2
    assert here not in {ident for ident, _ in shared}
    assert [threads for _, threads in shared] == [1, 1]
    assert torch.get_num_threads() == 2


def test_an_error_in_a_part_is_raised(two_threads):
    def fail(block, begin, end):
        raise ValueError(f"rows from {begin}")

    with pytest.raises(ValueError, match="rows from 0"):
        in_blocks(fail, 10_000, block=20)


def test_weights_are_counted_and_other_things_have_none():
    assert num_weights(torch.nn.Linear(3, 2), None, object()) == 8
