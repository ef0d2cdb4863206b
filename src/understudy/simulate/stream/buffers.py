r"""Bounded buffers between solvers that stream and a network that trains (arXiv 2306.16133).

At any moment only a few runs stream, each its consecutive steps: batches in the order of arrival
are biased. Buffers of a capacity C and a threshold W mix them:

FIFO
    a queue: batches are consecutive steps of the same runs.
FIRO
    first in, random out: ``get`` removes a uniformly random element, once W have arrived.
Reservoir (training reservoir, arXiv 2309.16743)
    unseen elements U and seen ones S:

    .. code-block:: text

        put(x): wait until |U| < C
                if |U| + |S| >= C: evict a random element of S
                U.append(x)
        get():  wait until |U| + |S| > W or reception is over
                pick uniformly from U + S
                if reception is over: remove it, so that the buffer drains
                elif it is of U: move it to S

    Nothing is evicted before it was used, and above W the trainer never waits: it repeats what it
    has seen where the solvers are slower. (This is not reservoir sampling in the sense of Vitter,
    which rejects.)

``put`` waits where there is no room, which is what slows solvers that are too fast. The text of
FIRO and Reservoir follows the documentation of the method's framework and the papers' text.
"""

from __future__ import annotations

import threading
import time
from abc import ABC, abstractmethod
from collections import Counter, deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, Generic, TypeVar

import numpy as np

from understudy.core.errors import UserError

T = TypeVar("T")


class BufferClosedError(Exception):
    """Something was put into a buffer whose reception is over."""


class _Entry(Generic[T]):
    """An element, and how often it was used."""

    __slots__ = ("item", "uses")

    def __init__(self, item: T, uses: int = 0) -> None:
        self.item, self.uses = item, uses


class Buffer(ABC, Generic[T]):
    """Base of the three: one lock, waiting, counting.

    Attributes
    ----------
    lock : threading.Condition
        Held by every method; whoever holds it sees a buffer at rest.
    repetitions : Counter
        Of the elements that are gone: how many were used 0 (discarded only), 1, 2, ... times.
    put_wait, get_wait : float
        Seconds that producers, all together, and the consumer waited.

    Parameters
    ----------
    capacity : int
        Elements at most.
    threshold : int
        Elements that have to be there before the first are given; below the capacity.
    seed : int
        Of the picks.
    """

    def __init__(self, capacity: int, threshold: int = 0, seed: int = 0) -> None:
        if capacity < 1 or not 0 <= threshold < capacity:
            raise UserError(
                "capacity must be at least 1 and threshold at least 0 and below the capacity, "
                f"found {capacity} and {threshold}"
            )
        self.capacity, self.threshold, self.seed = capacity, threshold, seed
        self.lock = threading.Condition()
        self.repetitions: Counter[int] = Counter()
        self.put_wait = self.get_wait = 0.0
        self._rng = np.random.default_rng(seed)
        self._closed = False

    # -- what a buffer decides --------------------------------------------------------------------

    @abstractmethod
    def room(self) -> bool:
        """Whether an element can be put without waiting."""

    @abstractmethod
    def ready(self, count: int = 1) -> bool:
        """Whether so many elements can be had without waiting."""

    @abstractmethod
    def _insert(self, entry: _Entry[T]) -> None:
        """Take in an element, for which there is room."""

    @abstractmethod
    def _pick(self, at: float) -> _Entry[T]:
        """Give the element at a position in [0, 1), and count its use."""

    @abstractmethod
    def _entries(self) -> list[_Entry[T]]:
        """All elements, in an order that `_replace` restores."""

    @abstractmethod
    def _replace(self, entries: list[_Entry[T]]) -> None:
        """Hold these elements instead."""

    @abstractmethod
    def __len__(self) -> int: ...

    # -- what all share ---------------------------------------------------------------------------

    @property
    def closed(self) -> bool:
        """Whether reception is over."""
        return self._closed

    @property
    def unseen(self) -> int:
        """Elements that were not used yet."""
        with self.lock:
            return sum(entry.uses == 0 for entry in self._entries())

    def put(
        self, item: T, admit: Callable[[], bool] | None = None, timeout: float | None = None
    ) -> bool:
        """Add an element; wait for room.

        Parameters
        ----------
        item
        admit : callable () -> bool, optional
            Asked under the lock once there is room: False leaves the element out.
        timeout : float, optional
            Seconds to wait at most.

        Returns
        -------
        bool
            Whether it was added.

        Raises
        ------
        BufferClosedError, TimeoutError
        """
        with self.lock:
            with self._timed("put_wait"):
                if not self.lock.wait_for(lambda: self._closed or self.room(), timeout):
                    raise TimeoutError(f"no room in the buffer for {timeout:g} s")
            if self._closed:
                raise BufferClosedError("reception is over")
            if admit is not None and not admit():
                return False
            self._insert(_Entry(item))
            self.lock.notify_all()
            return True

    def get(self, count: int = 1, timeout: float | None = None) -> list[T]:
        """Elements to learn from, all in one acquisition of the lock.

        Parameters
        ----------
        count : int
        timeout : float, optional
            Seconds to wait at most.

        Returns
        -------
        list
            ``count`` elements; fewer, and finally none, when reception is over.
        """
        if not 1 <= count <= self.capacity:
            raise UserError(
                f"a batch of {count} cannot come from a buffer of capacity {self.capacity}"
            )
        with self.lock:
            with self._timed("get_wait"):
                if not self.lock.wait_for(lambda: self._closed or self.ready(count), timeout):
                    raise TimeoutError(f"too little in the buffer for {timeout:g} s")
            items = []
            for at in self._rng.random(count):
                if not len(self):
                    break
                items.append(self._pick(at).item)
            self.lock.notify_all()
            return items

    def close(self) -> None:
        """Say that reception is over: what is left can be had, whoever waits goes on."""
        with self.lock:
            self._closed = True
            self.lock.notify_all()

    def discard(self, wanted: Callable[[T], bool]) -> int:
        """Remove the elements of which a function is true; returns how many."""
        with self.lock:
            entries = self._entries()
            kept = [entry for entry in entries if not wanted(entry.item)]
            self.repetitions.update(entry.uses for entry in entries if wanted(entry.item))
            self._replace(kept)
            self.lock.notify_all()
            return len(entries) - len(kept)

    def uses(self) -> dict[int, int]:
        """How many elements, gone or here, were used 0, 1, 2, ... times."""
        with self.lock:
            total = self.repetitions + Counter(entry.uses for entry in self._entries())
            return dict(sorted(total.items()))

    def state_dict(self) -> dict[str, Any]:
        """Elements with their uses, and the state of the picks."""
        with self.lock:
            return {
                "kind": type(self).__name__,
                "capacity": self.capacity,
                "items": [entry.item for entry in self._entries()],
                "uses": [entry.uses for entry in self._entries()],
                "repetitions": dict(self.repetitions),
                "waits": [self.put_wait, self.get_wait],
                "picks": self._rng.bit_generator.state,
            }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from what `state_dict` returned."""
        if state["kind"] != type(self).__name__ or state["capacity"] != self.capacity:
            raise UserError(
                f"the state is of a {state['kind']} of capacity {state['capacity']}, not of a "
                f"{type(self).__name__} of capacity {self.capacity}"
            )
        with self.lock:
            pairs = zip(state["items"], state["uses"], strict=True)
            self._replace([_Entry(item, uses) for item, uses in pairs])
            self.repetitions = Counter({int(k): v for k, v in state["repetitions"].items()})
            self.put_wait, self.get_wait = state["waits"]
            self._rng.bit_generator.state = state["picks"]
            self.lock.notify_all()

    def _gone(self, entry: _Entry[T]) -> None:
        self.repetitions[entry.uses] += 1

    @contextmanager
    def _timed(self, name: str) -> Iterator[None]:
        start = time.perf_counter()
        try:
            yield
        finally:
            setattr(self, name, getattr(self, name) + time.perf_counter() - start)


class FIFOBuffer(Buffer[T]):
    """A queue: what came first is used first, once.

    Parameters
    ----------
    capacity : int
    """

    def __init__(self, capacity: int) -> None:
        super().__init__(capacity)
        self._queue: deque[_Entry[T]] = deque()

    def room(self) -> bool:  # noqa: D102
        return len(self._queue) < self.capacity

    def ready(self, count: int = 1) -> bool:  # noqa: D102
        return len(self._queue) >= count

    def __len__(self) -> int:
        return len(self._queue)

    def _insert(self, entry: _Entry[T]) -> None:
        self._queue.append(entry)

    def _pick(self, at: float) -> _Entry[T]:
        entry = self._queue.popleft()
        entry.uses += 1
        self._gone(entry)
        return entry

    def _entries(self) -> list[_Entry[T]]:
        return list(self._queue)

    def _replace(self, entries: list[_Entry[T]]) -> None:
        self._queue = deque(entries)


class FIROBuffer(Buffer[T]):
    """First in, random out: each element is used ``pseudo_epochs`` times.

    Parameters
    ----------
    capacity : int
    threshold : int
        Elements that have to be there while reception goes on.
    pseudo_epochs : int
        Uses of an element after which it is removed.
    seed : int
    """

    def __init__(
        self, capacity: int, threshold: int = 0, pseudo_epochs: int = 1, seed: int = 0
    ) -> None:
        super().__init__(capacity, threshold, seed)
        if pseudo_epochs < 1:
            raise UserError(f"pseudo_epochs must be at least 1, found {pseudo_epochs}")
        self.pseudo_epochs = pseudo_epochs
        self._list: list[_Entry[T]] = []

    def room(self) -> bool:  # noqa: D102
        return len(self._list) < self.capacity

    def ready(self, count: int = 1) -> bool:
        """Whether the last of so many picks would find the threshold; all that fits suffices."""
        return len(self._list) >= min(max(self.threshold, 1) + count - 1, self.capacity)

    def __len__(self) -> int:
        return len(self._list)

    def _insert(self, entry: _Entry[T]) -> None:
        self._list.append(entry)

    def _pick(self, at: float) -> _Entry[T]:
        place = int(at * len(self._list))
        entry = self._list[place]
        entry.uses += 1
        if entry.uses >= self.pseudo_epochs:
            self._gone(_swap_out(self._list, place))
        return entry

    def _entries(self) -> list[_Entry[T]]:
        return self._list

    def _replace(self, entries: list[_Entry[T]]) -> None:
        self._list = list(entries)


class ReservoirBuffer(Buffer[T]):
    """Training reservoir: used elements stay until fresh ones need their place.

    Parameters
    ----------
    capacity : int
    threshold : int
        Elements beyond which batches are given.
    seed : int
    """

    def __init__(self, capacity: int, threshold: int = 0, seed: int = 0) -> None:
        super().__init__(capacity, threshold, seed)
        self._unseen: list[_Entry[T]] = []
        self._seen: list[_Entry[T]] = []

    def room(self) -> bool:  # noqa: D102
        return len(self._unseen) < self.capacity

    def ready(self, count: int = 1) -> bool:  # noqa: D102
        return len(self) > self.threshold

    def __len__(self) -> int:
        return len(self._unseen) + len(self._seen)

    @property
    def unseen(self) -> int:  # noqa: D102
        return len(self._unseen)

    def _insert(self, entry: _Entry[T]) -> None:
        if len(self) >= self.capacity:
            place = int(self._rng.integers(len(self._seen)))
            self._gone(_swap_out(self._seen, place))
        self._unseen.append(entry)

    def _pick(self, at: float) -> _Entry[T]:
        place = int(at * len(self))
        fresh = place < len(self._unseen)
        source = self._unseen if fresh else self._seen
        place -= 0 if fresh else len(self._unseen)
        entry = source[place]
        entry.uses += 1
        if self._closed:
            self._gone(_swap_out(source, place))
        elif fresh:
            self._seen.append(_swap_out(source, place))
        return entry

    def _entries(self) -> list[_Entry[T]]:
        return self._unseen + self._seen

    def _replace(self, entries: list[_Entry[T]]) -> None:
        self._unseen = [entry for entry in entries if entry.uses == 0]
        self._seen = [entry for entry in entries if entry.uses > 0]


def _swap_out(entries: list[_Entry[T]], place: int) -> _Entry[T]:
    """Remove one; the last takes its place."""
    entries[place], entries[-1] = entries[-1], entries[place]
    return entries.pop()
