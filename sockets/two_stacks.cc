#include "sockets/two_stacks.h"

#include <dlfcn.h>

#include <algorithm>
#include <array>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "absl/strings/str_replace.h"
#include "base/check.h"
#include "base/clock.h"
#include "transport/verbs/verbs_fixture.h"

namespace devwire {
namespace {

template <typename T>
T Take(absl::StatusOr<T> value) {
  CHECK(value.ok()) << std::string(value.status().message());
  return *std::move(value);
}

using QueryCounters = int (*)(const char*, softnic_counters*, size_t);

QueryCounters LookUpQuery() {
  void* library = dlopen(SoftnicPath().c_str(), RTLD_NOW | RTLD_NOLOAD);
  CHECK(library != nullptr);
  return reinterpret_cast<QueryCounters>(
      dlsym(library, "softnic_query_counters"));
}

}  // namespace

std::byte PatternByte(uint64_t stream, uint64_t offset) {
  uint64_t z = (offset >> 3) * 0x9e3779b97f4a7c15 + stream * 0xbf58476d1ce4e5b9;
  z = (z ^ (z >> 29)) * 0x94d049bb133111eb;
  z ^= z >> 32;
  return static_cast<std::byte>(z >> (8 * (offset & 7)));
}

softnic_counters TwoStacks::Side::Nic() const {
  softnic_counters counters;
  CHECK_EQ(LookUpQuery()(device.c_str(), &counters, sizeof(counters)), 0);
  return counters;
}

TwoStacks::TwoStacks(const Options& options) : options_(options) {
  const std::string cable = CablePath();
  std::string config;
  for (int i = 0; i < 2; ++i) {
    sides_[i].device = absl::StrFormat("sn%d", i);
    sides_[i].mac = {2, 0, 0, 0, 0, static_cast<uint8_t>(i + 1)};
    sides_[i].address =
        options.ipv6 ? *IpAddress::Parse(absl::StrCat("fd00::", i + 1))
                     : IpAddress::V4(10, 0, 0, static_cast<uint8_t>(i + 1));
    absl::StrAppendFormat(
        &config, "%sdev=%s,port=shm:%s,mac=%s,mtu=%u%s", i == 0 ? "" : ";",
        sides_[i].device, cable, MacToString(sides_[i].mac), MtuOf(i),
        absl::StrReplaceAll(options.nic, {{"$", sides_[i].device}}));
  }
  ConfigureSoftnic(config);
  for (int i = 0; i < 2; ++i) {
    Side& side = sides_[i];
    StackOptions o = options.stack;
    o.verbs_library = SoftnicPath();
    o.device = side.device;
    o.address = side.address;
    o.prefix_bits = options.ipv6 ? 64 : 24;
    o.mtu = MtuOf(i);
    o.nic_verifies_ipv6 = options.ipv6;
    o.rx_ring_frames = std::min<uint32_t>(o.rx_ring_frames, 128);
    side.memory = Take(MemfdMemory::Allocate(options.memory_bytes));
    side.stack = Take(Stack::Open(o));
    side.pool = Take(side.stack->BindMemory(
        *side.memory,
        {.slot_bytes = o.mtu == options.mtu ? options.slot_bytes : 0,
         .receive_bytes = options.receive_bytes}));
  }
}

TwoStacks::~TwoStacks() = default;

void TwoStacks::Poll() {
  for (Side& side : sides_) {
    if (side.stack != nullptr) side.stack->Poll();
  }
}

bool TwoStacks::Until(const std::function<bool()>& step, Duration patience) {
  const MonotonicClock clock;
  const Instant deadline = clock.Now() + patience;
  while (true) {
    Poll();
    if (step()) return true;
    if (clock.Now() > deadline) return false;
  }
}

TwoStacks::Pair TwoStacks::Connect(std::optional<PoolId> client_pool,
                                   std::optional<PoolId> server_pool) {
  std::unique_ptr<Listener>& listener =
      server_pool.has_value() ? device_listener_ : host_listener_;
  if (listener == nullptr) {
    listener = Take(server().stack->Listen({server().address, Port{0}},
                                           {.memory = server_pool}));
  }
  Pair pair;
  pair.client = Take(
      client().stack->StartConnect(listener->local(), {.memory = client_pool}));
  const bool connected = Until([&] {
    if (pair.server == nullptr) pair.server = Take(listener->TryAccept());
    return pair.server != nullptr && pair.client->ConnectStatus().ok();
  });
  CHECK(connected) << std::string(pair.client->ConnectStatus().message());
  return pair;
}

uint32_t TwoStacks::SlotsHeld() {
  uint32_t held = 0;
  for (Side& side : sides_) {
    if (side.stack == nullptr) continue;
    for (PoolId pool : {kHostPool, side.pool}) {
      const MemoryUse use = Take(side.stack->Use(pool));
      held += use.owners.reassembly + use.owners.application;
    }
  }
  return held;
}

PatternSender::PatternSender(Stream& stream, TwoStacks::Side& side,
                             const Options& options)
    : stream_(stream), side_(side), options_(options) {
  for (uint32_t i = options.chunks; i-- > 0;) free_.push_back(i);
}

bool PatternSender::Step() {
  std::array<SendCompletion, 32> done;
  const size_t count = Take(stream_.PollSendCompletions(done));
  for (size_t i = 0; i < count; ++i) {
    CHECK(!posted_.empty() && posted_.front().first == done[i].cookie)
        << "completions come in order";
    free_.push_back(posted_.front().second);
    posted_.erase(posted_.begin());
    (done[i].delivered ? completed_ : undelivered_) += done[i].bytes;
    // Ours again: what a late retransmission would send is wrong from here.
    std::vector<std::byte> scribble(options_.chunk_bytes, std::byte{0xee});
    CHECK(side_.memory
              ->CopyIn(options_.offset +
                           uint64_t{free_.back()} * options_.chunk_bytes,
                       scribble)
              .ok());
  }
  while (sent_ < options_.bytes && !free_.empty()) {
    const uint32_t bytes = static_cast<uint32_t>(
        std::min<uint64_t>(options_.chunk_bytes, options_.bytes - sent_));
    const uint32_t chunk = free_.back();
    const uint64_t at =
        options_.offset + uint64_t{chunk} * options_.chunk_bytes;
    std::vector<std::byte> content(bytes);
    for (uint32_t i = 0; i < bytes; ++i) {
      content[i] = PatternByte(options_.stream_number, sent_ + i);
    }
    CHECK(side_.memory->CopyIn(at, content).ok());
    std::vector<DeviceSpan> spans;
    const uint32_t piece = std::max(1u, bytes / options_.spans);
    for (uint32_t from = 0; from < bytes; from += piece) {
      const bool is_last = spans.size() + 1 == options_.spans;
      const uint32_t length =
          is_last ? bytes - from : std::min(piece, bytes - from);
      spans.push_back({at + from, length});
      if (is_last) break;
    }
    const absl::StatusOr<SendOutcome> outcome =
        stream_.SendDevice(side_.pool, spans, next_cookie_);
    if (!outcome.ok() || *outcome == SendOutcome::kWouldBlock) break;
    free_.pop_back();
    posted_.push_back({next_cookie_++, chunk});
    sent_ += bytes;
  }
  if (sent_ == options_.bytes && !is_closed_ && options_.closes) {
    is_closed_ = stream_.CloseSend().ok();
  }
  return sent_ == options_.bytes && posted_.empty();
}

void PatternReceiver::Compare(const StreamFrag& frag) {
  std::vector<std::byte> got(frag.length);
  if (frag.host != nullptr) {
    std::copy_n(frag.host, frag.length, got.begin());
    host_bytes_ += frag.length;
  } else {
    CHECK(side_.memory->CopyOut(frag.offset, got).ok());
    device_bytes_ += frag.length;
  }
  for (uint32_t i = 0; i < frag.length; ++i) {
    if (first_wrong_.has_value()) break;
    if (got[i] != PatternByte(stream_number_, bytes_ + i)) {
      first_wrong_ = bytes_ + i;
    }
  }
  bytes_ += frag.length;
}

bool PatternReceiver::Step() {
  std::vector<StreamFrag> frags(max_frags);
  while (true) {
    const absl::StatusOr<Received> received =
        stream_.ReceiveFrags(frags, max_bytes);
    if (!received.ok()) return false;
    side_.memory->MakeVisible();
    for (size_t i = 0; i < received->frags; ++i) {
      Compare(frags[i]);
      if (keeps_tokens) {
        tokens.push_back(frags[i].token);
      } else {
        CHECK(stream_.ReturnTokens({&frags[i].token, 1}) ==
              ReturnResult::kReturned);
      }
    }
    if (received->end_of_stream) return true;
    if (received->frags == 0) return false;
  }
}

}  // namespace devwire
