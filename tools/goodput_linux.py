#!/usr/bin/env python3
"""Goodput over one emulated path: Linux's TCP and ours, at either end.

  goodput_linux.py [--seconds 30] [--runs 3] [--jobs 1] [--results FILE]
                   [--loss P ...] [--rtt MS ...] [--pair NAME ...] [--out FILE]

Each run is an emulated path (bench/goodput_path.cc) between two hosts; a Linux
host is a network namespace with a TAP device, ours is on softnic's cable. Rate,
delay, queue and losses are the same for all, with the same seed. Every
result is a line of FILE (JSON); what stands there already is not run again, so
that a long table can be made in parts. --out writes the table. --jobs: runs at a
time; more than one only for the paths with losses and a long round trip, which
need hardly any of a core.

Build first (or `./dev goodput`, which does):
  bazel build --config=release //bench:goodput_path //softnic:libsoftnic.so
"""

import argparse
import concurrent.futures
import itertools
import json
import os
import pathlib
import platform
import socket
import statistics
import struct
import subprocess
import sys
import tempfile
import time

ROOT = pathlib.Path(__file__).resolve().parent.parent
BIN = pathlib.Path(os.environ.get("GOODPUT_BIN", ROOT / "bazel-bin"))
PATH = BIN / "bench/goodput_path"
LIBSOFTNIC = BIN / "softnic/libsoftnic.so"

PORT = 7000
SENDER, RECEIVER = "10.79.0.1", "10.79.0.2"
RATE_MBPS = 200
MTU = 1500
WIRE_BYTES = MTU + 14 + 24  # With Ethernet's header, preamble, FCS and gap.
LOSSES = [0, 0.001, 0.01, 0.05]
RTTS_MS = [1, 10, 50]
# name: sender, receiver, Linux's congestion control.
PAIRS = {
    "Linux-Linux": ("linux", "linux", "cubic"),
    "ours-Linux": ("ours", "linux", "cubic"),
    "Linux-ours": ("linux", "ours", "cubic"),
    "ours-ours": ("ours", "ours", "cubic"),
    "Linux-Linux, BBR": ("linux", "linux", "bbr"),
}
MARGIN_S = 2  # An end goes on for so long after its time.


# -- the ends that are Linux's -------------------------------------------------


def linux_receive(seconds):
    with socket.create_server((RECEIVER, PORT)) as listener:
        print("listening", flush=True)
        stream, _ = listener.accept()
    begin = time.monotonic()
    stream.settimeout(0.05)
    buffer = bytearray(1 << 20)
    counted = 0
    reported = False
    while time.monotonic() < begin + seconds + MARGIN_S:
        if not reported and time.monotonic() >= begin + seconds:
            print(json.dumps({"bytes": counted, "seconds": seconds}),
                  flush=True)
            reported = True
        try:
            counted += stream.recv_into(buffer)
        except socket.timeout:
            pass


def linux_info(stream):
    # struct tcp_info of <linux/tcp.h>.
    info = stream.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 256)
    words = struct.unpack_from("<24I", info, 8)
    return {"retransmitted": words[23], "rtt_us": words[15], "cwnd": words[18],
            "segments": struct.unpack_from("<I", info, 156)[0],
            "dsacks": struct.unpack_from("<I", info, 216)[0],
            "timeouts": struct.unpack_from("<H", info, 240)[0]}


def linux_send(seconds, congestion):
    stream = socket.socket()
    stream.setsockopt(socket.IPPROTO_TCP, socket.TCP_CONGESTION,
                      congestion.encode())
    stream.connect((RECEIVER, PORT))
    begin = time.monotonic()
    stream.settimeout(0.05)
    data = bytes(1 << 18)
    reported = False
    while time.monotonic() < begin + seconds + MARGIN_S:
        if not reported and time.monotonic() >= begin + seconds:
            print(json.dumps(linux_info(stream)), flush=True)
            reported = True
        try:
            stream.send(data)
        except socket.timeout:
            pass
    stream.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER,
                      struct.pack("ii", 1, 0))


# -- one run -------------------------------------------------------------------

numbers = itertools.count()


class Run:
    """Processes and namespaces of one run; none outlives it."""

    def __init__(self, cell, args):
        self.cell = cell
        self.seconds = args.seconds
        self.captures = args.captures
        self.folder = tempfile.TemporaryDirectory(prefix="goodput")
        self.number = next(numbers)
        self.processes = []
        # What waits: a hundredth of the round trip, so that nobody's polling
        # shows, and the cores are nobody's limit; and less than a FaultyPort's
        # kMaxBurst, beyond which the wire's time is lost.
        self.nap_us = int(min(50, max(10, cell["rtt_ms"] * 10)))

    def __enter__(self):
        return self

    def __exit__(self, *unused):
        for process in self.processes:
            if process.poll() is None:
                process.kill()
            process.wait()
        self.folder.cleanup()

    def start(self, words, **more):
        process = subprocess.Popen([str(w) for w in words],
                                   stdout=subprocess.PIPE, text=True, **more)
        self.processes.append(process)
        return process

    def device(self, side, kind):
        """The relay's port towards one host."""
        name = f"{side}{self.number}"
        port = f"tap:{name},vnet=1" if kind == "linux" else \
            f"shm:{self.folder.name}/{side}"
        bdp = self.bdp_frames()
        return (f"dev={side},port={port},fault_side=tx,rate={RATE_MBPS}M,"
                f"delay={int(self.cell['rtt_ms'] * 500)}us,"
                f"loss={self.cell['loss']},"
                f"seed={2 * self.cell['seed'] + (side == 'b')},"
                f"hold_frames={min(65536, 20 * bdp + 1000)}")

    def bdp_frames(self):
        bits = RATE_MBPS * 1000 * self.cell["rtt_ms"]
        return int(bits / 8 / WIRE_BYTES) + 1

    def queue_frames(self):
        return max(100, self.bdp_frames())

    def start_path(self, kinds):
        """The path, and in its process what hosts are ours."""
        config = ";".join(self.device(s, k) for s, k in zip("ab", kinds))
        words = [PATH, config, self.queue_frames(), self.nap_us, self.seconds]
        if kinds[1] == "ours":
            words += ["--receive", f"{RECEIVER}:{PORT}"]
        if kinds[0] == "ours":
            words += ["--send", SENDER, f"{RECEIVER}:{PORT}"]
        own = ";".join(
            f"dev={s},port=shm:{self.folder.name}/{s},"
            f"mac=02:00:00:00:79:0{1 + (s == 'b')},mtu={MTU}{self.capture(s)}"
            for s, k in zip("ab", kinds) if k == "ours")
        path = self.start(words, stdin=subprocess.PIPE, env=dict(
            os.environ, SOFTNIC=own, DEVWIRE_VERBS_LIBRARY=str(LIBSOFTNIC)))
        if path.stdout.readline() != "ready\n":
            raise RuntimeError("the path does not start")
        return path

    def make_host(self, side, address):
        """A namespace with the relay's TAP in it."""
        holder = self.start(["unshare", "-n", "sleep", "infinity"])
        own = os.readlink("/proc/self/ns/net")
        while os.readlink(f"/proc/{holder.pid}/ns/net") == own:
            time.sleep(0.001)
        tap = f"{side}{self.number}"
        enter = ["nsenter", "-t", str(holder.pid), "-n"]
        for words in (
                ["ip", "link", "set", tap, "netns", str(holder.pid)],
                [*enter, "ip", "link", "set", tap, "mtu", str(MTU),
                 # All that a window can hold: it is the relay that drops.
                 "txqueuelen", "20000", "up"],
                [*enter, "ip", "addr", "add", f"{address}/24", "dev", tap]):
            subprocess.run(words, check=True)
        return enter

    def start_linux(self, side, words):
        address = SENDER if side == "a" else RECEIVER
        return self.start([*self.make_host(side, address), sys.executable,
                           __file__, "--end", *map(str, words)])

    def capture(self, side):
        if not self.captures:
            return ""
        name = "{pair}_{loss}_{rtt_ms}_{seed}".format(**self.cell)
        return f",pcap={self.captures}/{name}_{side}.pcapng"

    def measure(self):
        sender_kind, receiver_kind, congestion = PAIRS[self.cell["pair"]]
        path = self.start_path([sender_kind, receiver_kind])
        receiver = sender = path
        if receiver_kind == "linux":
            receiver = self.start_linux("b", ["receive", self.seconds])
            if receiver.stdout.readline() != "listening\n":
                raise RuntimeError("the receiver does not listen")
        if sender_kind == "linux":
            sender = self.start_linux("a", ["send", self.seconds, congestion])
        ends = [json.loads(end.stdout.readline()) for end in (receiver, sender)]
        path.stdin.close()
        result = dict(self.cell, **json.loads(path.stdout.readline()))
        # Ours say what they did in the order in which their time is over.
        for end in ends:
            if "bytes" in end:
                result.update(end)
            else:
                result["sender"] = end
        return result


def measure(cell, args):
    for attempt in range(3):
        try:
            with Run(cell, args) as run:
                return run.measure()
        except (RuntimeError, OSError, ValueError) as error:
            print(f"{cell}: {error!r}, attempt {attempt}", file=sys.stderr)
    return None


def key(cell):
    return (cell["pair"], cell["loss"], cell["rtt_ms"], cell["seed"])


def mbps(result):
    return result["bytes"] * 8 / result["seconds"] / 1e6


def run_cells(args):
    args.results.parent.mkdir(exist_ok=True)
    known = set()
    if args.results.exists():
        known = {key(json.loads(line))
                 for line in args.results.read_text().splitlines()}
    cells = [{"pair": pair, "loss": loss, "rtt_ms": rtt, "seed": seed}
             for seed in range(args.seed, args.seed + args.runs)
             for loss in args.loss for rtt in args.rtt for pair in args.pair]
    cells = [c for c in cells if key(c) not in known]
    commit = subprocess.run(["git", "rev-parse", "--short", "HEAD"], cwd=ROOT,
                            capture_output=True, text=True).stdout.strip()
    with concurrent.futures.ThreadPoolExecutor(args.jobs) as pool, \
            open(args.results, "a") as out:
        for result in concurrent.futures.as_completed(
                [pool.submit(measure, c, args) for c in cells]):
            result = result.result()
            if result is None:
                continue
            result["commit"] = commit
            print(f"{result['pair']:18} loss {result['loss']:5} rtt "
                  f"{result['rtt_ms']:4} seed {result['seed']} "
                  f"{mbps(result):8.2f} Mb/s  {result['sender']} "
                  f"{result.get('a_to_b')}", file=sys.stderr)
            out.write(json.dumps(result) + "\n")
            out.flush()


# -- the table -----------------------------------------------------------------

HEAD = """# Goodput beside Linux

One bulk flow from one host to another: Linux's TCP and ours at either end, over
the same emulated path. Written by `./dev goodput`, which says more: a relay
carries every frame of all pairs, with rate, delay, queue and losses (both ways,
each frame drawn by itself, the same seed for all pairs); a Linux host is a
network namespace with a TAP device, ours on softnic's cable, on the relay's own
thread.

{rate} Mb/s, MTU {mtu}, a queue of one bandwidth-delay product or 100 frames,
CUBIC at both, default settings, {seconds} s each from the first byte; all of it
in {runs}. Figures are Mb/s of payload received, the median, with the range
of the runs; a ratio is the median of each run's goodput to that of Linux-Linux
with the same seed. {machine}, commit {commit}.
"""


def machine():
    text = pathlib.Path("/proc/cpuinfo").read_text()
    model = next((line.split(":")[1].strip() for line in text.splitlines()
                  if line.startswith("model name")), platform.machine())
    return f"{os.cpu_count()} cores ({model}), Linux {platform.release()}"


def number(value):
    return f"{value:.3g}" if value < 100 else f"{value:.0f}"


def table(results):
    by_cell = {}
    for r in results:
        by_cell.setdefault((r["loss"], r["rtt_ms"], r["pair"]),
                           {})[r["seed"]] = mbps(r)
    rtts = {}
    for r in results:
        rtts.setdefault((r["loss"], r["rtt_ms"]), []).append(
            r["sender"]["rtt_us"] / 1000)
    lines = ["| loss, % | RTT, ms | SRTT at the end, ms | " + " | ".join(
        f"{p}" if p == "Linux-Linux" else f"{p} | ratio" for p in PAIRS
        if p != "Linux-Linux, BBR") + " | Linux-Linux, BBR |",
             "|---|---|---|---|---|---|---|---|---|---|---|"]
    for loss, rtt in sorted({(r["loss"], r["rtt_ms"]) for r in results}):
        line = f"| {100 * loss:g} | {rtt:g} | " \
            f"{number(statistics.median(rtts[loss, rtt]))} |"
        base = by_cell.get((loss, rtt, "Linux-Linux"), {})
        for pair in PAIRS:
            runs = by_cell.get((loss, rtt, pair), {})
            if not runs:
                line += " - |" * (1 + (not pair.startswith("Linux-Linux")))
                continue
            values = sorted(runs.values())
            line += f" {number(statistics.median(values))}"
            if len(values) > 1:
                line += f" ({number(values[0])} to {number(values[-1])})"
            line += " |"
            if not pair.startswith("Linux-Linux"):
                ratios = [runs[s] / base[s] for s in runs if s in base]
                line += f" {statistics.median(ratios):.2f} |" if ratios else \
                    " - |"
        lines.append(line)
    return "\n".join(lines) + "\n"


def write_table(args):
    results = [json.loads(line)
               for line in args.results.read_text().splitlines()]
    seconds = "/".join(f"{s:g}" for s in sorted({r["seconds"] for r in results}))
    counts = [len({r["seed"] for r in results
                   if (r["loss"], r["rtt_ms"]) == cell})
              for cell in {(r["loss"], r["rtt_ms"]) for r in results}]
    runs = f"{min(counts)} to {max(counts)} runs" \
        if min(counts) != max(counts) else f"{counts[0]} runs"
    head = HEAD.format(rate=RATE_MBPS, mtu=MTU, seconds=seconds, runs=runs,
                       machine=machine(),
                       commit=", ".join(sorted({r["commit"]
                                                for r in results})))
    # What a person wrote behind the table stays.
    text = args.out.read_text() if args.out.exists() else ""
    _, mark, rest = text.partition("<!-- table ends -->\n")
    args.out.write_text(head + "\n" + table(results) + "\n" +
                        (mark or "<!-- table ends -->\n") + rest)


def parse(argv):
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--seconds", type=int, default=30)
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--jobs", type=int, default=1)
    parser.add_argument("--results", type=pathlib.Path,
                        default=ROOT / "results/goodput_linux.jsonl")
    parser.add_argument("--loss", type=float, nargs="*", default=LOSSES)
    parser.add_argument("--rtt", type=float, nargs="*", default=RTTS_MS)
    parser.add_argument("--pair", nargs="*", default=list(PAIRS))
    parser.add_argument("--captures", type=pathlib.Path,
                        help="a folder for what our ends send and receive")
    parser.add_argument("--out", type=pathlib.Path)
    return parser.parse_args(argv)


def take_precedence():
    """Every end and the relay before whatever else the machine has to do: they
    need little, but at their time. Without the right to it, as it comes."""
    try:
        os.sched_setscheduler(0, os.SCHED_FIFO, os.sched_param(1))
    except PermissionError:
        print("goodput_linux: not allowed to take precedence", file=sys.stderr)


def main():
    if sys.argv[1:2] == ["--end"]:
        if sys.argv[2] == "receive":
            linux_receive(int(sys.argv[3]))
        else:
            linux_send(int(sys.argv[3]), sys.argv[4])
        return
    args = parse(sys.argv[1:])
    if os.environ.get("DEVWIRE_INSIDE") != "1":
        os.environ["DEVWIRE_INSIDE"] = "1"
        take_precedence()
        os.execvp("unshare", ["unshare", "-Urn", sys.executable, *sys.argv])
    run_cells(args)
    if args.out:
        write_table(args)


if __name__ == "__main__":
    main()
