#!/usr/bin/env python3
"""docs/rfc_coverage.md against the tree: rfc_coverage_check.py [ROOT].

Every MUST-n and SHLD-n of RFC 9293, appendix B, has a row; every file that a
row names exists; every test that it names is a test. A row says "no, because"
instead of a test, and for a MUST it links a decision of its own.

Prints one line per rule, "PASS: ..." or "FAIL: ...", with every place that
breaks it. Exit status 1 when a rule fails.
"""

import pathlib
import re
import sys

PAGE = "docs/rfc_coverage.md"
# RFC 9293, appendix B: MUST-1 to MUST-69 and SHLD-1 to SHLD-31 all occur.
REQUIRED = ([f"MUST-{n}" for n in range(1, 70)] +
            [f"SHLD-{n}" for n in range(1, 32)])
# Where a bare file name of a row may lie, and where tests are.
ROOMS = ["transport/tcp", "transport/engine", "transport/wire", "transport",
         "transport/verbs", "sockets", "docs", ""]
TESTS = re.compile(r"^\s*TEST(?:_F|_P)?\(\s*(\w+)\s*,\s*(\w+)\s*\)", re.M)
NAMES_TEST = re.compile(r"`(\w+)\.(\w+)`")
NAMES_FILE = re.compile(r"`([\w/.*-]+\.(?:h|cc|py|sh|md))`")


def rows_of(text):
    """(line number, cells) of every row of every table."""
    for number, line in enumerate(text.splitlines(), 1):
        if not line.startswith("|") or re.match(r"^\|[-| ]*$", line):
            continue
        # A "|" inside of code is not the end of a cell.
        cells = re.split(r"(?<!\\)\|", line.strip().strip("|"))
        yield number, [cell.strip() for cell in cells]


def tests_of(root):
    found, suites = set(), set()
    for path in root.rglob("*.cc"):
        if "bazel-" in str(path.relative_to(root)):
            continue
        for suite, name in TESTS.findall(path.read_text(errors="replace")):
            found.add(f"{suite}.{name}")
            suites.add(suite)
    return found, suites


def file_exists(root, name):
    return any(any(root.glob(f"{room}/{name}" if room else name))
               for room in ROOMS)


def check_complete(rows, root):
    listed = [cells[0] for _, cells in rows]
    for requirement in REQUIRED:
        count = listed.count(requirement)
        if count != 1:
            yield f"{PAGE}: {requirement} has {count} rows, not one"
    for number, cells in rows:
        if re.match(r"(MUST|SHLD)-", cells[0]) and cells[0] not in REQUIRED:
            yield f"{PAGE}:{number}: RFC 9293 has no {cells[0]}"


def check_files(rows, root):
    for number, cells in rows:
        for cell in cells[1:]:
            for name in NAMES_FILE.findall(cell):
                if not file_exists(root, name):
                    yield f"{PAGE}:{number}: there is no file {name}"


def check_tests(rows, root):
    tests, suites = tests_of(root)
    if not tests:
        yield f"{root}: no test found"
    for number, cells in rows:
        for cell in cells[1:]:
            for suite, name in NAMES_TEST.findall(cell):
                if name in ("h", "cc", "py", "sh", "md"):
                    continue
                if f"{suite}.{name}" not in tests:
                    yield f"{PAGE}:{number}: there is no test {suite}.{name}"


def check_answers(rows, root):
    for number, cells in rows:
        if not re.match(r"(MUST|SHLD)-", cells[0]):
            continue
        if len(cells) != 4:
            yield f"{PAGE}:{number}: {len(cells)} cells, not 4"
            continue
        answer = cells[3]
        if "no, because" not in answer:
            if not NAMES_TEST.search(answer):
                yield f"{PAGE}:{number}: {cells[0]} names no test"
            if not NAMES_FILE.search(cells[2]):
                yield f"{PAGE}:{number}: {cells[0]} names no file"
        elif cells[0].startswith("MUST"):
            links = re.findall(r"\]\((decisions/[\w.-]+)\)", answer)
            if not links:
                yield f"{PAGE}:{number}: {cells[0]} says no without a decision"
            for link in links:
                if not (root / "docs" / link).exists():
                    yield f"{PAGE}:{number}: there is no {link}"


RULES = {
    "every MUST and SHLD of RFC 9293 has a row": check_complete,
    "files named by docs/rfc_coverage.md exist": check_files,
    "tests named by docs/rfc_coverage.md exist": check_tests,
    "each row has a test, or says why not": check_answers,
}


def main():
    root = pathlib.Path(sys.argv[1] if len(sys.argv) > 1 else ".")
    rows = list(rows_of((root / PAGE).read_text()))
    failed = False
    for name, rule in RULES.items():
        found = list(rule(rows, root))
        for place in found:
            print(f"  {place}")
        print(f"{'FAIL' if found else 'PASS'}: rfc coverage: {name}")
        failed = failed or bool(found)
    sys.exit(failed)


if __name__ == "__main__":
    main()
