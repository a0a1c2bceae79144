#!/usr/bin/env python3
"""When a process ends without a word, its peers are told.

  guardian_test.py DEVWIRE_RUN LIBDEVWIRE_PRELOAD LIBSOFTNIC

Linux is the peer; every way a process can end, with connections that it made
and that it accepted, busy ones and idle ones.
"""

import fcntl
import os
import signal
import socket
import struct
import subprocess
import sys
import threading
import time

from shim_fixture import LINUX, MIB, OURS, main, report, wait_for

PORT, BUSY, IDLE, ACCEPTED = 7000, 6, 6, 4

# Opens all of them, says so, and then does what its first word says.
VICTIM = f"""
import os, socket, sys, threading, time
def send(s):
    while True:
        s.sendall(b"x" * 65536)
listener = socket.create_server(("{OURS}", 80))
calls = [socket.create_connection(("{LINUX}", {PORT}))
         for _ in range({BUSY + IDLE})]
accepted = [listener.accept() for _ in range({ACCEPTED})]
for s in calls[:{BUSY}]:
    threading.Thread(target=send, args=(s,), daemon=True).start()
print("ready", flush=True)
time.sleep(0.3)
end = sys.argv[1]
if end == "exec":
    os.execvp("sleep", ["sleep", "5"])
elif end == "abort":
    os.abort()
time.sleep(60)
"""


class Peer:
    """A connection at Linux's end: reads, and notes when and how it ended."""

    def __init__(self, s):
        self.socket, self.bytes, self.error, self.time = s, 0, None, None
        self.thread = threading.Thread(target=self.read, daemon=True)
        self.thread.start()

    def read(self):
        try:
            while data := self.socket.recv(1 << 16):
                self.bytes += len(data)
        except OSError as e:
            self.error = type(e).__name__
        self.time = time.monotonic()


def start(shim, end):
    """The victim, ready, and its peers."""
    with socket.create_server((LINUX, PORT)) as listener:
        listener.settimeout(20)
        victim = subprocess.Popen(
            shim.command(sys.executable, "-c", VICTIM, end), env=shim.env,
            stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
        peers = [Peer(listener.accept()[0]) for _ in range(BUSY + IDLE)]
        for _ in range(ACCEPTED):
            peers.append(Peer(socket.create_connection((OURS, 80))))
        victim.stdout.readline()
    return victim, peers


def all_are_reset(peers, since, what, limit):
    for peer in peers:
        peer.thread.join(10)
    ends = sorted(f"{p.error} after {p.time - since:.2f} s" if p.time else
                  "nothing" for p in peers)
    report(all(p.error == "ConnectionResetError" and p.time - since < limit
               for p in peers), what, str(ends))


def ends(shim):
    for end, kill, name in (
            ("wait", signal.SIGKILL, "kill -9"),
            ("wait", signal.SIGTERM, "SIGTERM without a handler"),
            ("abort", None, "abort")):
        victim, peers = start(shim, end)
        if kill is not None:
            time.sleep(0.2)
            os.kill(victim.pid, kill)
        victim.wait()
        dead = time.monotonic()
        all_are_reset(peers, dead, f"{name}: peers see resets within a second",
                      limit=1)
        moved = sum(p.bytes for p in peers)
        said = shim.next_report("python3")
        # What it had posted in its last turn is missing.
        report(moved > 0 and said["engine_bytes_out"] >= 0.9 * moved - MIB and
               said["taken"] == 1 + BUSY + IDLE + ACCEPTED and
               said["end"] == "death", f"{name}: the guardian reports", f"{moved} bytes, {said}")


def execs(shim):
    victim, peers = start(shim, "exec")
    wait_for(lambda: "sleep" in open(f"/proc/{victim.pid}/comm").read())
    all_are_reset(peers, time.monotonic(),
                  "exec with connections open: peers see resets", limit=3)
    victim.kill()
    victim.wait()


def who_ends_well_has_nothing_to_reset(shim):
    """The next process gets the device at once, and the peer an end."""
    script = (f"import socket\ns = socket.create_connection(('{LINUX}', {PORT}))"
              "\ns.sendall(b'bye')\n")
    for _ in range(3):
        with socket.create_server((LINUX, PORT)) as listener:
            victim = shim.start(sys.executable, "-c", script)
            peer = Peer(listener.accept()[0])
            victim.wait()
            peer.thread.join(10)
        report(peer.bytes == 3 and peer.error is None,
               "exit: the peer sees the end", peer.error)


TAIL = f"""
import os, socket, struct, sys
end, with_close = sys.argv[1:]
s = socket.create_connection(("{LINUX}", {PORT}))
if end != "stuck":
    s.sendall(b"x" * {4 * MIB})
else:  # Until the peer's window is shut, and our queue full.
    s.settimeout(0.3)
    while True:
        try:
            s.send(b"x" * {MIB})
        except TimeoutError:
            break
if with_close == "close":
    s.close()
if end == "_exit":
    os._exit(0)
"""


def what_was_queued_arrives(shim):
    """A process that ends with more queued than the peer's window holds."""
    for end in "exit", "_exit":
        for with_close in "close", "open":
            with socket.create_server((LINUX, PORT)) as listener:
                victim = shim.start(sys.executable, "-c", TAIL, end, with_close)
                peer = listener.accept()[0]
                time.sleep(0.5)
                peer = Peer(peer)
                victim.wait()
                peer.thread.join(10)
            report((peer.bytes, peer.error) == (4 * MIB, None),
                   f"{end} with the socket {with_close}: all of it arrives",
                   f"{peer.bytes} bytes, {peer.error}")


def a_peer_that_takes_nothing(shim):
    with socket.create_server((LINUX, PORT)) as listener:
        began = time.monotonic()
        victim = shim.start(sys.executable, "-c", TAIL, "stuck", "close")
        peer = listener.accept()[0]
        victim.wait()
        took = time.monotonic() - began
        said = victim.log.read_text()
        peer = Peer(peer)
        peer.thread.join(10)
    report(2.9 < took < 8 and "bytes, none for 3 s: they are lost" in said and
           peer.error == "ConnectionResetError",
           "a peer that takes nothing for 3 s is reset, and it is said",
           f"{took:.1f} s, {peer.error}, {said[-300:]}")


# A connection that nobody accepts, and one that was closed before all of it
# was sent: neither has a descriptor when the process dies.
HIDDEN = f"""
import os, signal, socket, time
listener = socket.create_server(("{OURS}", 80))
s = socket.create_connection(("{LINUX}", {PORT}))
s.settimeout(0.3)  # The peer's window is shut then, and our queue full.
try:
    while True:
        s.send(b"x" * {MIB})
except TimeoutError:
    s.close()
print("ready", flush=True)
time.sleep(60)
"""


def connections_without_a_descriptor(shim):
    with socket.create_server((LINUX, PORT)) as listener:
        victim = subprocess.Popen(
            shim.command(sys.executable, "-c", HIDDEN), env=shim.env,
            stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
        full = listener.accept()[0]
        victim.stdout.readline()
        waiting = Peer(socket.create_connection((OURS, 80)))
        time.sleep(0.1)
        victim.kill()
        victim.wait()
        dead = time.monotonic()
        all_are_reset([Peer(full), waiting], dead,
                      "closed or not accepted, at kill -9: peers see resets",
                      limit=1)


def the_program_does_not_see_it(shim):
    script = (
        "import os, signal, socket\n"
        "seen = []\n"
        "signal.signal(signal.SIGCHLD, lambda *a: seen.append('SIGCHLD'))\n"
        f"listener = socket.create_server(('{OURS}', 80))\n"
        "try:\n"
        "    seen.append(os.wait())\n"
        "except ChildProcessError:\n"
        "    pass\n"
        "assert not seen, seen\n")
    result = shim.run(sys.executable, "-c", script)
    report(result.returncode == 0, "the guardian is nobody's child here",
           result.stderr[-300:])


def a_device_that_its_last_owner_still_holds(shim):
    """A process that dies gives its TAP back late: who comes next waits."""
    IFF_TAP, IFF_NO_PI, IFF_VNET_HDR, TUNSETIFF = 2, 0x1000, 0x4000, 0x400454ca
    owner = os.open("/dev/net/tun", os.O_RDWR)
    fcntl.ioctl(owner, TUNSETIFF, struct.pack(
        "16sH22x", b"t0", IFF_TAP | IFF_NO_PI | IFF_VNET_HDR))
    threading.Timer(0.5, os.close, [owner]).start()
    result = shim.run(
        sys.executable, "-c",
        f"import socket; socket.create_server(('{OURS}', 80))")
    report(result.returncode == 0, "a device that is still held: it waits",
           result.stderr[-300:])


def without(shim):
    script = f"import socket; socket.create_server(('{OURS}', 80))"
    shim.env["DEVWIRE_GUARDIAN"] = "/nonesuch"
    result = shim.run(sys.executable, "-c", script)
    report("cannot start /nonesuch: No such file" in result.stderr and
           result.returncode == 0, "no guardian: a warning, and it runs",
           result.stderr[-300:])
    shim.env["DEVWIRE_STACK_GUARDIAN"] = "false"
    result = shim.run(sys.executable, "-c", script)
    report(result.stderr == "", "none wanted: no word", result.stderr[-300:])
    del shim.env["DEVWIRE_GUARDIAN"], shim.env["DEVWIRE_STACK_GUARDIAN"]


def test(shim, _):
    ends(shim)
    execs(shim)
    who_ends_well_has_nothing_to_reset(shim)
    what_was_queued_arrives(shim)
    a_peer_that_takes_nothing(shim)
    connections_without_a_descriptor(shim)
    the_program_does_not_see_it(shim)
    a_device_that_its_last_owner_still_holds(shim)
    without(shim)


if __name__ == "__main__":
    sys.exit(main(test))
