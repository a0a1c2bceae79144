#!/usr/bin/env python3
"""The same random segments to Linux's TCP and to ours; what comes back must be
the same, or stand in EXPLAINED (and in docs/linux.md).

  differential_test.py DWCAT LIBSOFTNIC [--seed S] [--seeds N] [--verbose]

Both are hosts that accept one connection and read it to its end. Linux is this
process's socket behind a TAP; ours is `dwcat listen` on a softnic whose port is
another TAP. The peer of both is played here, frame by frame, from a schedule
that the seed decides: SYN with options, text in order, ahead, behind and
overlapping, ACKs of too much and too little, RST, SYN, FIN, urgent data, bad
options, old timestamps, bad checksums. After each step:

  - two ARP requests, one after the other's answer: what was to be sent at once
    has been sent. Noted is whether anything was, and whether a RST.
  - one old byte, which everybody answers at once with all that it knows: ACK
    number, SACK blocks, whether the window is open.

At the end of the stream its bytes must be the same, too. Nothing waits for time
to pass. DEVWIRE_LONG=1: more seeds. Prints "PASS: ", "FAIL: " and "SKIP: "
lines; the exit status is 1 when one failed.
"""

import argparse
import hashlib
import os
import pathlib
import random
import socket
import struct
import subprocess
import sys
import tempfile

from differential_hosts import (ACK, FIN, MASK, PEER_IP, PSH, RST, SUT_MAC, SYN,
                                URG, Linux, Ours, arp, frame, parse, run)

# Steps after which what comes back at once may differ, and why: docs/linux.md.
EXPLAINED = {("no ACK flag", "answered"), ("old ACK", "answered"),
             ("text behind the FIN", "answered"), ("FIN ahead", "sack")}
# Answered by a challenge ACK, of which each host sends one in 500 ms: only the
# first of a schedule tells something.
CHALLENGED = ("behind without text", "RST in window", "SYN", "old SYN", "future ACK", "old ACK",
              "future ACK and text", "far old ACK")
# Text in order: its ACK may be delayed.
MAY_WAIT = ("in order", "fill", "overlap", "the same again", "urgent",
            "bad options", "no timestamps", "all of it again", "text and FIN")


# -- the peer ------------------------------------------------------------------


class Peer:
    """The other end of one host's connection. Numbers are relative: our SYN and
    theirs are both 0."""

    def __init__(self, host, port, isn, has_timestamps):
        self.host, self.port, self.isn = host, port, isn
        self.has_timestamps = has_timestamps
        self.their_isn = self.ts_val = None
        self.ack_seen = 0  # Their latest,
        self.wnd = None  # and what they offered with it.
        self.their_fin = None
        self.seen = []

    def timestamps(self, val):
        return struct.pack(">BBBBII", 1, 1, 8, 10, val & MASK, self.ts_ecr) \
            if self.has_timestamps else b""

    ts_ecr = 0

    def send(self, seq, flags, ack=1, payload=b"", ts_val=None, options=None,
             **more):
        if options is None:
            options = self.timestamps(self.ts_clock if ts_val is None
                                      else ts_val)
        theirs = 0 if self.their_isn is None else self.their_isn
        self.host.send(frame(self.port, self.isn + seq,
                             theirs + ack if flags & ACK else 0, flags,
                             payload, options, **more))

    ts_clock = 1_000_000

    def take(self, data):
        """One frame from the host; the ARP answer's kind, or a segment."""
        if data[12:14] == b"\x08\x06":
            if struct.unpack_from(">H", data, 20)[0] == 1:
                if data[38:42] == socket.inet_aton(PEER_IP):
                    self.host.send(arp(2, SUT_MAC))
                return None
            return "arp"
        segment = parse(data, self.port)
        if segment is None:
            return None
        if segment.flags & SYN and segment.flags & ACK:
            self.their_isn = segment.seq
        if self.their_isn is not None and segment.flags & FIN:
            self.their_fin = (segment.seq + segment.length -
                              self.their_isn) & MASK
        if 8 in segment.options and not segment.flags & RST:
            self.ts_ecr = struct.unpack(">I", segment.options[8][:4])[0]
        self.seen.append(segment)
        return segment

    def barrier(self):
        """Everything that was sent is processed, and answered if at once."""
        for _ in range(2):
            self.host.send(arp(1, b"\0" * 6))
            while self.take(self.host.next_frame()) != "arp":
                pass

    def step_result(self):
        """What came back since the last one, and what the host now says."""
        self.barrier()
        result = {"rst": any(s.flags & RST for s in self.seen),
                  "answered": self.is_answered()}
        self.seen.clear()
        # One old byte: answered at once.
        self.ts_clock += 1
        self.send(self.ack_seen - 1, ACK, payload=b"o")
        while not self.seen:
            self.take(self.host.next_frame())
        self.barrier()
        answer = self.seen[-1]
        result["probe's rst"] = bool(answer.flags & RST)
        if answer.flags & ACK:
            self.ack_seen = (answer.ack - self.isn) & MASK
        self.wnd = answer.wnd
        result["ack"] = self.ack_seen
        result["open"] = answer.wnd > 0
        result["sack"] = self.sack_blocks(answer)
        self.seen.clear()
        return result

    def is_answered(self):
        """None: by what may be a window update, which comes when it likes."""
        if any(s.wnd == self.wnd or s.flags & RST or
               (s.ack - self.isn) & MASK != self.ack_seen for s in self.seen):
            return True
        return None if self.seen else False

    def await_fin(self):
        while self.their_fin is None:
            self.take(self.host.next_frame())
        self.seen.clear()

    def sack_blocks(self, segment):
        data = segment.options.get(5, b"")
        edges = [(e - self.isn) & MASK
                 for e in struct.unpack(f">{len(data) // 4}I", data)]
        blocks = zip(edges[::2], edges[1::2])
        # Without the DSACK block of the old byte.
        return sorted(b for b in blocks if b[0] >= self.ack_seen)


# -- the schedule --------------------------------------------------------------


def text(seq, length):
    """The stream's bytes from `seq` on."""
    return bytes((7 * s + (s >> 8)) & 0xff for s in range(seq, seq + length))


def syn_options(rng):
    options = struct.pack(">BBH", 2, 4, rng.choice([88, 536, 1400, 1460]))
    has_sack, has_timestamps = rng.random() < 0.8, rng.random() < 0.6
    if has_sack:
        options += b"\4\2"
    if has_timestamps:
        options += struct.pack(">BBII", 8, 10, 999_999, 0)
    if rng.random() < 0.7:
        options += struct.pack(">BBB", 3, 3, rng.randrange(15))
    if rng.random() < 0.2:
        options += b"\xfd\4ab"  # A kind that nobody knows.
    return options, has_timestamps


BAD_OPTIONS = {
    "an option of length 0": b"\xfd\0\1\1",
    "an option of length 1": b"\xfd\1\1\1",
    "an option beyond the header": b"\xfd\x28\1\1",
    "SACK of an odd length": b"\1\5\7\0\0\0\0\0",
    "a second end": b"\0\0\0\0",
}


class Step:
    """One or more segments: `name`, and a function that sends them."""

    def __init__(self, name, send, resets=False, closes=False):
        self.name, self.send = name, send
        self.resets, self.closes = resets, closes


def draw_step(rng, state):
    """`state`: `next`, the end of what was sent so far in order; `top`, of all
    that was."""
    length = rng.choice([1, 10, 500, 1400])
    nxt = state["next"]
    state["top"] = max(state["top"], nxt + 1400)
    kind = rng.choices(
        ["in order", "ahead", "behind", "overlap", "fill", "bare ACK",
         "behind without text", "future ACK", "old ACK", "far old ACK",
         "RST in window", "RST outside", "SYN", "old SYN", "urgent",
         "bad options", "no timestamps", "old timestamps", "bad checksum",
         "no ACK flag", "beyond the window", "future ACK and text",
         "ahead twice"],
        [30, 20, 5, 8, 12, 4, 3, 4, 4, 3, 4, 3, 3, 2, 4, 5, 3, 4, 3, 3, 3, 3,
         5])[0]
    gap = rng.choice([1, 700, 3000])
    ahead = nxt + gap

    def in_order(flags=ACK, **more):
        state["next"] = nxt + length
        return lambda p: p.send(nxt, flags, payload=text(nxt, length), **more)

    if kind == "in order":
        return Step(f"{kind} {length}", in_order(rng.choice([ACK, ACK | PSH])))
    if kind.startswith("ahead"):
        state["top"] = max(state["top"], ahead + length)
    if kind == "ahead twice":
        state["top"] = max(state["top"], ahead + gap + 2 * length)

        def twice(p):
            p.send(ahead, ACK, payload=text(ahead, length))
            p.send(ahead + length + gap, ACK,
                   payload=text(ahead + length + gap, length))
        return Step(f"{kind} {gap} {length}", twice)
    if kind == "ahead":
        return Step(f"{kind} {gap} {length}",
                    lambda p: p.send(ahead, ACK, payload=text(ahead, length)))
    if kind == "behind":
        seq = max(1, nxt - length)
        return Step(kind, lambda p: p.send(seq, ACK,
                                           payload=text(seq, nxt - seq)))
    if kind == "overlap":
        seq = max(1, nxt - 300)
        length = min(length, 1000)
        state["next"] = nxt + length
        return Step(kind, lambda p: p.send(
            seq, ACK, payload=text(seq, nxt + length - seq)))
    if kind == "fill":
        # Up to wherever the host's hole ends, or a little more.
        state["next"] = nxt + 1400
        return Step(kind, lambda p: p.send(nxt, ACK, payload=text(nxt, 1400)))
    if kind == "bare ACK":
        return Step(kind, lambda p: p.send(p.ack_seen, ACK))
    if kind == "behind without text":
        return Step(kind, lambda p: p.send(p.ack_seen - 5, ACK))
    if kind == "future ACK":
        return Step(kind, lambda p: p.send(nxt, ACK, ack=5000))
    if kind == "future ACK and text":
        return Step(kind, lambda p: p.send(nxt, ACK, ack=5000,
                                           payload=text(nxt, length)))
    if kind == "old ACK":
        return Step(kind, lambda p: p.send(nxt, ACK, ack=0))
    if kind == "far old ACK":
        return Step(kind, lambda p: p.send(nxt, ACK, ack=-(1 << 30),
                                           payload=text(nxt, length)))
    if kind == "RST in window":
        return Step(kind, lambda p: p.send(p.ack_seen + 10, RST))
    if kind == "RST outside":
        return Step(kind, lambda p: p.send(p.ack_seen - 10, RST))
    if kind == "SYN":
        return Step(kind, lambda p: p.send(p.ack_seen + 10, SYN))
    if kind == "old SYN":
        return Step(kind, lambda p: p.send(0, SYN))
    if kind == "urgent":
        return Step(kind, in_order(ACK | URG, urgent=rng.choice([1, length])))
    if kind == "bad options":
        name = rng.choice(sorted(BAD_OPTIONS))
        state["next"] = nxt + length
        return Step(f"{kind}: {name}", lambda p: p.send(
            nxt, ACK, payload=text(nxt, length),
            options=p.timestamps(p.ts_clock) + BAD_OPTIONS[name]))
    if kind == "no timestamps":
        state["next"] = nxt + length
        return Step(kind, lambda p: p.send(nxt, ACK, options=b"",
                                           payload=text(nxt, length)))
    if kind == "old timestamps":
        return Step(kind, lambda p: p.send(nxt, ACK, ts_val=p.ts_clock - 5000,
                                           payload=text(nxt, length)))
    if kind == "bad checksum":
        return Step(kind, lambda p: p.send(nxt, ACK, bad_checksum=True,
                                           payload=text(nxt, length)))
    if kind == "no ACK flag":
        return Step(kind, lambda p: p.send(nxt, 0, payload=text(nxt, length)))
    assert kind == "beyond the window"
    return Step(kind, lambda p: p.send(p.ack_seen + (1 << 30) + 7, ACK,
                                       payload=text(nxt, length)))


def draw_ending(rng, state):
    nxt = state["top"]
    return rng.choice([
        [Step("FIN", lambda p: p.send(nxt, FIN | ACK), closes=True)],
        [Step("FIN ahead", lambda p: p.send(nxt + 10, FIN | ACK)),
         Step("the hole before it", lambda p: p.send(
             nxt, ACK, payload=text(nxt, 10)))],
        [Step("text and FIN", lambda p: p.send(
            nxt, FIN | ACK, payload=text(nxt, 100)), closes=True),
         Step("text behind the FIN", lambda p: p.send(
             nxt + 101, ACK, payload=text(nxt + 101, 10)))],
        [Step("RST", lambda p: p.send(p.ack_seen, RST), True)],
        [Step("RST and ACK", lambda p: p.send(p.ack_seen, RST | ACK), True)],
    ])


def schedule(seed):
    rng = random.Random(seed)
    options, has_timestamps = syn_options(rng)
    state = {"next": 1, "top": 1}
    # Most steps once; now and then the stream's next bytes again, so that what
    # one of the two dropped does not stop the rest.
    steps = []
    for _ in range(rng.randrange(8, 20)):
        at = state["next"]
        steps.append(draw_step(rng, state))
        end = state["next"]
        if end > at and rng.random() < 0.5:
            steps.append(Step("the same again", lambda p, s=at, e=end: p.send(
                s, ACK, payload=text(s, min(e - s, 1400)))))
    # All that may still be missing.
    nxt = state["top"]
    steps.append(Step("all of it again", lambda p: [
        p.send(s, ACK, payload=text(s, min(1000, nxt - s)))
        for s in range(1, nxt, 1000)]))
    steps += draw_ending(rng, state)
    return {"isn": rng.choice([rng.getrandbits(32), MASK - 2000]),
            "options": options, "has_timestamps": has_timestamps,
            "steps": steps}


def play(host, plan, port):
    """[(step, what came back)] and what the application read."""
    host.start()
    peer = Peer(host, port, plan["isn"], plan["has_timestamps"])
    peer.send(0, SYN, options=plan["options"])
    while peer.their_isn is None:
        peer.take(host.next_frame())
    answer = peer.seen[-1]
    results = [("SYN", {"flags": answer.flags,
                        "ack": (answer.ack - peer.isn) & MASK,
                        "options": sorted(answer.options)})]
    peer.has_timestamps = 8 in answer.options
    peer.ack_seen = 1
    peer.send(1, ACK)
    peer.barrier()
    peer.seen.clear()
    host.turn()
    for step in plan["steps"]:
        peer.ts_clock += 1
        step.send(peer)
        result = {"reset": host.await_reset()} if step.resets else \
            peer.step_result()
        results.append((step.name, result))
        if step.closes:
            peer.await_fin()
    if not plan["steps"][-1].resets:
        peer.await_fin()  # It closes after reading to the end.
        peer.send(peer.ack_seen, ACK, ack=peer.their_fin + 1)
    return results, host.finish()


# -- all of it -----------------------------------------------------------------

failures = 0


def report(ok, what):
    global failures
    failures += not ok
    print(f"{'PASS' if ok else 'FAIL'}: {what}", flush=True)


def differences(linux, ours):
    found = []
    is_challenged = False
    for (step, a), (_, b) in zip(linux, ours):
        keys = [k for k in sorted({*a, *b})
                if a.get(k) != b.get(k) and (step, k) not in EXPLAINED]
        if step.startswith(MAY_WAIT) or None in (a.get("answered", 0),
                                                 b.get("answered", 0)) or \
                is_challenged and step in CHALLENGED:
            keys = [k for k in keys if k != "answered"]
        is_challenged |= step in CHALLENGED
        if keys:
            found.append(f"after '{step}': " + ", ".join(
                f"{k}: Linux {a.get(k)}, ours {b.get(k)}" for k in keys))
            break  # What follows, follows from it.
    if not found and len(linux) != len(ours):
        found.append("one of them ended sooner")
    return found


def compare(seed, hosts, verbose):
    plan = schedule(seed)
    port = 20_000 + seed % 40_000
    played = [play(host, plan, port) for host in hosts]
    (linux, linux_text), (ours, our_text) = played
    if verbose:
        for (step, a), (_, b) in zip(linux, ours):
            print(f"  {step}\n    Linux {a}\n    ours  {b}")
    found = differences(linux, ours)
    if not plan["steps"][-1].resets and linux_text != our_text:
        found.append(f"Linux's application read {len(linux_text)} bytes "
                     f"({hashlib.sha256(linux_text).hexdigest()[:8]}), ours "
                     f"{len(our_text)}")
    report(not found, f"seed {seed}: {len(linux)} steps, "
           f"{len(linux_text)} bytes" +
           (": " + "; ".join(found) if found else ""))


def try_to_compare(seed, hosts, verbose):
    """dwcat gives up when nothing moves for 10 s, which says something of the
    machine: then once more."""
    for attempts_left in (2, 1, 0):
        try:
            return compare(seed, hosts, verbose)
        except (RuntimeError, OSError, subprocess.SubprocessError) as error:
            hosts[1].stop()
            if "stands still" not in str(error) or attempts_left == 0:
                return report(False, f"seed {seed}: {error!r}")


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("dwcat")
    parser.add_argument("libsoftnic")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--seeds", type=int, default=400 if os.environ.get(
        "DEVWIRE_LONG") else 20)
    parser.add_argument("--verbose", action="store_true")
    args = parser.parse_args()
    if not os.path.exists("/dev/net/tun"):
        print("SKIP: no /dev/net/tun")
        return 0
    run("sysctl -qw net.ipv6.conf.all.disable_ipv6=1 "
        "net.ipv6.conf.default.disable_ipv6=1")
    with tempfile.TemporaryDirectory() as folder:
        hosts = [Linux(), Ours(pathlib.Path(folder), os.path.abspath(args.dwcat),
                               os.path.abspath(args.libsoftnic))]
        for seed in range(args.seed, args.seed + args.seeds):
            try_to_compare(seed, hosts, args.verbose)
    return 1 if failures else 0


if __name__ == "__main__":
    if os.environ.get("DEVWIRE_INSIDE") != "1":
        os.environ["DEVWIRE_INSIDE"] = "1"
        os.execvp("unshare", ["unshare", "-Urn", sys.executable, *sys.argv])
    sys.exit(main())
