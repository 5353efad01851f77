"""Frames in, a raw report card out: is my raw file raw?"""

from __future__ import annotations

import html
import json
import textwrap
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import xarray as xr

from .. import __version__, fidelity, sensor
from ..core.cube import KINDS
from ..core.errors import WorkbenchError, said_of_all
from ..core.files import whole_file
from ..core.values import is_simulated, value_text
from ..fidelity.card import Fidelity
from ..fidelity.findings import CHANGED, NOTICE, OK, UNKNOWN
from ..ingest.catalogue import open_folder
from ..ingest.folder import Folder, of_one_camera
from ..ingest.metadata import kind_in_folders, kind_in_words
from ..ingest.reader import frame_row, open_frames, read_metadata
from ..ingest.review import review
from .measurement import MAJORITY, flat_transfer

_MARK = {OK: "✓", NOTICE: "i", CHANGED: "✗", UNKNOWN: "?"}


@dataclass(repr=False)
class Inspection:
    """What `inspect` found.

    Attributes
    ----------
    camera, simulated
        Its name, and whether that says that the frames are simulated.
    fidelity
        The report card with what it rests on (`workbench.sensor.Fidelity`).
    gain
        Where colours are multiplied and there are pairs of flats: the gain as measured and ``gain_descaled``.
    frame_counts
        Frames there are of each kind.
    warnings, set_aside
        What is doubtful; files not used, each with the reason.
    """

    camera: str
    simulated: bool
    fidelity: Fidelity
    gain: xr.Dataset | None = None
    frame_counts: dict[str, int] = field(default_factory=dict)
    warnings: list[str] = field(default_factory=list)
    set_aside: list[tuple[Path, str]] = field(default_factory=list)

    @property
    def verdict(self) -> str:
        """``raw`` or ``cooked``."""
        return str(self.fidelity.card.attrs["verdict"])

    def headline(self) -> str:
        """Return the verdict in one sentence."""
        card = self.fidelity.card
        changed, unknown = len(card.attrs["changed"]), len(card.attrs["unknown"])
        asked = card.sizes["test"]
        camera = self.camera or "unknown camera"
        rest = f"; {unknown} of {asked} questions these frames cannot answer" if unknown else ""
        if changed:
            return f"{camera}: COOKED, changed before saving in {changed} of {asked} respects{rest}."
        return f"{camera}: RAW as far as these frames show{rest}."

    def table(self) -> pd.DataFrame:
        """Return the card as a table: question, status, finding, effect, remedy."""
        columns = ["question", "status", "finding", "effect", "remedy"]
        return self.fidelity.card[columns].to_dataframe()[columns].reset_index(drop=True)

    def charts(self) -> list[str]:
        """Name the charts of the registry that these frames give."""
        given = {"missing-codes": True, "noise-spectrum": self.fidelity.texture, "hot-pixel-filter": self.fidelity.hot}
        return [name for name, result in given.items() if result is not None]

    def gains(self) -> list[str]:
        """Return the gains as measured and without the camera's multiplication, one line an ISO and channel."""
        if self.gain is None:
            return []
        table = self.gain[["gain", "gain_error", "gain_descaled", "gain_descaled_error"]]
        return [
            f"ISO {row.iso:g} {row.channel}: {value_text(row.gain, row.gain_error)} as saved, "
            f"{value_text(row.gain_descaled, row.gain_descaled_error, 'e⁻/ADU')} de-scaled"
            for row in table.to_dataframe(dim_order=["iso", "channel"]).reset_index().itertuples()
            if np.isfinite(row.gain_descaled)
        ]

    def __repr__(self) -> str:
        lines = [self.headline(), ""]
        for row in self.table().itertuples():
            lines.append(f"{_MARK[row.status]} {row.question}  {row.status.capitalize()}.")
            text = " ".join(part for part in (row.finding, row.effect, row.remedy and f"→ {row.remedy}") if part)
            lines += textwrap.wrap(text, 100, initial_indent="    ", subsequent_indent="    ")
        if self.gain is not None:
            lines += ["", "Gain:", *(f"    {line}" for line in self.gains())]
        lines += [f"warning: {text}" for text in self.warnings]
        lines += [f"set aside: {sentence}" for sentence in said_of_all(self.set_aside)]
        return "\n".join(lines)

    def _repr_html_(self) -> str:
        rows = "".join(
            f"<tr><td>{_MARK[row.status]}</td><td><b>{html.escape(row.question)}</b><br>{row.status}</td>"
            f"<td style='text-align:left'>{html.escape(row.finding)} {html.escape(row.effect)}"
            f"{' <i>' + html.escape(row.remedy) + '</i>' if row.remedy else ''}</td></tr>"
            for row in self.table().itertuples()
        )
        notes = "".join(f"<li>{html.escape(text)}</li>" for text in (*self.gains(), *self.warnings))
        return f"<p><b>{html.escape(self.headline())}</b></p><table>{rows}</table><ul>{notes}</ul>"


def inspect(target: str | Path | Folder | Iterable[str | Path], progress: bool = True) -> Inspection:
    """Find what the camera did to its numbers before it saved them, from whatever frames there are: a report card.

    Parameters
    ----------
    target
        A folder (see `open_folder`) or what `open_folder` returned, a file, or several files; a file's kind comes from
        its header or from its folder's name.

    Raises
    ------
    WorkbenchError
        If no frames are given, they are not whole numbers, or no two thirds are of one camera, size and mosaic (the
        others are set aside).

    Examples
    --------
    >>> import tempfile
    >>> from workbench.simulate import d7000, expose, save_frame
    >>> camera, folder = d7000(shape=(128, 128)), Path(tempfile.mkdtemp()) / "bias"
    >>> folder.mkdir()
    >>> for number in range(4):
    ...     frame = expose(camera, iso=100, exposure=1e-4, seed=number)
    ...     _ = save_frame(folder / f"{number}.dng", frame, camera, iso=100, exposure=1e-4, temperature=20.0,
    ...                    time=np.datetime64("2024-01-01").astype(object), firmware="stock")
    >>> inspect(folder, progress=False).headline()
    'NIKON D7000 (simulated): COOKED, ...'
    """
    folder = _folder(target, progress)
    folder = of_one_camera(folder, folder.table["kind"].unique().tolist(), share=MAJORITY)
    return folder.without_unreadable(lambda folder: _inspect(folder, progress))[0]


def _folder(target: Any, progress: bool) -> Folder:
    if isinstance(target, Folder):
        return target
    paths = [Path(target)] if isinstance(target, (str, Path)) else [Path(path) for path in target]
    if not paths:
        raise WorkbenchError("no files given; name a folder or some frames")
    if len(paths) == 1 and paths[0].is_dir():
        return open_folder(paths[0], progress=progress)
    known: dict[Any, Any] = {}
    rows = []
    for path in paths:
        if path.is_dir():
            raise WorkbenchError(f"{path} is a folder: give one folder, or only files")
        info = read_metadata(path, known)
        kind = kind_in_words(info.imagetyp) or kind_in_folders(path.resolve(), path.resolve().parent)
        rows.append(frame_row(info, path.name, kind))
    table, set_aside, doubts = review(pd.DataFrame(rows))
    return Folder(table, paths[0].parent, set_aside, doubts)


def _inspect(folder: Folder, progress: bool) -> Inspection:
    frames = open_frames(folder.table)
    flats = folder.has("flat")
    ptc = flat_transfer(frames, progress)
    report = fidelity.inspect_frames(frames, ptc=ptc, progress=progress)
    gain = None
    if flats and "codes" in report.card.attrs["changed"]:
        if ptc is None:
            ptc = sensor.photon_transfer(folder.flat, folder.bias if folder.has("bias") else None, progress=progress)
        if ptc.sizes["pair"]:
            gain = fidelity.descaled_gain(sensor.fit_gain(ptc), report.missing)
    counts = {kind: folder.count(kind) for kind in KINDS if folder.has(kind)}
    unknown = len(folder) - sum(counts.values())
    camera = str(frames.attrs["camera"])
    warnings = list(folder.warnings) if unknown < len(folder) else []
    return Inspection(
        camera, is_simulated(camera), report, gain, counts | ({"frame": unknown} if unknown else {}), warnings,
        list(folder.set_aside),
    )  # fmt: skip


def write_inspection(inspection: Inspection, out: str | Path) -> Path:
    """Write the report card as ``fidelity.json`` (see `fidelity_to_json`) into a folder; returns its path."""
    path = Path(out) / "fidelity.json"
    content = {
        "program": f"astrophoto-workbench {__version__}",
        "camera": inspection.camera,
        "simulated": inspection.simulated,
    }
    content |= fidelity.fidelity_to_json(inspection.fidelity)
    with whole_file(path) as part:
        part.write_text(json.dumps(content, indent=1, ensure_ascii=False, allow_nan=False) + "\n", encoding="utf-8")
    return path
