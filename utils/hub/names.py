"""Names of repositories on the Hugging Face hub as they are typed: `org/name`, or `org/name@revision`."""

from __future__ import annotations

import re
from typing import NamedTuple

FORM = re.compile(r"(\w[\w.-]{0,95}/\w[\w.-]{0,95})(?:@(\w[\w./-]{0,95}))?", re.ASCII)


class HubName(NamedTuple):
    """A repository, and which state of it: a branch, a tag or a commit; None for its newest."""

    repository: str
    revision: str | None = None

    def __str__(self) -> str:
        return self.repository if self.revision is None else f"{self.repository}@{self.revision}"

    @property
    def as_folder(self) -> str:
        """The repository's name as that of a folder."""
        return self.repository.replace("/", "--")


def hub_name(text: str) -> HubName | None:
    """What a text names; None where no repository can be called so, as `..` and `--` are no part of such names."""
    found = FORM.fullmatch(text)
    if not found or ".." in text or "--" in found[1] or found[1].endswith(".git"):
        return None
    return HubName(found[1], found[2])
