#!/usr/bin/env python3
"""Programs that nobody changed, on Devwire, with Linux's TCP as the peer.

  programs_test.py DEVWIRE_RUN LIBDEVWIRE_PRELOAD LIBSOFTNIC [NAME...]

Each says in its exit report how many sockets it had, and that the engine moved
the bytes; and the kernel has no socket with the device's address. DEVWIRE_LONG
makes transfers of 1 GiB. NAME: only these.
"""

import hashlib
import json
import os
import pathlib
import re
import shutil
import socket
import subprocess
import sys
import threading
import time

from shim_fixture import (LINUX, MIB, OURS, kernel_sockets, main, report,
                          wait_for)

LONG = os.environ.get("DEVWIRE_LONG") == "1"
SIZE = 1024 * MIB if LONG else 16 * MIB
SECONDS = 5 if LONG else 1
PYTHON = "/usr/bin/python3"
TESTS = []


def program(f):
    TESTS.append(f)
    return f


# -- what every test asks for -------------------------------------------------


def check(what, said, taken, bytes_in=0, bytes_out=0):
    """The exit report of a program: `taken` is a number, or (least, most)."""
    least, most = taken if isinstance(taken, tuple) else (taken, taken)
    report(least <= said["taken"] <= most and
           said["engine_bytes_in"] >= bytes_in and
           said["engine_bytes_out"] >= bytes_out,
           f"{what}: {least if least == most else f'{least} to {most}'} sockets "
           f"taken, and the bytes went through the engine",
           f"{said}, expected {bytes_in} in, {bytes_out} out")
    report(not kernel_sockets(), f"{what}: no socket of the kernel's has the "
           "device's address", str(kernel_sockets()))


def listens(address, port):
    """Waits until somebody does."""
    def try_once():
        try:
            socket.create_connection((address, port), timeout=1).close()
            return True
        except OSError:
            return False
    return wait_for(try_once)


def stop(process, sign=15):
    """Ends it, and waits until it has."""
    process.send_signal(sign)
    process.wait(20)


def linux(*words, **more):
    """A program on the kernel's sockets."""
    return subprocess.Popen(list(map(str, words)), stdin=subprocess.DEVNULL,
                            stdout=subprocess.DEVNULL,
                            stderr=subprocess.DEVNULL, **more)


def linux_output(*words):
    return subprocess.run(list(map(str, words)), capture_output=True, text=True,
                          timeout=60, check=False)


def sha256(path):
    with open(path, "rb") as f:
        return hashlib.file_digest(f, "sha256").hexdigest() if hasattr(
            hashlib, "file_digest") else hashlib.sha256(f.read()).hexdigest()


def data_file(shim):
    """SIZE random bytes; the same for every test."""
    path = shim.folder / "data"
    if not path.exists():
        with open(path, "wb") as f:
            for _ in range(SIZE // MIB):
                f.write(os.urandom(MIB))
    return path


def receive(s, size=None):
    """Bytes until the end, or so many."""
    data = bytearray()
    while (size is None or len(data) < size) and (more := s.recv(1 << 16)):
        data += more
    return bytes(data)


# -- HTTP ---------------------------------------------------------------------


def nginx_config(shim, address, name):
    root = shim.folder / name
    root.mkdir()
    (root / "put").mkdir()
    (root / "small").write_text("x" * 1000)
    os.link(data_file(shim), root / "data")
    temporary = "".join(
        f"  {kind}_temp_path {root}/{kind};\n"
        for kind in ("client_body", "proxy", "fastcgi", "uwsgi", "scgi"))
    config = shim.folder / f"{name}.conf"
    config.write_text(
        f"daemon off;\nmaster_process off;\npid {root}/pid;\n"
        f"error_log {root}/error.log;\nuser root;\n"
        "events { worker_connections 512; }\n"
        f"http {{\n  access_log off;\n{temporary}"
        "  keepalive_requests 1000000;\n"
        f"  client_max_body_size 2g;\n  server {{\n    listen {address}:8080;\n"
        f"    root {root};\n    location /put {{ dav_methods PUT; }}\n  }}\n}}\n")
    return root, ["/usr/sbin/nginx", "-e", f"{root}/start.log", "-c", config]


@program
def curl_and_nginx(shim):
    root, command = nginx_config(shim, LINUX, "linux")
    server = linux(*command)
    listens(LINUX, 8080)
    url = f"http://{LINUX}:8080"
    got = shim.folder / "got"
    result = shim.run("curl", "-sS", "-w", "%{num_connects} ",
                      f"{url}/small", "-o", "/dev/null",
                      f"{url}/data", "-o", got, f"{url}/small", "-o",
                      "/dev/null", timeout=300)
    report(result.stdout.split() == ["1", "0", "0"],
           "curl: three requests on one connection",
           result.stdout + result.stderr)
    report(sha256(got) == sha256(root / "data"), "curl downloads from nginx")
    check("curl, downloading", shim.next_report("curl"), 1, bytes_in=SIZE)
    result = shim.run("curl", "-sS", "-T", root / "data", f"{url}/put/data",
                      timeout=300)
    report(result.returncode == 0 and
           sha256(root / "put/data") == sha256(root / "data"),
           "curl uploads to nginx", result.stderr)
    check("curl, uploading", shim.next_report("curl"), 1, bytes_out=SIZE)
    stop(server)


@program
def nginx(shim):
    root, command = nginx_config(shim, OURS, "ours")
    server = shim.start(*command)
    got = shim.folder / "got"
    url = f"http://{OURS}:8080"
    linux_output("curl", "-sS", "--retry", 50, "--retry-connrefused",
                 "--retry-delay", 1, f"{url}/small")
    linux_output("curl", "-sS", f"{url}/data", "-o", got)
    report(sha256(got) == sha256(root / "data"), "nginx: curl downloads")
    linux_output("curl", "-sS", "-T", root / "data", f"{url}/put/data")
    report(sha256(root / "put/data") == sha256(root / "data"),
           "nginx: curl uploads")
    wrk = linux_output("wrk", "-t", 2, "-c", 16, "-d", f"{SECONDS}s",
                       f"{url}/small")
    requests = int(re.search(r"(\d+) requests in", wrk.stdout).group(1))
    report(requests > 100 and "Socket errors" not in wrk.stdout and
           "Non-2xx" not in wrk.stdout, "nginx under wrk", wrk.stdout)
    stop(server)
    check("nginx", shim.next_report("nginx"), (1 + 3 + 16, 1 + 3 + 17),
          bytes_in=SIZE, bytes_out=SIZE + 1000 * requests)


@program
def http_server(shim):
    data = data_file(shim)
    server = shim.start(PYTHON, "-m", "http.server", "8000", "--bind", OURS,
                        "--directory", data.parent)
    got = shim.folder / "got"
    result = linux_output("curl", "-sS", "--retry", 50, "--retry-connrefused",
                          "--retry-delay", 1, f"http://{OURS}:8000/data", "-o",
                          got)
    report(result.returncode == 0 and sha256(got) == sha256(data),
           "python3 -m http.server: curl downloads", result.stderr)
    stop(server, 2)
    check("http.server", shim.next_report("python3"), 2, bytes_out=SIZE)


# -- benchmarks of others -----------------------------------------------------


def iperf3_bytes(result):
    end = json.loads(result.stdout)["end"]
    return {key: end[key]["bytes"] for key in end if key.startswith("sum_")}


@program
def iperf3_client(shim):
    server = linux("iperf3", "-s", "-B", LINUX)
    listens(LINUX, 5201)
    time.sleep(0.2)  # Its answer to that was "busy".
    for flags, streams in (([], 8), (["-R"], 8), (["--bidir"], 2)):
        result = shim.run("iperf3", "-c", LINUX, "-J", "-t", SECONDS, "-P",
                          streams, *flags)
        name = f"iperf3 {' '.join(flags) or 'sending'}, {streams} streams"
        report(result.returncode == 0, name,
               result.stdout[-500:] + result.stderr)
        moved = iperf3_bytes(result)
        said = shim.next_report("iperf3")
        both = 2 if flags == ["--bidir"] else 1
        bytes_in, bytes_out = 0, moved["sum_received"]
        if flags == ["-R"]:
            bytes_in, bytes_out = bytes_out, 0
        elif flags:
            bytes_in = moved["sum_received_bidir_reverse"]
        check(name, said, 1 + both * streams, bytes_in, bytes_out)
    stop(server)


@program
def iperf3_server(shim):
    server = shim.start("iperf3", "-s", "-1", "-B", OURS)
    for _ in range(100):
        result = linux_output("iperf3", "-c", OURS, "-J", "-t", SECONDS, "-P", 8)
        if result.returncode == 0:
            break
        time.sleep(0.1)
    report(result.returncode == 0, "iperf3 -s: 8 streams come",
           result.stdout[-500:])
    server.wait(20)
    check("iperf3 -s", shim.next_report("iperf3"), (1 + 1 + 8, 2 + 1 + 8),
          bytes_in=iperf3_bytes(result)["sum_received"])


@program
def redis(shim):
    flags = ["--save", "", "--appendonly", "no", "--protected-mode", "no",
             "--dir", shim.folder]
    bench = ["-n", 20000 if LONG else 2000, "-c", 20, "-d", 1000, "-t",
             "set,get", "--csv"]
    requests = bench[1]
    server = shim.start("redis-server", "--bind", OURS, *flags)
    wait_for(lambda: "PONG" in linux_output("redis-cli", "-h", OURS,
                                            "ping").stdout)
    result = linux_output("redis-benchmark", "-h", OURS, *bench)
    report(result.returncode == 0 and '"GET"' in result.stdout,
           "redis-server under redis-benchmark", result.stdout + result.stderr)
    linux_output("redis-cli", "-h", OURS, "shutdown", "nosave")
    server.wait(20)
    # redis-cli twice; the benchmark asks for CONFIG, and once a test.
    check("redis-server", shim.next_report("redis-server"),
          (1 + 2 + 1 + 2 * 20, 1 + 10 + 5 + 2 * 20), 1000 * requests,
          1000 * requests)

    server = linux("redis-server", "--bind", LINUX, *flags)
    listens(LINUX, 6379)
    result = shim.run("redis-benchmark", "-h", LINUX, *bench)
    report(result.returncode == 0 and '"GET"' in result.stdout,
           "redis-benchmark", result.stdout + result.stderr)
    check("redis-benchmark", shim.next_report("redis-benchmark"),
          (2 * 20, 2 * 20 + 3), 1000 * requests, 1000 * requests)
    stop(server)


@program
def sockperf(shim):
    bench = ["ping-pong", "--tcp", "-p", 11111, "-t", SECONDS, "-m", 100]
    server = linux("sockperf", "server", "--tcp", "-i", LINUX, "-p", 11111)
    listens(LINUX, 11111)
    result = shim.run("sockperf", *bench, "-i", LINUX)
    count = re.search(r"Valid Duration\].*ReceivedMessages=(\d+)",
                      result.stdout)
    report(result.returncode == 0 and count, "sockperf ping-pong",
           result.stdout[-800:] + result.stderr[-300:])
    bytes_moved = 100 * int(count.group(1)) if count else 0
    check("sockperf ping-pong", shim.next_report("sockperf"), 1,
          bytes_moved, bytes_moved)
    stop(server)

    server = shim.start("sockperf", "server", "--tcp", "-i", OURS, "-p", 11111)
    listens(OURS, 11111)
    result = linux_output("sockperf", *bench, "-i", OURS)
    count = re.search(r"Valid Duration\].*ReceivedMessages=(\d+)",
                      result.stdout)
    report(result.returncode == 0 and count, "sockperf server",
           result.stdout[-800:] + server.log.read_text()[-500:])
    bytes_moved = 100 * int(count.group(1)) if count else 0
    stop(server, 2)
    check("sockperf server", shim.next_report("sockperf"), (3, 4),
          bytes_moved, bytes_moved)


# -- others -------------------------------------------------------------------


@program
def socat(shim):
    data = data_file(shim)
    got = shim.folder / "socat"
    server = linux("socat", "-u", f"TCP4-LISTEN:9000,bind={LINUX}",
                   f"CREATE:{got}")
    time.sleep(0.3)
    shim.run("socat", "-u", f"FILE:{data}", f"TCP4:{LINUX}:9000", timeout=300)
    server.wait(20)
    report(sha256(got) == sha256(data), "socat sends a file")
    check("socat, sending", shim.next_report("socat"), 1, bytes_out=SIZE)

    server = shim.start("socat", "-u", f"TCP4-LISTEN:9000,bind={OURS}",
                        f"CREATE:{got}")
    linux_output("socat", "-u", f"FILE:{data}",
                 f"TCP4:{OURS}:9000,retry=50,interval=0.1")
    server.wait(60)
    report(sha256(got) == sha256(data), "socat receives a file",
           server.log.read_text())
    check("socat, receiving", shim.next_report("socat"), 2, bytes_in=SIZE)


@program
def memcached(shim):
    server = shim.start("memcached", "-l", OURS, "-p", 11211, "-U", 0, "-u",
                        "root", "-t", 2, "-I", "2m")
    listens(OURS, 11211)
    value = os.urandom(MIB)
    clients = [socket.create_connection((OURS, 11211)) for _ in range(4)]
    ok = True
    for i, s in enumerate(clients):
        s.sendall(b"set k%d 0 0 %d\r\n%s\r\n" % (i, len(value), value))
        ok &= receive(s, 8) == b"STORED\r\n"
    for i, s in enumerate(clients):
        key = (i + 1) % len(clients)
        s.sendall(b"get k%d\r\n" % key)
        answer = b"VALUE k%d 0 %d\r\n%s\r\nEND\r\n" % (key, len(value), value)
        ok &= receive(s, len(answer)) == answer
        s.close()
    report(ok, "memcached: 4 clients set and get 1 MiB each")
    stop(server)
    check("memcached", shim.next_report("memcached"), 1 + 1 + 4, 4 * MIB,
          4 * MIB)


@program
def openssl(shim):
    key, cert = shim.folder / "key.pem", shim.folder / "cert.pem"
    linux_output("openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes",
                 "-keyout", key, "-out", cert, "-subj", "/CN=test", "-days", 2)
    shutil.copy(data_file(shim), shim.folder / "file")
    serve = ["openssl", "s_server", "-key", key, "-cert", cert, "-WWW",
             "-quiet"]
    fetch = ["openssl", "s_client", "-quiet", "-CAfile", cert, "-connect"]

    server = linux(*serve, "-accept", f"{LINUX}:4433", cwd=shim.folder)
    listens(LINUX, 4433)
    with open(shim.folder / "tls", "wb") as out:
        subprocess.run(shim.command(*fetch, f"{LINUX}:4433"), env=shim.env,
                       input=b"GET /file HTTP/1.0\r\n\r\n", stdout=out,
                       stderr=subprocess.DEVNULL, timeout=60, check=False)
    with open(shim.folder / "tls", "rb") as f:
        body = f.read().partition(b"\r\n\r\n")[2]
    report(hashlib.sha256(body).hexdigest() == sha256(data_file(shim)),
           "openssl s_client fetches a file", f"{len(body)} bytes")
    check("openssl s_client", shim.next_report("openssl"), 1, bytes_in=SIZE)
    stop(server)

    server = shim.start(*serve, "-accept", f"{OURS}:4433", cwd=shim.folder)
    listens(OURS, 4433)
    with open(shim.folder / "tls", "wb") as out:
        subprocess.run(list(map(str, [*fetch, f"{OURS}:4433"])),
                       input=b"GET /file HTTP/1.0\r\n\r\n", stdout=out,
                       stderr=subprocess.DEVNULL, timeout=60, check=False)
    with open(shim.folder / "tls", "rb") as f:
        body = f.read().partition(b"\r\n\r\n")[2]
    report(hashlib.sha256(body).hexdigest() == sha256(data_file(shim)),
           "openssl s_server serves a file", f"{len(body)} bytes")
    stop(server)
    check("openssl s_server", shim.next_report("openssl"), (3, 4),
          bytes_out=SIZE)


ECHO_SERVERS = {
    "asyncio": f"""
import asyncio, sys
async def echo(reader, writer):
    while data := await reader.read(65536):
        writer.write(data)
        await writer.drain()
    writer.close()
    await writer.wait_closed()
async def main():
    server = await asyncio.start_server(echo, "{OURS}", 7001)
    await asyncio.to_thread(sys.stdin.read)
    server.close()
asyncio.run(main())
""",
    "threaded": f"""
import socketserver, sys, threading
class Echo(socketserver.BaseRequestHandler):
    def handle(self):
        while data := self.request.recv(65536):
            self.request.sendall(data)
class Server(socketserver.ThreadingTCPServer):
    allow_reuse_address = True
    request_queue_size = 64
with Server(("{OURS}", 7001), Echo) as server:
    threading.Thread(target=server.serve_forever).start()
    sys.stdin.read()
    server.shutdown()
""",
}


def echo_server(shim, kind):
    clients, each, right = 20, SIZE // 20, []
    server = subprocess.Popen(shim.command(PYTHON, "-c", ECHO_SERVERS[kind]),
                              env=shim.env, stdin=subprocess.PIPE,
                              stderr=subprocess.PIPE)

    def client():
        data = os.urandom(each)
        with socket.socket() as s:
            if s.connect_ex((OURS, 7001)) != 0:
                return
            sender = threading.Thread(target=s.sendall, args=(data,))
            sender.start()
            right.append(receive(s, each) == data)
            sender.join()

    listens(OURS, 7001)
    threads = [threading.Thread(target=client) for _ in range(clients)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(120)
    _, said = server.communicate(b"", 30)
    report(right == [True] * clients, f"{kind} server: {clients} clients at "
           "once get their bytes back", f"{right} {said[-500:]}")
    check(f"{kind} server", shim.next_report("python3"),
          1 + 1 + clients, clients * each, clients * each)


@program
def python_servers(shim):
    echo_server(shim, "asyncio")
    echo_server(shim, "threaded")


@program
def idle_stream(shim):
    """Both ends probe an idle stream, and it lives."""
    script = (
        "import socket, time\n"
        f"s = socket.create_connection(('{LINUX}', 7002))\n"
        "s.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)\n"
        "assert s.recv(5) == b'hello'\n"
        "s.sendall(b'still')\n"
        "assert s.recv(5) == b'there'\n")
    env = dict(shim.env, DEVWIRE_TCP_KEEPALIVE_IDLE="300ms",
               DEVWIRE_TCP_KEEPALIVE_INTERVAL="300ms")
    with socket.create_server((LINUX, 7002)) as listener:
        client = subprocess.Popen(shim.command(PYTHON, "-c", script), env=env,
                                  stderr=subprocess.PIPE, text=True)
        s, _ = listener.accept()
        s.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        for option in (socket.TCP_KEEPIDLE, socket.TCP_KEEPINTVL):
            s.setsockopt(socket.IPPROTO_TCP, option, 1)
        time.sleep(60 if LONG else 2.5)
        # tcpi_segs_in: the handshake's two, and the probes and their answers.
        info = s.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 232)
        segments = int.from_bytes(info[140:144], sys.byteorder)
        s.sendall(b"hello")
        answer = receive(s, 5)
        s.sendall(b"there")
        _, said = client.communicate(timeout=20)
    report(segments >= 5 and answer == b"still" and client.returncode == 0,
           "an idle stream with keepalive lives on",
           f"{segments} segments {answer} {said[-500:]}")
    check("the idle stream", shim.next_report("python3"), 1, 10, 5)


def test(shim, names):
    for one in TESTS:
        if names and one.__name__ not in names:
            continue
        started = time.monotonic()
        try:
            one(shim)
        except (OSError, KeyError, AttributeError, IndexError,
                subprocess.SubprocessError) as e:
            report(False, one.__name__, repr(e))
        print(f"{one.__name__}: {time.monotonic() - started:.1f} s", flush=True)


if __name__ == "__main__":
    sys.exit(main(test))
