"""Cases: descriptors, what they copy, and what watches them."""

import array
import ctypes
import fcntl
import os
import select
import socket
import struct
import termios

from harness import (BAD_POINTER, OWN, PEER, PORT, c, call_back, case, events,
                     listener, outcome, peer, receive_all, tcp, wait_readable)

EXCLUSIVE = 1 << 28  # EPOLLEXCLUSIVE
IN, OUT, ET, ONESHOT = (select.EPOLLIN, select.EPOLLOUT, select.EPOLLET,
                        select.EPOLLONESHOT)


def ready(ep, timeout=20, wanted=0):
    """The events of the one descriptor that is watched."""
    for _ in range(200):
        got = ep.poll(timeout)
        bits = got[0][1] if got else 0
        if bits & wanted == wanted:
            break
        select.select([], [], [], 0.01)
    return bits


@case("poll", "select", "read", "ioctl")
def readiness():
    s = peer("echo")
    yield events(s, 20000, select.POLLOUT)
    s.sendall(b"hello")
    yield events(s, 20000, select.POLLIN)
    yield wait_readable(s, 5)
    yield s.recv(2)
    yield events(s)  # Three bytes are left.
    yield s.recv(100)
    yield events(s)
    s.setblocking(False)
    yield outcome(s.recv, 100)
    yield len(select.select([s], [s], [s], 0)[1])


@case("ppoll", "pselect", "epoll_pwait")
def other_calls_that_wait():
    s = peer("echo")
    s.sendall(b"x")
    wait_readable(s, 1)
    p = struct.pack("ihh", s.fileno(), select.POLLIN | select.POLLOUT, 0)
    buffer = ctypes.create_string_buffer(p)
    yield c("ppoll", buffer, 1, None, None), struct.unpack("ihh", buffer[:8])[2]
    bits = (ctypes.c_ulong * 16)()
    bits[s.fileno() // 64] = 1 << (s.fileno() % 64)
    yield c("pselect", s.fileno() + 1, bits, None, None, None, None)
    with select.epoll() as ep:
        ep.register(s, IN)
        event = ctypes.create_string_buffer(12)
        yield c("epoll_pwait", ep.fileno(), event, 1, 1000, None)


@case("epoll_ctl", "read")
def edges():
    s = peer("echo")
    s.setblocking(False)
    with select.epoll() as ep:
        ep.register(s, IN | ET)
        yield len(ep.poll(0))
        s.send(b"a")
        yield len(ep.poll(20))
        yield len(ep.poll(0))  # It was told.
        s.send(b"b")
        yield len(ep.poll(20))  # More arrived.
        yield len(receive_all(s, 2))


@case("epoll_ctl", "connect")
def watched_before_connect():
    for flags in 0, ET, ONESHOT:
        s = tcp()
        s.setblocking(False)
        with select.epoll() as ep:
            ep.register(s, IN | OUT | flags)
            s.connect_ex((PEER, PORT))
            yield ready(ep, 20, OUT)
            if flags == ONESHOT:
                yield ready(ep, 0)
                ep.modify(s, IN | flags)
            s.setblocking(True)
            s.sendall(b"echo\nx")
            yield ready(ep, 20, IN) & IN
            yield receive_all(s, 1)
            yield outcome(ep.register, s, IN)
            ep.unregister(s)
            yield outcome(ep.unregister, s), outcome(ep.modify, s, IN)


@case("epoll_ctl", "listen")
def watched_before_listen():
    s = tcp()
    with select.epoll() as ep, select.epoll() as outer:
        ep.register(s, IN | EXCLUSIVE)
        outer.register(ep, IN)
        s.listen()
        port = s.getsockname()[1]
        keep = peer(f"call {OWN} {port}")
        yield len(outer.poll(20)), ready(ep, 20, IN)
        accepted, _ = s.accept()
        yield receive_all(accepted, 2), len(ep.poll(0)), len(outer.poll(0))
        keep.close()


@case("epoll_ctl", "close", "connect")
def an_epoll_that_is_gone():
    s = tcp()
    ep = select.epoll()
    number = ep.fileno()
    ep.register(s, IN | OUT)
    ep.close()
    other = select.epoll()
    yield other.fileno() == number
    s.connect((PEER, PORT))
    yield other.poll(0)  # It does not know of the socket.
    other.register(s, OUT)
    yield ready(other, 20, OUT)
    fd = s.detach()
    os.close(fd)
    yield other.poll(0)


@case("epoll_ctl")
def watched_twice():
    s = peer("echo")
    with select.epoll() as ep:
        ep.register(s, OUT | ONESHOT)
        yield ready(ep), ready(ep, 0)
        ep.modify(s, OUT | ONESHOT)
        yield ready(ep), ready(ep, 0)
        copy = s.dup()
        ep.register(copy, OUT)
        yield ready(ep)
        event = struct.pack("=IQ", OUT, 0)
        yield c("epoll_ctl", ep.fileno(), 1, 999, event)
        yield c("epoll_ctl", s.fileno(), 1, copy.fileno(), event)
        yield c("epoll_ctl", ep.fileno(), 1, s.fileno(), BAD_POINTER)


@case("dup", "dup2", "close")
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
    yield outcome(os.read, third, 1), outcome(os.close, third)


@case("dup", "dup2", "connect", "listen", "close")
def copies_made_before():
    s = tcp()
    copy = s.dup()
    os.dup2(copy.fileno(), 201)
    s.connect((PEER, PORT))
    copy.sendall(b"echo\nfrom a copy")
    yield receive_all(s, 11)
    yield os.write(201, b"x"), receive_all(copy, 1)
    copy.close()
    s.close()
    yield os.write(201, b"y"), os.read(201, 1)
    os.close(201)
    s = tcp()
    copy = s.dup()
    s.listen()
    s.close()
    accepted, _keep = call_back(copy)
    yield accepted.getpeername()[0] == PEER


@case("dup", "dup2", "dup3", "fcntl")
def flags_of_copies():
    s = peer("echo")
    fd = s.fileno()
    get, set_, dup, dup_cloexec = 1, 2, 0, 1030
    for copy in (c("dup", fd), c("dup2", fd, 202), c("dup3", fd, 203, 0o2000000),
                 c("fcntl", fd, dup, 300), c("fcntl", fd, dup_cloexec, 300)):
        yield c("fcntl", copy, get), copy >= 300
        c("fcntl", copy, set_, 1)
        yield c("fcntl", copy, get), c("fcntl", fd, get)
        c("fcntl", copy, set_, 0)
        yield c("fcntl", copy, get)
        yield c("ioctl", copy, 0x5451), c("fcntl", copy, get)  # FIOCLEX
        yield c("ioctl", copy, 0x5450), c("fcntl", copy, get)  # FIONCLEX
        yield c("close", copy)
    yield c("dup2", fd, fd) == fd, c("dup3", fd, fd, 0)
    yield c("dup3", fd, 204, 1), c("dup2", 999, 204), c("dup", 999)
    yield c("dup2", fd, -1), c("fcntl", fd, dup, 1 << 30)
    for value in True, False:
        ctypes_value = ctypes.c_int(value)
        yield c("ioctl", fd, 0x5421, ctypes.byref(ctypes_value))  # FIONBIO
        yield c("fcntl", fd, 3) & os.O_NONBLOCK
    s.setblocking(True)
    s.sendall(b"z")
    yield receive_all(s, 1)


@case("dup2", "close")
def a_copy_over_another():
    a, b = peer("echo"), peer("report")
    watcher = peer("reports")
    os.dup2(a.fileno(), b.fileno())
    yield receive_all(watcher, 5)  # The one that was there has ended.
    b.sendall(b"a's")
    yield receive_all(a, 3)
    c_ = peer("report")
    null = os.open("/dev/null", os.O_RDONLY)
    os.dup2(null, c_.fileno())
    yield receive_all(peer("reports"), 5), os.read(c_.fileno(), 1)


@case("close_range", "close")
def ranges():
    low = peer("echo")
    moved = socket.socket(fileno=fcntl.fcntl(low, fcntl.F_DUPFD, 400))
    high = socket.socket(fileno=fcntl.fcntl(peer("report"), fcntl.F_DUPFD, 410))
    watcher = peer("reports")
    yield c("close_range", 400, 401, 4), c("fcntl", 400, 1)  # CLOEXEC
    yield c("close_range", 405, 420, 0)
    yield receive_all(watcher, 5), outcome(high.send, b"x")
    yield c("close_range", 500, 400, 0), c("close_range", 1000, 1001, 99)
    moved.sendall(b"there")
    yield receive_all(low, 5)
    high.detach()


@case("socket", "bind", "close", "getsockname")
def a_number_used_again():
    first = tcp()
    first.bind(("", 0))
    number = first.fileno()
    first.close()
    second = tcp()
    yield second.fileno() == number
    yield second.getsockname()  # Not where the first was bound.


@case("ioctl")
def requests():
    s = peer("echo")
    count = array.array("i", [0])
    s.sendall(b"four")
    wait_readable(s, 4)
    fcntl.ioctl(s, termios.FIONREAD, count)
    yield count[0]
    fcntl.ioctl(s, termios.TIOCOUTQ, count)
    yield count[0]
    yield outcome(fcntl.ioctl, s, 0x894b, count), count[0]  # SIOCOUTQNSD
    yield outcome(fcntl.ioctl, s, 0x8905, count), count[0]  # SIOCATMARK
    yield c("ioctl", s.fileno(), termios.FIONREAD, BAD_POINTER)
    yield outcome(os.isatty, s.fileno())
    yield c("ioctl", s.fileno(), 0x5401, ctypes.create_string_buffer(64))
    a = listener()
    yield outcome(fcntl.ioctl, a, termios.FIONREAD, count)
    yield outcome(fcntl.ioctl, a, termios.TIOCOUTQ, count)
    yield outcome(fcntl.ioctl, a, 0x8905, count)


@case("fstat", "lseek", "pread")
def what_it_is():
    import stat
    s = peer("echo")
    yield stat.S_ISSOCK(os.fstat(s.fileno()).st_mode)
    yield outcome(os.lseek, s.fileno(), 0, 0)
    yield outcome(os.pread, s.fileno(), 1, 0), outcome(os.pwrite, s.fileno(),
                                                       b"x", 0)
    yield outcome(os.ftruncate, s.fileno(), 0)
    yield outcome(os.preadv, s.fileno(), [bytearray(1)], 0)
