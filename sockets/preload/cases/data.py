"""Cases: bytes to and from a socket."""

import ctypes
import fcntl
import os
import select
import signal
import socket
import tempfile
import threading
import time

from harness import (BAD_POINTER, NOT_OURS, PEER, PORT, c, case, events, fill,
                     listener, outcome, peer, receive_all, tcp, timeval, wait_for,
                     wait_readable)

DONTWAIT, WAITALL, PEEK, TRUNC, MORE, OOB, NOSIGNAL = (
    socket.MSG_DONTWAIT, socket.MSG_WAITALL, socket.MSG_PEEK, socket.MSG_TRUNC,
    socket.MSG_MORE, socket.MSG_OOB, socket.MSG_NOSIGNAL)


def echoed(data, what="echo"):
    """A socket into which these bytes have come back."""
    s = peer(what)
    s.sendall(data)
    wait_readable(s, len(data))
    return s


@case("write", "read", "send", "recv", "sendto", "recvfrom")
def echo():
    s = peer("echo")
    s.sendall(b"x")
    yield receive_all(s, 1)
    data = os.urandom(1 << 20)
    for start in range(0, len(data), 1 << 16):
        s.sendall(data[start:start + (1 << 16)])
    yield receive_all(s, len(data)) == data
    yield s.sendto(b"where?", (NOT_OURS, 1))  # Ignored.
    yield receive_all(s, 6), s.sendto(b"x", (NOT_OURS, 1))
    yield s.recvfrom(1)[0]
    s.sendall(b"q")
    size = ctypes.c_uint(16)
    name = ctypes.create_string_buffer(16)
    data = ctypes.create_string_buffer(4)
    yield c("recvfrom", s.fileno(), data, 4, 0, name, ctypes.byref(size))
    yield size.value, name.raw[:2]


@case("recv", "SO_RCVTIMEO", "SO_SNDTIMEO")
def timeouts():
    s = peer("silent")
    s.settimeout(0.05)
    yield outcome(s.recv, 1)
    s.settimeout(None)
    s.setsockopt(socket.SOL_SOCKET, socket.SO_RCVTIMEO, timeval(0.05))
    start = time.monotonic()
    yield outcome(s.recv, 1), 0.04 < time.monotonic() - start < 2
    s = peer("deaf")
    fill(s)
    s.setsockopt(socket.SOL_SOCKET, socket.SO_SNDTIMEO, timeval(0.05))
    while isinstance(result := outcome(s.send, bytes(1 << 16)), int):
        pass
    yield result, outcome(s.send, b"x", DONTWAIT)


@case("MSG_PEEK", "ioctl")
def peeking():
    s = echoed(b"0123456789")
    yield s.recv(4, PEEK), s.recv(100, PEEK)
    yield wait_readable(s, 10), events(s)
    yield s.recv(3), s.recv(3, PEEK), s.recv(100)
    yield events(s), outcome(s.recv, 1, PEEK | DONTWAIT)
    s.sendall(b"ab")
    yield s.recv(5, PEEK), s.recv(1), s.recv(5, PEEK), s.recv(1)
    s.sendall(b"12")
    s.recv(1, PEEK)
    s.sendall(b"34")
    yield s.recv(4, PEEK | WAITALL), s.recv(4, WAITALL)
    s = peer("fin")
    events(s, 20000, select.POLLRDHUP)
    yield s.recv(100, PEEK), s.recv(100), s.recv(1, PEEK), s.recv(1)


@case("MSG_PEEK", "close", "SO_LINGER")
def peeked_and_closed():
    s, watcher = peer("report"), peer("reports")
    s.close()
    yield receive_all(watcher, 5)
    s = peer("report then")
    watcher = peer("reports")
    yield s.recv(100, PEEK)
    s.close()  # Unread: the peer gets a reset.
    yield receive_all(watcher, 5)


@case("MSG_WAITALL", "MSG_DONTWAIT")
def all_or_nothing():
    s = peer("echo")
    s.sendall(b"abc")
    timer = threading.Timer(0.1, s.sendall, [b"def"])
    timer.start()
    yield s.recv(6, WAITALL)
    timer.join()
    yield outcome(s.recv, 1, DONTWAIT)
    s.sendall(b"xyz")
    wait_readable(s, 3)
    yield s.recv(6, WAITALL | DONTWAIT)
    s.setsockopt(socket.SOL_SOCKET, socket.SO_RCVTIMEO, timeval(0.1))
    s.sendall(b"12")
    yield s.recv(6, WAITALL), outcome(s.recv, 6, WAITALL)
    s = peer("fin")
    yield s.recv(100, WAITALL), s.recv(1, WAITALL)


@case("MSG_TRUNC", "MSG_PEEK")
def discarding():
    s = echoed(b"0123456789")
    yield c("recv", s.fileno(), None, 4, TRUNC)
    yield c("recv", s.fileno(), None, 2, TRUNC | PEEK)
    yield s.recv(100)
    s.sendall(b"abcdef")
    wait_readable(s, 6)
    data = ctypes.create_string_buffer(b"....")
    yield c("recv", s.fileno(), data, 3, TRUNC), data.value, s.recv(9)


@case("MSG_MORE", "TCP_CORK", "TCP_NODELAY")
def more():
    s = peer("echo")
    yield s.send(b"one ", MORE), s.send(b"two ", MORE), s.send(b"three")
    yield receive_all(s, 13)
    yield s.send(b"held", MORE), receive_all(s, 4)  # 200 ms at most.
    s.setsockopt(socket.IPPROTO_TCP, socket.TCP_CORK, 1)
    s.sendall(b"corked")
    s.setsockopt(socket.IPPROTO_TCP, socket.TCP_CORK, 0)
    yield receive_all(s, 6)


@case("MSG_OOB", "SO_OOBINLINE", "ioctl")
def urgent():
    s = peer("urgent")
    yield outcome(s.recv, 1, OOB)
    s.sendall(b"g")
    wait_readable(s, 2)
    yield wait_for(lambda: outcome(s.recv, 1, OOB | PEEK) == 1)
    yield s.recv(1, OOB), outcome(s.recv, 1, OOB)
    yield at_mark(s), s.recv(100), at_mark(s)
    yield receive_all(s, 2), at_mark(s)
    s = peer("urgent")
    s.setsockopt(socket.SOL_SOCKET, socket.SO_OOBINLINE, 1)
    s.sendall(b"g")
    wait_readable(s, 5)
    yield outcome(s.recv, 1, OOB), s.recv(100), at_mark(s)
    yield s.recv(100), outcome(s.recv, 1, OOB)
    s = peer("urgent")
    s.sendall(b"g")
    wait_readable(s, 2)
    wait_for(lambda: outcome(s.recv, 1, OOB | PEEK) == 1)
    yield receive_all(s, 4)  # Without it.
    yield outcome(s.recv, 1, OOB)
    yield outcome(tcp().recv, 1, OOB)


def at_mark(s):
    value = ctypes.c_int(7)
    c("ioctl", s.fileno(), 0x8905, ctypes.byref(value))
    return value.value


@case("MSG_OOB")
def sending_urgent():
    s = peer("mark")
    yield s.send(b"xyz"), s.send(b"!", OOB), s.send(b"end")
    yield receive_all(s, 9)


@case("MSG_NOSIGNAL", "write", "send", "sendto", "writev", "sendmsg",
      "sendfile")
def broken_pipes():
    s = peer("echo")
    s.shutdown(socket.SHUT_WR)
    seen = []
    old = signal.signal(signal.SIGPIPE, lambda *_: seen.append(1))
    yield outcome(s.send, b"x", NOSIGNAL), len(seen)
    yield outcome(s.send, b"x"), len(seen)
    yield outcome(os.write, s.fileno(), b"x"), len(seen)
    yield outcome(os.writev, s.fileno(), [b"x"]), len(seen)
    yield outcome(s.sendmsg, [b"x"]), len(seen)
    yield outcome(s.sendto, b"x", NOSIGNAL, (NOT_OURS, 1)), len(seen)
    with tempfile.TemporaryFile() as f:
        f.write(b"data")
        yield outcome(os.sendfile, s.fileno(), f.fileno(), 0, 4), len(seen)
    yield outcome(tcp().send, b"x"), len(seen)
    signal.signal(signal.SIGPIPE, old)


@case("read", "recv", "write", "send", "readv", "writev")
def nothing_at_all():
    s = peer("echo")
    fd = s.fileno()
    yield c("read", fd, None, 0), c("write", fd, None, 0), s.send(b"")
    yield c("recv", fd, None, 0, DONTWAIT)
    yield os.readv(fd, []), os.writev(fd, [])
    s.sendall(b"x")
    wait_readable(s, 1)
    yield c("recv", fd, None, 0, 0), c("recv", fd, None, 0, DONTWAIT), s.recv(1)
    yield outcome(os.writev, fd, [b"", b""])
    empty = tcp()
    yield c("read", empty.fileno(), None, 0)
    yield c("write", empty.fileno(), None, 0)
    a = listener()
    yield c("read", a.fileno(), None, 0), c("write", a.fileno(), None, 0)
    yield outcome(a.recv, 1), outcome(a.send, b"x")


class Iovec(ctypes.Structure):
    _fields_ = [("base", ctypes.c_void_p), ("size", ctypes.c_size_t)]


@case("readv", "writev", "preadv2", "pwritev2")
def vectors():
    s = peer("echo")
    fd = s.fileno()
    yield os.writev(fd, [b"one ", b"", b"two"])
    parts = [bytearray(4), bytearray(3)]
    yield os.readv(fd, parts), bytes(parts[0]), bytes(parts[1])
    many = (Iovec * 1025)()
    yield c("readv", fd, many, 1025), c("writev", fd, many, 1025)
    yield c("readv", fd, many, -1), c("writev", fd, many, -1)
    yield c("writev", fd, many, 1024)
    two = (Iovec * 2)(Iovec(None, 1 << 63), Iovec(None, 1))
    yield c("readv", fd, two, 2), c("writev", fd, two, 2)
    yield c("readv", fd, BAD_POINTER, 1), c("writev", fd, BAD_POINTER, 1)
    s.sendall(b"v2")
    buffer = ctypes.create_string_buffer(4)
    one = Iovec(ctypes.addressof(buffer), 2)
    at_end = ctypes.c_long(-1)
    yield c("preadv2", fd, ctypes.byref(one), 1, at_end, 0), buffer.value
    yield c("pwritev2", fd, ctypes.byref(one), 1, at_end, 0), receive_all(s, 2)
    yield c("preadv2", fd, ctypes.byref(one), 1, ctypes.c_long(0), 0)
    yield c("pwritev2", fd, ctypes.byref(one), 1, ctypes.c_long(5), 0)
    yield c("preadv2", fd, ctypes.byref(one), 1, ctypes.c_long(-2), 0)


@case("read", "write", "recv", "send", "recvfrom", "sendto")
def bad_pointers():
    s = peer("echo")
    fd = s.fileno()
    yield c("write", fd, BAD_POINTER, 4), c("send", fd, BAD_POINTER, 4, 0)
    yield c("sendto", fd, BAD_POINTER, 4, 0, None, 0)
    s.sendall(b"four")
    wait_readable(s, 4)
    yield c("read", fd, BAD_POINTER, 4), c("recv", fd, BAD_POINTER, 4, 0)
    yield c("recvfrom", fd, BAD_POINTER, 4, 0, None, None)
    yield s.recv(100)
    yield c("read", 999, None, 1), c("write", 999, None, 1)


@case("SO_RCVLOWAT", "recv", "poll")
def low_water():
    s = peer("echo")
    s.setsockopt(socket.SOL_SOCKET, socket.SO_RCVLOWAT, 5)
    s.sendall(b"abc")
    wait_readable(s, 3)
    yield events(s), outcome(s.recv, 9, DONTWAIT)
    timer = threading.Timer(0.1, s.sendall, [b"defgh"])
    timer.start()
    yield s.recv(100)
    timer.join()
    s.sendall(b"12345")
    yield events(s, 20000, select.POLLIN), s.recv(100)
    s.sendall(b"12")
    wait_readable(s, 2)
    yield events(s)
    s.setsockopt(socket.SOL_SOCKET, socket.SO_RCVLOWAT, 1)
    yield events(s), s.recv(2)


def interrupted(f, restarts, timeout=None):
    """What a blocking call does when a signal comes."""
    old = signal.signal(signal.SIGALRM, lambda *_: None)
    signal.siginterrupt(signal.SIGALRM, not restarts)
    signal.setitimer(signal.ITIMER_REAL, 0.1)
    try:
        return f()
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, old)


@case("read", "recv", "accept", "connect", "send")
def signals():
    data = ctypes.create_string_buffer(8)
    s = peer("silent")
    yield interrupted(lambda: c("recv", s.fileno(), data, 1, 0), False)
    yield interrupted(lambda: c("read", s.fileno(), data, 1), False)
    a = listener()
    yield interrupted(lambda: c("accept", a.fileno(), None, None), False)
    s.setsockopt(socket.SOL_SOCKET, socket.SO_RCVTIMEO, timeval(5))
    yield interrupted(lambda: c("recv", s.fileno(), data, 1, 0), True)
    s = peer("late")  # An answer after half a second: the call goes on.
    yield interrupted(lambda: c("recv", s.fileno(), data, 8, 0), True)
    s = peer("late")
    yield interrupted(lambda: c("recv", s.fileno(), data, 8, WAITALL), False)
    s = peer("deaf")
    fill(s)
    yield interrupted(lambda: c("send", s.fileno(), data, 8, 0), False)
    big = bytes(1 << 24)
    s = peer("deaf")
    n = interrupted(lambda: c("send", s.fileno(), big, len(big), 0), False)
    yield isinstance(n, int) and 0 < n < len(big)


@case("sendfile")
def files():
    s = peer("echo")
    out = s.fileno()
    with tempfile.TemporaryFile() as f:
        fd = f.fileno()
        f.write(b"file" * 100000)
        f.seek(0)
        yield s.sendfile(f)
        yield receive_all(s, 400000) == b"file" * 100000
        os.lseek(fd, 2, 0)
        offset = ctypes.c_long(1)
        yield c("sendfile", out, fd, ctypes.byref(offset), 3), offset.value
        yield os.lseek(fd, 0, 1), receive_all(s, 3)
        yield c("sendfile", out, fd, None, 5), os.lseek(fd, 0, 1)
        yield receive_all(s, 5)
        offset.value = 399999
        yield c("sendfile", out, fd, ctypes.byref(offset), 100), offset.value
        yield c("sendfile", out, fd, ctypes.byref(offset), 100), offset.value
        offset.value = -1
        yield c("sendfile", out, fd, ctypes.byref(offset), 1)
        yield c("sendfile", out, fd, BAD_POINTER, 1)
        yield c("sendfile", out, fd, None, 0), c("sendfile", out, 999, None, 1)
        yield c("sendfile", out, out, None, 1)
        yield c("sendfile", fd, out, None, 1)
        a = peer("deaf")
        a.setblocking(False)
        f.truncate(1 << 25)
        offset.value = 0
        n = c("sendfile", a.fileno(), fd, ctypes.byref(offset), 1 << 25)
        yield 0 < n < 1 << 25, offset.value == n


@case("splice")
def pipes():
    s = peer("echo")
    fd = s.fileno()
    r, w = os.pipe()
    os.write(w, b"through a pipe")
    yield os.splice(r, fd, 7), receive_all(s, 7)
    yield os.splice(r, fd, 100), receive_all(s, 7)
    os.set_blocking(r, False)
    yield outcome(os.splice, r, fd, 1)
    s.sendall(b"and back")
    wait_readable(s, 8)
    yield os.splice(fd, w, 3), os.read(r, 100)
    yield os.splice(fd, w, 100), os.read(r, 100)
    s.setblocking(False)
    yield outcome(os.splice, fd, w, 1)
    s.setblocking(True)
    yield outcome(lambda: os.splice(fd, w, 1, offset_src=0))
    yield outcome(lambda: os.splice(r, fd, 1, offset_dst=0))
    yield outcome(lambda: os.splice(fd, w, 1, offset_dst=0))
    yield outcome(lambda: os.splice(r, fd, 1, offset_src=0))
    other = peer("echo")
    yield outcome(os.splice, fd, other.fileno(), 1), os.splice(fd, w, 0)
    os.close(w)
    yield os.splice(r, fd, 1)  # No writer, nothing there.
    s = peer("fin")
    r, w = os.pipe()
    got = [os.splice(s.fileno(), w, 100) for _ in range(2)]
    yield got, os.read(r, 100)
    data = os.urandom(300000)
    s = peer("echo")
    thread = threading.Thread(target=s.sendall, args=[data])
    thread.start()
    out = b""
    while len(out) < len(data):
        n = os.splice(s.fileno(), w, 65536)
        out += os.read(r, n)
    thread.join()
    yield out == data


@case("__read_chk", "__recv_chk", "__recvfrom_chk")
def fortified():
    s = echoed(b"abcdefghi")
    data = ctypes.create_string_buffer(8)
    yield c("__read_chk", s.fileno(), data, 3, 8), data.value
    yield c("__recv_chk", s.fileno(), data, 3, 8, 0), data.value
    yield c("__recvfrom_chk", s.fileno(), data, 3, 8, 0, None, None), data.value


@case("MSG_OOB", "fcntl")
def urgent_data_signals_the_owner():
    signals = []
    before = signal.signal(signal.SIGURG, lambda *_: signals.append("URG"))
    try:
        nobodys, ours, early = peer("urgent"), peer("urgent"), tcp()
        for s in ours, early:
            yield outcome(fcntl.fcntl, s, fcntl.F_SETOWN, os.getpid())
        early.connect((PEER, PORT))
        early.sendall(b"urgent\n")
        for s in nobodys, ours, early:
            s.sendall(b"g")
            wait_for(lambda: outcome(s.recv, 1, OOB | PEEK) == 1)
            wait_for(lambda: s is nobodys or signals)
            yield fcntl.fcntl(s, fcntl.F_GETOWN) == os.getpid(), signals
            signals.clear()
    finally:
        signal.signal(signal.SIGURG, before)
