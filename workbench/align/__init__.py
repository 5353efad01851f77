"""Align frames: match star patterns, fit the transform between frames."""

from .match import Match, NoMatchError, match_stars
from .transform import KINDS, Transform, fit_robust, fit_transform

__all__ = ["KINDS", "Match", "NoMatchError", "Transform", "fit_robust", "fit_transform", "match_stars"]
