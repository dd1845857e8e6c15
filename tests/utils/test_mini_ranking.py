"""`mini_ranking`: its relevance follows its rule, and its files are TVR-Ranking's."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import pytest

from method_tvr.dataset.annotations import load_videos
from method_tvr.dataset.ranked_pairs import load_asked_queries, load_training_queries
from utils import mini_tvr
from utils.basic_utils import InputError, read_json
from utils.feature_files.feature_file import FeatureFile
from utils.mini_corpus import ranking
from utils.mini_corpus.lexicon import known_words
from utils.mini_corpus.word_vectors import tokenise

COUNTS = {"train": 30, "val": 8, "test": 6}


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("ranking")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(ranking, "QUERIES", COUNTS)
        ranking.write_ranking(folder, mini_tvr.TINY, mini_tvr.all_videos(mini_tvr.TINY))
    return folder


def parts_named(desc: str) -> set[str]:
    """The concepts that a sentence speaks of, by the words for them."""
    concepts = {word: concept for word, concept, _ in known_words()}
    return {concepts[token] for token in tokenise(desc) if token in concepts}


def test_relevance_is_how_many_of_the_four_parts_a_scene_shares(made):
    scenes = {
        (video.vid_name, scene.start, scene.end): ranking.Seen(video, scene.start, scene.end, scene.sight).parts
        for video in mini_tvr.all_videos(mini_tvr.TINY)
        for scene in video.scenes
    }
    for split in ("train", "val", "test"):
        entries = read_json(made / ranking.FILES[split])
        assert len(entries) == COUNTS[split]
        for entry in entries:
            named, moments = parts_named(entry["query"]), entry["relevant_moment"]
            assert len({(m["video_name"], *m["timestamp"]) for m in moments}) == ranking.MOST_LIKE + ranking.OTHERS
            for moment in moments:
                parts = scenes[(moment["video_name"], *moment["timestamp"])]
                shared = sum(part.split()[0].lower() in named for part in parts)
                assert shared == (4 * moment["similarity"] if split == "train" else moment["relevance"]), entry["query"]
            best = [m.get("relevance", m.get("similarity")) for m in moments[: ranking.MOST_LIKE]]
            assert best == sorted(best, reverse=True)
            assert best[0] == (1 if split == "train" else 4)  # the scene that it is about


def test_pairs_of_training_are_of_its_own_videos_and_graded_moments_of_any(made):
    splits = {video.vid_name: video.split for video in mini_tvr.all_videos(mini_tvr.TINY)}
    found = {
        split: Counter(splits[m["video_name"]] for e in read_json(made / name) for m in e["relevant_moment"])
        for split, name in ranking.FILES.items()
    }
    assert set(found["train"]) == {"train"}
    assert {"train", "val", "test_public"} <= set(found["val"])


def test_it_reads_as_tvr_ranking_and_has_features_of_each_query(made):
    videos = load_videos(made / "video_corpus.json")
    pairs = load_training_queries(made / "train_top20.json", videos)
    assert len(pairs) == COUNTS["train"] * (ranking.MOST_LIKE + ranking.OTHERS)
    asked = [query for split in ("val", "test") for query in load_asked_queries(made / f"{split}.json", videos)[0]]
    with FeatureFile(made / "query_bert.h5") as file:
        assert set(file.feature_keys()) == {str(query.desc_id) for query in [*pairs, *asked]}


def test_it_is_the_same_each_time(made, tmp_path, monkeypatch):
    monkeypatch.setattr(ranking, "QUERIES", COUNTS)
    ranking.write_ranking(tmp_path, mini_tvr.TINY, mini_tvr.all_videos(mini_tvr.TINY))
    for name in (*ranking.FILES.values(), "video_corpus.json"):
        assert (tmp_path / name).read_bytes() == (made / name).read_bytes()


def test_it_is_made_once_and_refuses_another_mini_corpus(tmp_path, monkeypatch):
    monkeypatch.setattr(ranking, "QUERIES", COUNTS)
    monkeypatch.setattr(mini_tvr, "MiniSettings", lambda: mini_tvr.TINY)
    mini_tvr.ensure_ranking(tmp_path / "mini_ranking", tmp_path / "mini")
    (tmp_path / "mini_ranking" / "val.json").unlink()
    with pytest.raises(InputError, match=r"lacks val\.json: put that back, or remove the folder"):
        mini_tvr.ensure_ranking(tmp_path / "mini_ranking", tmp_path / "mini")
    record = tmp_path / "mini" / "mini_made_by.json"
    record.write_text(record.read_text().replace('"n_val": 10', '"n_val": 11').replace('"n_val":10', '"n_val":11'))
    with pytest.raises(InputError, match="made with other settings"):
        mini_tvr.ensure_ranking(tmp_path / "mini_ranking", tmp_path / "mini")
