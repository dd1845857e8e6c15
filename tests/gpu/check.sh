#!/usr/bin/env bash
# All that only a GPU can show, in one command: bash tests/gpu/check.sh [MINUTES] (8 by default)
#
# It needs no network, and of packages numpy, h5py and torch beside the small ones in pure Python (easydict, tqdm, orjson).
# Parts come in order of value, each with a limit of its own, all within MINUTES. At the end there are one table in
# Markdown, gpu_check.md, and one log, gpu_check.log, in $OUT (by default the current folder).
cd -- "$(dirname -- "${BASH_SOURCE[0]}")/../.." || exit 1
export PYTHONPATH="$PWD${PYTHONPATH:+:$PYTHONPATH}" PYTHONUNBUFFERED=1
exec "${PYTHON:-python3}" tests/gpu/check.py "$@"
