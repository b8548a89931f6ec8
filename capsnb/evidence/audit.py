"""An audit: recorded runs trained and measured anew, and what is recorded of them compared with what comes out.

On the same kind of CPU, with as many threads and the same versions of the libraries, every bit must be equal. Elsewhere
trainings diverge, and one more training is like one more seed: the difference of a number is then judged against its
standard deviation over the other recorded seeds, of which three are needed, by Student's t; since of many numbers one
is always far off, a p-value counts as many times as there are numbers so judged in the whole sample.
"""

from __future__ import annotations

import itertools
import json
import math
import random
import statistics
import tempfile
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from capsnb import data
from capsnb.measure import observe, protocol
from capsnb.measure.observations import Observation, pack, read, store_folder
from capsnb.training import parallel, runs
from capsnb.training.cpu_settings import on_threads
from capsnb.training.identity import decode, key
from capsnb.training.parallel import Failure
from capsnb.training.provenance import LIBRARIES
from capsnb.training.spec import Spec

FEW = 3  # other seeds that a spread is taken of, at least
LEVEL = 0.01  # by chance, one honest sample in a hundred disagrees

EQUAL, WITHIN, OTHER = "equal bits", "within the spread of seeds", "measured otherwise now"
DIFFERS, BEYOND = "other bits on the same kind of machine", "beyond the spread of seeds"


@dataclass(frozen=True)
class Pair:
    """An observation as it is recorded and as it comes out again; others: recorded, of other seeds.

    again: None where the measure is not there in that version any more.
    """

    run: str
    recorded: Observation
    again: Observation | None
    others: tuple[Observation, ...] = ()


class Judged(NamedTuple):
    """A pair's verdict, with the number that decided it, else its first one."""

    pair: Pair
    verdict: str
    number: str

    @property
    def disagrees(self) -> bool:
        """Whether the record is not what comes out again."""
        return self.verdict in (DIFFERS, BEYOND)


def choose(
    names: Sequence[str] = (),
    *,
    sample: int = 1,
    seed: int | None = None,
    data_dir: str | Path | None = None,
) -> list[str]:
    """The runs of these names, else so many at random among those that can be trained here.

    Raises ValueError for a run that is not recorded or cannot be trained here, and where there is none to choose from.
    """
    headers = {name: header for name, (header, _) in _recorded().items()}
    for name in names:
        if name not in headers:
            raise ValueError(f"the evidence store has no run {name!r}; its runs are the files {store_folder()}/*.jsonl")
        if why := _why_not(headers[name], data_dir):
            raise ValueError(f"{name} cannot be trained here: {why}")
    if names:
        return list(dict.fromkeys(names))
    order = random.Random(seed).sample(sorted(headers), len(headers))
    found = list(itertools.islice((name for name in order if _why_not(headers[name], data_dir) is None), sample))
    if not found:
        raise ValueError(f"{store_folder()} has no run that can be trained here")
    return found


def again(
    names: Sequence[str],
    *,
    jobs: int | None = None,
    data_dir: str | Path | None = None,
    tell: Callable[[str], None] | None = None,
) -> tuple[list[Pair], list[Failure]]:
    """Train these runs in a folder that is gone afterwards, on their recorded number of threads, and measure them.

    With what they start from. Returns a pair for each of their newest observations, and the trainings that failed.
    """
    recorded = _recorded()
    specs = {name: decode(recorded[name][0]["spec"]) for name in names}
    threads = {name: recorded[name][1][-1].made.get("threads", 1) for name in names}
    pairs, failed = [], []
    with tempfile.TemporaryDirectory(prefix="capsnb-audit-") as folder:
        where: dict[str, Any] = {"root_folder": folder, "data_dir": data_dir}
        watch = {name: _watch(recorded[name][1]) for name in names}
        for count in sorted(set(threads.values())):
            work = {specs[name]: watch[name] for name in names if threads[name] == count}
            failed += parallel.train(work, jobs=jobs, threads=count, tell=tell, **where)
        for name in names:
            if name not in {failure.name for failure in failed}:
                with on_threads(threads[name]):
                    fresh = _measured(specs[name], recorded[name][1], watch[name], **where)
                for each in recorded[name][1]:
                    found = next((one for one in fresh if one.key == each.key), None)
                    pairs.append(Pair(name, each, found, tuple(_others(recorded, name, each))))
    return pairs, failed


def judge(pairs: Sequence[Pair]) -> list[Judged]:
    """The verdict on each pair of a sample."""
    tests = [_tests(pair) if _verdict(pair) is None else {} for pair in pairs]
    count = sum(map(len, tests))
    found = []
    for pair, each in zip(pairs, tests, strict=True):
        verdict, number = _verdict(pair), _first(pair)
        if verdict is None and each:
            number = min(each, key=each.__getitem__)
            verdict = BEYOND if each[number] * count < LEVEL else WITHIN
        seeds = f"{len(pair.others)} other seed{'s' * (len(pair.others) != 1)}"
        found.append(Judged(pair, verdict or f"cannot be judged ({seeds})", number))
    return found


def numbers(observation: Observation | None) -> dict[str, float]:
    """Its numbers by their place, "kept[2]"; of a series that was watched, those of its end."""
    values = observation.values if observation is not None else {}
    if observation is not None and observation.watched:
        values = {name: series[-1] for name, series in values.items() if isinstance(series, list) and series}
    return dict(_flat(pack(values)))


def _verdict(pair: Pair) -> str | None:
    """What needs no spread to be said."""
    if pair.again is None:
        return OTHER
    if pack(pair.recorded.values) == pack(pair.again.values):
        return EQUAL
    before, now = _kind(pair.recorded.made), _kind(pair.again.made)
    return DIFFERS if before is not None and before == now else None


def _kind(made: Mapping[str, Any]) -> Any:
    """All that bits depend on, of the training and of the measuring; None where that is not known, or no CPU."""
    found = []
    for each in (made, made | made.get("measured", {})):
        versions = [each.get("versions", {}).get(name) for name in LIBRARIES]
        found.append([each.get("cpu"), each.get("device"), *versions])
    return found if made.get("cpu") and str(made.get("device")).startswith("CPU") else None


def _tests(pair: Pair) -> dict[str, float]:
    """p-value of each number that can be judged: of two seeds' difference, by the spread of the others."""
    from scipy.special import stdtr

    old, new, others = numbers(pair.recorded), numbers(pair.again), [numbers(each) for each in pair.others]
    found = {}
    for name in old.keys() & new.keys():
        seeds = [each[name] for each in others if name in each]
        spread = statistics.stdev(seeds) if len(seeds) >= FEW else 0.0
        if spread > 0:  # a number that is the same for all seeds says nothing of how far it may be off
            found[name] = float(2 * stdtr(len(seeds) - 1, -abs(old[name] - new[name]) / (spread * math.sqrt(2))))
    return found


def _first(pair: Pair) -> str:
    """The first number that differs, else the first one."""
    old, new = numbers(pair.recorded), numbers(pair.again)
    return next((name for name in old if old[name] != new.get(name)), next(iter(old), ""))


def _flat(value: Any, place: str = "") -> Iterator[tuple[str, float]]:
    if isinstance(value, Mapping):
        for name, item in value.items():
            yield from _flat(item, f"{place}, {name}" if place else name)
    elif isinstance(value, list):
        for number, item in enumerate(value):
            yield from _flat(item, f"{place}[{number}]")
    elif isinstance(value, int | float) and not isinstance(value, bool):
        yield place, value


def _recorded() -> dict[str, tuple[dict[str, Any], list[Observation]]]:
    """Every run of the store: its header and the newest observation of each kind, the newest last."""
    found = {}
    for file in sorted(store_folder().glob("*.jsonl")):
        header, observations = read(file)
        newest = {json.dumps(each.key): each for each in observations}
        if "spec" in header and newest:
            found[file.stem] = header, sorted(newest.values(), key=observations.index)
    return found


def _why_not(header: Mapping[str, Any], data_dir: str | Path | None) -> str | None:
    """Why a recorded run cannot be trained here, or None."""
    try:
        spec = decode(header["spec"])
        for each in parallel.with_starts([spec]):
            data.digest(each.data.name, data_dir)
        return None if key(spec, data_dir) == header["run"] else "its images or its code are not those of the record"
    except (ValueError, FileNotFoundError) as error:
        return " ".join(str(error).split())


def _taken(observations: Iterable[Observation]) -> Iterator[tuple[Observation, protocol.Measure, dict[str, Any]]]:
    """Those whose measure is still there, with it and its settings."""
    for each in observations:
        try:
            measure, settings = protocol.find(each.measure), {n: decode(item) for n, item in each.settings.items()}
            if (measure.version, measure.settings(**settings)) == (each.version, each.settings):
                yield each, measure, settings
        except ValueError:  # it has another name or other settings now
            continue


def _watch(observations: Iterable[Observation]) -> dict[str, Any]:
    taken = [(measure, settings) for each, measure, settings in _taken(observations) if each.watched]
    return {measure.column(**settings): measure.watched(**settings) for measure, settings in taken}


def _measured(spec: Spec, recorded: list[Observation], watch: Mapping[str, Any], **where: Any) -> list[Observation]:
    """What comes out again of a trained run, by the measures of its record."""
    taken = list(_taken(recorded))
    # a measure that is recorded of the null, too, is taken once
    measures = {m.column(**settings): (m, settings) for each, m, settings in taken if not each.watched}
    watched = [(measure, settings) for each, measure, settings in taken if each.watched]
    run = runs.get(spec, watch=watch, progress=False, **where)
    nulls = any(each.null for each, _, _ in taken)
    observe.take_all(spec, run, measures.values(), nulls=nulls, watched=watched, data_dir=where["data_dir"])
    return read(run.folder / observe.OBSERVATIONS)[1]


def _others(recorded: Mapping[str, tuple], name: str, observation: Observation) -> Iterator[Observation]:
    """The same observation of the same network with other seeds."""
    spec = recorded[name][0]["spec"]
    for header, observations in recorded.values():
        if header["spec"].get("seed", 0) != spec.get("seed", 0) and _seedless(header["spec"]) == _seedless(spec):
            yield from (each for each in observations if each.key == observation.key)


def _seedless(spec: Mapping[str, Any]) -> dict[str, Any]:
    """A spec as it is recorded, without its seed and that of the run that it starts from."""
    found = {name: value for name, value in spec.items() if name != "seed"}
    return found | ({"start": _seedless(spec["start"])} if isinstance(spec.get("start"), Mapping) else {})
