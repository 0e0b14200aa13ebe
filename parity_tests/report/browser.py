"""A page in headless Chromium, at the width of a phone and of a desk, by day and by night."""

import base64
import html
import json
import shutil
import subprocess
from pathlib import Path
from typing import Any

WIDTHS = (360, 1280)
SCHEMES = {"dark": 0, "light": 1}  # Chromium's own numbers
FRAME = """<!DOCTYPE html><style>body {{ margin: 0 }} iframe {{ border: 0; display: block; width: {width}px; height: {height}px }}</style>
<iframe srcdoc></iframe><p></p><script>
const frame = document.querySelector("iframe");
const text = new TextDecoder().decode(Uint8Array.from(atob("{page}"), c => c.charCodeAt(0)));
frame.onload = () => {{
  const inside = frame.contentDocument, root = inside.documentElement, width = frame.clientWidth;
  const cut = e => getComputedStyle(e).display != "inline" && !e.closest("svg") && e.scrollWidth > e.clientWidth + 1;
  const wide = [...inside.querySelectorAll("body *")].filter(e => e.getBoundingClientRect().right > width + 0.5 || cut(e));
  const texts = [...inside.querySelectorAll("dd, pre, p, .map svg")];
  const narrow = texts.filter(e => e.getBoundingClientRect().width < Math.min(width, 640) / 2);
  const colour = getComputedStyle(inside.body).backgroundColor;
  document.querySelector("p").textContent = JSON.stringify({{
    width, colour, scrolled: root.scrollWidth, height: root.scrollHeight,
    wide: wide.map(e => e.outerHTML.slice(0, 120)), narrow: narrow.map(e => e.outerHTML.slice(0, 120)),
  }});
}};
frame.srcdoc = text;
</script>"""


def chromium() -> str:
    """Where it is."""
    for name in ("chromium", "chromium-browser", "google-chrome"):
        if found := shutil.which(name):
            return found
    raise AssertionError("no Chromium here: apt-get install chromium")


def _run(page: Path, folder: Path, *arguments: str, scheme: str, width: int, height: int) -> str:
    """Load a page; what is printed."""
    switches = ["headless", "no-sandbox", "disable-gpu", "hide-scrollbars", "disable-dev-shm-usage", f"user-data-dir={folder / 'profile'}"]
    switches += [f"blink-settings=preferredColorScheme={SCHEMES[scheme]}", f"window-size={width},{height}", *arguments]
    command = [chromium(), *(f"--{switch}" for switch in switches), page.as_uri()]
    return subprocess.run(command, capture_output=True, text=True, check=True, timeout=120).stdout


def _framed(page: Path, folder: Path, width: int, height: int) -> Path:
    """A page that shows this one in a frame: no window of Chromium is as narrow as a phone."""
    frame = folder / f"{page.stem}-{width}.html"
    frame.write_text(FRAME.format(width=width, height=height, page=base64.b64encode(page.read_bytes()).decode()))
    return frame


def measure(page: Path, folder: Path, scheme: str, width: int) -> dict[str, Any]:
    """What the browser makes of a page: its `width`, how wide it is `scrolled`, what is too `wide` or too `narrow`, the page's `colour`."""
    printed = _run(_framed(page, folder, width, 800), folder, "dump-dom", scheme=scheme, width=1280, height=800)
    return json.loads(html.unescape(printed.rpartition("<p>")[2].partition("</p>")[0]))


def picture(page: Path, folder: Path, scheme: str, width: int, height: int = 3000) -> Path:
    """The page as a PNG, from its top."""
    taken = folder / f"{page.stem}-{width}-{scheme}.png"
    _run(_framed(page, folder, width, height), folder, f"screenshot={taken}", scheme=scheme, width=max(width, 500), height=height)
    return taken
