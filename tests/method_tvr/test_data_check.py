"""The data check passes a complete corpus, names every defect of another, and goes on after each."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import h5py
import numpy as np
import pytest

from method_tvr import data_check
from method_tvr.data_check import main
from tests.support.runs.tiny_corpus import as_argv
from tests.support.shell import run_script
from utils.mini_corpus.files import video_feature_path
from utils.tables import aligned, size_text

if TYPE_CHECKING:
    from tests.support.public_corpora import PublicCorpus
    from tests.support.runs.tiny_corpus import Corpus

Check = Callable[..., tuple[int, str]]
FEATURES = {"video": "vid_feat_path", "sub": "sub_bert_path", "query": "desc_bert_path"}


@pytest.fixture
def check(run_main: Callable, own_corpus: Corpus) -> Check:
    """Run the check on `own_corpus`: (exit code, what it printed)."""

    def run(*options: str, root: Path = own_corpus.root) -> tuple[int, str]:
        finished = run_main(main, [str(root), *options])
        assert "Traceback" not in finished.err
        last = finished.out.rstrip().splitlines()[-1] if finished.out else ""
        assert last.startswith("OK" if finished.code == 0 else "NOT READY") or finished.err.startswith("error:")
        return finished.code, finished.out + finished.err

    return run


def durations(corpus: Corpus) -> dict:
    return json.loads(corpus.paths["video_duration_idx_path"].read_text())


def first_video(corpus: Corpus, split: str = "val") -> str:
    return next(iter(durations(corpus)[split]))


def first_desc_id(corpus: Corpus, split: str = "val") -> str:
    return str(json.loads(corpus.annotations(split).read_text().splitlines()[0])["desc_id"])


def spoil(corpus: Corpus, kind: str, key: str, change: Callable[[np.ndarray], np.ndarray] | None) -> None:
    """Replace the array of `key` by `change` of it, or remove it."""
    with corpus.features(FEATURES[kind]) as h5_file:
        array = h5_file[key][()]
        del h5_file[key]
        if change is not None:
            h5_file[key] = change(array)


def with_nan(array: np.ndarray) -> np.ndarray:
    array[-1, 0] = np.nan
    return array


def defects_of(out: str) -> str:
    return out.split("\nDefects", 1)[1].split("\nNotes", 1)[0]


def test_a_complete_corpus_passes_with_every_file_and_split_listed(check: Check, own_corpus: Corpus) -> None:
    code, out = check()
    assert code == 0
    assert "Defects" not in out
    assert "Notes" not in out
    for path in own_corpus.paths.values():
        assert path.name in out
    for text in ("train", "val", "test_public", "test_challenge", "float32", "finite", "utils/mini_tvr.py", "masks"):
        assert text in out


def test_the_shell_script_gives_the_same_exit_codes(own_corpus: Corpus) -> None:
    assert run_script("data/check.sh", own_corpus.root, "--quick").returncode == 0
    own_corpus.paths["desc_bert_path"].unlink()
    spoiled = run_script("data/check.sh", own_corpus.root, "--quick")
    assert spoiled.returncode == 2
    assert own_corpus.paths["desc_bert_path"].name in defects_of(spoiled.stdout)


@pytest.mark.parametrize(
    "option", ["train_path", "eval_path", "video_duration_idx_path", "vid_feat_path", "sub_bert_path", "desc_bert_path"]
)
def test_a_missing_file_is_named(check: Check, own_corpus: Corpus, option: str) -> None:
    own_corpus.paths[option].unlink()
    code, out = check()
    assert code == 2
    assert f"{own_corpus.paths[option].name}: is not there" in defects_of(out)
    assert out.count("is not there") == 1


def test_features_are_still_checked_without_durations(check: Check, own_corpus: Corpus) -> None:
    name = first_video(own_corpus)
    spoil(own_corpus, "sub", name, None)
    own_corpus.paths["video_duration_idx_path"].unlink()
    _, out = check()
    assert "has no features for 1 of 10 val videos" in defects_of(out)


@pytest.mark.parametrize("kind", ["video", "sub"])
def test_a_missing_video_is_named(check: Check, own_corpus: Corpus, kind: str) -> None:
    name = first_video(own_corpus, "train")
    spoil(own_corpus, kind, name, None)
    code, out = check()
    assert code == 2
    assert f"has no features for 1 of 20 train videos: {name}" in defects_of(out)
    assert "19 of 20" in out


def test_missing_desc_ids_are_named_and_counted(check: Check, own_corpus: Corpus) -> None:
    ids = [json.loads(line)["desc_id"] for line in own_corpus.annotations("test_public").read_text().splitlines()]
    for desc_id in ids:
        spoil(own_corpus, "query", str(desc_id), None)
    code, out = check()
    assert code == 2
    assert f"has no features for {len(ids)} of {len(ids)} test_public desc_ids: {ids[0]}, {ids[1]}" in defects_of(out)
    assert f"({len(ids)} in all)" in defects_of(out)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (with_nan, "holds NaN or Inf"),
        (lambda array: array.astype(np.int32), "found int32"),
        (lambda array: array[:, :-1], "wide, expected"),
        (lambda array: array[:0], "with rows >= 1"),
    ],
)
@pytest.mark.parametrize("kind", list(FEATURES))
def test_a_bad_array_is_named(check: Check, own_corpus: Corpus, kind: str, change: Callable, said: str) -> None:
    key = first_desc_id(own_corpus) if kind == "query" else first_video(own_corpus)
    spoil(own_corpus, kind, key, change)
    code, out = check()
    assert code == 2
    assert f"{own_corpus.paths[FEATURES[kind]].name}: {key}: " in defects_of(out)
    assert said in defects_of(out)


def test_quick_leaves_out_values_and_nothing_else(check: Check, own_corpus: Corpus) -> None:
    name = first_video(own_corpus)
    spoil(own_corpus, "video", name, with_nan)
    code, out = check("--quick")
    assert code == 0
    assert "not read" in out
    spoil(own_corpus, "video", name, lambda array: array[:, :-1])
    assert check("--quick")[0] == 2


def test_unequal_numbers_of_clips_are_a_defect_even_one_apart(check: Check, own_corpus: Corpus) -> None:
    name = first_video(own_corpus)
    spoil(own_corpus, "sub", name, lambda array: array[:-1])
    code, out = check()
    assert code == 2
    assert f"differ from those of the subtitles for {name} (" in defects_of(out)
    assert "do not fit the durations" not in out


@pytest.mark.parametrize(("share", "code"), [(0.5, 2), (0.94, 0)])
def test_clips_that_do_not_fit_the_duration_are_a_defect_when_far_off(
    check: Check, own_corpus: Corpus, share: float, code: int
) -> None:
    entries = durations(own_corpus)["val"]
    name = max(entries, key=lambda name: entries[name][0])
    for vid_feat_type in ("resnet_i3d", "resnet", "i3d"):
        with h5py.File(video_feature_path(own_corpus.root, "mini", vid_feat_type), "r+") as h5_file:
            n_clips = len(h5_file[name])
            assert n_clips * 0.06 > 2
            array = h5_file[name][: round(n_clips * share)]
            del h5_file[name]
            h5_file[name] = array
    spoil(own_corpus, "sub", name, lambda array: array[: round(n_clips * share)])
    found, out = check()
    assert found == code
    assert f"do not fit the durations for {name} ({round(n_clips * share)}, expected {n_clips})" in out


def test_another_clip_length_is_a_defect_unless_it_is_given(check: Check) -> None:
    code, out = check("--clip_length", "3", "--quick")
    assert code == 2
    assert "was made with clips of 1.5 s, not 3.0 s" in defects_of(out)


@pytest.mark.parametrize("kind", list(FEATURES))
@pytest.mark.parametrize("damage", ["truncated", "foreign"])
def test_a_file_that_is_no_whole_h5_is_named_and_the_others_are_still_checked(
    check: Check, own_corpus: Corpus, kind: str, damage: str
) -> None:
    path = own_corpus.paths[FEATURES[kind]]
    other = "sub" if kind == "query" else "query"
    key = first_video(own_corpus) if other == "sub" else first_desc_id(own_corpus)
    spoil(own_corpus, other, key, with_nan)
    content = path.read_bytes()
    path.write_bytes(content[: len(content) // 2] if damage == "truncated" else b"not h5")
    code, out = check()
    assert code == 2
    assert f"{path.name}: cannot be opened as h5" in defects_of(out)
    assert f"{key}: holds NaN" in defects_of(out)


def test_a_key_that_leads_elsewhere_is_named_and_the_others_are_still_checked(check: Check, own_corpus: Corpus) -> None:
    lost, bad = list(durations(own_corpus)["val"])[:2]
    with own_corpus.features("sub_bert_path") as h5_file:
        del h5_file[lost]
        h5_file[lost] = h5py.SoftLink("/nowhere")
    spoil(own_corpus, "sub", bad, with_nan)
    code, out = check()
    assert code == 2
    assert f"{lost}: is a link, which is not followed" in defects_of(out)
    assert f"{bad}: holds NaN" in defects_of(out)


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("{broken", "is not valid JSON"),
        ('{"desc_id": 1}', "expected"),
        ('{"desc_id": 1, "desc": "x", "vid_name": "nobody", "ts": [0, 1]}', "video nobody is in no split"),
    ],
)
def test_a_defective_annotation_is_named_with_its_line(check: Check, own_corpus: Corpus, line: str, said: str) -> None:
    path = own_corpus.annotations("val")
    lines = path.read_text().splitlines()
    path.write_text("\n".join([*lines[:3], line, *lines[3:]]))
    code, out = check()
    assert code == 2
    assert f"{path.name}, line 4" in defects_of(out)
    assert said in defects_of(out)


def test_queries_about_videos_of_another_split_are_named(check: Check, own_corpus: Corpus) -> None:
    shutil.copyfile(own_corpus.annotations("train"), own_corpus.annotations("val"))
    code, out = check()
    assert code == 2
    assert f"is not in split val of video2dur_idx for desc_id {first_desc_id(own_corpus)}" in defects_of(out)


def test_a_training_split_without_moments_is_named(check: Check, own_corpus: Corpus) -> None:
    shutil.copyfile(own_corpus.annotations("test_public"), own_corpus.annotations("train"))
    code, out = check()
    assert code == 2
    assert "mini_train_release.jsonl: has no ground truth" in defects_of(out)


def test_a_repeated_video_idx_is_named(check: Check, own_corpus: Corpus) -> None:
    content = durations(own_corpus)
    first, second = list(content["val"])[:2]
    content["val"][second][1] = content["val"][first][1]
    own_corpus.paths["video_duration_idx_path"].write_text(json.dumps(content))
    code, out = check()
    assert code == 2
    assert f"video_idx {content['val'][first][1]} is that of {first} and of {second}" in defects_of(out)


def test_several_defects_are_all_listed_with_a_remedy_each(check: Check, own_corpus: Corpus) -> None:
    own_corpus.annotations("train").unlink()
    own_corpus.paths["desc_bert_path"].write_bytes(b"")
    spoil(own_corpus, "video", first_video(own_corpus), None)
    spoil(own_corpus, "sub", first_video(own_corpus, "test_public"), with_nan)
    code, out = check()
    assert code == 2
    assert "Defects (4)" in out
    assert "NOT READY: 4 defects" in out
    assert defects_of(out).count("     -> ") == 4


def test_what_no_run_needs_is_only_noted(check: Check, own_corpus: Corpus) -> None:
    name = first_video(own_corpus, "test_challenge")
    spoil(own_corpus, "video", name, None)
    spoil(own_corpus, "sub", name, with_nan)
    video_feature_path(own_corpus.root, "mini", "resnet").unlink()
    code, out = check()
    assert code == 0
    assert "Notes (2)" in out
    assert name in out
    assert "only for --vid_feat_type resnet" in out


def test_the_video_features_asked_for_must_be_there(check: Check, own_corpus: Corpus) -> None:
    path = video_feature_path(own_corpus.root, "mini", "resnet")
    path.unlink()
    code, out = check("--vid_feat_type", "resnet", "i3d")
    assert code == 2
    assert f"{path.name}: is not there" in defects_of(out)


def test_masks_are_optional(check: Check, own_corpus: Corpus) -> None:
    with own_corpus.features("sub_bert_path") as h5_file:
        for key in [key for key in h5_file if key.endswith("-mask")]:
            del h5_file[key]
    assert check()[0] == 0


def test_splits_not_asked_for_are_left_out(check: Check, own_corpus: Corpus) -> None:
    own_corpus.annotations("train").unlink()
    spoil(own_corpus, "video", first_video(own_corpus, "train"), None)
    assert check("--splits", "val", "test")[0] == 0
    code, out = check("--splits", "vall")
    assert code == 2
    assert "mini_vall_release.jsonl: is not there" in out


def test_a_folder_without_a_test_split_is_complete(check: Check, own_corpus: Corpus) -> None:
    own_corpus.annotations("test_public").unlink()
    content = {split: entries for split, entries in durations(own_corpus).items() if split in ("train", "val")}
    own_corpus.paths["video_duration_idx_path"].write_text(json.dumps(content))
    assert check()[0] == 0


def test_the_prefix_is_found_from_the_files(check: Check, own_corpus: Corpus) -> None:
    for path in sorted(own_corpus.root.rglob("mini*"), key=lambda path: -len(path.parts)):
        path.rename(path.with_name(path.name.replace("mini", "films", 1)))
    code, out = check("--quick")
    assert code == 0
    assert "Corpus films" in out


def test_folders_that_hold_no_corpus_or_several_are_refused(check: Check, own_corpus: Corpus, tmp_path: Path) -> None:
    empty = tmp_path / "empty"
    empty.mkdir()
    assert "holds no corpus" in check(root=empty)[1]
    assert "is no folder" in check(root=tmp_path / "nowhere")[1]
    (own_corpus.root / "other_video2dur_idx.json").write_text("{}")
    code, out = check()
    assert code == 2
    assert "holds several corpora (mini, other)" in out


def test_tables_align_words_left_and_numbers_right() -> None:
    rows: Sequence[Sequence[str]] = [
        ["name", "size", "note"],
        ["a", "10 kB", "x"],
        ["long name", "-", "y"],
        ["b", "1 B"],
    ]
    assert aligned(rows).splitlines() == [
        "  name        size  note",
        "  a          10 kB  x",
        "  long name      -  y",
        "  b            1 B",
    ]


@pytest.mark.parametrize(("n_bytes", "text"), [(0, "0 B"), (999, "999 B"), (1500, "1.5 kB"), (33 * 10**9, "33.0 GB")])
def test_sizes_are_written_as_people_read_them(n_bytes: int, text: str) -> None:
    assert size_text(n_bytes) == text


@pytest.mark.parametrize(("ctx_mode", "absent"), [("video_tef", ["sub_bert_path"]), ("sub", ["vid_feat_path"])])
def test_files_of_a_modality_that_is_not_asked_for_may_be_missing(
    check: Check, own_corpus: Corpus, ctx_mode: str, absent: list[str]
) -> None:
    for name in absent:
        own_corpus.paths[name].unlink()
    code, out = check("--ctx_mode", ctx_mode)
    assert code == 0, out
    assert f"--ctx_mode {ctx_mode}" in out.rstrip().splitlines()[-1]
    assert f"not there: only for --ctx_mode with {'sub' if absent == ['sub_bert_path'] else 'video'}" in out
    assert check()[0] == 2


def test_subtitles_that_are_not_asked_for_are_only_noted(check: Check, own_corpus: Corpus) -> None:
    spoil(own_corpus, "sub", first_video(own_corpus), lambda rows: rows[:-2])
    code, out = check("--ctx_mode", "video_tef")
    assert code == 0, out
    assert "numbers of clips differ from those of the subtitles" in out
    assert check()[0] == 2


def test_query_features_made_without_subtitles_are_looked_at_where_there_are_some(
    check: Check, own_corpus: Corpus
) -> None:
    path = own_corpus.paths["desc_bert_path"]
    query_only = path.parents[1] / "query_only" / "mini_query_pretrained_w_query.h5"
    query_only.parent.mkdir()
    path.rename(query_only)
    assert check("--ctx_mode", "video_tef")[0] == 0
    assert check()[0] == 2


# ---------------------------------------------------------------------------- converted public datasets


@pytest.fixture
def converted_copy(public_corpus: PublicCorpus, tmp_path: Path) -> Path:
    """The folder of a converted dataset, to be spoilt."""
    return Path(shutil.copytree(public_corpus.folder, tmp_path / public_corpus.name))


def test_a_converted_dataset_passes_by_folder_and_by_name(
    check: Check, public_corpus: PublicCorpus, monkeypatch: pytest.MonkeyPatch
) -> None:
    code, out = check(*as_argv(public_corpus.options), root=public_corpus.folder)
    assert code == 0, out
    assert f"Corpus {public_corpus.name} in {public_corpus.folder}, clips of a length of each video's own" in out
    assert "each video's clips last its duration divided by their number" in out
    assert "OK" in out
    assert "--ctx_mode video_tef" in out
    for split, videos in public_corpus.videos.items():
        n_queries = len(public_corpus.queries(split))
        assert any(line.split()[:3] == [split, str(len(videos)), str(n_queries)] for line in out.splitlines())
    monkeypatch.setattr(data_check, "PROJECT_ROOT", public_corpus.root)
    assert check(*as_argv(public_corpus.options), root=Path(public_corpus.name)) == (0, out)


def test_what_a_converted_dataset_lacks_is_named_with_how_to_convert_it(
    check: Check, public_corpus: PublicCorpus, converted_copy: Path
) -> None:
    (features,) = (converted_copy / f"{public_corpus.name}_feature_release" / "video_feature").glob("*.h5")
    lost = next(iter(public_corpus.videos["val"]))
    with h5py.File(features, "r+") as file:
        del file[lost]
    (converted_copy / f"{public_corpus.name}_test_release.jsonl").unlink()
    code, out = check(*as_argv(public_corpus.options), root=converted_copy)
    assert code == 2
    assert lost in defects_of(out)
    assert f"{public_corpus.name}_test_release.jsonl" in defects_of(out)
    assert f"python utils/annotations/convert.py {public_corpus.name}" in defects_of(out)


def test_a_corpus_with_a_prefix_of_its_own_passes_when_clip_lengths_are_said_to_be_each_videos(
    check: Check, own_corpus: Corpus
) -> None:
    with own_corpus.features("vid_feat_path") as videos, own_corpus.features("sub_bert_path") as subtitles:
        for name in list(videos):
            for file in (videos, subtitles):
                rows = file[name][::2]
                del file[name]
                file[name] = rows
                if f"{name}-mask" in file:
                    del file[f"{name}-mask"]
    assert check()[0] == 2
    code, out = check("--clip_length", "auto")
    assert code == 0, out
    assert "of a length of each video's own" in out


def test_a_converted_dataset_called_otherwise_has_the_properties_of_its_dataset(
    check: Check, public_corpus: PublicCorpus, converted_copy: Path
) -> None:
    for path in sorted(converted_copy.rglob(f"{public_corpus.name}_*"), reverse=True):  # what is in a folder first
        path.rename(path.with_name(f"my{path.name.removeprefix(public_corpus.name)}"))
    code, out = check(*as_argv(public_corpus.options), root=converted_copy)
    assert code == 0, out
    assert f"Corpus my in {converted_copy}, clips of a length of each video's own" in out
