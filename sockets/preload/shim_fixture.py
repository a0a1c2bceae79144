"""For tests that run programs on Devwire: a namespace with a TAP, Linux on its
one side and the shim on the other; reports, and lines "PASS: " and "FAIL: ".
"""

import json
import os
import pathlib
import subprocess
import sys
import tempfile
import time

LINUX, OURS = "10.81.0.1", "10.81.0.2"
MIB = 1 << 20

failures = 0


def report(ok, what, detail=""):
    global failures
    failures += not ok
    print(f"{'PASS' if ok else 'FAIL'}: {what}" +
          (f": {detail}" if detail and not ok else ""), flush=True)


def wait_for(condition, seconds=20):
    """The first true answer of `condition`, or its last."""
    until = time.monotonic() + seconds
    while not (answer := condition()) and time.monotonic() < until:
        time.sleep(0.02)
    return answer


def kernel_sockets():
    """Sockets of the kernel's TCP whose local address is the device's."""
    found = subprocess.run(["ss", "-Htan", "src", OURS], capture_output=True,
                           text=True, check=True)
    return found.stdout.splitlines()


class Shim:
    """Starts programs with devwire-run; `more` is appended to the file."""

    def __init__(self, folder, run, preload, softnic, more=""):
        self.run_script = run
        self.folder = pathlib.Path(folder)
        self.config = self.folder / "devwire.toml"
        self.config.write_text(
            f'[stack]\nverbs_library = "{softnic}"\n'
            f'softnic = "dev=sn0,port=tap:t0,mode=thread,vnet=1"\n'
            f'device = "sn0"\naddress = "{OURS}/24"\n' + more)
        self.report_file = self.folder / "reports"
        self.seen = {}  # Reports, by program.
        self.env = dict(os.environ, DEVWIRE_PRELOAD=preload)

    def command(self, *words):
        return [self.run_script, "--config", str(self.config), "--report",
                str(self.report_file), *map(str, words)]

    def run(self, *words, timeout=120, **more):
        return self.run_alone(*self.command(*words), timeout=timeout, **more)

    def run_alone(self, *words, timeout=120, **more):
        """Without devwire-run."""
        return subprocess.run(list(map(str, words)), env=self.env,
                              capture_output=True, text=True, timeout=timeout,
                              check=False, **more)

    def start(self, *words, **more):
        """A program in the background; its output goes to a file."""
        log = tempfile.NamedTemporaryFile("w+", dir=self.folder, delete=False)
        process = subprocess.Popen(self.command(*words), env=self.env,
                                   stdin=subprocess.DEVNULL, stdout=log,
                                   stderr=log, **more)
        process.log = pathlib.Path(log.name)
        return process

    def reports(self, program):
        """The exit reports of a program so far, oldest first."""
        if not self.report_file.exists():
            return []
        lines = map(json.loads, self.report_file.read_text().splitlines())
        return [r for r in lines if r["program"] == program]

    def next_report(self, program):
        """Its oldest report that was not asked for yet; waits until it is
        there."""
        seen = self.seen.get(program, 0)
        wait_for(lambda: len(self.reports(program)) > seen)
        self.seen[program] = seen + 1
        return self.reports(program)[seen]


def main(test):
    """Calls test(shim, arguments) in a namespace of its own.

    The command line: DEVWIRE_RUN LIBDEVWIRE_PRELOAD LIBSOFTNIC [ARGUMENT...].
    """
    run, preload, softnic = map(os.path.abspath, sys.argv[1:4])
    if os.environ.get("DEVWIRE_IN_NAMESPACE") is None:
        if not os.access("/dev/net/tun", os.R_OK | os.W_OK):
            print("SKIP: no access to /dev/net/tun")
            return 0
        os.environ["DEVWIRE_IN_NAMESPACE"] = "1"
        os.execvp("unshare", ["unshare", "-Urn", sys.executable, *sys.argv])
    os.environ["PATH"] += ":/sbin:/usr/sbin"
    for command in ("ip link set lo up", "ip tuntap add t0 mode tap vnet_hdr",
                    "ip link set t0 up", f"ip addr add {LINUX}/24 dev t0"):
        subprocess.run(command.split(), check=True)
    with tempfile.TemporaryDirectory() as name:
        test(Shim(name, run, preload, softnic), sys.argv[4:])
    return 1 if failures else 0
