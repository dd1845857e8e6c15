"""A folder of videos, subtitle files and sentences -> a corpus: see extract_features.sh.

Each step can be stopped at any moment. The same command goes on, and does again only what depends on files or options
that have changed.
"""

from __future__ import annotations

import argparse
import math
import shutil
import sys
from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any

if not all(map(find_spec, ("method_tvr", "numpy", "torch", "transformers", "h5py", "orjson", "tqdm"))):
    print("error: the project or its packages are missing: type `source setup.sh` in its folder first", file=sys.stderr)
    sys.exit(2)

from utils.basic_utils import parse_first
from utils.own_corpus.command_line import options

if __name__ == "__main__":
    parse_first(options, __doc__)

import torch

from utils.basic_utils import InputError, command_line, first_few, write_jsonl
from utils.dataset_files import named_folder, write_manifest
from utils.feature_files.resumable_features import file_stamp
from utils.inventory.video_folder import Inventory, take_inventory
from utils.model_utils import choose_device, named_when_out_of_memory
from utils.own_corpus.clips import badly_timed, write_clips
from utils.own_corpus.files import (
    check_agreement,
    earlier_record,
    has_types,
    recorded_options,
    refuse_others_files,
    write_annotations,
)
from utils.own_corpus.layout import SCRIPT, Layout, name_in_files
from utils.own_corpus.new_dataset import Models, NewDataset, counted
from utils.own_corpus.queries import (
    fit_to_videos,
    noted,
    other_durations,
    parted,
    past_the_end,
    read_queries,
    with_known_names,
)
from utils.own_corpus.sentences import checked_sentences, extract_sentences, sentence_encoder, why_they_do_not_compare
from utils.own_corpus.settings import MAX_CTX_L, write_settings, write_zero_shot
from utils.own_corpus.shards import (
    device_of,
    extract_frames,
    extract_shard,
    extract_windows,
    finished_parts,
    shard_of,
)
from utils.own_corpus.splits import divide, in_both
from utils.own_corpus.steps import Steps
from utils.own_corpus.subtitle_queries import choose_lines
from utils.own_corpus.summary import told
from utils.own_corpus.unread_subtitles import files_beside, notes_on_tracks
from utils.pretrained.names import PREFIX
from utils.storage.whole_folder import file_digest
from utils.text_feature.command_lines.text_features import QUERY_LENGTH, SUB_LENGTH
from utils.text_feature.convert_sub_feature_word_to_clip import convert
from utils.text_feature.extract_text_features import extract_queries, extract_subtitles
from utils.text_feature.joint.open_encoder import open_text_encoder
from utils.text_feature.preprocess_subtitles import preprocess
from utils.text_feature.text_rows import refuse_clashes, subtitle_lines
from utils.video_feature.extract_i3d_features import I3DModel
from utils.video_feature.i3d_weights import load_i3d
from utils.video_feature.image_models import ImageModel, load_image_model
from utils.video_feature.pipeline import damage_note

FEWEST_CLIPS = 3  # of a video in which a span can be found by default: two clips, and none reaches the video's end


def make_dataset(opt: argparse.Namespace) -> NewDataset:
    """Make all files of a dataset as the options of `main` ask, going on from what is there.

    `InputError` when something given is wrong, or no video can be used.
    """
    queries = read_queries(opt.queries)
    found = _find_videos(opt)
    queries = with_known_names(queries, [*found.taken, *found.failed])
    out, device = named_folder(opt.out), choose_device(opt.device)
    text = open_text_encoder(opt.text_model, opt.layer, QUERY_LENGTH, device, opt.text_batch_size, opt.bf16)
    models = Models(*_load_image_models(opt, device), text)
    layout = _layout(opt, out, models.i3d_name)
    dataset = NewDataset(opt, layout, models, Steps(layout.steps), found, queries)
    if reason := why_they_do_not_compare(models):
        print(f"note: {reason}", file=sys.stderr, flush=True)
        dataset.notes.append(reason)
    left_out = {"I3D": models.i3d is None, "sentences": sentence_encoder(models) is None}
    for step, work in _STEPS.items():
        if not left_out.get(step):
            with dataset.steps.timed(step):
                work(dataset)
    dataset.splits = divide(dataset.queries, dataset.durations, opt.val_share)
    _finish(dataset)
    if opt.remove_intermediate:
        shutil.rmtree(layout.intermediate)
    return dataset


def make_shard(opt: argparse.Namespace) -> str:
    """Extract the features of the videos of one shard, going on from what is there; returns what became of them.

    `InputError` when something given is wrong.
    """
    if opt.remove_intermediate:
        raise InputError("--remove_intermediate: a shard makes nothing else: give it to the run without --shard")
    found, out = _find_videos(opt), named_folder(opt.out)
    shard_of(opt.shard)  # before models are loaded
    image, i3d, i3d_name = _load_image_models(opt, choose_device(device_of(opt)))
    return extract_shard(opt, found.taken, _layout(opt, out, i3d_name), image, i3d)


def _find_videos(opt: argparse.Namespace) -> Inventory:
    _check_options(opt)
    found = take_inventory(opt.videos, [opt.out], [*opt.queries, *([opt.subtitles] if opt.subtitles else [])])
    print(found.summary(), file=sys.stderr, flush=True)
    refuse_clashes(found.taken)
    return found


def _layout(opt: argparse.Namespace, out: Path, i3d_name: str) -> Layout:
    """Where everything goes, which is looked at, and made where it is not there."""
    opt.pool = opt.pool or ("avg" if opt.image_model.startswith(PREFIX) else "max")
    image, text = name_in_files(opt.image_model), name_in_files(opt.text_model)
    layout = Layout(out, image, text, i3d_name, opt.pool, opt.clip_length)
    refuse_others_files(layout)
    layout.intermediate.mkdir(exist_ok=True)
    return layout


def _check_options(opt: argparse.Namespace) -> None:
    for name in ("frame_rate", "clip_length"):
        if not 0 < getattr(opt, name) < math.inf:
            raise InputError(f"--{name} {getattr(opt, name)}: must be above 0")
    if opt.frame_rate * opt.clip_length < 1:
        without = f"leaves clips of {opt.clip_length:g} s without a frame"
        raise InputError(f"--frame_rate {opt.frame_rate:g}: {without}: give at least {1 / opt.clip_length:.2f}")
    if opt.queries_from is not None and opt.subtitles is None:
        raise InputError(f"--queries_from {opt.queries_from}: there are none: give their folder by --subtitles")
    if not 0 <= opt.val_share < 1:
        raise InputError(f"--val_share {opt.val_share}: must be at least 0 and below 1")


def _load_image_models(opt: argparse.Namespace, device: torch.device) -> tuple[ImageModel, I3DModel | None, str]:
    """The models of frames and of windows of frames, and what the latter is called.

    All models are loaded at first, so that one that is missing is told of before hours of work with the others.
    """
    bf16 = opt.bf16 and opt.image_model.startswith(PREFIX)
    image = load_image_model(opt.image_model, opt.image_weights, device=device, bf16=bf16)
    if opt.i3d_weights is None:
        return image, None, ""
    net, weights = load_i3d(opt.i3d_weights)
    name = f"i3d_rgb{weights.n_classes or ''}"  # of Kinetics-400 or 600, by their classifiers
    return image, I3DModel(net, device, opt.i3d_value_range), name


def _read_subtitles(dataset: NewDataset) -> None:
    """Clean subtitle files into one jsonl; without a folder, nobody speaks in any video."""
    opt, path, names = dataset.opt, dataset.layout.subtitles, sorted(dataset.videos)
    if opt.subtitles is None:
        write_jsonl(({"vid_name": name, "sub": []} for name in names), path)
        beside = files_beside(dataset.videos.values())
        there = f", though there is {first_few(beside)} beside them: --subtitles {opt.videos}" if beside else ""
        dataset.notes.append(f"no --subtitles: the subtitle features of all videos are zero{there}")
        dataset.notes += notes_on_tracks(dataset.videos, None)
        return
    report = preprocess(opt.subtitles, names, path, opt.encoding)
    dataset.without_file = report.missing
    dataset.notes += report.summary()
    dataset.note("subtitle files that belong to no video", report.unused)
    silent = {name: dataset.videos[name] for name, n in report.n_lines.items() if not n}
    dataset.notes += notes_on_tracks(silent, Path(opt.subtitles))


def _extract_frames(dataset: NewDataset) -> None:
    opt = dataset.opt
    frames = dataset.layout.frames
    parts = finished_parts(dataset.layout, frames)
    report = extract_frames(opt, dataset.videos, dataset.models.image, frames, parts)
    dataset.durations = {name: round(seconds, 3) for name, seconds in report.durations.items()}
    dataset.notes += [damage_note(report.damaged)] if report.damaged else []
    dataset.fail(report.failed)
    dataset.fail(badly_timed(frames, dataset.durations, opt.frame_rate, opt.clip_length))


def _extract_i3d(dataset: NewDataset) -> None:
    opt, model = dataset.opt, dataset.models.i3d
    assert model is not None
    videos = {name: dataset.videos[name] for name in dataset.durations}
    windows = dataset.layout.i3d_windows
    report = extract_windows(opt, videos, model, windows, finished_parts(dataset.layout, windows))
    dataset.fail(report.failed)


def _make_clips(dataset: NewDataset) -> None:
    opt, layout, names = dataset.opt, dataset.layout, sorted(dataset.durations)
    i3d = layout.i3d_windows if layout.i3d else None
    made_of = {"videos": names, "frames": [file_stamp(path) for path in (layout.frames, i3d) if path is not None]}
    if not dataset.steps.is_done(layout.video, made_of):
        write_clips(SCRIPT, names, layout.frames, i3d, layout.video, opt.clip_length, opt.pool)
        dataset.steps.done(layout.video, made_of)


def _extract_queries(dataset: NewDataset) -> None:
    """Encode the queries that fit the videos; the others are left out."""
    for note, places in noted(dataset.queries).items():
        dataset.note(f"queries: {note}", places)
    dataset.queries, dataset.left_out = fit_to_videos(dataset.queries, dataset.durations, dataset.failed)
    if dataset.opt.queries_from is not None:
        _add_subtitle_lines(dataset)
    if not dataset.queries:
        if dataset.left_out:
            raise InputError(f"no query is about a video that can be used: {dataset.left_out[0]}")
        return
    rows = [{"desc_id": query.desc_id, "desc": query.desc} for query in dataset.queries]
    report = extract_queries(rows, dataset.models.text, dataset.layout.query)
    dataset.queries, failed = parted(dataset.queries, lambda query: report.failed.get(str(query.desc_id)))
    dataset.left_out += failed
    ids = frozenset(report.cut)
    cut = [query.where for query in dataset.queries if str(query.desc_id) in ids]
    dataset.note(f"queries cut to {dataset.models.text.max_tokens} tokens", cut)
    late = past_the_end(dataset.queries, dataset.durations)
    dataset.note("moments that end after their video, clamped to its end when they are read", [q.where for q in late])


def _add_subtitle_lines(dataset: NewDataset) -> None:
    """Make queries of what is said in the videos, after those that people wrote."""
    opt, lines = dataset.opt, subtitle_lines(dataset.layout.subtitles)
    chosen = choose_lines(lines, dataset.durations, opt.clip_length, dataset.queries, opt.val_share)
    dataset.query_sources = {"written": len(dataset.queries), **chosen.record()}
    dataset.queries += chosen.queries
    dataset.notes += chosen.notes()


def _make_sub_clips(dataset: NewDataset) -> None:
    """Encode subtitle lines, and pool their tokens to clips."""
    opt, layout, text = dataset.opt, dataset.layout, dataset.models.text
    # not a stamp of the subtitles, which are written anew in every run
    made_of: dict[str, Any] = {"subtitles": file_digest(layout.subtitles)[:16], "video": file_stamp(layout.video)}
    encoder = text.cut_to(SUB_LENGTH)
    made_of |= encoder.properties()
    if not dataset.steps.is_done(layout.sub, made_of):
        report = extract_subtitles(layout.subtitles, encoder, layout.sub_tokens)
        clips = convert(layout.sub_tokens, layout.subtitles, layout.video, layout.sub, opt.clip_length, opt.pool)
        for name, reason in clips.failed.items():
            raise InputError(f"{layout.sub_tokens}, key {name}: {reason}")
        cut = counted(f"videos with subtitle lines cut to {encoder.max_tokens} tokens", report.cut)
        late = counted("videos with subtitle lines that begin after their end, in no clip", list(clips.past_the_end))
        dataset.steps.done(layout.sub, made_of, cut + late)
    dataset.notes += dataset.steps.notes(layout.sub)


_STEPS = {
    "subtitle files": _read_subtitles,
    "frames": _extract_frames,
    "I3D": _extract_i3d,
    "clips": _make_clips,
    "queries": _extract_queries,
    "subtitles": _make_sub_clips,
    "sentences": extract_sentences,
}


def _finish(dataset: NewDataset) -> None:
    """Check that all features agree, and write what names them."""
    layout, splits = dataset.layout, dataset.splits
    with dataset.steps.timed("check"):
        dataset.n_clips = check_agreement(layout, splits, dataset.durations)
        dataset.sentences = checked_sentences(dataset)
        settings = write_settings(layout, splits, earlier_record(layout, "settings"))
        written = write_annotations(layout, splits, dataset.durations) + ([layout.settings] if settings else [])
        if dataset.sentences:
            written += write_zero_shot(layout, splits, dataset.opt.subtitles is not None)
        else:
            layout.zero_shot.unlink(missing_ok=True)
    silent = [name for name in dataset.without_file if name in dataset.durations]
    dataset.note("videos without a subtitle file, whose subtitle features are zero", silent)
    both = "videos both trained on and evaluated on, which makes the evaluation look better than it is"
    dataset.note(both, in_both(splits))
    others = other_durations(dataset.queries, dataset.durations)
    dataset.note('queries whose "duration" is not that of their video, and was replaced', [q.where for q in others])
    if any(query.content.get("type") is not None for query in dataset.queries):
        untyped = [query.where for query in dataset.queries if not has_types([query])]
        dataset.note('queries without a "type", though others have one, so that types are left out', untyped)
    remedies = "another number: --max_ctx_l; inference can search them in windows: --long_videos windows"
    long = [name for name, n in dataset.n_clips.items() if n > MAX_CTX_L]
    dataset.note(f"videos of more than {MAX_CTX_L} clips, averaged down to so many ({remedies})", long)
    remedies = "shorter spans: --min_pred_l 1; of a single clip: --label_rule best_iou in training as well"
    least = f"a span takes {FEWEST_CLIPS} clips, more than {(FEWEST_CLIPS - 1) * layout.clip_length:g} s"
    # settings of the corpus' own let a single clip be a span
    short = [] if settings or dataset.sentences else [name for name, n in dataset.n_clips.items() if n < FEWEST_CLIPS]
    dataset.note(f"videos too short to be found, as {least} ({remedies})", short)
    features = [layout.video, layout.sub, layout.subtitles, *([layout.query] if dataset.queries else [])]
    write_manifest(
        layout.out,
        layout.prefix,
        [*written, *features, *dataset.sentences],
        made_by=SCRIPT,
        options=recorded_options(vars(dataset.opt)),
        models=dataset.models.record(),
        failed=dataset.failed,
        inventory={"videos": dataset.found.record()},
        settings=settings,
        query_sources=dataset.query_sources,
        left_out=[str(query) for query in dataset.left_out],
        notes=dataset.notes,
    )
    layout.unfinished.unlink()


@command_line
def main(argv: Sequence[str] | None = None) -> None:
    opt = options(__doc__, argv)
    with named_when_out_of_memory(vars(opt), ("image_batch_size", "i3d_batch_size", "text_batch_size", "bf16")):
        print(make_shard(opt) if opt.shard else told(make_dataset(opt)))


if __name__ == "__main__":
    main()
