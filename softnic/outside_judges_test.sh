#!/usr/bin/env bash
# Programs that are not ours, unmodified, on LD_PRELOAD=libsoftnic.so: do they
# see the devices as they are, and does perftest measure what the device counts?
# Prints "PASS: ..." or "FAIL: ..." a check; a missing program is a skip.
set -uo pipefail

readonly library="$PWD/softnic/libsoftnic.so"
readonly dir="$(mktemp -d)"
trap 'rm -rf "$dir"' EXIT
readonly mac0=02:00:00:00:00:0a mac1=02:00:00:00:00:0b
failed=0

check() {  # check NAME COMMAND...
  local name="$1"
  shift
  if "$@"; then
    echo "PASS: $name"
  else
    echo "FAIL: $name"
    failed=1
  fi
}

need() {
  local program
  for program in "$@"; do
    command -v "$program" >/dev/null && continue
    echo "SKIP: $program is not installed"
    return 1
  done
}

# nic CONFIG COMMAND...: runs it with the software NIC in the place of libibverbs.
nic() {
  local config="$1"
  shift
  SOFTNIC="$config" LD_PRELOAD="$library" "$@"
}

# counter FILE NAME
counter() { awk -v name="$2" '$1 == name {print $2}' "$dir/$1"; }

# -- what is there ------------------------------------------------------------

see_devices() {
  local both="dev=sn0,port=shm:$dir/see,mac=$mac0,mtu=9000,ip=10.1.2.3"
  both+=";dev=sn1,port=shm:$dir/see,mac=$mac1,mtu=1500,tso=0,rx_csum=0"
  both+=",vlan_strip=0,max_sge=2"
  nic "$both" ibv_devices >"$dir/devices" 2>&1
  check "ibv_devices lists both devices" grep -q 'sn0.*000000fffe00000a' \
    "$dir/devices"
  check "ibv_devices lists both, and no more" \
    test "$(grep -c 'fffe' "$dir/devices")" = 2
  nic "$both" ibv_devinfo -v -d sn0 >"$dir/sn0" 2>&1
  check "ibv_devinfo: sn0 opens" test $? = 0
  nic "$both" ibv_devinfo -v -d sn1 >"$dir/sn1" 2>&1
  check "ibv_devinfo: sn1 opens" test $? = 0
  local line
  for line in 'max_sge:[[:space:]]*30' 'state:[[:space:]]*PORT_ACTIVE' \
    'active_mtu:[[:space:]]*4096' 'link_layer:[[:space:]]*Ethernet' \
    'RAW_IP_CSUM' 'C-VLAN stripping' 'IP csum offload' \
    'max_tso:[[:space:]]*262144' 'SUPPORT_RAW_PACKET' \
    'GID.*fe80::ff:fe00:a' 'GID.*10.1.2.3\|GID.*ffff:0a01:0203'; do
    check "ibv_devinfo: sn0 has $line" grep -q "$line" "$dir/sn0"
  done
  for line in 'max_sge:[[:space:]]*2$' 'active_mtu:[[:space:]]*1024'; do
    check "ibv_devinfo: sn1 has $line" grep -q "$line" "$dir/sn1"
  done
  for line in 'C-VLAN stripping' 'max_tso:[[:space:]]*262144'; do
    check "ibv_devinfo: sn1 lacks $line" \
      bash -c "! grep -q '$line' '$dir/sn1'"
  done
  nic "$both" ibv_devinfo -d sn2 >"$dir/sn2" 2>&1
  check "ibv_devinfo: there is no sn2" test $? != 0
}

# -- perftest -----------------------------------------------------------------

# perftest ROLE LIMIT CONFIG DEST_MAC OWN_MAC FLAGS...: in a subshell of its own,
# which becomes timeout(1).
perftest() {
  local role="$1" limit="$2" config="$3" dest="$4" own="$5"
  shift 5
  exec env SOFTNIC="$config" LD_PRELOAD="$library" timeout "$limit" \
    raw_ethernet_bw "--$role" -F -E "$dest" -B "$own" -J 10.0.0.1 \
    -j 10.0.0.2 -K 5000 -k 6000 "$@" >"$dir/$role" 2>&1
}

# The server says nothing until it is done; its receives are posted soon after
# its flow rule is there, and the counters tell of that.
wait_for_server() {
  local tries
  for ((tries = 0; tries < 100; ++tries)); do
    [[ "$(counter server.counters rules 2>/dev/null)" = 1 ]] && return 0
    sleep 0.1
  done
  echo "the server has not installed its rule"
  return 1
}

# iterations FILE: the result line's second column.
iterations() { awk '$1 ~ /^[0-9]+$/ && NF >= 5 {print $2}' "$dir/$1" | tail -1; }

# start_server NAME FLAGS...: sets server, its process.
start_server() {
  local name="$1"
  shift
  rm -f "$dir"/*.counters
  perftest server 100 \
    "dev=sn0,port=shm:$dir/$name,mac=$mac0,counters=$dir/server.counters" \
    "$mac1" "$mac0" "$@" &
  server=$!
  wait_for_server || true
}

# run_client NAME DEST_MAC EXTRA_CONFIG FLAGS...
run_client() {
  local name="$1" dest="$2" extra="$3"
  shift 3
  (perftest client 100 \
    "dev=sn1,port=shm:$dir/$name,mac=$mac1,counters=$dir/client.counters$extra" \
    "$dest" "$mac1" "$@")
}

# perftest leaves the TCP checksum field empty, so rx_bad_checksum counts too:
# that is no drop.
dropped() {
  local name sum=0
  for name in rx_no_rule rx_no_receive rx_not_ready rx_too_long \
    rx_foreign_mac rx_malformed rx_errors; do
    sum=$((sum + $(counter server.counters "$name")))
  done
  echo "$sum"
}

show() {
  tail -n 5 "$dir/server" "$dir/client"
  grep -v ' 0$' "$dir"/*.counters
}

full_rate() {  # full_rate NAME FLAGS...
  local name="$1" n=100000 client_rc server_rc
  shift
  start_server "$name" -n "$n" -s 1024 "$@"
  run_client "$name" "$mac0" ",rate=2G" -n "$n" -s 1024 "$@"
  client_rc=$?
  wait "$server"
  server_rc=$?
  check "raw_ethernet_bw $name: both ends succeed" \
    test "$server_rc $client_rc" = "0 0"
  check "raw_ethernet_bw $name: the server's iterations are the delivered" \
    test "$(iterations server)" = "$(counter server.counters rx_delivered)"
  check "raw_ethernet_bw $name: all $n are delivered" \
    test "$(counter server.counters rx_delivered)" = "$n"
  check "raw_ethernet_bw $name: all $n were sent" \
    test "$(counter client.counters tx_frames)" = "$n"
  check "raw_ethernet_bw $name: nothing is dropped" test "$(dropped)" = 0
  if ((failed)); then show; fi
}

# Nobody listens to that address: the server waits until it is stopped.
wrong_address() {
  local tries
  start_server foreign -n 1000 -s 1024
  run_client foreign 02:00:00:00:00:0c "" -n 1000 -s 1024
  for ((tries = 0; tries < 100; ++tries)); do
    [[ "$(counter server.counters rx_foreign_mac)" = 1000 ]] && break
    sleep 0.1
  done
  check "raw_ethernet_bw, wrong --dest_mac: all are dropped for the address" \
    test "$(counter server.counters rx_foreign_mac)" = 1000
  check "raw_ethernet_bw, wrong --dest_mac: nothing is delivered" \
    test "$(counter server.counters rx_delivered)" = 0
  check "raw_ethernet_bw, wrong --dest_mac: the server still waits" \
    kill "$server"
  wait "$server" 2>/dev/null
}

# refused NAME CONFIG WORDS FLAGS...
refused() {
  local name="$1" config="$2" words="$3" rc
  shift 3
  run_client refused "$mac0" ",$config" -n 100 -s 1024 "$@"
  rc=$?
  check "raw_ethernet_bw $name is refused" test "$rc" = 1
  check "raw_ethernet_bw $name: and says at what" \
    grep -qi "$words" "$dir/client"
}

judge_perftest() {
  full_rate udp
  full_rate tcp --tcp
  wrong_address
  refused "without raw packet queue pairs" raw=0 "create QP"
  refused "with a queue deeper than the device's" max_qp_wr=64 "create QP" \
    -t 128
}

need ibv_devices ibv_devinfo && see_devices
need raw_ethernet_bw && judge_perftest
exit "$failed"
