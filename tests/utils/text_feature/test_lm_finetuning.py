"""Masked-LM fine-tuning masks as BERT does, follows the original's schedule, learns, and saves whole folders only."""

import math
from pathlib import Path

import pytest
import torch
from transformers import AutoModelForMaskedLM, AutoTokenizer

from tests.support.runs.disk import largest_file
from tests.support.text_models import build_model, minilm, run_command, sentences
from utils.basic_utils import InputError, read_json, write_jsonl
from utils.text_feature import masked_lm
from utils.text_feature.lm_finetuning_on_single_sentences import main, query_examples, subtitle_examples
from utils.text_feature.masked_lm import IGNORED, Masker, Settings, fine_tune, held_out_loss, mask_tokens
from utils.text_feature.pretrained import Tokenizer, load_masked_lm, save_model
from utils.text_feature.text_encoder import TextEncoder

CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build_model(tmp_path_factory.mktemp("models") / "tiny")


@pytest.fixture
def corpus(tmp_path: Path) -> Path:
    """48 training queries of 6 videos, 16 held-out ones, subtitles of these videos and of others."""
    rows = [{"desc_id": i, "desc": text, "vid_name": f"v{i % 6}"} for i, text in enumerate(sentences(64))]
    write_jsonl(rows[:48], tmp_path / "train.jsonl")
    write_jsonl(rows[48:], tmp_path / "val.jsonl")
    subs = [
        {"vid_name": f"v{v}", "sub": [{"text": text, "start": 0, "end": 1} for text in sentences(8 + v)]}
        for v in range(9)
    ]
    write_jsonl(subs, tmp_path / "subs.jsonl")
    return tmp_path


def argv(corpus: Path, tiny: Path, **options: object) -> list[object]:
    given = {
        "model_name_or_path": tiny,
        "train_data_file": corpus / "train.jsonl",
        "output_dir": corpus / "tuned",
        "device": -1,
        **options,
    }
    return [
        part for name, value in given.items() for part in ([f"--{name}"] if value is True else [f"--{name}", value])
    ]


class TestMasking:
    def test_15_percent_are_chosen_of_which_80_are_masked_10_replaced_and_10_left(self):
        ids = torch.randint(10, 1000, (500, 200), generator=torch.Generator().manual_seed(1))
        maskable = torch.ones_like(ids, dtype=torch.bool)
        maskable[:, 0] = False
        seen, labels = mask_tokens(ids, maskable, 4, 1000, 0.15, torch.Generator().manual_seed(2))
        chosen = labels != IGNORED
        n_chosen, n_maskable = int(chosen.sum()), int(maskable.sum())
        assert abs(n_chosen / n_maskable - 0.15) < 5 * math.sqrt(0.15 * 0.85 / n_maskable)
        assert torch.equal(labels[chosen], ids[chosen])
        assert torch.equal(seen[~chosen], ids[~chosen])
        masked, kept = (seen == 4) & chosen, (seen == ids) & chosen
        replaced = chosen & ~masked & ~kept
        for share, found in ((0.8, masked), (0.1, kept), (0.1, replaced)):
            assert abs(int(found.sum()) / n_chosen - share) < 5 * math.sqrt(share * (1 - share) / n_chosen) + 1e-3
        values = seen[replaced]
        assert len(values.unique()) > 700  # any token of the vocabulary, not a few
        assert values.max() < 1000

    def test_special_tokens_and_padding_are_never_chosen(self, tiny: Path):
        tokenizer = Tokenizer(str(tiny))
        examples = tokenizer.ids(sentences(5))
        masker = Masker(tokenizer, probability=0.999)
        batch = masker(examples, torch.Generator().manual_seed(0))
        for row, example in enumerate(examples):
            labels = batch.labels[row]
            assert labels[0] == labels[len(example) + 1] == IGNORED
            assert (labels[len(example) + 2 :] == IGNORED).all()
            assert (labels[1 : len(example) + 1] != IGNORED).float().mean() > 0.7
            assert batch.mask[row].tolist() == [1] * (len(example) + 2) + [0] * (len(labels) - len(example) - 2)

    def test_other_tokens_are_chosen_in_each_epoch(self, tiny: Path):
        tokenizer = Tokenizer(str(tiny))
        settings = Settings(n_epochs=2, batch_size=4)
        steps = list(masked_lm._step_groups(tokenizer.ids(sentences(4)), Masker(tokenizer, 0.5), settings))
        first, second = steps[0][0].labels, steps[1][0].labels
        assert sorted((first != IGNORED).sum(dim=1)) != [0] * 4
        assert first.shape != second.shape or not torch.equal(first, second)


class TestSchedule:
    def test_the_learning_rate_falls_linearly_and_updates_are_those_of_adamw(self, tiny: Path, monkeypatch):
        rates: list[float] = []
        step = torch.optim.AdamW.step

        def spy(optimizer: torch.optim.AdamW, *args: object) -> None:
            rates.append(optimizer.param_groups[0]["lr"])
            step(optimizer, *args)
            assert optimizer.param_groups[0]["eps"] == 1e-8
            assert all(group["weight_decay"] == 0 for group in optimizer.param_groups)

        monkeypatch.setattr(torch.optim.AdamW, "step", spy)
        tokenizer = Tokenizer(str(tiny))
        losses = fine_tune(load_masked_lm(str(tiny)).model, tokenizer, tokenizer.ids(sentences(18)), Settings(), CPU)
        assert len(losses) == 5  # 18 examples in batches of 4, the last one smaller
        assert rates == pytest.approx([5e-5 * (1 - i / 5) for i in range(5)])

    def test_accumulated_batches_make_one_step_of_their_mean_gradient(self, tiny: Path):
        """Two batches a step give the gradient computed here by hand from the same masked batches."""
        tokenizer = Tokenizer(str(tiny))
        settings = Settings(batch_size=2, accumulation_steps=2, max_grad_norm=0.5)
        examples = tokenizer.ids(sentences(4))
        model = load_masked_lm(str(tiny)).model
        for module in model.modules():
            if isinstance(module, torch.nn.Dropout):
                module.p = 0.0
        seen: list[torch.Tensor] = []
        fine_tuned = {name: value.clone() for name, value in model.named_parameters()}
        [group] = masked_lm._step_groups(examples, Masker(tokenizer, settings.mlm_probability), settings)
        loss = sum(
            model(input_ids=b.ids, attention_mask=b.mask, labels=b.labels).loss
            for b in group
            if (b.labels != IGNORED).any()
        )
        (loss / 2).backward()
        norm = torch.nn.utils.clip_grad_norm_(model.parameters(), 0.5)
        assert norm > 0.5
        expected = {name: value.grad.clone() for name, value in model.named_parameters() if value.grad is not None}
        model.zero_grad()
        for name, value in model.named_parameters():
            if name in expected:
                value.register_hook(lambda grad: seen.append(grad))
        losses = fine_tune(model, tokenizer, examples, settings, CPU)
        assert losses == pytest.approx([loss.item() / 2], rel=1e-5)
        assert seen
        for name, value in model.named_parameters():
            if name in expected:  # Adam's first step: the sign of the gradient, scaled by 5e-5
                gradient = expected[name]
                step = 5e-5 * gradient / (gradient.abs() + 1e-8)
                large = gradient.abs() > 1e-6
                moved = (fine_tuned[name] - value)[large]
                torch.testing.assert_close(moved, step[large], rtol=0.02, atol=2e-7)

    def test_a_model_that_the_held_out_loss_has_moved_can_be_trained(self, tiny: Path, monkeypatch):
        """The first move to a device gives parameters new tensors, as this copy does; a second one does nothing."""
        moves = iter([torch.Tensor.clone])
        monkeypatch.setattr(torch.nn.Module, "to", lambda model, device: model._apply(next(moves, torch.Tensor.detach)))
        tokenizer, model = Tokenizer(str(tiny)), load_masked_lm(str(tiny)).model
        examples, settings = tokenizer.ids(sentences(16)), Settings(learning_rate=1e-3, n_epochs=20)
        before = held_out_loss(model, tokenizer, examples, settings, CPU)
        fine_tune(model, tokenizer, examples, settings, CPU)
        assert held_out_loss(model, tokenizer, examples, settings, CPU) < before

    def test_the_same_seed_gives_the_same_weights(self, tiny: Path):
        tokenizer = Tokenizer(str(tiny))
        weights = []
        for seed in (42, 42, 43):
            model = load_masked_lm(str(tiny)).model
            fine_tune(model, tokenizer, tokenizer.ids(sentences(8)), Settings(seed=seed), CPU)
            weights.append(torch.cat([value.flatten() for value in model.parameters()]))
        assert torch.equal(weights[0], weights[1])
        assert not torch.equal(weights[0], weights[2])

    def test_a_batch_in_which_nothing_was_chosen_does_no_harm(self, tiny: Path):
        tokenizer = Tokenizer(str(tiny))
        model = load_masked_lm(str(tiny)).model
        losses = fine_tune(model, tokenizer, tokenizer.ids(["x"] * 8), Settings(mlm_probability=1e-9), CPU)
        assert losses == [0.0, 0.0]
        assert all(torch.isfinite(value).all() for value in model.parameters())

    def test_a_loss_that_is_not_finite_stops(self, tiny: Path):
        tokenizer = Tokenizer(str(tiny))
        model = load_masked_lm(str(tiny)).model
        with torch.no_grad():
            model.get_input_embeddings().weight.fill_(float("nan"))
        with pytest.raises(InputError, match="loss is nan at step 0"):
            fine_tune(model, tokenizer, tokenizer.ids(sentences(8)), Settings(), CPU)


class TestExamples:
    def test_queries_are_cut_to_the_block(self, tiny: Path, tmp_path: Path):
        rows = [{"desc_id": 1, "desc": "x " * 50}, {"desc_id": 2, "desc": " "}, {"desc_id": 3, "desc": "Sam drinks"}]
        write_jsonl(rows, tmp_path / "q.jsonl")
        tokenizer = Tokenizer(str(tiny))
        examples = query_examples(str(tmp_path / "q.jsonl"), tokenizer, 32)
        assert len(examples) == 2
        assert len(examples[0]) == 30
        assert examples[1] == tokenizer.ids(["Sam drinks"])[0]

    def test_subtitles_are_those_of_the_queries_videos_in_chunks(self, tiny: Path, corpus: Path):
        tokenizer = Tokenizer(str(tiny))
        examples = subtitle_examples(str(corpus / "subs.jsonl"), str(corpus / "train.jsonl"), tokenizer, 64)
        lines = [line for v in range(6) for line in tokenizer.line_ids(sentences(8 + v))]
        assert 0.9 * sum(map(len, lines)) < sum(map(len, examples)) <= sum(map(len, lines))
        assert max(map(len, examples)) <= 62
        assert examples[0] == [token for line in lines for token in line][: len(examples[0])]


def test_fine_tuning_lowers_the_loss_on_held_out_sentences(tiny: Path):
    tokenizer, model = Tokenizer(str(tiny)), load_masked_lm(str(tiny)).model
    held_out = tokenizer.ids(sentences(64)[48:])
    settings = Settings(learning_rate=3e-3, n_epochs=15, batch_size=8)
    before = held_out_loss(model, tokenizer, held_out, settings, CPU)
    assert held_out_loss(model, tokenizer, held_out, settings, CPU) == before
    losses = fine_tune(model, tokenizer, tokenizer.ids(sentences(48)), settings, CPU)
    after = held_out_loss(model, tokenizer, held_out, settings, CPU)
    assert after < 0.6 * before
    assert sum(losses[-12:]) < 0.8 * sum(losses[:12])


class TestCommand:
    @pytest.mark.parametrize("mode", ["query_only", "sub_query"])
    def test_a_whole_run_saves_a_model_that_others_load(self, tiny: Path, corpus: Path, mode: str):
        options = {"mode": mode, "eval_data_file": corpus / "val.jsonl", "mlm": True, "do_train": True}
        if mode == "sub_query":
            options |= {"sub_meta_path": corpus / "subs.jsonl", "block_size": 64, "bf16": True}
        done = run_command(main, argv(corpus, tiny, **options))
        assert done.code == 0, done.err
        assert "48 queries" in done.out
        table = [line.split() for line in done.out.splitlines() if line.startswith(("before", "after"))]
        assert [row[0] for row in table] == ["before", "after"]
        for _, loss, perplexity in table:
            assert float(perplexity) == pytest.approx(math.exp(float(loss)), rel=1e-3)
        record = read_json(corpus / "tuned" / "fine_tuning.json")
        assert (record["mode"], record["seed"], record["learning_rate"]) == (mode, 42, 5e-5)
        n_examples = sum(record["examples"].values())
        assert len(record["losses"]) == math.ceil(n_examples / (16 if mode == "sub_query" else 4))
        AutoTokenizer.from_pretrained(corpus / "tuned")
        AutoModelForMaskedLM.from_pretrained(corpus / "tuned")
        digests = [TextEncoder(str(folder)).properties()["weights"] for folder in (tiny, corpus / "tuned")]
        assert digests[0] != digests[1]
        assert sorted(path.name for path in corpus.iterdir()) == ["subs.jsonl", "train.jsonl", "tuned", "val.jsonl"]

    def test_a_real_model_without_a_head_gets_one(self, corpus: Path):
        write_jsonl([{"desc_id": i, "desc": text} for i, text in enumerate(sentences(4))], corpus / "train.jsonl")
        done = run_command(main, argv(corpus, minilm(), model_type="bert"))
        assert done.code == 0, done.err
        assert "has no masked-LM head: a new one is trained" in done.out
        assert TextEncoder(str(corpus / "tuned")).encode(["Hello."])[0].shape == (2, 384)

    def test_a_folder_that_is_there_is_replaced_only_if_asked_to(self, tiny: Path, corpus: Path):
        (corpus / "tuned").mkdir()
        assert run_command(main, argv(corpus, tiny)).code == 0
        done = run_command(main, argv(corpus, tiny))
        assert (done.code, "is there already" in done.err) == (2, True)
        assert run_command(main, argv(corpus, tiny, overwrite_output_dir=True, seed=1)).code == 0
        assert read_json(corpus / "tuned" / "fine_tuning.json")["seed"] == 1
        assert not list(corpus.glob(".*"))

    def test_a_failure_while_saving_leaves_what_was_there(self, tiny: Path, corpus: Path, monkeypatch):
        model, tokenizer = load_masked_lm(str(tiny)).model, Tokenizer(str(tiny))
        save_model(model, tokenizer, corpus / "tuned", {"run": 1})

        def fail(folder: Path) -> None:
            raise OSError(28, "No space left on device")

        monkeypatch.setattr(tokenizer.transformers, "save_pretrained", fail)
        for name in ("tuned", "new"):
            with pytest.raises(InputError, match=f"{name}: cannot be written"):
                save_model(model, tokenizer, corpus / name, {"run": 2})
        assert read_json(corpus / "tuned" / "fine_tuning.json") == {"run": 1}
        assert not (corpus / "new").exists()
        assert not list(corpus.glob(".*"))

    def test_a_disk_that_fills_up_while_weights_are_written_is_named(self, tiny: Path, corpus: Path):
        model, tokenizer = load_masked_lm(str(tiny)).model, Tokenizer(str(tiny))
        for size in (1000, 20_000):
            with largest_file(size), pytest.raises(InputError, match="new: cannot be written"):
                save_model(model, tokenizer, corpus / "new", {"run": 1})
        assert not (corpus / "new").exists()
        assert not list(corpus.glob(".*"))

    @pytest.mark.parametrize(
        ("change", "message"),
        [
            ({"train_data_file": "none.jsonl"}, "cannot be read"),
            ({"train_data_file": "subs.jsonl"}, "subs.jsonl, line 1: expected"),
            ({"eval_data_file": "none.jsonl"}, "cannot be read"),
            ({"model_name_or_path": "/none"}, "no such folder"),
            ({"mode": "sub_query"}, "needs --sub_meta_path"),
            ({"mode": "sub_query", "sub_meta_path": "train.jsonl", "block_size": 64}, "train.jsonl, line 1: expected"),
            ({"mode": "sub_query", "sub_meta_path": "subs.jsonl"}, "--block_size 256"),
            ({"block_size": 2}, "--block_size 2"),
            ({"learning_rate": 0}, "learning_rate 0"),
            ({"learning_rate": "nan"}, "learning_rate nan"),
            ({"mlm_probability": 1.5}, "mlm_probability 1.5"),
            ({"num_train_epochs": 0}, "n_epochs 0"),
            ({"warmup_steps": -1}, "warmup_steps"),
            ({"model_type": "bert"}, "--model_type bert"),
            ({"output_dir": "train.jsonl", "overwrite_output_dir": True}, "is no model's folder"),
        ],
    )
    def test_bad_input_ends_with_code_2_and_writes_nothing(self, tiny: Path, corpus: Path, change: dict, message: str):
        is_file = ("train_data_file", "eval_data_file", "sub_meta_path", "output_dir")
        change = {name: corpus / value if name in is_file else value for name, value in change.items()}
        done = run_command(main, argv(corpus, tiny, **change))
        assert done.code == 2, done.err
        assert message in done.err
        assert not (corpus / "tuned").exists()
