"""Cases: connections begin and end, and who their ends are."""

import ctypes
import errno
import select
import socket
import struct
import threading
import time

from harness import (BAD_POINTER, IS_V6, MULTICAST, NOBODY, NOBODY_ELSE,
                     NOT_OURS, OWN, PEER, PORT, c, call_back, case, events,
                     fill, ipv4_case, libc, listener, outcome, peer, raw,
                     receive_all, tcp, timeval, wait_for)


@case("connect", "SO_ERROR")
def refused():
    s = tcp()
    yield outcome(s.connect, (PEER, PORT + 1))
    s = tcp()
    s.setblocking(False)
    yield s.connect_ex((PEER, PORT + 1)) in (errno.EINPROGRESS,
                                             errno.ECONNREFUSED)
    yield events(s, 20000, select.POLLERR)
    yield s.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
    yield events(s)  # It was told.
    yield s.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)


@case("connect", "write", "read")
def refused_and_used_again():
    s = tcp()
    yield outcome(s.connect, (PEER, PORT + 1))
    yield events(s)
    yield outcome(s.recv, 1), outcome(s.send, b"x")
    yield outcome(s.connect, (PEER, PORT))
    s.sendall(b"echo\nagain")
    yield receive_all(s, 5)
    s = tcp()
    s.setblocking(False)
    yield s.connect_ex((PEER, PORT + 1)) in (errno.EINPROGRESS,
                                             errno.ECONNREFUSED)
    yield events(s, 20000, select.POLLERR)
    yield outcome(s.connect, (PEER, PORT))  # The first one's error.
    s.setblocking(True)
    yield outcome(s.connect, (PEER, PORT))
    s.sendall(b"echo\nthird")
    yield receive_all(s, 5)


@case("connect", "poll", "epoll_ctl")
def refused_after_the_error_was_read():
    s = tcp()
    s.setblocking(False)
    s.connect_ex((PEER, PORT + 1))
    events(s, 20000, select.POLLERR)
    yield s.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
    yield outcome(s.connect, (PEER, PORT))
    with select.epoll() as ep:
        ep.register(s, select.EPOLLOUT)
        yield outcome(s.connect, (PEER, PORT))
        yield [e for _, e in ep.poll(20)] == [select.EPOLLOUT] or \
            events(s, 20000, select.POLLOUT)
        yield s.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)


@case("connect", "bind", "SO_REUSEADDR")
def the_same_connection_twice():
    first, second = tcp(), tcp()
    for s in first, second:
        s.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    first.bind((OWN, 0))
    second.bind(first.getsockname())
    yield outcome(first.connect, (PEER, PORT))
    yield outcome(second.connect, (PEER, PORT))
    first.sendall(b"echo\nhello")
    yield receive_all(first, 5)


@case("connect", "getpeername", "getsockname", "SO_ERROR")
def nonblocking_connect():
    s = tcp()
    s.setblocking(False)
    yield s.connect_ex((PEER, PORT)) in (errno.EINPROGRESS, 0)
    yield events(s, 20000, select.POLLOUT)
    yield s.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
    yield outcome(s.connect, (PEER, PORT))
    yield outcome(s.connect, (PEER, PORT))
    yield outcome(s.connect, (PEER, PORT + 1))  # Another: as if it were not.
    yield outcome(s.recv, 10)
    yield s.getpeername()[:2] == (PEER, PORT)
    yield s.getsockname()[0] == OWN


@case("connect", "send", "recv", "getpeername", "shutdown")
def while_connecting():
    s = tcp()
    s.setblocking(False)
    yield outcome(s.connect, (NOBODY, PORT))
    yield outcome(s.connect, (NOBODY, PORT))
    yield events(s)
    yield outcome(s.send, b"x"), outcome(s.recv, 1)
    yield outcome(s.getpeername), s.getsockname()[0] == OWN
    yield s.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
    yield outcome(s.shutdown, socket.SHUT_RDWR)
    s.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
    yield events(s)


@case("connect", "SO_SNDTIMEO", "SO_ERROR")
def nobody_is_there():
    s = tcp()
    yield outcome(s.connect, (NOBODY, PORT))
    s = tcp()
    s.setsockopt(socket.SOL_SOCKET, socket.SO_SNDTIMEO, timeval(0.1))
    yield outcome(s.connect, (NOBODY_ELSE, PORT))
    yield outcome(s.connect, (NOBODY_ELSE, PORT))


@case("connect")
def wrong_addresses():
    s = tcp()
    fd = s.fileno()
    good = raw(PEER, PORT)
    other = b"\x0a\0" + bytes(26) if not IS_V6 else b"\2\0" + bytes(26)
    yield c("connect", fd, other, len(other))
    yield c("connect", fd, good, 4), c("connect", fd, good, 1)
    yield c("connect", fd, BAD_POINTER, len(good))
    yield outcome(s.connect, (MULTICAST, PORT))
    yield c("connect", 999, good, len(good))
    yield outcome(s.connect, (PEER, PORT))
    yield c("connect", fd, good, 1), outcome(s.connect, (PEER, PORT))


@case("connect", "shutdown")
def disconnect():
    s = peer()
    unspecified = struct.pack("=H14x", socket.AF_UNSPEC)
    yield c("connect", s.fileno(), unspecified, 16)
    s.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
    yield outcome(s.getpeername), outcome(s.send, b"x"), outcome(s.recv, 1)
    yield events(s)
    yield outcome(s.connect, (PEER, PORT))
    s.sendall(b"echo\nback")
    yield receive_all(s, 4)


@case("bind", "getsockname")
def names():
    s = tcp()
    yield outcome(s.bind, (OWN, 0))
    first = s.getsockname()
    yield first[0] == OWN, first[1] > 1023
    yield outcome(s.bind, (OWN, 0)), outcome(s.bind, (OWN, first[1] + 1))
    yield s.getsockname() == first
    s.connect((PEER, PORT))
    yield s.getsockname() == first
    s.sendall(b"echo\nx")
    yield receive_all(s, 1)
    yield outcome(s.bind, (OWN, 0))
    yield s.fileno() >= 0, outcome(tcp().bind, (NOT_OURS, 0))


@case("bind", "getsockname", "listen")
def any_address():
    s = tcp()
    s.bind(("", 0))
    name = s.getsockname()
    yield name[0], name[1] > 1023
    yield outcome(s.bind, ("", 0))
    other = tcp()
    yield outcome(other.bind, ("", name[1])), outcome(other.bind,
                                                      (OWN, name[1]))
    s.listen()
    yield s.getsockname() == name
    accepted, _keep = call_back(s)
    yield accepted.getsockname()[:2] == (OWN, name[1])
    unbound = tcp()
    unbound.listen()
    yield unbound.getsockname()[0], unbound.getsockname()[1] > 1023
    accepted, _keep = call_back(unbound)


@case("bind", "listen", "SO_REUSEADDR", "SO_REUSEPORT")
def ports_in_use():
    def pair(option, first=1, second=1):
        a, b = tcp(), tcp()
        if option:
            a.setsockopt(socket.SOL_SOCKET, option, first)
            b.setsockopt(socket.SOL_SOCKET, option, second)
        a.bind((OWN, 0))
        return a, b, a.getsockname()
    a, b, name = pair(None)
    yield outcome(b.bind, name)
    a.close()
    yield outcome(b.bind, name)
    a, b, name = pair(socket.SO_REUSEADDR)
    yield outcome(b.bind, name)
    yield outcome(a.listen), outcome(b.listen)
    a, b, name = pair(socket.SO_REUSEADDR)
    a.listen()
    yield outcome(b.bind, name)
    a, b, name = pair(socket.SO_REUSEADDR, 1, 0)
    yield outcome(b.bind, name)
    a, b, name = pair(socket.SO_REUSEPORT)
    yield outcome(b.bind, name)
    a, b, name = pair(socket.SO_REUSEPORT, 0, 1)
    yield outcome(b.bind, name)


@case("bind", "SO_REUSEADDR", "accept")
def a_port_with_connections():
    s = listener(reuse=False)
    name = s.getsockname()
    accepted, _keep = call_back(s)
    s.close()
    again = tcp()
    yield outcome(again.bind, name)
    accepted.close()
    s = listener()
    name = s.getsockname()
    accepted, _keep = call_back(s)
    s.close()
    again = tcp()
    again.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    yield outcome(again.bind, name), outcome(again.listen)


@case("bind")
def wrong_names():
    s = tcp()
    fd = s.fileno()
    good = raw(OWN, 0)
    other = b"\x0a\0" + bytes(26) if not IS_V6 else b"\2\0" + bytes(26)
    yield c("bind", fd, good, 8), c("bind", fd, other, len(other))
    yield c("bind", fd, BAD_POINTER, len(good)), c("bind", 999, good, len(good))
    yield c("bind", fd, good, len(good))


@ipv4_case("socket", "bind", "connect", "getsockname", "getpeername")
def ipv6_sockets():
    s = socket.socket(socket.AF_INET6)
    s.connect(("::ffff:" + PEER, PORT))
    yield s.getpeername()[0] == "::ffff:" + PEER, len(s.getpeername())
    yield s.getsockname()[0] == "::ffff:" + OWN
    yield s.getsockopt(socket.SOL_SOCKET, socket.SO_DOMAIN)
    s.sendall(b"echo\nmapped")
    yield receive_all(s, 6)
    s = socket.socket(socket.AF_INET6)
    s.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
    yield outcome(s.connect, ("::ffff:" + PEER, PORT))
    yield outcome(s.bind, ("::ffff:" + OWN, 0))


@ipv4_case("listen", "accept", "getsockname", "IPV6_V6ONLY")
def ipv6_listener():
    s = socket.socket(socket.AF_INET6)
    s.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
    s.bind(("::", 0))
    s.listen()
    yield s.getsockname()[0], len(s.getsockname())
    own, port = OWN, s.getsockname()[1]
    keep = peer(f"call {own} {port}")
    accepted, address = s.accept()
    yield address[0] == "::ffff:" + PEER, len(address)
    yield accepted.getsockname()[:2] == ("::ffff:" + OWN, port)
    yield accepted.getpeername() == address
    yield receive_all(accepted, 2)
    keep.close()
    s = socket.socket(socket.AF_INET6)
    s.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
    yield outcome(s.bind, ("::ffff:" + OWN, 0))
    yield s.getsockname()[0] == "::ffff:" + OWN


@case("getsockname", "getpeername", "accept")
def short_names():
    s = peer()
    for call in "getsockname", "getpeername":
        size = ctypes.c_uint(4)
        name = ctypes.create_string_buffer(b"\xff" * 32)
        yield c(call, s.fileno(), name, ctypes.byref(size)), size.value
        yield name.raw[4:8]
        size.value = 100
        yield c(call, s.fileno(), name, ctypes.byref(size)), size.value
        size.value = 0xffffffff
        yield c(call, s.fileno(), name, ctypes.byref(size))
        size.value = 28
        yield c(call, s.fileno(), BAD_POINTER, ctypes.byref(size))
        yield c(call, s.fileno(), name, BAD_POINTER)
        yield c(call, 999, name, ctypes.byref(size))
        yield c(call, 0, name, ctypes.byref(size))


@case("getpeername", "shutdown", "read", "write")
def not_connected():
    s = tcp()
    yield outcome(s.getpeername)
    yield outcome(s.shutdown, socket.SHUT_WR)
    yield outcome(s.recv, 1)
    yield outcome(s.send, b"x")
    yield s.getsockname()
    yield events(s)


@case("listen", "connect", "bind")
def two_listens():
    s = listener(1)
    yield outcome(s.listen, 5)
    yield outcome(s.connect, (PEER, PORT)), outcome(s.bind, (OWN, 0))
    yield outcome(s.send, b"x"), outcome(s.recv, 1)
    s = peer("silent")
    yield outcome(s.listen, 1), outcome(s.accept)
    yield c("listen", 999, 1), outcome(tcp().accept)


@case("listen", "accept", "accept4", "SO_ACCEPTCONN", "getpeername")
def accepting():
    s = listener()
    yield s.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN)
    own, port = s.getsockname()[:2]
    yield own == OWN, port > 0
    s.setblocking(False)
    yield outcome(s.accept)
    yield events(s)
    calls = [peer(f"call {own} {port}") for _ in range(2)]
    yield events(s, 20000, select.POLLIN)
    s.setblocking(True)
    accepted = []
    for _ in calls:
        accepted.append(s.accept())
        yield "OUT" in events(accepted[-1][0])  # At once.
    yield events(s)
    for a, address in accepted:
        yield address[0] == PEER, a.getpeername() == address
        yield a.getsockname()[:2] == (own, port)
        yield receive_all(a, 2)
        a.sendall(b"there")
        yield receive_all(a, 5)
    yield outcome(s.getpeername)


@case("accept4", "fcntl")
def accept_flags():
    s = listener()
    for flags in 0, socket.SOCK_CLOEXEC, socket.SOCK_NONBLOCK:
        keep = peer("call %s %d" % s.getsockname()[:2])
        fd = c("accept4", s.fileno(), None, None, flags)
        yield (c("fcntl", fd, 1), c("fcntl", fd, 3) & 0o4000)  # GETFD, GETFL
        yield c("close", fd), keep.close()
    yield c("accept4", s.fileno(), None, None, 1)
    s.setsockopt(socket.SOL_SOCKET, socket.SO_RCVTIMEO, timeval(0.05))
    yield outcome(s.accept)
    keep = peer("call %s %d" % s.getsockname()[:2])
    size = ctypes.c_uint(16)
    yield c("accept4", s.fileno(), BAD_POINTER, ctypes.byref(size), 0)


@case("shutdown", "accept", "listen", "poll")
def shut_listener():
    s = listener()
    port = s.getsockname()[1]
    s.close()
    s = tcp()
    s.bind((OWN, port))
    s.listen()
    yield outcome(s.shutdown, socket.SHUT_WR), outcome(s.shutdown, 7)
    name = s.getsockname()
    result = []
    thread = threading.Thread(target=lambda: result.append(outcome(s.accept)))
    thread.start()
    time.sleep(0.2)
    yield outcome(s.shutdown, socket.SHUT_RD)
    thread.join(10)
    yield result, outcome(s.accept)
    yield events(s), s.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN)
    yield s.getsockname() == name
    yield outcome(s.listen)
    accepted, _keep = call_back(s)
    yield accepted.getsockname() == name


@case("close", "SO_LINGER", "read", "write", "poll")
def reset_by_the_peer():
    s = peer("reset")
    yield events(s, 20000, select.POLLERR)
    yield outcome(s.recv, 1)
    yield events(s)
    yield outcome(s.recv, 1)
    yield outcome(s.send, b"x"), outcome(s.getpeername)
    yield outcome(s.connect, (PEER, PORT))
    s = peer("reset")
    events(s, 20000, select.POLLERR)
    yield outcome(s.send, b"x"), outcome(s.send, b"x"), outcome(s.recv, 1)
    s = peer("reset")
    events(s, 20000, select.POLLERR)
    yield s.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
    yield outcome(s.send, b"x")


@case("close", "SO_LINGER")
def lingering():
    s, watcher = peer("report"), peer("reports")
    s.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    s.close()
    yield receive_all(watcher, 5)
    s, watcher = peer("report"), peer("reports")
    s.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 5))
    s.sendall(b"x" * 100000)
    start = time.monotonic()
    s.close()
    yield time.monotonic() - start < 4, receive_all(watcher, 5)
    s, watcher = peer("report"), peer("reports")
    s.close()
    yield receive_all(watcher, 5)


@case("close", "SO_LINGER")
def lingering_in_vain():
    s = peer("deaf")
    s.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 1))
    fill(s)
    s.setblocking(False)
    start = time.monotonic()
    s.close()
    elapsed = time.monotonic() - start
    yield "as asked" if 0.9 < elapsed < 3 else elapsed


@case("shutdown", "read", "poll")
def the_peers_end():
    s = peer("fin")
    yield events(s, 20000, select.POLLIN | select.POLLRDHUP)
    yield receive_all(s, 100)
    yield s.recv(1)
    yield events(s)
    yield s.send(b"still")


@case("shutdown", "write", "poll")
def our_end():
    s = peer("echo")
    s.sendall(b"last words")
    s.shutdown(socket.SHUT_WR)
    yield outcome(s.send, b"x")
    yield receive_all(s, 100)
    yield events(s, 20000, select.POLLHUP)
    yield outcome(s.shutdown, socket.SHUT_WR) in (None, "ENOTCONN")


@case("shutdown", "read", "poll")
def shut_for_reading():
    s = peer("echo")
    s.sendall(b"early")
    events(s, 20000, select.POLLIN)
    yield outcome(s.shutdown, socket.SHUT_RD), outcome(s.shutdown, 9)
    yield events(s)
    yield s.recv(100), s.recv(100)
    yield s.send(b"late")


@case("send", "recv", "write", "shutdown", "close")
def errno_of_what_succeeds():
    """Is as it was: some programs look at it without an error."""
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
    a = listener()
    ctypes.set_errno(errno.EXDEV)
    yield libc.dup2(a.fileno(), 250), errno.errorcode[ctypes.get_errno()]
    ctypes.set_errno(errno.EXDEV)
    yield libc.close(250), errno.errorcode[ctypes.get_errno()]


@case("connect", "TCP_SYNCNT")
def nobody_answers():
    keep = peer("full")
    full = int(keep.makefile().readline())
    waits, polls = tcp(), tcp()
    polls.setblocking(False)
    for s in polls, waits:
        s.setsockopt(socket.IPPROTO_TCP, socket.TCP_SYNCNT, 1)
        yield outcome(s.connect, (PEER, full))
    yield events(polls, 20000, select.POLLERR)
    yield polls.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
    yield events(polls)


def accepted_by(listeners, count):
    """Of the peer's calls, how many each of them has accepted."""
    accepted = [[] for _ in listeners]
    for s in listeners:
        s.setblocking(False)

    def all_are_here():
        for i, s in enumerate(listeners):
            while True:
                try:
                    accepted[i].append(s.accept()[0])
                except BlockingIOError:
                    break
        return sum(map(len, accepted)) == count

    return wait_for(all_are_here), [len(a) for a in accepted]


@case("SO_REUSEPORT", "listen", "accept")
def two_listen_on_one_port():
    both = []
    for _ in range(2):
        s = tcp()
        s.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        s.bind((OWN, both[0].getsockname()[1] if both else 0))
        yield outcome(s.listen, 64)
        both.append(s)
    port = both[0].getsockname()[1]
    alone = tcp()
    yield outcome(alone.bind, (OWN, port))
    calls = [peer(f"call {OWN} {port}") for _ in range(24)]
    all_came, counts = accepted_by(both, 24)
    yield all_came, sum(counts), min(counts) > 0
    both[0].close()
    more = [peer(f"call {OWN} {port}") for _ in range(8)]
    yield accepted_by(both[1:], 8)
    both[1].close()
    yield outcome(alone.bind, (OWN, port)) in (0, None)
    del calls, more
