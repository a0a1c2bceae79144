"""The two hosts that differential_test.py compares, Linux and ours, the wire to
each, and frames."""

import collections
import fcntl
import os
import select
import socket
import struct
import subprocess
import time

PEER_IP, SUT_IP = "10.80.0.1", "10.80.0.2"
PORT = 27080
PEER_MAC = bytes.fromhex("020000008001")
SUT_MAC = bytes.fromhex("020000008002")
PATIENCE_S = 60  # For an answer that must come; how long a hang is none.
FIN, SYN, RST, PSH, ACK, URG = 1, 2, 4, 8, 16, 32
MASK = 0xffffffff


def run(command):
    subprocess.run(command, shell=True, check=True)


# -- frames --------------------------------------------------------------------


def checksum(data):
    if len(data) % 2:
        data += b"\0"
    total = sum(struct.unpack(f">{len(data) // 2}H", data))
    while total >> 16:
        total = (total & 0xffff) + (total >> 16)
    return ~total & 0xffff


def merged(ranges):
    """[(begin, end)], sorted, without overlaps and seams."""
    out = []
    for begin, end in sorted(ranges):
        if out and begin <= out[-1][1]:
            out[-1] = (out[-1][0], max(out[-1][1], end))
        else:
            out.append((begin, end))
    return out


def arp(operation, target_mac):
    return (b"\xff" * 6 if operation == 1 else target_mac) + PEER_MAC + \
        struct.pack(">HHHBBH", 0x806, 1, 0x800, 6, 4, operation) + PEER_MAC + \
        socket.inet_aton(PEER_IP) + target_mac + socket.inet_aton(SUT_IP)


def frame(port, seq, ack, flags, payload=b"", options=b"", wnd=65535, urgent=0,
          bad_checksum=False, to=PORT):
    options += b"\1" * (-len(options) % 4)
    length = 20 + len(options) + len(payload)
    tcp = struct.pack(">HHIIBBHHH", port, to, seq & MASK, ack & MASK,
                      (20 + len(options)) << 2, flags, wnd, 0, urgent)
    pseudo = socket.inet_aton(PEER_IP) + socket.inet_aton(SUT_IP) + \
        struct.pack(">BBH", 0, 6, length)
    total = checksum(pseudo + tcp + options + payload) ^ bad_checksum
    tcp = tcp[:16] + struct.pack(">H", total) + tcp[18:]
    ip = struct.pack(">BBHHHBBH4s4s", 0x45, 0, 20 + length, 0, 0x4000, 64, 6, 0,
                     socket.inet_aton(PEER_IP), socket.inet_aton(SUT_IP))
    ip = ip[:10] + struct.pack(">H", checksum(ip)) + ip[12:]
    return SUT_MAC + PEER_MAC + b"\x08\x00" + ip + tcp + options + payload


Segment = collections.namedtuple("Segment",
                                 "source seq ack flags wnd options length")


def parse_options(data):
    options = {}
    while data and data[0] != 0:
        if data[0] == 1:
            data = data[1:]
            continue
        if len(data) < 2 or not 2 <= data[1] <= len(data):
            raise RuntimeError("the answer's options are malformed")
        options[data[0]] = data[2:data[1]]
        data = data[data[1]:]
    return options


def parse(data, port, source_port=PORT):
    """The segment to `port` in a frame, or None; from any port if None."""
    if len(data) < 54 or data[12:14] != b"\x08\x00" or data[23] != 6:
        return None
    total = struct.unpack_from(">H", data, 16)[0]
    tcp = data[14 + 4 * (data[14] & 15):14 + total]
    source, target, seq, ack, offset, flags, wnd = struct.unpack_from(
        ">HHIIBBH", tcp)
    if target != port or source_port not in (None, source):
        return None
    header = 4 * (offset >> 4)
    return Segment(source, seq, ack, flags, wnd, parse_options(tcp[20:header]),
                   len(tcp) - header)


# -- the two hosts -------------------------------------------------------------


class Host:
    """One that is judged, and the wire to it. The application reads to the end,
    then closes."""

    def send(self, data):
        raise NotImplementedError

    def receive(self):
        raise NotImplementedError

    def fileno(self):
        raise NotImplementedError

    def turn(self):
        """The application's. Raises when it is no more."""

    def connect(self, port, text):
        """Instead of start(): the application opens to `port` of the peer,
        sends `text`, closes when all is acknowledged, and reads to the end."""
        raise NotImplementedError

    def await_reset(self):
        """Whether the application was told of a reset."""
        raise NotImplementedError

    def has_failed(self):
        """Whether the application that connected has ended with an error."""
        raise NotImplementedError

    def finish(self):
        """What the application has read; its end."""
        raise NotImplementedError

    def next_frame(self):
        deadline = time.monotonic() + PATIENCE_S
        while time.monotonic() < deadline:
            self.turn()
            if select.select([self.fileno()], [], [], 0.05)[0]:
                data = self.receive()
                if data:
                    return data
        raise RuntimeError(f"{self.name}: no answer")


class Linux(Host):
    name = "Linux"

    def __init__(self):
        self.tap = os.open("/dev/net/tun", os.O_RDWR | os.O_NONBLOCK)
        iff_tap_no_pi, tunsetiff = 0x1002, 0x400454ca
        fcntl.ioctl(self.tap, tunsetiff,
                    struct.pack("16sH22x", b"dl0", iff_tap_no_pi))
        run(f"ip link set dl0 address {SUT_MAC.hex(':')} up && "
            f"ip addr add {SUT_IP}/24 dev dl0 && "
            f"ip neigh replace {PEER_IP} lladdr {PEER_MAC.hex(':')} dev dl0")
        self.listener = socket.create_server((SUT_IP, PORT))
        self.listener.setsockopt(socket.SOL_SOCKET, socket.SO_OOBINLINE, 1)
        self.listener.setblocking(False)

    def start(self):
        self.stream, self.text, self.unsent = None, b"", None
        self.is_open, self.was_reset = True, False

    def connect(self, port, text):
        self.start()
        self.stream = socket.socket()
        self.stream.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 1 << 20)
        self.stream.setsockopt(socket.IPPROTO_TCP, socket.TCP_CONGESTION,
                               b"cubic")
        self.stream.setblocking(False)
        self.stream.connect_ex((PEER_IP, port))
        self.unsent, self.has_shut = text, False

    def turn_sender(self):
        try:
            if self.unsent:
                self.unsent = self.unsent[self.stream.send(self.unsent):]
            if self.stream.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR):
                raise OSError("the stream has ended")
            siocoutq = 0x5411
            queued = struct.unpack("i", fcntl.ioctl(self.stream, siocoutq,
                                                    b"\0" * 4))[0]
            if not self.unsent and not self.has_shut and queued == 0:
                self.has_shut = True
                self.stream.shutdown(socket.SHUT_WR)
            if self.has_shut and self.is_open and not self.stream.recv(100):
                self.is_open = False
        except (BlockingIOError, InterruptedError):
            pass
        except OSError:
            self.is_open, self.was_reset, self.unsent = False, True, b""

    def has_failed(self):
        deadline = time.monotonic() + 2
        while not self.was_reset and time.monotonic() < deadline:
            self.turn()
            time.sleep(0.001)
        return self.was_reset

    def turn(self):
        if self.unsent is not None:
            if not self.was_reset:
                self.turn_sender()
            return
        try:
            if self.stream is None:
                self.stream, _ = self.listener.accept()
                self.stream.setblocking(False)
                self.stream.setsockopt(socket.SOL_SOCKET, socket.SO_OOBINLINE,
                                       1)
            while self.is_open:
                data = self.stream.recv(1 << 20)
                self.text += data
                if not data:
                    self.is_open = False
                    self.stream.shutdown(socket.SHUT_WR)
        except BlockingIOError:
            pass
        except ConnectionResetError:
            self.is_open, self.was_reset = False, True

    def await_reset(self):
        self.turn()
        return self.was_reset

    def finish(self):
        self.turn()
        if self.stream is not None:
            self.stream.close()
        return self.text

    def send(self, data):
        os.write(self.tap, data)

    def receive(self):
        try:
            return os.read(self.tap, 65536)
        except BlockingIOError:
            return None

    def fileno(self):
        return self.tap


class Ours(Host):
    name = "ours"

    def __init__(self, folder, dwcat, libsoftnic):
        self.folder, self.dwcat, self.libsoftnic = folder, dwcat, libsoftnic
        self.process = None
        run("ip tuntap add dev dw0 mode tap && ip link set dw0 up")
        self.packets = socket.socket(socket.AF_PACKET, socket.SOCK_RAW,
                                     socket.htons(3))
        self.packets.bind(("dw0", 0))
        self.packets.setblocking(False)

    def start(self):
        self.copy, self.is_sender = self.folder / "copy", False
        self.copy.unlink(missing_ok=True)
        log = open(self.folder / "log", "w+")
        self.process = subprocess.Popen(
            [self.dwcat, "listen", f"{SUT_IP}:{PORT}", "-o", self.copy, "--quiet",
             "--device", "sn0", "--address", f"{SUT_IP}/24"],
            stderr=log, stdout=log,
            env=dict(os.environ, DEVWIRE_VERBS_LIBRARY=self.libsoftnic,
                     SOFTNIC="dev=sn0,port=tap:dw0,mac=" + SUT_MAC.hex(":")))
        deadline = time.monotonic() + PATIENCE_S
        while "listening" not in (self.folder / "log").read_text():
            if self.process.poll() is not None or time.monotonic() > deadline:
                raise RuntimeError("dwcat does not listen")
            time.sleep(0.01)

    def connect(self, port, text):
        self.copy, self.is_sender = None, True
        file = self.folder / "file"
        file.write_bytes(text)
        log = open(self.folder / "log", "w+")
        self.process = subprocess.Popen(
            [self.dwcat, "send", f"{PEER_IP}:{port}", file, "--quiet",
             "--no-pacing", "--device", "sn0", "--address", f"{SUT_IP}/24"],
            stderr=log, stdout=log,
            env=dict(os.environ, DEVWIRE_VERBS_LIBRARY=self.libsoftnic,
                     SOFTNIC="dev=sn0,port=tap:dw0,mac=" + SUT_MAC.hex(":")))

    def has_failed(self):
        return self.process.wait(timeout=PATIENCE_S) != 0

    def stop(self):
        if self.process is not None:
            self.process.kill()
            self.process.wait()

    def turn(self):
        if self.process.poll() is not None and not self.is_sender:
            raise RuntimeError("dwcat has ended: " +
                               (self.folder / "log").read_text())

    def await_reset(self):
        self.process.wait(timeout=PATIENCE_S)
        return "reset" in (self.folder / "log").read_text()

    def finish(self):
        self.process.wait(timeout=PATIENCE_S)
        while self.receive():  # Of this one, nothing for the next.
            pass
        return self.copy.read_bytes() if self.copy and self.copy.exists() \
            else b""

    def send(self, data):
        self.packets.send(data)

    def receive(self):
        try:
            data, address = self.packets.recvfrom(65536)
        except BlockingIOError:
            return None
        return None if address[2] == socket.PACKET_OUTGOING else data

    def fileno(self):
        return self.packets.fileno()
