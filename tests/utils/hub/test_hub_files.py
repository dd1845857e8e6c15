"""Files that were put on the hub come back as they were, in a folder that is whole or not there."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.hub_server import Hub, point_at, running_hub
from utils.basic_utils import InputError
from utils.hub import files
from utils.hub.files import get, put
from utils.hub.names import HubName
from utils.storage.digests import DIGESTS

NAME = HubName("some-lab/corpus")
CONTENT = {"my_val_release.jsonl": b'{"desc_id": 1}\n', "features/video.h5": b"rows" * 500, "empty": b""}


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Hub]:
    monkeypatch.chdir(tmp_path)
    for name, content in {**CONTENT, ".lock": b"", "features/video.h5.cache/rows": b"packed"}.items():
        path = tmp_path / "my" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
    with running_hub() as running:
        point_at(monkeypatch, running.address, tmp_path / "cache")
        yield running


def content_of(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_files_come_back_as_they_were_without_caches_and_what_is_hidden(hub):
    before = content_of(Path("my"))
    put(Path("my"), NAME)
    assert content_of(Path("my")) == before
    (commit,) = hub.commits["datasets/some-lab/corpus"]
    hub.put(
        NAME.repository, {**hub.commits["datasets/some-lab/corpus"][commit], ".gitattributes": b""}, "v2", "datasets"
    )
    assert set(get(HubName(NAME.repository, "v2"), Path("data/theirs"))) == set(CONTENT)
    found = content_of(Path("data/theirs"))
    assert found.pop(DIGESTS)
    assert found == CONTENT
    assert list(Path("data").iterdir()) == [Path("data/theirs")]


def test_a_broken_download_is_gone_on_with(hub):
    put(Path("my"), NAME)
    hub.cut.add("features/video.h5")
    with pytest.raises(InputError, match="could not be fetched whole"):
        get(NAME, Path("theirs"))
    assert not Path("theirs").exists()
    hub.cut.clear()
    assert set(get(NAME, Path("theirs"))) == set(CONTENT)
    assert not Path(".theirs.fetching").exists()


def test_a_file_that_was_changed_is_refused_and_fetched_again_once_removed(hub):
    put(Path("my"), NAME)
    (commit,) = hub.commits["datasets/some-lab/corpus"]
    stored = hub.commits["datasets/some-lab/corpus"][commit]
    whole = stored["features/video.h5"]
    stored["features/video.h5"] = whole[:-1] + b"!"
    with pytest.raises(
        InputError, match=r"features/video.h5: is not as it was published .* remove (\S+) and"
    ) as caught:
        get(NAME, Path("theirs"))
    assert not Path("theirs").exists()
    stored["features/video.h5"] = whole
    Path(str(caught.value).split("remove ")[1].split(" and")[0]).unlink()
    assert set(get(NAME, Path("theirs"))) == set(CONTENT)


def test_nothing_that_is_there_is_replaced(hub):
    put(Path("my"), NAME)
    with pytest.raises(InputError, match="my: is there already"):
        get(NAME, Path("my"))
    hub.put("some-lab/other", {"notes.txt": b"x"}, kind="datasets")
    with pytest.raises(InputError, match=r"digests.json: cannot be read"):
        get(HubName("some-lab/other"), Path("other"))
    assert not Path("other").exists()


@pytest.mark.parametrize(
    ("argv", "said"),
    [
        (["get", "no_name", "theirs"], "no_name: is no name of a repository"),
        (["get", "some-lab/nothing", "theirs"], "no dataset on the hub that you may read"),
        (["get", "some-lab/nothing", "theirs", "--private"], "--private: is for what is put"),
        (["put", "my/features/video.h5.cache", "some-lab/corpus@v1"], "leave out @v1"),
        (["put", "nowhere", "some-lab/corpus"], "nowhere"),
    ],
)
def test_what_cannot_be_done_is_one_line(hub, monkeypatch, capsys, argv, said):
    monkeypatch.setattr(sys, "argv", ["files.py", *argv])
    with pytest.raises(SystemExit) as ended:
        files.main()
    assert ended.value.code == 2
    assert [path.name for path in Path().iterdir() if path.name not in ("my", "cache")] == []
    message = capsys.readouterr().err.strip().splitlines()[-1]
    assert message.startswith("error: ")
    assert said in message
