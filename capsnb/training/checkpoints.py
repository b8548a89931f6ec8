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

# all at reduced widths: an eighth of Sabour's maps, four types of primary capsules, not 32; a quarter of Mitterreiter
# et al.'s maps, half of Mazzia et al.'s. In few epochs, hence rates that fall fast; decoders weigh four times what they
# do in the paper, for pictures that are sharp
WIDTHS = (192, 384)
SMALL = CapsNetConfig(stem=StridedStem(channels=32, types=4), decoder_widths=WIDTHS)
DIGITS = DataSpec(name="mnist")
BRIEF = Recipe(epochs=12, learning_rate=2e-3, decay=0.7, decay_every=1, decay_unit="epochs", reconstruction_weight=2e-3)

LEFT = ("lock", "progress.json", "state.pt", "watched.csv", "observations.jsonl")  # of a run's folder, not shipped
DEEP = replace(
    ZOO["deep-rba-40"].config,
    size=28,
    stem=DepthwiseStem(widths=(8, 16, 32), strides=(2, 1, 1, 2)),
    decoder_widths=WIDTHS,
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
    "capsnet-small": Spec(model=SMALL, data=DIGITS, recipe=BRIEF),
    # Renzulli et al. 2022, without a decoder as theirs: the pulls of 5,160 steps add up to 0.98, where those of the
    # paper's 200 epochs come to 3.69, with which so narrow a network falls to 97 %
    "rem-small": Spec(
        model=replace(ZOO["rem-28"].config, stem=SMALL.stem),
        data=DIGITS,
        recipe=replace(BRIEF, decay=0.8, hooks=(Lobster(penalty=Penalty(strength=2e-4), images=1_000, trials=12),)),
    ),
    # Mitterreiter et al. 2023: 16/16/16/16/10 capsules; without their weight decay, which kills them
    "deep-rba-small": Spec(model=DEEP, data=DIGITS, recipe=replace(BRIEF, batch=64, augment=replace(TURNED, shift=2))),
    # the same layers, smaller, on the embedded digits, after ten epochs in which weight decay kills and ten more in
    # which it goes on, or is off and Adam's moments are reset: of `notebooks/sweeps/resurrection.toml`, seed 0
    "deep-rba-dead": DYING,
    "deep-rba-revived": replace(DYING, recipe=replace(DYING.recipe, hooks=(Revival(after=10),))),
    # Mazzia et al. 2021: as many capsules of the same size as theirs
    "efficient-capsnet-small": Spec(
        model=replace(EFFICIENT, stem=DepthwiseStem(widths=(16, 32, 32), pointwise=False), decoder_widths=WIDTHS),
        data=DIGITS,
        recipe=replace(BRIEF, epochs=8, batch=64),
    ),
    # Gu et al. 2021: the same widths as capsnet-small, no capsule, no routing
    "convnet-cr-sf-small": Spec(
        model=ConvNetRConfig(width=32, decoder_widths=WIDTHS), data=DIGITS, recipe=replace(BRIEF, batch=64)
    ),
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
    """What a checkpoint reaches and how it was made: test accuracy and loss, data, device, versions, code, date; where
    it was trained on MNIST, accuracy and loss on the embedded test digits, too."""
    return json.loads((folder(name) / "record.json").read_text()) | runs.read_made(folder(name))


def stand_in(data: DataSpec) -> DataSpec:
    """Images like those, of a checkpoint, that are always there: for MNIST the embedded digits, most of which the
    checkpoint was trained on."""
    return DataSpec() if data == DIGITS else data


def shown(run: Run) -> DataSpec:
    """The images to show a run: those that it was trained on, or of a checkpoint their stand-in."""
    return stand_in(run.spec.data) if run.folder.parent == shipped("checkpoints") else run.spec.data


def make(name: str, *, progress: bool = True) -> Path:
    """Train a checkpoint anew on the CPU and put it in its place; what was there stays until the new one is whole.

    Raises FileNotFoundError where capsnb is installed without its project, and where the images are not there.
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
            "test images": result.count,
            "data": images.source,
        }
        if (always := stand_in(spec.data)) != spec.data:  # for a look at the weights where the others are not
            result = evaluate(run.model, prepare(always).test)
            content |= {"embedded accuracy": result.accuracy, "embedded loss": result.loss}
        (fresh / "record.json").write_text(json.dumps(content, indent=1) + "\n")
        if target.exists():
            target.rename(Path(temporary) / "old")
        fresh.rename(target)
    return target
