#!/usr/bin/env python3
"""What the shared objects show, and what they need.

  library_test.py DEVWIRE_RUN LIBDEVWIRE_PRELOAD LIBSOFTNIC EXPORTS_OF_PRELOAD
                  EXPORTS_OF_SOFTNIC ABSEIL_PROGRAM

They live in programs that nobody has chosen: a symbol too many would take the
place of the program's own.
"""

import fnmatch
import os
import re
import socket
import subprocess
import sys
import threading

from shim_fixture import LINUX, main, report

# As a pattern each; Debian's Abseil is a shared one.
NEEDED = ("libabsl_*.so.*", "libstdc++.so.6", "libm.so.6", "libgcc_s.so.1",
          "libc.so.6", "ld-linux-x86-64.so.2")
PORT = 7000


def symbols(library, *flags):
    listed = subprocess.run(["nm", "--dynamic", *flags, library],
                            capture_output=True, text=True, check=True)
    return {line.split()[-1].split("@")[0] for line in
            listed.stdout.splitlines()}


def needed(library):
    listed = subprocess.run(["readelf", "--dynamic", library],
                            capture_output=True, text=True, check=True)
    return re.findall(r"\(NEEDED\).*\[(.*)\]", listed.stdout)


def patterns_of(exports):
    """The names in a version script."""
    text = re.sub(r"#.*", "", open(exports, encoding="utf-8").read())
    return re.search(r"global:(.*)local:", text, re.S)[1].replace(";", "").split()


def shows_its_api_alone(library, exports):
    name = os.path.basename(library)
    patterns = patterns_of(exports)
    shown = symbols(library, "--defined-only", "--extern-only")
    others = [s for s in shown
              if not any(fnmatch.fnmatchcase(s, p) for p in patterns)]
    report(not others, f"{name} shows its API alone", " ".join(others))
    missing = [p for p in patterns
               if not any(fnmatch.fnmatchcase(s, p) for s in shown)]
    report(not missing, f"{name} shows all that it says", " ".join(missing))


def needs_little(library):
    libraries = needed(library)
    others = [n for n in libraries
              if not any(fnmatch.fnmatchcase(n, p) for p in NEEDED)]
    report(libraries and not others,
           f"{os.path.basename(library)} needs no library that is not listed",
           " ".join(others))


def no_other_abseil_can_answer(library):
    """Each of its calls into Abseil names the version that Debian has built:
    absl::debian3::. Neither does its Abseil answer another's."""
    calls = [s for s in symbols(library, "--undefined-only")
             if re.match(r"_ZNK?4absl", s)]
    bare = [s for s in calls if not re.match(r"_ZNK?4absl7debian\d", s)]
    report(calls and not bare, f"{os.path.basename(library)}: every call into "
           "Abseil names its version", " ".join(bare))


def runs_a_program_with_abseil(shim, program):
    """Both have it in one process."""
    with socket.create_server((LINUX, PORT)) as listener:
        def answer():
            with listener.accept()[0] as s:
                while data := s.recv(1 << 16):
                    s.sendall(data)
        threading.Thread(target=answer, daemon=True).start()
        result = shim.run(program, LINUX, PORT)
    report(result.returncode == 0 and result.stdout == "1000 words came back\n",
           "a program with an Abseil of its own runs on Devwire",
           result.stdout + result.stderr)
    report(shim.next_report(os.path.basename(program))["taken"] == 1,
           "its socket was taken")


def test(shim, arguments):
    preload, softnic = map(os.path.abspath, sys.argv[2:4])
    preload_exports, softnic_exports, program = map(os.path.abspath, arguments)
    shows_its_api_alone(preload, preload_exports)
    shows_its_api_alone(softnic, softnic_exports)
    for library in preload, softnic:
        needs_little(library)
        no_other_abseil_can_answer(library)
    runs_a_program_with_abseil(shim, program)


if __name__ == "__main__":
    sys.exit(main(test))
