"""A model on the hub stands wherever a results folder does; what is here wins, and nothing goes into the cache."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from method_tvr import inference
from method_tvr.ask import encode_corpus
from method_tvr.ask.searcher import MomentSearcher
from method_tvr.options.published import find_model
from method_tvr.options.saved import load_options
from method_tvr.publish import publish
from method_tvr.trained.published_model import load_model
from tests.support.hub_server import Hub, point_at, running_hub
from tests.support.runs.commands import ON_THE_CPU, Finished
from tests.support.runs.tiny_corpus import Corpus, as_argv
from utils.basic_utils import PROJECT_ROOT, InputError, read_json, write_json
from utils.hub.files import put
from utils.hub.names import HubName
from utils.storage.digests import DIGESTS, write_digests

Run = Callable[..., Finished]
NAME = "some-lab/reloclnet.tiny"


@pytest.fixture(scope="module")
def published(tiny_model: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Not to be written to."""
    out = tmp_path_factory.mktemp("published") / "model"
    publish.publish(str(tiny_model), str(out), "mit", False, "nowhere")
    return out


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Hub]:
    """An empty hub, and an empty cache."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "results").mkdir()
    with running_hub() as running:
        point_at(monkeypatch, running.address, tmp_path / "cache")
        yield running


def listed(folder: Path) -> set[str]:
    return {str(path.relative_to(folder)) for path in folder.rglob("*") if "/.locks/" not in str(path)}


def test_a_model_of_the_hub_predicts_into_a_folder_of_its_own(
    hub, published, tiny_corpus: Corpus, tmp_path, run_main: Run
):
    commit = hub.put_folder(NAME, published)
    folder = tmp_path / "results" / f"hub-model-some-lab--reloclnet.tiny-{commit[:12]}"
    here = {"results_root": "results", "eval_id": "a", **tiny_corpus.paths, "train_path": None}
    assert run_main(inference.main, [*as_argv({"model_dir": published, **here}), *ON_THE_CPU]).code == 0
    assert find_model(NAME, "results") == str(folder.relative_to(tmp_path))
    in_the_cache = listed(tmp_path / "cache")
    ended = run_main(inference.main, [*as_argv({"model_dir": NAME, **here}), *ON_THE_CPU])
    assert ended.code == 0, ended.err
    assert f"note: {NAME}: is {commit} on the hub; what is computed with it goes to results/{folder.name}" in ended.err
    predictions = "inference_tvr_val_a_predictions_VCMR_SVMR_VR.json"
    assert (folder / predictions).read_bytes() == (published / predictions).read_bytes()
    assert listed(tmp_path / "cache") == in_the_cache
    # and again by the folder's own name, of which nothing is asked of the hub
    hub.asked.clear()
    assert find_model(folder.name, "results") == str(folder.relative_to(tmp_path))
    assert hub.asked == []


def test_a_searcher_is_opened_by_name_and_revision(hub, published, tiny_corpus: Corpus, tmp_path):
    first = hub.put_folder(NAME, published, tag="v1")
    hub.put(NAME, {"README.md": b"nothing any more"})
    options = {"device": -1, "results_root": "results"}
    options |= {name: str(path) for name, path in tiny_corpus.paths.items() if name != "train_path"}
    searcher = MomentSearcher.from_pretrained(NAME, revision="v1", **options)
    assert len(searcher.search("Omar laughs.", top_k=3)) == 3
    assert (tmp_path / "results" / f"hub-model-some-lab--reloclnet.tiny-{first[:12]}" / "encoded_val").is_dir()
    assert find_model(f"{NAME}@{first}", "results").endswith(first[:12])
    with pytest.raises(InputError, match=rf"{NAME}: has no digests.json: the model of that name"):
        find_model(NAME, "results")


def test_nothing_but_the_files_of_a_published_model_is_fetched(hub, published, tiny_model):
    files = {path.name: path.read_bytes() for path in published.iterdir() if path.is_file()}
    hub.put(NAME, {**files, "model.ckpt": (tiny_model / "model.ckpt").read_bytes(), "run.py": b"1 / 0"})
    folder = Path(find_model(NAME, "results"))
    assert load_model(folder).epoch == 0
    assert not {"model.ckpt", "run.py"} & {path.name for path in folder.iterdir()}
    assert not any("model.ckpt" in asked for asked in hub.asked)


def test_what_is_here_wins_and_asks_nobody(hub, published, tmp_path):
    hub.put_folder(NAME, published)
    for made in (tmp_path / NAME, tmp_path / "results" / "other-lab" / "name"):
        made.mkdir(parents=True)
    assert find_model(NAME, "results") == NAME
    assert find_model("other-lab/name", "results") == "results/other-lab/name"
    assert find_model("other-l*/name", "results") == "results/other-lab/name"
    for absent in ("nobody", "no/such/folder", "/no/folder", "./no/folder", "../no/folder", "no/pattern*"):
        with pytest.raises(InputError, match="no such results folder"):
            find_model(absent, "results")
    assert hub.asked == []


def test_what_was_fetched_is_there_without_network(hub, published, tmp_path, monkeypatch):
    hub.put_folder(NAME, published)
    found = find_model(NAME, "results")
    point_at(monkeypatch, "http://127.0.0.1:9", tmp_path / "cache")
    assert find_model(NAME, "results") == found
    point_at(monkeypatch, "http://127.0.0.1:9", tmp_path / "cache", offline=True)
    assert find_model(NAME, "results") == found


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("nobody/nothing", "is no folder here, and no model on the hub that you may read"),
        (f"{NAME}@v9", f"{NAME} has no such revision"),
        (f"{NAME}@{'0' * 40}", f"{NAME} has no such revision"),
    ],
)
def test_what_is_not_on_the_hub_is_named(hub, published, name, said):
    hub.put_folder(NAME, published)
    with pytest.raises(InputError, match=said):
        find_model(name, "results")
    assert list(Path("results").iterdir()) == []


@pytest.mark.parametrize(("offline", "said"), [(True, "HF_HUB_OFFLINE keeps it"), (False, "cannot be reached")])
def test_without_network_and_not_cached_is_one_line(tmp_path, monkeypatch, offline, said):
    point_at(monkeypatch, "http://127.0.0.1:9", tmp_path / "cache", offline)
    with pytest.raises(InputError, match=said) as caught:
        find_model(NAME, str(tmp_path))
    assert "\n" not in str(caught.value)


def test_a_download_that_breaks_off_is_refused_and_mended_by_the_next(hub, published):
    hub.put_folder(NAME, published)
    hub.cut.add("model.safetensors")
    with pytest.raises(InputError, match="could not be fetched whole from the hub") as caught:
        find_model(NAME, "results")
    assert "\n" not in str(caught.value)
    assert list(Path("results").iterdir()) == []
    hub.cut.clear()
    assert load_model(Path(find_model(NAME, "results"))).epoch == 0


def test_a_file_that_was_changed_on_its_way_or_in_the_cache_is_refused(hub, published):
    files = {path.name: path.read_bytes() for path in published.iterdir() if path.is_file()}
    weights = files["model.safetensors"]
    hub.put(NAME, {**files, "model.safetensors": weights[:-1] + bytes([weights[-1] ^ 1])})
    with pytest.raises(InputError, match=r"model.safetensors: is not as it was published .*: remove .*cache"):
        find_model(NAME, "results")
    hub.put(NAME, files)
    cached = (Path(find_model(NAME, "results")) / "opt.json").resolve()
    cached.write_bytes(cached.read_bytes()[:-1])
    with pytest.raises(InputError, match=rf"opt.json: has .* bytes, .*: remove {cached} and get it again"):
        find_model(NAME, "results")
    cached.unlink()
    assert load_options(find_model(NAME, "results"))


def test_a_model_of_an_unknown_kind_is_refused(hub, published, tmp_path):
    for path in published.iterdir():
        if path.is_file() and path.name != DIGESTS:
            (tmp_path / path.name).write_bytes(path.read_bytes())
    config = read_json(tmp_path / "config.json")
    made = tmp_path / "made"
    made.mkdir()
    for name in ("model.safetensors", "opt.json"):
        (tmp_path / name).rename(made / name)
    write_json({**config, "model_cfg": {**config["model_cfg"], "name": "bert"}}, made / "config.json")
    write_digests(made)
    hub.put_folder(NAME, made)
    with pytest.raises(InputError, match="a model 'bert', this code knows reloclnet, xml"):
        load_model(Path(find_model(NAME, "results")))


def test_a_model_is_uploaded_and_loaded_by_its_name(hub, tiny_model, published, capsys):
    where = publish.publish(str(tiny_model), NAME, "cc-by-4.0", False, "results")
    assert where.startswith(f"{hub.address}/{NAME}/commit/")
    assert "POST /api/repos/create" in hub.asked
    assert set(hub.tokens) == {"Bearer hf_of_a_test"}
    folder = Path(find_model(NAME, "results"))
    assert (folder / "model.safetensors").read_bytes() == (published / "model.safetensors").read_bytes()
    card = (folder / "README.md").read_text()
    assert f"method_tvr/scripts/inference.sh {NAME} val" in card
    assert "license: cc-by-4.0\n" in card
    assert not Path("some-lab").exists()


def test_encoded_videos_are_searched_where_they_were_put(
    hub, published, tiny_model, tiny_corpus: Corpus, tmp_path, run_main: Run
):
    paths = {**tiny_corpus.paths, "train_path": None}
    encode = as_argv({"model_dir": tiny_model, "out": "encoded", **paths})
    assert run_main(encode_corpus.main, [*encode, *ON_THE_CPU]).code == 0
    put(Path("encoded"), HubName("some-lab/encoded"))
    here = {"model_dir": published, "results_root": "results", **paths}
    wanted = run_main(inference.main, [*as_argv({**here, "eval_id": "w", "encoded_corpus": "encoded"}), *ON_THE_CPU])
    assert wanted.code == 0, wanted.err
    in_the_cache: set[str] = set()
    for _ in range(2):  # the second time it is known that the features are those that were encoded
        argv = [*as_argv({**here, "eval_id": "h", "encoded_corpus": "some-lab/encoded@main"}), *ON_THE_CPU]
        found = run_main(inference.main, argv)
        assert found.code == 0, found.err
        assert in_the_cache in (set(), listed(tmp_path / "cache"))
        in_the_cache = listed(tmp_path / "cache")
    files = [published / f"inference_tvr_val_{name}_predictions_VCMR_SVMR_VR.json" for name in "wh"]
    assert files[0].read_bytes() == files[1].read_bytes()
    hub.put("some-lab/else", {"README.md": b""}, kind="datasets")
    refused = run_main(inference.main, [*as_argv({**here, "encoded_corpus": "some-lab/else"}), *ON_THE_CPU])
    assert refused.code == 2
    assert (
        "some-lab/else: has no corpus.json: the dataset of that name on the hub is none of this project's"
        in refused.err
    )


def test_an_upload_that_fails_says_so(tmp_path, tiny_model, monkeypatch):
    monkeypatch.chdir(tmp_path)
    point_at(monkeypatch, "http://127.0.0.1:9", tmp_path / "cache")
    with pytest.raises(InputError, match=f"{NAME}: could not be written on the hub .*HF_TOKEN"):
        publish.publish(str(tiny_model), NAME, "mit", False, "results")
    with pytest.raises(InputError, match="a revision is named to load a model"):
        publish.publish(str(tiny_model), f"{NAME}@v1", "mit", False, "results")
    with pytest.raises(InputError, match="--private: is of a repository on the hub"):
        publish.publish(str(tiny_model), "./here", "mit", True, "results")


def test_the_hub_is_the_one_that_the_variables_name(hub, published, tmp_path):
    commit = hub.put_folder(NAME, published, tag="v1")
    program = f"from method_tvr.options.published import find_model; print(find_model({f'{NAME}@v1'!r}, 'results'))"
    variables = {"HF_ENDPOINT": hub.address, "HF_HOME": str(tmp_path / "home"), "PYTHONPATH": str(PROJECT_ROOT)}
    command, env = [sys.executable, "-c", program], {**os.environ, **variables}
    ended = subprocess.run(command, cwd=tmp_path, env=env, capture_output=True, text=True, check=False)
    assert ended.stdout == f"results/hub-model-some-lab--reloclnet.tiny-{commit[:12]}\n", ended.stderr
    assert f"{NAME}@v1: is {commit} on the hub" in ended.stderr
    assert (tmp_path / "home" / "hub").is_dir()
    offline = subprocess.run(
        command, cwd=tmp_path, env={**env, "HF_HUB_OFFLINE": "1"}, capture_output=True, check=False
    )
    assert offline.stdout.decode() == ended.stdout
