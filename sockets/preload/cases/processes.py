"""Cases: children that do not touch the sockets of their parent."""

import ctypes
import os
import socket
import subprocess
import sys
import threading

from harness import (PEER, PORT, c, case, listener, call_back, outcome, peer,
                     receive_all, tcp)


def goes_on(s, text):
    s.sendall(text)
    return receive_all(s, len(text))


@case("fork", "close")
def a_child_that_closes():
    s, a = peer("echo"), listener()
    pid = os.fork()
    if pid == 0:
        s.close()
        a.close()
        os._exit(7)
    yield os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    yield goes_on(s, b"parent")
    accepted, _keep = call_back(a)
    yield goes_on(accepted, b"server")


@case("vfork", "execve", "posix_spawn", "close_range")
def programs():
    s = peer("echo")
    yield subprocess.run(["true"], check=False).returncode  # vfork
    yield subprocess.run(["cat"], input=b"text", capture_output=True,
                         check=False, close_fds=True).stdout
    yield subprocess.run(["true"], check=False, close_fds=False,
                         preexec_fn=lambda: None).returncode  # fork
    pid = os.posix_spawn("/bin/true", ["true"], os.environ)
    yield os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    yield os.system("exit 3") >> 8, os.popen("echo shell").read()
    yield outcome(os.posix_spawn, "/nonesuch", ["x"], os.environ)
    yield goes_on(s, b"still here")


@case("fork")
def forks_under_load():
    s = peer("echo")
    data = os.urandom(1 << 20)
    reader = threading.Thread(target=lambda: got.append(receive_all(s,
                                                                    len(data))))
    got = []
    reader.start()
    codes = []
    for start in range(0, len(data), 1 << 16):
        s.sendall(data[start:start + (1 << 16)])
        pid = os.fork()
        if pid == 0:
            os._exit(5)
        codes.append(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]))
    reader.join()
    yield got[0] == data, set(codes)


@case("execve", "fcntl")
def closed_on_exec():
    s = peer("echo")
    look = "import os\ntry:\n  os.fstat(%d)\n  print('there')\n" \
        "except OSError as e: print(e.errno)"
    yield subprocess.run([sys.executable, "-c", look % s.fileno()],
                         capture_output=True, close_fds=False,
                         check=False).stdout
    yield outcome(os.execv, "/nonesuch", ["x"])
    yield goes_on(s, b"not replaced")


@case("fork", "listen", "connect", "bind")
def a_daemon():
    """Forks twice, closes everything, and only then listens."""
    s = tcp()
    s.bind(("", 0))
    r, w = os.pipe()
    pid = os.fork()
    if pid == 0:
        os.setsid()
        if os.fork() > 0:
            os._exit(0)
        os.write(w, b"daemon")
        os._exit(0)
    os.waitpid(pid, 0)
    yield os.read(r, 6)
    s.listen()
    accepted, _keep = call_back(s)
    yield goes_on(accepted, b"after forks")
