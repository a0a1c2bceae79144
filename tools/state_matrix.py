#!/usr/bin/env python3
"""The event x state matrix of docs/testing.md, from the test that holds it.

state_matrix.py [--write] [ROOT]: reads the tables of
transport/tcp/state_matrix_trace_test.cc and compares them with the page, or
writes them there. A state without a row, a row with a cell too few or a page
that says something else fails.

Prints one line per rule, "PASS: ..." or "FAIL: ..."; exit status 1 when one
fails.
"""

import pathlib
import re
import sys

TEST = "transport/tcp/state_matrix_trace_test.cc"
STATES_OF = "transport/tcp/state.h"
PAGE = "docs/testing.md"
BEGIN, END = "<!-- state matrix begins -->", "<!-- state matrix ends -->"
# A Connection is in these for no longer than one call: OpenPassive, or never.
NO_ROW = {"Closed", "Listen"}


def words(name):
    """"FinWait1" as the RFC spells it."""
    return re.sub(r"(?<=[a-z])(?=[A-Z0-9])", "-", name).upper()


def enumerators(text, enum):
    """(name, comment) of `enum class <enum> { ... };`"""
    body = re.search(r"enum class " + enum + r"[^{]*\{(.*?)\};", text, re.S)
    found = re.findall(r"^\s*k(\w+),?\s*(?://\s*(.*))?$", body.group(1), re.M)
    return [(name, comment.rstrip(".")) for name, comment in found]


def cells_of(text, table):
    """{state: [(next state, segments out)]} of what `table`() returns."""
    body = re.search(re.escape(table) + r"\(\) \{(.*?)\n\}\n", text, re.S)
    if body is None:
        return {}
    result = {}
    rows = re.split(r"\{State::k(\w+),\s*(?=\{\{)", body.group(1))
    for state, row in zip(rows[1::2], rows[2::2]):
        result[state] = [
            ("CLOSED" if next_state == "kC" else words(next_state[8:]),
             re.findall(r'"([^"]+)"', out))
            for next_state, out in re.findall(
                r'\{(kC|State::k\w+),\s*("[^}]*)\}', row)]
    return result


def table_of(text, states, enum, table):
    """The lines of a Markdown table, and what is missing."""
    events, cells, missing = enumerators(text, enum), cells_of(text, table), []
    lines = ["| | " + " | ".join(words(s) for s in states) + " |",
             "|---" * (len(states) + 1) + "|"]
    for state in states:
        if len(cells.get(state, [])) != len(events):
            missing.append(f"{words(state)} has {len(cells.get(state, []))} "
                           f"cells of {len(events)} in {table}()")
    for i, (name, comment) in enumerate(events):
        line = f"| {comment or words(name).lower()} |"
        for state in states:
            row = cells.get(state, [])
            if i >= len(row):
                line += " |"
                continue
            next_state, out = row[i]
            said = "stays" if next_state == words(state) else next_state
            line += " " + ", ".join([said, *(f"`{s}`" for s in out)]) + " |"
        lines.append(line)
    return lines, missing


def main():
    arguments = [a for a in sys.argv[1:] if a != "--write"]
    root = pathlib.Path(arguments[0] if arguments else ".")
    text = (root / TEST).read_text()
    states = [name for name, _ in
              enumerators((root / STATES_OF).read_text(), "State")
              if name not in NO_ROW]
    lines, missing = [], []
    for title, enum, table in TABLES:
        rows, holes = table_of(text, states, enum, table)
        lines += ["", title, ""] + rows
        missing += holes
    generated = "\n".join(lines).strip("\n")

    page = (root / PAGE).read_text()
    before, _, rest = page.partition(BEGIN)
    written, _, after = rest.partition(END)
    if "--write" in sys.argv:
        (root / PAGE).write_text(
            f"{before}{BEGIN}\n\n{generated}\n\n{END}{after}")
        written = generated
    for hole in missing:
        print(f"  {TEST}: {hole}")
    print(f"{'FAIL' if missing or not states else 'PASS'}: "
          "state matrix: every event in every state has a cell")
    differs = written.strip() != generated
    if differs:
        print(f"  {PAGE}: run tools/state_matrix.py --write")
    print(f"{'FAIL' if differs else 'PASS'}: "
          "state matrix: docs/testing.md shows the table of the test")
    sys.exit(bool(missing or differs or not states))


TABLES = [
    ("Segments that arrive, RFC 9293 3.10.7:", "Arrival", "Cells"),
    ("User calls, and time that passes, RFC 9293 3.10.2 to .5 and 3.10.8:",
     "Input", "InputCells"),
]

if __name__ == "__main__":
    main()
