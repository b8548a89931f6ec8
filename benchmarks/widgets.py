"""How fast an explorer answers a slider: from the event to the bytes of all its pictures, on the shipped checkpoints.

    python benchmarks/widgets.py                          every explorer on every checkpoint, a table
    python benchmarks/widgets.py capsnet-small --events 50 --out build/widgets.json

Every event sets one slider, or the picture, to another value, and is answered when pictures and charts are there as
bytes; the way to the browser is not in it. The 95th percentile is to stay below 50 ms on two cores. Some heatmaps of
capsules follow the picture, all do where capsules see the whole image: "all heatmaps" has them too. "dragged" are the
events of a finger that is faster than the pictures: 200 events per second for two seconds, in an event loop; how many
pictures answered them, and how long after the last event the last one came.
"""

from __future__ import annotations

import argparse
import asyncio
import itertools
import json
import math
import random
import statistics
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import ipywidgets
import torch

from capsnb.explore import Compare, PathExplorer, PerturbationExplorer, RoutingExplorer, ViewpointExplorer
from capsnb.explore.base import Explorer
from capsnb.training import checkpoints
from capsnb.training.provenance import circumstances

KINDS = (PerturbationExplorer, RoutingExplorer, ViewpointExplorer, PathExplorer)
LIMIT = 50.0  # ms

Event = Callable[[], None]


def events(explorer: Explorer, seed: int = 0) -> Iterator[Event]:
    """Without end: sliders in turn to random places; another picture after eight events, or where none is usable."""
    draw = random.Random(seed)
    sliders = explorer.sliders.values() if isinstance(explorer.sliders, dict) else explorer.sliders
    usable = [each for each in sliders if not each.disabled]
    for number in itertools.count():
        if not usable or number % 9 == 8:
            yield lambda: setattr(explorer, "index", draw.randrange(len(explorer.subject.data.test)))
        if usable:
            slider = usable[number % len(usable)]
            yield lambda slider=slider: setattr(slider, "value", _anywhere(slider, draw))


def answered(explorer: Explorer, count: int, answer: Callable[[Explorer], object] = Explorer.settle) -> list[float]:
    """Milliseconds from each of so many events to the bytes that answer it, or to another answer."""
    stream, times = events(explorer), []
    for _ in range(count + 5):
        event = next(stream)
        begun = time.perf_counter()
        event()
        answer(explorer)
        times.append(1000 * (time.perf_counter() - begun))
    return times[5:]  # the first ones warm up


def dragged(explorer: Explorer, rate: float = 200.0, seconds: float = 2.0) -> dict[str, float]:
    """Events faster than pictures: events, pictures, and milliseconds from the last event to the last picture."""

    async def drag() -> dict[str, float]:
        stream, loop, latest = events(explorer), asyncio.get_running_loop(), explorer.latest
        drawn, asked = latest.drawn, latest.requests
        # events have their times, as a finger's do, whether or not a picture is being drawn
        begun, sent = loop.time(), asyncio.Event()
        for number in range(int(rate * seconds)):
            loop.call_at(begun + number / rate, next(stream))
        loop.call_at(begun + seconds, sent.set)
        await sent.wait()
        while latest.waiting:
            await asyncio.sleep(0.0005)
        late = 1000 * (loop.time() - begun - (rate * seconds - 1) / rate)
        return {"events": latest.requests - asked, "pictures": latest.drawn - drawn, "last after ms": late}

    return asyncio.run(drag())


def measure(kind: type[Explorer], name: str, count: int) -> dict:
    """One explorer on one checkpoint; None for times where it has nothing to show."""
    begun = time.perf_counter()
    explorer = kind(name)
    opened = 1000 * (time.perf_counter() - begun)
    result = {"explorer": kind.__name__, "model": name, "opened ms": opened}
    if explorer.message.text:
        return result | {"refused": explorer.message.text}
    times = answered(explorer, count)
    result |= {"median ms": statistics.median(times), "p95 ms": percentile(times)} | dragged(explorer)
    if kind is PathExplorer:
        result["p95 ms, all heatmaps"] = percentile(answered(explorer, count, lambda each: each.heatmaps))
    return result


def percentile(times: list[float], share: float = 0.95) -> float:
    """The time that this share of events do not exceed."""
    return sorted(times)[math.ceil(share * len(times)) - 1]


def compared(first: str, second: str, count: int) -> dict:
    """Two models under one set of controls; without an event loop both are drawn in the event itself."""
    begun = time.perf_counter()
    pair = Compare(first, second)
    opened = 1000 * (time.perf_counter() - begun)
    times = answered(pair.left, count)
    return {
        "explorer": "Compare",
        "model": f"{first}, {second}",
        "opened ms": opened,
        "median ms": statistics.median(times),
        "p95 ms": percentile(times),
    } | dragged(pair.left)


def _anywhere(slider: ipywidgets.Widget, draw: random.Random) -> float:
    place = draw.uniform(slider.min, slider.max)
    if isinstance(slider, ipywidgets.IntSlider):
        return round(place)
    return slider.base**place if isinstance(slider, ipywidgets.FloatLogSlider) else place


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("names", nargs="*", help="checkpoints; all of them by default")
    parser.add_argument("--events", type=int, default=300)
    parser.add_argument("--out", type=Path, help="JSON file to write")
    given = parser.parse_args()
    torch.set_num_threads(min(2, torch.get_num_threads()))
    record = {**circumstances(), "threads": torch.get_num_threads(), "events": given.events, "limit ms": LIMIT}
    record["explorers"] = []
    print(f"{'explorer':22}{'model':22}{'opened':>9}{'median':>9}{'p95 ms':>9}{'dragged':>18}{'last after':>12}")
    for name in given.names or checkpoints.CHECKPOINTS:
        for kind in KINDS:
            record["explorers"].append(measure(kind, name, given.events))
            print(line(record["explorers"][-1]))
    names = given.names or list(checkpoints.CHECKPOINTS)
    record["explorers"].append(compared(names[0], names[min(1, len(names) - 1)], given.events))
    print(line(record["explorers"][-1]))
    if given.out is not None:
        given.out.parent.mkdir(parents=True, exist_ok=True)
        given.out.write_text(json.dumps(record, indent=1) + "\n")


def line(result: dict) -> str:
    """One result as a line of the table."""
    head = f"{result['explorer']:22}{result['model']:22}{result['opened ms']:9.0f}"
    if "refused" in result:
        return f"{head}  {result['refused']}"
    over = " (above 50)" if result["p95 ms"] > LIMIT else ""
    if (heat := result.get("p95 ms, all heatmaps")) is not None:
        over += f"  all heatmaps {heat:.0f}"
    drag = f"{result['events']} -> {result['pictures']}"
    return f"{head}{result['median ms']:9.1f}{result['p95 ms']:9.1f}{drag:>18}{result['last after ms']:12.1f}{over}"


if __name__ == "__main__":
    main()
