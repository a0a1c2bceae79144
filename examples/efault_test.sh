#!/usr/bin/env bash
# No system call of a whole transfer names an address of device memory. With
# the device side of softnic in a process of its own, such an address is not
# mapped in the stack's, so the kernel would answer EFAULT: strace follows every
# process of both ends and must see none. It must see the one of a program that
# is wrong on purpose, or the check would prove nothing.
#   efault_test.sh DWCAT LIBSOFTNIC
set -uo pipefail

dwcat="$1"
export DEVWIRE_VERBS_LIBRARY="$PWD/$2"
folder="$(mktemp -d)"
trap 'rm -rf "$folder"' EXIT
head -c 32M /dev/urandom >"$folder/file"
failed=0

verdict() {  # verdict NAME COMMAND...
  local name="$1"
  shift
  if "$@"; then
    echo "PASS: $name"
  else
    echo "FAIL: $name ($*)"
    tail -n 3 "$folder"/*.log
    failed=1
  fi
}

if ! strace -o "$folder/trace" true 2>"$folder/log"; then
  echo "SKIP: strace cannot trace here: $(head -n 1 "$folder/log")"
  exit 0
fi

# traced NAME COMMAND...: its failed system calls go to NAME.trace.
traced() {
  local name="$1"
  shift
  timeout 120 strace -f -qq -e status=failed -o "$folder/$name.trace" "$@"
}

traced wrong python3 -c \
  'import ctypes; ctypes.CDLL(None).write(1, ctypes.c_void_p(16), 8)'
verdict "strace sees the EFAULT of a wrong program" \
  grep -q "EFAULT" "$folder/wrong.trace"

device="dev=sn0,port=shm:$folder/cable,mtu=9000,mode=process"
SOFTNIC="$device,mac=02:00:00:00:00:02" traced listen "$dwcat" listen \
  10.0.0.2:7000 -o "$folder/copy" --mtu 9000 2>"$folder/listen.log" &
listener=$!
until grep -q listening "$folder/listen.log"; do
  kill -0 "$listener" 2>/dev/null || break
  sleep 0.05
done
SOFTNIC="$device,mac=02:00:00:00:00:01" traced send "$dwcat" send \
  10.0.0.2:7000 "$folder/file" --address 10.0.0.1/24 --mtu 9000 \
  2>"$folder/send.log"
status=$?
verdict "the sender ends well under strace" test "$status" -eq 0
wait "$listener"
status=$?
verdict "the receiver ends well under strace" test "$status" -eq 0
verdict "the copy is equal" cmp -s "$folder/file" "$folder/copy"
for end in send listen; do
  verdict "no system call of the $end side fails with EFAULT" \
    test "$(grep -c EFAULT "$folder/$end.trace")" = 0
done
exit "$failed"
