"""Cases: socket options, before and after a connection, and inherited."""

import ctypes
import select
import socket
import struct

from harness import (BAD_POINTER, OWN, PEER, PORT, c, call_back, case, events,
                     fill, ipv4_case, libc, listener, outcome, peer,
                     receive_all, tcp, timeval)

SOL, TCP, IP, V6 = (socket.SOL_SOCKET, socket.IPPROTO_TCP, socket.IPPROTO_IP,
                    socket.IPPROTO_IPV6)
# Name, level, option, values to set. The kernel keeps each as it likes.
OPTIONS = (
    ("SO_DEBUG", SOL, 1, (0,)),
    ("SO_REUSEADDR", SOL, 2, (1, 7, 0)),
    ("SO_DONTROUTE", SOL, 5, (1, 0)),
    ("SO_BROADCAST", SOL, 6, (1, 0)),
    ("SO_SNDBUF", SOL, 7, (1, 50000, 1 << 30, -1)),
    ("SO_RCVBUF", SOL, 8, (1, 50000, 1 << 30, -1)),
    ("SO_KEEPALIVE", SOL, 9, (1, 5, 0)),
    ("SO_OOBINLINE", SOL, 10, (1, 0)),
    ("SO_PRIORITY", SOL, 12, (3, 0)),
    ("SO_REUSEPORT", SOL, 15, (1, 0)),
    ("SO_RCVLOWAT", SOL, 18, (1, 100, 0, -1, 1)),
    ("SO_TIMESTAMP", SOL, 29, (1, 0)),
    ("SO_MARK", SOL, 36, (5, 0)),
    ("SO_BUSY_POLL", SOL, 46, (0,)),
    ("SO_MAX_PACING_RATE", SOL, 47, (1 << 20,)),
    ("SO_INCOMING_CPU", SOL, 49, (0,)),
    ("TCP_NODELAY", TCP, 1, (1, 3, 0)),
    ("TCP_MAXSEG", TCP, 2, (1000, 10, 1 << 20)),
    ("TCP_CORK", TCP, 3, (1, 4, 0)),
    ("TCP_KEEPIDLE", TCP, 4, (60, 0, 40000)),
    ("TCP_KEEPINTVL", TCP, 5, (7, 0, 40000)),
    ("TCP_KEEPCNT", TCP, 6, (4, 0, 200)),
    ("TCP_SYNCNT", TCP, 7, (3, 0, 300)),
    ("TCP_LINGER2", TCP, 8, (10, -1, 1000, 0)),
    ("TCP_DEFER_ACCEPT", TCP, 9, (5, 0)),
    ("TCP_WINDOW_CLAMP", TCP, 10, (20000, 1)),
    ("TCP_QUICKACK", TCP, 12, (0,)),
    ("TCP_USER_TIMEOUT", TCP, 18, (5000, -1, 0)),
    ("TCP_NOTSENT_LOWAT", TCP, 25, (16384,)),
    ("IP_TOS", IP, 1, (0x10, 0x28, 0)),
    ("IP_TTL", IP, 2, (32, 0, 256)),
    ("IP_RECVTTL", IP, 12, (1, 0)),
    ("IP_MTU_DISCOVER", IP, 10, (2, 0, 9)),
)
# What a connection of its own decides: compared before one only.
OF_CONNECTIONS = {"TCP_MAXSEG", "TCP_QUICKACK", "SO_INCOMING_CPU",
                  "TCP_WINDOW_CLAMP", "SO_BUSY_POLL"}
# Autotuned while nobody sets them.
TUNED = {"SO_SNDBUF", "SO_RCVBUF"}


def get(s, level, option):
    return outcome(s.getsockopt, level, option)


def set_and_get(s, level, option, values):
    for value in values:
        yield value, outcome(s.setsockopt, level, option, value), get(
            s, level, option)


def before(name, level, option, values):
    s = tcp()
    yield get(s, level, option)
    yield from set_and_get(s, level, option, values)
    s.connect((PEER, PORT))
    if name not in OF_CONNECTIONS:
        yield "connected", get(s, level, option)
    s.sendall(b"echo\nx")
    yield receive_all(s, 1)


def after(name, level, option, values):
    s = peer("echo")
    if name not in OF_CONNECTIONS | TUNED:
        yield get(s, level, option)
    if name not in OF_CONNECTIONS:
        yield from set_and_get(s, level, option, values)
    s.sendall(b"x")
    yield receive_all(s, 1)


def inherited(name, level, option, values):
    s = listener()
    if name not in OF_CONNECTIONS:
        yield from set_and_get(s, level, option, values[:1])
    accepted, _keep = call_back(s)
    if name not in OF_CONNECTIONS:
        yield get(accepted, level, option)
    accepted.sendall(b"x")
    yield receive_all(accepted, 1)
    before_listen = tcp()
    outcome(before_listen.setsockopt, level, option, values[0])
    before_listen.listen()
    accepted, _keep = call_back(before_listen)
    if name not in OF_CONNECTIONS:
        yield get(accepted, level, option)


def make_cases():
    for row in OPTIONS:
        for when in before, after, inherited:
            def run(row=row, when=when):
                yield from when(*row)
            run.__name__ = f"{row[0]}_{when.__name__}"
            case(row[0])(run)


make_cases()


@case("SO_TYPE", "SO_DOMAIN", "SO_PROTOCOL", "SO_ACCEPTCONN", "SO_ERROR",
      "TCP_INFO")
def questions():
    for s in tcp(), peer("echo"), listener():
        for option in (socket.SO_TYPE, socket.SO_DOMAIN, socket.SO_PROTOCOL,
                       socket.SO_ACCEPTCONN, socket.SO_ERROR):
            yield s.getsockopt(SOL, option), outcome(s.setsockopt, SOL, option,
                                                     1)
        yield s.getsockopt(TCP, socket.TCP_INFO, 232)[0]  # tcpi_state
        yield len(s.getsockopt(TCP, socket.TCP_INFO, 20))


@case("SO_LINGER", "SO_RCVTIMEO", "SO_SNDTIMEO")
def structures():
    linger, five = struct.pack("ii", 1, 5), timeval(5.004)
    plain, connected, server = tcp(), peer("echo"), listener()
    for s in plain, connected, server:
        for option, value in ((socket.SO_LINGER, linger),
                              (socket.SO_RCVTIMEO, five),
                              (socket.SO_SNDTIMEO, five)):
            yield outcome(s.setsockopt, SOL, option, value)
            yield s.getsockopt(SOL, option, 16) == s.getsockopt(SOL, option,
                                                                16)
            yield s.getsockopt(SOL, option, 16)
            yield outcome(s.setsockopt, SOL, option, b"\1\0\0\0")
    yield outcome(plain.setsockopt, SOL, socket.SO_RCVTIMEO,
                  struct.pack("ll", 0, 2000000))
    yield outcome(connected.setsockopt, SOL, socket.SO_RCVTIMEO,
                  struct.pack("ll", 0, 2000000))
    plain.connect((PEER, PORT))
    accepted, _keep = call_back(server)
    for s in plain, accepted:
        for option in socket.SO_LINGER, socket.SO_RCVTIMEO, socket.SO_SNDTIMEO:
            yield s.getsockopt(SOL, option, 16)


@case("TCP_CONGESTION")
def congestion():
    s = tcp()
    yield len(s.getsockopt(TCP, socket.TCP_CONGESTION, 16))
    yield outcome(s.setsockopt, TCP, socket.TCP_CONGESTION, b"reno")
    s.connect((PEER, PORT))
    yield s.getsockopt(TCP, socket.TCP_CONGESTION, 16)
    yield outcome(s.setsockopt, TCP, socket.TCP_CONGESTION, b"nonesuch")
    yield outcome(s.setsockopt, TCP, socket.TCP_CONGESTION, b"cubic")
    yield s.getsockopt(TCP, socket.TCP_CONGESTION, 16)
    yield s.getsockopt(TCP, socket.TCP_CONGESTION, 3)


@case("setsockopt", "getsockopt")
def wrong_options():
    value = ctypes.create_string_buffer(64)
    size = ctypes.c_uint(64)
    for s in tcp(), peer("echo"), listener():
        fd = s.fileno()
        yield c("setsockopt", fd, SOL, 2, BAD_POINTER, 4)
        yield c("setsockopt", fd, SOL, 2, value, 2)
        yield c("setsockopt", fd, SOL, 2, value, 0xffffffff)
        yield c("setsockopt", fd, TCP, 1, value, 1)
        yield c("setsockopt", fd, SOL, 9999, value, 4)
        yield c("setsockopt", fd, TCP, 9999, value, 4)
        yield c("setsockopt", fd, 77, 1, value, 4)
        yield c("getsockopt", fd, SOL, 2, BAD_POINTER, ctypes.byref(size))
        yield c("getsockopt", fd, SOL, 2, value, BAD_POINTER)
        yield c("getsockopt", fd, SOL, 9999, value, ctypes.byref(size))
        yield c("getsockopt", fd, TCP, 9999, value, ctypes.byref(size))
        yield c("getsockopt", fd, 77, 1, value, ctypes.byref(size))
        size.value = 2
        value.raw = b"\xff" * 64
        yield c("getsockopt", fd, SOL, socket.SO_ERROR, value,
                ctypes.byref(size)), size.value, value.raw[:4]
        size.value = 0xffffffff
        yield c("getsockopt", fd, SOL, socket.SO_ERROR, value,
                ctypes.byref(size))
        size.value = 64
    yield c("setsockopt", 999, SOL, 2, value, 4)
    yield c("getsockopt", 999, SOL, 2, value, ctypes.byref(size))


@ipv4_case("IPV6_V6ONLY")
def ipv6_only():
    s = socket.socket(socket.AF_INET6)
    yield outcome(s.getsockopt, V6, socket.IPV6_V6ONLY)
    s.connect(("::ffff:" + PEER, PORT))
    yield outcome(s.getsockopt, V6, socket.IPV6_V6ONLY)
    yield outcome(s.setsockopt, V6, socket.IPV6_V6ONLY, 1)
    yield outcome(s.setsockopt, IP, socket.IP_TOS, 16)
    yield outcome(s.setsockopt, V6, socket.IPV6_TCLASS, 16)
    yield outcome(s.getsockopt, V6, socket.IPV6_TCLASS)
    yield outcome(tcp().setsockopt, V6, socket.IPV6_TCLASS, 16)


@case("TCP_MAXSEG")
def in_force():
    """What is set before the connection is what the connection has."""
    s = tcp()
    s.setsockopt(TCP, socket.TCP_MAXSEG, 1000)
    s.connect((PEER, PORT))
    yield s.getsockopt(TCP, socket.TCP_MAXSEG)
    a = tcp()
    a.setsockopt(TCP, socket.TCP_MAXSEG, 800)
    a.listen()
    accepted, _keep = call_back(a)
    yield accepted.getsockopt(TCP, socket.TCP_MAXSEG)
    yield peer("echo").getsockopt(TCP, socket.TCP_MAXSEG) > 1300


@case("TCP_DEFER_ACCEPT", "accept", "poll")
def accept_waits_for_data():
    for is_listening in False, True:
        s = listener() if is_listening else tcp()
        s.setsockopt(TCP, socket.TCP_DEFER_ACCEPT, 5)
        if not is_listening:
            s.bind((OWN, 0))
            s.listen()
        _keep = peer(f"call {OWN} {s.getsockname()[1]} 0.6")
        yield events(s, 300)
        yield events(s, 20000, select.POLLIN)
        accepted = s.accept()[0]
        accepted.setblocking(False)
        yield outcome(accepted.recv, 10)


@case("TCP_DEFER_ACCEPT", "accept")
def accept_does_not_wait_for_ever():
    s = listener()
    s.setsockopt(TCP, socket.TCP_DEFER_ACCEPT, 1)
    _keep = peer(f"call {OWN} {s.getsockname()[1]} 4")
    yield events(s, 300)
    accepted = s.accept()[0]
    accepted.setblocking(False)
    yield outcome(accepted.recv, 10)
    accepted.setblocking(True)
    yield receive_all(accepted, 2)


def never_sent(s):
    value = ctypes.c_int()
    libc.ioctl(s.fileno(), 0x894b, ctypes.byref(value))  # SIOCOUTQNSD
    return value.value


@case("TCP_NOTSENT_LOWAT", "send", "poll")
def unsent_data_is_bounded():
    plain, bounded = peer("deaf"), peer("deaf")
    bounded.setsockopt(TCP, socket.TCP_NOTSENT_LOWAT, 1)
    for s in plain, bounded:
        fill(s)
        yield events(s), outcome(s.send, b"x", socket.MSG_DONTWAIT)
    yield 2 * never_sent(bounded) < never_sent(plain)
    bounded.setsockopt(TCP, socket.TCP_NOTSENT_LOWAT, 1 << 30)
    yield events(bounded, 20000, select.POLLOUT)
    yield bounded.send(b"x", socket.MSG_DONTWAIT)


@case("TCP_USER_TIMEOUT", "SO_ERROR", "read", "write")
def a_peer_that_takes_nothing():
    s = peer("deaf")
    fill(s)
    s.setsockopt(TCP, socket.TCP_USER_TIMEOUT, 1000)
    yield events(s, 20000, select.POLLERR)
    yield outcome(s.recv, 1)
    yield outcome(s.recv, 1), outcome(s.send, b"x")
