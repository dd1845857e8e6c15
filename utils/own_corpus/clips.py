"""Video features of a dataset, a row a clip: frames pooled and, where there are I3D features, these beside them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path

from utils.basic_utils import progress
from utils.feature_files.feature_file import FeatureFile, new_feature_file
from utils.feature_files.provenance import Property, joined, made_from, properties
from utils.video_feature.convert_feature_frm_to_clip import as_pooled, frame_times, frames_to_clips, pooled_properties
from utils.video_feature.merge_align_i3d import align
from utils.video_feature.normalize_and_concat import concat

CLIPS_APART = 2.0  # one because a clip can be cut short, one because the last frame looked at lies before the end


def badly_timed(
    frames_h5: Path, durations: Mapping[str, float], frame_rate: float, clip_length: float
) -> dict[str, str]:
    """Videos that have far more or fewer frames than their duration has room for, each with what is wrong.

    The file is `{vid_name: (n_frames, D)}`; durations and clip_length are in seconds, frame_rate in frames a second.
    """
    wrong = {}
    with FeatureFile(frames_h5) as frames:
        for name, seconds in durations.items():
            looked_at = frames.form(name)[0] / frame_rate
            if abs(looked_at - seconds) > CLIPS_APART * clip_length:
                both = f"has frames for {looked_at:.2f} s, but lasts {seconds:.2f} s"
                wrong[name] = f"{name}: {both}: are its timestamps right?"
    return wrong


def write_clips(
    script: str, names: Sequence[str], frames_h5: Path, i3d_h5: Path | None, out_h5: Path, clip_length: float, pool: str
) -> None:
    """Write `{vid_name: (n_clips, D)}`, whole or not at all: what the three conversion scripts give one after another.

    Args:
        script: that writes it, for the file's record.
        names: videos that both files have.
        frames_h5: `{vid_name: (n_frames, D1)}`, with its frame_rate in its attributes.
        i3d_h5: `{vid_name: (n_windows, D2)}`, one window a clip; None for frames alone.
        clip_length: seconds.
        pool: "max" or "avg", of frames.
    """
    with ExitStack() as opened:
        frames, *others = (opened.enter_context(FeatureFile(path)) for path in (frames_h5, i3d_h5) if path is not None)
        attributes = [file.made_by() for file in (frames, *others)]
        rate = float(properties(attributes[0])["frame_rate"])
        record = made_from(attributes, script, "video", ["numpy"], **_properties(attributes, clip_length, pool))
        widths = [file.width() for file in (frames, *others)]
        out = opened.enter_context(new_feature_file(out_h5, **record))
        for name in progress(names, "clips"):
            array = as_pooled(frames.read(name, widths[0]), attributes[0], pool)
            clips = frames_to_clips(array, frame_times(len(array), rate), clip_length, pool)
            for i3d in others:
                clips = concat(clips, align(i3d.read(name, widths[1]), len(clips)))
            out.put(name, clips)


def _properties(attributes: Sequence[dict[str, Property]], clip_length: float, pool: str) -> dict[str, Property]:
    """The decisive properties of the clips."""
    pooled = pooled_properties(attributes[0], clip_length, pool)
    if len(attributes) == 1:
        return pooled
    beside = {**properties(attributes[1]), "clip_length": clip_length}
    return {**joined(pooled, beside), "normalised": "L2 per half"}
