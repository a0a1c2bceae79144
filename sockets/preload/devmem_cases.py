#!/usr/bin/env python3
"""Linux's devmem TCP interface, case by case: each asks, and knows the answer.

  devmem_cases.py kernel LOCAL PEER PORT   those that need no device memory
  devmem_cases.py devwire LOCAL PEER PORT  all of them

The peer listens at PEER:PORT and does what a line tells it (devmem_test.py); it
does so, too, at the next port, whose connections a rule keeps in host memory.
Prints lines "ok: CASE" and "not ok: CASE: what differs". What the running
kernel does not know, being older, is "skip: CASE: why".
"""

import ctypes
import errno
import fcntl
import mmap
import os
import select
import signal
import socket
import struct
import sys
import time
import traceback

MSG_SOCK_DEVMEM, MSG_ZEROCOPY = 0x2000000, 0x4000000
SO_ZEROCOPY, SO_DEVMEM_DONTNEED = 60, 80
SCM_DEVMEM_LINEAR, SCM_DEVMEM_DMABUF = 78, 79
TOO_SMALL = 525
NLM_F_REQUEST, NLM_F_ACK = 1, 4
BIND_RX, BIND_TX = 13, 15
LO = 1  # ifindex
SOL, MIB = socket.SOL_SOCKET, 1 << 20

LOCAL, PEER, PORT = sys.argv[2], sys.argv[3], int(sys.argv[4])
libc = ctypes.CDLL(None, use_errno=True)


def pattern(at, size):
    return bytes((i ^ (i >> 8) * 31 ^ (i >> 16) * 17) & 0xff
                 for i in range(at, at + size))


def name(code):
    return errno.errorcode.get(code, code)


def answer(call, *words):
    """What a call returns, or the name of its errno."""
    try:
        return call(*words)
    except OSError as e:
        return name(e.errno)


def dontneed(s, tokens, size=None):
    data = b"".join(struct.pack("II", *t) for t in tokens)
    return set_option(s, SO_DEVMEM_DONTNEED, data,
                      len(data) if size is None else size)


def set_option(s, option, data, size):
    """setsockopt(2) itself, whose result Python does not show."""
    result = libc.setsockopt(s.fileno(), SOL, option, data, size)
    return result if result >= 0 else name(ctypes.get_errno())


def connect(command="sink", port=PORT):
    s = socket.create_connection((PEER, port))
    s.sendall(command.encode() + b"\n")
    return s


def expect(got, wanted, what=""):
    assert got == wanted, f"{what} is {got} instead of {wanted}"


def poll(s, events=0, milliseconds=5000):
    p = select.poll()
    p.register(s.fileno(), events)
    found = p.poll(milliseconds)
    return found[0][1] if found else 0


def readable_bytes(s, wanted):
    for _ in range(500):
        got = struct.unpack("i", fcntl.ioctl(s, 0x541b, b"\0" * 4))[0]
        if got >= wanted:
            break
        time.sleep(0.01)
    return got


def notification(s, room=100, flags=0):
    """(first, last, copied) of the error queue, or the name of an errno."""
    try:
        data, messages, got, _ = s.recvmsg(
            10, room, socket.MSG_ERRQUEUE | flags)
    except OSError as e:
        return name(e.errno)
    expect((data, got), (b"", socket.MSG_ERRQUEUE), "recvmsg")
    expect([(level, kind, len(d)) for level, kind, d in messages],
           [(socket.IPPROTO_IP, 11, 32)], "the control message")
    error, origin, _, code, _, first, last = struct.unpack(
        "IBBBBII", messages[0][2][:16])
    expect((error, origin), (0, 5), "the error")
    return first, last, code


def id_message(number):
    return [(SOL, SCM_DEVMEM_DMABUF, struct.pack("I", number))]


# -- on the kernel and on Devwire ------------------------------------------------


def dontneed_limits():
    s, none = connect(), socket.socket()
    udp = socket.socket(type=socket.SOCK_DGRAM)
    expect(dontneed(s, [(1, 1)]), 0, "never given out")
    expect(dontneed(s, [(1, 1)] * 128), 0, "128 tokens")
    expect(dontneed(s, [(1, 1)] * 129), "EINVAL", "129 tokens")
    expect(dontneed(s, [(1, 0xffffffff)]), 0, "all frags there are")
    for size in 0, 3, 4, 12:
        expect(dontneed(s, [(1, 1)] * 2, size), "EINVAL", f"{size} bytes")
    expect(set_option(s, SO_DEVMEM_DONTNEED, None, 8), "EFAULT", "no tokens")
    expect(dontneed(none, [(1, 1)]), 0, "not connected")
    expect(dontneed(udp, [(1, 1)]), "EBADF", "UDP")
    listener = socket.create_server((LOCAL, 0))
    expect(dontneed(listener, [(1, 1)]), 0, "a listener")
    expect(answer(s.getsockopt, SOL, SO_DEVMEM_DONTNEED), "ENOPROTOOPT")
    for option in SCM_DEVMEM_LINEAR, SCM_DEVMEM_DMABUF:
        expect(set_option(s, option, b"12345678", 8), "ENOPROTOOPT")


def zerocopy_option():
    s = connect()
    expect(s.getsockopt(SOL, SO_ZEROCOPY), 0, "at first")
    for value in -1, 2:
        expect(answer(s.setsockopt, SOL, SO_ZEROCOPY, value), "EINVAL", value)
    expect(set_option(s, SO_ZEROCOPY, b"\1", 1), "EINVAL", "one byte")
    s.setsockopt(SOL, SO_ZEROCOPY, 1)
    expect(s.getsockopt(SOL, SO_ZEROCOPY), 1)
    s.setsockopt(SOL, SO_ZEROCOPY, 0)
    expect(s.getsockopt(SOL, SO_ZEROCOPY), 0)
    early = socket.socket()
    early.setsockopt(SOL, SO_ZEROCOPY, 1)
    early.connect((PEER, PORT))
    expect(early.getsockopt(SOL, SO_ZEROCOPY), 1, "set before")
    listener = socket.create_server((LOCAL, 0))
    listener.setsockopt(SOL, SO_ZEROCOPY, 1)
    caller = connect(f"call {LOCAL} {listener.getsockname()[1]}")
    accepted, _ = listener.accept()
    expect(accepted.getsockopt(SOL, SO_ZEROCOPY), 1, "inherited")
    del caller


def send_errors():
    s, with_option = connect(), connect()
    with_option.setsockopt(SOL, SO_ZEROCOPY, 1)
    for what, sock, data, control, flags, wanted in (
            ("an unknown id", with_option, b"abc", id_message(77),
             MSG_ZEROCOPY, "EINVAL"),
            ("no MSG_ZEROCOPY", with_option, b"abc", id_message(77), 0,
             "EINVAL"),
            ("no SO_ZEROCOPY", s, b"abc", id_message(77), MSG_ZEROCOPY,
             "EINVAL"),
            ("an id of eight bytes", with_option, b"abc",
             [(SOL, SCM_DEVMEM_DMABUF, b"12345678")], MSG_ZEROCOPY, "EINVAL"),
            ("id 0 is none", with_option, b"abc", id_message(0), 0, 3),
            ("nothing to send", with_option, b"", id_message(77),
             MSG_ZEROCOPY, 0),
            ("nothing to send, no flag", with_option, b"", id_message(77), 0,
             "EINVAL"),
            ("an unknown message", s, b"abc", [(SOL, 99, b"1234")], 0,
             "EINVAL"),
            ("a message of another level", s, b"abc", [(99, 99, b"1234")], 0,
             3),
            ("SCM_RIGHTS", s, b"abc", [(SOL, 1, b"1234")], 0, 3)):
        expect(answer(sock.sendmsg, [data], control, flags), wanted, what)
    with_option.shutdown(socket.SHUT_WR)
    no_signal = MSG_ZEROCOPY | socket.MSG_NOSIGNAL
    expect(answer(with_option.sendmsg, [b"abc"], [], no_signal), "EPIPE")
    expect(answer(with_option.sendmsg, [b"abc"], id_message(77), no_signal),
           "EINVAL", "an unknown id after the end")


def error_queue():
    s = connect()
    s.setsockopt(SOL, SO_ZEROCOPY, 1)
    expect(notification(s), "EAGAIN", "empty")
    expect(poll(s, 0, 0), 0)
    expect(s.sendmsg([b"abc"], [], MSG_ZEROCOPY), 3)
    expect(poll(s), select.POLLERR)
    expect(s.sendmsg([b"de", b"fg"], [], MSG_ZEROCOPY), 4)
    time.sleep(0.3)
    expect(s.getsockopt(SOL, socket.SO_ERROR), 0)
    expect(answer(s.recv, 10, socket.MSG_DONTWAIT), "EAGAIN", "recv")
    expect(select.select([s], [], [s], 1), ([s], [], []), "select")
    expect(s.sendmsg([b""], [], MSG_ZEROCOPY), 0)
    expect(notification(s), (0, 1, 1), "both")
    expect(notification(s), "EAGAIN", "then")
    expect(poll(s, 0, 0), 0)
    s.send(b"abc", MSG_ZEROCOPY)
    expect(poll(s), select.POLLERR)
    expect(notification(s, flags=socket.MSG_PEEK), (2, 2, 1), "peeked")
    expect(notification(s), "EAGAIN", "and gone")
    s.setsockopt(SOL, SO_ZEROCOPY, 0)
    s.send(b"abc", MSG_ZEROCOPY)  # Means nothing.
    expect(poll(s, 0, 100), 0)
    s.setsockopt(SOL, SO_ZEROCOPY, 1)
    s.send(b"abc", MSG_ZEROCOPY)
    expect(poll(s), select.POLLERR)
    _, messages, flags, _ = s.recvmsg(10, 20, socket.MSG_ERRQUEUE)
    expect((messages[0][:2], flags),
           ((socket.IPPROTO_IP, 11), socket.MSG_ERRQUEUE | socket.MSG_CTRUNC))
    s.send(b"abc", MSG_ZEROCOPY)
    expect(poll(s), select.POLLERR)
    expect(answer(s.recv, 10, socket.MSG_ERRQUEUE), b"", "recv")
    expect(answer(s.recv, 10, socket.MSG_ERRQUEUE), "EAGAIN")
    listener = socket.create_server((LOCAL, 0))
    expect(notification(listener), "EAGAIN", "a listener")


def error_queue_edges():
    s = connect()
    s.setsockopt(SOL, SO_ZEROCOPY, 1)
    epoll = select.epoll()
    epoll.register(s, select.EPOLLET | select.EPOLLIN)
    for i in range(5):
        s.send(b"abc", MSG_ZEROCOPY)
        expect(epoll.poll(5), [(s.fileno(), select.EPOLLERR)])
        expect(epoll.poll(0), [])
        expect(notification(s), (i, i, 1))


def ordinary_data():
    s = connect("send 5000")
    expect(readable_bytes(s, 5000), 5000)
    expect(s.recvmsg(3000, 500, MSG_SOCK_DEVMEM),
           (pattern(0, 3000), [], 0, None))
    expect(s.recvmsg(3000, 0, MSG_SOCK_DEVMEM)[0], pattern(3000, 2000))
    expect(answer(s.recvmsg, 10, 100, MSG_SOCK_DEVMEM | socket.MSG_DONTWAIT),
           "EAGAIN")


# -- with device memory: on Devwire ------------------------------------------------


class Memory:
    """A memfd that stands in for a dmabuf."""

    def __init__(self, size=4 * MIB, seal=True):
        self.fd = os.memfd_create("cases", os.MFD_ALLOW_SEALING)
        os.ftruncate(self.fd, size)
        if seal:
            fcntl.fcntl(self.fd, 1033, 2)  # F_ADD_SEALS, F_SEAL_SHRINK
        self.bytes = mmap.mmap(self.fd, size)


def attribute(kind, data):
    size = 4 + len(data)
    return struct.pack("HH", size, kind) + data + b"\0" * (-size % 4)


def u32(kind, value):
    return attribute(kind, struct.pack("I", value & 0xffffffff))


def generic(family, command, attributes, flags=NLM_F_REQUEST | NLM_F_ACK,
            seq=5):
    return struct.pack("IHHIIBBH", 20 + len(attributes), family, flags, seq,
                       0, command, 1, 0) + attributes


def open_netlink():
    s = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, 16)
    s.settimeout(5)
    return s


def error_in(datagram):
    kind = struct.unpack("H", datagram[4:6])[0]
    return -struct.unpack("i", datagram[16:20])[0] if kind == 2 else None


def family_of(s):
    s.send(generic(16, 3, attribute(2, b"netdev\0")))
    reply = s.recv(8192)
    expect(error_in(reply), None, "the family netdev")
    at, found = 20, None
    while at < len(reply):
        size, kind = struct.unpack("HH", reply[at:at + 4])
        if kind == 1:
            found = struct.unpack("H", reply[at + 4:at + 6])[0]
        at += size + -size % 4
    expect(error_in(s.recv(8192)), 0, "its acknowledgement")
    return found


def queue(number, kind=0):
    return attribute(0x8000 | 2, u32(1, number) + u32(3, kind))


def bind(s, fd, queues=(0,), command=BIND_RX, ifindex=LO):
    """The dmabuf's id, or the name of an errno."""
    s.send(generic(family_of(s), command, u32(1, ifindex) + u32(3, fd) +
                   b"".join(map(queue, queues))))
    reply = s.recv(8192)
    error = error_in(reply)
    if error is not None:
        return name(error)
    expect(struct.unpack("IHHI", reply[:12])[3], 5, "the sequence number")
    expect(error_in(s.recv(8192)), 0, "the acknowledgement")
    return struct.unpack("HHI", reply[20:28])[2]


class Bound:
    """Memory, bound to receive into (and some to send from) while this is
    open."""

    def __init__(self, memory=None, sends=False, number=0):
        self.memory = memory or Memory()
        self.netlink = open_netlink()
        self.id = bind(self.netlink, self.memory.fd, (number,))
        assert isinstance(self.id, int), f"not bound: {self.id}"
        # Of its own: what is bound to receive is the NIC's to write.
        self.send_memory = Memory() if sends else None
        self.send_id = sends and bind(self.netlink, self.send_memory.fd, (),
                                      BIND_TX)

    def __enter__(self):
        return self

    def __exit__(self, *error):
        self.netlink.close()

    def receive(self, s, room=MIB, control=64, flags=0):
        """One recvmsg: its bytes, and the tokens of those in device memory."""
        data, messages, got, _ = s.recvmsg(
            room, control * socket.CMSG_SPACE(24), MSG_SOCK_DEVMEM | flags)
        expect(got, 0, "msg_flags")
        out, tokens, at = b"", [], 0
        for level, kind, cmsg in messages:
            offset, size, token, number, _ = struct.unpack("QIIII", cmsg)
            expect(level, SOL)
            if kind == SCM_DEVMEM_LINEAR:
                out += data[at:at + size]
                at += size
            else:
                expect((kind, number), (SCM_DEVMEM_DMABUF, self.id))
                out += self.memory.bytes[offset:offset + size]
                tokens.append(token)
        return out if messages else data, tokens

    def receive_all(self, s, size, **more):
        out, tokens = b"", []
        while len(out) < size:
            data, some = self.receive(s, **more)
            assert data, f"the end after {len(out)} bytes"
            out += data
            tokens += some
        return out, tokens


def netlink_answers():
    s = open_netlink()
    family = family_of(s)
    memory = Memory()
    request = u32(1, LO) + u32(3, memory.fd) + queue(0)
    expect(poll(s, select.POLLIN, 0), 0)
    s.send(generic(family, BIND_RX, request, NLM_F_REQUEST, 9))
    expect(poll(s, select.POLLIN), select.POLLIN)
    peeked = s.recv(8192, socket.MSG_PEEK | socket.MSG_TRUNC)
    reply, sender = s.recvfrom(8192)
    expect(reply, peeked)
    expect(sender, (0, 0), "the sender")
    size, kind, flags, seq, port = struct.unpack("IHHII", reply[:16])
    expect((size, kind, flags, seq, port),
           (len(reply), family, 0, 9, s.getsockname()[0]))
    expect(poll(s, select.POLLIN, 0), 0, "without NLM_F_ACK")
    # An error is told in any case, and before what is asked after it.
    s.send(generic(family, BIND_RX, request, NLM_F_REQUEST, 10))
    s.send(generic(16, 3, attribute(2, b"nlctrl\0"), NLM_F_REQUEST, 11))
    error = s.recv(8192)
    expect((name(error_in(error)), struct.unpack("I", error[8:12])[0]),
           ("EEXIST", 10))
    expect(struct.unpack("HHI", s.recv(8192)[4:12])[::2], (16, 11))
    # What is not ours is the kernel's.
    s.send(generic(family, 200, b"", NLM_F_REQUEST, 12))
    assert error_in(s.recv(8192)), "an unknown command"
    # By other calls: write, read, sendmsg, recvmsg.
    other = open_netlink()
    os.write(other.fileno(), generic(family, BIND_TX, u32(1, LO) +
                                     u32(3, memory.fd)))
    expect(len(os.read(other.fileno(), 20)), 20, "cut")
    expect(error_in(os.read(other.fileno(), 100)), 0)
    head = generic(family, BIND_TX, b"")
    other.sendmsg([head[:7], head[7:]])
    data, _, flags, _ = other.recvmsg(18)
    expect((len(data), flags), (18, socket.MSG_TRUNC))
    other.sendto(head, (0, 0))
    expect(name(error_in(other.recv(100))), "EINVAL")


def what_cannot_be_bound():
    memory, unsealed, small = Memory(), Memory(seal=False), Memory(4096)
    s = open_netlink()
    family = family_of(s)
    expect(bind(s, memory.fd, (), BIND_RX), "EINVAL", "no queue")
    expect(bind(s, memory.fd, ifindex=9999), "ENODEV")
    expect(bind(s, 9999), "EBADF")
    expect(bind(s, unsealed.fd), "EINVAL", "not sealed")
    expect(bind(s, small.fd), "EINVAL", "fewer than 64 slots")
    expect(bind(s, 0, (), BIND_TX), "EINVAL", "no dmabuf")
    s.send(generic(family, BIND_RX, u32(1, LO) + u32(3, memory.fd) +
                   queue(0, 1)))
    expect(name(error_in(s.recv(8192))), "EINVAL", "a queue that sends")


def a_binding_ends_with_its_socket():
    memory = Memory()
    first, second = open_netlink(), open_netlink()
    number = bind(first, memory.fd, (7,))
    expect(bind(second, memory.fd, (8, 7)), "EEXIST")
    copy = first.dup()
    again = os.dup2(copy.fileno(), 100)
    first.close()
    copy.close()
    expect(bind(second, memory.fd, (7,)), "EEXIST", "it has a descriptor")
    os.close(again)
    assert bind(second, memory.fd, (7,)) > number
    second.close()


def without_the_flag():
    with Bound() as bound:
        s = connect("send 3000")
        expect(readable_bytes(s, 3000), 3000)
        expect(poll(s, select.POLLIN), select.POLLIN)
        for call in (lambda: s.recv(10), lambda: os.read(s.fileno(), 10),
                     lambda: s.recvfrom(10), lambda: s.recvmsg(10, 500),
                     lambda: os.readv(s.fileno(), [bytearray(9)]),
                     lambda: s.recv(10, socket.MSG_PEEK)):
            expect(answer(call), "EFAULT")
        expect(answer(s.recv, 10, MSG_SOCK_DEVMEM), name(TOO_SMALL),
               "recv has no room for control messages")
        data, tokens = bound.receive_all(s, 3000)
        expect(data, pattern(0, 3000))
        expect(readable_bytes(s, 0), 0)
        expect(poll(s, select.POLLIN, 0), 0)
        expect(dontneed(s, [(t, 1) for t in tokens]), len(tokens))


def short_control_buffers():
    with Bound() as bound:
        s = connect("send 6000")
        readable_bytes(s, 6000)
        for room in 0, 16, socket.CMSG_LEN(24) - 1:
            expect(answer(s.recvmsg, 9000, room, MSG_SOCK_DEVMEM),
                   name(TOO_SMALL), f"room for {room}")
        data, messages, flags, _ = s.recvmsg(9000, socket.CMSG_LEN(24),
                                             MSG_SOCK_DEVMEM)
        expect((len(messages), flags), (1, 0))
        expect(len(data), struct.unpack("QI", messages[0][2][:12])[1])
        rest, tokens = bound.receive_all(s, 6000 - len(data), control=2)
        assert pattern(0, 6000).endswith(rest)
        assert len(tokens) >= 3, tokens


def waiting():
    with Bound() as bound:
        s = connect("slowly 10 1000")  # 10 times 1000 bytes
        data, _ = bound.receive(s, flags=socket.MSG_WAITALL, room=10000)
        expect(data, pattern(0, 10000), "MSG_WAITALL")
        expect(answer(bound.receive, s, MIB, 64, socket.MSG_DONTWAIT),
               "EAGAIN")
        s.setsockopt(SOL, socket.SO_RCVTIMEO, struct.pack("qq", 0, 50000))
        expect(answer(bound.receive, s), "EAGAIN", "SO_RCVTIMEO")
        s = connect("slowly 10 1000")
        s.setsockopt(SOL, socket.SO_RCVLOWAT, 5000)
        data, _ = bound.receive(s)
        assert len(data) >= 5000, f"{len(data)} with SO_RCVLOWAT"
        s = connect("slowly 3 1000")
        s.shutdown(socket.SHUT_WR)
        data, _ = bound.receive(s, flags=socket.MSG_WAITALL)
        expect(data, pattern(0, 3000), "MSG_WAITALL up to the end")
        expect(bound.receive(s), (b"", []), "the end")


def peeking_and_discarding():
    with Bound() as bound:
        s = connect("send 4000")
        readable_bytes(s, 4000)
        peeked, first = bound.receive(s, flags=socket.MSG_PEEK)
        data, second = bound.receive(s, room=len(peeked))
        expect(data, peeked)
        assert not set(first) & set(second), (first, second)
        left = 4000 - len(data)
        expect(readable_bytes(s, left), left)
        expect(len(s.recv(left, socket.MSG_TRUNC)) if left else 0, left)
        expect(dontneed(s, [(t, 1) for t in first + second + first]),
               len(first) + len(second))


def frags_run_out():
    """Nothing is given back: the sender stands still, and goes on after."""
    with Bound(Memory(256 << 10)) as bound:
        s = connect("send 1000000")
        s.settimeout(0.5)
        out, held, times = b"", [], 0
        while len(out) < 1000000:
            try:
                data, tokens = bound.receive(s)
            except TimeoutError:
                if held:  # Else the peer has not tried again yet.
                    times += 1
                    expect(dontneed(s, [(held[0], 1024)]),
                           min(len(held), 1024))
                    held = held[1024:]
                continue
            # Those of one call follow one another.
            expect(tokens, list(range(tokens[0], tokens[0] + len(tokens))))
            out += data
            held += tokens
        expect(out, pattern(0, 1000000))
        assert times >= 3, f"it stood still {times} times"
        s.close()  # With tokens out.
        s = connect("send 300000")
        out = b""
        while len(out) < 300000:
            data, tokens = bound.receive(s)
            out += data
            expect(dontneed(s, [(tokens[0], len(tokens))]), len(tokens))
        expect(out, pattern(0, 300000), "after the close")


def which_streams():
    before = connect("send 2000")
    listener = socket.create_server((LOCAL, 0))
    with Bound() as bound:
        expect(before.recv(2000, socket.MSG_WAITALL), pattern(0, 2000),
               "opened before")
        late = socket.create_server((LOCAL, 0))
        caller = connect(f"call {LOCAL} {late.getsockname()[1]}")
        accepted, _ = late.accept()
        data, tokens = bound.receive(accepted)
        assert data and tokens, "accepted"
        with Bound(number=1) as newer:
            s = connect("send 100")
            expect(newer.receive(s, flags=socket.MSG_WAITALL, room=100)[0],
                   pattern(0, 100), "the newest binding")
        s = connect("send 100")
        expect(len(bound.receive(s)[1]), 1, "the older again")
        del caller
        s = connect("send 100", PORT + 1)
        expect(s.recv(100, socket.MSG_WAITALL), pattern(0, 100), "by a rule")
    s = connect("send 100")
    expect(s.recv(100, socket.MSG_WAITALL), pattern(0, 100), "unbound")
    # What is open goes on.
    accepted.sendall(b"x")
    del listener


def bound_to_an_interface():
    with Bound() as bound:  # To lo, which so stands for the device.
        s = socket.socket()
        s.setsockopt(SOL, socket.SO_BINDTODEVICE, b"lo\0")
        s.connect((PEER, PORT))
        s.sendall(b"send 100\n")
        expect(len(bound.receive_all(s, 100)[1]), 1, "in device memory")


def send_spans(s, spans, number):
    """sendmsg(2) of (offset, length) in a dmabuf: no address of Python's."""
    iovs = (ctypes.c_size_t * (2 * len(spans)))(
        *(x for span in spans for x in span))
    control = ctypes.create_string_buffer(
        struct.pack("QIII", 20, SOL, SCM_DEVMEM_DMABUF, number), 24)
    message = struct.pack("QQQQQQQ", 0, 0, ctypes.addressof(iovs), len(spans),
                          ctypes.addressof(control), 24, 0)
    result = libc.sendmsg(s.fileno(), message,
                          MSG_ZEROCOPY | socket.MSG_NOSIGNAL)
    return result if result >= 0 else name(ctypes.get_errno())


def a_full_send_queue():
    with Bound(sends=True) as bound:
        s = connect("stall")
        s.setsockopt(SOL, SO_ZEROCOPY, 1)
        s.setblocking(False)
        sends = 0
        while (result := send_spans(s, [(0, 2 * MIB)],
                                    bound.send_id)) == 2 * MIB:
            sends += 1
            assert sends < 100, "it never fills"
        expect(result, "EAGAIN")
        # The peer reads no more: writable it is only when the queue has room.
        expect(poll(s, select.POLLOUT, 0) & select.POLLOUT, 0)
        s.setblocking(True)
        s.setsockopt(SOL, socket.SO_SNDTIMEO, struct.pack("qq", 0, 50000))
        expect(send_spans(s, [(0, 2 * MIB)], bound.send_id), "EAGAIN",
               "SO_SNDTIMEO")


def send_from_device_memory():
    with Bound(sends=True) as bound:
        memory = bound.send_memory.bytes
        memory[:] = pattern(0, len(memory))
        s = connect("check")
        s.setsockopt(SOL, SO_ZEROCOPY, 1)

        def send(spans, number=bound.send_id):
            return send_spans(s, spans, number)

        size = len(memory)
        expect(send([(size - 10, 11)]), "EFAULT")
        expect(send([(0, 5), (size, 1)]), "EFAULT")
        expect(send([(1 << 63, 1)]), "EFAULT")
        expect(send([(0, 5)], bound.id), "EINVAL", "bound to receive")
        expect(send([(0, 0), (0, 0)]), 0)
        expect(send([(100, 1000), (5, 0), (size - 3, 3)]), 1003)
        many = [(i * 7, 5) for i in range(300)]
        expect(send(many), 1500, "300 pieces")
        expect(send([(0, size)]), size)
        done = []
        while not done or done[-1][1] < 2:
            assert poll(s) & select.POLLERR
            done.append(notification(s))
        expect((done[0][0], done[-1][1], {d[2] for d in done}), (0, 2, {0}))
        expect([d[0] for d in done[1:]], [d[1] + 1 for d in done[:-1]])
        sent = (memory[100:1100] + memory[size - 3:] +
                b"".join(memory[a:a + n] for a, n in many) + memory[:])
        expect(send([(0, 10)]), 10)
        s.sendall(b"host")  # After what was sent before.
        s.shutdown(socket.SHUT_WR)
        expect(send([(0, 10)]), "EPIPE")
        sent += memory[:10] + b"host"
        data, _ = bound.receive_all(s, 8)
        expect(struct.unpack("Q", data)[0],
               sum((i % 65521 + 1) * b for i, b in enumerate(sent)),
               "what arrived")
    expect(send([(0, 10)]), "EINVAL", "unbound")


def main():
    signal.alarm(300)
    mode = sys.argv[1]
    cases = [dontneed_limits, zerocopy_option, send_errors, error_queue,
             error_queue_edges, ordinary_data]
    if mode == "devwire":
        cases += [netlink_answers, what_cannot_be_bound,
                  a_binding_ends_with_its_socket, without_the_flag,
                  short_control_buffers, waiting, peeking_and_discarding,
                  frags_run_out, which_streams, bound_to_an_interface, send_from_device_memory,
                  a_full_send_queue]
    else:
        s = connect()
        knows_rx = dontneed(s, [(1, 1)]) == 0
        knows_tx = answer(s.sendmsg, [b"a"], id_message(0)) == 1
        if not knows_rx:
            cases.remove(dontneed_limits)
            cases.remove(ordinary_data)
            print("skip: dontneed_limits: before Linux 6.12")
        if not knows_tx:
            cases.remove(send_errors)
            print("skip: send_errors: before Linux 6.16")
    for case in cases:
        try:
            case()
            print(f"ok: {case.__name__}", flush=True)
        except Exception as e:  # pylint: disable=broad-except
            where = traceback.extract_tb(e.__traceback__)[1].lineno
            print(f"not ok: {case.__name__}: line {where}: "
                  f"{type(e).__name__} {e}", flush=True)


if __name__ == "__main__":
    main()
