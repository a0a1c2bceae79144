#!/usr/bin/env python3
"""A Linux kernel as the router between ours and a Linux receiver: its second
link is narrower, it says so by ICMP, and a file gets through all the same.

  linux_router_test.py DWCAT LIBSOFTNIC

  dwcat --TAP (1500)-- this namespace: the router --veth (1000)-- the receiver,
                                                                 a child's

The receiver's end of the veth has an MTU of 1500, so that its MSS option tells
nothing. Prints "PASS: ", "FAIL: " and "SKIP: " lines; the exit status is 1 when
one failed.
"""

import hashlib
import os
import random
import socket
import subprocess
import sys
import tempfile

PORT = 27090
PATIENCE_S = 60
# Ours, the router's two ends, the receiver's; and the veth's MTU: IPv6 first,
# which a link below 1280 loses.
PATHS = {
    "IPv6": ("fd81::2/64", "fd81::1/64", "fd82::1/64", "fd82::2/64", 1280),
    "IPv4": ("10.81.0.2/24", "10.81.0.1/24", "10.82.0.1/24", "10.82.0.2/24",
             1000),
}
# Sent by the router, which is all of this namespace: /proc/net/snmp and snmp6.
TOO_BIG = {"IPv4": "OutDestUnreachs", "IPv6": "Icmp6OutPktTooBigs"}


def run(command):
    subprocess.run(command, shell=True, check=True)


def counter(family):
    if family == "IPv6":
        for line in open("/proc/net/snmp6"):
            name, value = line.split()
            if name == TOO_BIG[family]:
                return int(value)
    names, values = [line.split() for line in open("/proc/net/snmp")
                     if line.startswith("Icmp:")]
    return int(values[names.index(TOO_BIG["IPv4"])])


def receive():
    """In a namespace of its own, once the test has moved its link there."""
    sys.stdin.readline()
    for _, router_near, router_far, receiver, _ in PATHS.values():
        run(f"ip addr add {receiver} dev v1" +
            (" nodad" if ":" in receiver else ""))
    run("ip link set lo up && ip link set v1 up mtu 1500")
    run("ip route add 10.81.0.0/24 via 10.82.0.1")
    run("ip -6 route add fd81::/64 via fd82::1")
    listener = socket.create_server(("::", PORT), family=socket.AF_INET6,
                                    dualstack_ipv6=True)
    print("listening", flush=True)
    for _ in PATHS:
        stream, _ = listener.accept()
        text = b""
        while data := stream.recv(1 << 20):
            text += data
        stream.close()
        print(hashlib.sha256(text).hexdigest(), flush=True)


def send(family, dwcat, libsoftnic, file, log):
    ours, router, _, receiver, _ = PATHS[family]
    to = receiver.split("/")[0]
    if family == "IPv6":
        to = f"[{to}]"
    return subprocess.run(
        [dwcat, "send", f"{to}:{PORT}", file, "--quiet", "--device", "sn0",
         "--address", ours, "--gateway", router.split("/")[0]],
        stderr=log, stdout=log, timeout=PATIENCE_S,
        env=dict(os.environ, DEVWIRE_VERBS_LIBRARY=libsoftnic,
                 SOFTNIC="dev=sn0,port=tap:dw0,mac=02:00:00:00:81:02"))


def main():
    dwcat, libsoftnic = map(os.path.abspath, sys.argv[1:3])
    if not os.path.exists("/dev/net/tun"):
        print("SKIP: no /dev/net/tun")
        return 0
    child = subprocess.Popen(
        ["unshare", "-n", sys.executable, sys.argv[0], "--receive"],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    run("ip tuntap add dev dw0 mode tap && ip link set dw0 up mtu 1500 && "
        "ip link add v0 type veth peer name v1 && ip link set lo up && "
        f"ip link set v1 netns {child.pid} && ip link set v0 up")
    run("sysctl -qw net.ipv4.ip_forward=1 net.ipv6.conf.all.forwarding=1")
    for _, near, far, _, _ in PATHS.values():
        nodad = " nodad" if ":" in near else ""
        run(f"ip addr add {near} dev dw0{nodad} && "
            f"ip addr add {far} dev v0{nodad}")
    print("configure", file=child.stdin, flush=True)
    assert child.stdout.readline() == "listening\n"
    failed = False
    with tempfile.TemporaryDirectory() as folder:
        text = random.Random(1).randbytes(3_000_000)
        file = os.path.join(folder, "file")
        with open(file, "wb") as out:
            out.write(text)
        for family, path in PATHS.items():
            run(f"ip link set v0 mtu {path[4]}")
            before = counter(family)
            with open(os.path.join(folder, "log"), "w+") as log:
                sent = send(family, dwcat, libsoftnic, file, log)
                log.seek(0)
                words = log.read()
            if sent.returncode != 0:
                print(f"FAIL: {family}: {words}")
                child.kill()
                return 1
            right = child.stdout.readline().strip() == \
                hashlib.sha256(text).hexdigest()
            told = counter(family) - before
            ok = right and 0 < told < 50
            failed |= not ok
            print(f"{'PASS' if ok else 'FAIL'}: {family}: the file is "
                  f"{'right' if right else 'wrong'}, and the router said "
                  f"{told} times that a packet was too big", flush=True)
    child.wait(timeout=PATIENCE_S)
    return failed


if __name__ == "__main__":
    if "--receive" in sys.argv:
        sys.exit(receive())
    if os.environ.get("DEVWIRE_INSIDE") != "1":
        os.environ["DEVWIRE_INSIDE"] = "1"
        os.execvp("unshare", ["unshare", "-Urn", sys.executable, *sys.argv])
    sys.exit(main())
