"""The command line: every command calls one function of the package and prints its result."""

from __future__ import annotations

import contextlib
from pathlib import Path
from typing import Any

import click

import workbench as wb

from . import cli_stars
from .terminal import Commands, InputProblem, PositiveNumber, quiet_options

_PATH = click.Path(path_type=Path)
_POSITIVE = PositiveNumber(min=0, min_open=True)


@click.group(cls=Commands, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.version_option(wb.__version__, prog_name="workbench")
def main() -> None:
    """Measure your camera's sensor from RAW frames, with an honest error bar on every number.

    \b
    Try it without a camera; this simulates sample frames, measures them and draws the charts:
        workbench charts --out charts

    \b
    Then with your own frames:
        workbench frames FOLDER                      what is in the folder
        workbench inspect FOLDER                     is my raw file raw?
        workbench characterize FOLDER --out results  black level, read noise, gain, dark current
        workbench report FOLDER --out report.html    the same and more on one page, for a forum or a printer
        workbench dark-library FOLDER --out FILE     predicts a master dark for any exposure, temperature
        workbench charts --frames FOLDER --out charts
        workbench lights FOLDER                      how good each light is
        workbench watch FOLDER --out live            a stack that grows while the camera exposes
        workbench stack FOLDER --out stack.fits      calibrates, aligns and stacks the lights
        workbench finish stack.fits --out night.png  background, colour, stretch
        workbench solve stack.fits                   where on the sky it is, without a network
        workbench photometry stack.fits              how bright its stars are
        workbench lightcurve FOLDER --star X,Y --out curve.csv   how a star varies over the night
        workbench plan FOLDER                        what to shoot next, how long the subs
        workbench app FOLDER                         from the frames to the picture, in a browser
        workbench compile                            compiles the loops now, so that no command waits later

    A FOLDER holds camera RAW, DNG, FITS or PGM files, sorted into subfolders named bias, dark, flat,
    light (at any depth), or described by a table frames.csv. Frames are only read, never changed.
    """


@main.work("what is in a folder of frames")
@click.argument("folder", type=_PATH)
def frames(folder: Path) -> None:
    """Show what is in FOLDER: how many frames of each kind, at which ISO, exposure and temperature.

    The kind of a frame comes from the manifest frames.csv, else from the file's header, else from
    the name of its folder. Files that cannot be used are listed with the reason; nothing is written.
    """
    click.echo(repr(wb.open_folder(folder)))


@main.work("is my raw file raw?")
@click.argument("frames", nargs=-1, required=True, type=_PATH)
@click.option("--out", type=_PATH, help="Folder for fidelity.json and the charts; created if it does not exist.")
@quiet_options
def inspect(frames: tuple[Path, ...], out: Path | None, quiet: bool) -> None:
    """Is my raw file raw? Find out what the camera did to its numbers before it saved FRAMES.

    FRAMES is a folder or some files of one camera, of any kind: a single light answers some of eight
    questions; bias frames, pairs of flats and a long dark answer all. Each answer comes with a number
    and what it means for your measurements.
    """
    if out is not None:
        wb.core.files.check_folder(out, names=["fidelity.json"])
    result = wb.inspect(frames[0] if len(frames) == 1 else frames, progress=not quiet)
    click.echo(repr(result))
    if out is not None:
        wb.pipelines.write_inspection(result, out)
        wb.export.write_charts(result, out, only=result.charts(), progress=not quiet)
        click.echo(f"\nwritten: {out / 'fidelity.json'} and charts")


@main.work("what to shoot next, how long the subs")
@click.argument("folder", type=_PATH)
@click.option("--sensor", type=_PATH, help="A sensor.json; without it the frames in FOLDER are measured first.")
@click.option("--penalty", type=_POSITIVE, default=5.0, show_default=True, help="Noise that reading out may add [%].")
@click.option("--longest", type=_POSITIVE, help="Longest sub [s], instead of the limit found from the lights.")
@click.option(
    "--elongation", type=click.FloatRange(min=1, min_open=True), default=1.15, show_default=True,
    help="Longest over shortest axis of a good star.",
)  # fmt: skip
@click.option(
    "--snr", type=_POSITIVE, default=10.0, show_default=True, help="Signal-to-noise ratio of a pixel, for the hours."
)
@click.option(
    "--target", type=_POSITIVE, default=10.0, show_default=True, help="The target's brightness [% of the sky's]."
)
@click.option("--pixels", type=_POSITIVE, default=1.0, show_default=True, help="Of the stack, averaged, for the hours.")
@click.option("--out", type=_PATH, help="Folder for the shot list (CSV) and the charts.")
@quiet_options
def plan(
    folder: Path, sensor: Path | None, penalty: float, target: float, out: Path | None, quiet: bool, **options: Any
) -> None:
    """What to shoot next: frames that are missing in FOLDER, and ISO and length of the subs.

    The shot list is what a full characterisation of this camera lacks. ISO and sub length follow from
    the measured read noise and dark current, from the sky in a light frame, and from how elongated the
    stars of the lights are (lights of several exposures show how well the mount tracks).
    """
    if out is not None:
        wb.core.files.check_folder(out, names=["shots.csv"])
    result = wb.plan_night(folder, sensor, penalty=penalty / 100, target=target / 100, progress=not quiet, **options)
    click.echo(repr(result))
    if out is not None:
        wb.pipelines.write_shots(result, out)
        drawn = result.charts()
        if drawn:
            wb.export.write_charts(result, out, only=drawn, progress=not quiet)
        click.echo(f"\nwritten: {out / 'shots.csv'}{' and charts' if drawn else ''}")


@main.work("measure the sensor: sensor.json")
@click.argument("folder", type=_PATH)
@click.option("--out", type=_PATH, required=True, help="Folder for sensor.json; created if it does not exist.")
@quiet_options
def characterize(folder: Path, out: Path, quiet: bool) -> None:
    """Measure the sensor from the frames in FOLDER and write OUT/sensor.json.

    Two bias frames at an ISO give black level and read noise; two equal flats at several light
    levels give the gain; darks of several lengths and temperatures give the dark current and its
    law. What cannot be measured from these frames is left out, and a warning says what to shoot.
    """
    result = wb.characterize(folder, out=out, progress=not quiet)
    click.echo(repr(result))
    click.echo(f"\nwritten: {out / 'sensor.json'}")


@main.work("measure the sensor: one page")
@click.argument("folder", type=_PATH)
@click.option("--out", type=_PATH, required=True, help="The HTML file to write, e.g. report.html.")
@click.option("--stack", type=_PATH, help="A solved stack: zero point, limiting magnitude and sky join the numbers.")
@quiet_options
def report(folder: Path, out: Path, stack: Path | None, quiet: bool) -> None:
    """Measure the sensor from the frames in FOLDER and write all results as one page, for a forum or a printer.

    The page works without a network and stays under 3 MB. It contains every number with its error,
    every figure with its data, and sensor.json. What cannot be measured from these frames is named,
    with what to shoot.
    """
    wb.core.files.check_target(out, "HTML file")
    frames = wb.open_folder(folder, progress=not quiet)
    wb.core.files.check_target(out, "HTML file", frames=frames.paths)
    path = wb.export.write_report(wb.characterize(frames, progress=not quiet), out, stack=stack, progress=not quiet)
    click.echo(f"written: {path} ({path.stat().st_size / 1e6:.1f} MB)")


@main.work("measure the sensor: the blog's charts")
@click.option("--frames", "folder", type=_PATH, help="Your folder of frames. Without it: simulated sample frames.")
@click.option("--out", type=_PATH, required=True, help="Folder for the charts; created if it does not exist.")
@click.option("--only", multiple=True, metavar="CHART", help="Draw this chart only, e.g. iso-to-gain; may be repeated.")
@quiet_options
def charts(folder: Path | None, out: Path, only: tuple[str, ...], quiet: bool) -> None:
    """Draw the blog's charts into OUT: each as PNG, SVG, a web page that works offline, and CSV.

    Without --frames the charts are drawn from simulated sample frames, which the first run makes
    (two or three minutes in all) and keeps. Start with OUT/index.html. Also writes OUT/sensor.json.
    """
    wanted = wb.charts.registry.select(only)  # a misspelt name should not cost a minute
    wb.core.files.check_folder(out, names=["sensor.json", "index.html"])
    frames = wb.open_folder(folder or wb.sample_folder(progress=not quiet), progress=not quiet)
    needs = {need for chart in wanted for need in chart.needs}
    with wb.core.parallel.in_background(process=True) as start:
        result = wb.pipelines.characterize_with_lights(frames, needs, out=out, progress=not quiet, start=start)
        if folder is None and "dark_subtraction" in needs:
            wb.pipelines.show_warm_samples(result)
        written = wb.export.write_charts(result, out, only=only, progress=not quiet, start=None if only else start)
    click.echo(f"{result!r}\n")
    for name, reason in written.not_drawn.items():
        click.echo(f"not drawn: {name}: {reason}")
    count = len(written.files)
    click.echo(f"written: {count} {'chart' if count == 1 else 'charts'} and sensor.json in {out}/")
    if not only:
        click.echo(f"open:    {out / 'index.html'}")


@main.work("fit all darks together", "dark-library")
@click.argument("folder", type=_PATH)
@click.option("--out", type=_PATH, required=True, help="The FITS file to write, or a folder for dark-library.fits.")
@click.option("--iso", type=float, help="The ISO of the darks; by default the one with the most darks.")
@quiet_options
def dark_library(folder: Path, out: Path, iso: float | None, quiet: bool) -> None:
    """Fit all darks in FOLDER together, to predict a master dark for any exposure and temperature.

    Darks of several exposures and temperatures (and bias frames) give each pixel's offset and dark
    current, and one law of the temperature. `workbench predict-dark` then makes a master dark for the
    exposure and temperature of the lights, with its variance.
    """
    result = wb.pipelines.make_dark_library(folder, out, iso=iso, progress=not quiet)
    click.echo(repr(result))
    click.echo(f"written: {result.path}")


@main.work("a master dark from a dark library", "predict-dark")
@click.argument("library", type=_PATH)
@click.option("--exposure", type=float, required=True, help="Of the lights [s].")
@click.option("--temperature", type=float, help="Of their sensor [°C].")
@click.option("--out", type=_PATH, required=True, help="The master dark to write, a FITS file.")
def predict_dark(library: Path, exposure: float, temperature: float | None, out: Path) -> None:
    """Predict a master dark from a dark LIBRARY, with its variance, for any exposure and temperature."""
    celsius = float("nan") if temperature is None else temperature
    master = wb.pipelines.predict_master_dark(library, out, exposure=exposure, temperature=celsius)
    for warning in master.attrs["warnings"]:
        click.echo(f"warning: {warning}", err=True)
    click.echo(f"written: {out} ({exposure:g} s at {master.attrs['temperature']:g} °C)")


def _weights(context: click.Context, parameter: click.Parameter, text: str | None) -> dict[str, float]:
    """Read weights by filter."""
    parts = [part.partition("=") for part in (text or "").split(",") if part]
    try:
        return {name.strip(): float(weight) for name, _, weight in parts}
    except ValueError:
        raise InputProblem(f"--weights {text} are not numbers by filter; write Ha=0.7,OIII=1.3") from None


@main.work("a picture from a stack, or from one for each filter")
@click.argument("stack", nargs=-1, required=True, metavar="STACK...")
@click.option(
    "--out", type=_PATH, required=True, help="The picture: .png or .tif (16 bits), .jpg, .fits or .xisf (floats)."
)
@click.option("--palette", default="auto", show_default=True,
              help="Of several stacks: RGB, LRGB, SHO, HOO, other letters of filters (H is Ha), or sums:"
              " R=0.8*SII+0.2*Ha,G=Ha,B=OIII. auto takes the first that the filters allow.")  # fmt: skip
@click.option("--weights", callback=_weights, metavar="Ha=0.7,...", help="Brightness of a filter, stars being equal at"
              " 1; of L its share of the luminance, 0 to 1 (default: least noise).")  # fmt: skip
@click.option("--settings", type=_PATH, help="Settings (JSON) of an earlier finish, to be used again.")
@click.option("--save-settings", type=_PATH, help="File for the settings that were used.")
@click.option("--linear", type=_PATH, help="File for the linear picture before the stretch.")
@click.option(
    "--names", type=_PATH, help="A PNG for a copy with objects, bright stars, grid, scale and north drawn in."
)
@click.option("--background", help="polynomial (default), rbf, mesh or none.")
@click.option("--balance", help="White balance: auto (default), catalogue, stars, daylight or none.")
@click.option("--stretch", help="asinh (default, keeps colours), autostretch, ghs or linear.")
@click.option("--strength", type=float, help="Of the stretch; 1 (default) is automatic.")
@click.option("--denoise", type=float, help="From 0 (default, off) to 1; weighted by the stack's own variance.")
@quiet_options
def finish(
    stack: tuple[str, ...], out: Path, quiet: bool, palette: str, weights: dict[str, float], **options: Any
) -> None:
    """Make a picture of the linear STACK (.fits, .xisf, .tif): crop, background, colour, stretch.

    Mono stacks through several filters, on one pixel grid as `workbench stack` makes them, are
    composed first: night_L.fits night_R.fits night_G.fits night_B.fits. Where a header states no
    filter, name it: Ha=a.fits OIII=b.fits.

    Star fluxes are checked after every linear step. The picture contains its history and settings;
    the same stack and settings give the same bytes.
    """
    files = {"linear_out": options.pop("linear"), "settings_out": options.pop("save_settings")}
    names = options.pop("names")
    if names is not None:
        wb.core.files.check_target(names, "picture", inputs=stack)
    settings = wb.pipelines.settings_from(**options)
    named = [one.partition("=") for one in stack if "=" in one and not Path(one).exists()]
    stacks = {name: path for name, _, path in named} if len(named) == len(stack) else list(stack)
    mixed: dict[str, Any] = {"palette": palette, "weights": weights}
    done = wb.finish_stack(stacks, out, settings, **mixed, **files, progress=not quiet)
    click.echo("\n".join(done.picture.attrs["history"]))
    for warning in done.warnings:
        click.echo(f"warning: {warning}", err=True)
    click.echo(f"written: {out}")
    if names is not None:
        click.echo(f"written: {wb.export.write_names(done.picture, names)}")


@main.work("how good each light is")
@click.argument("folder", type=_PATH)
@click.option("--sensor", type=_PATH, help="sensor.json of `workbench characterize`: measured gain and read noise.")
@click.option("--out", type=_PATH, help="A CSV file for the table.")
@quiet_options
def lights(folder: Path, sensor: Path | None, out: Path | None, quiet: bool) -> None:
    """Measure each light in FOLDER as `workbench stack` does, whose --exclude, --keep and limits choose among them."""
    result = wb.pipelines.grade_lights(folder, sensor=sensor, out=out, progress=not quiet)
    click.echo(result.frames.to_string(index=False, na_rep="", float_format="{:.4g}".format))
    click.echo("".join(f"warning: {text}\n" for text in result.warnings), err=True, nl=False)


@main.work("calibrate, align and stack the lights")
@click.argument("folder", type=_PATH)
@click.option("--out", type=_PATH, required=True, help="The FITS file to write, e.g. stack.fits.")
@click.option("--reference", help="Path or name of the light that the others are aligned to; by default the best.")
@click.option("--framing", default="reference", show_default=True, help="What the stack shows: reference (the field"
              " of that light), all (the fields of all lights) or common (what all of them show).")  # fmt: skip
@click.option("--filter", multiple=True, metavar="NAME",
              help="Stack only the lights of this filter, e.g. Ha; may be repeated.")  # fmt: skip
@click.option("--exclude", multiple=True, metavar="NAME",
              help="Leave out a light by name, path or pattern, e.g. 'light_00*'; may be repeated.")  # fmt: skip
@click.option("--keep", type=float, metavar="BEST%",
              help="Keep so many % of the good lights, the best by stars, FWHM, roundness and noise.")  # fmt: skip
@click.option("--max-fwhm", type=float, help="Leave out lights whose stars are wider [px].")
@click.option("--min-roundness", type=float, help="Leave out lights whose stars are less round (1: round, 0: lines).")
@click.option("--max-background", type=float, help="Leave out lights with a brighter sky [e⁻; ADU without a gain].")
@click.option("--min-stars", type=float, help="Leave out lights with fewer stars.")
@click.option("--sensor", type=_PATH, help="sensor.json of `workbench characterize`: measured gain and read noise.")
@click.option("--masters", type=_PATH, help="A folder where master frames are kept and used again.")
@click.option("--reject", "method", default="noise", show_default=True, help="noise (the measured noise model), sigma,"
              " winsorized, linear-fit, esd, mad, percentile, mean or median.")  # fmt: skip
@click.option("--low", type=float, help="Lower threshold of the rejection.")
@click.option("--high", type=float, help="Upper threshold of the rejection.")
@click.option("--transform", default="auto", show_default=True,
              help="auto, shift, similarity, affine, homography, quadratic or cubic.")  # fmt: skip
@click.option("--scale", type=float, help="Drizzle onto pixels so many times finer: 1, 1.5, 2 or 3.")
@click.option("--pixfrac", type=float, help="Side of a drizzled sample in pixels; 0.8 by default.")
@click.option("--scale-darks", is_flag=True, help="Scale the darks by the factor that the lights' hot pixels ask for.")
@click.option("--comet", multiple=True, metavar="WAY", help="Stack on a comet too: auto, X,Y@LIGHT twice or FILE.csv.")
@click.option("--scratch", type=_PATH, help="Folder for temporary files; next to the output by default.")
@click.option("--site", is_flag=True, help="Keep in the header where the telescope stood (SITELAT, SITELONG).")
@click.option("--scheduler", metavar="ADDRESS", help="A dask scheduler whose workers do the work.")
@click.option("--dry-run", is_flag=True, help="Only show which frames would be used for what, how long, how much disk.")
@quiet_options
def stack(folder: Path, out: Path, quiet: bool, **options: Any) -> None:
    """Calibrate, align and stack the lights in FOLDER into one linear FITS file with its variance.

    FOLDER holds lights with their bias, darks and flats in subfolders of these names. Frames that
    do not belong, such as those with doubled stars, are set aside and listed with the reason. Lights
    of several filters give a stack each, night_L.fits, night_R.fits, ... for --out night.fits, all on
    one pixel grid. If it is interrupted, the same command continues where it was.
    """
    click.echo(repr(wb.stack_folder(folder, out, progress=not quiet, **options)))


for summary, command in cli_stars.COMMANDS.items():
    main.work(summary)(command)


@main.work("a stack that grows with each new light")
@click.argument("folder", type=_PATH)
@click.option("--out", type=_PATH, required=True, help="Folder for live.png and lights.csv; not within FOLDER.")
@click.option("--idle", type=_POSITIVE, metavar="MINUTES", help="End when no light has come for so long.")
@click.option("--reference", help="Path or name of the light that the others are aligned to; by default the best.")
@click.option("--filter", metavar="NAME", help="Add only the lights of this filter, e.g. Ha.")
@click.option("--max-fwhm", type=float, help="Do not add lights whose stars are wider [px].")
@click.option("--min-stars", type=float, help="Do not add lights with fewer stars.")
@click.option("--sensor", type=_PATH, help="sensor.json of `workbench characterize`: measured gain and read noise.")
@quiet_options
def watch(folder: Path, out: Path, idle: float | None, quiet: bool, filter: str | None, **options: Any) -> None:  # noqa: A002 - the option's name
    """Add each light that arrives in FOLDER to a stack, while the camera exposes the next one.

    Each light is calibrated, checked, aligned and added; OUT/live.png shows the stack so far, and
    OUT/lights.csv has a row for each light. It begins with the third light. Ctrl-C ends it, and the
    same command goes on. For the final stack: workbench stack FOLDER --masters OUT/masters.
    """
    lights = wb.pipelines.watch_folder(
        folder, out, idle=None if idle is None else 60 * idle, filter=filter or (), **options
    )
    with contextlib.closing(lights):
        for light in lights:
            click.echo(str(light))


@main.work("compile the loops for this machine, once")
def compile() -> None:  # noqa: A001 - the command's name
    """Compile the numerical loops for this machine now, so that no later command waits for it."""
    wb.pipelines.compile_loops()


@main.work("from the frames to the picture, in a browser")
@click.argument("folder", type=_PATH, required=False)
@click.option("--results", type=_PATH, help="Folder for the results; FOLDER-results, next to FOLDER, by default.")
@click.option("--port", default=5007, show_default=True, help="If it is taken, the next free one.")
@click.option("--address", default="127.0.0.1", show_default=True,
              help="Where to listen. 0.0.0.0 lets every machine that reaches this one use the app, read the"
              " folders that you can read, and write where you can write.")  # fmt: skip
@click.option("--no-browser", is_flag=True, help="Only print the address; do not open a browser.")
def app(folder: Path | None, results: Path | None, port: int, address: str, no_browser: bool) -> None:
    """Open the workbench in a browser: a folder in; measurement, charts, stack and picture out.

    Choose FOLDER on the page or name it here. Look at its frames at full size, measure the sensor,
    explore the charts, calibrate and stack the lights, finish the picture. Long work shows its
    progress and can be cancelled; it continues when the page is closed, and is shown again when it is
    opened. Every step names the command that does the same in a terminal.

    The app is served by this machine for this machine alone and needs no network. Ctrl-C ends it.
    """
    wb.app.serve(
        "" if folder is None else str(folder), "" if results is None else str(results),
        address=address, port=port, show=not no_browser,
        report=lambda where: click.echo(f"The app is at {where} (Ctrl-C ends it)"),
    )  # fmt: skip


if __name__ == "__main__":
    main()
