"""Mutants of what docs/properties.md says: each breaks one property's code, and its test has to notice.

python -m tools.mutants                 # all of `mutants.toml`, one after the other
python -m tools.mutants chain steady    # those of these properties

Each is applied to a scratch copy, which is compiled anew if compiled code is changed. A mutant whose tests
pass survives: status 1. Before that, the tests have to pass without it.
"""

from __future__ import annotations

import argparse
import subprocess
import time
import tomllib
from pathlib import Path
from typing import Any, Final

from tools.scratch import Scratch

TABLE: Final = Path(__file__).with_suffix(".toml")
COMPILED: Final = (".pyx", ".pxi", ".h")
MOST_SECONDS: Final = 900


def mutants(properties: list[str]) -> list[dict[str, Any]]:
    """Those of the table, or of these properties."""
    found: list[dict[str, Any]] = tomllib.loads(TABLE.read_text())["mutant"]
    return [one for one in found if not properties or one["property"] in properties]


def passes(scratch: Scratch, test: str) -> bool:
    """Whether a test of the copy passes. One that hangs, or that a signal ends, does not."""
    try:
        done = scratch.run(["-m", "pytest", "-qx", "-p", "no:cacheprovider", test], MOST_SECONDS)
    except subprocess.TimeoutExpired:
        return False
    if done.returncode > 1:
        raise SystemExit(f"{test}: status {done.returncode}\n{done.stdout}{done.stderr}")
    return done.returncode == 0


def is_caught(scratch: Scratch, mutant: dict[str, Any]) -> bool:
    """Apply a mutant, run its test, and take the mutant back."""
    path = scratch.root / mutant["file"]
    text, built = path.read_text(), scratch.built()
    scratch.replace(mutant["file"], mutant["old"], mutant["new"])
    try:
        if path.suffix in COMPILED:
            scratch.build()
        return not passes(scratch, mutant["test"])
    finally:
        path.write_text(text)
        scratch.put_back(built)


def main() -> int:
    """Print what became of each."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("properties", nargs="*", metavar="PROPERTY")
    chosen = mutants(parser.parse_args().properties)
    if not chosen:
        parser.error(f"known: {', '.join(dict.fromkeys(one['property'] for one in mutants([])))}")
    survivors = 0
    with Scratch() as scratch:
        for test in dict.fromkeys(one["test"] for one in chosen):
            if not passes(scratch, test):
                raise SystemExit(f"{test} fails without a mutant")
        for number, mutant in enumerate(chosen, 1):
            began = time.monotonic()
            caught = is_caught(scratch, mutant)
            survivors += not caught
            what = f"{number}. {mutant['property']}: {mutant['file']}, by {mutant['test'].split('/')[-1]}"
            print(
                f"{what}: {'caught' if caught else 'SURVIVES'} in {time.monotonic() - began:.0f} s",
                flush=True,
            )
    print(f"{len(chosen) - survivors} of {len(chosen)} mutants are caught")
    return 1 if survivors else 0


if __name__ == "__main__":
    raise SystemExit(main())
