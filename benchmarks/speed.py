"""How fast capsnb trains: ratios measured in one alternating run, with peak memory; `make bench` runs it.

    python benchmarks/speed.py                         every task, into results/bench_cpu.json, or bench_cuda_ways.json
    python benchmarks/speed.py capsnet_dec --rounds 3 --batch 128

Four ways to take one step on the same images are timed in turn, round after round, so that what else the machine does
falls on all of them: capsnb with its fast paths, capsnb with the direct convolution, a textbook implementation, and
the convolutions alone (forward and backward), which nothing that uses them directly can beat.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

import torch
from torch import Tensor, nn

import textbook
import textbook_em
from capsnb.data import DataSpec, prepare
from capsnb.installation import project
from capsnb.nn.convolution import Conv2d
from capsnb.nn.models import ZOO
from capsnb.training.loop import train
from capsnb.training.provenance import circumstances
from capsnb.training.recipe import Recipe
from stopwatch import TASKS, Timed

RATIO = "times capsnb's"
WAYS = ("capsnb", "plain", "textbook", "convolutions")
SIZES = {"capsnet36": 36, "capsnet40": 40, "deep5": 40}  # 28 where not named
BATCHES = {"capsnet": (64, 128, 1024), "capsnet_dec": (64, 128, 1024), "em32": (8,), "em16": (32,)}
MATRIX = {"em32": (32, 32, 32), "em16": (64, 8, 16)}  # channels, types of primary and of convolutional capsules
# what a textbook step keeps: broadcast products (B, I, J, D, P) of the votes and their gradients; 2.6 GB were measured
# where one product has 0.75 GB. EM keeps of the votes (B, L, N, C, 16) what each of three iterations makes
TEXTBOOK_COPIES, EM_COPIES = 3.5, 20

Step = Callable[[Tensor, Tensor], object]


def ways(task: str, device: torch.device) -> dict[str, tuple[Step, Step]]:
    """name -> (training step, inference step), each a function of images and labels."""
    fast, plain = Timed(task, device), Timed(task, device)
    for timed in (fast, plain):
        timed._made_for(torch.zeros(1, 1, _size(task), _size(task), device=device))
    for module in plain.model.modules():
        if isinstance(module, Conv2d):
            module.fast = False
    found = {"capsnb": (fast.train, lambda x, y: fast.infer(x)), "plain": (plain.train, lambda x, y: plain.infer(x))}
    return found | {"textbook": _textbook(task, device), "convolutions": _convolutions(task, device)}


def _stem(task: str, device: torch.device) -> nn.Module:
    model = ZOO[TASKS[task]].config.build().to(device)
    for module in model.modules():
        if isinstance(module, Conv2d):
            module.fast = False
    return nn.Sequential(*(model._modules[name] for name in model.stages), model.primary)


def _size(task: str) -> int:
    return SIZES.get(task, 28)


def _textbook(task: str, device: torch.device) -> tuple[Step, Step]:
    made = {
        "deep5": lambda: textbook.deep(40, _stem(task, device)),
        "efficient": lambda: textbook.efficient(_stem(task, device)),
    } | {name: partial(textbook_em.MatrixCapsNet, *sizes) for name, sizes in MATRIX.items()}
    model = made.get(task, lambda: textbook.sabour(_size(task), task != "capsnet"))().to(device)
    loss = textbook_em.loss if task in MATRIX else textbook.loss
    optimizer = torch.optim.Adam(model.parameters())

    def step(x: Tensor, y: Tensor) -> None:
        optimizer.zero_grad()
        loss(*model(x, y), x, y).backward()
        optimizer.step()

    def infer(x: Tensor, y: Tensor) -> None:
        with torch.inference_mode():
            model(x)

    return step, infer


def _convolutions(task: str, device: torch.device) -> tuple[Step, Step]:
    stem = _stem(task, device)
    if task in MATRIX:
        stem = nn.Sequential(*stem[:-1], stem[-1].pose)
    elif hasattr(stem[-1], "conv"):
        stem = nn.Sequential(*stem[:-1], stem[-1].conv)
    low = device.type == "cuda"

    def forward(x: Tensor) -> Tensor:
        with torch.autocast(device.type, torch.bfloat16, enabled=low):
            return stem(x)

    def step(x: Tensor, y: Tensor) -> None:
        stem.zero_grad()
        output = forward(x)
        output.backward(output.detach())

    def infer(x: Tensor, y: Tensor) -> None:
        with torch.inference_mode():
            forward(x)

    return step, infer


def images_for(task: str, batch: int, device: torch.device) -> tuple[Tensor, Tensor]:
    """Real digits where they fit, in a black frame, as numbers from 0 to 1."""
    digits = prepare(DataSpec(pad=(_size(task) - 28) // 2)).train.batch(torch.arange(batch) % 3000)
    return (digits.images.float() / 255).to(device), digits.labels.to(device)


def seconds(step: Step, x: Tensor, y: Tensor) -> float:
    """One step's time, at least 0.2 s of steps being timed together."""
    count, total = 0, 0.0
    while total < 0.2:
        start = time.perf_counter()
        step(x, y)
        if x.device.type == "cuda":
            torch.cuda.synchronize()
        total += time.perf_counter() - start
        count += 1
    return total / count


def measure(task: str, batch: int, rounds: int, device: torch.device) -> dict:
    """Median seconds of each way, ratios against capsnb by round, and peak memory of each in a process of its own."""
    x, y = images_for(task, batch, device)
    steps = ways(task, device)
    result: dict = {"task": task, "batch": batch}
    needed = _textbook_bytes(task, batch)
    if needed > _memory(device) / 2:
        del steps["textbook"]
        result["textbook left out"] = f"it would need about {needed / 1e9:.0f} GB, more than half of the memory here"
    for number, kind in enumerate(("train", "infer")):
        times: dict[str, list[float]] = {name: [] for name in steps}
        for both in steps.values():
            both[number](x, y)
        for _ in range(rounds):
            for name, both in steps.items():
                times[name].append(seconds(both[number], x, y))
        result[kind] = {
            name: {
                "seconds": statistics.median(found),
                "images/s": batch / statistics.median(found),
                RATIO: spread([t / ours for t, ours in zip(found, times["capsnb"], strict=True)]),
            }
            for name, found in times.items()
        }
    result["peak MB"] = {name: _peak(task, batch, name, device) for name in steps if name != "convolutions"}
    return result


def _textbook_bytes(task: str, batch: int) -> float:
    if task in MATRIX:
        _, types, parents = MATRIX[task]
        votes = (36 * 9 * types + 16 * 9 * parents) * parents * 16 + 16 * parents * 10 * 16
        return 4.0 * batch * votes * EM_COPIES
    children = 16 if task in ("deep5", "efficient") else ((_size(task) - 16) // 2) ** 2 * 32
    return 4.0 * batch * children * 10 * 16 * 8 * TEXTBOOK_COPIES


def _memory(device: torch.device) -> float:
    if device.type == "cuda":
        return torch.cuda.get_device_properties(device).total_memory
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")


def spread(ratios: list[float]) -> list[float]:
    """Median, least and most."""
    return [statistics.median(ratios), min(ratios), max(ratios)]


def _peak(task: str, batch: int, way: str, device: torch.device) -> float:
    command = [sys.executable, __file__, task, "--batch", str(batch), "--peak", way, "--device", device.type]
    return float(subprocess.run(command, capture_output=True, text=True, check=True).stdout)


def peak(task: str, batch: int, way: str, device: torch.device) -> float:
    """What three training steps need at most beyond the libraries, model and images, in MB."""
    x, y = images_for(task, batch, device)
    step = ways(task, device)[way][0]
    before = _resident("VmRSS")
    for _ in range(3):
        step(x, y)
    return torch.cuda.max_memory_allocated() / 1e6 if device.type == "cuda" else _resident("VmHWM") - before


def _resident(field: str) -> float:
    # not getrusage: its maximum also counts the process that started this one
    (line,) = (line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith(field))
    return int(line.split()[1]) * 1024 / 1e6


def whole_epochs(device: torch.device) -> dict:
    """Images/s of `train()`, shifts and progress included, against the bare step's, in alternation."""
    images = prepare(DataSpec(train=1280, validation=100, test=100))
    x, y = images_for("capsnet_dec", 128, device)
    timed = Timed("capsnet_dec", device)
    timed.train(x, y)
    ratios = []
    for seed in range(3):
        step = min(seconds(timed.train, x, y) for _ in range(2))
        model = ZOO["capsnet"].config.build()
        rows = list(train(model, images, Recipe(epochs=2), seed=seed, device=device, progress=False))
        step = min(step, *(seconds(timed.train, x, y) for _ in range(2)))
        ratios.append(rows[-1]["images/s"] * step / 128)
    return {"epoch's images/s over the bare step's": spread(ratios)}


START = """
import time
begun = time.perf_counter()
import torch
with_torch = time.perf_counter()
import capsnb.training.loop, capsnb.nn.models, capsnb.data.transforms
ready = time.perf_counter()
from stopwatch import Timed
x, y = torch.rand(128, 1, 28, 28), torch.zeros(128, dtype=torch.long)
Timed("capsnet_dec", "auto").train(x, y)
print(with_torch - begun, ready - with_torch, time.perf_counter() - ready)
"""


def start_up() -> dict[str, float]:
    """Seconds from the start of a process to its first finished step, by what they go to; the best of three."""
    found = []
    for _ in range(3):
        begun = time.perf_counter()
        done = subprocess.run([sys.executable, "-c", START], capture_output=True, text=True, check=True)
        parts = [float(part) for part in done.stdout.split()]
        found.append((time.perf_counter() - begun, *parts))
    names = ("whole process", "import torch", "import capsnb", "first step")
    return dict(zip(names, min(found), strict=True))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("tasks", nargs="*", help=f"of {', '.join(TASKS)}; all by default")
    parser.add_argument("--batch", type=int, nargs="*", help="batch sizes in place of each task's own")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--device", default="auto")
    parser.add_argument("--out", type=Path, help="JSON file; one in results/ when every task runs")
    parser.add_argument("--peak", choices=WAYS, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if unknown := set(given.tasks) - set(TASKS):
        parser.error(f"there is no task {sorted(unknown)[0]!r}; there are: {', '.join(TASKS)}")
    device = Timed("capsnet", given.device).device
    if given.peak:
        print(peak(given.tasks[0], given.batch[0], given.peak, device))
        return
    # bench_cuda.json is what gpu.py records
    name = "bench_cuda_ways.json" if device.type == "cuda" else f"bench_{device.type}.json"
    out = given.out or (None if given.tasks else project() / "results" / name)
    record: dict = {**circumstances(), "rounds": given.rounds, "tasks": []}
    for task in given.tasks or TASKS:
        for batch in given.batch or BATCHES.get(task, (128,)):
            record["tasks"].append(measure(task, batch, given.rounds, device))
            show(record["tasks"][-1])
            save(record, out)
    if not given.tasks:
        record |= {"epochs": whole_epochs(device), "start": start_up()}
        print(json.dumps({name: record[name] for name in ("epochs", "start")}, indent=1))
        save(record, out)
    if out is not None:
        print(f"Recorded in {out}")


def save(record: dict, out: Path | None) -> None:
    """Write what has been measured so far."""
    if out is not None:
        out.parent.mkdir(parents=True, exist_ok=True)
        temporary = out.with_suffix(".tmp")
        temporary.write_text(json.dumps(record, indent=1) + "\n")
        temporary.replace(out)


NETWORKS = {
    "capsnet_dec": "28x28, decoder",
    "capsnet": "28x28",
    "capsnet36": "36x36, decoder",
    "capsnet40": "40x40, decoder",
    "deep5": "five layers of capsules, 40x40",
    "efficient": "Efficient-CapsNet, 28x28",
    "em16": "matrix capsules 64-8-16-16, 28x28, batch 32",
    "em32": "matrix capsules 32-32-32-32, 28x28, batch 8",
}


def table(record: dict, batch: int = 128) -> str:
    """A record's training steps as a Markdown table, each way's time in multiples of capsnb's.

    Of one batch size, but where a network was measured at another one only. Networks that the record lacks are left
    out.
    """
    found = {
        result["task"]: result
        for result in record["tasks"]
        if result["batch"] == batch or batch not in BATCHES.get(result["task"], (128,))
    }
    lines = [
        "| network | capsnb | direct convolution | textbook | convolutions alone | peak memory: capsnb, textbook |",
        "| --- | --- | --- | --- | --- | --- |",
    ]
    for task, name in NETWORKS.items():
        if task not in found:
            continue
        steps, peaks = found[task]["train"], found[task]["peak MB"]
        times = [f"{steps[way][RATIO][0]:.1f} x" for way in WAYS[1:]]
        memory = ", ".join(f"{peaks[way] / 1000:.2f}" for way in ("capsnb", "textbook"))
        lines.append(f"| {name} | {steps['capsnb']['images/s']:.0f} images/s | {' | '.join(times)} | {memory} GB |")
    return "\n".join(lines)


def show(result: dict) -> None:
    """One task as lines of a table: images/s, how many times capsnb's time, peak memory."""
    print(f"\n{result['task']}, batch {result['batch']}")
    print(f"{'':14}{'train img/s':>12}{'x capsnb':>18}{'infer img/s':>13}{'x capsnb':>18}{'peak MB':>9}")
    for name in result["train"]:
        cells = f"{name:14}"
        for kind, width in (("train", 12), ("infer", 13)):
            found = result[kind][name]
            middle, low, high = found[RATIO]
            cells += f"{found['images/s']:{width}.0f}{f'{middle:.2f} ({low:.2f}-{high:.2f})':>18}"
        print(cells + f"{result['peak MB'].get(name, float('nan')):9.0f}", flush=True)
    if "textbook left out" in result:
        print(f"textbook: {result['textbook left out']}", flush=True)


if __name__ == "__main__":
    main()
