"""Align frames: find their stars, match the patterns, fit the transform between frames."""

from .match import Match, NoMatchError, match_stars
from .registration import Registration, compare_models, register
from .transform import KINDS, Transform, fit_robust, fit_transform

__all__ = [
    "KINDS",
    "Match",
    "NoMatchError",
    "Registration",
    "Transform",
    "compare_models",
    "fit_robust",
    "fit_transform",
    "match_stars",
    "register",
]
