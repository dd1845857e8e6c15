"""The model of one modality: its parameters, and that it computes what the equations say when they are done plainly."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from method_tvr.model import ModelConfig, ReLoCLNet
from method_tvr.training.checkpoint import checkpoint_content, load_checkpoint, write_content
from tests.support.runs.small_models import SMALL, small_batch, small_model
from utils.basic_utils import InputError
from utils.model_utils import count_parameters

MODES = {"video": "video", "video_tef": "video", "sub": "sub", "sub_tef": "sub"}
# weights large enough for scores to differ, hardest negatives so that nothing is drawn
PLAIN = replace(
    SMALL, initializer_range=0.5, use_hard_negative=True, hard_pool_size=1, lw_fcl=0.3, lw_vcl=0.3, lw_st_ed=0.1
)


def one_modality(config: ModelConfig, ctx_mode: str) -> ModelConfig:
    """A config without the sizes of what `ctx_mode` leaves out."""
    other = {"video": "sub_input_size", "sub": "visual_input_size"}[MODES[ctx_mode]]
    return replace(config, ctx_mode=ctx_mode, **{other: None})


@pytest.mark.parametrize("ctx_mode", MODES)
def test_parameters_are_those_of_the_two_modality_model_without_the_other_branch_and_cross_attention(ctx_mode):
    own = MODES[ctx_mode]
    other = "sub" if own == "video" else "video"
    both = {name: tuple(p.shape) for name, p in small_model().state_dict().items()}
    wanted = {
        name: shape
        for name, shape in both.items()
        if not name.startswith(other) and "_cross_" not in name and name != "modular_vector_mapping.weight"
    }
    found = {name: tuple(p.shape) for name, p in small_model(one_modality(SMALL, ctx_mode)).state_dict().items()}
    assert found == {**wanted, "modular_vector_mapping.weight": (1, SMALL.hidden_size)}


def test_the_number_of_parameters_is_the_sum_of_the_layers():
    d, visual, query = 384, 514, 384

    def linear(n_in: int) -> int:
        return n_in * d + d

    encoder = 4 * linear(d) + 2 * d  # query, key, value, dense; LayerNorm
    projections = 2 * visual + linear(visual) + 2 * query + linear(query)
    positions = (128 + 30) * d + 2 * 2 * d
    total = projections + positions + 5 * encoder + linear(d) + d + 2 * 5
    config = ModelConfig(
        visual_input_size=visual, sub_input_size=None, query_input_size=query, hidden_size=d, ctx_mode="video_tef"
    )
    assert count_parameters(ReLoCLNet(config)) == total


@pytest.mark.parametrize(
    ("ctx_mode", "sizes"),
    [("tef", (6, 5)), ("", (6, 5)), ("video_sub", (6, None)), ("video", (None, 5)), ("sub_tef", (6, None))],
)
def test_no_model_without_a_modality_or_without_its_size(ctx_mode, sizes):
    config = replace(SMALL, ctx_mode=ctx_mode, visual_input_size=sizes[0], sub_input_size=sizes[1])
    with pytest.raises(ValueError, match="ctx_mode"):
        ReLoCLNet(config)


class Plainly:
    """The equations of one modality in numpy, float64, one query and one video at a time."""

    def __init__(self, model: ReLoCLNet, modality: str) -> None:
        self.p = {name: p.detach().double().numpy() for name, p in model.state_dict().items()}
        self.m, self.heads = modality, model.config.n_heads

    def norm(self, x: np.ndarray, name: str) -> np.ndarray:
        centred = x - x.mean(-1, keepdims=True)
        scaled = centred / np.sqrt((centred**2).mean(-1, keepdims=True) + 1e-5)
        return scaled * self.p[f"{name}.weight"] + self.p[f"{name}.bias"]

    def linear(self, x: np.ndarray, name: str) -> np.ndarray:
        return x @ self.p[f"{name}.weight"].T + self.p[f"{name}.bias"]

    def encoder(self, x: np.ndarray, mask: np.ndarray, name: str) -> np.ndarray:
        parts = [self.linear(x, f"{name}.self.{part}") for part in ("query", "key", "value")]
        heads = []
        for q, k, v in zip(*(np.split(part, self.heads, axis=1) for part in parts), strict=True):
            scores = q @ k.T / np.sqrt(q.shape[1]) + (1 - mask) * -10000
            weights = np.exp(scores - scores.max(1, keepdims=True))
            heads.append(weights / weights.sum(1, keepdims=True) @ v)
        out = self.linear(np.concatenate(heads, axis=1), f"{name}.output.dense")
        return self.norm(out + x, f"{name}.output.LayerNorm")

    def inputs(self, x: np.ndarray, name: str, positions: str) -> np.ndarray:
        projected = np.maximum(self.linear(self.norm(x, f"{name}.LayerNorm"), f"{name}.net.1"), 0)
        placed = projected + self.p[f"{positions}.position_embeddings.weight"][: len(x)]
        return self.norm(placed, f"{positions}.LayerNorm")

    def query(self, x: np.ndarray, mask: np.ndarray) -> np.ndarray:
        tokens = self.inputs(x, "query_input_proj", "query_pos_embed")
        tokens = self.encoder(self.encoder(tokens, mask, "query_encoder"), mask, "query_encoder1")
        weights = np.exp(tokens @ self.p["modular_vector_mapping.weight"][0]) * mask
        return weights @ tokens / weights.sum()

    def context(self, x: np.ndarray, mask: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        h1 = self.encoder(self.inputs(x, f"{self.m}_input_proj", "ctx_pos_embed"), mask, f"{self.m}_encoder1")
        h2 = self.encoder(h1, mask, f"{self.m}_encoder2")
        return h2, self.encoder(h2, mask, f"{self.m}_encoder3")

    def boundary_logits(self, query: np.ndarray, h3: np.ndarray, which: str) -> np.ndarray:
        similarity = h3 @ self.linear(query, f"{self.m}_query_linear")
        kernel = self.p[f"merged_{which}_predictor.weight"].ravel()
        padded = np.pad(similarity, len(kernel) // 2)
        return np.array([padded[i : i + len(kernel)] @ kernel for i in range(len(similarity))])


def losses_done_plainly(model: ReLoCLNet, modality: str, batch: dict[str, torch.Tensor]) -> dict[str, float]:
    plain, config = Plainly(model, modality), model.config
    numbers = {name: tensor.double().numpy() for name, tensor in batch.items()}
    n = len(numbers["ctx_mask"])
    valid = [mask > 0 for mask in numbers["ctx_mask"]]
    queries = [plain.query(*pair) for pair in zip(numbers["query_feat"], numbers["query_mask"], strict=True)]
    h2, h3 = zip(
        *(plain.context(*pair) for pair in zip(numbers[f"{modality}_feat"], numbers["ctx_mask"], strict=True)),
        strict=True,
    )

    st_ed, fcl = [], []
    for i, (query, of_video) in enumerate(zip(queries, valid, strict=True)):
        cross_entropies = []
        for which, label in zip(("st", "ed"), batch["st_ed_indices"][i].tolist(), strict=True):
            logits = plain.boundary_logits(query, h3[i], which)
            cross_entropies.append(np.log(np.exp(logits[of_video]).sum()) - logits[label])
        st_ed.append(sum(cross_entropies))
        r, inside = h2[i] @ query, numbers["match_labels"][i] > 0
        softplus = np.log1p(np.exp(-r))
        positive, negative = np.log(2) - softplus, softplus + r - np.log(2)
        fcl.append(negative[of_video & ~inside].mean() - positive[inside].mean())

    x = np.array([[(h2[j][valid[j]] @ query).max() for j in range(n)] for query in queries])
    vcl = [np.log(np.exp(x[i]).sum() + np.exp(x[:, i]).sum()) - x[i, i] for i in range(n)]
    s = np.empty((n, n))
    for i, query in enumerate(queries):
        for j in range(n):
            clips = h3[j][valid[j]]
            s[i, j] = (clips @ query / np.linalg.norm(clips, axis=1) / np.linalg.norm(query)).max()
    others = np.where(np.eye(n, dtype=bool), -np.inf, s)
    hinge = {
        axis: np.maximum(0, config.margin + others.max(axis) - s.diagonal()).mean() for axis in (1, 0)
    }  # the hardest video for each query, the hardest query for each video
    losses = {
        "loss_st_ed": config.lw_st_ed * np.mean(st_ed),
        "loss_fcl": config.lw_fcl * np.mean(fcl),
        "loss_vcl": config.lw_vcl * np.mean(vcl),
        "loss_neg_ctx": config.lw_neg_ctx * hinge[1],
        "loss_neg_q": config.lw_neg_q * hinge[0],
    }
    return {**losses, "loss_overall": sum(losses.values())}


@pytest.mark.parametrize("ctx_mode", MODES)
def test_encodings_and_losses_are_those_of_the_equations_done_plainly(ctx_mode):
    own = MODES[ctx_mode]
    model = small_model(one_modality(PLAIN, ctx_mode)).eval()
    batch = small_batch(5)
    del batch[{"video": "sub_feat", "sub": "video_feat"}[own]]
    plain = Plainly(model, own)
    with torch.no_grad():
        query = model.encode_query(batch["query_feat"], batch["query_mask"])
        context = model.encode_context({own: batch[f"{own}_feat"]}, batch["ctx_mask"])
        _, losses = model(batch)
    assert list(query) == list(context) == [own]
    for i in range(5):
        of_query = plain.query(batch["query_feat"][i].double().numpy(), batch["query_mask"][i].numpy())
        h2, h3 = plain.context(batch[f"{own}_feat"][i].double().numpy(), batch["ctx_mask"][i].numpy())
        for found, expected in ((query[own][i], of_query), (context[own].h2[i], h2), (context[own].h3[i], h3)):
            np.testing.assert_allclose(found.numpy(), expected, atol=2e-5)
    expected = losses_done_plainly(model, own, batch)
    assert {name: float(loss) for name, loss in losses.items()} == pytest.approx(expected, rel=2e-5)


@pytest.mark.parametrize("ctx_mode", ["video", "sub_tef"])
def test_every_parameter_is_trained(ctx_mode):
    model = small_model(one_modality(PLAIN, ctx_mode))
    model(small_batch(6))[0].backward()
    assert [name for name, p in model.named_parameters() if p.grad is None] == []


@pytest.mark.parametrize(
    "spoilt",
    [
        {"visual_input_size": None},  # of the modality in use
        {"ctx_mode": "tef"},
        {"ctx_mode": "video_sub_tef"},  # whose other branch the file lacks
        {"ctx_mode": "sub_tef", "sub_input_size": 5},
        {"hidden_size": None},
        {"lw_st_ed": None},
    ],
)
def test_a_checkpoint_whose_sizes_are_not_those_of_its_modality_is_refused(tmp_path, spoilt):
    path, content = tmp_path / "model.ckpt", checkpoint_content(small_model(one_modality(SMALL, "video_tef")), 0)
    write_content(path, content)
    assert load_checkpoint(path).build_model().modalities == ("video",)
    write_content(path, {**content, "model_cfg": {**content["model_cfg"], **spoilt}})
    with pytest.raises(InputError, match=r"is no checkpoint of a model that is known|do not fit its model_cfg"):
        load_checkpoint(path)
