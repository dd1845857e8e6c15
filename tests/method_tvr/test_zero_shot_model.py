"""The model without training: vectors of one space, and the span that stands out most."""

from __future__ import annotations

from dataclasses import replace
from itertools import product
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from method_tvr import inference, train
from method_tvr.ask import encode_corpus
from method_tvr.ask.searcher import MomentSearcher
from method_tvr.search.encoding import encode_token_features
from method_tvr.search.memory_corpus import EncodedCorpus
from method_tvr.search.records import NO_ENTRY, EncodedQueries, SearchSettings
from method_tvr.search.retrieval import Searcher
from method_tvr.training.checkpoint import load_checkpoint
from method_tvr.zero_shot_model import LEAST_DEVIATION, StandingOut, ZeroShot, ZeroShotConfig
from tests.support.runs.commands import Finished
from tests.support.runs.rankings import assert_same_file, load
from tests.support.runs.tiny_corpus import as_argv
from utils import mini_tvr
from utils.mini_corpus.joint_space import JointSpace
from utils.mini_corpus.word_vectors import LATENT_SIZE

D, MARGIN, SHARPNESS = 4, 0.7, 1.3
SETTINGS = SearchSettings(q2c_alpha=3.0, max_moments=500, min_pred_l=0, max_pred_l=6)


def gains(similarity: np.ndarray) -> np.ndarray:
    """What each clip adds to the logarithm of a span's score, from the formula."""
    apart = similarity - similarity.mean()
    return SHARPNESS * (apart / (np.sqrt((apart**2).mean()) + LEAST_DEVIATION) - MARGIN)


def all_spans(gain: np.ndarray, shortest: int, longest: int) -> dict[tuple[int, int], float]:
    """Scores of a video's spans, the best of any length counting as 1."""
    n = len(gain)
    of_any = {(i, j): float(gain[i : j + 1].sum()) for i, j in product(range(n), repeat=2) if i <= j}
    best = max(of_any.values())
    return {(i, j): np.exp(s - best) for (i, j), s in of_any.items() if shortest <= j - i < longest}


def corpus_of(rows: list[torch.Tensor]) -> EncodedCorpus:
    return EncodedCorpus(rows, [len(of_video) for of_video in rows])


@settings(max_examples=60, deadline=None)
@given(st.lists(st.integers(1, 9), min_size=1, max_size=5), st.integers(0, 999), st.booleans())
def test_the_best_spans_are_those_of_the_formula(n_clips, seed, short_band):
    generator = torch.Generator().manual_seed(seed)
    rows = [torch.randn(n, 1, D, generator=generator) for n in n_clips]
    query = torch.nn.functional.normalize(torch.randn(1, 1, D, generator=generator), dim=-1)
    band = replace(SETTINGS, min_pred_l=1, max_pred_l=3) if short_band else SETTINGS
    searcher = Searcher(corpus_of(rows), [StandingOut(MARGIN, SHARPNESS)], band)
    moments, videos = next(searcher.search(EncodedQueries(query, query)))
    weight = dict(zip(videos.entry[0].tolist(), videos.score[0].tolist(), strict=True))
    expected = {
        (video, *span): weight[video] * score
        for video, of_video in enumerate(rows)
        for span, score in all_spans(
            gains((of_video[:, 0] @ query[0, 0]).double().numpy()), band.min_pred_l, band.max_pred_l
        ).items()
    }
    there = moments.entry[0] != NO_ENTRY
    found = list(zip(*(column[0, there].tolist() for column in (moments.entry, moments.st, moments.ed)), strict=True))
    assert set(found) == set(expected)
    np.testing.assert_allclose(moments.score[0, there], [expected[span] for span in found], rtol=1e-3, atol=1e-6)


def test_a_moment_late_in_a_long_video_is_found():
    """Sums over thousands of clips drift far beyond what exponents of a float32 hold."""
    clips = torch.zeros(6000, 1, D)
    clips[:, 0, 1] = 1.0
    clips[5500:5510, 0, 0] = 3.0
    query = torch.eye(D)[None, :1]
    searcher = Searcher(corpus_of([clips, clips[:50]]), [StandingOut(1.0, 1.0)], replace(SETTINGS, max_pred_l=40))
    moments, _ = next(searcher.search(EncodedQueries(query, query)))
    assert (moments.entry[0, 0], moments.st[0, 0], moments.ed[0, 0]) == (0, 5500, 5509)
    assert moments.p_start[0, 0] == moments.p_end[0, 0] == pytest.approx(1.0, abs=1e-4)


def test_windows_of_one_video_share_its_best_span():
    quiet, loud = torch.zeros(12, 1, D), torch.zeros(12, 1, D)
    quiet[4, 0, 0], loud[7:9, 0, 0] = 1.0, 1.0
    query = torch.eye(D)[None, :1]
    searcher = Searcher(corpus_of([quiet, loud]), [StandingOut(1.0, 1.0)], SETTINGS)
    entries = torch.tensor([[0, 1]])
    together = searcher.search_moments(EncodedQueries(query, query), entries, one_video=True)
    apart = searcher.search_moments(EncodedQueries(query, query), entries)
    assert apart.score[0, 0] == apart.score[0, 1] == pytest.approx(1.0)
    assert together.score[0, 0] == pytest.approx(1.0)
    assert together.score[0, 1] < 0.99


# ---------------------------------------------------------------- vectors


def model_of(**values: object) -> ZeroShot:
    sizes = {"visual_input_size": D, "sub_input_size": D, "query_input_size": D}
    return ZeroShotConfig.from_dict({**sizes, **values}).build()


def test_text_is_compared_with_text_and_weighs_what_the_option_says():
    model = model_of(sub_weight=0.25)
    sentence = np.eye(D, dtype=np.float32)[:2]  # what pictures, and what text is compared with
    query = encode_token_features(model, [sentence], torch.device("cpu"))
    torch.testing.assert_close(query.for_videos.norm(dim=-1), torch.ones(1, 2))
    seen = torch.tensor([[[0.6, 0.8, 0, 0], [3.0, 0, 0, 0]]])
    said = torch.tensor([[[0.0, 0, 0, 0], [0, 2.0, 0, 0]]])
    (videos,) = model.encode_videos({"video_feat": seen, "sub_feat": said, "ctx_mask": torch.ones(1, 2)})
    cosines = {m: (videos.for_videos[m][0] @ query.for_videos[0, i]) for i, m in enumerate(("video", "sub"))}
    torch.testing.assert_close(cosines["video"], torch.tensor([0.6, 1.0]))
    torch.testing.assert_close(cosines["sub"], torch.tensor([0.0, 0.25]))  # 0 where nobody speaks
    for m in ("video", "sub"):
        torch.testing.assert_close(videos.for_videos[m].norm(dim=-1), torch.ones(1, 2))


@pytest.mark.parametrize(
    ("values", "reason"),
    [
        ({"visual_input_size": D + 1}, "video 5, sub 4"),
        ({"ctx_mode": "video_sub_tef"}, "leave tef out"),
    ],
)
def test_vectors_of_two_spaces_are_refused(values, reason):
    with pytest.raises(ValueError, match=reason):
        model_of(**values)


# ---------------------------------------------------------------- a run


@pytest.fixture(scope="module")
def joint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("joint")
    sizes = {"vid_feat_types": ("joint",), "vid_feat_size": LATENT_SIZE, "text_feat_size": LATENT_SIZE}
    mini_tvr.generate(folder, replace(mini_tvr.TINY, **sizes, prefix="mini_joint"))
    return folder


def options_of(folder: Path) -> dict[str, object]:
    features = folder / "mini_joint_feature_release"
    text = features / "bert_feature" / "sub_query"
    return {
        "dset_name": "custom",
        "ctx_mode": "video_sub",
        "model": "zero_shot",
        "eval_path": folder / "mini_joint_val_release.jsonl",
        "video_duration_idx_path": folder / "mini_joint_video2dur_idx.json",
        "desc_bert_path": text / "mini_joint_query_pretrained_w_sub_query.h5",
        "sub_bert_path": text / "mini_joint_sub_pretrained_w_sub_query_max_cl-1.5.h5",
        "vid_feat_path": features / "video_feature" / "mini_joint_joint_cl-1.5.h5",
        "clip_length": 1.5,
        "device": -1,
        "num_workers": 0,
        "exp_id": "zs",
        "min_pred_l": 1,
        "max_pred_l": 17,
        "label_rule": "best_iou",
    }


def test_a_folder_is_made_without_training_and_used_as_any_other(joint, run_main, tmp_path):
    argv = as_argv({**options_of(joint), "results_root": tmp_path / "results"})
    made: Finished = run_main(train.main, argv)
    assert made.code == 0, made.err
    assert "nothing to train" in made.out
    (folder,) = (tmp_path / "results").iterdir()
    assert sorted(path.name for path in folder.iterdir())[-1] == "opt.json"
    checkpoint = load_checkpoint(folder / "model.ckpt")
    assert checkpoint.state == {}
    assert checkpoint.config.hidden_size == LATENT_SIZE + 8
    named = "inference_custom_val_{}_predictions_VCMR_SVMR_VR.json"
    here = {"model_dir": folder, "device": -1, "num_workers": 0}
    assert run_main(encode_corpus.main, as_argv({**here, "out": tmp_path / "encoded"})).code == 0
    stored = run_main(inference.main, as_argv({**here, "eval_id": "stored", "encoded_corpus": tmp_path / "encoded"}))
    assert stored.code == 0, stored.err
    assert_same_file(load(folder / named.format("stored")), load(folder / named.format("zs")))
    searcher = MomentSearcher.open(folder, split="val", device=-1)
    sentence = load(folder / named.format("zs"))["VCMR"][0]["desc"]
    assert len(searcher.search(sentence, top_k=5)) == 5
    exact = MomentSearcher.open(folder, split="val", device=-1, index="certified").search(sentence, top_k=5)
    assert [moment.vid_name for moment in exact] == [m.vid_name for m in searcher.search(sentence, top_k=5)]


def test_it_is_better_than_chance(joint):
    """What clips and sentences share is what they show and say."""
    space = JointSpace(mini_tvr.TINY.seed)
    alike = space.sentence("Nora opens the drawer.") @ space.sentence("Nora opened a drawer").T
    other = space.sentence("Nora opens the drawer.") @ space.sentence("They talk about the weather.").T
    assert alike.item() > 0.8 > 0.5 > other.item()


def test_features_of_a_trained_model_are_refused(tiny_corpus, run_main, tmp_path):
    options = {"model": "zero_shot", "ctx_mode": "video_sub", "exp_id": "zs", "results_root": tmp_path / "results"}
    refused = run_main(train.main, tiny_corpus.options(**options))
    assert refused.code == 2
    assert "vectors of one space have one size" in refused.err
    assert not (tmp_path / "results").exists() or not list((tmp_path / "results").iterdir())
