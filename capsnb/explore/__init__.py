"""Explorers: capsules under your fingers, in any notebook in one line with any trained model.

    PerturbationExplorer("capsnet-small")       # a checkpoint, a finished run's name, a Run, or a model

Each is a widget whose traits are its state: set one in Python and its control moves, move a control and it is set.
"""

from capsnb.installation import extra

with extra("notebooks"):
    from capsnb.explore.compare import Compare
    from capsnb.explore.paths import PathExplorer
    from capsnb.explore.perturbation import PerturbationExplorer
    from capsnb.explore.routing import RoutingExplorer
    from capsnb.explore.viewpoint import ViewpointExplorer

__all__ = ["Compare", "PathExplorer", "PerturbationExplorer", "RoutingExplorer", "ViewpointExplorer"]
