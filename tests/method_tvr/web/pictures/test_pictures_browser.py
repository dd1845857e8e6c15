"""The page in a real browser: moments have pictures, and a picture is asked with by choosing or dropping it."""

from __future__ import annotations

import base64
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from tests.support.browser import Watched, visitor_or_skip
from tests.support.forked_server import forked_server
from tests.support.scenes import NAMES, make_corpus, make_model, scene
from tests.support.server_process import ServerProcess
from tests.support.web_stubs import REASON

pytest.importorskip("fastapi_offline", reason=REASON)
pytest.importorskip("gradio", reason=REASON)

DROP = """([element, content]) => {
  const bytes = Uint8Array.from(atob(content), (letter) => letter.charCodeAt(0));
  const data = new DataTransfer();
  data.items.add(new File([bytes], "dropped.png", { type: "image/png" }));
  document.querySelector(element).dispatchEvent(new DragEvent("drop", { dataTransfer: data, bubbles: true }));
}"""


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("scenes")


@pytest.fixture(scope="module")
def server(root: Path) -> Iterator[ServerProcess]:
    folder = make_model(make_corpus(root), root / "results")
    damaged = root / "videos" / f"{NAMES[2]}.mp4"
    damaged.write_bytes(b"no video any more")
    for number in range(2):
        Image.fromarray(scene(number, 1)).save(root / f"{NAMES[number]}.png")
    given = ["--device", "-1", "--videos", root / "videos", "--text_model", root / "model"]
    with forked_server(root / "printed", folder, *given) as server:
        yield server
        assert "Traceback" not in server.said()


@pytest.fixture(scope="module")
def visitor() -> Iterator[Any]:
    with visitor_or_skip() as somebody:
        yield somebody


@pytest.fixture
def watched(visitor: Any, server: ServerProcess) -> Iterator[Watched]:
    watched = Watched(visitor)
    watched.page.set_default_timeout(30_000)
    watched.page.goto(f"http://127.0.0.1:{server.port}/")
    watched.page.wait_for_selector("#ask-picture .drop")
    yield watched
    assert watched.hosts <= {f"127.0.0.1:{server.port}", ""}
    assert [said for said in watched.complaints if "422" not in said] == []  # but for the damaged video
    watched.page.close()


def first_card(page: Any, name: str) -> None:
    page.locator("#asked-cards .moment .name").first.filter(has_text=name).wait_for()


def test_a_picture_that_is_chosen_or_dropped_finds_what_it_shows(watched, root):
    page = watched.page
    page.set_input_files("#ask-picture input", root / f"{NAMES[0]}.png")
    first_card(page, NAMES[0])
    assert page.locator("#ask-picture .said").inner_text() == f"{NAMES[0]}.png"
    assert page.evaluate("() => document.querySelector('#ask-picture img').naturalWidth") == 128
    content = base64.b64encode((root / f"{NAMES[1]}.png").read_bytes()).decode()
    page.evaluate(DROP, ["#ask-picture .drop", content])
    first_card(page, NAMES[1])
    assert page.locator("#ask-picture .said").inner_text() == "dropped.png"
    assert "/api/moments.csv?picture=" in page.get_attribute("#asked-cards a.list", "href")
    page.click("#asked-cards [data-number='1']")
    page.wait_for_selector("#asked-details video[autoplay]")
    page.fill("#sentence textarea", "Nora opens the door.")  # which takes its place
    page.press("#sentence textarea", "Enter")
    page.locator("#asked-cards a.list[href*='sentence=']").wait_for()
    assert not page.locator("#ask-picture img").is_visible()


def test_moments_have_pictures_and_those_of_a_damaged_video_none(watched):
    page = watched.page
    page.fill("#sentence textarea", "Nora opens the door.")
    page.press("#sentence textarea", "Enter")
    page.wait_for_selector("#asked-cards .moment")
    page.wait_for_function(
        """([damaged]) => [...document.querySelectorAll('#asked-cards .moment')].every((card) => {
          const image = card.querySelector('img.thumbnail');
          if (card.querySelector('.name').innerText === damaged) return image === null;
          image?.scrollIntoView();
          return image?.complete && image.naturalWidth === 128;
        })""",
        arg=[NAMES[2]],
    )
    names = page.locator("#asked-cards .moment .name").all_inner_texts()
    assert set(names) == set(NAMES)
    assert page.locator("#asked-cards img.thumbnail").count() == len(names) - names.count(NAMES[2])


def test_what_is_no_picture_gets_a_message(watched, root):
    page = watched.page
    (root / "letter.png").write_text("Dear Nora,")
    page.set_input_files("#ask-picture input", root / "letter.png")
    page.locator("#ask-picture .refused .said").filter(has_text="the picture: is none that can be read").wait_for()
    (root / "huge.png").write_bytes(bytes(11 << 20))
    page.set_input_files("#ask-picture input", root / "huge.png")
    page.locator("#ask-picture .refused .said").filter(has_text="at most: make it smaller").wait_for()
    assert not page.locator("#ask-picture img").is_visible()
