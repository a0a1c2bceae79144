#!/usr/bin/env python3
"""Linux's devmem TCP interface on Devwire: the cases, and devmem_tool, which
was written to the kernel's interface alone, over cables and with Linux.

  devmem_test.py DEVWIRE_RUN LIBDEVWIRE_PRELOAD LIBSOFTNIC CASES DEVMEM_TOOL
                 DEVMEM_BIND_CHECK

Prints "PASS: ", "FAIL: " and "SKIP: " lines; the exit status is 1 when one
failed.
"""

import re
import socket
import struct
import subprocess
import sys
import threading
import time

import shim_fixture
from shim_fixture import LINUX, MIB, OURS, report

PORT = 7000


def pattern(at, size):
    return bytes((i ^ (i >> 8) * 31 ^ (i >> 16) * 17) & 0xff
                 for i in range(at, at + size))


# -- the cases -------------------------------------------------------------------


def serve_case(s):
    """The peer of devmem_cases.py: does what one line says."""
    with s:
        line = b""
        while not line.endswith(b"\n"):
            byte = s.recv(1)
            if not byte:
                return
            line += byte
        words = line.decode().split()
        if words[0] == "send":
            s.sendall(pattern(0, int(words[1])))
        elif words[0] == "slowly":
            s.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            count, size = int(words[1]), int(words[2])
            for i in range(count):
                time.sleep(0.01)
                s.sendall(pattern(i * size, size))
        elif words[0] == "call":
            with socket.create_connection((words[1], int(words[2]))) as other:
                other.sendall(b"hi")
                while other.recv(1 << 16):
                    pass
        if words[0] == "stall":
            time.sleep(60)
        checksum = at = 0
        while data := s.recv(1 << 16):
            if words[0] == "check":
                checksum += sum((i % 65521 + 1) * b
                                for i, b in enumerate(data, at))
                at += len(data)
        if words[0] == "check":
            s.sendall(struct.pack("Q", checksum))
            s.recv(1)


def serve_cases(address, port=PORT):
    listener = socket.create_server((address, port), backlog=64)

    def serve(s):
        try:
            serve_case(s)
        except OSError:
            pass  # The case ended it.

    def accept():
        while True:
            s, _ = listener.accept()
            threading.Thread(target=serve, args=(s,), daemon=True).start()

    threading.Thread(target=accept, daemon=True).start()


def run_cases(shim, script):
    serve_cases(LINUX)
    serve_cases(LINUX, PORT + 1)
    shim.env["DEVWIRE_TAKE_RULE"] = (
        f"[{{port = {PORT + 1}, device_memory = false}}]")
    serve_cases("127.0.0.1")
    kernel = subprocess.run(
        [sys.executable, script, "kernel", "127.0.0.1", "127.0.0.1",
         str(PORT)], capture_output=True, text=True, timeout=300, check=False)
    ours = shim.run(sys.executable, script, "devwire", OURS, LINUX, PORT,
                    timeout=300)
    for where, result, least in (("the kernel", kernel, 5),
                                 ("Devwire", ours, 17)):
        lines = result.stdout.splitlines()
        report(result.returncode == 0 and len(lines) >= least,
               f"the cases run on {where}",
               result.stdout[-300:] + result.stderr[-1000:])
        for line in lines:
            verdict, case = line.split(": ", 1)
            if verdict == "skip":
                print(f"SKIP: devmem case {case}")
                continue
            report(verdict == "ok",
                   f"devmem case {case.split(':')[0]} on {where}",
                   case + result.stderr[-1000:])


# -- devmem_tool -------------------------------------------------------------------


class Cable:
    """Two ends, each a shim of its own."""

    def __init__(self, shim, name, nic="", more=""):
        self.shim = shim
        self.configs = []
        for end in 0, 1:
            config = shim.folder / f"{name}{end}.toml"
            config.write_text(
                shim.config.read_text()
                .replace("dev=sn0,port=tap:t0", f"dev=sn{end},"
                         f"port=shm:{shim.folder}/{name}")
                .replace(",vnet=1", nic)
                .replace('device = "sn0"', f'device = "sn{end}"')
                .replace(OURS, f"10.82.0.{end + 1}") + more)
            self.configs.append(config)

    def run(self, tool, listens, connects):
        """What the two print, and what they did wrong."""
        def command(end, *words):
            return [self.shim.run_script, "--config", str(self.configs[end]),
                    tool, "-d", "memfd", "-f", "lo", *words, "10.82.0.1",
                    str(PORT)]

        ends = [subprocess.Popen(c, env=self.shim.env, text=True,
                                 stdout=subprocess.PIPE,
                                 stderr=subprocess.PIPE)
                for c in (command(0, "-l", *listens.split()),
                          command(1, *connects.split()))]
        out, errors = "", ""
        for process in ends:
            try:
                stdout, stderr = process.communicate(timeout=200)
            except subprocess.TimeoutExpired:
                process.kill()
                stdout, stderr = process.communicate()
                errors += "it did not end: "
            out += stdout
            if process.returncode != 0:
                errors += stderr
        return out, errors


def numbers_of(out):
    """{"received": 33558528, "device": ...}."""
    numbers = {}
    for key, value in re.findall(r"(\w+) (\d+)", out):
        numbers[key] = int(value)
    return numbers


def transfer(cable, tool, what, listens, connects, check):
    out, errors = cable.run(tool, listens, connects)
    n = numbers_of(out)
    good = not errors and n.get("received") == n.get("sent", -1) and check(n)
    report(good, f"devmem_tool: {what}", out + errors)


def all_in_device(n):
    return (n["device"] == n["received"] and n["linear"] == 0 and
            n["ordinary"] == 0 and n["copied"] == 0)


def over_cables(shim, tool):
    cable = Cable(shim, "plain")
    sizes = sum(range(1, 8193))
    transfer(cable, tool, "every size from 1 to 8192, connect to listen", "",
             "-b 1:8192", lambda n: all_in_device(n) and n["sent"] == sizes)
    transfer(cable, tool, "every size from 1 to 8192, listen to connect",
             "-s -b 1:8192", "-r",
             lambda n: all_in_device(n) and n["sent"] == sizes)
    seed = time.time_ns() % 10**6
    transfer(cable, tool, f"random sizes up to 1 MiB, seed {seed}",
             "-M 16777216", f"-n 100 -m {MIB} -e {seed}",
             lambda n: all_in_device(n) and n["sent"] > 20 * MIB)
    transfer(cable, tool, "random sizes, the other way",
             f"-s -n 100 -m {MIB} -e {seed}", "-r -M 16777216",
             lambda n: all_in_device(n) and n["sent"] > 20 * MIB)
    transfer(cable, tool, "frags run out, and come back", "-k -M 262144",
             "-n 10 -m 262144",
             lambda n: all_in_device(n) and n["exhausted"] > 3 and
             0 < n["held"] <= 128)
    transfer(cable, tool, "from host memory, by copies", "", "-b 1:300 -H",
             lambda n: n["device"] == n["received"] and n["copied"] > 0)
    # Payload is written late unless the shim asks for it.
    # What the sender sends is lost at times; the receiver's end is not: nobody
    # sends it again when its process is gone.
    loss = ",fault_side=rx,loss=0.01,seed=7"
    late = Cable(shim, "late", ",late_scatter=1s" + loss)
    sender = late.configs[1]
    sender.write_text(sender.read_text().replace(loss, ""))
    transfer(late, tool, "a NIC that writes late, on a cable that loses",
             "-M 1048576", "-n 100 -m 30000", all_in_device)
    jumbo = Cable(shim, "jumbo", ",mtu=9000",
                  "[memory]\nslot_bytes = 9216\n")
    for config in jumbo.configs:
        config.write_text(config.read_text().replace(
            "\n[memory]", "\nmtu = 9000\n[memory]"))
    transfer(jumbo, tool, "MTU 9000", "", "-n 100 -m 300000", all_in_device)
    # Without room for rules the frames are whole, in host memory.
    whole = Cable(shim, "whole", ",rules=3")
    transfer(whole, tool, "ordinary data, without control messages", "",
             "-n 50 -m 30000",
             lambda n: n["ordinary"] == n["received"] and n["frags"] == 0)


def with_linux(shim, tool):
    size = sum(range(1, 2001))
    wanted = pattern(0, size)
    receiver = shim.start(tool, "-d", "memfd", "-f", "lo", "-l", OURS, 7100)
    shim_fixture.wait_for(lambda: "listening" in receiver.log.read_text())
    with socket.create_connection((OURS, 7100)) as s:
        s.sendall(wanted)
        s.shutdown(socket.SHUT_WR)
        ended = s.recv(1)
    receiver.wait(60)
    out = receiver.log.read_text()
    n = numbers_of(out)
    report(receiver.returncode == 0 and ended == b"" and
           n.get("received") == n.get("device") == size,
           "devmem_tool: Linux sends, Devwire receives in device memory", out)
    listener = socket.create_server((LINUX, 7101))
    sender = shim.start(tool, "-d", "memfd", "-f", "lo", "-b", "1:2000", LINUX,
                        7101)
    s, _ = listener.accept()
    with s:
        got = b""
        while data := s.recv(1 << 16):
            got += data
    sender.wait(60)
    out = sender.log.read_text()
    report(sender.returncode == 0 and got == wanted,
           "devmem_tool: Devwire sends from device memory, Linux receives",
           out)


def refusals(shim, tool):
    def stderr_of(*words):
        return shim.run(tool, "-f", "lo", *words, LINUX, PORT).stderr

    report("netdev: Invalid argument" in stderr_of(
        "-l", "-d", "memfd", "-M", "4096"), "devmem_tool: too little memory")
    result = subprocess.run([tool, "-f", "lo", "-d", "memfd", "-b", "1:2",
                             LINUX, str(PORT)], capture_output=True, text=True,
                            timeout=60, check=False)
    report("devmem_tool: netdev: " in result.stderr,
           "devmem_tool: a kernel takes no memfd for a dmabuf", result.stderr)


def bind_header(shim, check):
    """sockets/devmem_bind.h, on Devwire and on this kernel."""
    wanted = ("64 queues: id 1\na queue again: File exists\nto send: id 2\n"
              "after the close: id 3\n65 queues: Argument list too long\n"
              "no queue: Invalid argument\n"
              "no dmabuf: Bad file descriptor\nno interface: No such device\n")
    result = shim.run(check)
    report(result.stdout == wanted, "the C header binds on Devwire",
           result.stdout + result.stderr)
    # The kernel's loopback device has no such thing, and may not be asked.
    result = subprocess.run([check], capture_output=True, text=True,
                            timeout=60, check=False)
    lines = dict(l.split(": ", 1) for l in result.stdout.splitlines())
    report(lines.get("64 queues") in ("Operation not supported",
                                      "Operation not permitted",
                                      "No such file or directory"),
           "the C header asks the kernel", result.stdout + result.stderr)
    config = shim.folder / "down.toml"
    config.write_text(shim.config.read_text().replace('"sn0"', '"sn9"'))
    down = subprocess.run([shim.run_script, "--config", str(config), check],
                          capture_output=True, text=True, timeout=60,
                          env=shim.env, check=False)
    report("64 queues: Network is down\n" in down.stdout,
           "the stack cannot open: binds say so", down.stdout + down.stderr)
    # Another interface than the shim's is the kernel's.
    config = shim.folder / "other.toml"
    config.write_text(shim.config.read_text().replace(
        'device = "sn0"\n', 'interface = "t0"\n'))
    other = subprocess.run([shim.run_script, "--config", str(config), check],
                           capture_output=True, text=True, timeout=60,
                           env=shim.env, check=False)
    report(other.stdout == result.stdout,
           "binds of another interface are the kernel's",
           other.stdout + other.stderr)


def test(shim, arguments):
    cases, tool, check = arguments
    run_cases(shim, cases)
    bind_header(shim, check)
    over_cables(shim, tool)
    with_linux(shim, tool)
    refusals(shim, tool)


if __name__ == "__main__":
    sys.exit(shim_fixture.main(test))
