"""The items of ``items.md``."""

from __future__ import annotations

import re
from functools import cache
from pathlib import Path
from typing import NamedTuple

ITEMS = Path(__file__).with_name("items.md")
LINE = re.compile(
    r"(?P<number>\d+)\. \[(?P<modes>any|both|embedded|daemon)(?:; needs (?P<needs>[^]]+))?\] "
    r"(?P<title>.+)"
)
BOTH = ("embedded", "daemon")


class Item(NamedTuple):
    """One item: ``modes`` are those that it must be shown in, empty if the mode is irrelevant."""

    number: int
    title: str
    modes: tuple[str, ...]
    needs: str


@cache
def items() -> dict[int, Item]:
    """All items by their number."""
    found = {}
    for line in ITEMS.read_text().splitlines():
        if not line[:1].isdigit():
            continue
        match = LINE.fullmatch(line)
        assert match, f"{ITEMS}: not an item: {line}"
        number = int(match["number"])
        assert number not in found, f"{ITEMS}: twice: {number}"
        modes = {"any": (), "both": BOTH}.get(match["modes"], (match["modes"],))
        found[number] = Item(number, match["title"], modes, match["needs"] or "")
    return found
