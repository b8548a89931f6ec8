"""What a machine with CUDA can tell in ten minutes; `make gpu` runs it, and without CUDA it ends with status 2.

    python benchmarks/gpu.py                        into results/bench_cuda.json
    python benchmarks/gpu.py --device cpu           a dry run of the same parts, recorded nowhere unless --out says so

One part after another: the tests that compare CUDA with the CPU, compiled training steps against eager ones, and a
campaign for the minutes left, where this version of capsnb has one. Each has a share of the time and ends with it.
"""

from __future__ import annotations

import argparse
import copy
import json
import re
import subprocess
import sys
import time
import warnings
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from capsnb.data import Batch
from capsnb.installation import project
from capsnb.nn.models import ZOO
from capsnb.training.provenance import circumstances
from capsnb.training.recipe import Recipe
from capsnb.training.step import WORTH, TrainStep
from speed import BATCHES, images_for, save, seconds
from stopwatch import TASKS

MINUTES = 10.0
TESTS, STEPS = 0.4, 0.4  # shares of the time; the campaign has what is left
LEAST = 20.0  # seconds below which a part is not begun
NETWORKS = ("capsnet_dec", "deep5", "efficient", "em16")  # whose steps are compared, the most used first
NEAR_LOSS, NEAR_GRADIENT = 1e-3, 2e-2  # relative; convolutions of both steps may be in TF32, of 10 bits
NO_CUDA = "make gpu needs a machine with CUDA, and torch finds none here: nothing was run."


class Clock:
    """The seconds that all parts share."""

    def __init__(self, total: float) -> None:
        self.total, self.end = total, time.monotonic() + total

    def left(self, share: float = 1.0) -> float:
        """Seconds for a part that may take this share of all, at most those that are left."""
        return min(share * self.total, self.end - time.monotonic())


def called(command: list[str], limit: float) -> subprocess.CompletedProcess[str] | None:
    """The finished command, with its output as text; None when it was ended after `limit` seconds."""
    try:
        return subprocess.run(command, capture_output=True, text=True, timeout=limit, cwd=project())
    except subprocess.TimeoutExpired:
        return None


def run_tests(limit: float) -> dict[str, Any]:
    """How many tests of tests/test_cuda.py passed, failed or were skipped; "said" is a sentence where none ran."""
    done = called([sys.executable, "-m", "pytest", "-q", "tests/test_cuda.py"], limit)
    if done is None:
        return {"said": f"The tests did not end within {limit:.0f} s."}
    print(done.stdout[-3000:])
    found = counts(done.stdout)
    return found or {"said": f"The tests did not run: {(done.stdout + done.stderr).strip()[-300:]}"}


def counts(output: str) -> dict[str, int]:
    """What pytest says in its last line, {"passed": 3, ...}; empty where that line counts no test."""
    last = output.strip().rpartition("\n")[2]
    return {kind: int(number) for number, kind in re.findall(r"(\d+) (passed|failed|skipped|errors?)\b", last)}


def compare(task: str, device: torch.device, batch: int) -> dict[str, Any]:
    """One network's eager step beside its compiled one: how far apart loss and gradients are, and images/s of both.

    Differences are relative, of gradients the norm of all of them together. "compiled" is false where the compiler
    gave up ("warning" says why) or the device is not CUDA; then both steps are eager.
    """
    entry, weight = ZOO[TASKS[task]], Recipe().reconstruction_weight
    torch.manual_seed(0)
    model = entry.config.build().to(device).train()
    x, y = images_for(task, batch, device)
    given = Batch(x, y, x * 255)  # the reconstruction's target is given in the scale of stored images
    found: dict[str, Any] = {"task": task, "batch": batch}
    losses, gradients = {}, {}
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        for way, steps in {"eager": 0, "compiled": WORTH}.items():
            own = copy.deepcopy(model)
            step = TrainStep(own, entry.loss, weight, steps=steps)
            losses[way] = step(given)[0].item()
            gradients[way] = torch.cat([each.grad.flatten() for each in own.parameters() if each.grad is not None])
            for _ in range(3):  # warm: a compiled step is recorded in its second and third call
                step(given)
            found[f"{way} images/s"] = batch / min(seconds(lambda x, y, step=step: step(given), x, y) for _ in range(3))
            found["compiled"] = step._compiled is not None
    if failed := [str(each.message) for each in caught if "could not be compiled" in str(each.message)]:
        found["warning"] = failed[0]
    found["ratio"] = found["compiled images/s"] / found["eager images/s"]
    found["loss apart"] = abs(losses["compiled"] - losses["eager"]) / abs(losses["eager"])
    found["gradients apart"] = apart(gradients["compiled"], gradients["eager"])
    found["equal"] = found["loss apart"] <= NEAR_LOSS and found["gradients apart"] <= NEAR_GRADIENT
    return found


def apart(found: Tensor, expected: Tensor) -> float:
    """The norm of the difference over that of what is expected."""
    return float((found - expected).norm() / expected.norm())


def compare_all(limit: float, device: torch.device, batch: int | None = None) -> list[dict[str, Any]]:
    """`compare` of each of NETWORKS in a process of its own, which ends with the time; "said" where it is over."""
    clock, found = Clock(limit), []
    for task in NETWORKS:
        size = batch or BATCHES.get(task, (128,))[0]
        if clock.left() < LEAST:
            found.append({"task": task, "said": "The time for steps was over before it began."})
            continue
        command = [sys.executable, __file__, "--step", task, "--batch", str(size), "--device", str(device)]
        done = called(command, clock.left())
        if done is None:
            found.append({"task": task, "said": "Its steps did not end in time; compiling takes a minute or two."})
        elif done.returncode:
            found.append({"task": task, "said": f"Its steps failed: {done.stderr.strip()[-300:]}"})
        else:
            found.append(json.loads(done.stdout.strip().rpartition("\n")[2]))
        print(shown(found[-1]), flush=True)
    return found


def shown(step: dict[str, Any]) -> str:
    """A line about one network's steps."""
    if "said" in step:
        return f"{step['task']}: {step['said']}"
    way = "compiled" if step["compiled"] else "not compiled"
    speeds = f"{step['eager images/s']:.0f} images/s eager, {step['compiled images/s']:.0f} {way}"
    verdict = "equal" if step["equal"] else "DIFFERENT"
    return f"{step['task']}, batch {step['batch']}: {speeds}, {step['ratio']:.2f} x; gradients {verdict}"


def campaign(limit: float) -> dict[str, Any]:
    """A campaign of so many seconds; "said": why there was none, or how it ended."""
    command = [sys.executable, "-m", "capsnb.cli", "campaign"]
    asked = called([*command, "--help"], limit)
    if asked is None or asked.returncode:
        return {"said": "This version of capsnb has no command `capsnb campaign`: none was run."}
    planned = limit - LEAST  # it ends a little late: with the training under way
    done = called([*command, "--hours", f"{planned / 3600:.4f}"], limit)
    if done is None:
        return {"said": f"The campaign was ended after {limit:.0f} s."}
    print(done.stdout[-3000:])
    return {"said": f"The campaign of {planned:.0f} s ended with status {done.returncode}.", "status": done.returncode}


def bad(record: dict[str, Any]) -> bool:
    """Whether a test failed, a compiled step differs from the eager one, or the campaign did not end well."""
    failed = any(record["tests"].get(kind) for kind in ("failed", "error", "errors"))
    different = any(step.get("equal") is False for step in record["steps"])
    return failed or different or bool(record["campaign"].get("status"))


def run_all(device: torch.device, minutes: float, out: Path | None, batch: int | None = None) -> dict[str, Any]:
    """All parts in turn, recorded after each; one for which less than LEAST is left is skipped with a sentence."""
    clock = Clock(60 * minutes)
    record: dict[str, Any] = {**circumstances(), "minutes": minutes, "tests": {}, "steps": [], "campaign": {}}
    parts = {
        "tests": (TESTS, run_tests, lambda said: {"said": said}),
        "steps": (STEPS, lambda limit: compare_all(limit, device, batch), lambda said: [{"task": "all", "said": said}]),
        "campaign": (1.0, campaign, lambda said: {"said": said}),
    }
    for name, (share, part, skipped) in parts.items():
        limit = clock.left(share)
        print(f"\n{name}: {max(limit, 0):.0f} s at most", flush=True)
        record[name] = part(limit) if limit >= LEAST else skipped("The time was over before it began.")
        if name != "steps":
            print(record[name].get("said", record[name]), flush=True)
        save(record, out)
    return record


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--minutes", type=float, default=MINUTES, help="of all parts together")
    parser.add_argument("--batch", type=int, help="images in a step, in place of each network's own")
    parser.add_argument("--out", type=Path, help="JSON file; results/bench_cuda.json on CUDA")
    parser.add_argument("--step", choices=NETWORKS, help=argparse.SUPPRESS)
    given = parser.parse_args()
    device = torch.device(given.device)
    if device.type == "cuda" and not torch.cuda.is_available():
        print(NO_CUDA)
        return 2
    if given.step:
        print(json.dumps(compare(given.step, device, given.batch)))
        return 0
    out = given.out or (project() / "results" / "bench_cuda.json" if device.type == "cuda" else None)
    record = run_all(device, given.minutes, out, given.batch)
    if out is not None:
        print(f"Recorded in {out}")
    return int(bad(record))


if __name__ == "__main__":
    sys.exit(main())
