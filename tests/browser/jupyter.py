"""JupyterLab as a user starts it, driven by a real Chromium that sees no network."""

from __future__ import annotations

import json
import os
import re
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from .watch import Watch

STARTING = 120  # seconds to wait for JupyterLab, far more than it needs
RUNNING = 300
RESTING = 240  # times a quarter of a second that no kernel works: then none will


@contextmanager
def jupyter_lab(folder: Path, scratch: Path) -> Iterator[str]:
    """Serve a folder of notebooks; yields the address.  Whatever Jupyter keeps goes into `scratch`."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    homes = {
        "HOME": "home",
        "JUPYTER_CONFIG_DIR": "config",
        "JUPYTER_DATA_DIR": "data",
        "JUPYTER_RUNTIME_DIR": "runtime",
        "JUPYTERLAB_SETTINGS_DIR": "settings",
        "JUPYTERLAB_WORKSPACES_DIR": "workspaces",
        "IPYTHONDIR": "ipython",
    }
    for name in homes.values():
        (scratch / name).mkdir(parents=True, exist_ok=True)
    environment = os.environ | {variable: str(scratch / name) for variable, name in homes.items()}
    log = scratch / "jupyter.log"
    command = [sys.executable, "-m", "jupyterlab", "--no-browser", "--allow-root", "--ip=127.0.0.1", f"--port={port}"]
    command += ["--ServerApp.port_retries=0", "--IdentityProvider.token=", f"--notebook-dir={folder}"]
    # should this process be killed, the server that it leaves behind ends by itself
    command += ["--MappingKernelManager.cull_idle_timeout=600", "--MappingKernelManager.cull_connected=True"]
    command += ["--ServerApp.shutdown_no_activity_timeout=600"]
    # a user who has answered JupyterLab's question about news with no
    answers = scratch / "settings" / "@jupyterlab" / "apputils-extension" / "notification.jupyterlab-settings"
    answers.parent.mkdir(parents=True, exist_ok=True)
    answers.write_text(json.dumps({"fetchNews": "false", "checkForUpdates": False}))
    with log.open("w") as output:
        server = subprocess.Popen(
            command, env=environment, stdout=output, stderr=subprocess.STDOUT, start_new_session=True
        )
    address = f"http://127.0.0.1:{port}"
    try:
        give_up = time.monotonic() + STARTING
        while True:
            try:
                urllib.request.urlopen(f"{address}/api", timeout=5).close()
                break
            except (urllib.error.URLError, ConnectionError, TimeoutError):
                if server.poll() is not None or time.monotonic() > give_up:
                    raise RuntimeError(f"JupyterLab did not start:\n{log.read_text()}") from None
                time.sleep(0.2)
        yield address
    finally:
        # the server and the kernels that it started, which are in its session
        os.killpg(server.pid, signal.SIGTERM)
        try:
            server.wait(20)
        except subprocess.TimeoutExpired:
            os.killpg(server.pid, signal.SIGKILL)
            server.wait(20)


# every Bokeh figure in the page: its title, and the columns of its glyphs, by the name that the legend gives them
FIGURES = """() => {
  const found = [];
  const seen = new Set();
  for (const root of Bokeh.documents.flatMap(doc => doc.roots()))
    for (const model of root.references())
      if (model.type === 'Figure' && !seen.has(model.id)) {
        seen.add(model.id);
        const labels = new Map();
        for (const legend of [...model.references()].filter(one => one.type === 'Legend'))
          for (const item of legend.items)
            for (const renderer of item.renderers) labels.set(renderer.id, item.label?.value ?? '');
        const glyphs = model.renderers.filter(one => one.data_source).map(one => ({
          label: labels.get(one.id) ?? '',
          data: Object.fromEntries(Object.entries(Object.fromEntries(
            one.data_source.data instanceof Map ? one.data_source.data : Object.entries(one.data_source.data)
          )).map(([name, column]) => [name, Array.from(column)])),
        }));
        found.push({title: model.title?.text ?? '', glyphs});
      }
  return found;
}"""

# asks a kernel to run some code, past the notebook that is open
BUSY = """async ({kernel, code}) => {
  const address = `${location.origin.replace('http', 'ws')}/api/kernels/${kernel}/channels`;
  window.busy = new WebSocket(address);
  await new Promise(open => { window.busy.onopen = open; });
  const header = {msg_id: crypto.randomUUID(), session: crypto.randomUUID(), username: '', version: '5.3',
                  msg_type: 'execute_request', date: new Date().toISOString()};
  const content = {code, silent: true, store_history: false, user_expressions: {}, allow_stdin: false};
  window.busy.send(JSON.stringify({channel: 'shell', header, parent_header: {}, metadata: {}, content, buffers: []}));
}"""

# what the page shows, as numbers: each figure's title with a checksum of all columns of its visible glyphs, and a
# checksum of each picture that is HTML
CONTENT = """() => {
  const found = [];
  const seen = new Set();
  let sum = 0;
  const bytes = new DataView(new ArrayBuffer(8));
  const mix = value => { sum = Math.imul(sum ^ value, 16777619) >>> 0; };
  const take = value => {
    if (typeof value === 'number' || typeof value === 'boolean') {
      bytes.setFloat64(0, Number(value));
      mix(bytes.getInt32(0));
      mix(bytes.getInt32(4));
    } else if (typeof value === 'string') for (const letter of value) mix(letter.codePointAt(0));
    else if (value != null && typeof value[Symbol.iterator] === 'function') for (const one of value) take(one);
  };
  for (const root of Bokeh.documents.flatMap(doc => doc.roots()))
    for (const model of root.references())
      if (model.type === 'Figure' && !seen.has(model.id)) {
        seen.add(model.id);
        sum = 2166136261;
        for (const one of model.renderers.filter(one => one.visible && one.data_source)) {
          const data = one.data_source.data;
          for (const [name, column] of data instanceof Map ? data : Object.entries(data)) { take(name); take(column); }
        }
        found.push(`${model.title?.text ?? ''} ${sum}`);
      } else if (typeof model.text === 'string' && model.text.includes('data:image') && !seen.has(model.id)) {
        seen.add(model.id);
        sum = 2166136261;
        take(model.text);
        found.push(`picture ${sum}`);
      }
  return found.sort();
}"""


# waits until nothing has come or gone below an element for so many milliseconds, at most five seconds
AT_REST = """(pane, rest) => new Promise(done => {
  const begun = performance.now();
  let last = begun;
  const watch = new MutationObserver(() => { last = performance.now(); });
  watch.observe(pane, {childList: true, subtree: true});
  const look = () => {
    const now = performance.now();
    if (now - last < rest && now - begun < 5000) return requestAnimationFrame(look);
    watch.disconnect();
    done();
  };
  look();
})"""


class Lab(Watch):
    """One notebook, open in JupyterLab in a page."""

    def __init__(self, page, address: str) -> None:
        super().__init__(page)
        self.address = address

    def open(self, notebook: str) -> None:
        """Open a notebook and wait for its kernel; accept the kernel dialog where there is one."""
        content = self.page.request.get(f"{self.address}/api/contents/{notebook}", timeout=1000 * STARTING).json()
        self.cells = [(cell["cell_type"], cell["source"]) for cell in content["content"]["cells"]]
        self.page.goto(f"{self.address}/lab/tree/{notebook}?reset", wait_until="commit", timeout=1000 * STARTING)
        self.page.wait_for_selector(".jp-Notebook .jp-Cell", timeout=1000 * STARTING)
        give_up = time.monotonic() + STARTING
        while not any(kernel["connections"] for kernel in self._kernels()):
            if self.page.locator(".jp-Dialog").count():
                self.page.keyboard.press("Enter")
            if time.monotonic() > give_up:
                raise RuntimeError("no kernel has started")
            self.page.wait_for_timeout(300)

    def _kernels(self) -> list[dict]:
        there = self.page.request.get(f"{self.address}/api/kernels", timeout=1000 * STARTING).json()
        return there if isinstance(there, list) else []  # a kernel that starts slowly makes the server complain

    def run_all(self) -> None:
        """Run all cells from the menu and wait until the last code cell is done.

        The kernel may have run them before, for another page: its numbers then go on from there.

        Raises
        ------
        RuntimeError
            If it is not done in time, or the kernel has come to rest before it (a cell failed); names the errors.
        """
        last = max(number for number, (kind, _) in enumerate(self.cells) if kind == "code")
        prompt = self.page.locator(f".jp-CodeCell[data-windowed-list-index='{last}'] .jp-InputPrompt").first
        pane = self.page.locator(".jp-WindowedPanel-outer").first

        def at_the_end() -> str:  # cells far from the view are not in the page, so stay at the end
            pane.evaluate("pane => pane.scrollTop = pane.scrollHeight")
            return prompt.inner_text().strip() if prompt.count() else ""

        self.page.click(".jp-Notebook .jp-Cell >> nth=0")
        before = at_the_end()
        self.page.get_by_role("menuitem", name="Run", exact=True).click()
        self.page.get_by_role("menuitem", name="Run All Cells", exact=True).click()
        give_up, begun, resting = time.monotonic() + RUNNING, False, 0
        while True:
            now = at_the_end()
            begun |= now == "[*]:" or bool(now and before and now != before)
            if begun and re.fullmatch(r"\[\d+\]:", now):
                return
            self.page.wait_for_timeout(250)
            busy = any(one["execution_state"] == "busy" for one in self._kernels())
            resting = 0 if busy or not begun else resting + 1
            if time.monotonic() > give_up or resting > RESTING:
                raise RuntimeError(f"the last code cell did not finish: {self.errors()}")

    def show(self, text: str):
        """Scroll until a code cell that contains the text is in view with its output; returns the cell.

        Found by its number, as the code of long cells is folded away.
        """
        return self.cell(next(at for at, (kind, source) in enumerate(self.cells) if kind == "code" and text in source))

    def cell(self, number: int):
        """Scroll until the code cell of that number, from 0 on, is in view with its output; returns the cell."""
        pane = self.page.locator(".jp-WindowedPanel-outer").first
        cell = self.page.locator(f".jp-CodeCell[data-windowed-list-index='{number}']")
        pane.evaluate("pane => pane.scrollTop = 0")
        for _ in range(60):  # cells far from the view are not in the page at all
            if cell.count() and cell.is_visible():
                break
            pane.evaluate("pane => pane.scrollTop += 0.7 * pane.clientHeight")
            self.page.wait_for_timeout(250)
        cell.scroll_into_view_if_needed(timeout=1000 * STARTING)
        return cell

    def keep_busy(self, seconds: float) -> None:
        """Have the kernel work for some seconds on something else, as a slow machine would."""
        (kernel,) = [one["id"] for one in self._kernels() if one["execution_state"] != "dead"][-1:]
        self.page.evaluate(BUSY, {"kernel": kernel, "code": f"import time; time.sleep({seconds})"})

    def figures(self) -> list[dict]:
        """Return what the Bokeh figures hold, as the browser has it: title, and for each glyph label and columns."""
        return self.page.evaluate(FIGURES)

    def content(self) -> list[str]:
        """Return for each figure in the page its title and a checksum of what it shows; the same for pictures."""
        return self.page.evaluate(CONTENT)

    def settled(self, before: list[str] | None = None, seconds: float = 60) -> list[str]:
        """Return the content once it is unlike `before` and stays the same, or at the end of time."""
        give_up, last = time.monotonic() + seconds, self.content()
        while time.monotonic() < give_up:
            self.page.wait_for_timeout(500)
            now = self.content()
            if now == last and now != before:
                return now
            last = now
        return last

    def wait_for_figure(self, title: str) -> None:
        """Wait until a figure of that title is in the page."""
        self.page.wait_for_function(
            "title => Bokeh.documents.flatMap(doc => doc.roots())"
            ".some(root => [...root.references()].some(model => model.title?.text === title))",
            arg=title,
        )

    def walk(self, rest: int = 120) -> Iterator[int]:
        """Scroll through the notebook from top to bottom, a screen at a time; yields the number of the screen.

        Each is yielded once nothing has come into the page for `rest` milliseconds.  JupyterLab lets a notebook scroll
        until its last cell is out of sight: that screen is none.
        """
        pane = self.page.locator(".jp-WindowedPanel-outer").first
        pane.evaluate("pane => pane.scrollTop = 0")
        for number in range(100):
            pane.evaluate(AT_REST, rest)
            if number and not self._news(pane):
                return
            yield number
            at = "pane => pane.scrollTop"
            before = pane.evaluate(at)
            pane.evaluate("pane => pane.scrollTop += 0.85 * pane.clientHeight")
            if pane.evaluate(at) <= before + 1:
                return

    def _news(self, pane) -> bool:
        """Tell whether a cell reaches into the part of the view that the screen before did not show."""
        return pane.evaluate(
            "pane => { const top = pane.getBoundingClientRect().top + 0.15 * pane.clientHeight;"
            " return [...pane.querySelectorAll('.jp-Cell')].some(cell => cell.getBoundingClientRect().bottom > top); }"
        )

    def errors(self) -> list[str]:
        """Return the tracebacks and warnings that any cell has printed."""
        kinds = ("[data-mime-type*='error']", "[data-mime-type*='stderr']", ":has-text('Traceback (')")
        wrong = ", ".join(f".jp-OutputArea-output{kind}" for kind in kinds)
        seen = (text.strip() for _ in self.walk() for text in self.page.locator(wrong).all_inner_texts())
        return list(dict.fromkeys(filter(None, seen)))  # a screen shows again what the one before it showed
