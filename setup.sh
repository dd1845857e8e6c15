# Makes the project ready for use, in bash and zsh, from any folder, at the prompt and in scripts:
#
#     source setup.sh
#
# It puts the project root first on PYTHONPATH and sees to the packages of requirements.txt:
#   * no environment active: .venv is made in the project root, filled with the versions that constraints.txt names, and
#     activated (a second call only activates);
#   * a virtual or conda environment active: it is only checked, never changed.
#
#     SETUP_TESTS=1 source setup.sh             adds the tools of tests/requirements.txt
#     SETUP_LATEST=1 source setup.sh            takes the newest versions, whatever constraints.txt names; a .venv that
#                                               has them keeps them until the requirements change or it is removed
#     PYTHON=/path/to/python source setup.sh    makes .venv with that Python (3.10 or newer)
#     bash setup.sh                             installs, and leaves the sourcing to you
#
# shellcheck shell=bash

# The upper half runs in the user's shell, so it does as little as it can and leaves no names behind; the lower half
# does the work in a bash of its own, where no alias, shell option or exit can reach the user's shell.
if [ -z "${BASH_VERSION:-}${ZSH_VERSION:-}" ]; then
    case "$0" in
        *setup.sh) exec bash "$0" "$@" ;;
    esac
    echo "setup: source me from bash or zsh, this is another shell" >&2
    return 1
fi

_reloclnet_root() ( # FILE: prints the folder that it lies in, where links lead to; a subshell, which leaves no names
    file="$1"
    while [ -L "$file" ]; do
        link="$(readlink -- "$file")" || exit 1
        case "$link" in
            /*) file="$link" ;;
            *) file="$(dirname -- "$file")/$link" ;;
        esac
    done
    CDPATH='' builtin cd -- "$(dirname -- "$file")" && pwd -P
)

_reloclnet_setup() {
    local file root others venv
    if [ -n "${ZSH_VERSION:-}" ]; then
        emulate -L zsh
        eval 'file="${(%):-%x}"; root="${file:A:h}"' # bash cannot read this line, so it sees a string
    else
        root="$(_reloclnet_root "${BASH_SOURCE[0]}")" || return 1
    fi

    # First, not merely present: other projects have packages called utils and method_tvr too.
    others=":${PYTHONPATH:-}:"
    case "$others" in
        *":$root:"*) others="${others%%":$root:"*}:${others#*":$root:"}" ;;
    esac
    others="${others#:}"
    others="${others%:}"
    export PYTHONPATH="$root${others:+:$others}"

    venv="$(SETUP_SOURCED=1 SETUP_TESTS="${SETUP_TESTS:-}" SETUP_LATEST="${SETUP_LATEST:-}" PYTHON="${PYTHON:-}" \
        bash "$root/setup.sh")" || return 1
    [ -n "$venv" ] || return 0
    case "${VIRTUAL_ENV:-}:$PATH:" in
        "$venv:$venv/bin:"*) return 0 ;; # active already
    esac
    . "$venv/bin/activate"
}

# bash lets only a sourced file return; zsh says in a variable what it is doing.
if case "${ZSH_VERSION:+${ZSH_EVAL_CONTEXT:-}}" in
    *file*) true ;;
    *) [ -n "${BASH_VERSION:-}" ] && (return 0) 2>/dev/null ;;
esac; then
    if _reloclnet_setup; then
        unset -f _reloclnet_setup _reloclnet_root
        return 0
    fi
    unset -f _reloclnet_setup _reloclnet_root
    return 1
fi
[ -n "${BASH_VERSION:-}" ] || exec bash "$0" "$@"

# ---- from here on: bash, in a process of its own; stdout is for the one line that says which .venv to activate ----
set -u

root="$(_reloclnet_root "${BASH_SOURCE[0]}")" || exit 1
venv="$root/.venv"
mark="$venv/.made_by_setup" # holds the root: a .venv stops working when its folder is moved or copied
run_list="$root/requirements.txt"
test_list="$root/tests/requirements.txt" # includes the other one
constraints="$root/constraints.txt"

say() { printf 'setup: %s\n' "$*" >&2; }
fail() {
    say "$@"
    exit 1
}

# Prints the prefix of the active environment, unless that is our own .venv or one that is gone.
active_environment() {
    if [ -n "${VIRTUAL_ENV:-}" ] && [ "$VIRTUAL_ENV" != "$venv" ] && ! [ "$VIRTUAL_ENV" -ef "$venv" ]; then
        [ -x "$VIRTUAL_ENV/bin/python" ] && printf '%s' "$VIRTUAL_ENV" && return
    fi
    [ -n "${VIRTUAL_ENV:-}" ] || printf '%s' "${CONDA_PREFIX:-}"
}

# check_environment PREFIX LIST...: are the lists' packages installed there? Reads metadata: importing torch takes seconds.
check_environment() {
    local prefix="$1" list="$run_list"
    shift
    [ "$#" -eq 1 ] || list="$test_list"
    [ -x "$prefix/bin/python" ] || fail "the active environment, $prefix, has no python: install one there (>= 3.10)"
    "$prefix/bin/python" - "$@" >&2 <<'PYTHON' && return
import re, sys

if sys.version_info < (3, 10):
    sys.exit("setup: Python %d.%d is too old, 3.10 or newer is needed" % sys.version_info[:2])

from importlib import metadata


def numbers(version):
    return ([int(part) for part in re.findall(r"\d+", version.split("+")[0])] + [0, 0])[:3]


missing = []
for line in (line for path in sys.argv[1:] for line in open(path, encoding="utf-8")):
    found = re.match(r"(\w[\w.-]*)\s*>=\s*([\d.]+)", line)
    if not found:
        continue
    name, least = found.groups()
    try:
        version = metadata.version(name)
    except metadata.PackageNotFoundError:
        missing.append(name)
        continue
    if numbers(version) < numbers(least):
        print(f"setup: note: {name} {version} is older than the oldest version tried, {least}")
if missing:
    sys.exit("setup: not installed: " + ", ".join(missing))
PYTHON
    say "the active environment, $prefix, lacks what the project needs; nothing was changed in it. Either"
    say "    $prefix/bin/python -m pip install -r $list -c $constraints"
    say "or deactivate it and source setup.sh again, which makes a .venv in the project"
    exit 1
}

# fingerprint LIST...: changes when the contents of the lists do, or of the constraints that they were installed by.
fingerprint() {
    [ -n "$latest" ] || set -- "$@" "$constraints"
    printf '%s%s\n' "${latest:+latest }" "$(cat "$@" | cksum)"
}

stamped() { # FILE LIST...
    local file="$1"
    shift
    [ -s "$file" ] || return 1
    case "$(cat "$file")" in
        "$(fingerprint "$@")") true ;;
        "$(latest=1 && fingerprint "$@")") true ;; # asked for once: scripts that source this do not take it back
        *) false ;;
    esac
}

installed() {
    [ "$(cat "$mark" 2>/dev/null)" = "$root" ] && "$venv/bin/python" -c '' 2>/dev/null || return 1
    if [ -n "$with_tests" ]; then
        stamped "$venv/.installed-tests" "$run_list" "$test_list"
    else
        stamped "$venv/.installed" "$run_list"
    fi
}

# Sets $python to a Python that is new enough and can make virtual environments.
find_python() {
    local candidate refused=""
    if [ -n "${PYTHON:-}" ]; then
        set -- "$PYTHON" # who names one does not want another
    else
        set -- python3 python3.14 python3.13 python3.12 python3.11 python3.10 python
    fi
    for candidate in "$@"; do
        python="$(command -v "$candidate")" || continue
        if ! "$python" -c 'import sys; sys.exit(sys.version_info < (3, 10))' 2>/dev/null; then
            refused="$refused; $python is $("$python" -V 2>&1 | head -n 1)"
        elif ! "$python" -c 'import venv, ensurepip' 2>/dev/null; then
            refused="$refused; $python has no venv module (Debian, Ubuntu: sudo apt-get install python3-venv)"
        else
            return
        fi
    done
    refused="${refused#; }"
    refused="${refused:-none (no program called ${PYTHON:-python3})}"
    fail "Python 3.10 or newer with its venv module is needed, found: $refused." \
        "Install one, or choose one: PYTHON=/path/to/python source setup.sh"
}

# A .venv without our mark is somebody's own; one with it that does not work was interrupted or has been moved.
make_venv() {
    if [ -e "$venv" ] && ! [ -e "$mark" ]; then
        fail "$venv was not made by setup.sh: activate it yourself (source .venv/bin/activate) or remove it," \
            "then call again"
    fi
    if [ -e "$mark" ]; then
        [ "$(cat "$mark")" = "$root" ] && "$venv/bin/python" -m pip --version >/dev/null 2>&1 && return
        say "$venv is incomplete or was moved: making it anew"
        rm -rf "$venv"
    fi
    find_python
    say "making $venv with $("$python" -V 2>&1) ($python)"
    if ! { mkdir -p "$venv" && printf '%s\n' "$root" >"$mark"; } 2>/dev/null; then
        fail "cannot write to $root: make it writable, or activate an environment of your own"
    fi
    if ! "$python" -m venv "$venv" >&2; then
        rm -rf "$venv"
        fail "$python -m venv failed (the reason is above)"
    fi
}

install() {
    local list="$run_list"
    [ -z "$with_tests" ] || list="$test_list"
    make_venv
    say "installing ${list#"$root"/} into .venv: several GB with torch, some minutes the first time"
    rm -f "$venv/.installed" "$venv/.installed-tests" # from here until pip is done, nothing is promised
    local -a how=(-r "$list" -c "$constraints")
    [ -z "$latest" ] || how=(-r "$list" --upgrade --upgrade-strategy eager)
    if ! "$venv/bin/python" -m pip install --disable-pip-version-check --no-input "${how[@]}" </dev/null >&2; then
        fail "pip could not install ${list#"$root"/} (the reason is above: network, disk space, or a Python that is" \
            "too new for a package, see PYTHON= and SETUP_LATEST= in setup.sh). The next call tries again"
    fi
    [ -z "$with_tests" ] || fingerprint "$run_list" "$test_list" >"$venv/.installed-tests"
    fingerprint "$run_list" >"$venv/.installed" || fail "cannot write to $venv"
    say "installed"
}

with_tests="${SETUP_TESTS:-}"
latest="${SETUP_LATEST:-}"
environment="$(active_environment)"
if [ -n "$environment" ]; then
    check_environment "$environment" "$run_list" ${with_tests:+"$test_list"}
    [ -n "${SETUP_SOURCED:-}" ] || say "the active environment, $environment, has them all; now: source $root/setup.sh"
    exit 0
fi
if ! installed; then
    # One at a time, where the system can: the second of two callers finds the work done.
    if command -v flock >/dev/null; then
        exec 9<"${BASH_SOURCE[0]}"
        flock -n 9 || { say "waiting for another setup.sh to finish" && flock 9; }
    fi
    installed || install
fi
if [ -n "${SETUP_SOURCED:-}" ]; then
    printf '%s\n' "$venv"
else
    say "$venv is ready; now: source $root/setup.sh"
fi
