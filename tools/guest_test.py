#!/usr/bin/env python3
"""What needs a kernel that this machine does not run: real dmabufs under our
memory providers and under softnic, and the system's own verbs on a soft RDMA
device. ./dev guest builds what it needs, and runs it in tools/guest.py's guest.

Prints "PASS: ...", "FAIL: ..." a test; "SKIP: ..." and why when there is no
guest. Exit status 1 when something failed.
"""

import pathlib
import re
import subprocess
import sys

import guest

ROOT = pathlib.Path(__file__).resolve().parent.parent
BIN = ROOT / "bazel-bin"
MIB = 1 << 20
INSIDE = "--inside"
TESTS_OF_DMABUFS = 13
failures = 0


def report(ok, what, detail=""):
    global failures
    failures += not ok
    print(f"{'PASS' if ok else 'FAIL'}: guest: {what}" +
          (f": {detail}" if detail and not ok else ""), flush=True)


def run(*words, timeout=600):
    return subprocess.run([str(w) for w in words], capture_output=True,
                          text=True, timeout=timeout, check=False)


def dmabufs():
    """memreg's tests of real dmabufs, one line each."""
    done = run(BIN / "memreg/dmabuf_guest_test", "--gtest_color=no")
    results = re.findall(r"^\[ +(OK|FAILED) +\] (\S+) \(", done.stdout, re.M)
    for verdict, name in results:
        report(verdict == "OK", name.rstrip(","), done.stdout[-2000:])
    report(done.returncode == 0 and len(results) == TESTS_OF_DMABUFS,
           "all tests of dmabufs ran",
           f"{len(results)} of {TESTS_OF_DMABUFS}, {done.stderr[-500:]}")


def demo(memory, size, pool):
    """Demo (a): between two such buffers, through softnic."""
    done = run(sys.executable, ROOT / "tools/demo.py", "--memory", memory,
               "--size", size, "--pool-bytes", pool)
    report(done.returncode == 0,
           f"{size // MIB} MiB through {pool // MIB} MiB of {memory}",
           done.stdout[-1000:] + done.stderr[-500:])
    print(done.stdout)


def soft_rdma():
    """The system's libibverbs, on a device without raw packet queue pairs."""
    made = run("rdma", "link", "add", "rxe0", "type", "rxe", "netdev", "lo")
    report(made.returncode == 0, "a soft RDMA device", made.stderr)
    refused = run(BIN / "examples/dwcat", "listen", "127.0.0.1:7000", "-o",
                  "/tmp/none", "--device", "rxe0", timeout=60)
    report(refused.returncode != 0 and "it lacks" in refused.stderr and
           "IBV_RAW_PACKET_CAP_IP_CSUM" in refused.stderr,
           "rxe is refused for what it lacks", refused.stderr)


def inside():
    dmabufs()
    demo("udmabuf", 256 * MIB, 16 * MIB)
    for memory in "dma-heap", "vgem":
        demo(memory, 64 * MIB, 16 * MIB)
    soft_rdma()
    sys.exit(1 if failures else 0)


def main():
    if sys.argv[1:] == [INSIDE]:
        inside()
    try:
        result = guest.run([sys.executable, __file__, INSIDE], timeout=900)
    except (guest.NoGuest, OSError, subprocess.CalledProcessError) as why:
        print(f"SKIP: guest: {why}")
        return
    report(result in (0, 1), "the guest came to its end", f"status {result}")
    sys.exit(1 if result or failures else 0)


if __name__ == "__main__":
    main()
