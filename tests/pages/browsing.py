"""A browser for tests of pages: Debian's Chromium, and axe's rules of accessibility."""

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from importlib.resources import files
from pathlib import Path
from typing import Any

from playwright.async_api import Browser, BrowserContext, ConsoleMessage, Error, Page, async_playwright

from tests.processes import PACKAGES

CHROMIUM = Path("/usr/bin/chromium")
ARGUMENTS = ["--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage"]
AXE = files("axe_playwright_python").joinpath("axe.min.js").read_text()
RULES = ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa", "wcag22aa", "best-practice"]
COLOR_RULES = ["color-contrast", "link-in-text-block"]

WIDTHS = (1280, 390, 320)  # 320 is 1280 at a zoom of 400 %


@asynccontextmanager
async def a_browser() -> AsyncIterator[Browser]:
    if not CHROMIUM.exists():
        message = f"{CHROMIUM} is not installed: {PACKAGES}"
        raise FileNotFoundError(message)
    async with async_playwright() as playwright:
        browser = await playwright.chromium.launch(executable_path=CHROMIUM, args=ARGUMENTS)
        try:
            yield browser
        finally:
            await browser.close()


@dataclass
class Site:
    """A running service, and a browser in which somebody may have signed in to it."""

    browser: Browser
    url: str
    token: str
    cookies: Any = None  # of ada, who has signed in
    contexts: list[BrowserContext] = field(default_factory=list)  # of visitors
    examiners: dict[int, Page] = field(default_factory=dict)  # by width; starting one takes a second

    async def visitor(
        self,
        scheme: str = "light",
        width: int = 1280,
        *,
        signed_in: bool = True,
        zone: str = "Europe/Berlin",
        **how: Any,
    ) -> Page:
        """A new visitor, with nothing open. Without scripts: `java_script_enabled=False`."""
        if signed_in and self.cookies is None:
            page = await self.visitor(signed_in=False)
            await self.sign_in(page)
            self.cookies = await page.context.storage_state()
        page = await self._new_page(scheme, width, self.cookies if signed_in else None, zone, **how)
        self.contexts.append(page.context)
        return page

    async def examiner(self, width: int) -> Page:
        """A visitor who has signed in and stays until the browser is closed."""
        if width not in self.examiners:
            self.examiners[width] = await self._new_page("light", width, self.cookies, "Europe/Berlin")
        return self.examiners[width]

    async def _new_page(self, scheme: str, width: int, cookies: Any, zone: str, **how: Any) -> Page:
        context = await self.browser.new_context(
            base_url=self.url,
            color_scheme="dark" if scheme == "dark" else "light",
            viewport={"width": width, "height": 900},
            timezone_id=zone,
            storage_state=cookies,
            **how,
        )
        context.set_default_timeout(30_000)
        return await context.new_page()

    async def sign_in(self, page: Page, path: str = "/login") -> None:
        await page.goto(path)
        await page.get_by_label("Token").fill(self.token)
        await page.get_by_label("Your name").fill("ada")
        await page.get_by_role("button", name="Sign in").click()

    async def close(self) -> None:
        for context in self.contexts:
            await context.close()
        self.contexts.clear()


@dataclass(frozen=True)
class Finding:
    """What is wrong with a page at one width."""

    width: int
    what: str


async def examine(site: Site, path: str, widths: Sequence[int] = WIDTHS) -> list[Finding]:
    """Everything that is wrong with a page at any width, in light and in dark colors: rules of accessibility, messages
    in the console such as violations of the Content-Security-Policy, and overflow. The widths are opened side by side.
    """
    await site.visitor()  # signs in once
    found = await asyncio.gather(*(_examine(site, path, width) for width in widths))
    return [finding for each in found for finding in each]


async def _examine(site: Site, path: str, width: int) -> list[Finding]:
    page = await site.examiner(width)
    messages: list[str] = []

    def on_console(message: ConsoleMessage) -> None:
        if message.type in {"error", "warning"}:
            messages.append(message.text)

    def on_error(error: Error) -> None:
        messages.append(str(error))

    page.on("console", on_console)
    page.on("pageerror", on_error)
    await page.emulate_media(color_scheme="light")
    response = await page.goto(path)
    if response is None or response.status != 200:
        messages.append(f"status {response and response.status}")
    messages += await page.evaluate(_OVERFLOW)
    await page.evaluate(_UNFOLD)  # what is folded must follow the rules too
    # Evaluated by the debugger, which the Content-Security-Policy allows; a script element would be refused.
    await page.evaluate(AXE)
    messages += await page.evaluate(_VIOLATIONS, RULES)
    await page.emulate_media(color_scheme="dark")
    # Only colors differ in dark, see test_stylesheet.
    messages += [f"dark: {message}" for message in await page.evaluate(_VIOLATIONS, COLOR_RULES)]
    page.remove_listener("console", on_console)
    page.remove_listener("pageerror", on_error)
    return [Finding(width, message) for message in messages]


_OVERFLOW = """() => {
    const root = document.documentElement;
    return root.scrollWidth > root.clientWidth ? [`overflows by ${root.scrollWidth - root.clientWidth} px`] : [];
}"""
_UNFOLD = "() => document.querySelectorAll('details').forEach(details => { details.open = true })"
_VIOLATIONS = """async (rules) => {
    const found = await axe.run(document, {runOnly: rules, resultTypes: ["violations"]});
    return found.violations.map(each => `${each.id}: ${each.nodes.map(node => node.target).slice(0, 3).join(", ")}`);
}"""
