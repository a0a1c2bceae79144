#!/usr/bin/env python3
"""What a segment costs in SACK recovery, in instructions, to a clean one.

  recovery_instructions.py RECOVERY_BENCHMARK [--at-most 2.0]

Runs transport/tcp:recovery_benchmark under callgrind, once without loss and
once per loss rate, and counts what both machines execute in OnSegment and
PollOwed: the same figures on every run. Fails when 1 % loss costs more than
--at-most times the clean path.
"""

import argparse
import json
import pathlib
import re
import subprocess
import sys
import tempfile

PER_MILLE = (0, 1, 10, 50)
JUDGED = 10


def instructions(benchmark, per_mille):
    with tempfile.TemporaryDirectory() as folder:
        profile = pathlib.Path(folder, "profile")
        done = subprocess.run(
            ["valgrind", "--tool=callgrind", "--quiet",
             f"--callgrind-out-file={profile}", "--collect-atstart=no",
             "--toggle-collect=*Connection::OnSegment*",
             "--toggle-collect=*Connection::PollOwed*", benchmark,
             f"--benchmark_filter=/{per_mille}$", "--benchmark_format=json",
             "--benchmark_min_time=0.001"],
            text=True, capture_output=True, check=False)
        if done.returncode != 0:
            sys.exit(f"FAIL: {benchmark}: {done.stderr[-2000:]}")
        total = re.search(r"^(?:summary|totals): (\d+)", profile.read_text(),
                          re.MULTILINE)
        row = json.loads(done.stdout)["benchmarks"][0]
        return int(total.group(1)) / row["segments"], row


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("benchmark")
    parser.add_argument("--at-most", type=float, default=2.0)
    arguments = parser.parse_args()
    print("| loss | instructions per segment | to clean | sent again |")
    print("|---|---|---|---|")
    clean, judged = 0.0, 0.0
    for per_mille in PER_MILLE:
        count, row = instructions(arguments.benchmark, per_mille)
        clean = clean or count
        ratio = count / clean
        if per_mille == JUDGED:
            judged = ratio
            if row["again"] == 0:
                sys.exit("FAIL: nothing was lost")
        print(f"| {per_mille / 10:g} % | {count:.0f} | {ratio:.2f} | "
              f"{row['again']:.0f} |")
    verdict = "PASS" if judged <= arguments.at_most else "FAIL"
    print(f"{verdict}: a segment at 1 % loss costs {judged:.2f} times a clean "
          f"one, at most {arguments.at_most:.2f}")
    sys.exit(0 if verdict == "PASS" else 1)


if __name__ == "__main__":
    main()
