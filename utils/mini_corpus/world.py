"""The stories of the embedded corpus: what happens and is said in each video, and what people write about it.

Everything about one video follows from the seed, its split and its number, never from the size of the corpus.
"""

from __future__ import annotations

import itertools
import random
from dataclasses import dataclass

from utils.mini_corpus.lexicon import (
    ACTIONS,
    OBJECT_GROUPS,
    OPEN_PLACES,
    PLACES,
    SHOWS,
    SMALL_TALK,
    SPEECH_ACTS,
    TOPICS,
    Action,
    SpeechAct,
)
from utils.mini_corpus.word_vectors import named_seed

SPLITS = ("train", "val", "test_public", "test_challenge")
QUERY_TYPES = ("v", "t", "vt")
TYPE_SHARES = (0.74, 0.09, 0.17)  # as in TVR
# Moments of kind t and vt are longer in TVR (13.8 and 10.8 s, v 8.3 s): scenes are drawn by length to this power.
TYPE_LENGTH_POWER = {"v": 0.0, "t": 0.7, "vt": 0.3}

MEDIAN_DURATION, DURATION_SPREAD = 72.0, 0.35  # seconds, and sigma of the log; TVR's videos have a median of 77 s
MIN_DURATION, MAX_DURATION = 24.0, 180.0
LONG_VIDEO_EVERY, LONG_VIDEO_AT, LONG_DURATION = 50, 7, (196.0, 240.0)  # one video in 50 is past 128 clips
MEDIAN_SCENE, SCENE_SPREAD = 5.3, 0.9  # TVR's moments: half under 5.1 s, a mean of 9.2 s
MIN_SCENE, MAX_SCENE = 1.2, 60.0

KEEP_PLACE, KEEP_ACTOR, KEEP_ACTION, KEEP_ITEM = 0.75, 0.5, 0.2, 0.25  # what the next scene shares with the last one
SPOKEN_SHARE = 0.65  # scenes with dialogue; the others are silent
HELD_OUT_ONE_IN = 5  # one combination in five is never seen in training
HELD_OUT_SCENES = 0.5  # share of the scenes of all other splits that show (or say) such a combination
MAX_DRAWS = 1000  # a fitting scene is found in a handful of draws; more means that the world has become too small


@dataclass(frozen=True)
class Line:
    """One line of dialogue; times in seconds."""

    text: str
    start: float
    end: float


@dataclass(frozen=True)
class Speech:
    """What a scene's dialogue is about."""

    speaker: str
    topic: tuple[str, ...]
    detail: tuple[str, ...]
    act: SpeechAct
    lines: tuple[Line, ...]


@dataclass(frozen=True)
class Sight:
    """What a scene shows: somebody doing something with an object, somewhere, with others present."""

    place: tuple[str, ...]
    actor: str
    others: tuple[str, ...]
    action: Action
    item: tuple[str, ...]


@dataclass(frozen=True)
class Scene:
    """A stretch of a video [start, end] in seconds, with one thing happening in it."""

    start: float
    end: float
    sight: Sight
    speech: Speech | None


@dataclass(frozen=True)
class Video:
    """A video of the corpus; duration in seconds."""

    vid_name: str
    split: str
    show: str
    duration: float
    scenes: tuple[Scene, ...]

    @property
    def lines(self) -> list[Line]:
        """All lines of dialogue in time order."""
        return [line for scene in self.scenes if scene.speech for line in scene.speech.lines]


@dataclass(frozen=True)
class Query:
    """A sentence about the moment `ts` [start, end] in seconds of its video."""

    desc: str
    ts: tuple[float, float]
    type: str


def seen_combination(sight: Sight) -> tuple[str, ...]:
    """Character, action and object of a scene: the combination that is held out, or not, from training."""
    return (sight.actor, sight.action.verbs[0][0], sight.item[0])


def said_combination(speech: Speech) -> tuple[str, ...]:
    """Character, topic and detail of a dialogue: held out, or not, from training."""
    return (speech.speaker, speech.topic[0], speech.detail[0])


def is_held_out(seed: int, combination: tuple[str, ...]) -> bool:
    """Whether a combination never occurs in the training split; the same for every corpus of this seed."""
    return named_seed(seed, "held out", *combination) % HELD_OUT_ONE_IN == 0


def video_name(split: str, number: int) -> tuple[str, str]:
    """Show and vid_name (`show_s01e02_seg02_clip_03`) of a split's video; episodes spread over the splits as in TVR."""
    rest, show = divmod(number * len(SPLITS) + SPLITS.index(split), len(SHOWS))
    rest, clip = divmod(rest, 20)
    season, episode = divmod(rest, 12)
    name = list(SHOWS)[show]
    return name, f"{name}_s{season + 1:02d}e{episode + 1:02d}_seg02_clip_{clip:02d}"


def make_video(seed: int, split: str, number: int) -> Video:
    """The `number`-th video (from 0) of a split."""
    show, vid_name = video_name(split, number)
    rng = random.Random(named_seed(seed, vid_name, "plot"))
    if number % LONG_VIDEO_EVERY == LONG_VIDEO_AT:
        duration = rng.uniform(*LONG_DURATION)
    else:
        duration = min(max(MEDIAN_DURATION * rng.lognormvariate(0, DURATION_SPREAD), MIN_DURATION), MAX_DURATION)
    duration = round(duration, 2)
    bounds = _scene_bounds(rng, duration)
    longest = max(range(len(bounds) - 1), key=lambda i: bounds[i + 1] - bounds[i])
    scenes: list[Scene] = []
    seen: set[tuple[str, ...]] = set()
    for i, (start, end) in enumerate(itertools.pairwise(bounds)):
        sight = _draw_sight(rng, seed, split, show, scenes[-1].sight if scenes else None, seen)
        seen.add(seen_combination(sight))
        # the longest scene always has dialogue, so that every video can be asked about what is said
        spoken = rng.random() < SPOKEN_SHARE or i == longest
        speech = _draw_speech(rng, seed, split, sight, start, end) if spoken else None
        scenes.append(Scene(start, end, sight, speech))
    return Video(vid_name, split, show, duration, tuple(scenes))


def _scene_bounds(rng: random.Random, duration: float) -> list[float]:
    bounds = [0.0]
    while True:
        length = min(max(MEDIAN_SCENE * rng.lognormvariate(0, SCENE_SPREAD), MIN_SCENE), MAX_SCENE)
        end = round(bounds[-1] + length, 2)
        if end > duration - MIN_SCENE:
            return [*bounds, duration]
        bounds.append(end)


def _wants_held_out(rng: random.Random, split: str) -> bool:
    return split != "train" and rng.random() < HELD_OUT_SCENES


def _draw_sight(
    rng: random.Random, seed: int, split: str, show: str, last: Sight | None, seen: set[tuple[str, ...]]
) -> Sight:
    characters, show_places = SHOWS[show]
    held_out = _wants_held_out(rng, split)
    for _ in range(MAX_DRAWS):
        place: tuple[str, ...] = rng.choice([names for names in PLACES if names[0] in show_places])
        actor = rng.choice(list(characters))
        others = tuple(rng.sample([name for name in characters if name != actor], rng.choice((0, 1, 1, 2))))
        action = rng.choice(ACTIONS)
        if last is not None:
            place = last.place if rng.random() < KEEP_PLACE else place
            action = last.action if rng.random() < KEEP_ACTION else action
            if rng.random() < KEEP_ACTOR:
                actor, others = last.actor, last.others
        items: list[tuple[str, ...]] = [names for group in action.groups for names in OBJECT_GROUPS[group]]
        item: tuple[str, ...] = rng.choice(items)
        if last is not None and last.item in items and rng.random() < KEEP_ITEM:
            item = last.item
        sight = Sight(place, actor, others, action, item)
        combination = seen_combination(sight)
        if combination not in seen and is_held_out(seed, combination) == held_out:
            return sight
    raise RuntimeError(f"no new scene for {show} in {MAX_DRAWS} draws: the world is too small")


def _draw_speech(rng: random.Random, seed: int, split: str, sight: Sight, start: float, end: float) -> Speech:
    held_out = _wants_held_out(rng, split)
    for _ in range(MAX_DRAWS):
        speaker = rng.choice((sight.actor, *sight.others))
        topic, details = rng.choice(list(TOPICS.items()))
        speech = Speech(speaker, topic, rng.choice(details), rng.choice(SPEECH_ACTS), ())
        if is_held_out(seed, said_combination(speech)) == held_out:
            break
    else:
        raise RuntimeError(f"no dialogue for {sight.actor} in {MAX_DRAWS} draws: the world is too small")
    lines = tuple(_draw_lines(rng, speech, sight, start, end))
    return Speech(speech.speaker, speech.topic, speech.detail, speech.act, lines)


def _draw_lines(rng: random.Random, speech: Speech, sight: Sight, start: float, end: float) -> list[Line]:
    """Lines of 1.2 to 4 s with pauses: the first one, and most others, are about the topic."""
    others = [name for name in (sight.actor, *sight.others) if name != speech.speaker]
    lines: list[Line] = []
    at = start + rng.uniform(0, 0.1) * (end - start)
    while not lines or at < end - 1.0:
        until = min(at + rng.uniform(1.2, 4.0), end)
        if not lines or rng.random() < 0.6:
            said = rng.choice(speech.act.lines).format(topic=rng.choice(speech.topic), detail=rng.choice(speech.detail))
            text = f"{speech.speaker} : {said}"
        else:
            by = rng.choice(others) if others else speech.speaker
            text = f"{by} : {rng.choice(SMALL_TALK).format(name=speech.speaker if others else 'everybody')}"
        lines.append(Line(text, round(at, 2), round(until, 2)))
        at = until + rng.uniform(0.0, 1.5)
    return lines


def make_queries(seed: int, video: Video, count: int, with_speech: bool = True) -> list[Query]:
    """Sentences about a video's scenes, of types v, t and vt; two about the same scene only when scenes run out.

    Without `with_speech` all are of type v: about what is seen.
    """
    rng = random.Random(named_seed(seed, video.vid_name, "queries"))
    asked: set[Scene] = set()
    queries = []
    for _ in range(count):
        kind = rng.choices(QUERY_TYPES, TYPE_SHARES)[0] if with_speech else "v"
        able = [scene for scene in video.scenes if kind == "v" or scene.speech]
        fresh = [scene for scene in able if scene not in asked] or able
        weights = [(scene.end - scene.start) ** TYPE_LENGTH_POWER[kind] for scene in fresh]
        scene = rng.choices(fresh, weights)[0]
        asked.add(scene)
        queries.append(_describe(rng, video.show, scene, kind))
    return queries


def _describe(rng: random.Random, show: str, scene: Scene, kind: str) -> Query:
    whole = (scene.start, scene.end)
    if kind == "v" or scene.speech is None:
        return Query(_say_what_is_seen(rng, show, scene.sight), whole, kind)
    if kind == "vt":
        return Query(_say_both(rng, show, scene.sight, scene.speech), whole, kind)
    lines = scene.speech.lines
    return Query(_say_what_is_said(rng, show, scene.sight, scene.speech), (lines[0].start, lines[-1].end), kind)


def _person(rng: random.Random, show: str, name: str) -> str:
    return f"the {SHOWS[show].characters[name]}" if rng.random() < 0.15 else name


def _sentence(text: str) -> str:
    return text[0].upper() + text[1:] + "."


def _say_what_is_seen(rng: random.Random, show: str, sight: Sight) -> str:
    who, item = _person(rng, show, sight.actor), rng.choice(sight.item)
    at = f"{'on' if sight.place[0] in OPEN_PLACES else 'in'} the {rng.choice(sight.place)}"
    does, doing = rng.choice(sight.action.verbs)
    where = f" {at}" if rng.random() < 0.4 else ""
    tail = f" while {_person(rng, show, sight.others[0])} watches" if sight.others and rng.random() < 0.3 else ""
    templates = (
        f"{who} {does} the {item}{where}{tail}",
        f"{who} is {doing} the {item}{where}{tail}",
        f"{at}, {who} {does} the {item}{tail}",
        f"{who} walks in and {does} the {item}{where}",
        f"the {item} is there and {who} {does} it{where}{tail}",
    )
    return _sentence(rng.choices(templates, (5, 3, 1, 1, 1))[0])


def _say_what_is_said(rng: random.Random, show: str, sight: Sight, speech: Speech) -> str:
    who, topic, detail = _person(rng, show, speech.speaker), rng.choice(speech.topic), rng.choice(speech.detail)
    does, doing = rng.choice(speech.act.verbs)
    heard = [name for name in (sight.actor, *sight.others) if name != speech.speaker]
    to = f" to {_person(rng, show, heard[0])}" if heard and rng.random() < 0.4 else ""
    templates = (
        f"{who} {does} the {detail} of the {topic}{to}",
        f"{who} is {doing} the {topic} and the {detail}{to}",
        f"{who} talks{to}, {doing} the {detail} and the {topic}",
        f"{who} {does} the {detail}{to}",
    )
    return _sentence(rng.choices(templates, (4, 3, 2, 1))[0])


def _say_both(rng: random.Random, show: str, sight: Sight, speech: Speech) -> str:
    actor, speaker = _person(rng, show, sight.actor), _person(rng, show, speech.speaker)
    item, topic, detail = rng.choice(sight.item), rng.choice(speech.topic), rng.choice(speech.detail)
    does, doing = rng.choice(sight.action.verbs)
    says, saying = rng.choice(speech.act.verbs)
    matter = rng.choice((f"the {topic}", f"the {detail}", f"the {detail} of the {topic}"))
    if sight.actor != speech.speaker:
        templates: tuple[str, ...] = (
            f"{actor} {does} the {item} while {speaker} {says} {matter}",
            f"{speaker} is {saying} {matter} as {actor} {does} the {item}",
        )
    else:
        templates = (
            f"{actor} {does} the {item} while {saying} {matter}",
            f"{actor} {says} {matter} and {does} the {item}",
            f"{actor} is {doing} the {item} and {says} {matter}",
        )
    return _sentence(rng.choice(templates))
