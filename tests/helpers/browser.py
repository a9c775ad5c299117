"""A headless Chromium with software WebGL, and a JupyterLab of this environment, for tests that look at pages.

Every request is recorded; ``outside`` lists those that would have left the machine.
"""

from __future__ import annotations

import json
import os
import shutil
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from io import BytesIO
from pathlib import Path

import numpy as np
import pytest

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")
FLAGS = [
    "--no-sandbox", "--disable-quic", "--disable-background-networking", "--disable-component-update",
    "--use-gl=angle", "--use-angle=swiftshader", "--enable-unsafe-swiftshader", "--ignore-gpu-blocklist",
]  # fmt: skip


def needs_browser():
    """Skip, with the reason, where there is no Chromium or no playwright to drive it."""
    if CHROMIUM is None:
        pytest.skip("chromium is not installed (apt-get install chromium)")
    return pytest.importorskip("playwright.sync_api")


class Tab:
    """One page and what it asked for."""

    def __init__(self, page):
        self.page = page
        self.requests: list[str] = []
        self.errors: list[str] = []
        page.on("request", lambda request: self.requests.append(request.url))
        page.on("pageerror", lambda error: self.errors.append(str(error)))

    @property
    def outside(self) -> list[str]:
        """Requests to anywhere but this machine."""
        inside = ("data:", "blob:", "file:", "http://127.0.0.1:", "ws://127.0.0.1:", "about:")
        return [url for url in self.requests if not url.startswith(inside)]


@contextmanager
def tab(
    *, offline: bool = False, width: int = 1300, height: int = 1000, webgl: bool = True, scripts: bool = True
) -> Iterator[Tab]:
    """Open Chromium on an empty page; ``offline`` switches its network off altogether, ``scripts`` the page's own."""
    playwright = needs_browser()
    flags = FLAGS if webgl else ["--no-sandbox", "--disable-gpu", "--disable-3d-apis"]
    with playwright.sync_playwright() as driver:
        browser = driver.chromium.launch(
            executable_path=CHROMIUM, args=flags, ignore_default_args=["--disable-gpu"] if webgl else []
        )
        context = browser.new_context(
            viewport={"width": width, "height": height}, offline=offline, java_script_enabled=scripts
        )
        try:
            yield Tab(context.new_page())
        finally:
            browser.close()


@contextmanager
def jupyterlab(root: Path) -> Iterator[str]:
    """Run JupyterLab on ``root`` with nothing of the user's configuration; gives its address."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    private = root / ".jupyter"
    environment = {
        **os.environ,
        "JUPYTER_PREFER_ENV_PATH": "1",
        "JUPYTER_CONFIG_DIR": str(private / "config"),
        "JUPYTER_DATA_DIR": str(private / "data"),
        "JUPYTER_RUNTIME_DIR": str(private / "runtime"),
        "IPYTHONDIR": str(private / "ipython"),
    }
    call = [
        sys.executable, "-m", "jupyterlab", "--no-browser", "--allow-root", "--ip=127.0.0.1", f"--port={port}",
        "--IdentityProvider.token=", f"--ServerApp.root_dir={root}", "--expose-app-in-browser",
        "--LabApp.extension_manager=readonly", "--LabApp.check_for_updates_class=jupyterlab.NeverCheckForUpdate",
    ]  # fmt: skip
    (private / "config" / "labconfig").mkdir(parents=True)
    page = {"disabledExtensions": {"@jupyterlab/apputils-extension:announcements": True}}  # it asks about news
    (private / "config" / "labconfig" / "page_config.json").write_text(json.dumps(page))
    with (private / "server.log").open("w") as log:
        server = subprocess.Popen(call, env=environment, stdout=log, stderr=log, cwd=root)
        try:
            _wait_for(f"http://127.0.0.1:{port}/api", server, private / "server.log")
            yield f"http://127.0.0.1:{port}"
        finally:
            server.terminate()
            try:
                server.wait(20)
            except subprocess.TimeoutExpired:
                server.kill()


def run_notebook(page, address: str, notebook: str, finished: str, seconds: float) -> None:
    """Open ``notebook`` in JupyterLab, run all its cells, and wait until the script ``finished`` is true.

    A cell that fails stops the run: its traceback is raised at once instead of waiting for what cannot come.
    """
    page.set_default_timeout(90_000)
    page.goto(f"{address}/lab/tree/{notebook}?reset", wait_until="domcontentloaded")
    page.wait_for_function("() => window.jupyterapp")
    page.wait_for_selector(".jp-Notebook .jp-Cell")
    page.wait_for_function(
        "() => jupyterapp.shell.currentWidget?.sessionContext?.session?.kernel?.connectionStatus === 'connected'"
    )
    page.evaluate("() => { jupyterapp.commands.execute('notebook:run-all-cells'); }")
    failed = "document.querySelector('.jp-OutputArea-output[data-mime-type=\"application/vnd.jupyter.error\"]')"
    page.wait_for_function(f"() => ({finished})() || {failed}", timeout=seconds * 1000)
    traceback = page.evaluate(f"() => {failed}?.innerText")
    assert traceback is None, f"{notebook} failed in JupyterLab:\n{traceback}"


def bring_into_view(page, selector: str, tries: int = 30) -> dict[str, float]:
    """Scroll to the first ``selector`` until it keeps its place for a second; gives its box in the window.

    Pictures above it that are still loading, and cells that are still running, push it out of view again.
    """
    before = None
    for _ in range(tries):
        found = page.query_selector(selector)
        found.scroll_into_view_if_needed()
        page.wait_for_timeout(1000)
        box = found.bounding_box()
        if box is not None and box == before:
            return box
        before = box
    raise AssertionError(f"{selector} did not come to rest within {tries} s")


def pixels(png: bytes) -> np.ndarray:
    """A screenshot as (rows, columns, 3) of 0..255."""
    from matplotlib.image import imread

    return np.rint(imread(BytesIO(png), format="png")[..., :3] * 255).astype(np.uint8)


def _wait_for(url: str, server: subprocess.Popen, log: Path) -> None:
    until = time.monotonic() + 90
    while time.monotonic() < until:
        if server.poll() is not None:
            break
        try:
            urllib.request.urlopen(url, timeout=2).close()
            return
        except OSError:
            time.sleep(0.3)
    raise RuntimeError(f"JupyterLab did not start:\n{log.read_text()[-2000:]}")
