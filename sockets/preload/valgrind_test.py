#!/usr/bin/env python3
"""Programs with one thread of their own, under valgrind: no error, no leak.

  valgrind_test.py DEVWIRE_RUN LIBDEVWIRE_PRELOAD LIBSOFTNIC ABSEIL_PROGRAM
                   DEVMEM_TOOL ECHO

On the shim: a program that knows nothing of Devwire, and one that sends from
device memory. On the C++ interface: one that echoes from device memory.
"""

import os
import shutil
import socket
import sys
import threading

from shim_fixture import LINUX, OURS, main, report

PORT = 7000
VALGRIND = ["valgrind", "--quiet", "--error-exitcode=9", "--leak-check=full",
            "--errors-for-leak-kinds=definite"]


def read_all(s):
    got = b""
    while data := s.recv(1 << 16):
        got += data
    return got


def with_peer(talk, run):
    """run() while talk(socket) is at the other end of its connection."""
    said = []
    with socket.create_server((LINUX, PORT)) as listener:
        def serve():
            with listener.accept()[0] as s:
                said.append(talk(s))
        thread = threading.Thread(target=serve, daemon=True)
        thread.start()
        result = run()
        thread.join(20)
    return result, said


def check(what, result, good):
    report(result.returncode == 0 and good, f"valgrind: {what}",
           f"status {result.returncode}: {result.stdout}{result.stderr}")


def test(shim, arguments):
    if shutil.which("valgrind") is None:
        print("SKIP: no valgrind")
        return
    abseil_program, devmem_tool, echo = map(os.path.abspath, arguments)

    def send_back(s):
        text = b""
        while data := s.recv(1 << 16):
            text += data
            s.sendall(data)
        return text
    result, said = with_peer(send_back, lambda: shim.run(
        *VALGRIND, abseil_program, LINUX, PORT))
    check("a program that knows nothing of Devwire", result, said[0])

    result, said = with_peer(read_all, lambda: shim.run(
        *VALGRIND, devmem_tool, "-f", "t0", "-d", "memfd", "-b", "1:2048",
        LINUX, PORT))
    check("devmem_tool sends from device memory", result,
          len(said[0]) == 2048 * 2049 // 2)

    text = bytes(range(256)) * 400
    def ask(s):
        threading.Thread(target=lambda: (s.sendall(text),
                                         s.shutdown(socket.SHUT_WR))).start()
        return read_all(s)
    shim.env.update(DEVWIRE_VERBS_LIBRARY=os.path.abspath(sys.argv[3]),
                    SOFTNIC="dev=sn0,port=tap:t0,mode=thread,vnet=1")
    result, said = with_peer(ask, lambda: shim.run_alone(
        *VALGRIND, echo, "call", f"{LINUX}:{PORT}", "--address", f"{OURS}/24"))
    check("echo, from the device memory it came in", result, said == [text])


if __name__ == "__main__":
    sys.exit(main(test))
