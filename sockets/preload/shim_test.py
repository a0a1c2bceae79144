#!/usr/bin/env python3
"""Unmodified programs on Devwire's sockets, Linux as the peer, in a namespace
made here.

  shim_test.py DEVWIRE_RUN LIBDEVWIRE_PRELOAD LIBSOFTNIC SOCKET_CASES TABLE

Prints "PASS: ", "FAIL: " and "SKIP: " lines; the exit status is 1 when one
failed.
"""

import collections
import contextlib
import errno
import hashlib
import os
import pathlib
import queue
import re
import select
import socket
import subprocess
import sys
import tempfile
import threading
import time
import urllib.request

LINUX, OURS, PORT = "10.81.0.1", "10.81.0.2", 7000
LINUX6, OURS6 = "fd81::1", "fd81::2"
MIB = 1 << 20

failures = 0
ENDS = queue.Queue()


def report(ok, what, detail=""):
    global failures
    failures += not ok
    print(f"{'PASS' if ok else 'FAIL'}: {what}" +
          (f": {detail}" if detail and not ok else ""), flush=True)


def serve_case(s):
    """The peer of socket_cases.py."""
    line = b""
    while not line.endswith(b"\n"):
        byte = s.recv(1)
        if not byte:
            return
        line += byte
    words = line.decode().split()
    if words[0] == "fin":
        s.sendall(b"bye")
        s.shutdown(socket.SHUT_WR)
        while s.recv(1000):
            pass
    elif words[0] == "reset":
        s.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
        s.close()
    elif words[0] == "silent":
        s.recv(1)
    elif words[0] == "deaf":
        s.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        gone = select.poll()
        gone.register(s, select.POLLRDHUP)
        gone.poll(40000)
    elif words[0] == "late":
        time.sleep(0.5)
        s.sendall(b"too late")
        s.recv(1)
    elif words[0] == "mark":
        s.setsockopt(socket.SOL_SOCKET, socket.SO_OOBINLINE, 1)
        time.sleep(0.3)
        s.sendall(s.recv(100) + b"|" + s.recv(100))
    elif words[0] == "report":  # How this connection ended.
        try:
            s.sendall(b"".join(w.encode() for w in words[1:]))
            while s.recv(1 << 16):
                pass
            ENDS.put(b"ended")
        except ConnectionError:
            ENDS.put(b"reset")
    elif words[0] == "reports":
        s.sendall(ENDS.get(timeout=20))
    elif words[0] == "urgent":
        s.recv(1)
        s.sendall(b"ab")
        s.send(b"c", socket.MSG_OOB)
        s.sendall(b"de")
        s.recv(1)
    elif words[0] == "full":  # The port of a listener that takes no more.
        full = socket.create_server(("", 0), backlog=0, family=s.family,
                                    dualstack_ipv6=True)
        here = [socket.create_connection(full.getsockname()[:2])]
        s.sendall(b"%d\n" % full.getsockname()[1])
        s.recv(1)
        for end in here + [full]:
            end.close()
    elif words[0] == "call":
        try:
            with socket.create_connection((words[1], int(words[2]))) as other:
                if len(words) == 4:
                    time.sleep(float(words[3]))
                other.sendall(b"hi")
                echo(other)
        except ConnectionError:  # Its listener was closed.
            pass
    else:
        echo(s)


def serve_and_close(s):
    with s, contextlib.suppress(ConnectionError):
        serve_case(s)


def echo(s):
    try:
        while data := s.recv(1 << 16):
            s.sendall(data)
    except ConnectionError:
        pass


def serve_cases():
    listener = socket.create_server(("", PORT), backlog=64,
                                    family=socket.AF_INET6,
                                    dualstack_ipv6=True)

    def accept():
        while True:
            s, _ = listener.accept()
            threading.Thread(target=serve_and_close, args=(s,),
                             daemon=True).start()

    threading.Thread(target=accept, daemon=True).start()


def kernel_sockets():
    """Lines of /proc/net/tcp whose local address is the device's."""
    own = "".join(f"{int(b):02X}" for b in reversed(OURS.split(".")))
    with open("/proc/net/tcp", encoding="ascii") as table:
        return [l for l in table if l.split()[1].startswith(own + ":")]


def run_words(words, timeout, env=None):
    """The finished program; one that hangs is killed, and says so."""
    with subprocess.Popen(words, env=env, stdout=subprocess.PIPE,
                          stderr=subprocess.PIPE, text=True) as process:
        try:
            out, err = process.communicate(timeout=timeout)
        except subprocess.TimeoutExpired:
            process.kill()
            out, err = process.communicate()
            err += f"\nkilled after {timeout} s"
    return subprocess.CompletedProcess(words, process.returncode, out, err)


class Shim:

    def __init__(self, folder, run, preload, softnic, address=OURS + "/24"):
        self.run_script = run
        self.config = folder / f"devwire{':' in address:d}.toml"
        self.config.write_text(
            f'[stack]\nverbs_library = "{softnic}"\n'
            f'softnic = "dev=sn0,port=tap:t0,mode=thread,vnet=1"\n'
            f'device = "sn0"\naddress = "{address}"\n')
        self.env = dict(os.environ, DEVWIRE_PRELOAD=preload)

    def command(self, *words):
        return [self.run_script, "--config", str(self.config), *words]

    def run(self, *words, timeout=120):
        return run_words(self.command(*words), timeout, self.env)

    def start(self, *words):
        return subprocess.Popen(self.command(*words), env=self.env,
                                stdout=subprocess.DEVNULL,
                                stderr=subprocess.PIPE, text=True)


def compare_cases(shim, script, linux, own):
    """Lines of the cases on the kernel's sockets."""
    family = "IPv6" if ":" in own else "IPv4"
    native = run_words([sys.executable, script, linux, linux, str(PORT)], 90)
    ours = shim.run(sys.executable, script, own, linux, str(PORT), timeout=90)
    report(native.returncode == 0 and native.stdout.count("\n") > 900,
           f"the cases run on the kernel's sockets, {family}",
           native.stdout[-300:] + native.stderr[-1000:])
    report(ours.returncode == 0, f"the cases run on Devwire's sockets, {family}",
           ours.stdout[-300:] + ours.stderr[-1000:])
    lines = ours.stdout.splitlines()
    for i, line in enumerate(native.stdout.splitlines()):
        got = lines[i] if i < len(lines) else "nothing"
        report(got == line, f"socket case {line.split(':')[0]}, {family}",
               f"the kernel says {line}, Devwire {got}")
    return native.stdout.splitlines()


def table_rows(document):
    """The rows of docs/sockets.md: their errors by name."""
    text = pathlib.Path(document).read_text(encoding="utf-8")
    table = text.split("<!-- calls begin -->")[1].split("<!-- calls end -->")[0]
    rows = {}
    for line in table.splitlines():
        match = re.match(r"\| `(\w+)` \| (taken|passed|kept) \| ([A-Z0-9 ]*)\|",
                         line)
        if match:
            rows[match[1]] = match[3].split()
        elif line.startswith("| `"):
            report(False, "a row of docs/sockets.md that nobody understands",
                   line)
    return rows


def compare_rows(script, document, native):
    """Each row has a case, which has brought about each of its errors."""
    listed = subprocess.run([sys.executable, script, LINUX, LINUX, "0", "rows"],
                            capture_output=True, text=True, check=True).stdout
    results = collections.defaultdict(str)
    for line in native:
        name = line.split()[0]
        results[name] += line + "\n"
    seen = collections.defaultdict(str)
    for line in listed.splitlines():
        name, *rows = line.split()
        for row in rows:
            seen[row] += results[name]
    documented = table_rows(document)
    report(len(documented) > 100, "the table of calls is there")
    for row, errors in documented.items():
        missing = [e for e in errors if not names_error(e, seen[row])]
        report(seen[row] and not missing,
               f"row {row} of docs/sockets.md has its cases",
               f"errors without a case: {missing}" if seen[row] else "none")
    report(not set(seen) - set(documented),
           "every case is of a row of docs/sockets.md",
           str(set(seen) - set(documented)))


def names_error(name, text):
    """By its name, or as the number that SO_ERROR answers."""
    number = getattr(errno, name)
    return re.search(rf"\b{name}\b|: {number}\b", text) is not None


def http_server(shim, folder):
    data = os.urandom(64 * MIB)
    (folder / "data").write_bytes(data)
    server = shim.start(sys.executable, "-m", "http.server", "8000",
                        "--bind", OURS, "--directory", str(folder))
    got = b""
    for _ in range(100):  # Until it listens.
        try:
            with urllib.request.urlopen(f"http://{OURS}:8000/data",
                                        timeout=60) as reply:
                in_kernel = kernel_sockets()
                got = reply.read()
            break
        except OSError:
            time.sleep(0.2)
    server.kill()
    server.wait()
    report(hashlib.sha256(got).digest() == hashlib.sha256(data).digest(),
           "python3 -m http.server on Devwire: 64 MiB arrive",
           f"{len(got)} bytes; {server.stderr.read()[-500:]}")
    report(not in_kernel, "no kernel socket has the device's address",
           str(in_kernel))


def http_client(shim, folder):
    server = subprocess.Popen(
        [sys.executable, "-m", "http.server", "8001", "--bind", LINUX,
         "--directory", str(folder)],
        stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    fetch = ("import hashlib, sys, urllib.request\n"
             "print(hashlib.sha256(urllib.request.urlopen("
             "sys.argv[1], timeout=60).read()).hexdigest())")
    expected = hashlib.sha256((folder / "data").read_bytes()).hexdigest()
    for _ in range(50):
        result = shim.run(sys.executable, "-c", fetch,
                          f"http://{LINUX}:8001/data")
        if result.returncode == 0:
            break
        time.sleep(0.2)
    server.kill()
    server.wait()
    report(result.stdout.strip() == expected,
           "urllib on Devwire: 64 MiB arrive", result.stderr[-500:])


def what_is_not_taken(shim):
    script = (
        "import socket\n"
        "l = socket.create_server(('127.0.0.1', 0))\n"
        "c = socket.create_connection(l.getsockname())\n"
        "s, _ = l.accept()\n"
        "c.sendall(b'loop'); assert s.recv(10) == b'loop'\n"
        "a, b = socket.socketpair()\n"
        "a.send(b'unix'); assert b.recv(10) == b'unix'\n"
        "u = socket.socket(type=socket.SOCK_DGRAM)\n"
        f"u.connect(('{LINUX}', 9)); u.send(b'udp')\n"
        "print(open('/proc/net/tcp').read().count('0100007F:'))\n")
    result = shim.run(sys.executable, "-c", script)
    report(result.returncode == 0 and int(result.stdout) >= 3,
           "loopback, UNIX and UDP are the kernel's", result.stderr[-500:])


def forks(shim):
    script = (
        "import os, socket, sys\n"
        f"s = socket.create_connection(('{LINUX}', {PORT}))\n"
        "s.sendall(b'echo\\n')\n"
        f"a = socket.create_server(('{OURS}', 0))\n"
        "def tell(f, *args):\n"
        "    try:\n"
        "        result = f(*args)\n"
        "    except OSError as e:\n"
        "        result = os.strerror(e.errno)\n"
        "    os.write(1, f'{f.__name__}: {result}\\n'.encode())\n"
        "if os.fork() == 0:\n"
        "    for f, *args in ((s.recv, 1), (s.send, b'x'), (a.accept,),\n"
        "                     (a.listen, 1), (s.shutdown, 2),\n"
        "                     (s.getsockname,), (s.getpeername,),\n"
        "                     (s.setsockopt, 6, 1, 1),\n"
        "                     (s.getsockopt, 6, 1),\n"
        f"                     (s.connect, ('{LINUX}', {PORT})),\n"
        f"                     (s.bind, ('{OURS}', 0)),\n"
        "                     (s.recvmsg, 1), (s.sendmsg, [b'x'])):\n"
        "        tell(f, *args)\n"
        "    s.close(); a.close()\n"
        "    tell(os.read, s.fileno(), 1)\n"
        "    os._exit(0)\n"
        "os.wait()\n"
        "s.sendall(b'parent'); print(s.recv(100).decode())\n"
        "k = socket.create_connection(('%s', %d))\n" % (LINUX, PORT) +
        "k.sendall(b'call %s %d\\n' % (a.getsockname()[0].encode(),"
        " a.getsockname()[1]))\n"
        "print(a.accept()[0].recv(2).decode())\n")
    result = shim.run(sys.executable, "-c", script)
    lines = result.stdout.splitlines()
    report(len(lines) == 16 and lines[-3] == "read: Bad file descriptor",
           "a child's calls on its parent's sockets come back",
           result.stdout + result.stderr[-500:])
    for line in lines[:-3]:
        report(line.endswith(": Owner died"),
               f"a child is refused {line.split(':')[0]}", line)
    report(lines[-2:] == ["parent", "hi"], "and the parent's sockets go on",
           result.stdout)
    report("Fork before the first listen or connect" in result.stderr,
           "and it is told so", result.stderr[-500:])


def options_that_we_lack(shim):
    """Refused once a socket is taken; a socket that has one is not taken."""
    script = (
        "import os, socket\n"
        f"PEER = ('{LINUX}', {PORT})\n"
        "s = socket.create_connection(PEER)\n"
        "for level, name in ((1, 26), (1, 50), (6, 14), (6, 19), (6, 30),"
        " (6, 31), (6, 32), (6, 35)):\n"
        "    try: s.setsockopt(level, name, 1); print('accepted')\n"
        "    except OSError as e: print(os.strerror(e.errno))\n"
        "k = socket.socket(); k.setsockopt(6, 30, 1)\n"
        "k.connect(PEER); k.sendall(b'echo\\nx'); k.recv(1)\n"
        "l = socket.socket()\n"
        "l.setsockopt(6, 30, 1); l.listen(); l.shutdown(0)\n"
        "print(s.getsockname()[0], k.getsockname()[0])\n")
    result = run_words([shim.run_script, "--config", str(shim.config),
                        "--explain", sys.executable, "-c", script], 60,
                       shim.env)
    lines = result.stdout.splitlines()
    report(lines == ["Operation not supported"] * 8 + [f"{OURS} {LINUX}"],
           "options that Devwire lacks are refused, or keep a socket the "
           "kernel's", result.stdout + result.stderr[-1000:])
    report(result.stderr.count("an option was set that Devwire lacks") == 2,
           "and --explain says why", result.stderr[-1000:])


def nothing_leaks(shim):
    """Connections that come and go, by the thousand and from several threads:
    no descriptor is left, nor one that the kernel counts."""
    script = (
        "import os, socket, struct, sys, threading\n"
        f"PEER = ('{LINUX}', {PORT})\n"
        "reset = struct.pack('ii', 1, 0)\n"
        "def once(i):\n"
        "    s = socket.socket()\n"
        "    s.setsockopt(6, 1, 1)\n"
        "    if i % 3 == 0: s.setsockopt(1, 8, 65536)\n"
        "    s.connect(PEER)\n"
        "    s.sendall(b'echo\\nx')\n"
        "    assert s.recv(1) == b'x'\n"
        "    if i % 2: s.setsockopt(1, socket.SO_LINGER, reset)\n"
        "    copy = s.dup() if i % 5 == 0 else None\n"
        "    s.close()\n"
        "    if copy: copy.close()\n"
        "def many(n):\n"
        "    for i in range(n): once(i)\n"
        "many(10)\n"
        "count = lambda: len(os.listdir('/proc/self/fd'))\n"
        "before = count()\n"
        "threads = [threading.Thread(target=many, args=[250])"
        " for _ in range(4)]\n"
        "for t in threads: t.start()\n"
        "for t in threads: t.join()\n"
        "refused = socket.socket()\n"
        "for _ in range(100):\n"
        "    try: refused.connect((PEER[0], PEER[1] + 1))\n"
        "    except ConnectionRefusedError: pass\n"
        "refused.close()\n"
        "for _ in range(100):\n"
        f"    a = socket.create_server(('{OURS}', 0))\n"
        "    a.shutdown(socket.SHUT_RD); a.listen(); a.close()\n"
        "print(before, count())\n")
    result = shim.run(sys.executable, "-c", script)
    numbers = result.stdout.split()
    report(len(numbers) == 2 and numbers[0] == numbers[1],
           "a thousand connections leave no descriptor behind",
           result.stdout + result.stderr[-1000:])


def exit_sends_all(shim, folder):
    received = []
    listener = socket.create_server((LINUX, 7100))

    def take():
        s, _ = listener.accept()
        with s:
            while data := s.recv(1 << 16):
                received.append(data)

    taker = threading.Thread(target=take)
    taker.start()
    script = (f"import socket\ns = socket.create_connection(('{LINUX}', 7100))\n"
              f"s.sendall(b'x' * (4 << 20))\n")
    result = shim.run(sys.executable, "-c", script)
    taker.join(60)
    report(result.returncode == 0 and sum(map(len, received)) == 4 * MIB,
           "a program that ends has sent all of it, and its peer sees the end",
           f"{sum(map(len, received))} bytes")


def refusals(shim, folder):
    def stderr_of(env, *words):
        return subprocess.run(words, env=dict(shim.env, **env),
                              capture_output=True, text=True, timeout=60,
                              check=False).stderr

    bad = folder / "bad.toml"
    bad.write_text("[stack]\ncolour = 1\n")
    run = shim.run_script
    report("unknown key stack.colour" in stderr_of(
        {"DEVWIRE_CONFIG": str(bad)}, run, sys.executable, "-c",
        "import socket; socket.socket().listen()"), "an unknown key is named")
    report("cannot read /nonesuch" in stderr_of({}, run, "--config",
                                                "/nonesuch", "true"),
           "a configuration that is not there")
    report("no program nonesuch" in stderr_of({}, run, "--config",
                                              str(shim.config), "nonesuch"),
           "a program that is not there")
    report("no configuration" in stderr_of({}, run, "true"),
           "no configuration at all")
    no_nic = folder / "no_nic.toml"
    no_nic.write_text(shim.config.read_text().replace("sn0", "sn9", 1)
                      .replace('device = "sn0"', 'device = "other"'))
    said = stderr_of({"DEVWIRE_CONFIG": str(no_nic)}, run, sys.executable,
                     "-c", f"import socket\nsocket.create_connection(('{LINUX}'"
                     f", {PORT}))")
    report("other" in said and "Network is down" in said,
           "a device that is not there", said[-500:])


def main():
    run, preload, softnic, cases, document = map(os.path.abspath,
                                                 sys.argv[1:6])
    if os.environ.get("DEVWIRE_IN_NAMESPACE") is None:
        if not os.access("/dev/net/tun", os.R_OK | os.W_OK):
            print("SKIP: no access to /dev/net/tun")
            return 0
        os.environ["DEVWIRE_IN_NAMESPACE"] = "1"
        os.execvp("unshare", ["unshare", "-Urn", sys.executable, *sys.argv])
    os.environ["PATH"] += ":/sbin:/usr/sbin"
    for command in ("ip link set lo up", "ip tuntap add t0 mode tap vnet_hdr",
                    "ip link set t0 up", f"ip addr add {LINUX}/24 dev t0",
                    f"ip addr add {LINUX6}/64 dev t0 nodad"):
        subprocess.run(command.split(), check=True)
    with tempfile.TemporaryDirectory() as name:
        folder = pathlib.Path(name)
        shim = Shim(folder, run, preload, softnic)
        serve_cases()
        compare_rows(cases, document,
                     compare_cases(shim, cases, LINUX, OURS))
        shim6 = Shim(folder, run, preload, softnic, OURS6 + "/64")
        compare_cases(shim6, cases, LINUX6, OURS6)
        http_server(shim, folder)
        http_client(shim, folder)
        what_is_not_taken(shim)
        forks(shim)
        options_that_we_lack(shim)
        nothing_leaks(shim)
        exit_sends_all(shim, folder)
        refusals(shim, folder)
    return 1 if failures else 0


if __name__ == "__main__":
    sys.exit(main())
