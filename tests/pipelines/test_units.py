"""Every unit that a measurement carries is one of astropy's, and reads as before."""

import dataclasses

import xarray as xr
from astropy import units

from workbench import open_stack, stack_folder


def datasets(value):
    """Yield the Datasets and DataArrays of a result, of dataclasses and named tuples within it."""
    if isinstance(value, (xr.Dataset, xr.DataArray)):
        yield value
    elif dataclasses.is_dataclass(value):
        for field in dataclasses.fields(value):
            yield from datasets(getattr(value, field.name))
    elif isinstance(value, tuple) and hasattr(value, "_fields"):
        for item in value:
            yield from datasets(item)


def unknown(data):
    """Return the units of a Dataset that astropy does not know."""
    variables = data.variables.values() if isinstance(data, xr.Dataset) else [data.variable, *data.coords.values()]
    found = []
    for about in (data.attrs, *(variable.attrs for variable in variables)):
        try:
            units.Unit(about.get("units", ""))
        except ValueError:
            found.append(about["units"])
    return found


def test_the_units_of_a_measured_sensor_parse(result):
    results = list(datasets(result))
    assert len(results) > 15
    assert not {text for data in results for text in unknown(data)}


def test_the_units_of_a_stack_parse(small_samples, tmp_path):
    stack_folder(small_samples, tmp_path / "stack.fits", progress=False)
    assert not unknown(open_stack(tmp_path / "stack.fits"))
