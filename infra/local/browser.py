"""The browser that setup.sh found or installed, for tests that play streams."""

from __future__ import annotations

import os
import shutil

from settings import Settings


def launch(playwright, settings: Settings):
    """A headless Chromium that plays without being clicked on (playwright: of `sync_playwright`)."""
    found = next(filter(None, map(shutil.which, ("chromium", "google-chrome"))), None)
    if found is None:
        os.environ.setdefault("PLAYWRIGHT_BROWSERS_PATH", str(settings.tools / "browsers"))
    arguments = ["--disable-gpu", "--autoplay-policy=no-user-gesture-required"]
    if os.geteuid() == 0:
        arguments.append("--no-sandbox")  # Chromium's sandbox refuses to start as root
    return playwright.chromium.launch(executable_path=found, args=arguments)
