"""Training that computes the clips somebody looks at learns what training that computes all of them learns."""

from dataclasses import replace

import pytest
import torch
from torch import nn
from torch.utils.checkpoint import checkpoint

from method_tvr.dataset import video_groups
from method_tvr.layers.seen import LayerNorm, Linear, Seen, padded_again, seen_of
from method_tvr.model import ModelConfig, ReLoCLNet
from method_tvr.xml_model import XMLConfig
from tests.support.runs.small_models import small_batch

SIZES = ModelConfig(
    visual_input_size=34, sub_input_size=26, query_input_size=20, hidden_size=64, n_heads=2, max_ctx_l=128, max_desc_l=8
)
CONFIGS = {
    "two modalities": SIZES,
    "video alone": replace(SIZES, ctx_mode="video_tef", sub_input_size=None),
    "subtitles alone, a length that is no multiple": replace(
        SIZES, ctx_mode="sub_tef", visual_input_size=None, max_ctx_l=75
    ),
    "wide kernel": replace(SIZES, conv_kernel_size=9),
    "XML": XMLConfig(visual_input_size=34, sub_input_size=26, query_input_size=20, hidden_size=64, max_desc_l=8),
    "XML, of which no modality attends to the other": XMLConfig(
        visual_input_size=34, sub_input_size=26, query_input_size=20, hidden_size=64, max_desc_l=8, cross_att=False
    ),
}
LENGTHS = [9, 13, 14, 30, 30, 31, 46, 47, 1, 16, 60, 75, 20, 20, 33, 5, 28, 12, 75]  # two groups, the second of three


def short_videos(config: ModelConfig) -> dict[str, torch.Tensor]:
    batch = small_batch(len(LENGTHS), config=replace(config, visual_input_size=34, sub_input_size=26))
    mask = (torch.arange(config.max_ctx_l) < torch.tensor(LENGTHS).unsqueeze(1)).float()
    feats = {name: batch[name] * mask.unsqueeze(2) for name in ("video_feat", "sub_feat")}
    one_clip = torch.zeros(len(LENGTHS), 2, dtype=torch.int64)
    labels = torch.zeros(len(LENGTHS), config.max_ctx_l, dtype=torch.int64)
    labels[:, 0] = 1
    return {**batch, **feats, "ctx_mask": mask, "st_ed_indices": one_clip, "match_labels": labels}


def new_model(config: ModelConfig) -> ReLoCLNet:
    return config.build(torch.Generator().manual_seed(0)).train()


def learnt(model: ReLoCLNet, batch: dict[str, torch.Tensor], **how: object) -> dict[str, torch.Tensor]:
    """The losses and all gradients of a batch, with the same dropout every time."""
    torch.manual_seed(1)
    loss, losses = model(batch, generator=torch.Generator().manual_seed(2), **how)
    loss.backward()
    return losses | {name: p.grad for name, p in model.named_parameters() if p.grad is not None}


def clips_of_last_encoder(model: ReLoCLNet, batch: dict[str, torch.Tensor], **how: object) -> int:
    """How many clips of the first group the last encoder of a modality is given."""
    numbers = []
    with torch.no_grad():
        last = max(name for name, _ in model.named_children() if name.startswith(f"{model.modalities[0]}_encoder"))
        model.part(*last.split("_")).register_forward_pre_hook(
            lambda _, given: numbers.append(given[0][..., 0].numel())
        )
        model(batch, generator=torch.Generator().manual_seed(2), **how)
    return numbers[0]


@pytest.mark.parametrize("config", CONFIGS.values(), ids=CONFIGS)
def test_what_is_learnt_is_the_same_whether_or_not_unseen_clips_are_computed(config, monkeypatch):
    batch = short_videos(config)
    of_seen = learnt(new_model(config), batch)
    monkeypatch.setattr(video_groups, "MOST", 0)
    of_all = learnt(new_model(config), batch)
    assert of_seen.keys() == of_all.keys()
    for name, expected in of_all.items():
        if torch.backends.cpu.get_cpu_capability() == "AVX512":
            assert torch.equal(of_seen[name], expected), name
        elif "key.bias" not in name:  # whose gradient is 0 but for rounding
            scale = float(expected.abs().max())
            torch.testing.assert_close(of_seen[name], expected, rtol=1e-4, atol=1e-5 * scale, msg=name)


@pytest.mark.parametrize("config", CONFIGS.values(), ids=CONFIGS)
def test_of_each_video_no_more_is_computed_than_scores_see(config):
    reach = config.conv_kernel_size // 2
    expected = sum(min(config.max_ctx_l, -(-(n + reach) // 16) * 16) for n in LENGTHS[:16])
    assert clips_of_last_encoder(new_model(config), short_videos(config)) == expected


def test_all_is_computed_where_most_of_it_is_seen_or_nothing_is_known_to_be_saved():
    batch, everything = short_videos(SIZES), 16 * SIZES.max_ctx_l
    long = {**batch, "ctx_mask": torch.ones_like(batch["ctx_mask"])}
    assert clips_of_last_encoder(new_model(SIZES), long) == everything
    assert clips_of_last_encoder(new_model(replace(SIZES, drop=0.0)), batch) == everything
    assert clips_of_last_encoder(new_model(SIZES), batch, amp_dtype=torch.bfloat16) == everything


def test_clips_after_a_hole_in_a_video_are_seen(monkeypatch):
    batch = short_videos(SIZES)
    batch["ctx_mask"][0, 3:6] = 0
    of_seen = learnt(new_model(SIZES), batch)
    monkeypatch.setattr(video_groups, "MOST", 0)
    of_all = learnt(new_model(SIZES), batch)
    torch.testing.assert_close(of_seen["loss_overall"], of_all["loss_overall"])


@pytest.mark.parametrize("part", ["video_encoder2", "sub_cross_att"])
def test_a_part_of_the_model_may_be_in_evaluation(part, monkeypatch):
    batch, found = short_videos(SIZES), []
    for most in (video_groups.MOST, 0):
        monkeypatch.setattr(video_groups, "MOST", most)
        model = new_model(SIZES)
        model.get_submodule(part).eval()
        found.append(learnt(model, batch)["loss_overall"])
    torch.testing.assert_close(*found)


def test_activations_may_be_computed_again():
    batch, model = short_videos(SIZES), new_model(SIZES)

    def loss() -> torch.Tensor:
        return model(batch, generator=torch.Generator().manual_seed(2))[0]

    checkpoint(loss, use_reentrant=False).backward()
    assert all(p.grad is None or torch.isfinite(p.grad).all() for p in model.parameters())
    assert model.get_parameter("video_encoder3.self.value.weight").grad is not None


def test_seen_clips_lie_one_after_another_and_back_in_their_places():
    seen = Seen([3, 1, 3, 4], length=4)
    padded = torch.arange(32.0).view(4, 4, 2) + 1
    x = seen.of(padded)
    assert len(x) == 11
    again = seen.padded(x)
    for video, n in enumerate((3, 1, 3, 4)):
        assert torch.equal(again[video, :n], padded[video, :n])
        assert not again[video, n:].any()
    for part in seen.parts:
        given = x[part.rows].unflatten(0, (len(part.videos), -1))
        assert torch.equal(given, padded[part.videos, : given.shape[1]])
    assert seen_of(padded, None) is padded_again(padded, None) is padded


@pytest.mark.parametrize(
    "layer", [Linear(6, 4), Linear(6, 4, bias=False), LayerNorm(6)], ids=["linear", "without bias", "norm"]
)
def test_gradients_of_seen_clips_are_those_of_all_where_others_have_none(layer: nn.Module):
    torch.manual_seed(0)
    seen = Seen([2, 5, 1], length=5)
    padded = torch.randn(3, 5, 6, requires_grad=True)
    given = {*layer.parameters()} | {padded}
    for _ in range(2):  # the second time with memory of the first
        y = layer(seen_of(padded, seen), seen)
        towards = torch.randn_like(y)
        found = torch.autograd.grad(y, list(given), towards)
        all_y = layer(padded)
        assert torch.equal(seen.of(all_y), y)
        expected = torch.autograd.grad(all_y, list(given), seen.padded(towards))
        for ours, theirs in zip(found, expected, strict=True):
            torch.testing.assert_close(ours, theirs)
