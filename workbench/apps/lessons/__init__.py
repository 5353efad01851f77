"""The course's own controls: predictions, exercises, figures with captions, and numbers kept between notebooks."""

import lazy_loader as _lazy

__getattr__, __dir__, __all__ = _lazy.attach(
    __name__,
    submod_attrs={
        "asking": ["Exercise", "Prediction", "exercise", "exercises", "predict"],
        "memory": ["keep", "kept", "kept_folder"],
        "showing": ["chart_browser", "figure", "fit", "live_text", "remarks"],
    },
)
