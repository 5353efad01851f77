"""What every browser test watches: nothing is fetched from outside, nothing is complained of, everybody can use it."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager

from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Page, sync_playwright

CHROMIUM_ARGUMENTS = [
    "--no-sandbox",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]
# pages may fetch from the machine they run on, nothing else
LOCAL = re.compile(r"(https?|wss?)://(127\.0\.0\.1|localhost)[:/]|data:|blob:|about:")


class Watch:
    """Notes what a page asks of the network and what its console complains of.

    Parameters
    ----------
    allowed
        Addresses that may be fetched; others are refused and noted.
    """

    def __init__(self, page: Page, allowed: re.Pattern[str] = LOCAL) -> None:
        self.page, self.allowed = page, allowed
        self.refused: list[str] = []
        self.complaints: list[str] = []
        page.route("**/*", self._guard)
        page.on("console", self._heard)
        page.on("pageerror", lambda error: self.complaints.append(error.stack or str(error)))

    def _guard(self, route) -> None:
        if self.allowed.match(route.request.url):
            route.continue_()
        else:
            self.refused.append(route.request.url)
            route.abort()

    def _heard(self, message) -> None:
        if message.type == "error":
            self.complaints.append(f"{message.text} ({message.location.get('url', '')})")


def serious_faults(page: Page) -> list[str]:
    """Return what axe-core finds serious or critical on a page as it is now: rule, where, what."""
    found = Axe().run(page).response["violations"]
    return [
        f"{fault['id']} ({fault['impact']}): {node['target']}: {node['html'][:200]}"
        for fault in found
        if fault["impact"] in ("serious", "critical")
        for node in fault["nodes"]
    ]


@contextmanager
def chromium(executable: str, *arguments: str) -> Iterator:
    """Start a Chromium of its own; yields the browser."""
    with (
        sync_playwright() as playwright,
        playwright.chromium.launch(executable_path=executable, args=[*CHROMIUM_ARGUMENTS, *arguments]) as browser,
    ):
        yield browser
