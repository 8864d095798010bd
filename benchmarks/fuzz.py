"""Optimize random models until the time is up, and show the seed of every one that goes wrong.

python benchmarks/fuzz.py [--seconds 600] [--seed 1000]
"""

from __future__ import annotations

import argparse
import sys
import time
import traceback
from collections import Counter
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "tests"))

from test_generated_models import check


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seconds", type=float, default=600)
    parser.add_argument("--seed", type=int, default=1000)
    options = parser.parse_args()
    end = time.monotonic() + options.seconds
    seed, counts = options.seed, Counter[str]()
    while time.monotonic() < end:
        try:
            counts["right" if check(seed) else "does not run"] += 1
        except Exception:
            counts["WRONG"] += 1
            print(f"seed {seed}:")
            traceback.print_exc(limit=1)
        seed += 1
    print(f"{seed - options.seed} models: {dict(counts)}")
    return 1 if counts["WRONG"] else 0


if __name__ == "__main__":
    sys.exit(main())
