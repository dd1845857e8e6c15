"""The words of the embedded corpus, read from `lexicon.json`: its small world, and how English speaks of it.

Whatever has several names lists them with the one that stands for the concept first. A verb is a pair
(third person, -ing form); only its first word carries the meaning ("looks at" is `looks`). The order of all words
decides what is drawn from them.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, NamedTuple

from utils.basic_utils import read_json

Verb = tuple[str, str]
Names = tuple[str, ...]


class Show(NamedTuple):
    """A series: its characters (name -> what they are called otherwise) and where it plays."""

    characters: dict[str, str]
    places: Names


class Action(NamedTuple):
    """Something done with an object: its verbs and the groups of objects it can be done with."""

    verbs: tuple[Verb, ...]
    groups: Names


class SpeechAct(NamedTuple):
    """A way of talking: how a description calls it and what is said."""

    verbs: tuple[Verb, ...]
    lines: tuple[str, ...]


def _with_tuples(value: Any) -> Any:
    """JSON with tuples for its lists: what is drawn has to be hashable."""
    if isinstance(value, dict):
        return {key: _with_tuples(inner) for key, inner in value.items()}
    return tuple(map(_with_tuples, value)) if isinstance(value, list) else value


_WORDS = _with_tuples(read_json(Path(__file__).with_suffix(".json")))

SHOWS = {name: Show(**show) for name, show in _WORDS["shows"].items()}
PLACES: tuple[Names, ...] = _WORDS["places"]
OPEN_PLACES = frozenset(_WORDS["open_places"])  # one is on them, not in them
OBJECT_GROUPS: dict[str, tuple[Names, ...]] = _WORDS["objects"]
ACTIONS = tuple(Action(**act) for act in _WORDS["actions"])
TOPICS: dict[Names, tuple[Names, ...]] = {topic["names"]: topic["details"] for topic in _WORDS["topics"]}
SPEECH_ACTS = tuple(SpeechAct(**act) for act in _WORDS["speech_acts"])
SMALL_TALK: tuple[str, ...] = _WORDS["small_talk"]
# Words that say little by themselves; their vectors are short, so that they weigh less in a pooled clip.
FUNCTION_WORDS = frozenset(" ".join(_WORDS["function_words"]).split())


def known_words() -> list[tuple[str, str, str]]:
    """(word, concept, category) of each word that means something; its synonyms and inflections share the concept."""
    groups: list[tuple[str, Names]] = [
        ("person", names) for show in SHOWS.values() for names in show.characters.items()
    ]
    groups += [("place", names) for names in PLACES]
    groups += [("object", names) for group in OBJECT_GROUPS.values() for names in group]
    for category, acts in (("action", ACTIONS), ("speech", SPEECH_ACTS)):
        groups += [(category, tuple(form for verb in act.verbs for form in verb)) for act in acts]
    groups += [("topic", names) for topic, details in TOPICS.items() for names in (topic, *details)]
    return [
        (name.split()[0].lower(), names[0].split()[0].lower(), category) for category, names in groups for name in names
    ]
