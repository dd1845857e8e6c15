"""New sentences asked over the videos of a split: a table for people, a file for programs.

python method_tvr/ask/asking.py --model_dir MODEL_DIR [--query SENTENCE …] [--query_file FILE.txt] [any option]

`inference.sh` and inference.py call it where there is a --query. The file is {"split", "text_model", "answers":
[{"query", "moments": [{"vid_name", "start", "end", "score"}, …]}, …]}: seconds, best first.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from contextlib import ExitStack
from importlib.util import find_spec
from pathlib import Path

if not all(map(find_spec, ("method_tvr", "numpy", "torch", "easydict", "h5py", "orjson", "tqdm"))):
    print("error: the project or its packages are missing: type `source setup.sh` in its folder first", file=sys.stderr)
    sys.exit(2)

from method_tvr.config import INFERENCE, OPTIONS, typed
from utils.basic_utils import parse_first

if __name__ == "__main__":
    parse_first(typed, OPTIONS, INFERENCE)

import torch
from easydict import EasyDict

from method_tvr.ask.export import Export
from method_tvr.ask.moments import Answer, answer_json, moments_table, shortened, show_any_language
from method_tvr.ask.searcher import MomentSearcher
from method_tvr.ask.text_models import open_text_model
from method_tvr.config import parse_inference_options
from method_tvr.dataset.split_facts import tell
from method_tvr.inference import require_videos, run_together
from method_tvr.options.saved import find_path
from method_tvr.search.answering import open_answerer
from method_tvr.trained.trained_model import encoded_before, open_model, search_settings
from utils.basic_utils import InputError, command_line, is_text, write_json
from utils.ranks import ALONE, Ranks
from utils.text_feature.decode_text import read_text


def run_asking(
    opt: EasyDict, ranks: Ranks = ALONE, device: torch.device | None = None
) -> tuple[MomentSearcher, list[Answer]]:
    """Answer new sentences over the videos of a split, with options of `parse_inference_options`.

    Of several processes the main one encodes the sentences. `device` is where this one computes, by default where the
    options say. Returns what answers more sentences, and what was found.
    """
    sentences = read_sentences(opt.query, opt.query_file)
    export = Export(opt, several=len(sentences) > 1)
    opt.max_before_nms = max(opt.max_before_nms, opt.top_k)
    trained = open_model(opt, ranks, device)
    text_model = open_text_model(trained, opt.text_model) if ranks.is_main else None
    videos = trained.inputs.listed_videos()
    with ExitStack() as opened:
        if opt.encoded_corpus is None:
            features = opened.enter_context(trained.open_features(with_queries=False))
            features.require([], (video.vid_name for video in videos), find_path(opt.video_duration_idx_path))
            source, facts = trained.source(features), trained.facts(videos, features)
        else:
            store = trained.open_store(opt.encoded_corpus)
            require_videos(trained, store, videos, opt.eval_split_name)
            source, facts = encoded_before(store, trained.device), trained.facts(videos, store)
        if ranks.is_main:
            tell(facts)
        times, settings = trained.inputs.clip_times, search_settings(opt)
        answerer = open_answerer(trained.model, videos, source, times, settings, ranks)
    searcher = MomentSearcher(trained.model, answerer, videos, text_model, trained.inputs, opt.nms_thd, ranks, facts)
    found = searcher.find(searcher.encode(sentences), opt.top_k)
    if ranks.is_main:
        path = Path(opt.model_dir) / f"inference_{opt.dset_name}_{opt.eval_split_name}_{opt.eval_id}_answers.json"
        name = text_model.name if text_model else None
        answers = list(map(answer_json, sentences, found))
        write_json({"split": opt.eval_split_name, "text_model": name, "answers": answers}, path, indent=True)
        show_any_language()
        for sentence, moments in zip(sentences, found, strict=True):
            print(f"\n{shortened(sentence)}\n{moments_table(moments)}")
        print(f"\n{len(sentences)} sentences over {len(videos)} videos: {path}")
        export.add(sentences, found, (video.vid_name for video in videos))
        export.finish()
    return searcher, found


def read_sentences(typed: Sequence[str] | None, path: str | None) -> list[str]:
    """The sentences of the command line, then those of a file, whose blank lines are passed over.

    An `InputError` if there is none, one is blank or no text, or the file cannot be read.
    """
    sentences = list(typed or ())
    for sentence in sentences:
        if not sentence.strip():
            raise InputError("--query: is blank: write a sentence")
        if not is_text(sentence):
            raise InputError(f"--query {sentence!r}: is not UTF-8 text: write it as such")
    if path is not None:
        text = read_text(path, "name a text file, one sentence a line")
        sentences += [line for line in text.splitlines() if line.strip()]
    if not sentences:
        raise InputError(f"{path}: has no sentences: write one a line")
    return sentences


@command_line
def main() -> None:
    run_together(parse_inference_options(), run_asking)


if __name__ == "__main__":
    main()
