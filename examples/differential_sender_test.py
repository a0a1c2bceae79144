#!/usr/bin/env python3
"""As differential_test.py, the other way round: Linux's TCP and ours open to
the peer and send; the peer answers as the seed says, and what they send must be
the same. What differs on purpose is kept out of the schedules, and stands in
docs/linux.md.

  differential_sender_test.py DWCAT LIBSOFTNIC [--seed S] [--seeds N] [--verbose]

Compared after each step, when nothing more comes for QUIET_S: how far new text
went, what was sent again, resets, FIN, and whether there was an answer without
text. The handshake takes HANDSHAKE_S, so that no timer of either runs out
meanwhile; where load makes one do so all the same, a schedule is played again.
"""

import argparse
import os
import pathlib
import random
import select
import socket
import struct
import sys
import tempfile
import time

from differential_hosts import (ACK, FIN, MASK, PATIENCE_S, PEER_IP, RST,
                                SUT_MAC, SYN, Linux, Ours, arp, frame, merged,
                                parse, run)

QUIET_S = 0.04
HANDSHAKE_S = 0.4
ATTEMPTS = 4
# Answered by a challenge ACK, of which each host sends one in 500 ms: only the
# first of a schedule tells something.
CHALLENGED = ("old ACK", "future ACK", "RST outside", "SYN")


class Peer:
    """Numbers are relative: our SYN and theirs are both 0."""

    def __init__(self, host, port, plan):
        self.host, self.port, self.plan = host, port, plan
        self.isn = plan["isn"]
        self.their_isn = self.their_port = None
        self.una, self.top = 1, 1  # Of theirs: acknowledged; the end of all.
        self.wnd, self.nxt = 65535, 1
        self.has_sack = plan["sack"]
        self.smss = plan["mss"]
        self.seen, self.their_fin = [], None

    def send(self, flags=ACK, seq=None, ack=None, sack=(), options=b"",
             wnd=None):
        if sack:
            options = bytes([1, 1, 5, 2 + 8 * len(sack)])
            for begin, end in sack:
                options += struct.pack(">II", (self.their_isn + begin) & MASK,
                                       (self.their_isn + end) & MASK)
        ack = self.una if ack is None else ack
        self.host.send(frame(
            self.port, self.isn + (self.nxt if seq is None else seq),
            self.their_isn + ack if flags & ACK else 0, flags,
            options=options, wnd=self.wnd if wnd is None else wnd,
            to=self.their_port))

    def take(self, data):
        if data[12:14] == b"\x08\x06":
            if struct.unpack_from(">H", data, 20)[0] == 1 and \
                    data[38:42] == socket.inet_aton(PEER_IP):
                self.host.send(arp(2, SUT_MAC))
            return
        segment = parse(data, self.port, self.their_port)
        if segment is None:
            return
        if self.their_isn is None:
            if not segment.flags & SYN:
                return  # Of an earlier one.
            self.their_isn, self.their_port = segment.seq, segment.source
        self.seen.append(segment)

    def settle(self):
        """Takes what comes until nothing does."""
        quiet_since = time.monotonic()
        while time.monotonic() - quiet_since < QUIET_S:
            self.host.turn()
            if not select.select([self.host.fileno()], [], [], 0.002)[0]:
                continue
            data = self.host.receive()
            if data:
                self.take(data)
                quiet_since = time.monotonic()

    def result(self):
        """What came since the last one."""
        self.settle()
        sent, again, fin = self.top, [], False
        for s in self.seen:
            begin = (s.seq - self.their_isn) & MASK
            end = begin + s.length
            if s.flags & FIN:
                fin, self.their_fin = True, end
            if s.length == 0:
                continue
            if begin < self.top:
                again.append((begin, min(end, self.top)))
            sent = max(sent, end)
        result = {"sent": sent, "again": merged(again), "fin": fin,
                  "rst": any(s.flags & RST for s in self.seen),
                  "bare": any(s.length == 0 and not s.flags & (RST | FIN)
                              for s in self.seen)}
        self.top = sent
        self.seen.clear()
        return result

    # What steps ask for. Segments are of smss bytes, but for the last.
    def edge(self, segments):
        return min(self.una + segments * self.smss, self.top)

    def has_more(self):
        """Text that did not come yet."""
        return self.top <= len(self.plan["text"])

    def acknowledge(self, to):
        self.una = max(self.una, min(to, self.top))
        self.send()

    def hole(self, lost):
        """The first `lost` segments in flight did not come."""
        begin = self.edge(lost)
        if begin >= self.top:
            return self.acknowledge(self.top)
        if self.has_sack:
            self.send(sack=[(begin, self.top)])
        else:
            for _ in range((self.top - begin + self.smss - 1) // self.smss):
                self.send()


# -- the schedule --------------------------------------------------------------


def draw_steps(rng):
    steps = []
    for _ in range(rng.randrange(3, 8)):
        kind = rng.choices(["ack", "all", "hole", "window", "zero window",
                            "old ACK", "future ACK", "RST outside", "SYN",
                            "D-SACK"], [6, 5, 4, 3, 2, 2, 2, 2, 1, 2])[0]
        n = rng.choice([1, 2, 3, 5])
        if kind in CHALLENGED or kind == "D-SACK":
            # Not two in a row without progress: the loss probe would be due.
            steps.append(("all", lambda p: p.acknowledge(p.top)))
        if kind == "ack":
            steps.append((f"ack {n}", lambda p, n=n: p.acknowledge(p.edge(n))))
        elif kind == "all":
            steps.append((kind, lambda p: p.acknowledge(p.top)))
        elif kind == "hole":
            lost = rng.choice([1, 1, 2])
            steps.append((f"hole {lost}", lambda p, n=lost: p.hole(n)))
            steps.append(("repaired", lambda p: p.acknowledge(p.top)))
        elif kind == "window":
            steps.append((f"window {n}", lambda p, n=n: (
                setattr(p, "wnd", n * p.smss), p.acknowledge(p.top))))
            steps.append(("window again", lambda p: (
                setattr(p, "wnd", 65535), p.send())))
        elif kind == "zero window":
            steps.append((kind, lambda p: (
                setattr(p, "wnd", 0 if p.has_more() else 65535),
                p.acknowledge(p.top))))
            steps.append(("window again", lambda p: (
                setattr(p, "wnd", 65535), p.send())))
        elif kind == "old ACK":
            steps.append((kind, lambda p: p.send(ack=p.una - 1)))
        elif kind == "future ACK":
            steps.append((kind, lambda p: p.send(ack=p.top + 100_000)))
        elif kind == "RST outside":
            steps.append((kind, lambda p: p.send(flags=RST, seq=p.nxt - 10)))
        elif kind == "SYN":
            steps.append((kind, lambda p: p.send(flags=SYN, seq=p.nxt + 10)))
        elif kind == "D-SACK":
            steps.append((kind, lambda p: p.has_sack and p.una > p.smss and
                          p.send(sack=[(p.una - p.smss, p.una)])))
    return steps


OPENINGS = {
    "plain": [],
    "simultaneous": [("SYN", lambda p: p.send(SYN, seq=0,
                                              options=p.plan["options"]))],
    "an ACK of nothing sent": [
        ("wrong ACK", lambda p: p.send(ACK, seq=0, ack=77)),
        ("wrong SYN-ACK", lambda p: p.send(SYN | ACK, seq=0, ack=77))],
    "RST without ACK": [("RST", lambda p: p.send(RST, seq=0))],
    "refused": [("RST", lambda p: p.send(RST | ACK, seq=0, ack=1))],
}


def schedule(seed):
    rng = random.Random(seed)
    mss, has_sack = rng.choice([536, 1000, 1400]), rng.random() < 0.7
    options = struct.pack(">BBH", 2, 4, mss)
    if has_sack:
        options += b"\4\2"
    return {"isn": rng.choice([rng.getrandbits(32), MASK - 2000]),
            "mss": mss, "sack": has_sack, "options": options,
            "text": bytes(rng.getrandbits(8) for _ in range(
                rng.randrange(11, 24) * mss + rng.choice([0, 1, 500]))),
            "opening": rng.choices(list(OPENINGS), [8, 2, 2, 1, 1])[0],
            "steps": draw_steps(rng),
            "ending": rng.choice(["FIN", "FIN at once", "RST", "crossing"])}


def await_syn(peer):
    deadline = time.monotonic() + PATIENCE_S
    while peer.their_isn is None:
        if time.monotonic() > deadline:
            raise RuntimeError(f"{peer.host.name}: no SYN")
        peer.settle()
    syn = peer.seen[-1]
    peer.seen.clear()
    return {"flags": syn.flags, "options": sorted(syn.options)}


def play(host, plan, port):
    host.connect(port, plan["text"])
    peer = Peer(host, port, plan)
    results = [("opens", await_syn(peer))]
    for name, step in OPENINGS[plan["opening"]]:
        step(peer)
        peer.settle()
        # But SYNs that come again: Linux's does at once after a reset.
        answers = [(s.flags, (s.ack - peer.isn) & MASK if s.flags & ACK else 0,
                    (s.seq - peer.their_isn) & MASK) for s in peer.seen
                   if s.flags != SYN]
        peer.seen.clear()
        results.append((name, {"answers": answers}))
    if plan["opening"] == "refused":
        results.append(("refused", {"failed": host.has_failed()}))
        return results, host.finish()
    time.sleep(HANDSHAKE_S)
    if plan["opening"] == "simultaneous":
        peer.send(seq=1)
    else:
        peer.send(SYN | ACK, seq=0, ack=1, options=plan["options"])
    # Where the application is slow to begin, wait for it.
    deadline = time.monotonic() + PATIENCE_S
    while not any(s.length for s in peer.seen):
        if time.monotonic() > deadline:
            raise RuntimeError(f"{host.name}: no text")
        peer.settle()
    results.append(("the first flight", peer.result()))
    for name, step in plan["steps"]:
        step(peer)
        results.append((name, peer.result()))
        if peer.their_fin is not None:
            break  # What comes now, timers decide.
    return results + finish(peer, plan), host.finish()


def finish(peer, plan):
    results = []
    if plan["ending"] == "RST":
        peer.send(RST, seq=peer.nxt)
        return [("RST", {"failed": peer.host.has_failed()})]
    end = 1 + len(plan["text"])
    for i in range(100):
        if peer.their_fin is not None:
            break
        peer.acknowledge(peer.top)
        results.append((f"the rest {i}", peer.result()))
    if plan["ending"] == "FIN at once":
        peer.una = end + 1
    peer.send(FIN | ACK)  # Crossing theirs, or acknowledging it.
    peer.nxt += 1
    result = peer.result()
    results.append(("FIN", result))
    if plan["ending"] != "FIN at once":
        peer.una = end + 1
        peer.send()
        results.append(("the last ACK", peer.result()))
    return results


# -- all of it -----------------------------------------------------------------

failures = 0


def report(ok, what):
    global failures
    failures += not ok
    print(f"{'PASS' if ok else 'FAIL'}: {what}", flush=True)


def difference(linux, ours):
    is_challenged = False
    for (step, a), (_, b) in zip(linux, ours):
        keys = [k for k in sorted({*a, *b}) if a.get(k) != b.get(k) and
                not (k == "bare" and is_challenged and step in CHALLENGED)]
        is_challenged |= step in CHALLENGED
        if keys:  # What follows, follows from it.
            return f"after '{step}': " + ", ".join(
                f"{k}: Linux {a.get(k)}, ours {b.get(k)}" for k in keys)
    return None if len(linux) == len(ours) else "one of them ended sooner"


def compare(seed, hosts, verbose):
    plan = schedule(seed)
    port = 20_000 + seed % 40_000
    for attempt in range(ATTEMPTS):
        linux, ours = (play(host, plan, port)[0] for host in hosts)
        found = difference(linux, ours)
        if verbose:
            for (step, a), (_, b) in zip(linux, ours):
                print(f"  {step}\n    Linux {a}\n    ours  {b}")
        if not found:
            break
        port += 1
    report(not found, f"seed {seed}: opening {plan['opening']}, mss "
           f"{plan['mss']}, {len(linux)} steps, {plan['ending']}" +
           (f": {found}" if found else ""))


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("dwcat")
    parser.add_argument("libsoftnic")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--seeds", type=int, default=200 if os.environ.get(
        "DEVWIRE_LONG") else 20)
    parser.add_argument("--verbose", action="store_true")
    args = parser.parse_args()
    if not os.path.exists("/dev/net/tun"):
        print("SKIP: no /dev/net/tun")
        return 0
    run("sysctl -qw net.ipv6.conf.all.disable_ipv6=1 "
        "net.ipv6.conf.default.disable_ipv6=1 "
        "net.ipv4.tcp_no_metrics_save=1")
    with tempfile.TemporaryDirectory() as folder:
        hosts = [Linux(), Ours(pathlib.Path(folder), os.path.abspath(args.dwcat),
                               os.path.abspath(args.libsoftnic))]
        for seed in range(args.seed, args.seed + args.seeds):
            try:
                compare(seed, hosts, args.verbose)
            except (RuntimeError, OSError) as error:
                hosts[1].stop()
                report(False, f"seed {seed}: {error!r}")
    return 1 if failures else 0


if __name__ == "__main__":
    if os.environ.get("DEVWIRE_INSIDE") != "1":
        os.environ["DEVWIRE_INSIDE"] = "1"
        os.execvp("unshare", ["unshare", "-Urn", sys.executable, *sys.argv])
    sys.exit(main())
