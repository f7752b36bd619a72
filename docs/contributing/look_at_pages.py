"""Open every built page in a browser at three widths, light and dark, and report what is wrong.

    pip install playwright
    python docs/contributing/look_at_pages.py docs/_build/html --browser /usr/bin/chromium
    python docs/contributing/look_at_pages.py docs/_build/html --only 'index|api' --pictures pictures

The pages are served from this machine, and every other address is refused, as without a network. Reported are: errors
in the console, requests that leave the machine or fail, pictures that do not load, formulas that stay TeX, pages that
scroll sideways, elements that stick out of the window, and code or tables cut at the right in the widest window. The
exit status is the number of pages with a fault, 100 at most.
"""

from __future__ import annotations

import argparse
import re
import sys
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread

WIDTHS = 400, 800, 1280  # CSS pixels
HEIGHT = 900
THEMES = "light", "dark"

FAULTS = """(widest) => {
    const faults = [], width = document.documentElement.clientWidth;
    const name = (e) => e.tagName.toLowerCase() + [...e.classList].map((c) => "." + c).join("") + " '" +
        (e.textContent || e.alt || "").trim().slice(0, 40).replace(/\\s+/g, " ") + "'";
    const scrolls = (e) => e && e !== document.body && e !== document.documentElement &&
        (/auto|scroll|hidden|clip/.test(getComputedStyle(e).overflowX) || scrolls(e.parentElement));
    if (document.documentElement.scrollWidth > width)
        faults.push(`page scrolls sideways: ${document.documentElement.scrollWidth} > ${width}`);
    const main = document.querySelector("main") || document.body;
    let out = [...main.querySelectorAll("*")].filter((e) => e.checkVisibility() &&
        e.getBoundingClientRect().width > 1 && e.getBoundingClientRect().right > width + 1 &&
        !scrolls(e.parentElement) && !e.closest("mjx-assistive-mml"));
    out = out.filter((e) => !out.includes(e.parentElement));
    for (const e of out.slice(0, 5)) faults.push(`sticks out: ${name(e)}`);
    if (widest)
        for (const e of main.querySelectorAll("pre, .pst-scrollable-table-container, .output_html, div.math"))
            if (e.checkVisibility() && e.scrollWidth > e.clientWidth + 1 && e.clientWidth > 0)
                faults.push(`cut at the right: ${name(e)} ${e.scrollWidth} > ${e.clientWidth}`);
    for (const e of document.images)
        if (e.checkVisibility() && (!e.complete || e.naturalWidth === 0)) faults.push(`no picture: ${e.src}`);
    for (const e of document.querySelectorAll(".math"))
        if (!e.querySelector("mjx-container")) faults.push(`formula not drawn: ${name(e)}`);
    if (document.querySelector("mjx-merror, [data-mjx-error]")) faults.push("formula with an error");
    return faults;
}"""


class Quiet(SimpleHTTPRequestHandler):
    """A server that says nothing."""

    def log_message(self, format: str, *args: object) -> None:
        pass


def serve(folder: Path) -> ThreadingHTTPServer:
    """Serve the folder from a free port of this machine, in a thread."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), partial(Quiet, directory=str(folder)))
    Thread(target=server.serve_forever, daemon=True).start()
    return server


def look(browser, base: str, path: str, pictures: Path | None) -> list[str]:
    """Give what is wrong with one page, and keep its pictures."""
    context = browser.new_context(viewport={"width": WIDTHS[-1], "height": HEIGHT})
    faults: list[str] = []
    context.route(re.compile(rf"^(?!{re.escape(base)}|data:|blob:)"), lambda route: route.abort())
    page = context.new_page()
    page.on("console", lambda message: faults.append(f"console: {message.text}") if message.type == "error" else None)
    page.on("pageerror", lambda error: faults.append(f"script: {error}"))
    page.on("requestfailed", lambda request: faults.append(f"request failed: {request.url}"))
    page.on("response", lambda reply: faults.append(f"{reply.status}: {reply.url}") if reply.status >= 400 else None)
    page.goto(f"{base}/{path}", wait_until="load")
    page.evaluate("document.querySelectorAll('img').forEach((image) => { image.loading = 'eager' })")
    page.evaluate("window.MathJax && MathJax.startup && MathJax.startup.promise")
    page.wait_for_load_state("networkidle")
    for theme in THEMES:
        page.evaluate(
            "(theme) => { document.documentElement.dataset.theme = theme }",
            theme,
        )
        for width in WIDTHS:
            page.set_viewport_size({"width": width, "height": HEIGHT})
            page.wait_for_timeout(50)
            faults += [f"{width} {theme}: {fault}" for fault in page.evaluate(FAULTS, width == WIDTHS[-1])]
            if pictures:
                name = f"{path.removesuffix('.html').replace('/', '.')}_{width}_{theme}.png"
                page.screenshot(path=pictures / name, full_page=True)
    context.close()
    return list(dict.fromkeys(faults))


def main() -> int:
    """Look at all pages, print what is wrong and give the number of pages with a fault."""
    from playwright.sync_api import sync_playwright

    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, help="what `make docs` built")
    parser.add_argument("--browser", help="a Chromium; without it, the one that playwright installs")
    parser.add_argument("--only", default="", help="a regular expression that a page's path contains")
    parser.add_argument("--pictures", type=Path, help="a folder for a picture of each page, width and theme")
    options = parser.parse_args()
    if options.pictures:
        options.pictures.mkdir(parents=True, exist_ok=True)
    paths = sorted(str(path.relative_to(options.folder)) for path in options.folder.rglob("*.html"))
    paths = [path for path in paths if not path.startswith(("_static", "_downloads")) and re.search(options.only, path)]
    server = serve(options.folder)
    base = f"http://127.0.0.1:{server.server_port}"
    n_faulty = 0
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=options.browser, args=["--no-sandbox", "--disable-gpu"])
        for path in paths:
            faults = look(browser, base, path, options.pictures)
            n_faulty += bool(faults)
            if faults:
                print(path, *faults, sep="\n    ", flush=True)
        browser.close()
    server.shutdown()
    print(f"{len(paths)} pages, {n_faulty} with a fault")
    return min(n_faulty, 100)


if __name__ == "__main__":
    sys.exit(main())
