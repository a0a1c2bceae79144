#!/usr/bin/env python3
"""Unmodified sockperf and iperf3 through the shim, beside the kernel's TCP.

  shim_bench.py [--seconds 2] [--rounds 3]

The peer is Linux behind a TAP device in every column. The other end is

  kernel        Linux in a namespace of its own, behind a second TAP; a relay
                (bench/goodput_path.cc, no rate, no delay) carries the frames
  shim, client  the program under devwire-run calls the peer
  shim, server  the peer calls the program under devwire-run

Rounds take turns through the columns. Prints a table: median (least to most).

Build first (or `./dev bench --shim`, which does):
  bazel build --config=release //bench:goodput_path //softnic:libsoftnic.so \\
    //sockets/preload:libdevwire_preload.so //sockets/preload:devwire-guardian
"""

import argparse
import itertools
import json
import os
import pathlib
import re
import statistics
import subprocess
import sys
import time

ROOT = pathlib.Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT / "sockets/preload"))
import shim_fixture  # pylint: disable=wrong-import-position
from shim_fixture import LINUX, OURS  # pylint: disable=wrong-import-position

BIN = ROOT / "bazel-bin"
ports = itertools.count(5301)  # sockperf does not want one in TIME-WAIT.


def output_of(words, env, wanted):
    result = subprocess.run(list(map(str, words)), env=env, capture_output=True,
                            text=True, timeout=60, check=False)
    if result.returncode != 0 or wanted not in result.stdout:
        raise RuntimeError(f"{words}: {result.stdout}{result.stderr}")
    return result.stdout


class Column:
    """Where the two ends of one measurement run: words before a program."""

    def __init__(self, name, client, server, address):
        self.name, self.client, self.server = name, client, server
        self.address = address  # That the server listens on.

    def serve(self, words, env):
        return subprocess.Popen([*self.server, *map(str, words)], env=env,
                                stdin=subprocess.DEVNULL,
                                stdout=subprocess.DEVNULL,
                                stderr=subprocess.DEVNULL)

    def ask(self, words, env, wanted):
        """The server may not listen yet: sockperf, then, ends well."""
        for attempt in range(100):
            try:
                return output_of([*self.client, *words], env, wanted)
            except RuntimeError:
                if attempt == 99:
                    raise
                time.sleep(0.1)


def sockperf(column, args, env):
    """Microseconds, half a round trip: median and 99th percentile."""
    port = next(ports)
    server = column.serve(["sockperf", "server", "--tcp", "-i", column.address,
                           "-p", port], env)
    try:
        said = column.ask(["sockperf", "ping-pong", "--tcp", "-i",
                           column.address, "-p", port, "-t", args.seconds, "-m",
                           100], env, "percentile 50.000")
    finally:
        server.terminate()
        server.wait()
    def percentile(p):
        return float(re.search(rf"percentile {p} = *([\d.]+)", said)[1])
    return {"sockperf ping-pong, 100 bytes, median, us": percentile("50.000"),
            "the same, 99 %, us": percentile("99.000")}


def iperf3(column, args, env):
    """Gigabits a second."""
    figures = {}
    for name, flags in (("iperf3, client to server, Gb/s", []),
                        ("server to client", ["-R"]),
                        ("8 streams, client to server", ["-P", 8])):
        server = column.serve(["iperf3", "-s", "-B", column.address], env)
        try:
            said = json.loads(column.ask(
                ["iperf3", "-c", column.address, "-J", "-t", args.seconds,
                 *flags], env, "sum_received"))
        finally:
            server.terminate()
            server.wait()
        figures[name] = said["end"]["sum_received"]["bits_per_second"] / 1e9
    return figures


class KernelPair:
    """A second host that is Linux, and the relay between the two TAPs."""

    def __enter__(self):
        config = ";".join(f"dev={d},port=tap:{t},vnet=1"
                          for d, t in (("a", "t0"), ("b", "t1")))
        self.relay = subprocess.Popen(
            [str(BIN / "bench/goodput_path"), config, "20000", "10", "3600"],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        if self.relay.stdout.readline() != "ready\n":
            raise RuntimeError("the relay does not start")
        self.host = subprocess.Popen(["unshare", "-n", "sleep", "infinity"])
        own = os.readlink("/proc/self/ns/net")
        while os.readlink(f"/proc/{self.host.pid}/ns/net") == own:
            time.sleep(0.001)
        enter = ["nsenter", "-t", str(self.host.pid), "-n"]
        for words in (["ip", "link", "set", "t1", "netns", str(self.host.pid)],
                      [*enter, "ip", "link", "set", "t1", "up"],
                      [*enter, "ip", "addr", "add", f"{OURS}/24", "dev", "t1"]):
            subprocess.run(words, check=True)
        return Column("kernel", enter, [], LINUX)

    def __exit__(self, *unused):
        self.host.kill()
        self.host.wait()
        self.relay.stdin.close()
        self.relay.wait()


def measure(shim, args):
    under = [shim.run_script, "--config", str(shim.config)]
    figures = {}

    def take(column):
        for bench in sockperf, iperf3:
            for row, value in bench(column, args, shim.env).items():
                figures.setdefault(row, {}).setdefault(column.name,
                                                       []).append(value)

    for _ in range(args.rounds):
        with KernelPair() as kernel:
            take(kernel)
        take(Column("shim, client", under, [], LINUX))
        take(Column("shim, server", [], under, OURS))
    return figures


def print_table(figures):
    columns = list(next(iter(figures.values())))
    print("| | " + " | ".join(columns) + " |")
    print("|---" * (1 + len(columns)) + "|")
    for row, by_column in figures.items():
        cells = [f"{statistics.median(v):.3g} ({min(v):.3g} to {max(v):.3g})"
                 for v in by_column.values()]
        print(f"| {row} | " + " | ".join(cells) + " |")


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seconds", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=3)
    if os.environ.get("DEVWIRE_IN_NAMESPACE") is None:
        # What shim_fixture.main() wants to see, now and in the namespace.
        sys.argv[1:1] = [str(ROOT / "sockets/preload/devwire-run"),
                         str(BIN / "sockets/preload/libdevwire_preload.so"),
                         str(BIN / "softnic/libsoftnic.so")]
    args = parser.parse_args(sys.argv[4:])
    return shim_fixture.main(
        lambda shim, _: print_table(measure(shim, args)))


if __name__ == "__main__":
    sys.exit(main())
