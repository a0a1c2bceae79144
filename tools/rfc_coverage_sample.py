#!/usr/bin/env python3
"""A seeded sample of the rows of docs/rfc_coverage.md:

  rfc_coverage_sample.py SEED COUNT    names of COUNT rows, one a line
  rfc_coverage_sample.py --tests NAME  Bazel's targets with the tests that the
                                       row names, then a filter for them; NAME
                                       may be a test, too

A row can be drawn when it names a test: `Suite.Name`, or `Suite` for all of
its tests. Its name is the requirement ("must-12"), or, of the first table, the
RFCs ("rfc-9293-3.7.4").
"""

import pathlib
import random
import re
import sys

sys.dont_write_bytecode = True
sys.path.insert(0, str(pathlib.Path(__file__).parent))
import rfc_coverage_check as check  # noqa: E402

ROOT = pathlib.Path(".")


def name_of(cells):
    if re.match(r"(MUST|SHLD)-\d+$", cells[0]):
        return cells[0].lower()
    return "rfc-" + re.sub(r"[^\w.]+", "-", cells[0]).strip("-")


def filters_of(cells, suites):
    filters = []
    for word in re.findall(r"`([\w.]+)`", cells[3]):
        if word in suites:
            filters.append(word + ".*")
        elif word.partition(".")[0] in suites:
            filters.append(word)
        elif word == "state_matrix_trace_test.cc":
            filters.append("StateMatrixTrace.*")
    return filters


def rows():
    _, suites = check.tests_of(ROOT)
    found = {}
    for _, cells in check.rows_of((ROOT / check.PAGE).read_text()):
        if len(cells) != 4 or "no, because" in cells[3]:
            continue
        filters = filters_of(cells, suites)
        if filters:
            found.setdefault(name_of(cells), filters)
    return found


def target_of(path):
    """The cc_test that has the file among its sources."""
    build = (path.parent / "BUILD").read_text()
    for rule in re.findall(r"^cc_test\((.*?)^\)", build, re.M | re.S):
        if f'"{path.name}"' in rule:
            name = re.search(r'name = "([^"]+)"', rule).group(1)
            return f"//{path.parent}:{name}"
    raise ValueError(f"no cc_test has {path}")


def targets_of(filters):
    suites = {f.partition(".")[0] for f in filters}
    targets = set()
    for path in ROOT.rglob("*_test.cc"):
        if path.parts[0].startswith("bazel-"):
            continue
        here = {suite for suite, _ in check.TESTS.findall(path.read_text())}
        if here & suites:
            targets.add(target_of(path))
    return sorted(targets)


def main():
    table = rows()
    if len(sys.argv) != 3:
        sys.exit(__doc__)
    if sys.argv[1] == "--tests":
        name = sys.argv[2]
        filters = [name] if re.match(r"\w+\.\w+$", name) else table[name]
        print(*targets_of(filters))
        print(":".join(filters))
    else:
        draw = random.Random(int(sys.argv[1]))
        print("\n".join(sorted(draw.sample(sorted(table), int(sys.argv[2])))))


if __name__ == "__main__":
    main()
