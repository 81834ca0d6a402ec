"""The browser that setup.sh found or installed, for tests that play streams."""

from __future__ import annotations

import contextlib
import os
import shutil

from playwright.sync_api import sync_playwright
from vidstreamx_devtools.settings import Settings


@contextlib.contextmanager
def chromium(settings: Settings):
    """A headless Chromium (Playwright's `Browser`) that plays without being clicked on."""
    found = next(filter(None, map(shutil.which, ("chromium", "google-chrome"))), None)
    if found is None:
        os.environ.setdefault("PLAYWRIGHT_BROWSERS_PATH", str(settings.tools / "browsers"))
    arguments = ["--disable-gpu", "--disable-quic", "--autoplay-policy=no-user-gesture-required"]
    if os.geteuid() == 0:
        arguments.append("--no-sandbox")  # Chromium's sandbox refuses to start as root
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=found, args=arguments)
        try:
            yield browser
        finally:
            browser.close()
