#!/usr/bin/env python3
"""The rules of this tree that a program can check; see docs/testing.md.

Prints one line per rule, "PASS: ..." or "FAIL: ...", with every place that
breaks it. Run it from the root of the tree. Exit status 1 when a rule fails.
"""

import fnmatch
import pathlib
import re
import subprocess
import sys

# A room may include itself, base/ and what its row names (ARCHITECTURE.md).
MAY_INCLUDE = {
    "base": [],
    "memreg": [],
    "softnic": [],
    "transport": ["memreg"],
    "transport/wire": ["transport"],
    "transport/tcp": ["transport", "transport/wire", "memreg"],
    "transport/verbs": ["transport", "memreg"],
    "transport/sim": ["transport", "transport/wire", "transport/tcp", "memreg",
                      "transport/engine"],
    "transport/engine": ["transport", "transport/wire", "transport/tcp",
                         "memreg"],
    "sockets": ["transport", "transport/engine", "transport/tcp",
                "transport/verbs", "transport/wire", "memreg"],
    "examples": ["sockets", "memreg", "transport"],
    "bench": ["sockets", "memreg", "softnic", "transport", "transport/engine",
              "transport/tcp", "transport/verbs", "transport/wire"],
}
# What a file may include besides: one line and its reason each.
ALSO = {
    # The one header of softnic that others use: its counters and controls.
    "softnic/softnic.h": "the exported control interface",
}
# Folders of libraries that every room may use.
LIBRARIES = {"absl", "arpa", "benchmark", "gmock", "gtest", "infiniband",
             "linux", "net", "netinet", "nlohmann", "openssl", "sys", "toml++"}
# transport/tcp sees of memreg only the frag, and of transport only seq.h.
TCP_SEES = {"memreg/frag.h", "transport/seq.h", "transport/wire/tcp_header.h",
            "transport/wire/tcp_options.h", "transport/wire/notation.h"}

CLOCK_CALL = re.compile(
    r"\b(clock_gettime|gettimeofday|steady_clock|system_clock"
    r"|high_resolution_clock)\b|[^\w.>]time\(")
RANDOM_CALL = re.compile(r"[^\w.>](s?rand|random)\(|std::(mt19937|random_device)")
THREAD_START = re.compile(
    r"\bstd::j?thread(\s+\w+)?\s*[({]|\bstd::async\b|\bpthread_create\b")
ALLOCATION = re.compile(
    r"\b(make_unique|make_shared|push_back|emplace_back|malloc)\b|[^\w]new ")
# Files of the data path: nothing in them allocates. Each pattern must match.
DATA_PATH = [
    "transport/engine/demux.cc",
    "transport/engine/engine_re[cp]*.cc",
    "transport/engine/engine_transmit.cc",
    "transport/engine/send_queue.cc",
    "transport/tcp/arrive_*.cc",
    "transport/tcp/connection.cc",
    "transport/tcp/deadlines.cc",
    "transport/tcp/output.cc",
    "transport/tcp/rack.cc",
    "transport/tcp/re*.cc",
    "transport/tcp/rtt.cc",
    "transport/tcp/sack_scoreboard.cc",
    "transport/verbs/rx_ring.cc",
    "transport/verbs/tx_ring.cc",
    "transport/verbs/verbs_packet_io.cc",
    "transport/wire/frame.cc",
    "transport/wire/tcp_header.h",
    "transport/wire/tcp_options.cc",
]

FILE_LINES, TEST_LINES, FUNCTION_LINES = 600, 900, 70


def is_test(path):
    return bool(re.search(r"_(test|fuzz|benchmark)\.cc$", path)) or \
        "/testdata/" in path


def room_of(path):
    parts = path.split("/")
    if parts[0] == "transport" and len(parts) > 2:
        return "/".join(parts[:2])
    return parts[0]


def code_lines(text):
    """(number, line) without // comments."""
    for number, line in enumerate(text.splitlines(), 1):
        yield number, re.sub(r"//.*", "", line)


def check_includes(path, text):
    room = room_of(path)
    if room not in MAY_INCLUDE or is_test(path):
        return
    for number, line in enumerate(text.splitlines(), 1):
        match = re.match(r'#include "([^"]+)"', line)
        if not match:
            continue
        target = match.group(1)
        to = room_of(target)
        if "/" not in target or to.split("/")[0] in LIBRARIES:
            continue
        if room == "transport/tcp" and to not in ("base", room):
            if target not in TCP_SEES:
                yield f"{path}:{number}: transport/tcp may not see {target}"
            continue
        if to in ("base", room) or to in MAY_INCLUDE[room] or target in ALSO:
            continue
        yield f"{path}:{number}: {room} may not include {target}"


def check_guard(path, text):
    if path.endswith(".h"):
        guard = re.sub(r"\W", "_", path).upper() + "_"
        if f"#ifndef {guard}\n" not in text:
            yield f"{path}:1: the include guard should be {guard}"


def check_size(path, text):
    limit = TEST_LINES if is_test(path) else FILE_LINES
    lines = text.count("\n")
    if lines > limit:
        yield f"{path}: {lines} lines, the limit is {limit}: split by mechanism"


def check_functions(path, text):
    if is_test(path):
        return
    start = None
    for number, line in enumerate(text.splitlines(), 1):
        if re.match(r"[A-Za-z].*\{\s*$", line) and "namespace" not in line:
            start = number
        elif line.startswith("}") and start is not None:
            opener = text.splitlines()[start - 1]
            is_type = re.match(r"(class|struct|enum|union|static const|const"
                               r"|constexpr|inline constexpr|template)", opener)
            if not is_type and number - start > FUNCTION_LINES:
                yield f"{path}:{start}: a function of {number - start} lines"
            start = None


def check_clock(path, text):
    if path == "base/clock.cc" or is_test(path):
        return
    for number, line in code_lines(text):
        if CLOCK_CALL.search(line):
            yield f"{path}:{number}: use base/clock.h"


def check_threads(path, text):
    if path.startswith("base/thread.") or is_test(path):
        return
    for number, line in code_lines(text):
        if THREAD_START.search(line):
            yield f"{path}:{number}: use base/thread.h"


def check_random(path, text):
    for number, line in code_lines(text):
        if RANDOM_CALL.search(line):
            yield f"{path}:{number}: use base/prng.h"


def check_allocation(path, text):
    if is_test(path) or \
            not any(fnmatch.fnmatch(path, pattern) for pattern in DATA_PATH):
        return
    for number, line in code_lines(text):
        if ALLOCATION.search(line):
            yield (f"{path}:{number}: the data path does not allocate; "
                   "move it to foo_setup.cc")


def check_words(path, text):
    for number, line in enumerate(text.splitlines(), 1):
        if re.search(r"\bFIXME\b", line):
            yield f"{path}:{number}: FIXME may not be merged"
        if re.search(r"\bTODO\b(?!\(#\d+\): when )", line):
            yield f"{path}:{number}: write TODO(#issue): when X, do Y"


RULES = {
    "rooms include only what is below them": check_includes,
    "include guards are named after the file": check_guard,
    "files are of a readable size": check_size,
    "functions fit a screen": check_functions,
    "only base/clock.cc reads a clock": check_clock,
    "only base/thread.cc makes threads": check_threads,
    "randomness comes from base/prng.h": check_random,
    "the data path does not allocate": check_allocation,
    "no FIXME, no TODO without a condition": check_words,
}


def main():
    listed = subprocess.run(
        ["git", "ls-files", "-co", "--exclude-standard", "*.h", "*.cc"],
        check=True, capture_output=True, text=True).stdout.split()
    files = {p: pathlib.Path(p).read_text() for p in listed
             if pathlib.Path(p).exists()}
    if not files:
        print("FAIL: tidy: no source file found")
        sys.exit(1)
    failed = False
    for pattern in DATA_PATH:
        if not fnmatch.filter(files, pattern):
            print(f"FAIL: tidy: the data path has no file {pattern}")
            failed = True
    for name, rule in RULES.items():
        found = [f for path, text in files.items() for f in rule(path, text)]
        for place in found:
            print(f"  {place}")
        print(f"{'FAIL' if found else 'PASS'}: tidy: {name}")
        failed = failed or bool(found)
    sys.exit(failed)


if __name__ == "__main__":
    main()
