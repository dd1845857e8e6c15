"""Models, tokenizers and settings of `transformers`, from a folder or from the hub: what every kind of them needs.

No code that comes with a model is ever run.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import transformers

from utils.basic_utils import InputError, first_line


def loaded(load: Any, model_name_or_path: str, what: str, **options: Any) -> Any:
    """What `load` makes of a folder or a name on the hub; an `InputError` that says why it makes nothing of it."""
    is_folder = os.path.isdir(model_name_or_path)
    if not is_folder and (Path(model_name_or_path).is_absolute() or model_name_or_path.startswith((".", "~"))):
        raise InputError(f"{model_name_or_path}: no such folder: give the folder of a model, or its name on the hub")
    if is_folder and not (Path(model_name_or_path) / "config.json").is_file():
        raise InputError(f"{model_name_or_path}: has no config.json: give a folder that save_pretrained has written")
    try:
        with quiet():
            return load(model_name_or_path, trust_remote_code=False, **options)
    except ImportError as err:  # names the package
        install = "pip install -r utils/pretrained/requirements.txt -c constraints.txt"
        raise InputError(f"{model_name_or_path}: its {what} needs a package ({first_line(err)}): {install}") from err
    except Exception as err:  # whatever transformers raises on a folder that is damaged or holds something else
        remedy = (
            "is it a whole model? Models that bring code of their own are not run"
            if is_folder
            else "give a folder, or the name of a model that is on the hub and can be reached or was loaded before"
        )
        raise InputError(f"{model_name_or_path}: its {what} cannot be loaded ({first_line(err)}): {remedy}") from err


@contextmanager
def quiet() -> Iterator[None]:
    """Without the tables that transformers prints of weights a model has more or less; we look at those ourselves."""
    logging = transformers.utils.logging
    before, bars = logging.get_verbosity(), logging.is_progress_bar_enabled()
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        logging.set_verbosity(before)
        if bars:
            logging.enable_progress_bar()
