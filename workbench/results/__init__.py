"""A measured sensor as one Dataset, and its file ``sensor.json``.

`sensor_dataset` puts the measurements together, `write_sensor` and `open_sensor` take them to the file and back.  The
file's form is in ``sensor.schema.json`` beside this room and in docs/sensor-json.md; what was not measured is NaN here
and null there.
"""

import lazy_loader as _lazy

__getattr__, __dir__, __all__ = _lazy.attach(
    __name__,
    submodules=["dataset", "file", "quantities", "vocabulary", "words"],
    submod_attrs={
        "dataset": ["sensor_dataset"],
        "file": ["FILE", "READABLE", "SCHEMA", "SCHEMA_VERSION", "open_sensor", "sensor_text", "write_sensor"],
        "quantities": ["at_lowest_iso", "json_number", "place_of"],
        "vocabulary": ["BLOCKS"],
        "words": ["is_simulated", "written"],
    },
)
