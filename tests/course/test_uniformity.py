"""The spread of a mean of bias frames, and the table of EMVA 1288."""

import course
import holoviews as hv

from workbench.pixels import stack_cube


def test_controls_move_what_is_drawn(frames, result):
    bias = frames.bias.isel(frame=frames.bias.iso == 200)
    stack = stack_cube(bias, progress=False)
    hv.render(course.spread_of_mean(stack, 8), backend="matplotlib")
    table = course.emva_table(result.uniformity)
    assert {"K [DN/e⁻]", "DSNU1288 [e⁻]", "PRNU1288, high-passed [%]"} <= set(table.index)
    assert "nan" not in table.to_string()
