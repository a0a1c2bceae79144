#!/usr/bin/env python3
"""The benches, as one table and one JSON: ./dev bench [--json FILE].

Instructions come from callgrind: those executed in the stack's own object,
between entry and exit of one end's poll, divided by its segments; the software
NIC's are left out. They are exact. Times come from runs of their own and vary
with the machine: each has its spread and a memcpy of the same chunks in the
same run.
"""

import argparse
import datetime
import json
import pathlib
import platform
import re
import subprocess
import sys
import tempfile

ROOT = pathlib.Path(__file__).resolve().parent.parent
BENCH = ROOT / "bazel-bin/bench/cable_bench"
SOFTNIC = ROOT / "bazel-bin/softnic/libsoftnic.so"
ENVIRONMENT = {"DEVWIRE_VERBS_LIBRARY": str(SOFTNIC), "PATH": "/usr/bin:/bin"}


def run_bench(prefix, *words):
    done = subprocess.run([*prefix, BENCH, *map(str, words)], text=True,
                          capture_output=True, env=ENVIRONMENT, check=False)
    if done.returncode != 0:
        sys.exit(f"bench: cable_bench {' '.join(map(str, words))} failed:\n"
                 f"{done.stderr[-2000:]}")
    return json.loads(done.stdout.strip().splitlines()[-1])


def own_instructions(profile):
    """Ir that a callgrind profile attributes to the bench's own object."""
    names, current, total, skip = {}, "", 0, False
    for line in pathlib.Path(profile).read_text().splitlines():
        if match := re.match(r"ob=\((\d+)\)(?: (.*))?$", line):
            number, name = match.groups()
            if name:
                names[number] = name
            current = names[number]
        elif match := re.match(r"cob=\((\d+)\) (.*)$", line):
            names[match.group(1)] = match.group(2)
        elif line.startswith("calls="):
            skip = True  # The next line is the callee's cost.
        elif re.match(r"[+*\-\d]", line):
            if not skip and current.endswith("/cable_bench"):
                total += int(line.split()[1])
            skip = False
    return total


def instructions_per_segment(function, mtu, size):
    with tempfile.TemporaryDirectory() as folder:
        profile = f"{folder}/profile"
        result = run_bench(
            ["valgrind", "--tool=callgrind", "--quiet",
             f"--callgrind-out-file={profile}",
             f"--toggle-collect=*{function}*", "--collect-atstart=no"],
            "--mtu", mtu, "--bytes", size, "--rounds", 1)
        return (own_instructions(profile) /
                result["segments_received_with_warm_up"])


def spread(values, scale=1.0):
    return (f"{values['median'] * scale:.2f} "
            f"({values['min'] * scale:.2f} to {values['max'] * scale:.2f})")


def main():
    parser = argparse.ArgumentParser(prog="./dev bench")
    parser.add_argument("--json", help="also write the figures here")
    parser.add_argument("--bytes", type=int, default=1 << 30)
    arguments = parser.parse_args()
    figures = {
        "date": datetime.date.today().isoformat(),
        "commit": subprocess.run(["git", "rev-parse", "--short", "HEAD"],
                                 capture_output=True, text=True,
                                 cwd=ROOT).stdout.strip(),
        "kernel": platform.release(),
        "runs": [],
    }
    print("| MTU | instructions per segment received | sent | "
          "ns per segment, both ends and the NIC | goodput Gb/s | "
          "memcpy Gb/s | goodput / memcpy | allocations |")
    print("|---|---|---|---|---|---|---|---|")
    for mtu in (9000, 1500):
        result = run_bench([], "--mtu", mtu, "--bytes", arguments.bytes)
        small = 32 << 20
        received = instructions_per_segment("PollReceiver", mtu, small)
        sent = instructions_per_segment("PollSender", mtu, small)
        result["instructions_received"] = received
        result["instructions_sent"] = sent
        figures["runs"].append(result)
        print(f"| {mtu} | {received:.0f} | {sent:.0f} | "
              f"{spread(result['ns_per_segment_both_ends_and_nic'])} | "
              f"{spread(result['goodput_gbps'])} | "
              f"{spread(result['memcpy_gbps'])} | "
              f"{spread(result['goodput_over_memcpy'])} | "
              f"{result['allocations']} |", flush=True)
    if arguments.json:
        pathlib.Path(arguments.json).write_text(json.dumps(figures, indent=1))


if __name__ == "__main__":
    main()
