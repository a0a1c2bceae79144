#!/usr/bin/env python3
"""What a program sees of its TCP sockets: one line "CASE: RESULT" for each case.

  socket_cases.py OWN_ADDRESS PEER_ADDRESS PEER_PORT

Run by shim_test.py twice, on the kernel's sockets and on Devwire's; the lines
must be equal. The peer is shim_test.py's, and does what the first line says
that it is sent: echo, fin, reset, silent, call ADDRESS PORT.
"""

import array
import ctypes
import errno
import fcntl
import os
import select
import socket
import struct
import sys
import tempfile
import termios

OWN, PEER, PORT = sys.argv[1], sys.argv[2], int(sys.argv[3])
ALL = (select.POLLIN | select.POLLOUT | select.POLLERR | select.POLLHUP |
       select.POLLRDHUP)
NAMES = ("IN", "OUT", "ERR", "HUP", "RDHUP")
CASES = []


def case(f):
    CASES.append(f)
    return f


def peer(what):
    s = socket.create_connection((PEER, PORT), timeout=20)
    s.settimeout(None)
    s.sendall(what.encode() + b"\n")
    return s


def outcome(f, *args):
    """What the call answers, or its errno by name."""
    try:
        result = f(*args)
        return len(result) if isinstance(result, bytes) else result
    except TimeoutError:
        return "timed out"
    except OSError as e:
        return errno.errorcode[e.errno]


def events(s, timeout_ms=0, wanted=0):
    """poll(2) of the socket; waits until it shows `wanted`."""
    p = select.poll()
    p.register(s, ALL)
    for _ in range(200):
        got = p.poll(timeout_ms)
        bits = got[0][1] if got else 0
        if bits & wanted == wanted:
            break
        select.select([], [], [], 0.05)
    return "|".join(n for n in NAMES if bits & getattr(select, "POLL" + n))


def receive_all(s, size):
    data = b""
    while len(data) < size:
        more = s.recv(size - len(data))
        if not more:
            break
        data += more
    return data


@case
def refused():
    s = socket.socket()
    yield outcome(s.connect, (PEER, PORT + 1))
    s = socket.socket()
    s.setblocking(False)
    yield s.connect_ex((PEER, PORT + 1)) in (errno.EINPROGRESS,
                                             errno.ECONNREFUSED)
    yield events(s, 20000, select.POLLERR)
    first = s.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
    yield first in (0, errno.ECONNREFUSED)
    yield s.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)


@case
def nonblocking_connect():
    s = socket.socket()
    s.setblocking(False)
    yield s.connect_ex((PEER, PORT)) in (errno.EINPROGRESS, 0)
    yield events(s, 20000, select.POLLOUT)
    yield s.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
    yield outcome(s.connect, (PEER, PORT))
    yield outcome(s.recv, 10)
    yield s.getpeername() == (PEER, PORT)
    yield s.getsockname()[0] == OWN


@case
def echo():
    s = peer("echo")
    s.sendall(b"x")
    yield receive_all(s, 1)
    data = os.urandom(1 << 20)
    for start in range(0, len(data), 1 << 16):
        s.sendall(data[start:start + (1 << 16)])
    yield receive_all(s, len(data)) == data


@case
def readiness():
    s = peer("echo")
    yield events(s, 20000, select.POLLOUT)
    s.sendall(b"hello")
    yield events(s, 20000, select.POLLIN)
    count = array.array("i", [0])
    for _ in range(200):
        fcntl.ioctl(s, termios.FIONREAD, count)
        if count[0] == 5:
            break
        select.select([], [], [], 0.05)
    yield count[0]
    yield s.recv(2)
    yield events(s)  # Three bytes are left.
    yield s.recv(100)
    yield events(s)
    s.setblocking(False)
    yield outcome(s.recv, 100)
    yield len(select.select([s], [s], [s], 0)[1])


@case
def edges():
    s = peer("echo")
    s.setblocking(False)
    with select.epoll() as ep:
        ep.register(s, select.EPOLLIN | select.EPOLLET)
        yield len(ep.poll(0))
        s.send(b"a")
        yield len(ep.poll(20))
        yield len(ep.poll(0))  # It was told.
        s.send(b"b")
        yield len(ep.poll(20))  # More arrived.
        yield len(receive_all(s, 2))


@case
def timeouts():
    s = peer("silent")
    s.settimeout(0.05)
    yield outcome(s.recv, 1)
    s.settimeout(None)
    s.setsockopt(socket.SOL_SOCKET, socket.SO_RCVTIMEO,
                 struct.pack("ll", 0, 50000))
    yield outcome(s.recv, 1)


@case
def the_peers_end():
    s = peer("fin")
    yield events(s, 20000, select.POLLIN | select.POLLRDHUP)
    yield receive_all(s, 100)
    yield s.recv(1)
    yield events(s)
    yield s.send(b"still")


@case
def our_end():
    s = peer("echo")
    s.sendall(b"last words")
    s.shutdown(socket.SHUT_WR)
    yield outcome(s.send, b"x")
    yield receive_all(s, 100)
    yield events(s, 20000, select.POLLHUP)
    yield outcome(s.shutdown, socket.SHUT_WR) in (None, "ENOTCONN")


@case
def reset_by_the_peer():
    s = peer("reset")
    yield events(s, 20000, select.POLLERR)
    yield outcome(s.recv, 1)
    yield outcome(s.recv, 1)
    yield outcome(s.send, b"x")


@case
def not_connected():
    s = socket.socket()
    yield outcome(s.getpeername)
    yield outcome(s.shutdown, socket.SHUT_WR)
    yield outcome(s.recv, 1)


@case
def copies():
    s = peer("echo")
    copy = s.dup()
    s.close()
    copy.sendall(b"copy")
    yield receive_all(copy, 4)
    third = os.dup2(copy.fileno(), 200)
    copy.close()
    yield os.write(third, b"third")
    yield os.read(third, 100)
    os.close(third)
    yield outcome(os.read, third, 1)


@case
def vectors_and_files():
    s = peer("echo")
    yield os.writev(s.fileno(), [b"one ", b"", b"two"])
    parts = [bytearray(4), bytearray(3)]
    receive_all_into = os.readv(s.fileno(), parts)
    yield receive_all_into, bytes(parts[0]), bytes(parts[1])
    with tempfile.TemporaryFile() as f:
        f.write(b"file" * 1000)
        f.seek(0)
        yield s.sendfile(f)
    yield len(receive_all(s, 4000))


@case
def options():
    s = socket.socket()
    s.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    s.connect((PEER, PORT))
    s.sendall(b"silent\n")
    yield s.getsockopt(socket.SOL_SOCKET, socket.SO_TYPE) == socket.SOCK_STREAM
    yield s.getsockopt(socket.SOL_SOCKET, socket.SO_DOMAIN)
    yield s.getsockopt(socket.SOL_SOCKET, socket.SO_PROTOCOL)
    yield s.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN)
    s.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    yield s.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE)
    yield outcome(s.setsockopt, socket.SOL_SOCKET, socket.SO_SNDBUF, 100000)
    yield outcome(s.setsockopt, socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    yield s.getsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR)
    yield events(s)
    info = s.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 232)
    yield info[0]  # tcpi_state: ESTABLISHED


@case
def a_number_used_again():
    first = socket.socket()
    first.bind((OWN, 0))
    number = first.fileno()
    first.close()
    second = socket.socket()
    yield second.fileno() == number
    yield second.getsockname()  # Not where the first was bound.


@case
def errno_of_what_succeeds():
    """Is as it was: some programs look at it without an error."""
    libc = ctypes.CDLL(None, use_errno=True)
    room = ctypes.create_string_buffer(100)
    s = peer("fin")
    fd = s.fileno()
    events(s, 20000, select.POLLIN | select.POLLRDHUP)
    for call in ((libc.send, fd, b"x", 1, 0), (libc.recv, fd, room, 100, 0),
                 (libc.recv, fd, room, 100, 0), (libc.write, fd, b"x", 1),
                 (libc.shutdown, fd, socket.SHUT_WR)):
        ctypes.set_errno(errno.EXDEV)
        yield call[0](*call[1:]), errno.errorcode[ctypes.get_errno()]
    ctypes.set_errno(errno.EXDEV)
    yield libc.close(s.detach()), errno.errorcode[ctypes.get_errno()]


@case
def two_listens():
    listener = socket.socket()
    listener.bind((OWN, 0))
    listener.listen(1)
    yield outcome(listener.listen, 5)
    s = peer("silent")
    yield outcome(s.listen, 1)


@case
def accepting():
    listener = socket.socket()
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    listener.bind((OWN, 0))
    listener.listen(5)
    yield listener.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN)
    own, port = listener.getsockname()
    yield own == OWN, port > 0
    listener.setblocking(False)
    yield outcome(listener.accept)
    yield events(listener)
    calls = [peer(f"call {own} {port}") for _ in range(2)]
    yield events(listener, 20000, select.POLLIN)
    listener.setblocking(True)
    accepted = [listener.accept() for _ in calls]
    yield events(listener)
    for s, address in accepted:
        yield address[0] == PEER, s.getpeername() == address
        yield receive_all(s, 2)
        s.sendall(b"there")
        yield receive_all(s, 5)
    yield outcome(listener.getpeername)


for c in CASES:
    for i, result in enumerate(c()):
        print(f"{c.__name__} {i}: {result}", flush=True)
