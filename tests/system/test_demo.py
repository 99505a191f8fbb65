"""The two commands of the README and what a physician then sees, in a real browser. Its screenshots are the README's.

To renew them: ``.venv/bin/pytest tests/system/test_demo.py && cp build/screenshots/readme-*.png docs/images/``.
"""

from __future__ import annotations

from playwright.sync_api import Browser

from tests.cli.test_up import House
from tests.dicomweb.test_browser import DEADLINE_S, GREY_LEVELS, SCREENSHOTS, browser, grey_levels, open_page, until

__all__ = ["browser"]
SERIES = 3


def test_the_demo_exam_from_the_list_to_the_screen(house: House, browser: Browser) -> None:
    with house.up():
        for seed, slices in (("20", "12"), ("7", "24")):
            said = house.run("demo", "--seed", seed, "--slices", slices, "--json")
            assert said.returncode == 0, said.stderr
        address = f"http://127.0.0.1:{house.http_port}"
        phone = open_page(browser, 390, 844, device_scale_factor=2, has_touch=True)
        phone.page.goto(address)
        phone.page.locator("tbody tr").nth(1).wait_for()
        assert phone.page.evaluate("document.documentElement.scrollWidth") == 390
        phone.page.screenshot(path=SCREENSHOTS / "readme-phone.png")
        watched = open_page(browser, 1280, 420)
        page = watched.page
        page.goto(address)
        page.locator("tbody tr").nth(1).wait_for()
        page.screenshot(path=SCREENSHOTS / "readme-list.png")
        page.set_viewport_size({"width": 1280, "height": 800})
        page.get_by_role("link", name="Phantom, Demo 0007").click()
        canvas = page.locator("canvas.cornerstone-canvas").first
        canvas.wait_for(timeout=DEADLINE_S * 1000)
        page.get_by_role("button", name="Confirm and hide").click()
        until(lambda: grey_levels(canvas.screenshot()) >= GREY_LEVELS, page, "the canvas shows no picture")
        thumbnails = page.locator("[data-cy^=study-browser-thumbnail] img")
        until(lambda: thumbnails.count() == SERIES, page, "not every series has its thumbnail")
        page.wait_for_load_state("networkidle")
        page.screenshot(path=SCREENSHOTS / "readme-viewer.png")
        assert watched.wrong == phone.wrong == []
        logs = "".join(path.read_text() for path in (house.folder / "logs").iterdir())
        assert "Phantom" not in logs and "DEMO-00000007" not in logs and "resource_read" in logs


def test_a_tablet_held_upright_shows_the_picture(house: House, browser: Browser) -> None:
    with house.up():
        assert house.run("demo", "--seed", "7", "--slices", "2").returncode == 0
        watched = open_page(browser, 820, 1180, has_touch=True)
        page = watched.page
        page.goto(f"http://127.0.0.1:{house.http_port}")
        page.get_by_role("link", name="Phantom").click()
        canvas = page.locator("canvas.cornerstone-canvas").first
        canvas.wait_for(timeout=DEADLINE_S * 1000)
        until(lambda: grey_levels(canvas.screenshot()) >= GREY_LEVELS, page, "the canvas shows no picture")
        page.wait_for_load_state("networkidle")
        box = canvas.bounding_box()
        assert box and box["width"] > 700, "a panel takes the picture's width"
        assert page.get_by_text("Consultation only, not for primary diagnosis").is_visible()
        assert watched.wrong == []
