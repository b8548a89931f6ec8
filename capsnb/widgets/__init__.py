"""Explorers: capsules under your fingers, in any notebook in one line with any trained model.

    PerturbationExplorer("capsnet-small")       # a checkpoint, a finished run's name, a Run, or a model

Each is a widget whose traits are its state: set one in Python and its control moves, move a control and it is set.
"""

from capsnb.widgets.compare import Compare
from capsnb.widgets.paths import PathExplorer
from capsnb.widgets.perturbation import PerturbationExplorer
from capsnb.widgets.routing import RoutingExplorer
from capsnb.widgets.viewpoint import ViewpointExplorer

__all__ = ["Compare", "PathExplorer", "PerturbationExplorer", "RoutingExplorer", "ViewpointExplorer"]
