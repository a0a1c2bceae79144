#!/bin/sh
# No object of ours imports or exports an ibv_* symbol: another library of the
# process may have its own libibverbs. nm(1) is the judge, of every library
# that is in this test's runfiles.
set -eu
objects=$(find -L . -name '*.so' -o -name '*.a')
[ "$(echo "$objects" | wc -l)" -ge 3 ] || {
  echo "expected memreg, verbs_library and verbs, found: $objects"
  exit 1
}
failed=0
for object in $objects; do
  symbols=$({ nm "$object" || true; nm -D "$object" || true; } 2>/dev/null)
  echo "$symbols" | grep -q devwire || {
    echo "$object: nm sees no symbols of ours"
    exit 1
  }
  # Undefined (U, w), or defined for others to see (capital letters).
  bad=$(echo "$symbols" |
    awk '$(NF-1) ~ /^[A-Zw]$/ && $NF ~ /^_?ibv_/ { print $(NF-1), $NF }' |
    sort -u)
  if [ -n "$bad" ]; then
    printf '%s: shows verbs symbols:\n%s\n' "$object" "$bad"
    failed=1
  fi
done
exit $failed
