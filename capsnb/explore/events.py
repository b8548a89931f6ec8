"""Slider events, newest first: a picture is drawn for the state that there is now, never for one that has passed."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from contextlib import contextmanager

PAUSE = 0.004  # seconds in which events that already wait are taken in, each of which costs well below one millisecond
_END = object()


class Latest:
    """Calls `draw` once for all requests that came since it was last called.

    In a running event loop, as a kernel's is, a request waits for PAUSE, and so do those that come meanwhile: while one
    picture is drawn any number of events may arrive, and one more picture answers them all. Without a loop it is drawn
    at once. `settle` draws now what is still waiting.

    `follow`, if there is one, is called after each picture and gives the small steps of what takes longer. In a loop
    they are taken one at a time, PAUSE apart, so that no event waits for more than one of them; the next request drops
    those that are left. Without a loop they wait for `finish`.
    """

    def __init__(self, draw: Callable[[], None], follow: Callable[[], Iterator[None]] | None = None) -> None:
        self.draw, self.follow = draw, follow
        self.requests = self.drawn = 0  # how often asked, how often answered
        self.dropped = 0  # how often a request came before all that follows a picture was done
        self.waiting = False  # whether a request has not been answered yet
        self._timer, self._held = None, 0
        self._steps: Iterator[None] | None = None  # never while a request is waiting

    @property
    def following(self) -> bool:
        """Whether steps after the picture are left."""
        return self._steps is not None

    def request(self, *_: object) -> None:
        """Ask for a picture; takes and ignores what an observer is given."""
        self.requests += 1
        self.waiting = True
        if self._steps is not None:
            self._steps, self.dropped = None, self.dropped + 1
            self._cancel()
        if not self._held and self._timer is None and not self._call_later(self.settle):
            self.settle()

    def settle(self) -> None:
        """Draw now, if anything waits to be drawn."""
        if self._steps is not None:
            return
        self._cancel()
        if self.waiting and not self._held:
            self.waiting = False
            self.drawn += 1
            self.draw()
            if self.follow is not None and not self.waiting:
                self._steps = self.follow()
                self._call_later(self._step)

    def finish(self) -> None:
        """Draw now, and take all the steps that follow."""
        self.settle()
        while self._steps is not None:
            self._step()

    @contextmanager
    def together(self) -> Iterator[None]:
        """Several changes inside the block are one request."""
        self._held += 1
        try:
            yield
        finally:
            self._held -= 1
            if self.waiting and not self._held:
                self.requests -= 1
                self.request()

    def _step(self) -> None:
        self._cancel()
        steps, self._steps = self._steps, None  # a step that fails is the last one
        if next(steps, _END) is not _END:
            self._steps = steps
            self._call_later(self._step)

    def _call_later(self, what: Callable[[], None]) -> bool:
        """Whether there is a loop to do it."""
        try:
            loop = asyncio.get_running_loop()
        except RuntimeError:
            return False
        self._timer = loop.call_later(PAUSE, what)
        return True

    def _cancel(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
