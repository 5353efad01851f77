"""Draw the pictures of README and of the front page from the samples: `python docs/pictures.py`.

Into docs/static/pictures: one light and the finished picture of all of them, what each more light is worth, and the
chain from the photon to the picture.
"""

from __future__ import annotations

import sys
import tempfile
import textwrap
from pathlib import Path

import numpy as np
from PIL import Image

import workbench as wb
from workbench.charts.registry import REGISTRY, Caption
from workbench.charts.theme import layout
from workbench.export.write import pictures
from workbench.pipelines import characterize_with_lights

sys.path.insert(0, str(Path(__file__).parents[1] / "notebooks"))
from course.chain import COLOURS, JOURNEY

OUT = Path(__file__).with_name("static") / "pictures"
WIDTH = 640  # of each picture [px]
SKY = 0.12  # brightness at which the sky of one light is shown


def one_light(frames: wb.ingest.Folder) -> Image.Image:
    """Return one light as it comes from the camera: a pixel for each cell of the mosaic, stretched like the stack."""
    light = frames.light.isel(frame=0).values.astype(float)
    red, green, blue = light[::2, ::2], (light[::2, 1::2] + light[1::2, ::2]) / 2, light[1::2, 1::2]
    colours = np.stack([red, green, blue], axis=-1)
    sky = np.median(colours, axis=(0, 1))
    scaled = np.clip((colours - sky) / (12 * np.percentile(np.abs(colours - sky), 68)) + SKY, 0, 1)
    return Image.fromarray((255 * scaled).round().astype(np.uint8))


def before_and_after(folder: Path, frames: wb.ingest.Folder) -> Image.Image:
    """Return one light next to the finished picture of all lights, which the two commands make by default."""
    with tempfile.TemporaryDirectory() as scratch:
        stack, finished = Path(scratch) / "stack.fits", Path(scratch) / "picture.png"
        wb.stack_folder(folder, stack, progress=False)
        wb.finish_stack(stack, finished, progress=False)
        whole = np.asarray(Image.open(finished).convert("RGB"))
    pair = [one_light(frames), Image.fromarray(whole)]
    height = min(round(WIDTH * picture.height / picture.width) for picture in pair)
    both = Image.new("RGB", (2 * WIDTH + 8, height), "white")
    for number, picture in enumerate(pair):
        small = picture.resize((WIDTH, round(WIDTH * picture.height / picture.width)), Image.Resampling.LANCZOS)
        both.paste(small.crop((0, 0, WIDTH, height)), (number * (WIDTH + 8), 0))
    return both


def noise(frames: wb.ingest.Folder) -> bytes:
    """Return the chart of the signal-to-noise ratio against the number of lights, its first panel, as PNG."""
    chart = REGISTRY["snr-vs-frames"]
    result = characterize_with_lights(frames, chart.needs, progress=False)
    first = next(iter(chart.draw(result)))
    caption = Caption("Signal to noise of a pixel against the number of lights stacked. Simulated data.", "")
    return pictures(layout([first]), chart.title, caption)[0]


def journey_svg() -> str:
    """Return the chain as one SVG by itself, in light and dark."""
    parts = []
    for number, (name, (drawing, words)) in enumerate(JOURNEY.items()):
        lines = textwrap.wrap(words, 23)
        text = f'<text class="name" x="60" y="106">{name}</text>' + "".join(
            f'<text class="words" x="60" y="{124 + 15 * line}">{part}</text>' for line, part in enumerate(lines)
        )
        arrow = '<path class="line" d="M131 42 h14 m-5 -5 l5 5 -5 5"/>' if number < len(JOURNEY) - 1 else ""
        parts.append(f'<g transform="translate({12 + 154 * number} 10)">{drawing}{text}{arrow}</g>')
    about = "; ".join(f"{name}: {station.words}" for name, station in JOURNEY.items())
    return (
        '<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 920 180" role="img">'
        f"<title>From the photon to the picture</title><desc>{about}</desc>"
        "<style>:root{--ink:#22303c;--paper:#fff}"
        "@media (prefers-color-scheme:dark){:root{--ink:#e4eaf0;--paper:#10181f}}"
        f"{COLOURS} svg .name{{font-size:15px}} svg .words{{font-size:11.5px;font-weight:400}}</style>"
        f"{''.join(parts)}</svg>\n"
    )


if __name__ == "__main__":
    OUT.mkdir(exist_ok=True)
    folder = wb.sample_folder()
    frames = wb.open_folder(folder)
    (OUT / "journey.svg").write_text(journey_svg(), encoding="utf-8")
    before_and_after(folder, frames).save(OUT / "before-after.jpg", quality=86, optimize=True)
    (OUT / "noise.png").write_bytes(noise(frames))
    with Image.open(OUT / "noise.png") as image:
        image.convert("RGB").resize((960, round(image.height * 960 / image.width))).quantize(64).save(OUT / "noise.png")
