"""Links in the project's pages lead somewhere: files are there, and headings are called as the links say."""

from __future__ import annotations

import re
import subprocess
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
FENCED = re.compile(r"^ *(```+).*?^ *\1 *$", re.MULTILINE | re.DOTALL)
LINK = re.compile(r"\]\(([^()\s]+)\)")
HEADING = re.compile(r"^#+ +(.+?) *$", re.MULTILINE)


def _pages() -> list[str]:
    """Markdown files that are committed or about to be; without git, those outside folders that git ignores."""
    asked = subprocess.run(
        ["git", "ls-files", "--cached", "--others", "--exclude-standard", "*.md"],
        cwd=ROOT,
        capture_output=True,
        text=True,
    )
    if asked.returncode == 0:
        return sorted(name for name in asked.stdout.splitlines() if (ROOT / name).is_file())
    found = (path.relative_to(ROOT) for path in ROOT.rglob("*.md"))
    return sorted(str(path) for path in found if not any(part.startswith(".") for part in path.parts))


@cache
def _prose(page: Path) -> str:
    return FENCED.sub("", page.read_text(encoding="utf-8"))


@cache
def _anchors(page: Path) -> set[str]:
    """What GitHub calls the headings of a page: lower case, hyphens for spaces, punctuation left out."""
    anchors: set[str] = set()
    for heading in HEADING.findall(_prose(page)):
        name = re.sub(r"[^\w\- ]", "", LINK.sub("]", heading).lower()).replace(" ", "-")
        number = 1
        anchor = name
        while anchor in anchors:
            anchor, number = f"{name}-{number}", number + 1
        anchors.add(anchor)
    return anchors


@pytest.mark.parametrize("name", _pages())
def test_links_lead_to_files_and_headings_that_exist(name):
    page = ROOT / name
    broken = []
    for link in LINK.findall(_prose(page)):
        if re.match(r"[a-z]+:", link):
            continue
        path, _, anchor = link.partition("#")
        target = (page.parent / path).resolve() if path else page
        if not target.exists() or (anchor and anchor not in _anchors(target)):
            broken.append(link)
    assert broken == []
