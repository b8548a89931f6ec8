"""capsnb: what capsule networks represent, measured.

    import capsnb as cn

    cn.predict("capsnet-small", "seven.png").classes             # ["7"]
    run = cn.train(cn.Spec(model=cn.ZOO["capsnet"].config))      # trained once, found again
    cn.survey(run.model, cn.load_data("mnist-sample"))           # the measures of five papers
    Saliency(cn.scores_of(run.model))                            # and captum, Quantus, anything that takes a module

What is named here is loaded when it is first asked for: importing capsnb loads neither torch nor numpy.

One letter per axis, everywhere: B batch, I child capsules, J parent capsules, P child pose size, D parent pose size,
K classes, T routing iterations, C channels, H W pixels.
"""

import importlib
from typing import Any

__version__ = "0.2.0"

# public name -> where it is defined, under that name unless another stands behind the colon
_PUBLIC = {
    "ZOO": "nn.models",
    "Attention": "nn.routing",
    "CapsNetConfig": "nn.models",
    "DataSpec": "data",
    "Dynamic": "nn.routing",
    "EM": "nn.em",
    "Recipe": "training.recipe",
    "SelfAttention": "nn.routing",
    "Spec": "training.spec",
    "Uniform": "nn.routing",
    "create_model": "training.use",
    "edit": "nn.taps",
    "list_models": "training.use",
    "load": "training.use",
    "load_data": "data:load",
    "measurement": "measure.protocol",
    "predict": "training.use",
    "record": "nn.taps",
    "run_with_cache": "nn.taps",
    "scores_of": "nn.models",
    "survey": "measure.survey",
    "train": "training.runs:get",
}
_PACKAGES = ("data", "evidence", "explore", "plot")  # that offer something themselves
__all__ = ["__version__", *_PUBLIC]


def __getattr__(name: str) -> Any:
    if name in _PACKAGES:
        return importlib.import_module(f"{__name__}.{name}")
    if name not in _PUBLIC:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    module, _, other = _PUBLIC[name].partition(":")
    found = globals()[name] = getattr(importlib.import_module(f"{__name__}.{module}"), other or name)
    return found


def __dir__() -> list[str]:
    return sorted({*globals(), *_PUBLIC, *_PACKAGES})
