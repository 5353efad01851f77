"""The demonstrations that the export offers, in the order of the blog."""

from .demonstration import Demo
from .rejection import build as build_rejection
from .subs import build as build_subs
from .transfer import build as build_transfer

DEMOS = (
    Demo("ptc-demo", "Photon transfer, played with", "Gain", build_transfer),
    Demo("rejection-demo", "What goes out of a stack", "Stacking", build_rejection),
    Demo("sub-length-demo", "How long should a sub be? Try it", "Planning", build_subs),
)
