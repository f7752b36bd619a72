"""Check every link, picture, script and anchor of the built pages that leads to another of their files.

    python docs/contributing/check_links.py docs/_build/html

Links to other sites are checked for their form alone; ``make links`` opens them. The exit status is 1 if a link is
broken.
"""

from __future__ import annotations

import sys
from collections import defaultdict
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urlsplit

TARGETS = {"a": "href", "link": "href", "img": "src", "script": "src", "source": "src", "object": "data"}


class Page(HTMLParser):
    """The links of a page and the names that links can lead to.

    Attributes
    ----------
    links : list of str
    anchors : set of str
    """

    def __init__(self, text: str) -> None:
        super().__init__()
        self.links: list[str] = []
        self.anchors: set[str] = {"", "top"}
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        """Keep a link and an anchor."""
        values = dict(attrs)
        link = values.get(TARGETS.get(tag, ""))
        if link is not None:
            self.links.append(link)
        self.anchors |= {name for name in (values.get("id"), values.get("name")) if name}


def fault_of(link: str, path: Path, pages: dict[Path, Page]) -> str | None:
    """Say what is wrong with a link on the page of a path; None if nothing is."""
    parts = urlsplit(link)
    if parts.scheme in ("data", "mailto", "javascript"):
        return None
    if parts.scheme or parts.netloc:
        return None if parts.scheme in ("http", "https") and "." in parts.netloc else "no address of the web"
    target = path if not parts.path else (path.parent / unquote(parts.path)).resolve()
    if target.is_dir():
        target = target / "index.html"
    if not target.is_file():
        return "no such file"
    if target in pages and unquote(parts.fragment) not in pages[target].anchors:
        return "no such anchor"
    return None


def main(folder: Path) -> int:
    """Print the broken links of the pages in a folder, each with the pages that it is on."""
    paths = sorted(path.resolve() for path in folder.rglob("*.html") if "_static" not in path.parts)
    pages = {path: Page(path.read_text(encoding="utf-8")) for path in paths}
    broken = defaultdict(list)
    for path, page in pages.items():
        for link in dict.fromkeys(page.links):
            fault = fault_of(link, path, pages)
            if fault:
                broken[link, fault].append(str(path.relative_to(folder.resolve())))
    for (link, fault), on in broken.items():
        print(f"{link}: {fault}, on {', '.join(on[:3])}{' and others' if len(on) > 3 else ''}")
    n_links = sum(len(page.links) for page in pages.values())
    print(f"{n_links} links on {len(pages)} pages, {len(broken)} broken")
    return int(bool(broken) or not pages)


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1])))
