#!/usr/bin/env python3
"""CPython's own tests of sockets, on the kernel's and on Devwire's: the same
tests must pass.

  cpython_suite.py DEVWIRE_RUN LIBDEVWIRE_PRELOAD LIBSOFTNIC [--out FILE]
                   [MODULE...]

Needs Debian's libpython3.11-testsuite. Each module runs twice, in a namespace
of its own: on the kernel's TCP with the tests' HOST at one of its addresses, on
Devwire's with HOST at the device's, so that both ends are ours
(cpython_tests.py). --out writes docs/cpython.md. Prints "PASS: " and "FAIL: "
lines, and how many sockets each module had.
"""

import collections
import fnmatch
import os
import pathlib
import subprocess
import sys
import tempfile

import shim_fixture
from shim_fixture import LINUX, OURS, Shim, report

PYTHON = "/usr/bin/python3"
TESTS = pathlib.Path(__file__).resolve().parent / "cpython_tests.py"
MODULES = ("test_select", "test_poll", "test_epoll", "test_selectors",
           "test_socket", "test_socketserver", "test_httplib", "test_ftplib",
           "test_ssl", "test_asyncio.test_sock_lowlevel",
           "test_asyncio.test_streams")
# Of pipes alone: there is no socket that could be taken.
WITHOUT_SOCKETS = ("test_select", "test_poll")
UDP = "UDP is the kernel's, and the kernel has not got the device's address"
# Pattern of tests, and why they may differ.
EXCEPTIONS = (
    ("test_socketserver.*UDPServer", UDP),
    ("test_asyncio.test_sock_lowlevel.*.test_recvfrom*", UDP),
    ("test_asyncio.test_sock_lowlevel.*.test_sendto_blocking", UDP),
    ("test_socket.*UDP*", UDP),
    ("test_socket.InterruptedRecvTimeoutTest.*", UDP),
    ("test_socket.GeneralModuleTests.test_socket_fileno", UDP),
    ("test_socket.CreateServerFunctionalTest.test_dual_stack_client_v6",
     "::1 is the kernel's loopback, the listener the device's alone"),
    ("test_socketserver.*.test_Forking*",
     "a child uses the socket that its parent accepted"),
    ("test_epoll.TestEPoll.test_control_and_wait",
     "wants what both ends sent in one poll: it may come a moment later"),
    ("test_selectors.*.test_above_fd_setsize",
     "more sockets than stack.max_connections"),
)
SECONDS = 400


def results_of(path):
    """The last word about each test; "began" says that it did not end."""
    results = {}
    if path.exists():
        for line in path.read_text(encoding="utf-8").splitlines():
            test, what = line.split("\t")
            results[test.removeprefix("test.")] = what
    return results


def in_namespace(shim, script):
    """The command, in a network namespace like the one of main()."""
    setup = ("ip link set lo up && ip tuntap add t0 mode tap vnet_hdr && "
             f"ip link set t0 up && ip addr add {LINUX}/24 dev t0 && ")
    return ["unshare", "-n", "sh", "-c", setup + 'exec "$@"', "sh", *script]


def run(shim, module, is_ours):
    """The results of a module, and the report of its process."""
    kind = "devwire" if is_ours else "kernel"
    results = shim.folder / f"{module}.{kind}"
    command = [PYTHON, str(TESTS), f"test.{module}",
               OURS if is_ours else LINUX, str(results)]
    before = len(shim.reports("python3"))
    if is_ours:
        command = shim.command(*command)
    with open(shim.folder / f"{module}.{kind}.log", "w+b") as log:
        try:
            subprocess.run(in_namespace(shim, command), env=shim.env,
                           cwd=shim.folder, stdin=subprocess.DEVNULL,
                           stdout=log, stderr=log, timeout=SECONDS, check=False)
        except subprocess.TimeoutExpired:
            log.write(b"timed out\n")
    taken = sum(r["taken"] for r in shim.reports("python3")[before:])
    return results_of(results), taken


def reason(test):
    for pattern, why in EXCEPTIONS:
        if fnmatch.fnmatchcase(test, pattern):
            return why
    return None


def compare(shim, module, rows):
    kernel, _ = run(shim, module, False)
    ours, taken = run(shim, module, True)
    counts = collections.Counter(kernel.values())
    report(counts["ok"] > 0, f"{module} on the kernel: " +
           ", ".join(f"{n} {what}" for what, n in sorted(counts.items())))
    print(f"{module} on Devwire: {taken} sockets taken")
    report((taken > 0) != (module in WITHOUT_SOCKETS),
           f"{module}: sockets were taken", str(taken))
    differ = []
    for test, what in kernel.items():
        got = ours.get(test, "nothing")
        why = reason(test) if got != what else None
        if got != what and why is None and what != "began":
            differ.append(f"{test}: {what} on the kernel, {got} on Devwire")
        rows.append((test, what, got, why or ""))
    report(not differ, f"{module}: the same tests pass", "; ".join(differ))
    if differ:
        log = (shim.folder / f"{module}.devwire.log").read_text(
            encoding="utf-8", errors="replace")
        print(log[-3000:], file=sys.stderr)
    return (module, counts["ok"],
            sum(1 for w in ours.values() if w == "ok"), taken)


def write_document(path, modules, rows):
    lines = [
        "# CPython's tests of sockets", "",
        "Written by `./dev cpython`: `libpython3.11-testsuite` on the kernel's", "sockets, and under the shim with the tests' HOST at the "
        "device's address, so that", "both ends of every connection are ours. "
        "\"Taken\" counts the sockets that Devwire", "had: test_select and "
        "test_poll use pipes alone.", "",
        "| module | pass on the kernel | pass on Devwire | taken |",
        "|---|---|---|---|"]
    lines += [f"| {m} | {k} | {o} | {t} |" for m, k, o, t in modules]
    lines += ["", "## Tests that differ", "",
              "| test | kernel | Devwire | why |", "|---|---|---|---|"]
    lines += [f"| `{t}` | {k} | {o} | {w} |" for t, k, o, w in rows if k != o]
    lines += ["", "## Every test", "",
              "The result on the kernel, where Devwire's is the same. `fail` "
              "and `error` on both: the", "test wants the name localhost, or "
              "the Internet.", "", "| test | result |", "|---|---|"]
    lines += [f"| `{t}` | {k} |" for t, k, o, _ in rows if k == o]
    pathlib.Path(path).write_text("\n".join(lines) + "\n", encoding="utf-8")


def main():
    run_script, preload, softnic = map(os.path.abspath, sys.argv[1:4])
    more = sys.argv[4:]
    out = None
    if more[:1] == ["--out"]:
        out, more = more[1], more[2:]
    if os.environ.get("DEVWIRE_IN_NAMESPACE") is None:
        if not os.access("/dev/net/tun", os.R_OK | os.W_OK):
            print("SKIP: no access to /dev/net/tun")
            return 0
        if not os.path.exists("/usr/lib/python3.11/test/test_socket.py"):
            print("SKIP: no libpython3.11-testsuite")
            return 0
        os.environ["DEVWIRE_IN_NAMESPACE"] = "1"
        os.execvp("unshare", ["unshare", "-Urn", sys.executable, *sys.argv])
    os.environ["PATH"] += ":/sbin:/usr/sbin"
    modules, rows = [], []
    with tempfile.TemporaryDirectory() as name:
        shim = Shim(name, run_script, preload, softnic)
        for module in more or MODULES:
            modules.append(compare(shim, module, rows))
    if out is not None:
        write_document(out, modules, sorted(rows))
    return 1 if shim_fixture.failures else 0


if __name__ == "__main__":
    sys.exit(main())
