"""Long fuzzing of everything that reads files: `python tests/fuzz/campaign.py --seconds 600 [--reader NAME …]`.

Each reader gets an equal share of the time. An input is decided by its reader and its number, so that `--first N
--count 1` reads one again. Exit code 1 when something was found: an unexpected exception, a crash or a hang, memory
out of proportion, code that ran, a file written elsewhere.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from tests.fuzz.harness import fuzz
from tests.fuzz.readers import READERS

FINDINGS = Path(tempfile.gettempdir()) / "fuzz_findings"


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=300, help="for all readers together (default: 300)")
    parser.add_argument("--reader", nargs="+", choices=list(READERS), default=list(READERS), help="(default: all)")
    parser.add_argument("--first", type=int, default=0, help="number of the first input (default: 0)")
    parser.add_argument("--count", type=int, default=10**9, help="most inputs per reader")
    parser.add_argument("--limit", type=float, default=20, help="seconds after which an input hangs (default: 20)")
    parser.add_argument(
        "--save_dir", type=Path, default=FINDINGS, help="where failing inputs are kept (default: %(default)s)"
    )
    args = parser.parse_args()
    found = 0
    for name in args.reader:
        share = args.seconds / len(args.reader)
        report = fuzz(name, args.first, args.count, share, args.limit, args.save_dir)
        kinds = ", ".join(f"{count} {outcome}" for outcome, count in sorted(report.outcomes.items()))
        print(f"{name}: {report.tried} inputs: {kinds}", flush=True)
        for number, what in report.findings[:20]:
            print(f"  {name} {number}: {what.strip()}")
        found += len(report.findings)
    if found:
        print(f"{found} findings; inputs are kept in {args.save_dir}")
        sys.exit(1)


if __name__ == "__main__":
    main()
