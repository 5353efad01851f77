"""Puts the charts into the blog's chapters: `python docs/blog.py CHARTS` writes CHARTS/blog/, ready to be pasted."""

import re
import shutil
import sys
from pathlib import Path

CHAPTERS = Path(__file__).with_name("blog")
PLACE = re.compile(r"<!-- chart: ([\w-]+) -->")
FILES = re.compile(r"Put (.*?) into the folder")  # what a snippet asks for


def fill(charts: Path) -> list[Path]:
    """Write each chapter with its charts' snippets, and beside it the files that they name."""
    out = charts / "blog"
    out.mkdir(exist_ok=True)
    written = []
    for chapter in sorted(CHAPTERS.glob("*.md")):
        text = chapter.read_text(encoding="utf-8")
        missing = [name for name in PLACE.findall(text) if not (charts / f"{name}.embed.html").exists()]
        if missing:
            sys.stderr.write(f"{chapter.name}: no chart {', '.join(missing)}; these frames do not give it\n")
        for name in set(PLACE.findall(text)) - set(missing):
            snippet = (charts / f"{name}.embed.html").read_text(encoding="utf-8")
            text = text.replace(f"<!-- chart: {name} -->", snippet.strip())
            for file in FILES.findall(snippet)[0].split(", "):
                shutil.copyfile(charts / file, out / file)
        written.append(out / chapter.name)
        written[-1].write_text(text, encoding="utf-8")
    return written


if __name__ == "__main__":
    sys.stdout.writelines(f"{path}\n" for path in fill(Path(sys.argv[1])))
