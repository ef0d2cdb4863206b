"""Buffers: bounded, nothing lost before it was used, nobody left waiting."""

from __future__ import annotations

import threading
from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from understudy.core.errors import UserError
from understudy.simulate.stream import (
    Buffer,
    BufferClosedError,
    FIFOBuffer,
    FIROBuffer,
    ReservoirBuffer,
)


def made(kind: str, capacity: int, threshold: int = 0, seed: int = 0) -> Buffer[int]:
    if kind == "fifo":
        return FIFOBuffer(capacity)
    if kind == "firo":
        return FIROBuffer(capacity, threshold, seed=seed)
    return ReservoirBuffer(capacity, threshold, seed)


def played(buffer: Buffer[int], puts: int, size: int, choices: list[bool]) -> list[int]:
    """Put and get as the choices say, as far as neither would wait; then drain."""
    used: list[int] = []
    coming = iter(range(puts))
    left = puts
    for prefer_put in choices + [True, False] * puts:
        if left and buffer.room() and (prefer_put or not buffer.ready(size)):
            buffer.put(next(coming))
            left -= 1
        elif buffer.ready(size):
            used += buffer.get(size)
        assert len(buffer) <= buffer.capacity
        if not left:
            break
    while left:
        if buffer.room():
            buffer.put(next(coming))
            left -= 1
        else:
            used += buffer.get(size)
    buffer.close()
    while batch := buffer.get(size):
        used += batch
    return used


plays = {
    "kind": st.sampled_from(["fifo", "firo", "reservoir"]),
    "capacity": st.integers(2, 12),
    "share": st.floats(0.0, 0.99),
    "size": st.integers(1, 12),
    "puts": st.integers(0, 60),
    "choices": st.lists(st.booleans(), max_size=80),
    "seed": st.integers(0, 5),
}


@given(**plays)
def test_everything_put_is_used_and_never_more_than_the_capacity_is_held(
    kind, capacity, share, size, puts, choices, seed
):
    buffer = made(kind, capacity, int(share * capacity), seed)
    used = Counter(played(buffer, puts, min(size, capacity), choices))
    assert set(used) == set(range(puts))
    assert buffer.uses() == dict(sorted(Counter(used.values()).items()))
    if kind != "reservoir":
        assert set(used.values()) <= {1}


@given(**plays)
def test_the_same_seed_and_the_same_order_give_the_same_picks(
    kind, capacity, share, size, puts, choices, seed
):
    first, second = (
        played(
            made(kind, capacity, int(share * capacity), seed), puts, min(size, capacity), choices
        )
        for _ in range(2)
    )
    assert first == second


@given(
    kind=st.sampled_from(["fifo", "firo", "reservoir"]), puts=st.integers(5, 20), seed=st.integers()
)
def test_a_buffer_goes_on_from_its_state_as_if_nothing_had_been(kind, puts, seed):
    seed = abs(seed) % 1000
    buffer, twin = made(kind, 25, 2, seed), made(kind, 25, 2, 77)
    for item in range(puts):
        buffer.put(item)
    buffer.get(3)
    twin.load_state_dict(buffer.state_dict())
    assert twin.uses() == buffer.uses()
    for one in (buffer, twin):
        one.close()
    drained = [[item for batch in iter(lambda b=b: b.get(4), []) for item in batch]
               for b in (buffer, twin)]  # fmt: skip
    assert drained[0] == drained[1]


def test_fifo_keeps_the_order():
    buffer: FIFOBuffer[int] = FIFOBuffer(10)
    for item in range(6):
        buffer.put(item)
    assert buffer.get(3) == [0, 1, 2]


def test_firo_gives_each_element_as_often_as_it_has_pseudo_epochs():
    buffer: FIROBuffer[int] = FIROBuffer(8, 2, pseudo_epochs=3)
    for item in range(8):
        buffer.put(item)
    buffer.close()
    used = Counter(item for batch in iter(lambda: buffer.get(5), []) for item in batch)
    assert used == dict.fromkeys(range(8), 3)


def test_a_reservoir_evicts_used_elements_only():
    buffer: ReservoirBuffer[int] = ReservoirBuffer(4, 1)
    for item in range(4):
        buffer.put(item)
    assert not buffer.room()
    seen = set(buffer.get(1))
    assert buffer.room()
    buffer.put(4)
    assert len(buffer) == 4
    assert {entry.item for entry in buffer._entries()} == set(range(5)) - seen


def test_a_reservoir_above_its_threshold_never_makes_the_trainer_wait():
    buffer: ReservoirBuffer[int] = ReservoirBuffer(10, 2)
    for item in range(3):
        buffer.put(item)
    used = Counter(item for _ in range(300) for item in buffer.get(5, timeout=0.0))
    assert all(count == pytest.approx(500, rel=0.2) for count in used.values())
    assert buffer.unseen == 0


def test_a_producer_waits_for_room_and_a_consumer_for_the_threshold():
    buffer: FIROBuffer[int] = FIROBuffer(3, 2)
    with pytest.raises(TimeoutError, match="too little"):
        buffer.get(1, timeout=0.01)
    for item in range(3):
        buffer.put(item)
    with pytest.raises(TimeoutError, match="no room"):
        buffer.put(3, timeout=0.01)
    assert buffer.put_wait >= 0.01 and buffer.get_wait >= 0.01
    assert len(buffer) == 3


def test_a_waiting_producer_goes_on_when_room_is_made():
    buffer: FIFOBuffer[int] = FIFOBuffer(1)
    buffer.put(0)
    producer = threading.Thread(target=buffer.put, args=(1,))
    producer.start()
    assert buffer.get() == [0]
    assert buffer.get(timeout=10.0) == [1]
    producer.join(10.0)
    assert not producer.is_alive()


def test_closing_wakes_whoever_waits():
    buffer: ReservoirBuffer[int] = ReservoirBuffer(2, 1)
    buffer.put(0)
    got: list[list[int]] = []
    consumer = threading.Thread(target=lambda: got.append(buffer.get(1)))
    consumer.start()
    buffer.close()
    consumer.join(10.0)
    assert got == [[0]]
    assert buffer.get(1) == []
    with pytest.raises(BufferClosedError):
        buffer.put(1)


def test_threads_lose_nothing_and_double_nothing():
    buffer: FIROBuffer[int] = FIROBuffer(7, 3, seed=1)

    def produce(start: int) -> None:
        for item in range(start, start + 200):
            buffer.put(item)

    producers = [threading.Thread(target=produce, args=(1000 * i,)) for i in range(4)]
    for thread in producers:
        thread.start()

    def end() -> None:
        for thread in producers:
            thread.join()
        buffer.close()

    threading.Thread(target=end).start()
    used = Counter(item for batch in iter(lambda: buffer.get(5, 30.0), []) for item in batch)
    assert used == {1000 * i + j: 1 for i in range(4) for j in range(200)}


def test_what_is_not_admitted_leaves_no_trace():
    buffer: FIFOBuffer[int] = FIFOBuffer(2)
    assert not buffer.put(1, lambda: False)
    assert len(buffer) == 0 and buffer.put(2, lambda: True)


def test_discarded_elements_are_gone_and_counted():
    buffer: ReservoirBuffer[int] = ReservoirBuffer(10, 1)
    for item in range(10):
        buffer.put(item)
    buffer.get(4)
    assert buffer.discard(lambda item: item % 2 == 0) == 5
    buffer.close()
    left = [item for batch in iter(lambda: buffer.get(3), []) for item in batch]
    assert sorted(left) == [1, 3, 5, 7, 9]
    assert sum(buffer.uses().values()) == 10


@pytest.mark.parametrize("threshold", [-1, 5, 6])
def test_a_threshold_that_can_never_be_passed_is_refused(threshold):
    for kind in (FIROBuffer, ReservoirBuffer):
        with pytest.raises(UserError, match="threshold"):
            kind(5, threshold)


def test_a_batch_larger_than_the_buffer_is_refused():
    with pytest.raises(UserError, match="batch of 6"):
        FIFOBuffer(5).get(6)


def test_the_state_of_another_buffer_is_refused():
    with pytest.raises(UserError, match="FIFOBuffer of capacity 3"):
        ReservoirBuffer(3).load_state_dict(FIFOBuffer(3).state_dict())
