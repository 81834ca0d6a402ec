"""The Chromium that setup.sh found or installed."""

from __future__ import annotations

import contextlib
import os
import shutil
from collections.abc import Iterator

from playwright.sync_api import Browser, sync_playwright

from vidstreamx_devtools.settings import Settings


@contextlib.contextmanager
def chromium(settings: Settings) -> Iterator[Browser]:
    """A headless Chromium that starts playback without a click."""
    executable = next(filter(None, map(shutil.which, ("chromium", "google-chrome"))), None)
    if executable is None:
        os.environ.setdefault("PLAYWRIGHT_BROWSERS_PATH", str(settings.tools / "browsers"))
    arguments = ["--disable-gpu", "--disable-quic", "--autoplay-policy=no-user-gesture-required"]
    if os.geteuid() == 0:
        arguments.append("--no-sandbox")  # Chromium's sandbox refuses to start as root
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=executable, args=arguments)
        try:
            yield browser
        finally:
            browser.close()
