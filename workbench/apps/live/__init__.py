"""What follows a control at once: charts whose figure is changed in place, pictures reduced to the screen."""

from .moving import Moving, moving

__all__ = ["Moving", "moving"]
