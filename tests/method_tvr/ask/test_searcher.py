"""Three lines from a model to moments: what they are, what their scores are made of, and where they are looked for."""

from __future__ import annotations

import io
import json
import math
import shutil
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from method_tvr.ask import search
from method_tvr.ask.asking import run_asking
from method_tvr.ask.moments import clock, percent, shares_of_best
from method_tvr.ask.search import Form, Prompt
from method_tvr.ask.searcher import MomentSearcher
from method_tvr.config import parse_inference_options
from utils.basic_utils import InputError

SENTENCES = ["Nora opens the drawer.", "Omar laughs.", "Somebody drops a cellphone."]


@pytest.fixture(scope="module")
def trained(tiny_model: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The results folder of a tiny model, with its encoded val videos."""
    folder = Path(shutil.copytree(tiny_model, tmp_path_factory.mktemp("searched") / "run"))
    MomentSearcher.open(folder, device=-1)
    assert (folder / "encoded_val" / "corpus.json").exists()
    return folder


@pytest.fixture(scope="module")
def searcher(trained: Path) -> MomentSearcher:
    return MomentSearcher.open(trained, device=-1)


def test_moments_are_those_of_inference_asked_in_words(searcher, trained, tmp_path):
    folder = Path(shutil.copytree(trained, tmp_path / "run"))
    argv = ["--model_dir", str(folder), "--device", "-1", "--num_workers", "0", "--top_k", "7"]
    for sentence in SENTENCES:
        argv += ["--query", sentence]
    run_asking(parse_inference_options(argv))
    (path,) = folder.glob("inference_*_answers.json")
    wanted = [answer["moments"] for answer in json.loads(path.read_text())["answers"]]
    for moments, expected in zip(searcher.search(SENTENCES, top_k=7), wanted, strict=True):
        found = [(m.vid_name, m.start, m.end) for m in moments]
        assert found == [(m["vid_name"], m["start"], m["end"]) for m in expected]
        assert [m.score for m in moments] == pytest.approx([m["score"] for m in expected], rel=1e-4)


def test_an_index_lies_beside_its_corpus_whatever_folder_is_current(trained, tmp_path, monkeypatch):
    folder = Path(shutil.copytree(trained, tmp_path / "run"))
    monkeypatch.chdir(folder / "encoded_val")
    for corpus in (".", "../encoded_val"):
        MomentSearcher.open(folder, device=-1, encoded_corpus=corpus, index="certified").search(SENTENCES[0])
        shutil.rmtree(folder / "encoded_val_certified")


def test_the_parts_of_a_score_make_the_score(searcher):
    for moment in searcher.search(SENTENCES[0], top_k=20):
        assert list(moment.match) == ["video", "sub"]
        mean = sum(moment.match.values()) / 2
        assert math.exp(30 * mean) * moment.p_start * moment.p_end == pytest.approx(moment.score, rel=1e-4)


def test_the_curves_of_a_video_have_the_probabilities_of_its_moments(searcher):
    moment = searcher.search(SENTENCES[0])[0]
    (curves,) = searcher.curves(SENTENCES[0], [moment.vid_name])
    start, end = (round(seconds / curves.clip_length) for seconds in (moment.start, moment.end))
    assert curves.p_start[start] == pytest.approx(moment.p_start, rel=1e-4)
    assert curves.p_end[end - curves.end_offset] == pytest.approx(moment.p_end, rel=1e-4)
    assert curves.p_start.sum() == pytest.approx(1, rel=1e-4)
    assert curves.p_end.sum() == pytest.approx(1, rel=1e-4)


def test_the_curves_of_a_long_video_join_those_of_its_windows(tiny_model, tmp_path):
    folder = Path(shutil.copytree(tiny_model, tmp_path / "run"))
    windowed = MomentSearcher.open(folder, device=-1, max_ctx_l=24, max_pred_l=6, long_videos="windows")
    longest = max(windowed.videos, key=lambda video: video.duration)
    (curves,) = windowed.curves(SENTENCES[0], [longest.vid_name])
    assert len(curves.p_start) > 24
    found = windowed.search(SENTENCES[0], top_k=5, video=longest.vid_name)
    for moment in found:
        start, end = (round(seconds / curves.clip_length) for seconds in (moment.start, moment.end))
        assert curves.p_start[start] >= moment.p_start * (1 - 1e-4)
        assert curves.p_end[end] >= moment.p_end * (1 - 1e-4)


def test_several_sentences_get_what_each_gets_alone(searcher):
    together = searcher.search(SENTENCES, top_k=5)
    for sentence, moments in zip(SENTENCES, together, strict=True):
        alone = searcher.search(sentence, top_k=5)
        assert [(m.vid_name, m.start, m.end) for m in alone] == [(m.vid_name, m.start, m.end) for m in moments]
        assert len(alone) == 5
    assert searcher.search([]) == []


def test_a_search_can_be_kept_to_a_video_or_a_show(searcher):
    names = [video.vid_name for video in searcher.videos]
    for name in names[:3]:
        assert {moment.vid_name for moment in searcher.search(SENTENCES[0], video=name)} == {name}
    show = names[0].split("_")[0]
    found = searcher.search(SENTENCES[1], top_k=100, show=show)
    everywhere = searcher.search(SENTENCES[1], top_k=200)
    assert {moment.vid_name for moment in found} <= {name for name in names if name.startswith(f"{show}_")}
    of_show = [moment for moment in everywhere if moment.vid_name.startswith(f"{show}_")]
    assert [(m.vid_name, m.start, m.end) for m in found[: len(of_show)]] == [
        (m.vid_name, m.start, m.end) for m in of_show[:100]
    ]


def test_a_video_may_be_spelt_otherwise_and_nearly_right_names_are_named(searcher):
    name = searcher.videos[0].vid_name
    assert {moment.vid_name for moment in searcher.search(SENTENCES[0], video=name.upper())} == {name}
    with pytest.raises(InputError, match=f"there is no video {name}.mp4 among the 10 videos: {name}$"):
        searcher.search(SENTENCES[0], video=f"{name}.mp4")


@pytest.mark.parametrize(
    ("asked", "options", "said"),
    [
        (" ", {}, "a sentence is blank"),
        ("Nora \udcff", {}, r"'Nora \\udcff' is not UTF-8 text"),
        ("Omar laughs.", {"video": "nowhere"}, "there is no video nowhere among the 10 videos"),
        ("Omar laughs.", {"show": "nothing"}, "there is no show nothing"),
        ("Omar laughs.", {"top_k": 0}, "top_k 0 must be above 0"),
    ],
)
def test_what_cannot_be_searched_for_is_refused(searcher, asked, options, said):
    with pytest.raises(InputError, match=said):
        searcher.search(asked, **options)
    if "video" in options:
        with pytest.raises(InputError, match=said):
            searcher.curves(asked, [options["video"]])


def test_threads_may_share_a_searcher(searcher):
    wanted = {sentence: searcher.search(sentence, top_k=5) for sentence in SENTENCES}
    with ThreadPoolExecutor(8) as pool:
        for sentence, found in zip(SENTENCES * 10, pool.map(searcher.search, SENTENCES * 10, [5] * 30), strict=True):
            assert found == wanted[sentence]


# ---------------------------------------------------------------------------- the command


def options(folder: Path, *typed: str) -> list[str]:
    return ["--model_dir", str(folder), "--device", "-1", *typed]


@pytest.mark.parametrize("index", ["certified", "faiss", "milvus"])
def test_an_index_over_a_small_corpus_gives_the_same_answers_and_says_what_it_misses(
    searcher, trained, tiny_corpus, tmp_path, run_main, index
):
    package = {"certified": "torch", "faiss": "faiss", "milvus": "pymilvus"}[index]
    pytest.importorskip(package, reason="not installed (index_requirements)")
    folder = Path(shutil.copytree(trained, tmp_path / "run"))
    found = run_main(search.main, options(folder, *SENTENCES, "--index", index, "--json", "--top_k", "4"))
    assert found.code == 0, found.err
    answers = [json.loads(line) for line in found.out.splitlines()]
    assert [answer["query"] for answer in answers] == SENTENCES
    assert [answer["proved"] for answer in answers] == [index != "milvus"] * 3
    for answer, moments in zip(answers, searcher.search(SENTENCES, top_k=4), strict=True):
        assert [m["vid_name"] for m in answer["moments"]] == [m.vid_name for m in moments]
        assert answer["moments"][0].keys() == {"vid_name", "start", "end", "score", "match", "p_start", "p_end"}
    eval_path = ("--eval_path", str(tiny_corpus.annotations("val")))
    measured = run_main(search.main, options(folder, "--index", index, "--measure_index", "20", *eval_path))
    assert "20 queries: the index finds 1.0000 of the exact first 100 videos, and 1.0000 of" in measured.out


def test_a_search_by_faiss_says_how_many_answers_are_proved_and_proves_them_when_asked(
    searcher, trained, tiny_corpus, tmp_path, run_main
):
    pytest.importorskip("faiss", reason="not installed (index_requirements)")
    folder = Path(shutil.copytree(trained, tmp_path / "run"))
    few = ["--index", "faiss", "--index_kind", "ivf", "--probes", "1", "--candidate_clips", "3"]
    few += ["--candidate_videos", "2", "--max_vcmr_video", "2"]
    found = run_main(search.main, options(folder, *SENTENCES, *few, "--json"))
    assert found.out.count('"proved":false,"moments":') == 3
    assert found.err.endswith("note: 0 of 3 answers are proved complete; --prove looks further until all are\n")
    proved = run_main(search.main, options(folder, *SENTENCES, *few, "--prove", "--json", "--top_k", "4"))
    assert proved.err.endswith("note: 3 of 3 answers are proved complete, 3 of them by looking further\n")
    exact = run_main(search.main, options(folder, *SENTENCES, "--max_vcmr_video", "2", "--json", "--top_k", "4"))
    assert proved.out == exact.out.replace('"moments":', '"proved":true,"moments":')
    everything = run_main(search.main, options(folder, SENTENCES[0], "--index", "faiss", "--index_kind", "flat"))
    assert everything.err.endswith("note: 1 of 1 answers are proved complete\n")
    eval_path = ("--eval_path", str(tiny_corpus.annotations("val")))
    measured = run_main(search.main, options(folder, *few, "--measure_index", "20", *eval_path))
    assert "of the exact first moments; 0 of 20 answers are proved complete" in measured.out
    measured = run_main(search.main, options(folder, *few, "--prove", "--measure_index", "20", *eval_path))
    assert "20 queries: the index finds 1.0000 of the exact first 100 videos, and 1.0000 of" in measured.out
    assert "; 20 of 20 answers are proved complete, 20 of them by looking further" in measured.out


def test_a_prompt_says_at_its_end_how_many_answers_are_proved(trained, tmp_path, monkeypatch, run_main):
    pytest.importorskip("faiss", reason="not installed (index_requirements)")
    folder = Path(shutil.copytree(trained, tmp_path / "run"))
    monkeypatch.setattr("sys.stdin", io.StringIO("\n".join([*SENTENCES, ""])))
    found = run_main(search.main, options(folder, "--index", "faiss", "--index_kind", "flat", "--top_k", "1"))
    assert found.err.count("proved complete") == 1
    assert found.err.endswith("note: 3 of 3 answers are proved complete\n")


def test_a_table_says_what_a_score_is_made_of(trained, run_main):
    found = run_main(search.main, options(trained, SENTENCES[0], "--top_k", "3"))
    assert found.code == 0, found.err
    title, *rows = found.out.strip().splitlines()[-4:]
    assert " ".join(title.split()) == "rank video start end of best video match sub match p(start) p(end)"
    assert [row.split()[0] for row in rows] == ["1", "2", "3"]
    assert rows[0].split()[4:6] == ["100", "%"]
    found = run_main(search.main, options(trained, SENTENCES[0], "--top_k", "3", "--scores"))
    assert " of best  score " in found.out


def overlapping(moments) -> int:
    """How many pairs of moments of a video have an IoU above 0.5."""
    return sum(
        one.vid_name == other.vid_name
        and min(one.end, other.end) - max(one.start, other.start)
        > 0.5 * (max(one.end, other.end) - min(one.start, other.start))
        for number, one in enumerate(moments)
        for other in moments[:number]
    )


def rows_of(out: str) -> list[list[str]]:
    return [row.split()[1:4] for row in out.strip().splitlines()[2:]]


def test_people_are_shown_each_moment_once_and_programs_all_of_them(searcher, trained, run_main):
    everything = searcher.search(SENTENCES[0], top_k=12)
    once = searcher.search(SENTENCES[0], top_k=12, nms_thd=0.5)
    assert overlapping(everything) > 0
    assert overlapping(once) == 0
    assert len(once) == 12
    shown = run_main(search.main, options(trained, SENTENCES[0], "--top_k", "12"))
    assert rows_of(shown.out) == [[m.vid_name, clock(m.start), clock(m.end)] for m in once]
    all_shown = run_main(search.main, options(trained, SENTENCES[0], "--top_k", "12", "--nms_thd", "-1"))
    assert rows_of(all_shown.out) == [[m.vid_name, clock(m.start), clock(m.end)] for m in everything]
    for typed, wanted in ((), everything), (("--nms_thd", "0.5"), once):
        answer = run_main(search.main, options(trained, SENTENCES[0], "--top_k", "12", "--json", *typed))
        found = [(m["vid_name"], m["start"], m["end"]) for m in json.loads(answer.out)["moments"]]
        assert found == [(m.vid_name, m.start, m.end) for m in wanted]


def test_a_list_without_overlaps_is_as_long_as_asked_where_there_are_enough_moments(trained):
    few = MomentSearcher.open(trained, device=-1, max_before_nms=10, top_k=10)
    many = MomentSearcher.open(trained, device=-1, max_before_nms=20000)
    found = few.search(SENTENCES, top_k=10, nms_thd=0.2)
    assert [len(moments) for moments in found] == [10] * len(SENTENCES)
    assert found == many.search(SENTENCES, top_k=10, nms_thd=0.2)
    name = searcher_names(few)[0]
    some = few.search(SENTENCES[0], top_k=200, video=name, nms_thd=0.0)  # all that are apart in one video
    assert 1 < len(some) < 200
    assert some == many.search(SENTENCES[0], top_k=200, video=name, nms_thd=0.0)


def searcher_names(searcher: MomentSearcher) -> list[str]:
    return [video.vid_name for video in searcher.videos]


@pytest.mark.parametrize(
    ("scores", "shown"),
    [
        ([414.4, 414.39, 207.2, 0.1, 0.0], ["100 %", "99 %", "50 %", "<1 %", "0 %"]),
        ([-1.0, -3.0], ["–", "–"]),
        ([2.0, -3.0], ["100 %", "–"]),
        ([], []),
    ],
)
def test_scores_are_shown_as_shares_of_the_best(scores, shown):
    assert [percent(share) for share in shares_of_best(scores)] == shown


def test_the_prompt_answers_line_by_line_and_lives_through_errors(searcher, capsys):
    name = searcher.videos[0].vid_name
    lines = iter(["Omar laughs.", "", ":video nowhere", "Omar laughs.", f":video {name}", "Omar laughs.", ":top 1",
                  "Omar laughs.", ":all", ":what", ":quit"])  # fmt: skip
    Prompt(searcher, 2, None, None, Form(as_json=True), read=lambda _: next(lines)).run()
    out, err = capsys.readouterr()
    answers = [json.loads(line)["moments"] for line in out.splitlines()]
    assert [len(moments) for moments in answers] == [2, 2, 1]
    assert {moment["vid_name"] for moments in answers[1:] for moment in moments} == {name}
    assert "there is no video nowhere" in err


def test_the_end_of_input_ends_the_prompt(searcher, capsys):
    def read(_: str) -> str:
        raise EOFError

    Prompt(searcher, 2, None, None, Form(as_json=False), read=read).run()
    assert "10 videos" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("typed", "said"),
    [
        (("--measure_index", "3"), "--index exact looks at everything"),
        (("--index", "faiss", "--long_videos", "windows"), "misses windows of long videos"),
        (("--index", "faiss", "--index_kind", "hnsw"), "--index faiss has no such kind: give one of flat, ivf, ivfsq"),
        (("--index", "milvus", "--index_kind", "ivfpq"), "--index milvus has no such kind: give one of ivf, ivfsq"),
        (("--prove",), "--prove: is of --index faiss with --index_kind flat, ivf, ivfsq"),
        (("--prove", "--index", "faiss", "--index_kind", "ivfpq"), "--prove: is of --index faiss with"),
        (("--probes", "0"), "--probes 0 must be above 0"),
        (("--query", "Omar laughs."), "write the sentences after the model's folder"),
    ],
)
def test_options_that_do_not_go_together_are_refused(trained, run_main, typed, said):
    refused = run_main(search.main, options(trained, *typed))
    assert refused.code == 2
    assert said in refused.err


def test_a_sentence_that_is_no_text_is_refused_before_anything_is_loaded(trained, monkeypatch, capsys):
    monkeypatch.setattr(search, "open_searcher", lambda opt: pytest.fail("it was loaded"))
    with pytest.raises(SystemExit) as ended:
        search.main(["--model_dir", str(trained), "--json", "Nora \udcff"])
    assert ended.value.code == 2
    assert "is not UTF-8 text" in capsys.readouterr().err


def test_a_line_of_the_prompt_that_is_no_text_is_refused(searcher):
    def read(_: str) -> str:
        return b"Nora \xff".decode()

    with pytest.raises(InputError, match="is not UTF-8 text"):
        Prompt(searcher, 3, None, None, Form(as_json=True), read=read).run()
