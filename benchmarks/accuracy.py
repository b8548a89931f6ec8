"""Does a network learn as well on the fast convolution as on the direct one? Same seeds, same batches, both ways.

python benchmarks/accuracy.py              3 seeds, 10 epochs of the embedded digits, into results/bench_accuracy.json
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import torch

from capsnb.data import DataSpec, prepare
from capsnb.installation import project
from capsnb.nn.convolution import Conv2d, pays
from capsnb.nn.models import CapsNetConfig, StridedStem
from capsnb.training.loop import train
from capsnb.training.provenance import circumstances
from capsnb.training.recipe import Recipe
from capsnb.training.spec import Spec

MODEL = CapsNetConfig(stem=StridedStem(channels=128, types=16))


def curve(fast: bool, seed: int, epochs: int) -> dict[str, list[float]]:
    """Validation accuracy and training loss after each epoch, and whether the fast convolution was at work."""
    spec = Spec(model=MODEL, data=DataSpec(), recipe=Recipe(epochs=epochs), seed=seed)
    model, images = spec.build(), prepare(spec.data)
    for module in model.modules():
        if isinstance(module, Conv2d):
            module.fast = fast
    rows = list(train(model, images, spec.recipe, seed=seed, device="cpu", progress=False))
    return {name: [row[name] for row in rows] for name in ("validation accuracy", "loss")}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--epochs", type=int, default=10)
    parser.add_argument("--out", type=Path, default=project() / "results" / "bench_accuracy.json")
    given = parser.parse_args()
    shapes = (128, 128, 20, 20), (128, 128, 9, 9)
    if not pays(*shapes, 2, torch.float32, "cpu"):
        raise SystemExit("the fast convolution is switched off: there is nothing to compare")
    record = {**circumstances(), "curves": []}
    for seed in range(given.seeds):
        for fast in (True, False):
            found = curve(fast, seed, given.epochs)
            record["curves"].append({"seed": seed, "convolution": "fast" if fast else "direct", **found})
            shown = " ".join(f"{100 * value:.1f}" for value in found["validation accuracy"])
            print(f"seed {seed} {'fast  ' if fast else 'direct'} validation accuracy, %: {shown}", flush=True)
    given.out.parent.mkdir(parents=True, exist_ok=True)
    temporary = given.out.with_suffix(".tmp")
    temporary.write_text(json.dumps(record, indent=1) + "\n")
    temporary.replace(given.out)
    print(f"Recorded in {given.out}")


if __name__ == "__main__":
    main()
