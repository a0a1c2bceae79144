"""What the cases share: how one is declared, its peer, and how to say what a
call did.

A case is a generator whose results are printed, one a line. It names the rows
of docs/sockets.md that it is about.
"""

import ctypes
import errno
import os
import select
import socket
import struct
import sys

OWN, PEER, PORT = sys.argv[1], sys.argv[2], int(sys.argv[3])
IS_V6 = ":" in OWN
FAMILY = socket.AF_INET6 if IS_V6 else socket.AF_INET
# Hosts of the peer's network that are not there.
NOBODY, NOBODY_ELSE = (PEER[:-1] + n if IS_V6 else PEER.rsplit(".", 1)[0] + n
                       for n in ((".77", ".78") if not IS_V6 else ("77", "78")))
MULTICAST = "ff02::1" if IS_V6 else "224.0.0.1"
NOT_OURS = "2001:db8::1" if IS_V6 else "192.0.2.1"
POLL = ("IN", "PRI", "OUT", "ERR", "HUP", "RDHUP")
ALL = 0
for name in POLL:
    ALL |= getattr(select, "POLL" + name)
CASES = []

libc = ctypes.CDLL(None, use_errno=True)
BAD_POINTER = 8  # In the first page.


def case(*rows):
    def add(function):
        CASES.append((function, rows))
        return function
    return add


def ipv4_case(*rows):
    """Of addresses of IPv4, mapped ones included."""
    return (lambda function: function) if IS_V6 else case(*rows)


def tcp():
    return socket.socket(FAMILY)


def raw(address, port):
    """A struct sockaddr."""
    if IS_V6:
        return struct.pack("=HHI16sI", FAMILY, socket.htons(port), 0,
                           socket.inet_pton(FAMILY, address), 0)
    return struct.pack("=HH4s8x", FAMILY, socket.htons(port),
                       socket.inet_aton(address))


def peer(what="echo", **options):
    s = socket.create_connection((PEER, PORT), timeout=20, **options)
    s.settimeout(None)
    s.sendall(what.encode() + b"\n")
    return s


def listener(backlog=5, reuse=True):
    s = tcp()
    if reuse:
        s.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    s.bind((OWN, 0))
    s.listen(backlog)
    return s


def call_back(s, greeting=True):
    """The peer connects to this listener. What accept gives, and what keeps the
    peer's end open."""
    own, port = s.getsockname()[:2]
    keep = peer(f"call {OWN} {port}")
    accepted, _ = s.accept()
    if greeting:
        assert receive_all(accepted, 2) == b"hi"
    return accepted, keep


def outcome(f, *args):
    """What the call answers, or its errno by name."""
    try:
        result = f(*args)
        return len(result) if isinstance(result, bytes) else result
    except TimeoutError as e:
        return errno.errorcode[e.errno] if e.errno else "timed out"
    except OSError as e:
        return errno.errorcode[e.errno]


def c(name, *args):
    """A call of libc's: its result, or its errno by name."""
    function = getattr(libc, name)
    function.restype = ctypes.c_ssize_t
    result = function(*args)
    if ctypes.c_int(result).value == -1:
        return errno.errorcode[ctypes.get_errno()]
    return result


def events(s, timeout_ms=0, wanted=0):
    """poll(2) of the socket; waits until it shows `wanted`."""
    p = select.poll()
    p.register(s, ALL)
    bits = 0
    for _ in range(400):
        got = p.poll(timeout_ms if not wanted else 20)
        bits = got[0][1] if got else 0
        if bits & wanted == wanted:
            break
        select.select([], [], [], 0.02)
    return "|".join(n for n in POLL if bits & getattr(select, "POLL" + n))


def wait_for(predicate):
    for _ in range(500):
        if predicate():
            return True
        select.select([], [], [], 0.01)
    return False


def readable_bytes(s):
    value = ctypes.c_int()
    libc.ioctl(s.fileno(), 0x541b, ctypes.byref(value))  # FIONREAD
    return value.value


def wait_readable(s, size):
    wait_for(lambda: readable_bytes(s) >= size)
    return readable_bytes(s)


def fill(s):
    """Until nothing more goes in, for a while."""
    s.setblocking(False)
    while select.select([], [s], [], 0.3)[1]:
        try:
            s.send(bytes(1 << 16))
        except BlockingIOError:
            pass
    while outcome(s.send, b"x") == 1:
        pass
    s.setblocking(True)


def receive_all(s, size):
    data = b""
    while len(data) < size:
        more = s.recv(size - len(data))
        if not more:
            break
        data += more
    return data


def timeval(seconds):
    return struct.pack("ll", int(seconds), int(seconds % 1 * 1e6))


def rows():
    """CASE ROW... a line: what shim_test.py compares with docs/sockets.md."""
    for function, names in CASES:
        print(function.__name__, *names)


def run():
    for function, _ in CASES:
        for i, result in enumerate(function()):
            print(f"{function.__name__} {i}: {result}", flush=True)
