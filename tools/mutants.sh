#!/usr/bin/env bash
# Mutants: each patch in tools/mutants/ breaks one mechanism. A suite that does
# not notice one proves nothing about that mechanism. Those in
# tools/mutants/coverage/ each disable what implements one row of
# docs/rfc_coverage.md, and the tests that the row names must notice.
#
#   tools/mutants.sh --check          every patch applies to this tree, and
#                                     docs/mutants.md has its result: a test
#                                     that exists
#   tools/mutants.sh [NAME...]        applies each (all) to a scratch copy of
#                                     HEAD and expects a test to fail
#   tools/mutants.sh --rows [ROW...]  the same for rows of rfc_coverage.md
#   tools/mutants.sh --write          writes docs/mutants.md from the results
#
# The scratch copy and the results stay in the cache: what ran is not run again
# unless its patch changes, or the rooms it was run against. Prints
# "PASS: mutant NAME ..." or "FAIL: mutant NAME ..." each. Exit status 1 when one
# failed.
#
# A patch's first line says what it breaks. "By: " names the one test that has to
# notice it. "Survives: " begins the reason why nothing observable changes; then
# no test may fail.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

readonly cache="${XDG_CACHE_HOME:-$HOME/.cache}/devwire"
readonly scratch="$cache/mutants"
readonly tree="$scratch/tree"
# The rows' sample, and when it was drawn: the table grows.
readonly seed=1 rows=30 drawn=2026-11-26
# What a result depends on besides its patch.
readonly rooms=(base memreg transport sockets softnic)
failed=0
key=

fail() {
  echo "FAIL: mutant $1: $2"
  failed=1
}

# Names of patches: "karn", "coverage/must-12".
all_mutants() {
  (cd tools/mutants && ls ./*.patch) | sed 's|^\./||; s|\.patch$||'
}
all_rows() {
  (cd tools/mutants/coverage && ls ./*.patch) |
    sed 's|^\./|coverage/|; s|\.patch$||'
}

# The rooms as they are in HEAD, in one word.
rooms_key() {
  git rev-parse "${rooms[@]/#/HEAD:}" | sha256sum | cut -c 1-12
}

# The test or target that docs/mutants.md names for a mutant is in the sources.
test_exists() {
  local test="$1"
  if [[ "$test" == //* ]]; then
    local package="${test#//}"
    grep -qs "name = \"${package#*:}\"" "${package%:*}/BUILD"
  else
    git grep -qE "TEST(_F|_P)?\\(${test%.*}, ${test#*.}\\)" -- '*.cc' ||
      git grep -qzE "TEST(_F|_P)?\\(${test%.*},\s+${test#*.}\\)" -- '*.cc'
  fi
}

check() {
  local name row test
  for name in $(all_mutants) $(all_rows); do
    row="$(grep -s "^| ${name#coverage/} |" docs/mutants.md)" || true
    # shellcheck disable=SC2016
    test="$(sed -nE 's/.*\| `([^`]+)` \|$/\1/p' <<<"$row")"
    if ! git apply --check "tools/mutants/$name.patch" 2>/dev/null; then
      fail "$name" "does not apply: write it anew"
    elif [[ -z "$row" ]]; then
      fail "$name" "has no result in docs/mutants.md: run it"
    elif [[ -z "$test" && "$row" != *"| none: "* ]]; then
      fail "$name" "docs/mutants.md names no test"
    elif [[ -n "$test" ]] && ! test_exists "$test"; then
      fail "$name" "there is no test $test: run it again"
    else
      echo "PASS: mutant $name applies"
    fi
  done
}

# The tests of the rooms that a patch changes, a line per stage: the cheap
# ones, whose failure spares the rest, come first.
stages_of() {
  local file
  file="$(sed -n 's|^+++ b/||p' "tools/mutants/$1.patch" | head -n 1)"
  case "$file" in
    transport/tcp/*)
      echo //transport/tcp:trace_test
      echo //transport/tcp:tcp_test
      echo //transport/sim:tcp_sim_test //transport/sim:recovery_sim_test
      echo //transport/sim:scenario_test //transport/sim:engine_sim_test \
        //transport/sim:goodput_test ;;
    transport/engine/*)
      echo //transport/engine/...
      echo //transport/sim:engine_sim_test
      echo //sockets:on_the_wire_test //sockets:nd_wire_test
      echo //transport/sim:scenario_test //sockets/... ;;
    transport/wire/*)
      echo //transport/wire/...
      echo //transport/tcp/... //transport/sim/... ;;
    *)
      echo "//${file%/*}/..." ;;
  esac
}

# Where a result is kept, and the checksum it has to bear.
result_of() {
  echo "$scratch/results/$key/$1"
}

has_result() {
  [[ -e "$(result_of "$1")" ]] && [[ "$(head -n 1 "$(result_of "$1")")" == \
    "$(sha256sum <"tools/mutants/$1.patch")" ]]
}

# The scratch copy becomes HEAD.
prepare() {
  key="$(rooms_key)"
  mkdir -p "$scratch/results/$key/coverage"
  # Two runs in one copy would prove each other's patches.
  exec 9>"$scratch/lock"
  flock -n 9 || {
    echo "mutants: another run has $tree; wait, or set XDG_CACHE_HOME" >&2
    exit 2
  }
  [[ -d "$tree/.git" ]] || git clone -q --shared . "$tree"
  git -C "$tree" fetch -q "$PWD" HEAD
  git -C "$tree" reset -q --hard FETCH_HEAD
}

# test_stage NAME LOG ARGS...: Bazel's exit status; 3 is "built, and a test
# failed". Its server outlives this script, and must not keep the lock.
test_stage() {
  local log="$2"
  shift 2
  (cd "$tree" && bazel test --disk_cache="$cache/disk" --notest_keep_going \
    --spawn_strategy=local --noshow_progress --test_output=errors \
    --test_env=GTEST_FAIL_FAST=1 --test_timeout=60,180,180,180 "$@") \
    >"$log" 2>&1 9>&-
}

# The first test that failed, or the one that was running.
caught_by() {
  local test
  test="$(grep -oE '^\[  FAILED  \] [A-Za-z0-9_]+\.[A-Za-z0-9_]+' "$1" |
    head -n 1 | awk '{print $4}')" || true
  [[ -n "$test" ]] || test="$(grep -oE '^\[ RUN      \] [^ ]+' "$1" |
    tail -n 1 | awk '{print $4}')" || true
  [[ -n "$test" ]] || test="$(grep -oE '^//[^ ]+ +(FAILED|TIMEOUT)' "$1" |
    head -n 1 | awk '{print $1}')"
  echo "$test"
}

# run NAME: in the scratch copy, which is HEAD before and after.
run() {
  local name="$1" log="$scratch/log" status=0 test stage
  local patch="$PWD/tools/mutants/$1.patch" result
  local sum
  result="$(result_of "$name")"
  if has_result "$name"; then
    echo "PASS: mutant $name caught by $(tail -n 1 "$result") (before)"
    return
  fi
  sum="$(sha256sum <"$patch")"
  if ! git -C "$tree" apply "$patch"; then
    fail "$name" "does not apply: write it anew"
    return
  fi
  local by
  by="$(sed -n 's/^By: //p' "$patch")"
  if [[ "$name" == coverage/* || -n "$by" ]]; then
    local tests
    mapfile -t tests < <(tools/rfc_coverage_sample.py --tests \
      "${by:-${name#coverage/}}")
    # The cheap rooms' first.
    for stage in $(tr ' ' '\n' <<<"${tests[0]}" | sort -r); do
      test_stage "$name" "$log" "$stage" \
        --test_arg=--gtest_filter="${tests[1]}" || status=$?
      ((status == 0)) || break
    done
  else
    while read -r stage; do
      # shellcheck disable=SC2086
      test_stage "$name" "$log" $stage </dev/null || status=$?
      ((status == 0)) || break
    done < <(stages_of "$name")
  fi
  git -C "$tree" apply -R "$patch"
  case "$status" in
    3) test="$(caught_by "$log")" ;;
    0) test="none" ;;
    *)
      tail -n 30 "$log" >&2
      fail "$name" "Bazel ended with $status"
      return ;;
  esac
  if [[ "$test" == none ]] && ! grep -q '^Survives: ' "$patch"; then
    fail "$name" "no test noticed it"
  elif [[ "$test" != none ]] && grep -q '^Survives: ' "$patch"; then
    fail "$name" "is said to survive, and $test noticed it"
  else
    printf '%s\n%s\n' "$sum" "$test" >"$result"
    echo "PASS: mutant $name caught by $test"
  fi
}

# table NAME...: their results.
table() {
  local name patch test
  for name in "$@"; do
    patch="tools/mutants/$name.patch"
    if ! has_result "$name"; then
      fail "$name" "has no result for HEAD: run it" >&2
      continue
    fi
    test="$(tail -n 1 "$(result_of "$name")")"
    if [[ "$test" == none ]]; then
      test="none: $(sed -n 's/^Survives: //p' "$patch")"
    else
      test="\`$test\`"
    fi
    echo "| ${name#coverage/} | $(head -n 1 "$patch") | $test |"
  done
}

write() {
  key="$(rooms_key)"
  {
    cat <<TEXT
# Mutants: which test notices

Written by \`tools/mutants.sh --write\` from its own runs. Each patch in
\`tools/mutants/\` breaks one mechanism; the test is the first that failed.
All ran against commit \`$(git rev-parse --short=12 HEAD)\`, or one with the
same ${rooms[*]} (\`$key\`).

| mutant | what it breaks | caught by |
|---|---|---|
TEXT
    # shellcheck disable=SC2046
    table $(all_mutants)
    cat <<TEXT

## Rows of rfc_coverage.md

$rows rows, drawn by \`tools/rfc_coverage_sample.py $seed $rows\` from the table
as it stood on $drawn. Each patch in \`tools/mutants/coverage/\` disables
what implements the row; the test is one that the row names.

| row | what is disabled | test that fails |
|---|---|---|
TEXT
    # shellcheck disable=SC2046
    table $(all_rows)
  } >docs/mutants.md
}

case "${1:-}" in
  --check) check ;;
  --write) write ;;
  --rows)
    shift
    prepare
    # shellcheck disable=SC2048
    for name in ${*:-$(all_rows)}; do run "coverage/${name#coverage/}"; done ;;
  -*) sed -n '2,21p' "${BASH_SOURCE[0]}"; exit 2 ;;
  *)
    prepare
    # shellcheck disable=SC2048
    for name in ${*:-$(all_mutants)}; do run "$name"; done ;;
esac
exit "$failed"
