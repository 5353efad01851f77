"""Commands about stars: where on the sky they are, how bright, how one varies; `cli` registers them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

import workbench as wb

from .terminal import PositiveNumber, quiet_options

_PATH = click.Path(path_type=Path)
_POSITIVE = PositiveNumber(min=0, min_open=True)


@click.argument("file", type=_PATH)
@click.option("--target", help="An object near the middle, e.g. 'M 94'; by default the header's RA and DEC, or OBJECT.")
@click.option("--ra", help="Of the middle: degrees, or 12h50m53s.")
@click.option("--dec", help="Of the middle: degrees, or +41d07m14s.")
@click.option("--focal-length", type=float, help="[mm]; by default as the header or EXIF says.")
@click.option("--pixel-size", type=float, help="[µm]; by default as the header or EXIF says.")
@click.option("--scale", type=float, help="Instead of both: arcseconds a pixel.")
@click.option("--reach", type=float, help="How far off the middle may be [degrees]; by default 1, or half the field.")
@click.option("--out", type=_PATH, help="A FITS file for the solution's header.")
def solve(file: Path, **options: Any) -> None:
    """Match the stars of FILE (a frame, a stack, a linear picture) to a star catalogue, without a network.

    Prints centre, scale, direction of north, residuals, and how many false solutions as good chance
    would show; above one in a million it is refused. Fields of more than 8 degrees need no
    hint of where they are.
    """
    click.echo(repr(wb.solve(file, **options)))


@click.argument("stack", type=_PATH)
@click.option("--out", type=_PATH, help="A CSV file for the table of stars.")
def photometry(stack: Path, out: Path | None) -> None:
    """Measure the stars of the linear STACK: fluxes in apertures and by its point spread function, with errors.

    Errors come from the stack's own variance. Saturated stars are not measured; those at the edge and
    those with neighbours in the aperture are flagged. A solved stack gives RA, Dec and magnitudes too.
    """
    table = wb.photometry(stack, out)
    click.echo(wb.pipelines.photometry_text(table))
    if out is not None:
        click.echo(f"written: {out}")


@click.argument("folder", type=_PATH)
@click.option("--star", required=True, metavar="X,Y|RA,DEC", help="Its place [px] on the reference light, which is the"
              " stack's grid; or 12h50m53s,+41d07m14s, or degrees: 192.72d,+41.12d.")  # fmt: skip
@click.option("--out", type=_PATH, required=True, help="The CSV file to write; its chart is written next to it as PNG.")
@click.option("--channel", help="R, G or B of a mosaic; G by default.")
@click.option("--aperture", type=_POSITIVE, default=2.5, show_default=True, help="Its radius [FWHM].")
@click.option("--reference", help="Path or name of the light that the place is on; by default the best.")
@click.option("--filter", metavar="NAME", help="Use only the lights of this filter, e.g. V.")
@click.option("--exclude", multiple=True, metavar="NAME", help="Leave out a light by name, path or pattern.")
@click.option("--sensor", type=_PATH, help="sensor.json of `workbench characterize`: measured gain and read noise.")
@click.option("--target", help="Of RA,DEC: an object near the middle of the field, e.g. 'M 94'.")
@click.option("--focal-length", type=_POSITIVE, help="Of RA,DEC [mm]; by default as the header or EXIF says.")
@click.option("--pixel-size", type=_POSITIVE, help="Of RA,DEC [µm]; by default as the header or EXIF says.")
@quiet_options
def lightcurve(folder: Path, star: str, out: Path, quiet: bool, filter: str | None, **options: Any) -> None:  # noqa: A002 - the option's name
    """Measure how a star's brightness changes over the lights in FOLDER, compared with stars around it.

    Each light is calibrated and measured as it is, not resampled: of a mosaic the samples of one
    colour, without demosaicing. Errors come from the measured noise; what the comparison stars
    scatter beyond it (scintillation, passing clouds) is measured and added.
    """
    chart = out.with_suffix(".png")
    wb.core.files.check_target(chart, "chart")
    curve = wb.light_curve(folder, star, out, filter=filter or (), progress=not quiet, **options)
    click.echo(wb.pipelines.light_curve_text(curve))
    wb.export.write_light_curve(curve, chart)
    click.echo(f"written: {out} and {chart}")


COMMANDS: dict[str, Any] = {
    "where on the sky a frame or stack is": solve,
    "how bright the stars of a stack are": photometry,
    "the light curve of a star over a night": lightcurve,
}
