# Sourced by the scripts: the project's root, its packages on PYTHONPATH, and a Python that has what it needs.
# shellcheck shell=bash
root="$(cd "$(dirname "${BASH_SOURCE[0]}")/../.." && pwd)"

fail() { # MESSAGE: bad input
  echo "error: $1" >&2
  exit 2
}

if [ -z "${VIRTUAL_ENV:-}${CONDA_PREFIX:-}" ] && [ -e "$root/.venv/.installed" ]; then
  # shellcheck source=../../setup.sh
  source "$root/setup.sh"
fi
export PYTHONPATH="$root${PYTHONPATH:+:$PYTHONPATH}"

need() { # PACKAGE...: what the python here must have
  python -c 'import importlib.util as u, sys; sys.exit(not all(map(u.find_spec, sys.argv[1:])))' "$@" 2>/dev/null ||
    fail "the python here lacks the project's packages: source setup.sh first, in $root"
}

help_of() { # PROGRAM ARGUMENT...: asked for --help, say how the script is called, and what the program takes
  case "${2:-}" in -h | --help)
    sed -n '2,/^[^#]/s/^# \{0,1\}//p' "$0"
    exec python "$root/$1" --help
    ;;
  esac
}
