"""Slider events, newest first: a picture is drawn for the state that there is now, never for one that has passed."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from contextlib import contextmanager

PAUSE = 0.004  # seconds in which events that already wait are taken in, each of which costs well below one millisecond


class Latest:
    """Calls `draw` once for all requests that came since it was last called.

    In a running event loop, as a kernel's is, a request waits for PAUSE, and so do those that come meanwhile: while one
    picture is drawn any number of events may arrive, and one more picture answers them all. Without a loop it is drawn
    at once. `settle` draws now what is still waiting.
    """

    def __init__(self, draw: Callable[[], None]) -> None:
        self.draw = draw
        self.requests = self.drawn = 0  # how often asked, how often answered
        self._waiting, self._timer, self._held = False, None, 0

    @property
    def waiting(self) -> bool:
        """Whether a request has not been answered yet."""
        return self._waiting

    def request(self, *_: object) -> None:
        """Ask for a picture; takes and ignores what an observer is given."""
        self.requests += 1
        self._waiting = True
        if self._held or self._timer is not None:
            return
        try:
            loop = asyncio.get_running_loop()
        except RuntimeError:
            self.settle()
            return
        self._timer = loop.call_later(PAUSE, self.settle)

    def settle(self) -> None:
        """Draw now, if anything waits to be drawn."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if self._waiting and not self._held:
            self._waiting = False
            self.drawn += 1
            self.draw()

    @contextmanager
    def together(self) -> Iterator[None]:
        """Several changes inside the block are one request."""
        self._held += 1
        try:
            yield
        finally:
            self._held -= 1
            if self._waiting and not self._held:
                self.requests -= 1
                self.request()
