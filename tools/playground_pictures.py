"""Draws docs/playground*.png: the page in Chromium, with real answers of the bundled model.

Run from the checkout's root: `python tools/playground_pictures.py`. It starts a server of its own and ends it.
"""

import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from PIL import Image
from playwright.sync_api import Browser, Page, sync_playwright

DOCS = Path("docs")
SEED = 1
STEP_SHOWN = 2
WIDE, NARROW = (1280, 720), (375, 812)
COLOURS = 96


@contextmanager
def serving() -> Iterator[str]:
    """Yields the address of a server with the bundled model."""
    command = [str(Path(sys.executable).parent / "redraft"), "serve", "bundled", "--port", "0"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        address = re.search(r"http://\S+", process.stdout.readline())
        assert address is not None, "the server did not start"
        yield address[0]
        process.terminate()


def answered(
    browser: Browser,
    address: str,
    size: tuple[int, int],
    *,
    dark: bool = False,
    compare: bool = False,
    hold: bool = False,
) -> Page:
    """Returns a page whose first example was answered twice: the first time a cold server is slow."""
    page = browser.new_page(
        viewport={"width": size[0], "height": size[1]},
        color_scheme="dark" if dark else "light",
        reduced_motion="reduce",
    )
    page.goto(f"{address}/#seed={SEED}")
    page.select_option("#pace", "0")
    page.wait_for_selector("#examples button")
    for last in (False, True):
        page.set_checked("#compare", compare and last)
        page.set_checked("#hold", hold)
        page.click("#generate")
        page.wait_for_selector('#status:has-text("Finished"), #replay:not([hidden])')
    page.select_option("#pace", "4")
    page.locator("#settings summary").click()
    page.locator("#settings summary").blur()
    page.mouse.move(0, 0)
    return page


def scrub(page: Page, step: int) -> None:
    """Goes to a step, counted from 1."""
    page.press("#step", "Home")
    for _ in range(step - 1):
        page.press("#step", "ArrowRight")


def save(page: Page, name: str, *, whole: bool) -> None:
    """Saves the whole page, or the part of it that is on the screen."""
    path = DOCS / f"{name}.png"
    page.screenshot(path=path, full_page=whole)
    page.close()
    with Image.open(path) as picture:
        small = picture.convert("RGB").quantize(COLOURS, dither=Image.Dither.NONE)
    small.save(path, optimize=True)
    print(f"{path}: {path.stat().st_size / 1000:.0f} kB")


def draw(browser: Browser, address: str) -> None:
    """Draws all pictures."""
    page = answered(browser, address, WIDE)
    scrub(page, STEP_SHOWN)
    page.locator("#step").blur()
    page.hover("#diffusion .cell:nth-child(20)")
    page.evaluate("scrollTo(0, 0)")
    save(page, "playground", whole=False)

    page = answered(browser, address, WIDE, compare=True)
    page.wait_for_selector("#stop:disabled")
    page.evaluate("document.querySelector('section.card').scrollIntoView()")
    save(page, "playground-compare", whole=False)

    draw_schema(browser, address)

    page = answered(browser, address, NARROW, dark=True)
    page.evaluate("document.querySelector('section.card').scrollIntoView()")
    save(page, "playground-narrow", whole=False)


def draw_schema(browser: Browser, address: str) -> None:
    """Draws the canvas of an answer that is held to a schema."""
    page = answered(browser, address, WIDE, hold=True)
    page.evaluate("document.querySelector('#diffusion').scrollIntoView()")
    save(page, "playground-schema", whole=False)


if __name__ == "__main__":
    with serving() as address, sync_playwright() as playwright:
        chromium = playwright.chromium.launch(executable_path=shutil.which("chromium"), args=["--no-sandbox"])
        draw(chromium, address)
        chromium.close()
