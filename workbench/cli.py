"""The command line: what is in a folder of frames, what the sensor does, the blog's charts."""

from __future__ import annotations

import functools
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import click

from . import __version__
from .core.errors import WorkbenchError
from .core.files import check_folder, check_target

Command = TypeVar("Command", bound=Callable[..., Any])
_FOLDER = click.Path(path_type=Path)
_POSITIVE = click.FloatRange(min=0, min_open=True)
_INTERRUPTED = 130  # the exit code of what Ctrl-C has ended: 128 and the number of the signal


class _InputProblem(click.ClickException):
    """A mistake in the input: one line on stderr, exit code 2, no traceback."""

    exit_code = 2

    def show(self, file: Any = None) -> None:
        click.echo(f"workbench: {' '.join(self.message.split())}", err=True)


def _says_what_is_wrong(command: Command) -> Command:
    """Turn a `WorkbenchError` into its message; anything unexpected keeps its traceback."""

    @functools.wraps(command)
    def run(*args: Any, **kwargs: Any) -> Any:
        try:
            return command(*args, **kwargs)
        except WorkbenchError as error:
            problem = _InputProblem(str(error))
            if isinstance(error.__context__, KeyboardInterrupt):  # it says how to go on
                problem.exit_code = _INTERRUPTED
            raise problem from error

    return run  # type: ignore[return-value]


class _Commands(click.Group):
    """Commands that Ctrl-C ends with one line and the exit code that shells know."""

    def invoke(self, ctx: click.Context) -> Any:
        try:
            return super().invoke(ctx)
        except KeyboardInterrupt:
            click.echo("workbench: stopped; no half-written file is left", err=True)
            ctx.exit(_INTERRUPTED)


@click.group(cls=_Commands, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.version_option(__version__, prog_name="workbench")
def main() -> None:
    """Measure your camera's sensor from RAW frames, with an honest error bar on every number.

    \b
    Try it without a camera; this simulates sample frames, measures them and draws the charts:
        workbench charts --out charts

    \b
    Then with your own frames:
        workbench frames FOLDER                      what is there, as the workbench sees it
        workbench inspect FOLDER                     is my raw file raw?
        workbench characterize FOLDER --out results  black level, read noise, gain, dark current
        workbench report FOLDER --out report.html    the same and more on one page, for a forum or a printer
        workbench dark-library FOLDER --out FILE     predicts a master dark for any exposure, temperature
        workbench charts --frames FOLDER --out charts
        workbench stack FOLDER --out stack.fits      calibrates, aligns and stacks the lights
        workbench finish stack.fits --out night.png  background, colour, stretch
        workbench plan FOLDER                        what to shoot next, how long the subs
        workbench app FOLDER                         all of it and the way to the picture, in a browser

    A FOLDER holds camera RAW, DNG, FITS or PGM files, sorted into subfolders named bias, dark, flat,
    light (at any depth), or described by a table frames.csv. Frames are only read, never changed.
    """


@main.command(short_help="what is in a folder of frames")
@click.argument("folder", type=_FOLDER)
@_says_what_is_wrong
def frames(folder: Path) -> None:
    """Show what is in FOLDER: how many frames of each kind, at which ISO, exposure and temperature.

    The kind of a frame comes from the manifest frames.csv, else from the file's header, else from
    the name of its folder. Files that cannot be used are listed with the reason; nothing is written.
    """
    from .ingest.catalogue import open_folder

    click.echo(repr(open_folder(folder)))


@main.command(short_help="is my raw file raw?")
@click.argument("frames", nargs=-1, required=True, type=_FOLDER)
@click.option("--out", type=_FOLDER, help="Folder for fidelity.json and the charts; made where it does not exist.")
@click.option("--quiet", is_flag=True, help="No progress bars.")
@_says_what_is_wrong
def inspect(frames: tuple[Path, ...], out: Path | None, quiet: bool) -> None:
    """Is my raw file raw? Say what the camera did to its numbers before it saved FRAMES.

    FRAMES is a folder or some files of one camera, of any kind: a single light shows something, bias
    frames, pairs of flats and a long dark show all. Each of eight questions gets an answer, a number,
    and what it means for your measurements.
    """
    from .pipelines.inspection import inspect as run
    from .pipelines.inspection import write_inspection

    if out is not None:
        check_folder(out)
    result = run(frames[0] if len(frames) == 1 else frames, progress=not quiet)
    click.echo(repr(result))
    if out is not None:
        from .export.write import write_charts

        write_inspection(result, out)
        write_charts(result, out, only=result.charts(), progress=not quiet)
        click.echo(f"\nwritten: {out / 'fidelity.json'} and charts")


@main.command(short_help="what to shoot next, how long the subs")
@click.argument("folder", type=_FOLDER)
@click.option("--sensor", type=_FOLDER, help="A sensor.json; without it the frames in FOLDER are measured first.")
@click.option("--penalty", type=_POSITIVE, default=5.0, show_default=True, help="Noise that reading out may add [%].")
@click.option("--longest", type=_POSITIVE, help="Longest sub [s], instead of what the lights say of the mount.")
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
@click.option("--out", type=_FOLDER, help="Folder for the shot list (CSV) and the charts.")
@click.option("--quiet", is_flag=True, help="No progress bars.")
@_says_what_is_wrong
def plan(
    folder: Path, sensor: Path | None, penalty: float, target: float, out: Path | None, quiet: bool, **options: Any
) -> None:
    """What to shoot next: frames that are missing in FOLDER, and ISO and length of the subs.

    The shot list is what a full characterisation of this camera lacks. ISO and sub length follow from
    the measured read noise and dark current, from the sky in a light frame, and from how far the stars
    of the lights are drawn out (lights of several exposures tell how long the mount can hold).
    """
    from .pipelines.planning import plan_night as run

    if out is not None:
        check_folder(out)
    result = run(
        folder,
        sensor,
        penalty=penalty / 100,
        target=target / 100,
        progress=not quiet,
        **options,
    )
    click.echo(repr(result))
    if out is not None:
        from .export.write import write_charts
        from .pipelines.planning import write_shots

        write_shots(result, out)
        drawn = result.charts()
        if drawn:
            write_charts(result, out, only=drawn, progress=not quiet)
        click.echo(f"\nwritten: {out / 'shots.csv'}{' and charts' if drawn else ''}")


@main.command(short_help="measure the sensor: sensor.json")
@click.argument("folder", type=_FOLDER)
@click.option("--out", type=_FOLDER, required=True, help="Folder for sensor.json; made where it does not exist.")
@click.option("--quiet", is_flag=True, help="No progress bars.")
@_says_what_is_wrong
def characterize(folder: Path, out: Path, quiet: bool) -> None:
    """Measure the sensor from the frames in FOLDER and write OUT/sensor.json.

    Two bias frames at an ISO give black level and read noise; two equal flats at several light
    levels give the gain; darks of several lengths and temperatures give the dark current and its
    law. What these frames cannot give is left out, and a warning says what to shoot.
    """
    from .pipelines.characterization import characterize as run

    result = run(folder, out=out, progress=not quiet)
    click.echo(repr(result))
    click.echo(f"\nwritten: {out / 'sensor.json'}")


@main.command(short_help="measure the sensor: one page")
@click.argument("folder", type=_FOLDER)
@click.option("--out", type=_FOLDER, required=True, help="The HTML file to write, e.g. report.html.")
@click.option("--quiet", is_flag=True, help="No progress bars.")
@_says_what_is_wrong
def report(folder: Path, out: Path, quiet: bool) -> None:
    """Measure the sensor from the frames in FOLDER and write all of it as one page, for a forum or a printer.

    The page works without a network and stays under 3 MB: every number with its error, every figure
    with the data behind it, and sensor.json, are inside. What these frames do not give is named,
    with what to shoot.
    """
    from .export.report import write_report
    from .pipelines.characterization import characterize as run

    check_target(out, "HTML file")
    result = run(folder, progress=not quiet)
    path = write_report(result, out, progress=not quiet)
    click.echo(f"written: {path} ({path.stat().st_size / 1e6:.1f} MB)")


@main.command(short_help="measure the sensor: the blog's charts")
@click.option("--frames", "folder", type=_FOLDER, help="Your folder of frames. Without it: simulated sample frames.")
@click.option("--out", type=_FOLDER, required=True, help="Folder for the charts; made where it does not exist.")
@click.option("--only", multiple=True, metavar="CHART", help="Draw this chart only, e.g. iso-to-gain; may be repeated.")
@click.option("--quiet", is_flag=True, help="No progress bars.")
@_says_what_is_wrong
def charts(folder: Path | None, out: Path, only: tuple[str, ...], quiet: bool) -> None:
    """Draw the blog's charts into OUT: each as PNG, SVG, a web page that works offline, and CSV.

    Without --frames the charts are drawn from simulated sample frames, which the first run makes
    (two or three minutes in all) and keeps. Start with OUT/index.html. Also writes OUT/sensor.json.
    """
    from .charts.registry import select
    from .export.write import write_charts
    from .ingest.catalogue import open_folder
    from .pipelines.characterization import characterize as run
    from .pipelines.lights import examined_beside
    from .pipelines.transfer import measure_pixel_noise
    from .simulate.samples import sample_folder

    wanted = select(only)  # a misspelt name should not cost a minute
    check_folder(out)
    frames = open_folder(folder if folder is not None else sample_folder(progress=not quiet), progress=not quiet)
    looked = frames.has("light") and any(need.startswith("lights.") for chart in wanted for need in chart.needs)
    with examined_beside(frames if looked else None) as lights:
        result = run(frames, out=out, progress=not quiet)
        if any("pixel_noise" in chart.needs for chart in wanted):
            result.pixel_noise = measure_pixel_noise(frames, progress=not quiet)
        result.lights = lights()
    if result.lights is not None:
        result.warnings += [f"lights: {text}" for text in result.lights.warnings]
    written = write_charts(result, out, only=only, progress=not quiet)
    click.echo(repr(result))
    click.echo("")
    for name, why in written.not_drawn.items():
        click.echo(f"not drawn: {name}: {why}")
    count = len(written.files)
    click.echo(f"written: {count} {'chart' if count == 1 else 'charts'} and sensor.json in {out}/")
    if not only:
        click.echo(f"open:    {out / 'index.html'}")


@main.command("dark-library", short_help="fit all darks together")
@click.argument("folder", type=_FOLDER)
@click.option("--out", type=_FOLDER, required=True, help="The FITS file to write, or a folder for dark-library.fits.")
@click.option("--iso", type=float, help="Of this ISO; without it that with the most darks.")
@click.option("--quiet", is_flag=True, help="No progress bars.")
@_says_what_is_wrong
def dark_library(folder: Path, out: Path, iso: float | None, quiet: bool) -> None:
    """Fit all darks in FOLDER together and keep what predicts a master dark for any other.

    Darks of several exposures and temperatures (and bias frames) give each pixel's offset and dark
    current, and one law of the temperature. `workbench predict-dark` then makes a master dark for the
    exposure and temperature of the lights, with its variance.
    """
    from .pipelines.dark_libraries import make_dark_library

    result = make_dark_library(folder, out, iso=iso, progress=not quiet)
    click.echo(repr(result))
    click.echo(f"written: {result.path}")


@main.command("predict-dark", short_help="a master dark from a dark library")
@click.argument("library", type=_FOLDER)
@click.option("--exposure", type=float, required=True, help="Of the lights [s].")
@click.option("--temperature", type=float, help="Of their sensor [°C].")
@click.option("--out", type=_FOLDER, required=True, help="The master dark to write, a FITS file.")
@_says_what_is_wrong
def predict_dark(library: Path, exposure: float, temperature: float | None, out: Path) -> None:
    """Predict a master dark from a dark LIBRARY, with its variance, for any exposure and temperature."""
    from .pipelines.dark_libraries import predict_master_dark

    warm = float("nan") if temperature is None else temperature
    master = predict_master_dark(library, out, exposure=exposure, temperature=warm)
    for warning in master.attrs["warnings"]:
        click.echo(f"warning: {warning}", err=True)
    click.echo(f"written: {out} ({exposure:g} s at {master.attrs['temperature']:g} °C)")


@main.command(short_help="a picture from a stack")
@click.argument("stack", type=_FOLDER)
@click.option(
    "--out", type=_FOLDER, required=True, help="The picture: .png or .tif (16 bits), .fits or .xisf (floats)."
)
@click.option("--settings", type=_FOLDER, help="Settings (JSON) of an earlier finish, to be followed again.")
@click.option("--save-settings", type=_FOLDER, help="Where to write the settings that were used.")
@click.option("--linear", type=_FOLDER, help="Where to write the linear picture before the stretch.")
@click.option("--background", help="polynomial (default), rbf, mesh or none.")
@click.option("--balance", help="White balance: auto (default), stars, daylight or none.")
@click.option("--stretch", help="asinh (default, keeps colours), autostretch, ghs or linear.")
@click.option("--strength", type=float, help="Of the stretch; 1 (default) is automatic.")
@click.option("--denoise", type=float, help="From 0 (default, off) to 1; the stack's own variance weighs it.")
@click.option("--quiet", is_flag=True, help="No progress bars.")
@_says_what_is_wrong
def finish(stack: Path, out: Path, quiet: bool, **options: Any) -> None:
    """Make a picture of the linear STACK (.fits, .xisf, .tif): crop, background, colour, stretch.

    Star fluxes are checked after every linear step. The picture carries its history and settings
    inside; the same stack and settings give the same bytes.
    """
    from .pipelines.finishing import finish_stack, settings_from

    linear, save = options.pop("linear"), options.pop("save_settings")
    done = finish_stack(stack, out, settings_from(**options), linear_out=linear, settings_out=save, progress=not quiet)
    click.echo("\n".join(done.picture.attrs["history"]))
    for warning in done.warnings:
        click.echo(f"warning: {warning}", err=True)
    click.echo(f"written: {out}")


@main.command(short_help="calibrate, align and stack the lights")
@click.argument("folder", type=_FOLDER)
@click.option("--out", type=_FOLDER, required=True, help="The FITS file to write, e.g. stack.fits.")
@click.option("--reference", help="Path or name of the light that the stack lies on; else the best is chosen.")
@click.option("--sensor", type=_FOLDER, help="sensor.json of `workbench characterize`: measured gain and read noise.")
@click.option("--masters", type=_FOLDER, help="A folder where master frames are kept and used again.")
@click.option("--reject", "method", default="noise", show_default=True, help="noise (the measured noise model), sigma,"
              " winsorized, linear-fit, esd, mad, percentile, mean or median.")  # fmt: skip
@click.option("--low", type=float, help="Lower threshold of the rejection.")
@click.option("--high", type=float, help="Upper threshold of the rejection.")
@click.option("--transform", default="auto", show_default=True,
              help="auto, shift, similarity, affine, homography, quadratic or cubic.")  # fmt: skip
@click.option("--scratch", type=_FOLDER, help="Folder for working files; beside the output by default.")
@click.option("--scheduler", metavar="ADDRESS", help="A dask scheduler whose workers do the work.")
@click.option("--dry-run", is_flag=True, help="Only say what would be used for what, how long, how much disk.")
@click.option("--quiet", is_flag=True, help="No progress bars.")
@_says_what_is_wrong
def stack(folder: Path, out: Path, quiet: bool, **options: Any) -> None:
    """Calibrate, align and stack the lights in FOLDER into one linear FITS file with its variance.

    FOLDER holds lights with their bias, darks and flats in subfolders of these names. Frames that
    do not belong are set aside and listed with the reason. Stopped at any moment, the same command
    goes on where it was.
    """
    from .pipelines.stacking import stack_folder

    click.echo(repr(stack_folder(folder, out, progress=not quiet, **options)))


@main.command(short_help="all of it, in a browser")
@click.argument("folder", type=_FOLDER, required=False)
@click.option("--results", type=_FOLDER, help="Where results go; beside FOLDER, as FOLDER-results, by default.")
@click.option("--port", default=5007, show_default=True, help="If it is taken, the next free one.")
@click.option("--address", default="127.0.0.1", show_default=True,
              help="Where to listen. 0.0.0.0 lets every machine that reaches this one use the app, read the"
              " folders that you can read, and write where you can write.")  # fmt: skip
@click.option("--no-browser", is_flag=True, help="Only print the address; do not open a browser.")
@_says_what_is_wrong
def app(folder: Path | None, results: Path | None, port: int, address: str, no_browser: bool) -> None:
    """Open the workbench in a browser: a folder in, measurement, charts, stack and picture at hand.

    Choose FOLDER on the page or name it here. Look at its frames at full size, measure the sensor,
    explore the charts, calibrate and stack the lights, finish the picture. Long work shows its
    progress and can be cancelled; it goes on when the page is closed, and shows again when it is
    opened. Every step names the command that does the same in a terminal.

    The app is served by this machine for this machine alone and needs no network. Ctrl-C ends it.
    """
    from .app.server import serve

    serve(
        "" if folder is None else str(folder), "" if results is None else str(results),
        address=address, port=port, show=not no_browser,
        say=lambda where: click.echo(f"The app is at {where} (Ctrl-C ends it)"),
    )  # fmt: skip


if __name__ == "__main__":
    main()
