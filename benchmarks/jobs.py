"""What trainings side by side bring, and what other work beside them costs: wall times of one alternating run.

    python benchmarks/jobs.py                      notebook 03's networks at quick, into results/bench_jobs.json
    python benchmarks/jobs.py --profile smoke      the same on its smallest ones, recorded nowhere

All networks of a notebook are trained one at a time, two at a time, and two at a time beside two processes that do
nothing but count; each of them on one thread, in a fresh process and a fresh folder of runs.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

from capsnb.evidence.plans import plan
from capsnb.installation import project
from capsnb.training.provenance import circumstances
from speed import save, spread

NOTEBOOK = "03"
WAYS = {"one job": (1, 0), "two jobs": (2, 0), "two jobs beside two busy processes": (2, 2)}  # jobs, busy processes


def seconds(profile: str, jobs: int, others: int) -> float:
    """Wall time of all trainings, the start of their processes included."""
    with tempfile.TemporaryDirectory() as folder, busy(others):
        command = [sys.executable, __file__, "--profile", profile, "--jobs", str(jobs)]
        environment = os.environ | {"CAPSNB_RUNS": folder}
        done = subprocess.run(command, env=environment, stdout=subprocess.PIPE, text=True, check=True)
    return float(done.stdout.splitlines()[-1])


@contextlib.contextmanager
def busy(count: int) -> Iterator[list[subprocess.Popen]]:
    """So many processes that are never idle."""
    others = [subprocess.Popen([sys.executable, "-c", "while True: pass"]) for _ in range(count)]
    try:
        yield others
    finally:
        for other in others:
            other.kill()
            other.wait()


def train(profile: str, jobs: int) -> float:
    """Wall time of training here what a fresh folder of runs lacks."""
    work = plan(NOTEBOOK, profile)
    forecast = dict(zip(work.all_specs(), work.forecast(), strict=True))
    begun = time.perf_counter()
    if failed := work.train(jobs=jobs, seconds=forecast):
        raise RuntimeError(f"a time of trainings that failed says nothing: {failed[0]}")
    return time.perf_counter() - begun


def summary(times: dict[str, list[float]]) -> dict[str, list[float]]:
    """Median, least and most of the ratios of wall times in one round."""
    one, two, beside = (times[name] for name in WAYS)
    return {
        "one job's time over that of two": spread([a / b for a, b in zip(one, two, strict=True)]),
        "two jobs' time beside busy processes over that without": spread(
            [a / b for a, b in zip(beside, two, strict=True)]
        ),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--profile", choices=("smoke", "quick"), default="quick")
    parser.add_argument("--rounds", type=int, default=1)
    parser.add_argument("--out", type=Path, help="JSON file; results/bench_jobs.json at quick")
    parser.add_argument("--jobs", type=int, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.jobs:
        print(train(given.profile, given.jobs))
        return
    out = given.out or (project() / "results" / "bench_jobs.json" if given.profile == "quick" else None)
    times: dict[str, list[float]] = {name: [] for name in WAYS}
    record = {**circumstances(), "cores": os.cpu_count(), "threads of a training": 1, "rounds": given.rounds}
    record |= {"notebook": NOTEBOOK, "profile": given.profile}
    record["networks"] = len(set(plan(NOTEBOOK, given.profile).all_specs()))
    for _ in range(given.rounds):
        for name, (jobs, others) in WAYS.items():
            times[name].append(seconds(given.profile, jobs, others))
            print(f"{name:36}{times[name][-1]:8.1f} s", flush=True)
    record |= {"seconds": {name: statistics.median(found) for name, found in times.items()}, "ratios": summary(times)}
    for name, (middle, low, high) in record["ratios"].items():
        print(f"{name}: {middle:.2f} ({low:.2f}-{high:.2f})")
    save(record, out)
    if out is not None:
        print(f"Recorded in {out}")


if __name__ == "__main__":
    main()
