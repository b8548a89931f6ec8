"""Small trained models that come with the project, for instant exploration and as regression checks.

    run = checkpoints.load("capsnet-small")       # model, history, spec

Each is a run's folder under data/checkpoints with a record of how it was made: `capsnb checkpoints make NAME`.
"""

from __future__ import annotations

import json
import shutil
import tempfile
from dataclasses import replace
from pathlib import Path
from typing import Any

from capsnb.data import Augment, DataSpec, prepare
from capsnb.data.transforms import Affine
from capsnb.installation import project, shipped
from capsnb.nn.models import EFFICIENT, ZOO, CapsNetConfig, ConvNetRConfig, DepthwiseStem, StridedStem
from capsnb.training import runs
from capsnb.training.evaluation import evaluate
from capsnb.training.hooks import Revival
from capsnb.training.pruning import Lobster, Penalty
from capsnb.training.recipe import Recipe
from capsnb.training.runs import Run
from capsnb.training.spec import Spec

# all at reduced widths, on the embedded digits: an eighth of Sabour's maps, four types of primary capsules, not 32; a
# quarter of Mitterreiter et al.'s maps, half of Mazzia et al.'s
SMALL = CapsNetConfig(stem=StridedStem(channels=32, types=4), decoder_widths=(128, 256))
BRIEF = Recipe(epochs=50, batch=64, learning_rate=2e-3)

LEFT = ("lock", "progress.json", "state.pt", "watched.csv", "observations.jsonl")  # of a run's folder, not shipped
DEEP = replace(
    ZOO["deep-rba-40"].config,
    size=28,
    stem=DepthwiseStem(widths=(8, 16, 32), strides=(2, 1, 1, 2)),
    decoder_widths=(128, 256),
    init_scale=0.5,
)
TURNED = Augment(rotation=8.0, shear=15.0, scale=(0.9, 1.1))
DYING = Spec(
    model=replace(DEEP, decoder_widths=(32, 64)),
    data=DataSpec(crop=20, derive=Affine(kind="c", size=28)),
    recipe=Recipe(
        epochs=20,
        batch=32,
        learning_rate=2e-3,
        decay=0.99,
        decay_every=1,
        decay_unit="epochs",
        weight_decay=1e-3,
        reconstruction_weight=0.005 / 784,
        augment=TURNED,
        report_every=55,
    ),
)

CHECKPOINTS: dict[str, Spec] = {
    # Sabour et al. 2017
    "capsnet-small": Spec(model=SMALL, recipe=Recipe(epochs=150)),
    # Renzulli et al. 2022, without a decoder as theirs: 825 steps with all pulls of the paper's 200 epochs;
    # 51 % of its weights are gone, its keys of 1,000 images still have 6.0 bits of at most 6.6
    "rem-small": Spec(
        model=replace(ZOO["rem-28"].config, stem=SMALL.stem),
        recipe=replace(BRIEF, epochs=15, hooks=(Lobster(penalty=Penalty(strength=4.8e-3), images=250, trials=12),)),
    ),
    # Mitterreiter et al. 2023: 16/16/16/16/10 capsules; without their weight decay, which kills them
    "deep-rba-small": Spec(
        model=DEEP,
        recipe=replace(BRIEF, epochs=15, batch=32, augment=replace(TURNED, shift=2)),
    ),
    # the same layers, smaller, after ten epochs in which weight decay kills and ten more in which it goes on, or is off
    # and Adam's moments are reset: of `notebooks/sweeps/resurrection.toml`, seed 0
    "deep-rba-dead": DYING,
    "deep-rba-revived": replace(DYING, recipe=replace(DYING.recipe, hooks=(Revival(after=10),))),
    # Mazzia et al. 2021: as many capsules of the same size as theirs
    "efficient-capsnet-small": Spec(
        model=replace(EFFICIENT, stem=DepthwiseStem(widths=(16, 32, 32), pointwise=False), decoder_widths=(128, 256)),
        recipe=replace(BRIEF, epochs=30),
    ),
    # Gu et al. 2021: the same widths as capsnet-small, no capsule, no routing
    "convnet-cr-sf-small": Spec(model=ConvNetRConfig(width=32, decoder_widths=(128, 256)), recipe=BRIEF),
}


def folder(name: str) -> Path:
    """Where a checkpoint lies; ValueError lists the names for an unknown one."""
    if name not in CHECKPOINTS:
        raise ValueError(f"There is no checkpoint {name!r}; there are: {', '.join(CHECKPOINTS)}")
    return shipped("checkpoints") / name


def load(name: str, *, device: Any = "cpu") -> Run:
    """A checkpoint's model in evaluation mode with its history and spec."""
    return runs.load(folder(name), device=device)


def record(name: str) -> dict[str, Any]:
    """What a checkpoint reaches and how it was made: test accuracy and loss, data, device, versions, code, date."""
    return json.loads((folder(name) / "record.json").read_text()) | runs.read_made(folder(name))


def make(name: str, *, progress: bool = True) -> Path:
    """Train a checkpoint anew on the CPU and put it in its place; what was there stays until the new one is whole.

    Raises FileNotFoundError where capsnb is installed without its project.
    """
    folder(name)  # an unknown one is refused
    target, spec = project() / "data" / "checkpoints" / name, CHECKPOINTS[name]
    run = runs.get(spec, device="cpu", progress=progress)
    images = prepare(spec.data)
    result = evaluate(run.model, images.test)
    target.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=target.parent) as temporary:
        fresh = Path(temporary) / name
        shutil.copytree(run.folder, fresh, ignore=shutil.ignore_patterns(*LEFT))
        content = {
            "made by": f"capsnb checkpoints make {name}",
            "test accuracy": result.accuracy,
            "test loss": result.loss,
            "data": images.source,
        }
        (fresh / "record.json").write_text(json.dumps(content, indent=1) + "\n")
        if target.exists():
            target.rename(Path(temporary) / "old")
        fresh.rename(target)
    return target
