"""The model agrees with the reference's figures, and is sound where these do not reach."""

from dataclasses import asdict, replace

import numpy as np
import pytest
import torch

from method_tvr.model import LossSettings, ModelConfig, ReLoCLNet
from method_tvr.search.encoding import encode_queries
from method_tvr.search.records import EncodedQueries
from tests.support.runs.small_models import SMALL, golden_settings, small_batch, small_model
from utils.model_utils import count_parameters, named_generator

ANYWHERE, AT_VALID_CLIPS, LOSS, GRADIENT, KEY_BIAS = 1e-4, 1e-5, 1e-6, 1e-4, 1e-7
LOSS_NAMES = ("loss_st_ed", "loss_fcl", "loss_vcl", "loss_neg_ctx", "loss_neg_q", "loss_overall")


@pytest.fixture(scope="module")
def outputs(golden_checkpoint, golden_batch) -> dict[str, torch.Tensor]:
    model = golden_checkpoint.build_model()
    found = {}
    for m in model.modalities:
        for i in (1, 2, 3):
            encoder = model.part(m, f"encoder{i}")
            encoder.register_forward_hook(lambda _, __, out, name=f"{m}_enc{i}": found.update({name: out}))
    mask = golden_batch["ctx_mask"]
    with torch.no_grad():
        query = model.encode_query(golden_batch["query_feat"], golden_batch["query_mask"])
        context = model.encode_context({m: golden_batch[f"{m}_feat"] for m in model.modalities}, mask)
        h3 = {m: context[m].h3 for m in model.modalities}
        found |= {f"{m}_query": query[m] for m in model.modalities}
        found["q2ctx_scores"] = model.video_scores(query, h3, mask)
        found["st_logits"], found["ed_logits"] = model.span_logits(query, h3, mask)
        n = len(mask)
        pairs = (
            {m: q.repeat_interleave(n, dim=0) for m, q in query.items()},
            {m: h.repeat(n, 1, 1) for m, h in h3.items()},
            mask.repeat(n, 1),
        )
        st_logits, ed_logits = model.span_logits(*pairs)
        found["cross_st_logits"], found["cross_ed_logits"] = st_logits.view(n, n, -1), ed_logits.view(n, n, -1)
    return found


def test_every_output_of_the_reference_is_compared(model_io, outputs):
    assert {f"out/{name}" for name in outputs} == {name for name in model_io if name.startswith("out/")}


@pytest.mark.parametrize(
    "name",
    [
        *(f"{m}_{part}" for m in ("video", "sub") for part in ("query", "enc1", "enc2", "enc3")),
        *("q2ctx_scores", "st_logits", "ed_logits", "cross_st_logits", "cross_ed_logits"),
    ],
)
def test_outputs_agree_with_the_reference(model_io, outputs, name):
    difference = np.abs(outputs[name].numpy() - model_io[f"out/{name}"])
    assert difference.max() < ANYWHERE
    if "_enc" in name:
        difference = difference[model_io["in/video_mask"].astype(bool)]
    if "logits" not in name:
        assert difference.max() < AT_VALID_CLIPS


@pytest.mark.parametrize("longest", [9, 16, 17, 30])
def test_queries_are_encoded_without_padding_as_beside_it(golden_checkpoint, longest):
    model, generator = golden_checkpoint.build_model(), torch.Generator().manual_seed(longest)
    lengths = torch.randint(1, longest + 1, (40,), generator=generator)
    lengths[7] = longest
    mask = (torch.arange(longest) < lengths.unsqueeze(1)).float()
    feat = torch.randn(40, longest, model.config.query_input_size, generator=generator) * mask.unsqueeze(2)
    with torch.no_grad():
        query = model.encode_query(feat, mask)
        expected = EncodedQueries.build(query, model.span_queries(query), model.modalities)
    found = encode_queries(model, {"query_feat": feat, "query_mask": mask})
    for name, value in vars(expected).items():
        np.testing.assert_allclose(getattr(found, name), value, rtol=0, atol=1e-5, err_msg=name)


@pytest.mark.parametrize("trim_padding", [False, True])
def test_clips_encoded_group_by_group_agree_with_the_reference(golden_checkpoint, golden_batch, model_io, trim_padding):
    model, lengths = golden_checkpoint.build_model(), golden_batch["ctx_mask"].sum(dim=1).long()
    with torch.no_grad():
        groups = model.encode_videos(golden_batch | {"ctx_lengths": lengths}, trim_padding)
    seen = []
    for group in groups:
        numbers = torch.arange(len(lengths))[group.rows].tolist()
        seen += numbers
        for m in model.modalities:
            for i, h2, h3 in zip(numbers, group.h2[m], group.for_spans[m], strict=True):
                for name, found in (("enc2", h2), ("enc3", h3)):
                    expected = model_io[f"out/{m}_{name}"][i, : lengths[i]]
                    np.testing.assert_allclose(found[: lengths[i]], expected, rtol=0, atol=AT_VALID_CLIPS)
    assert sorted(seen) == list(range(len(lengths)))


@pytest.mark.parametrize("kind", ["hinge", "lse"])
def test_losses_and_gradients_agree_with_the_reference(golden_checkpoint, golden_batch, model_io, kind):
    model = golden_checkpoint.build_model()
    total, losses = model(golden_batch, golden_settings(kind))
    total.backward()
    assert tuple(losses) == LOSS_NAMES
    for name, loss in losses.items():
        assert abs(float(loss) - float(model_io[f"loss_{kind}/{name}"])) < LOSS, name
    assert {name for name in model_io if name.startswith(f"grad_{kind}/")} == {
        f"grad_{kind}/{name}" for name, _ in model.named_parameters()
    }
    for name, parameter in model.named_parameters():
        expected = model_io[f"grad_{kind}/{name}"]
        difference = parameter.grad.numpy() - expected
        if name.endswith("key.bias"):  # zero in exact arithmetic
            assert np.abs(difference).max() < KEY_BIAS, name
        else:
            assert np.linalg.norm(difference) < GRADIENT * np.linalg.norm(expected), name


def test_paper_size_has_the_references_parameters():
    config = ModelConfig(visual_input_size=514, sub_input_size=386, query_input_size=384)
    assert count_parameters(ReLoCLNet(config)) == 6_481_042


def test_initial_weights_have_the_asked_spread_and_biases_are_zero():
    config = replace(SMALL, hidden_size=96, initializer_range=0.05)
    weights = dict(small_model(config).named_parameters())
    for name, parameter in weights.items():
        values = parameter.detach()
        if "layernorm" in name.lower():
            assert torch.equal(values, torch.full_like(values, float(name.endswith("weight")))), name
        elif name.endswith("bias"):
            assert not values.any(), name
        elif "predictor" in name:  # Conv1d keeps its own: uniform within 1 / sqrt(kernel)
            assert values.abs().max() <= config.conv_kernel_size**-0.5
            assert values.any()
        else:
            error = 0.05 / values.numel() ** 0.5
            assert abs(float(values.mean())) < 5 * error, name
            assert abs(float(values.std()) - 0.05) < 5 * error, name
    # encoders have one shape but draw weights of their own
    encoders = [values for name, values in weights.items() if name.endswith("self.query.weight")]
    assert len(encoders) == 2 + 2 * 3
    assert all(not torch.equal(a, b) for i, a in enumerate(encoders) for b in encoders[:i])


def test_initial_weights_depend_on_the_generator_alone():
    torch.manual_seed(1)
    first = small_model().state_dict()
    torch.manual_seed(2)
    again, other = small_model().state_dict(), small_model(seed=2).state_dict()
    assert all(torch.equal(first[name], again[name]) for name in first)
    assert not torch.equal(first["query_encoder.self.query.weight"], other["query_encoder.self.query.weight"])


def test_even_kernels_and_strides_are_refused():
    for change in ({"conv_kernel_size": 4}, {"conv_stride": 2}):
        with pytest.raises(ValueError, match="odd"):
            ReLoCLNet(replace(SMALL, **change))


def losses_of_three_passes(model: ReLoCLNet) -> set[float]:
    batch, settings = small_batch(4), replace(SMALL, use_hard_negative=True, hard_pool_size=1)
    return {model(batch, settings)[0].item() for _ in range(3)}


def test_dropout_is_at_work_in_training_only():
    model = small_model()
    assert len(losses_of_three_passes(model.train())) == 3
    assert len(losses_of_three_passes(model.eval())) == 1


@pytest.mark.parametrize("rate", ["input_drop", "drop"])
def test_each_dropout_rate_reaches_the_model(rate):
    off = {"input_drop": 0.0, "drop": 0.0}
    assert len(losses_of_three_passes(small_model(replace(SMALL, **off)).train())) == 1
    assert len(losses_of_three_passes(small_model(replace(SMALL, **{**off, rate: 0.3})).train())) == 3


def test_clips_past_the_end_and_missing_tokens_change_no_query_and_no_video_score():
    model, batch = small_model().eval(), small_batch(5)
    changed = dict(batch)
    for feat, mask in (("query_feat", "query_mask"), ("video_feat", "ctx_mask"), ("sub_feat", "ctx_mask")):
        changed[feat] = torch.where(batch[mask].unsqueeze(2).bool(), batch[feat], torch.full_like(batch[feat], 7.0))
    scores = []
    for inputs in (batch, changed):
        query = model.encode_query(inputs["query_feat"], inputs["query_mask"])
        context = model.encode_context({m: inputs[f"{m}_feat"] for m in model.modalities}, inputs["ctx_mask"])
        scores.append(model.video_scores(query, {m: context[m].h3 for m in context}, inputs["ctx_mask"]))
    torch.testing.assert_close(*scores)


def test_video_score_is_the_best_cosine_averaged_over_modalities():
    model, generator = small_model(), torch.Generator().manual_seed(3)
    query = {m: torch.randn(2, 8, generator=generator) for m in model.modalities}
    clips = {m: torch.randn(3, 4, 8, generator=generator) for m in model.modalities}
    mask = torch.tensor([[1, 1, 1, 1], [1, 1, 0, 0], [1, 0, 0, 0]])
    cosine, product = (torch.zeros(2, 3), torch.zeros(2, 3))
    for q in range(2):
        for v in range(3):
            for m in model.modalities:
                valid = clips[m][v, : int(mask[v].sum())]
                cosine[q, v] += torch.cosine_similarity(query[m][q], valid, dim=-1).max() / 2
                product[q, v] += (valid @ query[m][q]).max() / 2
    torch.testing.assert_close(model.video_scores(query, clips, mask), cosine)
    torch.testing.assert_close(model.video_cl_scores(query, clips, mask), product)


def test_a_batch_of_one_has_no_ranking_loss():
    total, losses = small_model().eval()(small_batch(1))
    assert set(losses) == {"loss_st_ed", "loss_fcl", "loss_vcl", "loss_overall"}
    assert torch.isfinite(total)


@pytest.mark.parametrize(
    ("weight", "skipped"), [("lw_st_ed", {"loss_st_ed"}), ("lw_fcl", {"loss_fcl"}), ("lw_vcl", {"loss_vcl"})]
)
def test_a_weight_of_zero_skips_its_loss(weight, skipped):
    model, batch = small_model().eval(), small_batch(4)
    settings = replace(SMALL, use_hard_negative=True, hard_pool_size=1)
    _, all_losses = model(batch, settings)
    _, losses = model(batch, replace(settings, **{weight: 0}))
    assert set(all_losses) - set(losses) == skipped
    rest = sum(float(losses[name]) for name in losses if name != "loss_overall")
    assert float(losses["loss_overall"]) == pytest.approx(rest, abs=1e-6)


def test_ranking_weights_of_zero_give_no_ranking_loss():
    model, batch = small_model().eval(), small_batch(4)
    _, one = model(batch, replace(SMALL, lw_neg_q=0))
    assert not one.get("loss_neg_q", 0)
    assert one["loss_neg_ctx"] > 0
    _, none = model(batch, replace(SMALL, lw_neg_q=0, lw_neg_ctx=0))
    assert not {"loss_neg_q", "loss_neg_ctx"} & set(none)


def test_no_loss_at_all_is_zero():
    off = dict.fromkeys(("lw_neg_q", "lw_neg_ctx", "lw_fcl", "lw_vcl", "lw_st_ed"), 0)
    total, losses = small_model()(small_batch(4), replace(SMALL, **off))
    assert float(total) == 0
    assert set(losses) == {"loss_overall"}


def test_weights_scale_their_losses():
    model, batch = small_model().eval(), small_batch(4)
    settings = replace(SMALL, use_hard_negative=True, hard_pool_size=1)
    doubled = replace(settings, **{name: 2 * getattr(settings, name) for name in LossSettings.__dataclass_fields__
                                   if name.startswith("lw_")})  # fmt: skip
    _, once = model(batch, settings)
    _, twice = model(batch, doubled)
    for name in once:
        assert float(twice[name]) == pytest.approx(2 * float(once[name]), rel=1e-6), name


def test_negatives_come_from_the_given_generator():
    model, batch = small_model().eval(), small_batch(8)

    def loss(name: str) -> float:
        return model(batch, generator=named_generator(5, name))[0].item()

    assert loss("negatives/0") == loss("negatives/0")
    assert len({loss(f"negatives/{epoch}") for epoch in range(10)}) > 1


def test_config_survives_its_dictionary_and_ignores_what_it_does_not_know():
    assert ModelConfig.from_dict({**asdict(SMALL), "made_up": 1}) == SMALL
    assert SMALL.modalities == ("video", "sub")
