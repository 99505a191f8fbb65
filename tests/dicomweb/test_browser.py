"""The list and the viewer in a real browser, over the real server. Screenshots stay in build/screenshots."""

from __future__ import annotations

import io
import socket
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import urlsplit

import numpy as np
import pytest
from PIL import Image
from playwright.sync_api import Browser, ConsoleMessage, Page, Response, sync_playwright

from dicomweb.serve import serve_app
from runtime.settings import WebSettings
from tests.datasets import PLANTED, ROOT, mr_dataset
from tests.dicomweb.library import Library

pytestmark = pytest.mark.browser
REPOSITORY = Path(__file__).parents[2]
SCREENSHOTS = REPOSITORY / "build" / "screenshots"
CHROMIUM = Path("/usr/bin/chromium")
ARGUMENTS = [
    "--no-sandbox",
    "--use-angle=swiftshader",
    "--enable-unsafe-swiftshader",
    "--ignore-gpu-blocklist",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]
DEADLINE_S = 60
GREY_LEVELS = 60
SLICES = 20


@dataclass  # no slots: playwright hangs its wrappers on the object
class Watched:
    """A page, and everything that went wrong in it."""

    page: Page
    wrong: list[str] = field(default_factory=list)
    addresses: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.page.on("console", self._console)
        self.page.on("pageerror", lambda error: self.wrong.append(f"error: {error}"))
        self.page.on("request", lambda request: self.addresses.append(request.url))
        self.page.on("response", self._response)

    def _console(self, message: ConsoleMessage) -> None:
        if message.type == "error":
            self.wrong.append(f"console: {message.text}")

    def _response(self, response: Response) -> None:
        if response.status >= 400:
            self.wrong.append(f"{response.status}: {response.url}")


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    assert CHROMIUM.exists(), "chromium is not installed: as root, apt-get install chromium"
    SCREENSHOTS.mkdir(parents=True, exist_ok=True)
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=ARGUMENTS)
        yield browser
        browser.close()


@pytest.fixture
def address(library: Library) -> Iterator[str]:
    """The application over `library` with the real viewer, on a real socket."""
    listener = socket.create_server(("127.0.0.1", 0))
    stop, ready = threading.Event(), threading.Event()
    app = library.app(viewer_dir=REPOSITORY / "viewer")
    thread = threading.Thread(
        target=serve_app, args=(app, listener, stop, ready.set), kwargs={"settings": WebSettings(shutdown_timeout_s=2)}
    )
    thread.start()
    assert ready.wait(DEADLINE_S)
    yield f"http://127.0.0.1:{listener.getsockname()[1]}"
    stop.set()
    thread.join(DEADLINE_S)
    listener.close()


def open_page(browser: Browser, width: int = 1280, height: int = 800, **options: object) -> Watched:
    context = browser.new_context(viewport={"width": width, "height": height}, **options)  # type: ignore[arg-type]
    return Watched(context.new_page())


def exam(library: Library, *, study: int = 1) -> None:
    """A small volume with the geometry a viewer stacks slices by."""
    library.add(
        *[
            mr_dataset(
                number, study=study, rows=256, columns=256, SliceThickness=3, PixelSpacing=[0.9, 0.9],
                ImagePositionPatient=[0, 0, 3.0 * number], ImageOrientationPatient=[1, 0, 0, 0, 1, 0],
                FrameOfReferenceUID=f"{ROOT}.{study}.900", WindowCenter=450, WindowWidth=900,
            )
            for number in range(1, SLICES + 1)
        ],
        htj2k=True,
    )  # fmt: skip


def until(condition: Callable[[], bool], page: Page, what: str) -> None:
    deadline = time.monotonic() + DEADLINE_S
    while not condition():
        assert time.monotonic() < deadline, what
        page.wait_for_timeout(100)


def grey_levels(screenshot: bytes) -> int:
    return len(np.unique(np.asarray(Image.open(io.BytesIO(screenshot)).convert("L"))))


def test_an_exam_is_opened_from_the_list_and_drawn(library: Library, address: str, browser: Browser) -> None:
    exam(library)
    watched = open_page(browser)
    page = watched.page
    page.goto(address)
    page.get_by_role("link", name="PLANTED, NAME").click()
    canvas = page.locator("canvas.cornerstone-canvas").first
    canvas.wait_for(timeout=DEADLINE_S * 1000)
    until(lambda: grey_levels(canvas.screenshot()) >= GREY_LEVELS, page, "the canvas shows no picture")
    page.screenshot(path=SCREENSHOTS / "viewer.png")
    assert page.get_by_text("Consultation seulement, pas de diagnostic primaire").is_visible()
    assert page.get_by_text("Scrolling Through Images").count() == 0
    assert watched.wrong == []
    hosts = {urlsplit(one).netloc for one in watched.addresses if urlsplit(one).scheme in ("http", "https")}
    assert hosts == {urlsplit(address).netloc}
    assert not [one for one in watched.addresses for value in PLANTED.values() if value in one]
    page.context.close()


def test_the_list_searches_and_refreshes_by_itself(library: Library, address: str, browser: Browser) -> None:
    watched = open_page(browser)
    page = watched.page
    page.goto(address)
    page.get_by_text("No studies yet").wait_for()
    page.screenshot(path=SCREENSHOTS / "empty.png")
    library.add(mr_dataset(1, study=1, PatientName="DUPONT^MARIE"))
    page.get_by_text("DUPONT, MARIE").wait_for(timeout=DEADLINE_S * 1000)
    for study in range(2, 32):
        library.add(mr_dataset(1, study=study, rows=8, columns=8, PatientName=f"DURAND{study}^PAUL"))
    library.conflict(mr_dataset(1, study=40), mr_dataset(1, study=40, seed=3))
    page.get_by_role("button", name="Older").click()
    page.get_by_text("Page 2").wait_for()
    page.locator("#text").fill("durand31")
    page.locator("tbody tr").nth(1).wait_for(state="detached")
    assert page.locator("tbody tr").count() == 1
    assert page.url == f"{address}/"
    assert not [one for one in watched.addresses if "durand" in one.lower()]
    page.locator("#text").fill("")
    page.locator("tbody tr").nth(20).wait_for()
    page.screenshot(path=SCREENSHOTS / "list.png")
    assert watched.wrong == []
    page.context.close()


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_the_list_fits_a_phone(library: Library, address: str, browser: Browser, scheme: str) -> None:
    long_words = {
        "PatientName": "WOJCIECHOWSKA-KOWALCZYKIEWICZ^ALEKSANDRA",
        "StudyDescription": "Angio-IRM_cérébrale" * 3,
    }
    library.add(mr_dataset(1, SpecificCharacterSet="ISO_IR 192", **long_words))
    library.conflict(mr_dataset(1, study=2), mr_dataset(1, study=2, seed=3))
    watched = open_page(browser, 390, 844, color_scheme=scheme, device_scale_factor=2, has_touch=True)
    watched.page.goto(address)
    watched.page.locator("tbody tr").nth(1).wait_for()
    watched.page.screenshot(path=SCREENSHOTS / f"phone-{scheme}.png")
    assert watched.page.evaluate("document.documentElement.scrollWidth") == 390
    assert watched.wrong == []
    watched.page.context.close()


def test_the_list_works_without_scripts(library: Library, address: str, browser: Browser) -> None:
    library.add(mr_dataset(1, study=1, PatientName="DUPONT^MARIE"), mr_dataset(1, study=2, PatientName="DURAND^PAUL"))
    watched = open_page(browser, java_script_enabled=False)
    page = watched.page
    page.goto(address)
    page.locator("#text").fill("marie")
    page.get_by_role("button", name="Search").click()
    page.get_by_text("matching your search").wait_for()
    assert page.locator("tbody tr").count() == 1
    assert page.url == f"{address}/"
    page.context.close()
