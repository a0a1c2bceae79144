#!/usr/bin/env python3
"""Counts what a test run did: test_report.py DIR.

DIR holds NAME.json files (Bazel's build events, one run each) and NAME.log
files with lines "PASS: ...", "FAIL: ..." and "SKIP: ...". Every gtest case and
every such line counts as one. A target that does not build, times out or
crashes without a report counts as one failure. The last line printed is
"N passed, N failed"; a line before it lists the skips with their reasons. The
exit status is 1 when anything failed or nothing passed.
"""

import json
import pathlib
import re
import sys
import urllib.parse
import xml.etree.ElementTree as ET

CHECK_LINE = re.compile(r"^(PASS|FAIL|SKIP): (.*)$")


class Tally:

    def __init__(self):
        self.passed = 0
        self.failures = []
        self.skips = []

    def add_check_lines(self, text, origin):
        """Counts PASS/FAIL/SKIP lines; returns how many there were."""
        seen = 0
        for line in text.splitlines():
            match = CHECK_LINE.match(line.strip())
            if not match:
                continue
            seen += 1
            verdict, what = match.groups()
            if verdict == "PASS":
                self.passed += 1
            elif verdict == "FAIL":
                self.failures.append(f"{origin}: {what}")
            else:
                self.skips.append(f"{origin}: {what}")
        return seen

    def add_cases(self, xml_path, origin):
        """Counts the cases of a gtest report; returns (cases, failures)."""
        try:
            root = ET.parse(xml_path).getroot()
        except (OSError, ET.ParseError):
            return 0, 0
        cases = failures = 0
        for case in root.iter("testcase"):
            # Bazel's own report of a plain program has one case that only
            # repeats the exit status.
            if "classname" not in case.attrib:
                continue
            name = f"{origin} {case.get('classname')}.{case.get('name')}"
            cases += 1
            skipped = case.find("skipped")
            if (case.find("failure") is not None or
                    case.find("error") is not None):
                failures += 1
                self.failures.append(name)
            elif skipped is not None or case.get("result") == "skipped":
                message = "" if skipped is None else skipped.get("message", "")
                lines = message.strip().splitlines() or ["no reason given"]
                self.skips.append(f"{name}: {lines[-1]}")
            elif case.get("status") == "notrun":
                self.skips.append(f"{name}: disabled")
            else:
                self.passed += 1
        return cases, failures


def path_of(output):
    return pathlib.Path(
        urllib.parse.unquote(urllib.parse.urlparse(output["uri"]).path))


def read_suite(path, tally):
    suite = path.stem
    for line in path.read_text().splitlines():
        event = json.loads(line)
        ident = event.get("id", {})
        if "targetCompleted" in ident:
            if not event.get("completed", {}).get("success", False):
                label = ident["targetCompleted"]["label"]
                tally.failures.append(f"{suite} {label}: does not build")
        elif "testResult" in ident:
            label = ident["testResult"]["label"]
            read_result(f"{suite} {label}", event["testResult"], tally)
        elif "pattern" in ident and "aborted" in event:
            tally.failures.append(f"{suite}: {event['aborted']}")


def read_result(origin, result, tally):
    status = result.get("status")
    files = {o["name"]: path_of(o) for o in result.get("testActionOutput", [])}
    cases = failures = lines = 0
    if "test.xml" in files:
        cases, failures = tally.add_cases(files["test.xml"], origin)
    if "test.log" in files and cases == 0:
        before = len(tally.failures)
        text = files["test.log"].read_text(errors="replace")
        lines = tally.add_check_lines(text, origin)
        failures = len(tally.failures) - before
    if status == "PASSED":
        if cases == 0 and lines == 0:
            tally.passed += 1
    elif failures == 0:
        tally.failures.append(f"{origin}: {status}")


def main():
    directory = pathlib.Path(sys.argv[1])
    tally = Tally()
    for path in sorted(directory.glob("*.json")):
        read_suite(path, tally)
    for path in sorted(directory.glob("*.log")):
        tally.add_check_lines(path.read_text(errors="replace"), path.stem)
    for failure in tally.failures:
        print(f"failed: {failure}")
    if tally.skips:
        print(f"skipped {len(tally.skips)}: " + "; ".join(tally.skips))
    print(f"{tally.passed} passed, {len(tally.failures)} failed")
    sys.exit(1 if tally.failures or not tally.passed else 0)


if __name__ == "__main__":
    main()
