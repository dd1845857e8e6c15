"""The benchmarks at tiny sizes: they run, agree with the straightforward implementations, and write their figures."""

from __future__ import annotations

import itertools
import json
from collections.abc import Callable, Iterator, Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from method_tvr.config import parse_train_options
from method_tvr.models import CONFIGS
from method_tvr.options.models import UNTRAINED
from method_tvr.search.corpus_store import CorpusStore
from method_tvr.train import Trainer
from tests.benchmarks import (
    bench_anet,
    bench_api,
    bench_corpus_store,
    bench_encoding,
    bench_evaluation,
    bench_extraction,
    bench_large_evaluation,
    bench_models,
    bench_ranked_training,
    bench_retrieval,
    bench_search,
    bench_training_step,
    bench_val_inference,
    bench_visitors,
    blind_ranking,
    common,
    drawn_tvr_train,
    fit_search,
    generated_anet,
    grown_corpus,
    staged_inference,
)
from tests.benchmarks.drawn_captions import TRAIN, write_captions
from tests.benchmarks.ranking import check_same_ranking
from tests.support.forked_server import forked_server
from tests.support.runs.tiny_corpus import Corpus
from tests.support.server_process import ServerProcess
from utils.mini_tvr import TINY, generate

Main = Callable[[Sequence[str]], None]
TINY_MODEL = ["--hidden_size", "16", "--max_ctx_l", "20"]


@pytest.fixture(autouse=True)
def _quick_yardstick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(common, "UNIT_SIZE", 32)


@pytest.fixture
def figures(tmp_path: Path) -> Callable[[Main, Sequence[str]], dict[str, Any]]:
    """Run a benchmark and read what it wrote."""

    def run(main: Main, argv: Sequence[str]) -> dict[str, Any]:
        path = tmp_path / "figures.json"
        main([*argv, "--json", str(path)])
        content = json.loads(path.read_text(encoding="utf-8"))
        assert all(row["timing"]["seconds"] >= 0 for row in content["rows"])
        return content

    return run


def notes(content: dict[str, Any]) -> dict[str, str]:
    return {row["work"]: row["note"] for row in content["rows"]}


def test_training_step_agrees_with_the_straightforward_one(figures):
    argv = ["--batch", "6", "--input_sizes", "10", "8", "6", "--repeats", "1", *TINY_MODEL]
    content = figures(bench_training_step.main, argv)
    assert notes(content)["default"].startswith("losses equal")
    assert len(content["rows"]) == len(bench_training_step.VARIANTS) + 2


def test_all_models_are_measured_side_by_side(figures):
    argv = ["--batch", "6", "--videos", "8", "--input_sizes", "10", "8", "6", "--repeats", "1", *TINY_MODEL]
    works = [row["work"] for row in figures(bench_models.main, argv)["rows"]]
    trained = [name for name in CONFIGS if name not in UNTRAINED]
    assert [work.partition(",")[0] for work in works] == [name for name in trained for _ in range(4)]


def test_training_on_pairs_is_measured_from_some_of_its_steps(tmp_path, capsys):
    sizes = ["--queries", "20", "--videos", "9", "--steps", "2", "--bsz", "8", "--device", "-1"]
    model = "--hidden_size 8 --n_heads 2 --max_ctx_l 12 --num_workers 0 --trim_padding"
    for _ in range(2):  # the second finds what was drawn
        bench_ranked_training.main(["--corpus", str(tmp_path), *sizes, "--way", model])
        said = capsys.readouterr().out
        assert "loading 400 pairs" in said
        assert "2 steps of 8" in said
        assert "an epoch of 50 steps" in said


def test_blind_lists_give_what_chance_gives(monkeypatch, tmp_path, capsys):
    """A video of four clips has three spans of two clips or more, of which one is the relevant moment."""
    monkeypatch.setattr(blind_ranking, "N_PREDICTIONS", 9)
    (tmp_path / "corpus.json").write_text(json.dumps({"a": 6.0}))
    moment = {"video_name": "a", "timestamp": [0.0, 3.0], "relevance": 1}
    (tmp_path / "truth.json").write_text(json.dumps([{"query_id": 1, "query": "x", "relevant_moment": [moment]}]))
    argv = ["--truth", str(tmp_path / "truth.json"), "--corpus", str(tmp_path / "corpus.json"), "--lists", "400"]
    blind_ranking.main(argv)
    (line,) = (line for line in capsys.readouterr().out.splitlines() if line.startswith("0.7-n10"))
    at_any_rank = (1 + 1 / np.log2(3) + 1 / 2) / 3
    assert float(line.split()[1]) == pytest.approx(at_any_rank, abs=0.05)


def test_encodings_agree_with_the_straightforward_ones(figures):
    argv = ["--videos", "7", "--batch", "3", "--reference_videos", "5", "--input_sizes", "10", "8", *TINY_MODEL]
    assert notes(figures(bench_encoding.main, argv))["default"].startswith("rows equal")


def test_retrieval_agrees_with_the_dense_search(figures):
    argv = [
        "12",
        "130",
        "--queries",
        "23",
        "--retrieval_bsz",
        "9",
        "--hidden_size",
        "16",
        "--max_ctx_l",
        "60",
        "--repeats",
        "1",
    ]
    content = figures(bench_retrieval.main, argv)
    assert all(notes(content)[f"{n} videos"].startswith("answers equal") for n in (12, 130))


def test_one_query_alone_is_measured_as_rows_are_kept_and_converted(figures):
    content = figures(bench_retrieval.main, ["130", "--one_query", *TINY_MODEL])
    found = notes(content)
    assert set(found) == {f"130 videos, one query alone, {dtype}" for dtype in ("float16", "float32")}
    assert all(" ms, " in note for note in found.values())


def test_corpora_beyond_the_memory_limit_are_left_out(figures, capsys):
    content = figures(bench_retrieval.main, ["5", "100000", "--queries", "2", "--max_memory_gb", "1"])
    assert "100,000 videos: left out" in capsys.readouterr().out
    assert set(notes(content)) == {"5 videos", "5 videos, dense"}


def test_retrieval_from_disk_agrees_with_that_in_memory(figures, tmp_path):
    argv = ["12", "130", "--queries", "23", "--retrieval_bsz", "9", "--hidden_size", "16", "--max_ctx_l", "60"]
    content = figures(bench_corpus_store.main, [*argv, "--max_compared_videos", "100", "--folder", str(tmp_path)])
    found = notes(content)
    assert set(found) == {f"{n} videos{which}" for n in (12, 130) for which in ("", ", first time")}
    assert "answers equal" in found["12 videos"]
    assert "own memory" in found["130 videos"]
    assert [path.name for path in tmp_path.iterdir()] == ["figures.json"]


def test_evaluation_agrees_with_the_plain_one(figures):
    argv = ["--queries", "30", "--videos", "8", "--plain_queries", "20", "--rows", "40", "--repeats", "1"]
    content = figures(bench_evaluation.main, argv)
    assert {"write", "NMS", "read", "evaluate"} < set(notes(content))


def test_evaluation_of_a_large_file_agrees_with_that_of_the_loaded_one(figures, tmp_path):
    sizes = ["--queries", "30", "--videos", "8", "--rows", "40"]
    content = figures(bench_large_evaluation.main, [*sizes, "--folder", str(tmp_path / "new")])
    assert "own memory" in notes(content)["evaluate 30 queries"]


def test_val_inference_is_measured_stage_by_stage(figures, tmp_path):
    generate(tmp_path / "mini", TINY)
    corpus = ["--annotations", str(tmp_path / "mini"), "--features", str(tmp_path / "mini"), "--prefix", "mini"]
    content = figures(bench_val_inference.main, [*corpus, "--hidden_size", "16", "--num_workers", "0"])
    seconds = {row["work"]: row["timing"]["seconds"] for row in content["rows"]}
    assert sum(seconds.values()) == pytest.approx(2 * seconds["all of it"])
    assert all(seconds[stage] > 0 for stage in staged_inference.STAGES)


@pytest.fixture(scope="module")
def small_anet(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A thousandth of the generated ActivityNet Captions."""
    folder = tmp_path_factory.mktemp("anet")
    generated_anet.main(["--out", str(folder), "--share", "0.001"])
    return folder


def test_an_epoch_at_anets_shape_is_measured_stage_by_stage(figures, small_anet):
    corpus = ["--corpus", str(small_anet), "--hidden_size", "16"]
    content = figures(bench_anet.main, ["training", *corpus, "--bsz", "8"])
    seconds = {row["work"]: row["timing"]["seconds"] for row in content["rows"]}
    del seconds["open features, read annotations"]
    assert sum(seconds.values()) == pytest.approx(2 * seconds["one epoch"])
    assert all(seconds[stage] > 0 for stage in bench_anet.TRAINING_STAGES)
    assert notes(content)["one epoch"].startswith("5 steps")  # of 37 queries


def test_inference_at_anets_shape_is_measured_stage_by_stage(figures, small_anet):
    content = figures(bench_anet.main, ["inference", "--corpus", str(small_anet), "--hidden_size", "16"])
    assert set(staged_inference.STAGES) < set(notes(content))
    assert "own memory" in notes(content)["all of it"]


@pytest.fixture(scope="module")
def small_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The results folder of a model of the tiny corpus."""
    root = tmp_path_factory.mktemp("small")
    generate(root / "mini", TINY)
    opt = parse_train_options(Corpus(root / "mini").options(exp_id="tiny", n_epoch=1, bsz=32, hidden_size=16))
    opt.results_dir = str(root / "model")
    with Trainer(opt) as trainer:
        trainer.run()
    return root / "model"


@pytest.fixture(scope="module")
def grown(small_model: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An encoded corpus of 60 videos, grown from a tiny model's encodings."""
    folder = tmp_path_factory.mktemp("grown") / "corpus"
    write = ["--model_dir", str(small_model), "--out", str(folder), "--videos", "60", "--noise", "0.5"]
    grown_corpus.main(write)
    return folder


def test_a_grown_corpus_has_the_models_videos_first_and_scores_of_its_size(grown):
    store = CorpusStore(grown)
    names = [name for part in store.parts for name in part.names]
    assert len(names) == 60
    assert sum(not name.startswith("grown_") for name in names) == 35
    assert store.recipe.hidden_size == grown_corpus.HIDDEN_SIZE
    queries, kernels = grown_corpus.load_queries(grown)
    assert queries.for_videos.shape == (50, 2, grown_corpus.HIDDEN_SIZE)
    torch.testing.assert_close(queries.for_videos.norm(dim=-1), torch.ones(50, 2))
    assert kernels.shape == (2, 5)


@pytest.mark.parametrize("noise", grown_corpus.NOISE_LEVELS)
def test_grown_rows_are_as_far_from_their_base_as_the_noise_says_and_alike_in_a_video(noise):
    base = [torch.ones(9, 2, 64)]
    (rows,) = grown_corpus.grown(base, np.array([9]), noise)
    added = (rows - 1) / 8  # in lengths of a row
    assert float(added.norm(dim=-1).mean()) == pytest.approx(noise, rel=0.1)
    alike = torch.nn.functional.cosine_similarity(added[:-1], added[1:], dim=-1).mean()
    assert float(alike) == pytest.approx(grown_corpus.SHARED, abs=0.15)


def test_searches_by_way_of_an_index_are_compared_with_exact_ones(figures, grown):
    pytest.importorskip("faiss", reason="faiss is not installed (method_tvr/search/index/requirements.txt)")
    asked = ["--corpus", str(grown), "--queries", "10", "--alone", "3"]
    figures(bench_search.main, [*asked, "--index", "exact"])
    for way in (["plain"], ["certified"], ["faiss", "--index_kind", "flat"], ["faiss"]):
        found = notes(figures(bench_search.main, [*asked, "--index", *way]))
        assert any("finds 1.0000 of the exact first 100 videos" in note for note in found.values())
        assert any("p50" in note for note in found.values())


def test_lines_through_some_sizes_foretell_others(tmp_path, capsys):
    sizes = {20: 3.5, 100: 7.5, 1000: 52.5}  # 2.5 s and 0.05 s a clip
    for clips, seconds in sizes.items():
        row = {"work": "exact: one query", "timing": {"seconds": seconds}}
        (tmp_path / f"{clips}.json").write_text(json.dumps({"settings": {"clips": clips}, "rows": [row]}))
    runs = [str(tmp_path / f"{clips}.json") for clips in sizes]
    fit_search.main([*runs[:2], "--held_out", runs[2], "--clips", "2000", "--nodes", "1", "4"])
    line = capsys.readouterr().out.splitlines()[-1]
    assert "2.5 s + 13.9 h a million" in line
    assert "52.5 s measured, 52.5 s foretold (" in line
    assert [cell.strip() for cell in line.split("|")[4:6]] == ["102 s", "27.5 s"]
    falling = fit_search.Line.through([(10, 2.0), (1000, 1.0)])  # no clip takes less than no time
    assert falling.per_clip == 0
    assert 1 < falling.fixed < 2


@pytest.fixture(scope="module")
def server(small_model: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerProcess]:
    """A server of the tiny model, until one of the benchmarks ends it."""
    pytest.importorskip("gradio", reason="gradio is not installed (method_tvr/web/requirements.txt)")
    pytest.importorskip("fastapi_offline", reason="fastapi-offline is not installed (method_tvr/web/requirements.txt)")
    printed = tmp_path_factory.mktemp("printed")
    with forked_server(printed, small_model, "--device", -1, "--max_rate", 0) as started:
        yield started


def test_users_of_a_server_get_what_one_gets_alone(figures, small_model, server, monkeypatch):
    monkeypatch.setattr(bench_api, "serving", lambda *_: nullcontext(server))
    asked = ["--model_dir", str(small_model), "--users", "2", "--seconds", "1"]
    found = notes(figures(bench_api.main, asked))
    assert set(found) == {"a request, one user", "a request, 2 users at once"}
    for said in ("p50", "errors: none", "answers equal", "GiB"):
        assert said in found["a request, 2 users at once"]


def test_people_are_answered_among_strangers_until_the_server_is_ended(figures, small_model, server, monkeypatch):
    monkeypatch.setattr(bench_visitors, "serving", lambda *_: nullcontext(server))
    monkeypatch.setattr(bench_visitors, "SETTLE_S", 0.0)
    asked = ["--model_dir", str(small_model), "--requests", "60", "--seconds", "1", "--people", "2"]
    (found,) = notes(figures(bench_visitors.main, asked)).values()
    assert "others {}" in found
    assert "'400'" in found
    assert found.endswith("with 130")


def test_captions_of_anets_size_have_its_statistics(tmp_path):
    counts = write_captions(tmp_path, 1.0, seed=2018)
    assert counts["train.json"] == TRAIN
    train = json.loads((tmp_path / "train.json").read_text(encoding="utf-8")).values()
    assert (len(train), sum(len(video["sentences"]) for video in train)) == (TRAIN.videos, TRAIN.queries)
    assert np.mean([video["duration"] for video in train]) == pytest.approx(118, abs=1)
    spans = [(st, ed, video["duration"]) for video in train for st, ed in video["timestamps"]]
    st, ed, duration = np.array(spans).T
    assert ((st >= 0) & (st < ed) & (ed <= duration)).all()
    assert (ed - st).mean() == pytest.approx(36, abs=1)
    assert ((ed - st) / duration > 0.9).mean() == pytest.approx(0.12, abs=0.02)


def test_training_queries_are_drawn_after_those_of_val(tmp_path, capsys):
    rng, words = np.random.default_rng(0), ["Castle", "Beckett", "opens", "the", "door", "slowly", "and", "smiles"]
    val = [
        {
            "vid_name": f"castle_s01e01_seg02_clip_{i // 5:02d}",
            "duration": 60.0 + i // 5,
            "ts": [1.5, 9.0],
            "desc": " ".join(rng.choice(words, rng.integers(3, 9))) + ".",
            "type": "v" if i % 5 else "t",
            "desc_id": 100 + i,
        }
        for i in range(100)
    ]
    table = {
        "train": {f"castle_s02e01_seg02_clip_{i:02d}": [50.0 + i, i] for i in range(40)},
        "val": {row["vid_name"]: [row["duration"], 40 + row["desc_id"]] for row in val},
    }
    (tmp_path / "tvr_val_release.jsonl").write_text("".join(json.dumps(row) + "\n" for row in val))
    (tmp_path / "tvr_video2dur_idx.json").write_text(json.dumps(table))
    drawn_tvr_train.main(["--tvr", str(tmp_path), "--out", str(tmp_path / "out"), "--share", "0.5"])
    assert "drawn: 20 videos, 100 queries, t 20.0 %, v 80.0 %" in capsys.readouterr().out
    drawn = [json.loads(line) for line in (tmp_path / "out" / "tvr_train_release.jsonl").read_text().splitlines()]
    assert [row["desc_id"] for row in drawn] == list(range(200, 300))
    assert all(0 <= row["ts"][0] < row["ts"][1] <= row["duration"] for row in drawn)
    following = {pair for row in val for pair in itertools.pairwise(row["desc"].split())}
    assert all(pair in following for row in drawn for pair in itertools.pairwise(row["desc"].split()))


def test_extraction_agrees_with_decoding_first(figures):
    argv = ["--model", "torchvision/resnet18", "--copies", "2", "--windows", "0", "--lengths", "2", "--repeats", "1"]
    content = figures(bench_extraction.main, [*argv, "--sources", "bikes", "--frame_rate", "0.5", "--batch", "3"])
    assert notes(content)["bikes, extraction"].endswith("5 frames each through the model, rows equal")
    assert "GiB at most" in notes(content)["2 s of video, 160 x 68"]


RANKED = np.array([[7, 3, 5, 9]])
SCORES = np.array([[0.9, 0.5, 0.5 * (1 - 1e-7), 0.1]])


def test_rows_of_nearly_one_score_may_swap():
    assert check_same_ranking("rows", RANKED[:, [0, 2, 1, 3]], SCORES, RANKED, SCORES) == 0.5


def test_rows_of_nearly_one_score_may_swap_across_the_cut():
    check_same_ranking("rows", RANKED[:, [0, 2]], SCORES[:, :2], RANKED[:, :2], SCORES[:, :2])


@pytest.mark.parametrize("order", [[1, 0, 2, 3], [0, 1, 3, 2]])
def test_other_rows_may_not_swap(order):
    with pytest.raises(common.AnswersDiffer, match="query 0, rank"):
        check_same_ranking("rows", RANKED[:, order], SCORES, RANKED, SCORES)


def test_other_scores_are_another_ranking():
    with pytest.raises(common.AnswersDiffer):
        check_same_ranking("rows", RANKED, SCORES * [[1, 1, 1, 1.01]], RANKED, SCORES)


def test_a_missing_row_is_another_ranking():
    with pytest.raises(common.AnswersDiffer):
        check_same_ranking("rows", np.array([[7, 3, 5, -1]]), SCORES, RANKED, SCORES)
