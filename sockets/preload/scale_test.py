#!/usr/bin/env python3
"""Many connections in one process on Devwire, with Linux as the peer.

  scale_test.py DEVWIRE_RUN LIBDEVWIRE_PRELOAD LIBSOFTNIC

10,000 at a time (fewer where RLIMIT_NOFILE says so), half of them made and half
accepted, whose peers are told within a second when the process is killed; and connections that come and go
one after another without a leak: 20,000, with DEVWIRE_LONG 100,000.
"""

import os
import resource
import selectors
import socket
import subprocess
import sys
import time

from shim_fixture import LINUX, OURS, main, report, wait_for

LONG = os.environ.get("DEVWIRE_LONG") == "1"
WANTED = 10_000
CYCLES = 100_000 if LONG else 20_000
PORT, OUR_PORT = 7000, 80
MESSAGE_BYTES = 100
# A taken socket has three.
DESCRIPTORS = 3 * WANTED + 200

# -- ten thousand at a time ---------------------------------------------------

# Answers what comes, on every connection, with the same bytes.
ECHO = f"""
import selectors, socket, sys
chosen = selectors.EpollSelector()
def follow(s):
    s.setblocking(False)
    chosen.register(s, selectors.EVENT_READ)
listener = socket.create_server(("{OURS}", {OUR_PORT}), backlog=4096)
follow(listener)
for _ in range(int(sys.argv[1])):
    follow(socket.create_connection(("{LINUX}", {PORT})))
print("connected", flush=True)
while True:
    for key, _ in chosen.select():
        if key.fileobj is listener:
            follow(listener.accept()[0])
        elif data := key.fileobj.recv(65536):
            key.fileobj.sendall(data)
        else:
            chosen.unregister(key.fileobj)
            key.fileobj.close()
"""


def message(i):
    return f"{i:0{MESSAGE_BYTES}}".encode()


class Peers:
    """Linux's ends of all of them, each with its own message to and fro."""

    def __init__(self, sockets):
        self.chosen = selectors.EpollSelector()
        self.got = [b""] * len(sockets)
        self.ended = {}  # By index: how.
        self.sockets = sockets
        for i, s in enumerate(sockets):
            s.setblocking(False)
            self.chosen.register(s, selectors.EVENT_READ, i)
            s.sendall(message(i))

    def turn(self, again):
        """What has come; with `again` every answer is sent once more."""
        for key, _ in self.chosen.select(0.1):
            i = key.data
            try:
                data = key.fileobj.recv(65536)
                self.got[i] += data
                if not data:
                    self.ended[i] = "end"
                elif again:
                    key.fileobj.sendall(data)
            except OSError as e:
                self.ended[i] = type(e).__name__
            if i in self.ended:
                self.chosen.unregister(key.fileobj)
        return len(self.ended)

    def all_answered(self):
        self.turn(again=False)
        return all(len(got) >= MESSAGE_BYTES for got in self.got)


def many_at_a_time(shim, count):
    half = count // 2
    with socket.create_server((LINUX, PORT), backlog=4096) as listener:
        victim = subprocess.Popen(
            shim.command(sys.executable, "-c", ECHO, half), env=shim.env,
            stdout=subprocess.PIPE, text=True)
        sockets = [listener.accept()[0] for _ in range(half)]
        victim.stdout.readline()
    sockets += [socket.create_connection((OURS, OUR_PORT))
                for _ in range(half)]
    peers = Peers(sockets)
    wait_for(peers.all_answered, seconds=60)
    wrong = sum(got != message(i) for i, got in enumerate(peers.got))
    report(wrong == 0, f"{2 * half} connections at a time: each has its answer",
           f"{wrong} have not")

    for i, s in enumerate(sockets):
        s.sendall(message(i))
    until = time.monotonic() + 0.5
    while time.monotonic() < until:  # Under load.
        peers.turn(again=True)
    before = len(peers.ended)
    victim.kill()
    killed = time.monotonic()
    wait_for(lambda: peers.turn(again=True) == len(sockets), seconds=10)
    took = time.monotonic() - killed
    how = sorted(set(peers.ended.values()))
    print(f"the last of {len(peers.ended)} resets came {took:.2f} s after the "
          "signal", flush=True)
    report(before == 0 and len(peers.ended) == len(sockets) and
           how == ["ConnectionResetError"] and took < 1,
           "kill -9: all of their peers are reset within a second",
           f"{before} before, {len(peers.ended)} in {took:.2f} s, {how}")
    victim.wait()
    for s in sockets:
        s.close()


# -- one after another --------------------------------------------------------

# Makes them, or accepts them; by turns the one end closes first or the other.
# Its last line: descriptors and bytes of the heap in use, half way and at the
# end.
CYCLE = f"""
import ctypes, os, socket, sys
role, count = sys.argv[1], int(sys.argv[2])
class MallInfo(ctypes.Structure):  # mallinfo(3)
    _fields_ = [(name, ctypes.c_size_t) for name in (
        "arena", "ordblks", "smblks", "hblks", "hblkhd", "usmblks", "fsmblks",
        "uordblks", "fordblks", "keepcost")]
mallinfo2 = ctypes.CDLL(None).mallinfo2
mallinfo2.restype = MallInfo
def look():
    heap = mallinfo2()
    return [len(os.listdir("/proc/self/fd")), heap.uordblks + heap.hblkhd]
def exchange(s, i):
    s.sendall(b"x" * 3000)
    left = 3000
    while left:
        left -= len(s.recv(left))
    if i % 2:
        assert s.recv(1) == b""
    s.close()
if role == "accepts":
    listener = socket.create_server(("{OURS}", {OUR_PORT}))
    print("listens", flush=True)
for i in range(count):
    if i == count // 2:
        early = look()
    if role == "connects":
        exchange(socket.create_connection(("{LINUX}", {PORT})), i)
    else:
        exchange(listener.accept()[0], i)
print(*early, *look(), flush=True)
"""


def answer(s, i):
    """The other end of exchange()."""
    with s:
        s.sendall(b"y" * 3000)
        left = 3000
        while left:
            left -= len(s.recv(left))
        if i % 2 == 0:
            assert s.recv(1) == b""


def cycles(shim, role):
    count = CYCLES // 2
    started = time.monotonic()
    with socket.create_server((LINUX, PORT)) as listener:
        victim = subprocess.Popen(
            shim.command(sys.executable, "-c", CYCLE, role, count),
            env=shim.env, stdout=subprocess.PIPE, text=True)
        if role == "accepts":
            victim.stdout.readline()
        for i in range(count):
            answer(listener.accept()[0] if role == "connects" else
                   socket.create_connection((OURS, OUR_PORT)), i)
        said = victim.stdout.readline().split()
        victim.wait()
    took = time.monotonic() - started
    fds, heap, fds_then, heap_then = map(int, said)
    print(f"{count} connections that it {role}: {took:.1f} s, descriptors "
          f"{fds} to {fds_then}, heap {heap} to {heap_then} bytes", flush=True)
    # A stream more may be there by chance, which has about 100 KiB.
    report(fds == fds_then and heap_then - heap < (128 << 10) + 2 * count,
           f"{count} connections, one after another, that it {role}: no leak",
           " ".join(said))
    taken = shim.next_report("python3")["taken"]
    expected = count + (role == "accepts")
    report(taken == expected, f"{expected} sockets were taken", str(taken))


def test(shim, _):
    subprocess.run(["sysctl", "-qw", "net.core.somaxconn=4096"], check=True)
    # Little memory: slots that leak are soon missing.
    shim.env.update(DEVWIRE_MEMORY_HOST_RECEIVE_BYTES=str(1 << 20),
                    DEVWIRE_MEMORY_HOST_SEND_BYTES=str(1 << 20),
                    DEVWIRE_STACK_MAX_CONNECTIONS="256",
                    DEVWIRE_STACK_MAX_HALF_OPEN="64")
    for role in "connects", "accepts":
        cycles(shim, role)
    may_have = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
    count = min(WANTED, (may_have - 200) // 3)
    if count < WANTED:
        print(f"SKIP: {WANTED} connections at a time need {DESCRIPTORS} "
              f"descriptors, RLIMIT_NOFILE is {may_have}: {count} are tried",
              flush=True)
    for name in [n for n in shim.env if n.startswith("DEVWIRE_MEMORY_")]:
        del shim.env[name]
    shim.env["DEVWIRE_STACK_MAX_CONNECTIONS"] = str(count + 100)
    # All of them may have an answer on its way, which takes 16 KiB.
    shim.env["DEVWIRE_MEMORY_HOST_SEND_BYTES"] = str((count + 100) << 14)
    many_at_a_time(shim, count)


def main_with_descriptors():
    """Asks for them before the namespace is made: there nobody may raise a hard
    limit."""
    try:
        resource.setrlimit(resource.RLIMIT_NOFILE, (DESCRIPTORS, DESCRIPTORS))
    except ValueError:
        pass
    return main(test)


if __name__ == "__main__":
    sys.exit(main_with_descriptors())
