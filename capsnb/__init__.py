"""capsnb: what capsule networks represent, measured.

One letter per axis, everywhere: B batch, I child capsules, J parent capsules, P child pose size, D parent pose size,
K classes, T routing iterations, C channels, H W pixels.
"""

__version__ = "0.1.0"
