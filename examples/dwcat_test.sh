#!/usr/bin/env bash
# dwcat's exit status and words when something is wrong.
#   dwcat_test.sh DWCAT ECHO LIBSOFTNIC
set -uo pipefail

dwcat="$1" echo="$2"
export DEVWIRE_VERBS_LIBRARY="$PWD/$3"
folder="$(mktemp -d)"
trap 'rm -rf "$folder"' EXIT
head -c 1M /dev/urandom >"$folder/file"
failed=0

# expect STATUS WORDS NAME COMMAND...
expect() {
  local status="$1" words="$2" name="$3" got
  shift 3
  timeout 60 "$@" >"$folder/log" 2>&1
  got=$?
  if ((got == status)) && grep -q -- "$words" "$folder/log"; then
    echo "PASS: $name"
  else
    echo "FAIL: $name: status $got, said: $(tail -n 3 "$folder/log")"
    failed=1
  fi
}

export SOFTNIC="dev=sn0,port=shm:$folder/cable;dev=sn1,port=shm:$folder/cable"
at=(--address 10.0.0.1/24 --device sn0)
expect 2 "ADDR:PORT" "no words" "$dwcat"
expect 2 "no command: copy" "an unknown command" "$dwcat" copy 10.0.0.2:7000
expect 2 "not ADDR:PORT" "no port" "$dwcat" send 10.0.0.2 "$folder/file"
expect 2 "no FILE" "no file" "$dwcat" listen 10.0.0.2:7000
expect 2 "--address" "no address" "$dwcat" send 10.0.0.2:7000 "$folder/file"
expect 2 "unknown or incomplete" "an unknown option" \
  "$dwcat" send 10.0.0.2:7000 "$folder/file" --nonsense
expect 2 "wrong value: tape" "an unknown memory" \
  "$dwcat" send 10.0.0.2:7000 "$folder/file" --memory tape
expect 2 "echo serve|call" "echo without words" "$echo"
expect 1 "sn9" "no such device" \
  "$dwcat" send 10.0.0.2:7000 "$folder/file" --address 10.0.0.1/24 \
  --device sn9
expect 1 "ENOENT" "no such file" \
  "$dwcat" send 10.0.0.2:7000 "$folder/none" "${at[@]}"
expect 1 "10.0.0.2" "nobody answers" \
  "$dwcat" send 10.0.0.2:7000 "$folder/file" "${at[@]}"
expect 1 "route" "no route" \
  "$dwcat" send 192.168.1.1:7000 "$folder/file" "${at[@]}"
DEVWIRE_VERBS_LIBRARY=/nonexistent.so expect 1 "/nonexistent.so" \
  "no verbs library" "$dwcat" send 10.0.0.2:7000 "$folder/file" "${at[@]}"

# transfer MODE
transfer() {
  local cable="$folder/$1.cable" listener
  SOFTNIC="dev=sn0,port=shm:$cable,mac=02:00:00:00:00:02,mode=$1" timeout 60 \
    "$dwcat" listen 10.0.0.2:7000 -o "$folder/copy" --json \
    >"$folder/json" 2>"$folder/listen.log" &
  listener=$!
  until grep -q listening "$folder/listen.log"; do
    kill -0 "$listener" 2>/dev/null || break
    sleep 0.05
  done
  SOFTNIC="dev=sn0,port=shm:$cable,mac=02:00:00:00:00:01,mode=$1" expect 0 \
    "sent 1048576 bytes" "mode=$1 sends" "$dwcat" send 10.0.0.2:7000 \
    "$folder/file" --address 10.0.0.1/24
  wait "$listener"
  if cmp -s "$folder/file" "$folder/copy" &&
    grep -q "$(sha256sum "$folder/file" | cut -d' ' -f1)" "$folder/json"; then
    echo "PASS: mode=$1 receives, and the hash is the file's"
  else
    echo "FAIL: mode=$1 receives: $(tail -n 3 "$folder/listen.log")"
    failed=1
  fi
}
transfer inline
transfer process
exit "$failed"
