// Nanoseconds per parsed and per emitted header.
#include <benchmark/benchmark.h>

#include "base/alloc_guard.h"
#include "transport/wire/frame.h"

namespace devwire {
namespace {

HeaderTemplate::Options Client() {
  HeaderTemplate::Options o;
  o.tuple.local = *Endpoint::Parse("10.0.0.1:40000");
  o.tuple.remote = *Endpoint::Parse("10.0.0.2:80");
  return o;
}

// 0: the ordinary data segment. 1: a pure ACK with three SACK blocks.
TcpHeader Header(int64_t kind) {
  TcpHeader h;
  h.flags = kAck;
  h.options.timestamps = Timestamps{1, 2};
  if (kind == 1) h.options.sack_block_count = 3;
  return h;
}

void BM_Parse(benchmark::State& state) {
  std::byte frame[256] = {};
  const uint32_t bytes = HeaderTemplate(Client()).Emit(
      Header(state.range(0)), {.payload_bytes = 1448}, frame);
  ParsedFrame parsed;
  const uint64_t before = AllocationsOnThisThread();
  for (auto _ : state) {
    benchmark::DoNotOptimize(ParseFrame(frame, bytes, bytes + 1448, &parsed));
    benchmark::ClobberMemory();
  }
  state.counters["allocations"] =
      static_cast<double>(AllocationsOnThisThread() - before);
}
BENCHMARK(BM_Parse)->Arg(0)->Arg(1);

void BM_Emit(benchmark::State& state) {
  std::byte frame[256];
  const HeaderTemplate t(Client());
  TcpHeader header = Header(state.range(0));
  for (auto _ : state) {
    header.seq += 1448;
    benchmark::DoNotOptimize(t.Emit(header, {.payload_bytes = 1448}, frame));
    benchmark::ClobberMemory();
  }
}
BENCHMARK(BM_Emit)->Arg(0)->Arg(1);

}  // namespace
}  // namespace devwire
