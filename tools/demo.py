#!/usr/bin/env python3
"""The main job, end to end, with a verdict: ./dev demo [FILE] [--corrupt].

(a) Two applications, one cable, device memory to device memory; the device
    side of softnic runs in processes of its own, and on each side a process
    stands in for the GPU. MTU 9000 and 1500.
(b) The same between Linux's own TCP (socat) and device memory, both
    directions, through a TAP port in a namespace made for it.

Prints a table beside a plain kernel-to-kernel run of the same file. Exit
status 1 when a hash differs, a slot is missing, nothing moves for 10 s,
device memory was mapped in a stack's process, or, in (a), one payload byte
landed in host memory.
"""

import argparse
import hashlib
import json
import os
import pathlib
import random
import shutil
import subprocess
import sys
import tempfile
import time

ROOT = pathlib.Path(__file__).resolve().parent.parent
DWCAT = ROOT / "bazel-bin/examples/dwcat"
SOFTNIC = ROOT / "bazel-bin/softnic/libsoftnic.so"
SLOT_FILLS = 10  # Of each slot, in a transfer of 16 pools or more.
PORT = 7000
TUN = "/dev/net/tun"


class Failure(Exception):
    pass


def sha256_of(path):
    digest = hashlib.sha256()
    with open(path, "rb") as file:
        while block := file.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()


def make_file(path, size):
    print(f"making {size >> 20} MiB of random bytes", file=sys.stderr)
    with open(path, "wb") as file:
        while size > 0:
            file.write(os.urandom(min(size, 1 << 22)))
            size -= min(size, 1 << 22)


def start_dwcat(words, device):
    environment = dict(os.environ, SOFTNIC=device,
                       DEVWIRE_VERBS_LIBRARY=str(SOFTNIC))
    return subprocess.Popen([DWCAT, *words, "--device", "sn0", "--json"],
                            stdout=subprocess.PIPE, stderr=subprocess.PIPE,
                            text=True, env=environment)


def await_listening(process):
    """Reads stderr up to the line that says so."""
    for line in process.stderr:
        if "listening" in line:
            return
    raise Failure(f"dwcat listen ended early (status {process.wait()})")


def result_of(process, what, timeout=600):
    try:
        out, err = process.communicate(timeout=timeout)
    except subprocess.TimeoutExpired:
        process.kill()
        raise Failure(f"{what}: no end after {timeout} s")
    if process.returncode != 0:
        tail = err.strip().splitlines()[-3:]
        raise Failure(f"{what}: status {process.returncode}: {'; '.join(tail)}")
    return json.loads(out) if out.strip() else {}


def end(*processes):
    for process in processes:
        if process is not None and process.poll() is None:
            process.kill()
            process.wait()


class Demo:

    def __init__(self, file, folder, corrupt, pool_bytes, memory="memfd"):
        self.pool_bytes = pool_bytes
        self.memory = memory
        self.file = file
        self.folder = folder
        self.corrupt = corrupt
        self.size = os.path.getsize(file)
        self.sha256 = sha256_of(file)
        self.rows = []
        self.complaints = []

    def check_copy(self, what, copy):
        if sha256_of(copy) != self.sha256:
            self.complaints.append(f"{what}: the copy's hash differs")
        os.unlink(copy)

    def check_stack(self, what, result, host_payload_allowed):
        claims = {
            "device memory was mapped": result["maps_of_device_memory"],
            "slots are missing": result["slots_missing"],
        }
        if not host_payload_allowed:
            claims["payload was delivered through host memory"] = result[
                "linear_bytes"]
            claims["payload landed in host memory"] = result[
                "nic_payload_landed_host_bytes"]
        for claim, count in claims.items():
            if count:
                self.complaints.append(f"{what}: {claim} ({count})")
        if result["maps_looks"] < 3:
            self.complaints.append(f"{what}: the mappings were not read")

    def check_received(self, what, received):
        """Over the cable: every byte, and every slot of the pool, in use."""
        if received["sha256"] != self.sha256:
            self.complaints.append(f"{what}: what the GPU hashed differs")
        if received["device_bytes"] != self.size:
            self.complaints.append(f"{what}: {received['device_bytes']} bytes "
                                   "came by device memory")
        fills = received["min_slot_fills"]
        if self.size >= 16 * self.pool_bytes and fills < SLOT_FILLS:
            self.complaints.append(f"{what}: a slot was filled only "
                                   f"{fills} times")

    def add_row(self, name, gigabits, *results):
        host = sum(r["linear_bytes"] + r["nic_payload_landed_host_bytes"]
                   for r in results)
        drops = {}
        for r in results:
            reasons = dict(r["drops"])
            if r["nic_frames_without_receive"]:
                reasons["no receive posted"] = r["nic_frames_without_receive"]
            for reason, count in reasons.items():
                drops[reason] = drops.get(reason, 0) + count
        self.rows.append([
            name, f"{gigabits:.2f}",
            sum(r["segments_in"] for r in results),
            sum(r["device_bytes"] for r in results), host,
            sum(r["retransmitted_segments"] for r in results),
            sum(r["slots_missing"] for r in results),
            ", ".join(f"{k} {v}" for k, v in sorted(drops.items())) or "none",
        ])

    # -- (a) ------------------------------------------------------------------

    def cable(self, mtu):
        what = f"cable, MTU {mtu}"
        if self.memory != "memfd":
            what += ", " + self.memory
        copy = self.folder / "copy"
        path = self.folder / f"cable{mtu}"
        common = f"port=shm:{path},mtu={mtu},mode=process"
        listen = ["listen", f"10.77.0.2:{PORT}", "-o", copy,
                  "--address", "10.77.0.2/24", "--quiet", "--mtu", str(mtu),
                  "--pool-bytes", str(self.pool_bytes),
                  "--memory", self.memory]
        send = ["send", f"10.77.0.2:{PORT}", self.file,
                "--address", "10.77.0.1/24", "--quiet", "--mtu", str(mtu),
                "--pool-bytes", str(self.pool_bytes), "--memory", self.memory]
        if self.corrupt:
            send += ["--corrupt-at", str(random.randrange(self.size))]
        receiver = sender = None
        try:
            receiver = start_dwcat(
                listen, f"dev=sn0,mac=02:00:00:00:00:02,{common}")
            await_listening(receiver)
            sender = start_dwcat(
                send, f"dev=sn0,mac=02:00:00:00:00:01,{common}")
            sent = result_of(sender, f"{what}, sender")
            received = result_of(receiver, f"{what}, receiver")
        finally:
            end(sender, receiver)
        self.check_stack(what + ", sender", sent, False)
        self.check_stack(what + ", receiver", received, False)
        self.check_received(what, received)
        self.check_copy(what, copy)
        self.add_row(what, received["gigabits_per_second"], sent, received)

    # -- (b), inside the namespace --------------------------------------------

    def tap(self, mtu):
        subprocess.run(
            f"ip tuntap add dev dw0 mode tap vnet_hdr && "
            f"ip link set dw0 address 02:00:00:00:01:01 mtu {mtu} "
            f"txqueuelen 20000 up && "
            f"ip addr add 10.78.0.1/24 dev dw0", shell=True, check=True)
        device = (f"dev=sn0,port=tap:dw0,vnet=1,mac=02:00:00:00:01:02,"
                  f"mtu={mtu},mode=process")
        self.from_linux(device, mtu)
        self.to_linux(device, mtu)

    def from_linux(self, device, mtu):
        what = "Linux to device, TAP"
        copy = self.folder / "copy"
        receiver = peer = None
        try:
            receiver = start_dwcat(
                ["listen", f"10.78.0.2:{PORT}", "-o", copy, "--address",
                 "10.78.0.2/24", "--quiet", "--mtu", str(mtu),
                 "--pool-bytes", str(self.pool_bytes)],
                device)
            await_listening(receiver)
            peer = subprocess.Popen(
                ["socat", "-u", "-b", "262144", f"FILE:{self.file}",
                 f"TCP4:10.78.0.2:{PORT}"])
            received = result_of(receiver, what)
            peer.wait(timeout=30)
        finally:
            end(peer, receiver)
        self.check_stack(what, received, True)
        if received["sha256"] != self.sha256:
            self.complaints.append(f"{what}: what the GPU hashed differs")
        self.check_copy(what, copy)
        self.add_row(what, received["gigabits_per_second"], received)

    def to_linux(self, device, mtu):
        what = "device to Linux, TAP"
        copy = self.folder / "copy"
        sender = peer = None
        try:
            peer = listen_with_socat("10.78.0.1", copy)
            sender = start_dwcat(
                ["send", f"10.78.0.1:{PORT}", self.file, "--address",
                 "10.78.0.2/24", "--quiet", "--mtu", str(mtu),
                 "--pool-bytes", str(self.pool_bytes)],
                device)
            sent = result_of(sender, what)
            peer.wait(timeout=30)
        finally:
            end(sender, peer)
        self.check_stack(what, sent, True)
        self.check_copy(what, copy)
        self.add_row(what, sent["gigabits_per_second"], sent)

    def kernel(self):
        copy = self.folder / "copy"
        subprocess.run(["ip", "link", "set", "lo", "up"], check=True)
        peer = listen_with_socat("127.0.0.1", copy)
        try:
            begin = time.monotonic()
            subprocess.run(["socat", "-u", "-b", "262144",
                            f"FILE:{self.file}", f"TCP4:127.0.0.1:{PORT}"],
                           check=True, timeout=600)
            peer.wait(timeout=30)
            seconds = time.monotonic() - begin
        finally:
            end(peer)
        self.check_copy("kernel to kernel", copy)
        self.rows.append(["kernel to kernel, loopback",
                          f"{8e-9 * self.size / seconds:.2f}"] + ["-"] * 6)


def listen_with_socat(address, copy):
    peer = subprocess.Popen(
        ["socat", "-u", "-b", "262144",
         f"TCP4-LISTEN:{PORT},bind={address},reuseaddr",
         f"CREATE:{copy}"])
    wanted = f"{address}:{PORT}"
    for _ in range(200):
        listening = subprocess.run(["ss", "-Hltn"], capture_output=True,
                                   text=True).stdout
        if wanted in listening:
            return peer
        time.sleep(0.05)
    end(peer)
    raise Failure("socat does not listen")


def print_table(rows):
    head = ["run", "Gb/s", "segments in", "device bytes", "host payload bytes",
            "retransmitted", "slots missing", "drops"]
    table = [head] + [[str(c) for c in row] for row in rows]
    widths = [max(len(r[i]) for r in table) for i in range(len(head))]
    for row in table:
        print("  ".join(c.ljust(w) for c, w in zip(row, widths)).rstrip())


def new_network():
    """A command in a network namespace of its own that may open the TAP device:
    as this user where udev's rule lets everybody, else as root."""
    if os.access(TUN, os.R_OK | os.W_OK):
        return ["unshare", "-Urn"]
    if shutil.which("sudo"):
        return ["sudo", "-n", "unshare", "-n"]
    raise Failure(f"{TUN} cannot be opened: run as root, or "
                  f"'chmod 666 {TUN}'")


def run_inside_namespace(demo, mtu):
    """Runs (b) in a namespace of its own, as a program of its own."""
    out = demo.folder / "tap.json"
    subprocess.run(
        [*new_network(), sys.executable, __file__, str(demo.file),
         "--inside", str(out), "--mtu", str(mtu), "--dwcat", str(DWCAT),
         "--softnic", str(SOFTNIC), "--pool-bytes", str(demo.pool_bytes)],
        check=False)
    if not out.exists():
        raise Failure("the run in the namespace ended without a result")
    result = json.loads(out.read_text())
    demo.rows += result["rows"]
    demo.complaints += result["complaints"]


def inside(arguments):
    with tempfile.TemporaryDirectory() as folder:
        demo = Demo(arguments.file, pathlib.Path(folder), False,
                    arguments.pool_bytes)
        try:
            demo.kernel()
            demo.tap(arguments.mtu)
        except (Failure, subprocess.SubprocessError, OSError) as failure:
            demo.complaints.append(str(failure))
        pathlib.Path(arguments.inside).write_text(
            json.dumps({"rows": demo.rows, "complaints": demo.complaints}))


def main():
    global DWCAT, SOFTNIC
    parser = argparse.ArgumentParser(prog="./dev demo")
    parser.add_argument("file", nargs="?")
    parser.add_argument("--corrupt", action="store_true",
                        help="flip one byte on the way: must fail")
    parser.add_argument("--size", type=int, default=1 << 30,
                        help="bytes of the file that is made (1 GiB)")
    parser.add_argument("--pool-bytes", type=int, default=64 << 20,
                        help="device memory on each side (64 MiB)")
    parser.add_argument("--memory", default="memfd",
                        help="its provider, and the cable alone: udmabuf, "
                        "dma-heap, vgem (memfd, and both)")
    parser.add_argument("--dwcat", type=pathlib.Path, default=DWCAT)
    parser.add_argument("--softnic", type=pathlib.Path, default=SOFTNIC)
    parser.add_argument("--inside", help=argparse.SUPPRESS)
    parser.add_argument("--mtu", type=int, default=9000,
                        help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    DWCAT, SOFTNIC = arguments.dwcat.resolve(), arguments.softnic.resolve()
    if arguments.inside:
        inside(arguments)
        return

    with tempfile.TemporaryDirectory(prefix="devwire-demo-") as folder:
        folder = pathlib.Path(folder)
        file = pathlib.Path(arguments.file or folder / "file").resolve()
        if not arguments.file:
            make_file(file, arguments.size)
        demo = Demo(file, folder, arguments.corrupt, arguments.pool_bytes,
                    arguments.memory)
        try:
            for mtu in (9000, 1500):
                demo.cable(mtu)
            if not arguments.corrupt and arguments.memory == "memfd":
                run_inside_namespace(demo, arguments.mtu)
        except Failure as failure:
            demo.complaints.append(str(failure))
        print(f"{demo.size} bytes, sha256 {demo.sha256}")
        print_table(demo.rows)
    for complaint in demo.complaints:
        print(f"FAILED: {complaint}")
    if not demo.complaints:
        print("every hash is equal, every slot came back")
    sys.exit(1 if demo.complaints else 0)


if __name__ == "__main__":
    main()
