#!/usr/bin/env python3
"""Linux's own TCP as the peer, through a TAP port, in a namespace made here.

Both roles (who connects) and both directions, with and without the TAP's
offloads: clean, and with loss, reordering and duplication. Every file arrives
with equal hash. Then one whole clean run is captured by the device, and
tshark, which sums every checksum, must find nothing to warn about; in the same
capture with one byte changed it must.

  linux_peer_test.py DWCAT ECHO LIBSOFTNIC

DEVWIRE_LONG=1 adds 1 GiB clean transfers. Prints "PASS: ", "FAIL: " and
"SKIP: " lines; the exit status is 1 when one failed.
"""

import collections
import hashlib
import os
import pathlib
import shutil
import struct
import subprocess
import sys
import tempfile
import time

MIB = 1 << 20
LINUX, OURS = "10.78.0.1", "10.78.0.2"
PORT = 27007  # One that tshark has no dissector for.
TIMEOUT = 300
# tcp.analysis items that say something about the ends' speed, not the wire.
ALLOWED_EXPERT = ("completely full", "zero window", "zerowindow")
SEVERITY_WARN = 0x600000
ENHANCED_PACKET = 6  # A pcapng block type.
CORRUPT_AFTER_FRAMES = 1000

failures = 0


def report(ok, what, detail=""):
    global failures
    failures += not ok
    print(f"{'PASS' if ok else 'FAIL'}: {what}" +
          (f": {detail}" if detail and not ok else ""), flush=True)


def sha256_of(path):
    digest = hashlib.sha256()
    with open(path, "rb") as file:
        while block := file.read(MIB):
            digest.update(block)
    return digest.hexdigest()


class Run:
    """Processes of one transfer; none outlives it."""

    def __init__(self, folder):
        self.folder = folder
        self.processes = []

    def __enter__(self):
        return self

    def __exit__(self, *unused):
        for process in self.processes:
            if process.poll() is None:
                process.kill()
            process.wait()

    def ours(self, words, device):
        log = open(self.folder / "ours.log", "w+")
        mtu = device.split("mtu=")[1].split(",")[0]
        process = subprocess.Popen(
            [*words, "--device", "sn0", "--address", f"{OURS}/24", "--mtu",
             mtu],
            stderr=log, stdout=log,
            env=dict(os.environ, SOFTNIC=device,
                     DEVWIRE_VERBS_LIBRARY=LIBSOFTNIC))
        self.processes.append(process)
        return process

    def await_listening(self, process):
        for _ in range(600):
            if "listening" in (self.folder / "ours.log").read_text():
                return
            if process.poll() is not None:
                break
            time.sleep(0.05)
        raise RuntimeError("it does not listen: " + self.log())

    def log(self):
        return (self.folder / "ours.log").read_text().strip()[-400:]

    def linux(self, *words):
        process = subprocess.Popen(["socat", "-b", "262144", *words],
                                   stderr=subprocess.DEVNULL)
        self.processes.append(process)
        return process

    def await_linux_listening(self):
        for _ in range(600):
            out = subprocess.run(["ss", "-Hltn"], capture_output=True,
                                 text=True).stdout
            if f"{LINUX}:{PORT}" in out:
                return
            time.sleep(0.05)
        raise RuntimeError("socat does not listen")


def transfer(kind, device, folder, file):
    """One transfer; raises when it fails."""
    copy = folder / "copy"
    copy.unlink(missing_ok=True)
    listen_at = f"TCP4-LISTEN:{PORT},bind={LINUX},reuseaddr"
    with Run(folder) as run:
        if kind == "Linux connects and sends":
            ours = run.ours([DWCAT, "listen", f"{OURS}:{PORT}", "-o", copy,
                             "--quiet"], device)
            run.await_listening(ours)
            linux = run.linux("-u", f"FILE:{file}", f"TCP4:{OURS}:{PORT}")
        elif kind == "Linux accepts and receives":
            linux = run.linux("-u", listen_at, f"CREATE:{copy}")
            run.await_linux_listening()
            ours = run.ours([DWCAT, "send", f"{LINUX}:{PORT}", file,
                             "--quiet"], device)
        elif kind == "Linux connects, both ways":
            ours = run.ours([ECHO, "serve", f"{OURS}:{PORT}"], device)
            run.await_listening(ours)
            linux = run.linux("-t", "60", f"FILE:{file}!!CREATE:{copy}",
                              f"TCP4:{OURS}:{PORT}")
        else:
            linux = run.linux("-t", "60", f"FILE:{file}!!CREATE:{copy}",
                              listen_at)
            run.await_linux_listening()
            ours = run.ours([ECHO, "call", f"{LINUX}:{PORT}"], device)
        status = ours.wait(timeout=TIMEOUT)
        if status != 0:
            raise RuntimeError(f"status {status}: {run.log()}")
        linux.wait(timeout=60)
    if sha256_of(copy) != sha256_of(file):
        raise RuntimeError("the copy's hash differs")


KINDS = ["Linux connects and sends", "Linux accepts and receives",
         "Linux connects, both ways", "Linux accepts, both ways"]


def try_transfer(kind, name, device, folder, file):
    what = f"{kind}, {name}"
    begin = time.monotonic()
    try:
        transfer(kind, device, folder, file)
    except (RuntimeError, OSError, subprocess.SubprocessError) as error:
        report(False, what, str(error).replace("\n", " | "))
        return False
    seconds = time.monotonic() - begin
    report(True, f"{what} ({os.path.getsize(file) / MIB / seconds:.0f} MiB/s)")
    return True


# -- the capture ---------------------------------------------------------------


def expert_items(capture, first_frames=0):
    """(frames, {message: count}) of severity warning or error."""
    limit = ["-c", str(first_frames)] if first_frames else []
    out = subprocess.run(
        ["tshark", "-r", capture, *limit,
         "-o", "tcp.check_checksum:TRUE",
         "-o", "ip.check_checksum:TRUE", "-T", "fields", "-E",
         "separator=/t", "-E", "aggregator=|", "-e", "frame.number",
         "-e", "_ws.expert.severity", "-e", "_ws.expert.message"],
        check=True, capture_output=True, text=True).stdout
    frames, found = 0, collections.Counter()
    for line in out.splitlines():
        frames += 1
        fields = line.split("\t")
        if len(fields) < 3 or not fields[1]:
            continue
        for severity, message in zip(fields[1].split("|"),
                                     fields[2].split("|")):
            if int(severity, 0) < SEVERITY_WARN:
                continue
            if not any(a in message.lower() for a in ALLOWED_EXPERT):
                found[message] += 1
    return frames, found


def corrupt_one_frame(capture, corrupted):
    """Changes one payload byte of an early large frame of a pcapng."""
    data = bytearray(pathlib.Path(capture).read_bytes())
    at = frames = 0
    while at + 28 < len(data):
        kind, length = struct.unpack_from("<II", data, at)
        frames += kind == ENHANCED_PACKET
        if kind == ENHANCED_PACKET and frames > CORRUPT_AFTER_FRAMES:
            captured = struct.unpack_from("<I", data, at + 20)[0]
            if captured > 500:
                data[at + 28 + 400] ^= 0xff
                break
        at += length
    else:
        raise RuntimeError("the capture has no large frame")
    pathlib.Path(corrupted).write_bytes(data)


def judge_capture(folder):
    if shutil.which("tshark") is None:
        print("SKIP: capture: tshark is not installed")
        return
    capture = folder / "wire.pcap"
    device = DEVICE.format(vnet=0, mtu=600) + f",pcap={capture}"
    set_mtu(600)
    # Text: in random bytes tshark's heuristics find protocols of their own, and
    # warn about those.
    part = folder / "part"
    part.write_bytes(b"devwire carries bytes.\n" * (54 * MIB // 23))
    if not try_transfer(KINDS[0], "captured at MTU 600", device, folder,
                        part):
        return
    frames, found = expert_items(capture)
    report(frames >= 100_000, "the capture holds 100,000 frames or more",
           f"{frames}")
    report(not found, "tshark has nothing to warn about",
           "; ".join(f"{n}x {m}" for m, n in found.most_common(4)))
    corrupted = folder / "corrupted.pcap"
    corrupt_one_frame(capture, corrupted)
    _, found = expert_items(corrupted, 2 * CORRUPT_AFTER_FRAMES)
    report(any("checksum" in m.lower() for m in found),
           "tshark reports the frame that was corrupted", f"{dict(found)}")


# -- all of it -----------------------------------------------------------------

DEVICE = "dev=sn0,port=tap:dw0,vnet={vnet},mac=02:00:00:00:01:02,mtu={mtu}"
FAULTS = ",loss=0.01,reorder=0.01,dup=0.01,seed=7"


def set_mtu(mtu):
    subprocess.run(["ip", "link", "set", "dw0", "mtu", str(mtu)], check=True)


def make_tap(vnet):
    subprocess.run("ip link del dw0 2>/dev/null;"
                   f"ip tuntap add dev dw0 mode tap {'vnet_hdr' * vnet} && "
                   # The TAP holds a whole window: it drops what it cannot.
                   "ip link set dw0 address 02:00:00:00:01:01 "
                   "txqueuelen 20000 up && "
                   f"ip addr add {LINUX}/24 dev dw0", shell=True, check=True)


def main():
    with tempfile.TemporaryDirectory() as folder:
        folder = pathlib.Path(folder)
        file = folder / "file"
        file.write_bytes(os.urandom(64 * MIB))
        for vnet in (1, 0):
            make_tap(vnet)
            offloads = "with offloads" if vnet else "without offloads"
            device = DEVICE.format(vnet=vnet, mtu=1500)
            for kind in KINDS:
                try_transfer(kind, f"{offloads}, clean", device, folder, file)
                try_transfer(kind, f"{offloads}, 1 % loss, reordering and "
                             "duplication", device + FAULTS, folder, file)
        judge_capture(folder)
        if os.environ.get("DEVWIRE_LONG"):
            with open(file, "ab") as out:
                for _ in range(15):
                    out.write(os.urandom(64 * MIB))
            for vnet in (1, 0):
                make_tap(vnet)
                for kind in KINDS:
                    try_transfer(kind, f"1 GiB clean, vnet={vnet}",
                                 DEVICE.format(vnet=vnet, mtu=1500), folder,
                                 file)
    sys.exit(1 if failures else 0)


if __name__ == "__main__":
    if os.environ.get("DEVWIRE_INSIDE") != "1":
        os.environ["DEVWIRE_INSIDE"] = "1"
        os.execvp("unshare", ["unshare", "-Urn", sys.executable, *sys.argv])
    DWCAT, ECHO, LIBSOFTNIC = (os.path.abspath(a) for a in sys.argv[1:4])
    main()
