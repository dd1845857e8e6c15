"""The card of a published model: what it is, how it was trained, how good it was measured to be."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from method_tvr.command_lines.publish import UNKNOWN_LICENCE
from method_tvr.dset_configs import DATASETS, DatasetConfig
from method_tvr.models import name_of
from method_tvr.options.models import TITLES
from method_tvr.training.checkpoint import Checkpoint
from utils.hub.repositories import hub_package

Metrics = Mapping[str, Mapping[str, Any]]  # {task: {recall: percent}}
KINDS = {"video": "clips", "sub": "subtitles", "query": "queries"}
FEATURES_HEAD = ("features of", "", "")
TRAINING = (  # options that say what a run was
    "vid_feat_type",
    "train_path",
    "n_epoch",
    "bsz",
    "lr",
    "seed",
    "hidden_size",
    "n_heads",
    "lw_st_ed",
    "lw_fcl",
    "lw_vcl",
    "label_rule",
    "several",
)


@dataclass(frozen=True)
class Published:
    """What a card tells of."""

    name: str  # of the model
    where: str  # what stands for MODEL_DIR in commands
    checkpoint: Checkpoint
    opt: Mapping[str, Any]  # of its training
    metrics: Mapping[str, Metrics]  # {file that inference wrote: what it says}
    license: str  # as the hub names it

    @property
    def dataset(self) -> DatasetConfig:
        return DATASETS[self.opt["dset_name"]]

    @property
    def title(self) -> str:
        """What people call the kind of model."""
        kind = name_of(self.checkpoint.config)
        return TITLES.get(kind, kind)


@dataclass(frozen=True)
class Inference:
    """What the name of a metrics file says of the inference that it is of."""

    split: str
    tasks: str
    nms_thd: str | None

    @property
    def options(self) -> str:
        return f"{self.split} --tasks {self.tasks}" + ("" if self.nms_thd is None else f" --nms_thd {self.nms_thd}")


def card(model: Published) -> str:
    """The text of the card, which begins with the data that the hub reads."""
    sections = {
        "Use": _use(model),
        "Trained on": _training(model),
        "Features": _features(model),
        "Results": _results(model),
        "Licence": _licence(model),
        "Limits": _limits(model),
    }
    head = f"# {model.name}\n\n{model.title} finds the moment in a corpus of videos that a sentence describes."
    body = "\n\n".join([head, *(f"## {title}\n\n{text}" for title, text in sections.items())])
    return f"---\n{_front_matter(model)}\n---\n\n{body}\n"


def inference_of(file: str, opt: Mapping[str, Any]) -> Inference | None:
    """The inference that a file of metrics is of; None where its name leaves that open."""
    dataset = DATASETS[opt["dset_name"]]
    splits = {"train", "val", "all", dataset.test_split, dataset.split_name(str(opt.get("eval_split_name", "val")))}
    found = re.fullmatch(
        rf"inference_{dataset.name}_({'|'.join(map(re.escape, sorted(splits)))})_.*_predictions_([A-Z_]+?)"
        r"(?:_nms_thd_([\d.]+))?_metrics\.json",
        file,
    )
    return Inference(found[1], found[2].replace("_", " "), found[3]) if found else None


def _front_matter(model: Published) -> str:
    hub = hub_package()
    results = [
        hub.EvalResult(
            task_type="video-moment-retrieval",
            task_name=f"{task}, {said.options}",
            dataset_type=model.dataset.name,
            dataset_name=model.dataset.name,
            dataset_split=said.split,
            metric_type="recall" if re.search(r"\br\d+$", name) else task.lower(),
            metric_name=f"{task} {name}",
            metric_value=value,
        )
        for file, metrics in model.metrics.items()
        if (said := inference_of(file, model.opt))
        for task, name, value in _figures(metrics)
    ]
    data = hub.ModelCardData(
        license=model.license,
        library_name="pytorch",
        tags=["video-moment-retrieval", "video-corpus-moment-retrieval", name_of(model.checkpoint.config)],
        model_name=model.name if results else None,
        eval_results=results or None,
    )
    return str(data.to_yaml().strip())


def _figures(metrics: Metrics) -> Iterator[tuple[str, str, float]]:
    """(task, name, value) of metrics, without those by type of query."""
    for task, values in metrics.items():
        if not task.endswith("_by_type"):
            yield from ((task, name, value) for name, value in values.items() if isinstance(value, int | float))


def _use(model: Published) -> str:
    return (
        f'```\nbash method_tvr/scripts/search.sh {model.where} "a sentence"\n'
        f"bash method_tvr/scripts/inference.sh {model.where} val\n```\n\n"
        "```python\nfrom method_tvr.ask.searcher import MomentSearcher\n\n"
        f'MomentSearcher.from_pretrained("{model.where}").search("a sentence")\n```\n\n'
        "`model.safetensors` and `config.json` are the model, `opt.json` the options of its training, `digests.json` "
        "their SHA-256. Features of the videos have to be there: see below."
    )


def _training(model: Published) -> str:
    opt, checkpoint = model.opt, model.checkpoint
    rows = {"dataset": model.dataset.name, "sees": checkpoint.config.ctx_mode, "epoch that was kept": checkpoint.epoch}
    rows |= {f"`--{name}`": opt[name] for name in TRAINING if opt.get(name) is not None}
    text = _table(("", ""), [(name, value) for name, value in rows.items()])
    if model.dataset.generate is not None:
        text += "\n\nThis corpus is generated: what is learnt from it says nothing about real videos."
    return text


def _features(model: Published) -> str:
    records = model.checkpoint.features
    rows = [(KINDS[kind], f"`{name}`", value) for kind, record in records.items() for name, value in record.items()]
    config = model.checkpoint.config
    sizes = {"query": config.query_input_size, **config.input_sizes}
    widths = ", ".join(f"{size} of {KINDS[kind]}" for kind, size in sizes.items() if size is not None)
    text = f"Numbers that the model takes for a clip or token: {widths}, with the two of tef where it sees them."
    if not rows:
        return f"{text} How they were made is not on record."
    return f"{text} What is on record of how they were made:\n\n{_table(('features of', '', ''), rows)}"


def _results(model: Published) -> str:
    if not model.metrics:
        return "None were published with it."
    return "\n\n".join(_result(model, file, metrics) for file, metrics in model.metrics.items())


def _result(model: Published, file: str, metrics: Metrics) -> str:
    said = inference_of(file, model.opt)
    if said is None:
        source = f"From `{file}`:"
    else:
        source = f"```\nbash method_tvr/scripts/inference.sh {model.where} {said.options}\n```"
    # a name is the IoU and the recall, or the recall alone
    split = [(task, *name.rpartition("-")[::2], value) for task, name, value in _figures(metrics)]
    columns = list(dict.fromkeys(column for _, _, column, _ in split))
    rows: dict[tuple[str, str], dict[str, float]] = {}
    for task, iou, column, value in split:
        rows.setdefault((task, iou), {})[column] = value
    cells = [(*row, *(values.get(column, "") for column in columns)) for row, values in rows.items()]
    return f"{source}\n\n{_table(('task', 'IoU', *columns), cells)}"


def _licence(model: Published) -> str:
    if model.license == UNKNOWN_LICENCE:
        return "Whoever published it has not said. Ask before you use it. The licence of the training data holds too."
    return f"`{model.license}`, as whoever published it has said. The licence of the training data holds too."


def _limits(model: Published) -> str:
    opt, config = model.opt, model.checkpoint.config
    lines = [
        "It takes features that were made as the table above says, and no others: it sees no pictures and no words.",
        f"A video is at most {config.max_ctx_l} clips, a sentence {config.max_desc_l} tokens: what longer ones lose is "
        "decided by `--long_videos`.",
    ]
    if opt.get("max_pred_l") is not None and opt.get("min_pred_l") is not None:
        lines.append(
            f"Moments are at least {opt['min_pred_l']} and fewer than {opt['max_pred_l']} clips long (of "
            f"{opt.get('clip_length')} s) unless `--min_pred_l` and `--max_pred_l` say otherwise."
        )
    lines.append(
        "Results hold for the split that they name. Options that were typed besides those shown are not on record."
    )
    lines.append("Every sentence gets an answer, whether or not such a moment is there. Other languages: not measured.")
    return "\n".join(f"* {line}" for line in lines)


def _table(head: tuple[str, ...], rows: list[tuple[Any, ...]]) -> str:
    lines = [head, ("---",) * len(head), *rows]
    return "\n".join(f"| {' | '.join(_cell(cell) for cell in line)} |" for line in lines)


def _cell(value: Any) -> str:
    return str(value).replace("|", "\\|")
