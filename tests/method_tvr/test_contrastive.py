"""The losses agree with the reference's figures, and with plain formulas where there are none."""

import math

import numpy as np
import pytest
import torch

from method_tvr.contrastive import (
    MEASURES,
    LossSettings,
    draw_negatives,
    frame_cl,
    frame_cl_video_to_video,
    ranking_loss,
    ranking_loss_of_all,
    ranking_losses,
    span_loss,
    video_cl,
)
from tests.support.golden_files import load_npz

COMPONENTS = {name: torch.from_numpy(array) for name, array in load_npz("components.npz").items()}
FCL = {name.removeprefix("fcl/"): array for name, array in COMPONENTS.items() if name.startswith("fcl/")}


def similarity() -> torch.Tensor:
    return torch.einsum("nd,nld->nl", FCL["query"], FCL["video"])


def softplus(r: float) -> float:
    return math.log1p(math.exp(-abs(r))) + max(r, 0.0)


def mean_or_0(values: list[float]) -> float:
    return sum(values) / len(values) if values else 0.0


SCALAR_PARTS = {
    "JSD": (lambda r: math.log(2) - softplus(-r), lambda r: softplus(-r) + r - math.log(2)),
    "GAN": (lambda r: -softplus(-r), lambda r: softplus(-r) + r),
    "X2": (lambda r: r * r, lambda r: -0.5 * (abs(r) + 1) ** 2),
    "KL": (lambda r: r + 1, math.exp),
    "RKL": (lambda r: -math.exp(-r), lambda r: r - 1),
    "H2": (lambda r: 1 - math.exp(-r), lambda r: math.exp(r) - 1),
    "W1": (lambda r: r, lambda r: r),
}


def test_video_cl_agrees_with_the_reference():
    torch.testing.assert_close(video_cl(COMPONENTS["milnce/x"]), COMPONENTS["milnce/out"], rtol=0, atol=1e-6)


@pytest.mark.parametrize("measure", sorted(SCALAR_PARTS))
def test_frame_cl_agrees_with_the_reference(measure):
    found = frame_cl(similarity(), FCL["labels"], FCL["mask"], measure)
    torch.testing.assert_close(found, FCL[f"out_{measure}"], rtol=1e-6, atol=1e-6)


def test_frame_cl_between_videos_agrees_with_the_reference():
    found = frame_cl_video_to_video(FCL["video"], FCL["st_ed"], FCL["labels"], FCL["mask"])
    torch.testing.assert_close(found, COMPONENTS["vvcl/out_JSD"], rtol=1e-6, atol=1e-6)


def test_jsd_is_the_default_and_every_measure_is_covered():
    assert torch.equal(
        frame_cl(similarity(), FCL["labels"], FCL["mask"]), frame_cl(similarity(), FCL["labels"], FCL["mask"], "JSD")
    )
    assert set(MEASURES) == {*SCALAR_PARTS, "DV"}


@pytest.mark.parametrize("measure", [*sorted(SCALAR_PARTS), "DV"])
def test_frame_cl_agrees_with_its_formula(measure):
    r, labels, mask = similarity().double().numpy(), FCL["labels"].numpy(), FCL["mask"].numpy()
    n, n_clips = r.shape
    negatives = (1 - labels) * mask
    if measure == "DV":  # a clip position's negatives are pooled over the batch
        pooled = [math.log(sum(math.exp(r[i, c] * negatives[i, c]) for i in range(n))) - math.log(n)
                  for c in range(n_clips)]  # fmt: skip
    total = 0.0
    for i in range(n):
        positive = [c for c in range(n_clips) if labels[i, c]]
        negative = [c for c in range(n_clips) if negatives[i, c]]
        if measure == "DV":
            e_pos = mean_or_0([r[i, c] for c in positive])
            e_neg = mean_or_0([pooled[c] for c in negative])
        else:
            positive_part, negative_part = SCALAR_PARTS[measure]
            e_pos = mean_or_0([positive_part(r[i, c]) for c in positive])
            e_neg = mean_or_0([negative_part(r[i, c]) for c in negative])
        total += (e_neg - e_pos) / n
    found = float(frame_cl(similarity(), FCL["labels"], FCL["mask"], measure))
    assert found == pytest.approx(total, rel=1e-5, abs=1e-6)


@pytest.mark.parametrize("measure", sorted(MEASURES))
def test_frame_cl_is_finite_for_a_moment_that_is_the_whole_video(measure):
    scores = torch.zeros(2, 4, requires_grad=True)
    loss = frame_cl(scores, torch.ones(2, 4, dtype=torch.int64), torch.ones(2, 4), measure)
    loss.backward()
    assert torch.isfinite(loss)
    assert torch.isfinite(scores.grad).all()


def test_video_cl_agrees_with_its_formula():
    scores = torch.randn(5, 5, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    terms = []
    for i in range(5):
        together = [*scores[i].tolist(), *scores[:, i].tolist()]
        terms.append(math.log(sum(map(math.exp, together))) - float(scores[i, i]))
    assert float(video_cl(scores)) == pytest.approx(np.mean(terms))


def draw_often(scores: torch.Tensor, pool_size: int | None, times: int = 3000) -> np.ndarray:
    """How often each column was drawn for each row."""
    generator = torch.Generator().manual_seed(7)
    counts = np.zeros(scores.shape, dtype=int)
    for _ in range(times):
        counts[np.arange(len(scores)), draw_negatives(scores, pool_size, generator).numpy()] += 1
    return counts


def assert_uniform(counts: np.ndarray, times: int) -> None:
    expected = times / len(counts)
    assert np.abs(counts - expected).max() < 5 * math.sqrt(expected)


def test_random_negatives_are_uniform_and_never_the_diagonal():
    scores = torch.randn(6, 6, generator=torch.Generator().manual_seed(1))
    for row, counts in enumerate(draw_often(scores, None)):
        assert counts[row] == 0
        assert_uniform(np.delete(counts, row), 3000)


@pytest.mark.parametrize("pool_size", [1, 2, 4])
def test_hard_negatives_are_uniform_among_the_best_scored_others(pool_size):
    scores = torch.randn(7, 7, generator=torch.Generator().manual_seed(2))
    scores.fill_diagonal_(-100.0)  # the diagonal must stay out wherever it ranks
    scores[0, 0] = 100.0
    for row, counts in enumerate(draw_often(scores, pool_size)):
        others = [column for column in scores[row].argsort(descending=True).tolist() if column != row]
        assert counts[others[pool_size:]].sum() == counts[row] == 0
        assert_uniform(counts[others[:pool_size]], 3000)


def test_a_pool_larger_than_the_batch_takes_all_others():
    for row, counts in enumerate(draw_often(torch.randn(3, 3), 20)):
        assert counts[row] == 0
        assert (np.delete(counts, row) > 1000).all()


@pytest.mark.parametrize("pool_size", [None, 1, 2, 20])
def test_negatives_are_of_other_queries_and_uniform_among_these(pool_size):
    same = torch.zeros(5, 5, dtype=torch.bool)
    same[0, 2] = same[2, 0] = True
    scores = torch.tensor([[9.0, 1.0, 8.0, 3.0, 2.0]]).repeat(5, 1)
    generator = torch.Generator().manual_seed(0)
    drawn = torch.stack([draw_negatives(scores, pool_size, generator, same) for _ in range(2000)])
    best = {0: [3, 4, 1], 1: [0, 2, 3, 4], 2: [3, 4, 1], 3: [0, 2, 4, 1], 4: [0, 2, 3, 1]}
    for row, columns in best.items():
        allowed = columns[: pool_size or 4]
        counts = torch.bincount(drawn[:, row], minlength=5)
        assert {*counts.nonzero().flatten().tolist()} == {*allowed}
        share = 2000 / len(allowed)
        assert (counts[allowed] - share).abs().max() < 5 * math.sqrt(share)


def test_a_row_without_negatives_has_itself_and_leaves_no_gradient():
    same = ~torch.eye(3, dtype=torch.bool)
    scores = torch.rand(3, 3, requires_grad=True)
    negatives = draw_negatives(scores, None, torch.Generator(), same)
    assert negatives.tolist() == [0, 1, 2]
    (video_cl(scores, None, same) + ranking_loss(scores, negatives, 0.1)).backward()
    assert (scores.grad == 0).all()


def test_video_cl_leaves_out_other_pairs_of_a_query():
    scores, same = torch.rand(4, 4, dtype=torch.float64), torch.zeros(4, 4, dtype=torch.bool)
    same[1, 3] = same[3, 1] = True
    terms = []
    for i in range(4):
        others = [j for j in range(4) if not same[i, j]]
        both = [scores[i, j] for j in others] + [scores[j, i] for j in others]
        terms.append(torch.logsumexp(torch.stack(both), dim=0) - scores[i, i])
    assert float(video_cl(scores, None, same)) == pytest.approx(float(torch.stack(terms).mean()))


def test_two_in_a_batch_are_each_others_negatives():
    for pool_size in (None, 1, 20):
        drawn = draw_negatives(torch.randn(2, 2), pool_size, torch.Generator())
        assert drawn.tolist() == [1, 0]


def test_ranking_losses_agree_with_their_formulas():
    scores = torch.tensor([[0.5, 0.45, 0.0], [0.9, 0.2, 0.1], [0.0, 0.3, 0.3]])
    negatives = torch.tensor([1, 0, 1])
    gaps = [0.45 - 0.5, 0.9 - 0.2, 0.3 - 0.3]
    hinge = np.mean([max(0.0, 0.1 + gap) for gap in gaps])
    lse = np.mean([math.log(1 + math.exp(gap)) for gap in gaps])
    assert float(ranking_loss(scores, negatives, 0.1, "hinge")) == pytest.approx(hinge)
    assert float(ranking_loss(scores, negatives, 0.1, "lse")) == pytest.approx(lse)


@pytest.mark.parametrize("kind", ["hinge", "lse"])
def test_the_loss_of_all_negatives_is_the_mean_over_draws(kind):
    scores = torch.rand((2, 4, 4), generator=torch.Generator().manual_seed(3), dtype=torch.float64)
    shifts = [(torch.arange(4) + shift) % 4 for shift in (1, 2, 3)]
    drawn = [ranking_loss(scores, negatives.expand(2, 4), 0.1, kind) for negatives in shifts]
    torch.testing.assert_close(ranking_loss_of_all(scores, 0.1, kind), torch.stack(drawn).mean(dim=0))


def test_the_loss_of_all_negatives_leaves_out_those_of_the_same_query():
    scores = torch.tensor([[0.5, 9.0, 0.45], [9.0, 0.2, 0.9], [0.0, 0.3, 0.3]])
    same = torch.tensor([[False, True, False], [True, False, False], [False, False, False]])
    wanted = np.mean([0.1 + 0.45 - 0.5, 0.1 + 0.9 - 0.2, (0.0 + 0.1) / 2])
    assert float(ranking_loss_of_all(scores, 0.1, "hinge", same)) == pytest.approx(wanted)
    assert float(ranking_loss_of_all(scores, 0.1, "hinge", torch.ones(3, 3, dtype=torch.bool))) == 0  # none is left


def test_with_all_negatives_nothing_is_drawn():
    settings, generator = LossSettings(all_negatives=True), torch.Generator().manual_seed(0)
    before = generator.get_state()
    found = ranking_losses(torch.rand(4, 4), settings, generator)
    assert list(found) == ["loss_neg_ctx", "loss_neg_q"]
    assert torch.equal(generator.get_state(), before)


def test_ranking_gradient_reaches_the_pair_and_nothing_else():
    scores = torch.zeros(3, 3, requires_grad=True)
    ranking_loss(scores, torch.tensor([1, 2, 0]), 0.1).backward()
    expected = torch.tensor([[-1.0, 1.0, 0.0], [0.0, -1.0, 1.0], [1.0, 0.0, -1.0]]) / 3
    torch.testing.assert_close(scores.grad, expected)


def test_span_loss_is_the_cross_entropy_of_both_ends():
    logits = torch.randn(2, 4, 6, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    ends = torch.tensor([[0, 2], [5, 5], [1, 4], [3, 3]])
    expected = 0.0
    for which in range(2):
        for row in range(4):
            log_total = math.log(sum(map(math.exp, logits[which, row].tolist())))
            expected += (log_total - float(logits[which, row, ends[row, which]])) / 4
    assert float(span_loss(logits[0], logits[1], ends)) == pytest.approx(expected)
