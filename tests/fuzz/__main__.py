"""``python -m tests.fuzz [--seconds 60] [TARGET ...]``: fuzzes each target, and says what to do with what is found."""

import argparse
import sys

from tests.fuzz.fuzzer import ROOT, TARGETS, fuzz

FOLDER = ROOT / ".fuzz"


def main() -> int:
    """Returns the exit status: 1 where something was found."""
    parser = argparse.ArgumentParser(prog="python -m tests.fuzz", description=__doc__)
    parser.add_argument("--seconds", type=int, default=60, help="to spend on each target")
    parser.add_argument(
        "targets", nargs="*", metavar="TARGET", help=f"one of {', '.join(TARGETS)}; all by default"
    )
    options = parser.parse_args()
    for unknown in set(options.targets) - set(TARGETS):
        parser.error(f"there is no target {unknown!r}; there are {', '.join(TARGETS)}")
    failed = []
    for target in options.targets or TARGETS:
        print(f"{target}: {options.seconds} s", flush=True)
        if (found := fuzz(target, options.seconds, FOLDER)) is not None:
            failed.append(target)
            print(found, flush=True)
            print(
                f"Run it again: python -m tests.fuzz.instrumented {target} FILE; then keep it as a test.",
                flush=True,
            )
    print(f"Something was found in {', '.join(failed)}." if failed else "Nothing was found.")
    return bool(failed)


sys.exit(main())
