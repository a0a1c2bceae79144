#!/usr/bin/env python3
"""What a program sees of its TCP sockets: one line "CASE NUMBER: RESULT" for
each thing that a case did.

  socket_cases.py OWN_ADDRESS PEER_ADDRESS PEER_PORT [MODULE...]
  socket_cases.py OWN_ADDRESS PEER_ADDRESS PEER_PORT rows

Run by shim_test.py twice, on the kernel's sockets and on Devwire's; the lines
must be equal. The peer is shim_test.py's, and does what the first line says
that it is sent: see serve_case() there.
"""

import importlib
import sys

import harness

MODULES = ("connecting", "descriptors", "data", "messages", "options",
           "processes")

wanted = sys.argv[4:]
for name in MODULES if wanted in ([], ["rows"]) else wanted:
    importlib.import_module(name)
if wanted == ["rows"]:
    harness.rows()
else:
    harness.run()
