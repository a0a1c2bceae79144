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
expect 2 "wrong value: 17179869185G" "more bytes than 64 bits count" \
  "$dwcat" send 10.0.0.2:7000 "$folder/file" --pool-bytes 17179869185G
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
expect 1 "cannot be written" "a copy that cannot be written" \
  "$dwcat" listen 10.0.0.2:7000 -o "$folder/none/copy" --device sn1
expect 1 "slot" "slots smaller than a segment's payload" \
  "$dwcat" listen 10.0.0.2:7000 -o "$folder/copy" --device sn1 \
  --slot-bytes 1024
DEVWIRE_VERBS_LIBRARY=/nonexistent.so expect 1 "/nonexistent.so" \
  "no verbs library" "$dwcat" send 10.0.0.2:7000 "$folder/file" "${at[@]}"

# await WORDS FILE PID: until the process has written them, or ended.
await() {
  until grep -q -- "$1" "$2"; do
    kill -0 "$3" 2>/dev/null || break
    sleep 0.05
  done
}

# listen KEYS: starts a listener; $listener is its pid, $folder/json its report.
listen() {
  SOFTNIC="dev=sn0,port=shm:$folder/cable,mac=02:00:00:00:00:02$1" \
    "$dwcat" listen 10.0.0.2:7000 -o "$folder/copy" --json --slot-bytes 4096 \
    >"$folder/json" 2>"$folder/listen.log" &
  listener=$!
  await listening "$folder/listen.log" "$listener"
}

# reports KEY PATTERN: what the listener's JSON says.
reports() {
  if grep -qE "\"$1\":$2[,}]" "$folder/json"; then
    echo "PASS: mode=$mode reports $1 $2"
  else
    echo "FAIL: mode=$mode reports $1: $(cat "$folder/json")"
    failed=1
  fi
}

# transfer MODE MAPPINGS
transfer() {
  local mode="$1"
  listen ",mode=$1"
  SOFTNIC="dev=sn0,port=shm:$folder/cable,mac=02:00:00:00:00:01,mode=$1" \
    expect 0 "sent 1048576 bytes" "mode=$1 sends" "$dwcat" send \
    10.0.0.2:7000 "$folder/file" --address 10.0.0.1/24
  wait "$listener"
  if (($? == 0)); then
    echo "PASS: mode=$1 ends the listener well"
  else
    echo "FAIL: mode=$1 ends the listener: $(tail -n 3 "$folder/listen.log")"
    failed=1
  fi
  reports maps_of_device_memory "$2"
  reports slot_bytes 4096
  if cmp -s "$folder/file" "$folder/copy" &&
    grep -q "$(sha256sum "$folder/file" | cut -d' ' -f1)" "$folder/json"; then
    echo "PASS: mode=$1 receives, and the hash is the file's"
  else
    echo "FAIL: mode=$1 receives: $(tail -n 3 "$folder/listen.log")"
    failed=1
  fi
}
# The watch for mappings of device memory can see one: inline, softnic itself
# maps it.
transfer inline '[1-9][0-9]*'
transfer process 0

# A wire of 20 Mb/s: the sender tells how long it will take. Then the receiver
# stops, and after 10 s the sender gives up.
head -c 16M /dev/zero >"$folder/long"
listen ""
SOFTNIC="dev=sn0,port=shm:$folder/cable,mac=02:00:00:00:00:01,rate=20M" \
  timeout 60 "$dwcat" send 10.0.0.2:7000 "$folder/long" \
  --address 10.0.0.1/24 2>"$folder/send.log" &
sender=$!
await "s left" "$folder/send.log" "$sender"
kill -STOP "$listener"
wait "$sender"
status=$?
kill -KILL "$listener"
if grep -qE '^dwcat: [0-9]+ MiB, [0-9]+ MiB/s, [0-9]+ s left$' \
  "$folder/send.log"; then
  echo "PASS: progress tells bytes, rate and time left"
else
  echo "FAIL: progress: $(cat "$folder/send.log")"
  failed=1
fi
if ((status == 1)) && grep -q "nothing moved for 10 s" "$folder/send.log"; then
  echo "PASS: a standstill ends the transfer"
else
  echo "FAIL: a standstill: status $status: $(tail -n 2 "$folder/send.log")"
  failed=1
fi
exit "$failed"
