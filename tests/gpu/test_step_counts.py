"""What training and search ask of a GPU, counted in torch's own CUDA code on a runtime that computes nothing.

Calls are counted, not time: a step of few calls, none of which waits, is one that the host keeps ahead of.
"""

from __future__ import annotations

import json

import pytest
import torch

from tests.gpu import fake_runtime

REASON = "the machine has a GPU" if torch.cuda.is_available() else fake_runtime.missing()
pytestmark = pytest.mark.skipif(REASON is not None, reason=f"no fake CUDA runtime: {REASON}")

# options of a run: most calls a step of the host. With graphs it is one, and what changes from step to step.
GRAPH, PLAIN, ONE_MODALITY = 30, 600, 450
STEPS = {
    "": GRAPH,
    "--trim_padding --amp bf16": GRAPH,
    "--feature_cache ram": GRAPH,
    "--cuda_graph off": PLAIN,
    "--cuda_graph off --amp bf16": PLAIN,
    "--cuda_graph off --trim_padding": PLAIN,
    "--cuda_graph off --trim_padding --amp bf16": PLAIN,
    "--cuda_graph off --hard_pool_size 5": PLAIN,
    "--cuda_graph off --ctx_mode video_tef": ONE_MODALITY,
    "--cuda_graph off --ctx_mode sub_tef --amp bf16": ONE_MODALITY,
    "--cuda_graph off --feature_cache ram": PLAIN,
    "--cuda_graph off --grad_clip 1": PLAIN + 20,
}
COUNTED = """
    import json
    from method_tvr.training import step_guard
    from method_tvr.config import parse_train_options
    from method_tvr.train import Trainer
    from tests.gpu.fake_runtime import Counter

    step_guard._Verdicts.look = lambda self: None  # kernels compute nothing: no loss is finite
    for number, argv in enumerate({argvs!r}):
        opt = parse_train_options(argv)
        opt.results_dir = f"{folder}/{{number}}"
        with Trainer(opt) as trainer:
            trainer._save = lambda: None
            for _ in range(1 if "off" in argv else 2):  # until each size of batch has its graph
                trainer._train_epoch()
                trainer.place.step = 0
            counter = Counter()
            trainer._train_epoch()
            print("FOUND", json.dumps(dict(counter.read(), operations=counter.operations(), steps=trainer.place.step)))
"""


@pytest.fixture(scope="session")
def runtime(tmp_path_factory) -> dict[str, str]:
    return fake_runtime.build(tmp_path_factory.mktemp("fake_runtime"))


@pytest.fixture(scope="session")
def steps_of(runtime, corpus_options, tmp_path_factory) -> dict[str, dict[str, int]]:
    """{options: what an epoch of such steps asks for}, by one process, because torch takes seconds to begin."""
    dropout = ["--drop", "0.1", "--input_drop", "0.1"]
    argvs = [[*corpus_options, *options.split(), *dropout] for options in STEPS]
    code = COUNTED.format(argvs=argvs, folder=tmp_path_factory.mktemp("runs") / "run")
    return dict(zip(STEPS, found_by(runtime, code), strict=True))


def found_by(runtime: dict[str, str], code: str) -> list[dict[str, int]]:
    """What a process prints that it found."""
    done = fake_runtime.run(runtime, code)
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-3000:]
    return [json.loads(line.removeprefix("FOUND")) for line in done.stdout.splitlines() if line.startswith("FOUND")]


@pytest.mark.parametrize("options", STEPS)
def test_a_step_is_few_calls_without_a_wait(steps_of, options):
    found = steps_of[options]
    print(options or "defaults", {name: round(n / found["steps"], 1) for name, n in found.items() if n})
    assert found["operations"] / found["steps"] <= STEPS[options]
    assert found["waits"] <= 1  # for the means of the epoch
    assert found["pageable"] == 0


BACKWARD = """
    import torch
    from method_tvr.model import ReLoCLNet
    from tests.gpu.small_batches import config_for, small_batch

    for ctx_mode in ("video_sub_tef", "video_tef", "sub_tef"):
        model = ReLoCLNet(config_for(ctx_mode)).to("cuda")
        loss, _ = model({name: x.to("cuda") for name, x in small_batch(9, model.modalities).items()})
        loss.backward()
    print("DONE")
"""
FINE_TUNED = """
    from types import SimpleNamespace
    from utils.text_feature import masked_lm

    class Words(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.words, self.out = torch.nn.Embedding(7, 4), torch.nn.Linear(4, 7)

        def forward(self, input_ids, attention_mask):
            return SimpleNamespace(logits=self.out(self.words(input_ids) * attention_mask.unsqueeze(2)))

    ids = torch.tensor([[1, 2, 3]])
    batch = masked_lm.Batch(ids, torch.ones_like(ids), ids)
    masked_lm.Masker = lambda *_: lambda examples, generator: batch
    model, settings, cuda = Words(), masked_lm.Settings(batch_size=1), torch.device("cuda")
    masked_lm.held_out_loss(model, None, [[1]], settings, cuda)
    masked_lm.fine_tune(model, None, [[1]], settings, cuda)
    print("TRAINED")
"""


def test_training_needs_no_compiler_and_a_language_model_is_trained_after_its_held_out_loss(runtime):
    """torch >= 2.13 sends outer products to kernels that it compiles, by gcc and with Python.h."""
    nowhere = {"TORCH_DISABLE_NATIVE_JIT": "0", "PATH": "/nonexistent", "TRITON_CACHE_DIR": "/nonexistent/x"}
    done = fake_runtime.run(runtime, BACKWARD + FINE_TUNED, **nowhere)
    assert done.stdout.split() == ["DONE", "TRAINED"], done.stderr[-2000:]


SEARCHED = """
    import json
    import numpy as np
    import torch
    from method_tvr.model_components import conv_predictors
    from method_tvr.search.memory_corpus import EncodedCorpus
    from method_tvr.search.records import EncodedQueries, SearchSettings
    from method_tvr.search.retrieval import Searcher
    from tests.gpu.fake_runtime import Counter

    for n_videos, n_queries, dtype in {searches!r}:
        n_clips = np.random.default_rng(0).integers(20, 80, n_videos)
        rows = [torch.zeros((n + 2, 2, 16), device="cuda") for n in n_clips.tolist()]
        corpus = EncodedCorpus(rows, n_clips, getattr(torch, dtype))
        queries = EncodedQueries(*torch.zeros((2, n_queries, 2, 16), device="cuda"))
        searcher = Searcher(corpus, conv_predictors(*torch.zeros((2, 5), device="cuda")), SearchSettings())
        list(searcher.search(queries))
        counter = Counter()
        list(searcher.search(queries))
        print("FOUND", json.dumps(dict(counter.read(), operations=counter.operations())))
"""
SEARCHES = {(2179, 256, "float32"): 120, (21793, 1, "float16"): 225}  # videos, queries and type: most calls


@pytest.fixture(scope="session")
def searched(runtime) -> dict[tuple[int, int, str], dict[str, int]]:
    """What each search asks for, by one process."""
    return dict(zip(SEARCHES, found_by(runtime, SEARCHED.format(searches=list(SEARCHES))), strict=True))


@pytest.mark.parametrize("search", SEARCHES)
def test_a_search_is_few_calls_and_one_wait(searched, search):
    found = searched[search]
    print(found)
    assert found["operations"] <= SEARCHES[search]
    assert found["waits"] == 1  # for the answers
