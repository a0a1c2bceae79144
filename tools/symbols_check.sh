#!/usr/bin/env bash
# No object of ours but libsoftnic.so names an ibv_* symbol; that one exports
# them. UCX, RCCL or torch may live in the same process with the real library.
# symbols_check.sh LIBSOFTNIC OBJECT...; it finds the libraries that Bazel put
# beside them by itself.
set -uo pipefail

failed=0
fail() {
  echo "FAIL: $*"
  failed=1
}

softnic="$1"
shift
exported="$(nm -D --defined-only "$softnic" | grep -c ' T ibv_')"
if ((exported > 20)); then
  echo "PASS: libsoftnic.so exports $exported ibv_* functions"
else
  fail "libsoftnic.so exports only $exported ibv_* functions"
fi
# Weak ones are templates of libstdc++, which bind to whoever was first.
foreign="$(nm -D --defined-only "$softnic" | awk '$2 != "W" {print $3}' |
  grep -vE '^_?(ibv_|softnic_)|^(mbps|mult)_to_ibv_rate$' | head -3)"
if [[ -z "$foreign" ]]; then
  echo "PASS: libsoftnic.so exports nothing but ibv_* and softnic_*"
else
  fail "libsoftnic.so also exports $foreign"
fi
libraries=(_solib_*/*.so)
if ((${#libraries[@]} < 4)); then
  fail "expected memreg, verbs_library, verbs and sockets: ${libraries[*]}"
fi
for object in "$@" "${libraries[@]}"; do
  named="$(nm "$object" 2>/dev/null | awk '{print $NF}' |
    grep -E '^_?ibv_' | sort -u | head -3)"
  count="$(nm "$object" 2>/dev/null | wc -l)"
  if ((count == 0)); then
    fail "${object##*/} shows no symbol at all"
  elif [[ -n "$named" ]]; then
    fail "${object##*/} names $named"
  else
    echo "PASS: ${object##*/} names no ibv_* symbol"
  fi
done
exit "$failed"
