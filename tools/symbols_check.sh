#!/usr/bin/env bash
# No object of ours but libsoftnic.so names an ibv_* symbol; that one exports
# them. UCX, RCCL or torch may live in the same process with the real library.
# symbols_check.sh LIBSOFTNIC OBJECT...
set -uo pipefail

softnic="$1"
shift
exported="$(nm -D --defined-only "$softnic" | grep -c ' T ibv_')"
if ((exported > 20)); then
  echo "PASS: libsoftnic.so exports $exported ibv_* functions"
else
  echo "FAIL: libsoftnic.so exports only $exported ibv_* functions"
fi
foreign="$(nm -D --defined-only "$softnic" | awk '{print $3}' |
  grep -vE '^_?(ibv_|softnic_)' | head -3)"
if [[ -z "$foreign" ]]; then
  echo "PASS: libsoftnic.so exports nothing but ibv_* and softnic_*"
else
  echo "FAIL: libsoftnic.so also exports $foreign"
fi
for object in "$@"; do
  named="$(nm "$object" 2>/dev/null | awk '{print $NF}' |
    grep -E '^_?ibv_' | sort -u | head -3)"
  count="$(nm "$object" 2>/dev/null | wc -l)"
  if ((count == 0)); then
    echo "FAIL: ${object##*/} shows no symbol at all"
  elif [[ -n "$named" ]]; then
    echo "FAIL: ${object##*/} names $named"
  else
    echo "PASS: ${object##*/} names no ibv_* symbol"
  fi
done
