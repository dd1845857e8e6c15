"""Names of videos as several systems and people spell them."""

from __future__ import annotations

import difflib
import unicodedata
from collections.abc import Iterable, Iterator
from functools import cached_property
from pathlib import Path


def folded(name: str) -> str:
    """A name without its Unicode form, case, kinds and runs of spaces, and what is not seen (joiners, soft hyphens)."""
    seen = (" " if unicodedata.category(character) == "Zs" else character for character in name)
    text = "".join(character for character in seen if unicodedata.category(character) != "Cf")
    return " ".join(unicodedata.normalize("NFC", unicodedata.normalize("NFC", text).casefold()).split())


# what is nearly the same is looked for among so many names, of so many letters, so often: it takes a second in all
MOST_NAMES, LONGEST, MOST_SEARCHES = 1000, 255, 30


class Names:
    """The names of videos that are there; iterable, and `in` is exact."""

    def __init__(self, names: Iterable[str]) -> None:
        self._names = frozenset(names)
        self._searched: dict[str, list[str]] = {}

    def __contains__(self, name: object) -> bool:
        return name in self._names

    def __iter__(self) -> Iterator[str]:
        return iter(self._names)

    def known(self, name: str) -> str | None:
        """The name that is there, or else the only one that looks like it; None if there is none, or several."""
        if name in self._names:
            return name
        alike = self._by_look.get(folded(name), [])
        return alike[0] if len(alike) == 1 else None

    def nearest(self, name: str, limit: int = 3) -> list[str]:
        """Names that may be meant: the same without a suffix, or nearly the same; none where that would take long."""
        if (stem := self.known(Path(name).stem)) is not None:
            return [stem]
        look = folded(name[:LONGEST])
        is_quick = len(self._names) <= MOST_NAMES and len(self._searched) < MOST_SEARCHES
        if look not in self._searched and is_quick:
            near = difflib.get_close_matches(look, self._by_look, n=limit)
            self._searched[look] = [found for each in near for found in self._by_look[each]][:limit]
        return self._searched.get(look, [])

    @cached_property
    def _by_look(self) -> dict[str, list[str]]:
        looks: dict[str, list[str]] = {}
        for name in sorted(self._names):
            looks.setdefault(folded(name), []).append(name)
        return looks
