"""A person at a browser: real Chromium, without a window, on a service with a real registry and scripted experts.

Whatever a test does, the browser's console must stay free of errors and nothing may be asked of another host. ``look`` keeps a picture of
a page in each colour scheme and width (``build/screenshots``), and has axe-core look for what keeps people out.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from api.app import create_app
from api.settings import Settings
from tests.fakes.admin import AdminParts, registry_file
from tests.fakes.served import served
from tests.fakes.services import ADMIN_KEY

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Locator, Page

ROOT = Path(__file__).parents[2]
SHOTS = ROOT / "build" / "screenshots"
AXE = Path(__file__).with_name("axe") / "axe-4.14.1.min.js"
TIMEOUT_MS = 30_000
"""Longest wait for anything on a page: a loaded machine is slow, a broken page never gets there."""
DESKTOP, PHONE = {"width": 1280, "height": 860}, {"width": 390, "height": 844}
_RULES = {"runOnly": {"type": "tag", "values": ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa", "best-practice"]}}
_BROWSERS = ("chromium", "chromium-browser", "google-chrome")


def chromium() -> str | None:
    """The browser's program: the one that ``CONSILIUM_TEST_CHROMIUM`` names, else the machine's."""
    named = os.environ.get("CONSILIUM_TEST_CHROMIUM")
    return named or next((path for name in _BROWSERS if (path := shutil.which(name))), None)


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    """For a module and no longer: while it runs, Playwright holds this thread's event loop."""
    program = chromium()
    if program is None:
        pytest.skip("there is no Chromium here (Debian's package is `chromium`; CONSILIUM_TEST_CHROMIUM names another)")
    pytest.importorskip("playwright.sync_api", reason="Playwright is not installed: make setup")
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        launched = playwright.chromium.launch(executable_path=program, args=["--no-sandbox", "--disable-dev-shm-usage"])
        yield launched
        launched.close()


@pytest.fixture(scope="session")
def filled(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return registry_file(tmp_path_factory.mktemp("registry"))


@pytest.fixture
def parts() -> AdminParts:
    return AdminParts()


@pytest.fixture
def registry(filled: Path, tmp_path: Path) -> Path:
    """The data dir of the service, with a registry that the test may fill further before it asks for ``url``."""
    shutil.copy(filled, tmp_path)
    return tmp_path


@pytest.fixture
def url(parts: AdminParts, registry: Path) -> Iterator[str]:
    app = create_app(Settings(data_dir=registry, _env_file=None), bootstrap=parts.bootstrap)  # type: ignore[call-arg]
    with served(app) as address:
        yield address


@dataclass
class Person:
    """Who uses the pages, and what their browser noticed."""

    page: Page
    url: str
    complaints: list[str] = field(default_factory=list)
    expected: list[str] = field(default_factory=list)
    """Parts of complaints that this test provokes."""

    def watch(self) -> None:
        self.page.set_default_timeout(TIMEOUT_MS)
        self.page.on("console", lambda said: self.complaints.append(said.text) if said.type in {"error", "warning"} else None)
        self.page.on("pageerror", lambda error: self.complaints.append(str(error)))
        self.page.on("request", lambda request: self._seen(request.url))

    def _seen(self, address: str) -> None:
        if not address.startswith((self.url, "data:", "blob:")):
            self.complaints.append(f"asked another host: {address}")

    @property
    def unexpected(self) -> list[str]:
        return [text for text in self.complaints if not any(part in text for part in self.expected)]

    def open(self, path: str) -> None:
        self.page.goto(self.url + path)

    def log_in(self, key: str = ADMIN_KEY, path: str = "/admin") -> None:
        self.open(path)
        self.page.get_by_label("Key").fill(key)
        self.page.get_by_role("button", name="Log in").click()
        self.page.wait_for_url(f"**{path}*")

    def click(self, name: str, role: Any = "button", *, exact: bool = True) -> None:
        self.page.get_by_role(role, name=name, exact=exact).first.click()

    def field(self, label: str) -> Locator:
        return self.page.get_by_label(label, exact=True)

    def sees(self, text: str) -> None:
        """Wait until *text* stands on the page."""
        self.page.get_by_text(text).filter(visible=True).first.wait_for()

    def look(self, name: str) -> None:
        """Keep pictures of the page as it is, and have it looked at: nobody may be kept out, nothing may stick out on a phone."""
        SHOTS.mkdir(parents=True, exist_ok=True)
        page = self.page
        page.evaluate(AXE.read_text())
        for scheme in ("light", "dark"):
            page.emulate_media(color_scheme=scheme, reduced_motion="reduce")  # type: ignore[arg-type]  # one of the two
            found = page.evaluate("rules => axe.run(document, rules)", _RULES)["violations"]
            serious = [
                f"{rule['id']}: {rule['help']}: " + "; ".join(node["html"][:160] for node in rule["nodes"][:4])
                for rule in found
                if rule["impact"] in {"serious", "critical"}
            ]
            assert serious == [], f"{name}, {scheme}"
            for width, size in (("desktop", DESKTOP), ("phone", PHONE)):
                page.set_viewport_size(size)  # type: ignore[arg-type]  # width and height
                page.evaluate("new Promise(done => requestAnimationFrame(() => requestAnimationFrame(done)))")  # charts follow the width
                sticks_out = page.evaluate("document.documentElement.scrollWidth - document.documentElement.clientWidth")
                assert sticks_out <= 0, f"{name}, {width}: {sticks_out} pixels stick out"
                page.screenshot(path=SHOTS / f"{name}-{scheme}-{width}.png", full_page=True)
        page.set_viewport_size(DESKTOP)  # type: ignore[arg-type]
        page.emulate_media(color_scheme="light")


@pytest.fixture
def person(browser: Browser, url: str) -> Iterator[Person]:
    """At the login page's door, with an empty browser. Ends with an error when the browser complained."""
    context = browser.new_context(viewport=DESKTOP, accept_downloads=True)  # type: ignore[arg-type]
    made = Person(context.new_page(), url)
    made.watch()
    yield made
    context.close()
    assert made.unexpected == []


@pytest.fixture
def steward(person: Person) -> Person:
    """A person who is logged in with the admin key."""
    person.log_in()
    return person
