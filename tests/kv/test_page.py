"""The page in a real browser: it shows the cluster, the merged log and the keys, and needs nothing else."""

from __future__ import annotations

import shutil
import socket
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest
import trio

import craft
from examples.kv import serving, settings
from tests.kv.redis import Connection

playwright = pytest.importorskip("playwright.sync_api")
BROWSER = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")

pytestmark = [
    pytest.mark.system,
    pytest.mark.skipif(BROWSER is None, reason="chromium is not installed"),
]

SCREENS = {"desktop": (1280, 900), "phone": (390, 844)}


class Seen:
    """An open page, what it complained of, and the store behind it."""

    def __init__(self, page: Any, url: str, redis_port: int) -> None:
        self.page, self.url, self.redis_port = page, url, redis_port
        self.complaints: list[str] = []
        self.requests: list[str] = []
        page.on("console", lambda message: self.complaints.append(message.text))
        page.on("pageerror", lambda error: self.complaints.append(str(error)))
        page.on("request", lambda request: self.requests.append(request.url))
        page.goto(url)
        self.wait("#state", "live")

    def wait(self, selector: str, text: str) -> Any:
        """Until an element has this text."""
        found = self.page.locator(selector, has_text=text).first
        found.wait_for()
        return found

    def redis(self, *args: bytes) -> bytes:
        """One command, through the other port."""
        connection = Connection(self.redis_port)
        try:
            return connection.ask(*args)
        finally:
            connection.close()


@contextmanager
def opened(url: str, redis_port: int, screen: str) -> Iterator[Seen]:
    """The page on a screen."""
    width, height = SCREENS[screen]
    with playwright.sync_playwright() as starter:
        # Its sandbox needs rights that a container or root has not; it sees our own page only.
        browser = starter.chromium.launch(executable_path=BROWSER, args=["--no-sandbox"])
        try:
            yield Seen(browser.new_page(viewport={"width": width, "height": height}), url, redis_port)
        finally:
            browser.close()


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as free:
        port: int = free.getsockname()[1]
    return port


async def look(screen: str, story: Callable[[Seen], None]) -> None:
    """A server of one, with both ports; the browser lives in a thread."""
    found = settings.Settings(
        craft=craft.Config(cluster="kv", server_id=1, servers={1: f"127.0.0.1:{free_port()}"}),
        redis_listen=settings.Address("127.0.0.1", 0),
        http_listen=settings.Address("127.0.0.1", 0),
    )

    def in_browser(url: str, redis_port: int) -> None:
        with opened(url, redis_port, screen) as seen:
            story(seen)

    async with serving.running(found) as store:
        await store.store.server.wait_ready()
        url = f"http://127.0.0.1:{store.http.port}/"
        await trio.to_thread.run_sync(in_browser, url, store.house.port)


@pytest.mark.parametrize("screen", SCREENS)
async def test_the_page_shows_the_cluster_the_log_and_the_keys(screen: str) -> None:
    """What is written through Redis is seen, by one page that fits and asks nobody but its server."""

    def story(seen: Seen) -> None:
        seen.wait("#cards article", "server 1 leads")
        seen.wait("#servers tbody tr", "this one")
        seen.redis(b"SET", b"fruit:apple", b"green")
        seen.wait("#log li", "SET fruit:apple green")
        seen.page.fill("#prefix", "fruit:")
        seen.wait("#list tbody tr", "green")
        seen.wait("#rungs tbody tr:has-text('persisted')", ".")
        seen.page.wait_for_selector("#rate-plot path.line", state="attached")
        assert seen.page.evaluate("document.documentElement.scrollWidth <= innerWidth")
        assert {url for url in seen.requests if not url.startswith(seen.url)} == set()
        assert seen.complaints == []

    await look(screen, story)


async def test_entries_have_the_colour_of_their_group() -> None:
    """In the log and on the card alike."""

    def story(seen: Seen) -> None:
        seen.redis(b"SET", b"a", b"1")
        entry = seen.wait("#log li", "SET a 1").locator(".chip")
        card = seen.page.locator("#cards .chip", has_text=entry.text_content())
        colour = "element => getComputedStyle(element).backgroundColor"
        assert entry.evaluate(colour) == card.evaluate(colour) != "rgba(0, 0, 0, 0)"

    await look("desktop", story)


async def test_a_long_list_of_keys_comes_in_pages() -> None:
    """Forth and back."""

    def story(seen: Seen) -> None:
        seen.redis(b"MSET", *[part for n in range(30) for part in (b"k%02d" % n, b"v")])
        seen.page.fill("#prefix", "k")
        seen.wait("#list button", "k00")
        seen.page.click("#next")
        seen.wait("#list button", "k29")
        assert seen.page.is_disabled("#next")
        seen.page.click("#back")
        seen.wait("#list button", "k00")

    await look("desktop", story)


async def test_a_text_is_changed_unless_somebody_else_was_faster() -> None:
    """With the keyboard alone; what expires keeps its time."""

    def story(seen: Seen) -> None:
        seen.redis(b"SET", b"a", b"1", b"EX", b"1000")
        seen.page.fill("#prefix", "a")
        seen.wait("#list button", "a").press("Enter")
        seen.wait("#facts", "version")
        seen.page.fill("#value", "2")
        seen.page.press("#save", "Enter")
        seen.wait("#told", "saved")
        assert seen.redis(b"GET", b"a") == b"$1\r\n2\r\n"
        assert seen.redis(b"TTL", b"a") != b":-1\r\n"
        seen.redis(b"SET", b"a", b"3")
        seen.page.fill("#value", "4")
        seen.page.press("#save", "Enter")
        seen.wait("#told", "a watched key has another version")
        assert seen.redis(b"GET", b"a") == b"$1\r\n3\r\n"

    await look("desktop", story)


@pytest.mark.parametrize("name", [".", "..", "a/../b", "?", "ключ"])
async def test_a_key_may_have_any_name(name: str) -> None:
    """Also one that a browser takes out of a path."""

    def story(seen: Seen) -> None:
        seen.redis(b"MSET", b"", b"nameless", name.encode() + b"x", b"another")
        seen.page.click("#fresh")
        for value in ("1", "2"):
            seen.page.fill("#key", name) if value == "1" else None
            seen.page.fill("#value", value)
            seen.page.press("#save", "Enter")
            seen.wait("#told", "saved")
            assert seen.redis(b"GET", name.encode()) == b"$1\r\n%b\r\n" % value.encode()
        seen.page.click("#fresh")
        seen.page.fill("#key", name)
        seen.page.press("#save", "Enter")
        seen.wait("#told", "there is a key of this name")
        assert seen.redis(b"GET", b"") == b"$8\r\nnameless\r\n"
        assert seen.complaints == []

    await look("desktop", story)


async def test_what_is_in_a_key_is_text_and_never_markup() -> None:
    """Whoever writes a key runs nothing in the browser of whoever looks."""

    def story(seen: Seen) -> None:
        name = b"<img src=x onerror=alert(1)>"
        seen.redis(b"SET", name, name)
        seen.redis(b"HSET", b"<b>", b"<i>", b"\xff")
        seen.wait("#log li", name.decode())
        seen.page.fill("#prefix", "<")
        seen.wait("#list button", "<b>").click()
        seen.wait("#facts", "hash, to read only")
        assert seen.page.input_value("#value") == "<i>: base64:/w=="
        assert seen.page.locator("img, #list b, #list i").count() == 0
        assert seen.complaints == []

    await look("desktop", story)


async def test_a_lost_connection_is_shown_and_comes_back() -> None:
    """What happened meanwhile is then seen."""

    def story(seen: Seen) -> None:
        seen.page.context.set_offline(True)
        seen.wait("#lost", "does not answer")
        seen.redis(b"SET", b"meanwhile", b"1")
        seen.page.context.set_offline(False)
        seen.wait("#state", "live")
        seen.page.locator("#lost").wait_for(state="hidden")
        seen.wait("#log li", "SET meanwhile 1")

    await look("desktop", story)
