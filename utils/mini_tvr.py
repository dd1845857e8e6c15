"""An embedded corpus in TVR's exact file forms, made in seconds, because TVR's features (33 GB) cannot be shipped.

    python utils/mini_tvr.py --out data/mini

It is a small world with a language, not noise: shows, characters, places, actions and objects (`lexicon`), stories and
what people write about them (`world`), their features (`word_vectors`, `features`). Validation and test videos hold
combinations of character, action and object, and of speaker, topic and detail, that training never shows.

With `--no_subtitles` there are neither subtitles nor their features, and all queries are about what is seen: one about
what is said could only be guessed at.

With `--vid_feat_types joint` clips, subtitles and sentences are vectors of one space (`joint_space`), for a model that
is not trained.

With `--annotations DIR` it makes features for real annotations instead (`annotations`).
"""

from __future__ import annotations

import argparse
import itertools
import random
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict
from importlib.util import find_spec
from pathlib import Path
from typing import Any

if not all(map(find_spec, ("method_tvr", "numpy", "h5py", "orjson", "tqdm"))):
    print("error: the project or its packages are missing: type `source setup.sh` in its folder first", file=sys.stderr)
    sys.exit(2)

import numpy as np

from standalone_eval.files.parts import part_folder
from utils.basic_utils import (
    PROJECT_ROOT,
    InputError,
    StrPath,
    check_room,
    command_line,
    first_few,
    note_once,
    progress,
    write_json,
    write_jsonl,
)
from utils.dataset_files import (
    durations_path,
    manifest_path,
    release_path,
    subtitles_path,
    usable_folder,
    write_manifest,
)
from utils.mini_corpus.annotations import ANNOTATED_SPLITS, generate_for_annotations
from utils.mini_corpus.features import VideoSpace, n_clips, overlap, scene_latents, subtitle_features
from utils.mini_corpus.files import (
    Standing,
    count_split,
    feature_paths,
    features_size,
    new_corpus_features,
    refuse_others_files,
    settings_record,
    standing,
    sub_feature_path,
)
from utils.mini_corpus.joint_space import JointSpace
from utils.mini_corpus.ranking import RANKING, write_ranking
from utils.mini_corpus.settings import JOINT, VID_FEAT_TYPES, FeatureSettings, MiniSettings, generating_command
from utils.mini_corpus.word_vectors import LATENT_SIZE, WordVectors, named_seed
from utils.mini_corpus.world import QUERY_TYPES, SPLITS, Video, make_queries, make_video
from utils.storage.whole_folder import put_in_place

N_TEST_CHALLENGE = 5  # TVR has a fourth split of videos without queries; a few keep readers honest
DEFAULT_OUT = PROJECT_ROOT / "data" / "mini"


# For tests: all of the corpus' forms in about a second.
TINY = MiniSettings(n_train=20, n_val=10, n_test=5, vid_feat_size=24, text_feat_size=16)


def generate(out: StrPath, settings: MiniSettings | None = None) -> dict[str, Any]:
    """Generate a corpus anew; its manifest comes last, so that one that was killed meanwhile is told from a whole one.

    Args:
        out: folder for the files, which replace those of an earlier corpus with the same prefix.
        settings: `MiniSettings()` if None.

    Returns:
        The summary that is also written to `{prefix}_made_by.json`: settings, counts, files and their sizes in bytes.

    Raises:
        InputError: settings or folder cannot be used.
    """
    settings = settings or MiniSettings()
    settings.check()
    folder, prefix = usable_folder(out), settings.prefix
    made = [*feature_paths(folder, prefix, settings, settings.subtitles), durations_path(folder, prefix)]
    made += [release_path(folder, prefix, split) for split in SPLITS]
    refuse_others_files(folder, prefix, made)
    manifest_path(folder, prefix).unlink(missing_ok=True)

    videos = all_videos(settings)
    clips = sum(n_clips(video.duration) for video in videos)
    check_room(folder, features_size(settings, clips, settings.subtitles))
    rows = _query_rows(settings, videos)
    _write_features(folder, settings, videos, rows)
    paths = [durations_path(folder, prefix)]
    write_json(_durations(videos), paths[0])
    if settings.subtitles:
        paths.append(subtitles_path(folder, prefix))
        subs = {video.vid_name: list(map(vars, video.lines)) for video in videos}
        write_jsonl(({"vid_name": name, "sub": sub} for name, sub in subs.items()), paths[-1])
    else:  # those of an earlier corpus would not be this one's
        for path in (subtitles_path(folder, prefix), sub_feature_path(folder, prefix)):
            path.unlink(missing_ok=True)
    for split, split_rows in rows.items():
        paths.append(release_path(folder, prefix, split))
        write_jsonl(_released(settings.seed, split, split_rows), paths[-1])
    seconds = {split: [video.duration for video in videos if video.split == split] for split in SPLITS}
    held = {split: count_split(seconds[split], rows.get(split, [])) for split in SPLITS}
    paths += feature_paths(folder, prefix, settings, settings.subtitles)
    return write_manifest(folder, prefix, paths, **settings_record(settings), counts=held)


def all_videos(settings: MiniSettings) -> list[Video]:
    """The videos of all splits, one split after another."""
    counts = (settings.n_train, settings.n_val, settings.n_test, N_TEST_CHALLENGE)
    numbers = [(split, number) for split, n in zip(SPLITS, counts, strict=True) for number in range(n)]
    return [make_video(settings.seed, split, number) for split, number in numbers]


def ensure(out: StrPath, settings: MiniSettings) -> None:
    """Generate a corpus in a folder where there is nothing yet; what is there is never replaced.

    Files that were changed since they were made are used, and said. A run that is killed meanwhile leaves nothing.

    Raises:
        InputError: the folder cannot be used, or a file of the corpus that is there is missing.
    """
    found = _ensured(out, settings.prefix, lambda part: generate(part, settings))
    if found.missing:
        command = generating_command(out, settings.prefix, found.settings or asdict(settings))
        again = f"remove the folder, or have all of its files written again by `{command}`"
        raise InputError(f"{_lacking(out, found)}: put that back, {again}")


def ensure_ranking(out: StrPath, mini: StrPath) -> None:
    """Generate `mini_ranking` as `ensure` does, and the mini corpus that it is about, in a folder of its own.

    An `InputError` also where the mini corpus that is there was made with other settings.
    """
    settings = MiniSettings()
    ensure(mini, settings)
    if standing(mini, settings.prefix).settings != settings_record(settings)["settings"]:
        raise InputError(f"{mini}: was made with other settings than {RANKING} is about: move it, to have it made anew")
    found = _ensured(out, RANKING, lambda part: write_ranking(part, settings, all_videos(settings)))
    if found.missing:
        raise InputError(f"{_lacking(out, found)}: put that back, or remove the folder, to have it made again")


def _ensured(out: StrPath, prefix: str, write: Callable[[Path], object]) -> Standing:
    """Write a corpus where there is nothing yet, and say how the one that is there differs from what was made."""
    folder = usable_folder(out).resolve()
    if not any(folder.iterdir()):
        print(f"generating the {prefix} corpus in {out}")
        with part_folder(usable_folder(folder.parent), f".{folder.name}.") as part:
            write(part)
            put_in_place(part, folder, gives_way=lambda: False)
    found = standing(folder, prefix)
    if found.outdated:
        note_once(f"{out}: was made by another version of the generator: used as it is")
    if found.changed:
        note_once(f"{out}: changed since it was made, and used as it is: {first_few(found.changed)}")
    return found


def _lacking(out: StrPath, found: Standing) -> str:
    return f"{out}: is not replaced, and lacks {first_few(found.missing)}"


def _query_rows(settings: MiniSettings, videos: Sequence[Video]) -> dict[str, list[dict[str, Any]]]:
    """The rows of each split that has queries, with desc_ids counted over all of them."""
    rows: dict[str, list[dict[str, Any]]] = {split: [] for split in SPLITS if split != "test_challenge"}
    desc_ids = itertools.count()
    for video in videos:
        if video.split not in rows:
            continue
        about = {"vid_name": video.vid_name, "duration": video.duration}
        for query in make_queries(settings.seed, video, settings.queries_per_video, settings.subtitles):
            asked = {"ts": list(query.ts), "desc": query.desc, "type": query.type, "desc_id": next(desc_ids)}
            rows[video.split].append({**about, **asked})
    return rows


def _released(seed: int, split: str, rows: Sequence[dict[str, Any]]) -> Iterator[dict[str, Any]]:
    """The rows as published: in a mixed order, and without their answers in test_public."""
    mixed = random.Random(named_seed(seed, split, "order")).sample(rows, len(rows))
    for row in mixed:
        yield {key: row[key] for key in ("desc", "desc_id")} if split == "test_public" else row


def _durations(videos: Sequence[Video]) -> dict[str, dict[str, list[float]]]:
    """`{split: {vid_name: [duration, idx]}}`, splits and videos in alphabetical order as in TVR."""
    durations: dict[str, dict[str, list[float]]] = {split: {} for split in sorted(SPLITS)}
    for idx, video in enumerate(sorted(videos, key=lambda video: (video.split, video.vid_name))):
        durations[video.split][video.vid_name] = [video.duration, idx]
    return durations


def _write_features(
    folder: Path, settings: MiniSettings, videos: Sequence[Video], rows: dict[str, list[dict[str, Any]]]
) -> None:
    words, joint = WordVectors(settings.seed, settings.text_feat_size), JointSpace(settings.seed)
    space = VideoSpace(settings.seed, settings.vid_feat_size)
    with new_corpus_features(folder, settings.prefix, settings, settings.subtitles) as features:
        for video in progress(videos, "features of videos"):
            spans = np.array([(scene.start, scene.end) for scene in video.scenes])
            shares = overlap(spans, video.duration)  # (L, S)
            shown = np.einsum("ls,srd->lrd", shares, scene_latents(video.scenes, words))
            clips, name = n_clips(video.duration), video.vid_name
            features.put_video(name, joint.clips(name, shown) if settings.joint else space.clip_features(name, shown))
            if settings.joint and settings.subtitles:
                features.put_subtitles(name, *joint.subtitles(video.lines, clips))
            elif settings.subtitles:
                features.put_subtitles(name, *subtitle_features(name, video.lines, clips, words))
        for split_rows in rows.values():
            for row in split_rows:
                encode = joint.sentence if settings.joint else words.encode
                features.put_query(row["desc_id"], encode(row["desc"]))


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add = parser.add_argument
    add("--out", help=f"folder for the files; {DEFAULT_OUT} if left out, required with --annotations")
    add("--seed", type=int, help=f"default {MiniSettings.seed}")
    for name in ("n_train", "n_val", "n_test"):
        add(f"--{name}", type=int, help=f"videos, default {getattr(MiniSettings, name)}")
    add("--queries_per_video", type=int, help=f"default {MiniSettings.queries_per_video}")
    add(
        "--vid_feat_size",
        type=int,
        help=f"appearance and motion halves together, 2 : 1; default {MiniSettings.vid_feat_size}, TVR's is 3072",
    )
    add("--text_feat_size", type=int, help=f"default {MiniSettings.text_feat_size}, TVR's is 768")
    add(
        "--vid_feat_types",
        nargs="+",
        choices=(*VID_FEAT_TYPES, JOINT),
        help="video feature files: both halves, appearance, motion; default all three, with --annotations resnet_i3d; "
        f"or {JOINT} alone: clips, subtitles and sentences as vectors of one space",
    )
    add(
        "--no_subtitles",
        dest="subtitles",
        action="store_false",
        default=None,
        help="a corpus in which nobody speaks: no subtitle files, all queries of type v; train on it with "
        "--ctx_mode video_tef or video",
    )
    add("--prefix", help="how the files' names begin; default mini, or that of the annotations")
    add("--annotations", metavar="DIR", help="make features for the annotations (jsonl, video2dur) in DIR")
    add("--splits", nargs="+", choices=ANNOTATED_SPLITS, help="with --annotations: default all with a jsonl")
    return parser


def print_summary(out: Path, summary: dict[str, Any]) -> None:
    """Print what was made: videos, hours, clips and queries of each split, files and their sizes."""
    for split, counts in summary["counts"].items():
        types = " ".join(f"{kind} {counts['types'][kind]}" for kind in QUERY_TYPES if kind in counts["types"])
        print(
            f"{split:15s} {counts['videos']:6d} videos {counts['hours']:8.2f} h {counts['clips']:8d} clips "
            f"{counts['queries']:7d} queries  {types}"
        )
    for path in summary.get("annotations", []):
        print(f"annotations     {path}")
    for name, size in summary["files"].items():
        print(f"{size / 2**20:9.2f} MiB  {out / name}")


@command_line
def main(argv: Sequence[str] | None = None) -> None:
    options = {key: value for key, value in vars(_parser().parse_args(argv)).items() if value is not None}
    annotations, splits = options.pop("annotations", None), options.pop("splits", None)
    named = "out" in options
    out = Path(options.pop("out", "" if annotations else DEFAULT_OUT))
    if "vid_feat_types" in options:
        options["vid_feat_types"] = tuple(dict.fromkeys(options["vid_feat_types"]))
        if options["vid_feat_types"] == (JOINT,):
            options = {"vid_feat_size": LATENT_SIZE, "text_feat_size": LATENT_SIZE, **options}
    if annotations is None:
        if splits:
            raise InputError("--splits: is for --annotations; sizes of the splits are --n_train --n_val --n_test")
        mini_settings = MiniSettings(**options)
        if not named and out.is_dir() and any(out.iterdir()):
            raise InputError(f"{out}: is there already: give --out {out} to have its files written again")
        print_summary(out, generate(out, mini_settings))
        return
    if out == Path():
        raise InputError("--out: is needed with --annotations: give the folder for the feature files")
    prefix = options.pop("prefix", None)
    unused = [name for name in options if name not in FeatureSettings.__dataclass_fields__]
    if unused:
        name = "no_subtitles" if unused[0] == "subtitles" else unused[0]
        raise InputError(f"--{name}: has no meaning with --annotations, which decide it: leave it out")
    if options.get("vid_feat_types") == (JOINT,):
        raise InputError(f"--vid_feat_types {JOINT}: is of the generated corpus: leave --annotations out")
    settings = FeatureSettings(**{"vid_feat_types": ("resnet_i3d",), **options})
    print_summary(out, generate_for_annotations(annotations, out, settings, prefix, splits))


if __name__ == "__main__":
    main()
