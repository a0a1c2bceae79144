#!/usr/bin/env python3
"""Runs one module of CPython's own tests, with its HOST at another address.

  cpython_tests.py MODULE ADDRESS RESULTS [TEST...]

For cpython_suite.py. Writes one line "TEST<tab>RESULT" for each test to
RESULTS: ok, skip, fail, error; a test that begins and does not end is there
with "began" alone. Addresses that the tests have in their text are replaced
as the module is loaded.
"""

import faulthandler
import importlib.abc
import importlib.machinery
import os
import sys
import threading
import unittest

MODULE, ADDRESS, RESULTS = sys.argv[1:4]
SECONDS_PER_TEST = 60
# The modules whose text is changed, and how.
CHANGED = {
    "test.support.socket_helper": (('HOST = "localhost"', f'HOST = "{ADDRESS}"'),
                                   ('HOSTv4 = "127.0.0.1"',
                                    f'HOSTv4 = "{ADDRESS}"')),
    # Pairs of TCP, not of UNIX.
    "test.test_selectors": (("if hasattr(socket, 'socketpair'):", "if False:"),),
}
LITERALS = (("'127.0.0.1'", f"'{ADDRESS}'"), ('"127.0.0.1"', f'"{ADDRESS}"'))


class ChangingLoader(importlib.machinery.SourceFileLoader):

    def get_data(self, path):
        data = super().get_data(path)
        if not path.endswith(".py"):
            return data
        text = data.decode()
        for old, new in CHANGED.get(self.name, ()):
            if old not in text:
                sys.exit(f"{path} has no {old}")
            text = text.replace(old, new)
        for old, new in LITERALS:
            text = text.replace(old, new)
        return text.encode()

    def path_stats(self, path):  # No .pyc: it has the old text.
        raise OSError

    def set_data(self, path, data, *, _mode=0o666):
        pass


class ChangingFinder(importlib.abc.MetaPathFinder):

    def find_spec(self, name, path, target=None):
        if not name.startswith("test."):
            return None
        spec = importlib.machinery.PathFinder.find_spec(name, path, target)
        if spec is not None and isinstance(
                spec.loader, importlib.machinery.SourceFileLoader):
            spec.loader = ChangingLoader(name, spec.origin)
        return spec


class Results(unittest.TestResult):

    def __init__(self, path):
        super().__init__()
        self.file = open(path, "a", encoding="utf-8")
        self.outcome = None

    def write(self, test, what):
        self.file.write(f"{test.id()}\t{what}\n")
        self.file.flush()

    def startTest(self, test):
        super().startTest(test)
        self.write(test, "began")
        self.outcome = "ok"
        faulthandler.dump_traceback_later(SECONDS_PER_TEST, exit=True)

    def stopTest(self, test):
        super().stopTest(test)
        faulthandler.cancel_dump_traceback_later()
        self.write(test, self.outcome)

    def no(self, test, what, why):
        self.outcome = what
        if not hasattr(test, "_testMethodName"):  # setUpClass, setUpModule
            self.write(test, what)
        print(f"{test.id()}: {what}\n{why}", file=sys.stderr, flush=True)

    def addError(self, test, err):
        super().addError(test, err)
        self.no(test, "error", self._exc_info_to_string(err, test))

    def addFailure(self, test, err):
        super().addFailure(test, err)
        self.no(test, "fail", self._exc_info_to_string(err, test))

    def addSubTest(self, test, subtest, err):
        super().addSubTest(test, subtest, err)
        if err is not None:
            self.no(test, "fail", self._exc_info_to_string(err, test))

    def addSkip(self, test, reason):
        super().addSkip(test, reason)
        self.outcome = "skip"


sys.meta_path.insert(0, ChangingFinder())
from test import support  # pylint: disable=wrong-import-position

support.use_resources = ["network"]  # test_socketserver wants it.
support.verbose = 0
names = sys.argv[4:] or [MODULE]


def flat(suite):
    for test in suite:
        if isinstance(test, unittest.TestSuite):
            yield from flat(test)
        # They wait for a virtual machine.
        elif "VSOCK" not in test.id():
            yield test


unittest.TestSuite(flat(unittest.defaultTestLoader.loadTestsFromNames(
    names))).run(Results(RESULTS))
if any(not t.daemon and t is not threading.main_thread()
       for t in threading.enumerate()):
    os._exit(0)  # A test left a thread that does not end.
