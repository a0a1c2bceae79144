"""Cases: recvmsg, sendmsg, and many at once."""

import ctypes
import socket
import struct
import time

from harness import (BAD_POINTER, c, case, outcome, peer, receive_all,
                     timeval, wait_readable, tcp)


class Iovec(ctypes.Structure):
    _fields_ = [("base", ctypes.c_void_p), ("size", ctypes.c_size_t)]


class Msghdr(ctypes.Structure):
    _fields_ = [("name", ctypes.c_void_p), ("namelen", ctypes.c_uint),
                ("iov", ctypes.POINTER(Iovec)), ("iovlen", ctypes.c_size_t),
                ("control", ctypes.c_void_p), ("controllen", ctypes.c_size_t),
                ("flags", ctypes.c_int)]


class Mmsghdr(ctypes.Structure):
    _fields_ = [("hdr", Msghdr), ("len", ctypes.c_uint)]


def message(*buffers):
    vector = (Iovec * max(len(buffers), 1))()
    for i, b in enumerate(buffers):
        vector[i] = Iovec(ctypes.addressof(b), len(b))
    m = Msghdr(iov=vector, iovlen=len(buffers))
    m.keep = vector, buffers
    return m


def text(data):
    return ctypes.create_string_buffer(data, len(data))


@case("sendmsg", "recvmsg")
def one_message():
    s = peer("echo")
    fd = s.fileno()
    m = message(text(b"two "), text(b"parts"))
    yield c("sendmsg", fd, ctypes.byref(m), 0)
    a, b = text(b"...."), text(b".........")
    m = message(a, b)
    name, control = text(b"\xff" * 16), text(b"\xff" * 64)
    m.name, m.namelen = ctypes.addressof(name), 16
    m.control, m.controllen = ctypes.addressof(control), 64
    m.flags = 99
    wait_readable(s, 9)
    yield c("recvmsg", fd, ctypes.byref(m), 0), a.raw, b.raw
    yield m.namelen, m.controllen, m.flags, name.raw == b"\xff" * 16
    yield c("recvmsg", fd, ctypes.byref(m), socket.MSG_DONTWAIT)
    m = message(a)
    m.namelen = 5
    s.sendall(b"more")
    wait_readable(s, 4)
    yield c("recvmsg", fd, ctypes.byref(m), 0x40000000), m.namelen, m.flags
    yield c("recvmsg", fd, BAD_POINTER, 0), c("sendmsg", fd, BAD_POINTER, 0)
    m = message()
    yield c("sendmsg", fd, ctypes.byref(m), 0)
    yield c("recvmsg", fd, ctypes.byref(m), socket.MSG_DONTWAIT)
    m.iovlen = 1025
    m.iov = (Iovec * 1025)()
    yield c("sendmsg", fd, ctypes.byref(m), 0), c("recvmsg", fd,
                                                  ctypes.byref(m), 0)
    yield outcome(tcp().recvmsg, 1), c("recvmsg", 999,
                                                 ctypes.byref(m), 0)
    m = message(a)
    yield c("recvmsg", fd, ctypes.byref(m), socket.MSG_ERRQUEUE)


@case("sendmmsg", "recvmmsg")
def many_messages():
    s = peer("echo")
    fd = s.fileno()
    sent = [message(text(t)) for t in (b"one", b"three", b"seven..")]
    out = (Mmsghdr * 3)(*map(Mmsghdr, sent))
    yield c("sendmmsg", fd, out, 3, 0), [m.len for m in out]
    wait_readable(s, 15)
    buffers = [text(b"....") for _ in range(5)]
    received = [message(b) for b in buffers]
    into = (Mmsghdr * 5)(*map(Mmsghdr, received))
    yield c("recvmmsg", fd, into, 3, 0, None), [m.len for m in into]
    yield [b.raw for b in buffers]
    yield c("recvmmsg", fd, into, 5, 0x10000, None)  # MSG_WAITFORONE
    yield c("recvmmsg", fd, into, 5, socket.MSG_DONTWAIT, None)
    s.sendall(b"abc")
    zero = struct.pack("ll", 0, 1)
    yield c("recvmmsg", fd, into, 5, 0, zero), buffers[0].raw[:3]
    yield c("recvmmsg", fd, into, 5, 0, struct.pack("ll", -1, 0))
    yield c("recvmmsg", fd, into, 5, 0, BAD_POINTER)
    yield c("recvmmsg", fd, into, 0, 0, None), c("sendmmsg", fd, into, 0, 0)
    yield c("recvmmsg", fd, BAD_POINTER, 1, 0, None)
    yield c("sendmmsg", fd, BAD_POINTER, 1, 0)
    s.shutdown(socket.SHUT_WR)
    yield c("sendmmsg", fd, out, 3, socket.MSG_NOSIGNAL)
    yield c("recvmmsg", fd, into, 2, 0, None), into[0].len
