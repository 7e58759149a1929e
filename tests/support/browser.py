"""Chromium, for tests of pages."""

import shutil

import pytest

CHROMIUM = next(
    (found for name in ("chromium", "chromium-browser", "google-chrome") if (found := shutil.which(name))), ""
)
HEADLESS = [CHROMIUM, "--headless", "--no-sandbox", "--disable-gpu", "--enable-logging=stderr", "--dump-dom"]


def chromium(test):
    """Such a test is left out where there is no browser."""
    return pytest.mark.browser(pytest.mark.skipif(not CHROMIUM, reason="no Chromium here; .ci/run installs it")(test))
