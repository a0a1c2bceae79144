#!/usr/bin/env python3
"""Runs a command on a kernel of Debian's that this machine does not run:
guest.py COMMAND...

The kernel is booted in QEMU, without KVM, on the folder that `./dev setup
--guest` has made. The guest sees this machine's files, read-only, with folders
of its own for /tmp, /run and /dev; the command runs there as root, with the
same working directory, and its output comes back. Exit status: the command's;
125 when there is none.

Modules that are loaded: those that tests of dmabufs, soft RDMA devices and
emulated paths need.
"""

import gzip
import os
import pathlib
import re
import shlex
import subprocess
import sys
import tempfile

# Debian's kernel has udmabuf, dma-heap and virtio built in.
MODULES = ("9pnet_virtio", "9p", "crc32_generic", "crc32c_generic", "vgem",
           "rdma_rxe", "sch_netem", "veth", "tun")
NO_RESULT = 125
RESULT = "GUEST_RC="

INIT = """#!/bin/sh
export PATH=/bin
mount -t proc proc /proc
mount -t sysfs sys /sys
mount -t devtmpfs dev /dev
for m in /modules/*.ko; do insmod "$m" || echo "guest: $m does not load"; done
mount -t 9p -o ro,trans=virtio,version=9p2000.L,msize=512000,cache=loose \\
  host /host || echo "guest: no files of the host"
for d in tmp run; do mount -t tmpfs tmpfs /host/$d; done
mount -t proc proc /host/proc
mount -t sysfs sys /host/sys
mount -t devtmpfs dev /host/dev
mkdir -p /host/dev/shm /host/dev/pts
mount -t tmpfs tmpfs /host/dev/shm
ip link set lo up
cp /command /host/tmp/command
chroot /host /bin/bash /tmp/command
echo
echo {result}$?
reboot -f
"""


class NoGuest(Exception):
    """Why no guest can be run."""


def cache_folder():
    base = os.environ.get("XDG_CACHE_HOME")
    base = pathlib.Path(base) if base else pathlib.Path.home() / ".cache"
    return base / "devwire/guest"


def find_kernel(folder):
    """(vmlinuz, release) of the kernel that the set-up has unpacked."""
    images = sorted(folder.glob("boot/vmlinuz-*"))
    if not images:
        raise NoGuest(f"no kernel in {folder}: run ./dev setup --guest")
    return images[-1], images[-1].name.removeprefix("vmlinuz-")


def module_files(folder, release):
    """Paths of MODULES and what they depend on, in the order of loading."""
    files = []
    for module in MODULES:
        shown = subprocess.run(
            ["/sbin/modprobe", "--show-depends", "-d", folder, "-S", release,
             module], capture_output=True, text=True, check=False)
        if shown.returncode != 0:
            raise NoGuest(f"the kernel {release} has no module {module}")
        for line in shown.stdout.splitlines():
            match = re.match(r"insmod (\S+)", line)
            if match and match[1] not in files:
                files.append(match[1])
    return files


def make_initrd(folder, release, command, root, to):
    for name in ("bin", "modules", "proc", "sys", "dev", "host"):
        (root / name).mkdir()
    busybox = pathlib.Path("/bin/busybox")
    (root / "bin/busybox").write_bytes(busybox.read_bytes())
    for name in ("sh", "cp", "chroot", "insmod", "ip", "mkdir", "mount",
                 "reboot"):
        (root / "bin" / name).symlink_to("busybox")
    for i, path in enumerate(module_files(folder, release)):
        name = pathlib.Path(path).name.removesuffix(".xz")
        with open(root / f"modules/{i:02}-{name}", "wb") as out:
            subprocess.run(["xzcat", "-f", path], stdout=out, check=True)
    (root / "init").write_text(INIT.format(result=RESULT))
    words = " ".join(shlex.quote(w) for w in command)
    (root / "command").write_text(
        "export HOME=/tmp TMPDIR=/tmp PATH=/usr/sbin:/usr/bin:/sbin:/bin\n"
        f"cd {shlex.quote(os.getcwd())} && {words}\n")
    for name in ("bin/busybox", "init"):
        (root / name).chmod(0o755)
    names = sorted(str(p.relative_to(root)) for p in root.rglob("*"))
    archive = subprocess.run(["cpio", "-o", "-H", "newc", "--quiet"],
                             cwd=root, input="\n".join(names).encode(),
                             stdout=subprocess.PIPE, check=True).stdout
    to.write_bytes(gzip.compress(archive, 1))


def run(command, timeout, memory_mib=2048, on_line=print):
    """The command's exit status; each line of output goes to `on_line`."""
    folder = cache_folder()
    image, release = find_kernel(folder)
    with tempfile.TemporaryDirectory(prefix="devwire-guest-") as scratch:
        scratch = pathlib.Path(scratch)
        root, initrd = scratch / "root", scratch / "initrd"
        root.mkdir()
        make_initrd(folder, release, command, root, initrd)
        machine = [
            "timeout", str(timeout), "qemu-system-x86_64", "-M", "q35",
            "-accel", "tcg,thread=multi", "-cpu", "max", "-smp", "2",
            "-m", str(memory_mib), "-nodefaults", "-no-user-config",
            "-display", "none", "-serial", "stdio", "-no-reboot",
            "-kernel", image, "-initrd", initrd,
            "-append", "console=ttyS0 panic=-1 quiet",
            "-virtfs", "local,path=/,mount_tag=host,security_model=none,"
            "readonly=on,multidevs=remap"]
        result = NO_RESULT
        with subprocess.Popen(machine, stdin=subprocess.DEVNULL,
                              stdout=subprocess.PIPE, text=True,
                              errors="replace") as guest:
            for line in guest.stdout:
                line = line.rstrip()
                if line.startswith(RESULT):
                    result = int(line.removeprefix(RESULT))
                else:
                    on_line(line)
        return result


def main():
    if len(sys.argv) < 2:
        sys.exit(__doc__)
    try:
        sys.exit(run(sys.argv[1:], timeout=900))
    except (NoGuest, OSError, subprocess.CalledProcessError) as why:
        print(f"guest: {why}", file=sys.stderr)
        sys.exit(NO_RESULT)


if __name__ == "__main__":
    main()
