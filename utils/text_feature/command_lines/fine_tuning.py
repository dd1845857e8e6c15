"""The command line of lm_finetuning_on_single_sentences.py, and the settings that it is about."""

from __future__ import annotations

import argparse
import math
from collections.abc import Sequence
from dataclasses import dataclass

from utils.basic_utils import InputError, RefusedOption


@dataclass(frozen=True)
class Settings:
    """How to fine-tune; the defaults are those of run_lm_finetuning.py."""

    n_epochs: int = 1
    batch_size: int = 4
    accumulation_steps: int = 1
    learning_rate: float = 5e-5
    adam_epsilon: float = 1e-8
    weight_decay: float = 0.0
    warmup_steps: int = 0
    max_grad_norm: float = 1.0
    mlm_probability: float = 0.15
    seed: int = 42
    bf16: bool = False

    def check(self) -> None:
        """Raise `InputError` when nothing can be trained with these settings."""
        for name in ("n_epochs", "batch_size", "accumulation_steps", "learning_rate", "adam_epsilon", "max_grad_norm"):
            value = getattr(self, name)
            if not (math.isfinite(value) and value > 0):
                raise InputError(f"{name} {value}: expected a number above 0")
        if not (math.isfinite(self.weight_decay) and self.weight_decay >= 0 and self.warmup_steps >= 0):
            raise InputError("weight_decay and warmup_steps: expected 0 or more")
        if not 0 < self.mlm_probability < 1:
            raise InputError(f"mlm_probability {self.mlm_probability}: expected a number between 0 and 1")


@dataclass(frozen=True)
class Mode:
    """What a mode sets unless options say otherwise."""

    block_size: int
    accumulation_steps: int
    subtitles: bool


MODES = {"query_only": Mode(32, 1, subtitles=False), "sub_query": Mode(256, 4, subtitles=True)}
_OF_THE_MODEL = "comes with the model: give --model_name_or_path"
_ONE_MODEL = "one model is written, at the end: leave it out"
_EVALUATION = "the loss on --eval_data_file is printed before and after training: leave it out"
REFUSED = {  # of the published command
    "do_extract": "features are extracted by a command of its own: utils/text_feature/extract_text_features.py",
    "config_name": _OF_THE_MODEL,
    "tokenizer_name": _OF_THE_MODEL,
    "do_lower_case": _OF_THE_MODEL,
    "cache_dir": "set the environment variable HF_HOME instead",
    "overwrite_cache": "no cache is made: leave it out",
    "max_steps": "give --num_train_epochs",
    "fp16": "give --bf16",
    "fp16_opt_level": "give --bf16",
    "per_gpu_eval_batch_size": _EVALUATION,
    "evaluate_during_training": _EVALUATION,
    "eval_all_checkpoints": _EVALUATION,
    "logging_steps": "progress is printed as time goes: leave it out",
    "save_steps": _ONE_MODEL,
    "save_total_limit": _ONE_MODEL,
    "should_continue": f"nothing is kept of a run that is stopped, and {_ONE_MODEL}",
    "local_rank": "one process trains: leave it out",
}


def options(argv: Sequence[str] | None = None) -> argparse.Namespace:
    """The options of the program."""
    default = Settings()
    parser = argparse.ArgumentParser(description="Masked-LM fine-tuning on queries and subtitles")
    add = parser.add_argument
    add("--train_data_file", required=True, help="jsonl of the training queries: desc_id, desc, and vid_name")
    add("--output_dir", required=True, help="folder for the model: written whole, or not at all")
    add("--mode", choices=MODES, default="query_only", help="(default %(default)s)")
    add("--sub_meta_path", help="jsonl of preprocess_subtitles.py, for sub_query")
    add("--eval_data_file", help="jsonl of held-out queries: their loss before and after is printed")
    add("--model_name_or_path", default="roberta-base", help="folder, or name on the hub (default %(default)s)")
    add("--overwrite_output_dir", action="store_true", help="replace the model that is in --output_dir")
    add("--block_size", type=int, help="tokens of an example, with special ones: default 32, in sub_query 256")
    add("--mlm_probability", type=float, default=default.mlm_probability, help="(default %(default)s)")
    add("--num_train_epochs", type=int, default=default.n_epochs, help="(default %(default)s)")
    add("--per_gpu_train_batch_size", type=int, default=default.batch_size, help="examples (default %(default)s)")
    add("--gradient_accumulation_steps", type=int, help="batches a step: default 1, in sub_query 4")
    add("--learning_rate", type=float, default=default.learning_rate, help="(default %(default)s)")
    add("--weight_decay", type=float, default=default.weight_decay, help="(default %(default)s)")
    add("--adam_epsilon", type=float, default=default.adam_epsilon, help="(default %(default)s)")
    add("--max_grad_norm", type=float, default=default.max_grad_norm, help="(default %(default)s)")
    add("--warmup_steps", type=int, default=default.warmup_steps, help="(default %(default)s)")
    add("--seed", type=int, default=default.seed, help="(default %(default)s)")
    add("--device", type=int, default=0, help="CUDA device (default 0), -1 for the CPU")
    add("--no_cuda", action="store_true", help="the same as --device -1")
    add("--bf16", action="store_true", help="compute in bfloat16; weights and losses stay in float32")
    old = parser.add_argument_group("accepted for older commands", "they ask for what is done anyway")
    old.add_argument("--model_type", help="checked against the model")
    old.add_argument("--do_train", action="store_true", help=argparse.SUPPRESS)
    old.add_argument("--do_eval", action="store_true", help=argparse.SUPPRESS)
    old.add_argument("--mlm", action="store_true", help=argparse.SUPPRESS)
    for name, why in REFUSED.items():
        old.add_argument(f"--{name}", action=RefusedOption, why=why)
    return parser.parse_args(argv)
