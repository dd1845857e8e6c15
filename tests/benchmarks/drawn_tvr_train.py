"""Annotations of TVR's training size, drawn after its val annotations, which are public as its training ones are not.

    python tests/benchmarks/drawn_tvr_train.py --tvr data --out FOLDER
    python utils/mini_tvr.py --annotations FOLDER --out FOLDER --vid_feat_size 3072 --text_feat_size 768

DIR of `--tvr` holds TVR's val annotations and its video2dur file, which also names all 17,435 training videos. Each of
these takes the moments of a val video of the same show and of about the same duration, scaled to its own, and their
types. Sentences are drawn word by word: a word is one that follows the two before it in some val sentence of its type.
They are as long as val's.
How near all of it comes to val is printed.
"""

from __future__ import annotations

import random
from collections import Counter, defaultdict
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from tests.benchmarks.common import generator_options, generator_parser
from utils.basic_utils import command_line, read_json, read_jsonl, write_json, write_jsonl
from utils.dataset_files import durations_path, release_path

PREFIX = "tvr"
END = ""  # what follows a sentence's last word
TRIED = 4000  # sentences, to see how long they become by themselves
MOST_WANTED = 3.0  # times as many of a length as come by themselves
NEAREST = 20  # val videos of a show, by duration, of which one lends its moments
Row = dict[str, Any]


class Sentences:
    """Draws sentences that resemble some others, and are as long as these in as many cases.

    Args:
        like: those others.
        rng: what is drawn with, here already: some sentences, to see how long they become by themselves.
    """

    def __init__(self, like: Sequence[str], rng: random.Random) -> None:
        after_two: dict[tuple[str, str], list[str]] = defaultdict(list)
        after_one: dict[str, list[str]] = defaultdict(list)
        for sentence in like:
            before, last = END, END
            for word in (*sentence.split(), END):
                after_two[before, last].append(word)
                after_one[last].append(word)
                before, last = last, word
        # where but one word follows two, those that follow the last of them: or val would be copied
        self._following = {
            (before, last): words if len(set(words)) > 1 else after_one[last]
            for (before, last), words in after_two.items()
        }
        self._after_one, self._rng = after_one, rng
        wanted = Counter(len(sentence.split()) for sentence in like)
        found = Counter(len(self._words()) for _ in range(TRIED))
        share = {n: wanted[n] / wanted.total() / (times / TRIED) for n, times in found.items()}
        self._kept = {n: min(1.0, value / MOST_WANTED) for n, value in share.items()}

    def draw(self) -> str:
        """A sentence; each word is drawn as often as it follows."""
        while True:
            words = self._words()
            if self._rng.random() < self._kept.get(len(words), 0.0):
                return " ".join(words)

    def _words(self) -> list[str]:
        words: list[str] = []
        before, last = END, END
        while True:  # what was drawn after one word alone may make a new pair
            word = self._rng.choice(self._following.get((before, last)) or self._after_one[last])
            if word == END:
                return words
            words.append(word)
            before, last = last, word


def show_of(vid_name: str) -> str:
    """`friends` of `friends_s01e03_seg02_clip_19`; "" of a show whose videos' names begin with their season."""
    first = vid_name.partition("_")[0]
    return "" if first[:1] == "s" and first[1:2].isdigit() else first


def train_rows(val: Sequence[Row], durations: dict[str, float], first_id: int, seed: int) -> list[Row]:
    """The queries of training videos with these durations in seconds, `desc_id` counted from `first_id`."""
    rng = random.Random(seed)
    kinds = sorted({row["type"] for row in val})
    sentences = {kind: Sentences([row["desc"] for row in val if row["type"] == kind], rng) for kind in kinds}
    of_video: dict[str, list[Row]] = defaultdict(list)
    for row in val:
        of_video[row["vid_name"]].append(row)
    of_show: dict[str, list[list[Row]]] = defaultdict(list)
    for about in of_video.values():
        of_show[show_of(about[0]["vid_name"])].append(about)
    lengths = {show: np.array([about[0]["duration"] for about in videos]) for show, videos in of_show.items()}
    rows: list[Row] = []
    for vid_name, duration in durations.items():
        show = show_of(vid_name)
        near = np.argsort(np.abs(lengths[show] - duration), kind="stable")[:NEAREST]
        for lent in of_show[show][rng.choice(near.tolist())]:
            scale = duration / lent["duration"]
            ts = [round(min(t * scale, duration), 2) for t in lent["ts"]]
            desc = sentences[lent["type"]].draw()
            about = {"vid_name": vid_name, "duration": duration, "ts": ts, "desc": desc, "type": lent["type"]}
            rows.append({**about, "desc_id": first_id + len(rows)})
    return rows


def resemblance(drawn: Sequence[Row], val: Sequence[Row]) -> list[str]:
    """Lines that compare drawn queries with those of val."""
    lines = []
    for name, rows in (("val", val), ("drawn", drawn)):
        words = np.array([len(row["desc"].split()) for row in rows])
        seconds = np.array([row["ts"][1] - row["ts"][0] for row in rows])
        share = seconds / [row["duration"] for row in rows]
        kinds = Counter(row["type"] for row in rows)
        lines += [
            f"{name}: {len({row['vid_name'] for row in rows}):,} videos, {len(rows):,} queries, "
            f"{', '.join(f'{kind} {100 * kinds[kind] / len(rows):.1f} %' for kind in sorted(kinds))}",
            f"  words of a sentence: mean {words.mean():.2f}, 5, 50 and 95 % {_percentiles(words)}",
            f"  seconds of a moment: mean {seconds.mean():.2f}, 5, 50 and 95 % {_percentiles(seconds)}; "
            f"mean share of its video {share.mean():.3f}",
        ]
    said, theirs = ({row["desc"] for row in rows} for rows in (drawn, val))
    ours, wanted = (Counter(word for row in rows for word in row["desc"].split()) for rows in (drawn, val))
    common = sum(min(ours[word] / ours.total(), n / wanted.total()) for word, n in wanted.items())
    return [
        *lines,
        f"drawn sentences: {100 * len(said) / len(drawn):.1f} % are different ones, "
        f"{100 * len(said & theirs) / len(said):.1f} % of these stand in val; {100 * common:.1f} % of the words are as "
        f"frequent as there; {len(ours):,} of {len(wanted):,} words occur",
    ]


def _percentiles(values: np.ndarray) -> str:
    return ", ".join(f"{value:.1f}" for value in np.percentile(values, (5, 50, 95)))


@command_line
def main(argv: Sequence[str] | None = None) -> None:
    """Command line of the generator."""
    parser = generator_parser(__doc__, "training videos")
    parser.add_argument("--tvr", required=True, type=Path, metavar="DIR", help="TVR's val annotations and durations")
    args = generator_options(parser, argv)
    val = list(read_jsonl(release_path(args.tvr, PREFIX, "val")))
    table = read_json(durations_path(args.tvr, PREFIX))
    names = sorted(table["train"])
    chosen = random.Random(args.seed).sample(names, round(args.share * len(names)))
    table = {"train": {name: table["train"][name] for name in sorted(chosen)}, "val": table["val"]}
    durations = {name: round(duration, 2) for name, (duration, _) in table["train"].items()}
    drawn = train_rows(val, durations, 1 + max(row["desc_id"] for row in val), args.seed)
    args.out.mkdir(parents=True, exist_ok=True)
    write_jsonl(drawn, release_path(args.out, PREFIX, "train"))
    write_jsonl(val, release_path(args.out, PREFIX, "val"))
    write_json(table, durations_path(args.out, PREFIX))
    print("\n".join(resemblance(drawn, val)))


if __name__ == "__main__":
    main()
