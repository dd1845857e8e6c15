"""The page in a real browser: ask, choose and watch moments, browse mistakes, see the run; nothing else is asked."""

from __future__ import annotations

import http.client
import json
import re
import shutil
import signal
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from method_tvr.config import parse_inference_options
from method_tvr.inference import run_inference
from tests.support.browser import Watched, visitor_or_skip
from tests.support.forked_server import forked_server
from tests.support.server_process import ServerProcess
from tests.support.video_files import write_video
from tests.support.web_stubs import REASON

pytest.importorskip("fastapi_offline", reason=REASON)
pytest.importorskip("gradio", reason=REASON)

HOSTILE = """<img src=x onerror="alert(1)"> ${alert(2)} {{ 7 * 7 }} 'laughs' & </script><script>alert(3)</script>"""
SPOKEN = "somebody said <b>this</b>"
ENDS_S = 5  # a busy machine's; 2 on one of its own


@dataclass(frozen=True)
class Shown:
    """A served model with all that a page can show.

    Attributes:
        server: of the page.
        queries: rows of the annotations; the first one's sentence is `HOSTILE`.
        metrics: of the predictions.
        filmed: name of the video that has a file.
    """

    server: ServerProcess
    queries: list[dict[str, Any]]
    metrics: dict[str, Any]
    filmed: str


@pytest.fixture(scope="module")
def shown(
    visitor: Any, tiny_model: Path, tiny_corpus: Any, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Shown]:
    """Served until Ctrl-C, while somebody has the page open."""
    root = tmp_path_factory.mktemp("page")
    folder = Path(shutil.copytree(tiny_model, root / "run"))
    queries = [json.loads(line) for line in tiny_corpus.annotations("val").read_text().splitlines()]
    queries[0]["desc"] = HOSTILE
    annotations, subtitles = root / "val.jsonl", root / "subtitles.jsonl"
    annotations.write_text("".join(f"{json.dumps(query)}\n" for query in queries))
    names = sorted({query["vid_name"] for query in queries})
    line = {"text": SPOKEN, "start": 0, "end": 1000}
    subtitles.write_text("".join(f"{json.dumps({'vid_name': name, 'sub': [line]})}\n" for name in names))
    given = ["--eval_path", str(annotations), "--device", "-1"]
    run_inference(parse_inference_options(["--model_dir", str(folder), *given, "--num_workers", "0"]))
    (metrics,) = folder.glob("inference_*_metrics.json")
    filmed = queries[0]["vid_name"]
    (root / "videos" / "show").mkdir(parents=True)
    write_video(root / "videos" / "show" / f"{filmed}.mp4", n_frames=120, rate=2)
    with forked_server(
        root / "printed", folder, *given, "--videos", root / "videos", "--subtitles", subtitles
    ) as server:
        yield Shown(server, queries, json.loads(metrics.read_text()), filmed)
        left_open = open_page(visitor, server)
        begin = time.monotonic()
        assert server.end(signal.SIGINT) == 130
        assert time.monotonic() - begin < ENDS_S
        assert server.said().splitlines()[-1] == "interrupted"
        assert "Traceback" not in server.said()
        left_open.page.close()


@pytest.fixture(scope="module")
def visitor() -> Iterator[Any]:
    with visitor_or_skip() as somebody:
        yield somebody


def open_page(visitor: Any, server: ServerProcess) -> Watched:
    watched = Watched(visitor)
    watched.page.set_default_timeout(30_000)
    watched.page.goto(f"http://127.0.0.1:{server.port}/")
    watched.page.wait_for_selector("#sentence textarea")
    return watched


@pytest.fixture
def watched(visitor: Any, shown: Shown) -> Iterator[Watched]:
    """The page, opened anew; what it asked for and complained of is looked at afterwards."""
    watched = open_page(visitor, shown.server)
    yield watched
    assert watched.hosts <= {f"127.0.0.1:{shown.server.port}", ""}
    assert watched.complaints == []
    watched.page.close()


def ask(page: Any, sentence: str) -> None:
    page.fill("#sentence textarea", sentence)
    page.press("#sentence textarea", "Enter")


def wait_for_text(page: Any, selector: str, text: str) -> None:
    page.locator(selector).filter(has_text=text).wait_for()


def cards(page: Any, name: str) -> list[str]:
    """The names of the videos on the cards, once there are any."""
    page.wait_for_selector(f"#{name}-cards .moment")
    return page.locator(f"#{name}-cards .moment .name").all_inner_texts()


def test_a_sentence_gets_moments_and_the_chosen_one_is_shown(watched):
    page = watched.page
    ask(page, "Omar laughs.")
    names = cards(page, "asked")
    assert len(names) == 10
    first = page.locator("#asked-cards .score").first
    assert first.inner_text().strip() == "100 %"
    assert re.fullmatch(r"score [\d.e+-]+, shown as a share of the best one's", str(first.get_attribute("title")))
    assert page.locator("#asked-details h3").inner_text().startswith(names[0])
    assert "match with what is seen" in page.locator("#asked-details .parts").inner_text()
    page.click("#asked-cards [data-number='4']")
    times = page.locator("#asked-cards [data-number='4'] .times").inner_text()
    page.wait_for_function(
        "(text) => document.querySelector('#asked-details small').innerText.includes(text)", arg=times
    )
    assert page.locator("#asked-details h3").inner_text().startswith(names[4])
    page.focus("#asked-cards [data-number='1']")  # and without a mouse
    page.keyboard.press("Enter")
    times = page.locator("#asked-cards [data-number='1'] .times").inner_text()
    page.wait_for_function(
        "(text) => document.querySelector('#asked-details small').innerText.includes(text)", arg=times
    )
    assert page.locator("#asked-cards [aria-selected='true']").count() == 1
    assert SPOKEN in page.locator("#asked-details .subtitles").inner_text()


def test_a_video_plays_from_where_the_moment_starts(watched, shown):
    page = watched.page
    page.get_by_role("button", name="Where to look").click()
    page.fill("#in-video textarea", shown.filmed)
    ask(page, "Omar laughs.")
    assert set(cards(page, "asked")) == {shown.filmed}
    page.click("#asked-cards [data-number='3']")
    page.wait_for_selector("#asked-details video[autoplay]")
    source = page.get_attribute("#asked-details video", "src")
    start = float(source.partition("#t=")[2].split(",")[0])
    page.wait_for_function("() => document.querySelector('#asked-details video').readyState >= 2")
    assert page.evaluate("() => document.querySelector('#asked-details video').currentTime") >= start


def test_a_query_of_the_split_is_shown_with_its_annotated_moment(watched, shown):
    page = watched.page
    query = shown.queries[5]
    page.get_by_role("button", name="Where to look").click()
    page.fill("#in-video textarea", query["vid_name"])
    ask(page, query["desc"])
    cards(page, "asked")
    assert query["vid_name"] in page.locator("#ask-message .note").inner_text()
    assert page.locator("#asked-cards .span-annotated").count() >= 1


@pytest.mark.parametrize(
    ("sentence", "show", "said"),
    [("   ", "", "a sentence is blank"), ("Omar laughs.", "nothing", "there is no show nothing")],
)
def test_what_cannot_be_answered_gets_a_message(watched, sentence, show, said):
    page = watched.page
    page.get_by_role("button", name="Where to look").click()
    page.fill("#in-show textarea", show)
    ask(page, sentence)
    page.wait_for_selector("#ask-message .problem")
    assert said in page.locator("#ask-message").inner_text()
    assert "Traceback" not in page.content()


def test_mistakes_are_browsed_from_a_list_to_the_query_and_its_predictions(watched, shown):
    page = watched.page
    page.get_by_role("tab", name="Mistakes").click()
    page.wait_for_selector("#queries tbody tr")
    n, right = len(shown.queries), shown.metrics["VCMR"]["0.5-r1"]
    assert f"{n} of {n} queries" in page.locator("#queries .count").inner_text()
    n_missed = round(n * (1 - right / 100))
    page.locator("#outcome input").click()
    page.get_by_role("option", name="not right at rank 1").click()
    wanted = f"{n_missed} of {n} queries"
    wait_for_text(page, "#queries .count", wanted)
    sentence = page.locator("#queries [data-number='2'] .sentence").inner_text()
    page.click("#queries [data-number='2']")
    names = cards(page, "query")
    assert sentence in page.locator("#query h3").inner_text()
    assert names[0] == page.locator("#queries [data-number='2'] .name").inner_text()
    assert page.locator("#query-cards .rank").all_inner_texts() == ["annotated", "1", "2", "3", "4", "5"]
    page.click("#queries-on")
    wanted = f"26 to {min(50, n_missed)}"
    wait_for_text(page, "#queries .count", wanted)


def test_what_annotations_say_is_shown_as_it_is_written(watched):
    page = watched.page
    page.get_by_role("tab", name="Mistakes").click()
    page.wait_for_selector("#queries tbody tr")
    assert page.locator("#queries [data-number='0'] .sentence").inner_text() == HOSTILE
    page.click("#queries [data-number='0']")
    cards(page, "query")
    assert HOSTILE in page.locator("#query h3").inner_text()
    page.get_by_role("tab", name="Ask").click()
    ask(page, HOSTILE)
    cards(page, "asked")
    assert page.locator("img[src='x']").count() == 0


def test_the_run_is_shown_with_the_recalls_of_the_evaluator(watched, shown):
    page = watched.page
    page.get_by_role("tab", name="Run").click()
    rows = page.locator("#recalls tbody tr").all_inner_texts()
    found = {row.split("\t")[0]: row.split("\t")[1:5] for row in rows}
    for iou_thd in ("0.5", "0.7"):
        wanted = [f"{shown.metrics['VCMR'][f'{iou_thd}-r{k}']:.2f}" for k in (1, 5, 10, 100)]
        assert found[f"VCMR, IoU {iou_thd}"] == wanted
    assert found["VR"] == [f"{shown.metrics['VR'][f'r{k}']:.2f}" for k in (1, 5, 10, 100)]
    assert page.locator("#curves svg").count() >= 1


def choose(page: Any, element: str, name: str) -> None:
    """Choose from a list that drops down."""
    page.locator(f"#{element} input").click()
    page.get_by_role("option", name=name, exact=True).click()


def set_number(page: Any, slider: str, number: str) -> None:
    """Type a number beside a slider, again where the slider has set its own meanwhile: it does as it is unfolded."""
    from playwright.sync_api import TimeoutError as TooLate  # is there where this is called

    reached = f"() => document.querySelector('{slider} input[type=range]').value === '{number}'"
    for patience in (1_000, 2_000, 4_000, 8_000, 30_000):  # ms
        page.locator(f"{slider} input[type=number]").fill(number)
        page.press(f"{slider} input[type=number]", "Tab")
        try:
            page.wait_for_function(reached, timeout=patience)
        except TooLate:
            continue
        return
    raise AssertionError(f"{slider} does not become {number}")


def test_each_click_that_a_person_can_make_does_something(watched, shown):
    page = watched.page
    example = page.locator("#examples .example").nth(1)
    sentence = example.inner_text()
    example.click()
    page.wait_for_function("(text) => document.querySelector('#sentence textarea').value === text", arg=sentence)
    page.get_by_role("button", name="Where to look").click()
    set_number(page, "#top-k", "3")
    page.fill("#in-show textarea", shown.filmed.partition("_")[0])
    page.wait_for_timeout(300)  # the page tells itself of the number a little later
    page.click("#ask")
    assert len(cards(page, "asked")) == 3
    page.get_by_role("tab", name="Mistakes").click()
    page.wait_for_selector("#queries tbody tr")
    n = len(shown.queries)
    word = shown.queries[1]["desc"].split()[0].lower()
    found = sum(word in f"{query['desc']} {query['vid_name']}".lower() for query in shown.queries)
    page.fill("#words textarea", word.upper())
    wait_for_text(page, "#queries .count", f"{found} of {n} queries")
    page.fill("#words textarea", "")
    wait_for_text(page, "#queries .count", f"{n} of {n} queries")
    page.click("#queries-on")
    wait_for_text(page, "#queries .count", "26 to")
    page.click("#queries-back")
    wait_for_text(page, "#queries .count", "1 to 25")
    choose(page, "order", "worst first")
    choose(page, "iou", "0.7")
    choose(page, "rank", "1")
    right = round(n * shown.metrics["VCMR"]["0.7-r1"] / 100)
    wait_for_text(page, "#queries .count", f"{right} of {n} queries")
    choose(page, "type", "v")
    types = [query["type"] for query in shown.queries]
    page.wait_for_function(
        "() => ![...document.querySelectorAll('#queries tbody td:nth-child(2)')].some(c => c.innerText !== 'v')"
    )
    assert types.count("v") < n


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("POST", "/gradio_api/upload"),
        ("GET", "/gradio_api/file=/etc/passwd"),
        ("GET", "/gradio_api/proxy=http://example.com/"),
        ("GET", "/gradio_api/info"),
        ("GET", "/openapi.json"),
        ("GET", "/monitoring"),
        ("GET", "/static/../../../../etc/passwd"),
    ],
)
def test_what_the_page_does_not_need_of_gradio_is_not_there(shown, method, path):
    connection = http.client.HTTPConnection("127.0.0.1", shown.server.port, timeout=60)
    connection.request(method, path)
    answer = connection.getresponse()
    status, body = answer.status, answer.read()
    connection.close()
    assert status in (403, 404)
    assert b"Traceback" not in body
    assert b"root:" not in body
