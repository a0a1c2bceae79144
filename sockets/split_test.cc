// Frames made by hand against a stack that receives into device memory: where
// the split falls for every header there is (docs/wire.md), that no segment,
// however useless, keeps a slot, and that no garbage does harm.
#include <fcntl.h>

#include <algorithm>
#include <cstring>
#include <filesystem>
#include <functional>
#include <memory>
#include <ostream>
#include <string>
#include <system_error>
#include <vector>

#include "base/check.h"
#include "base/clock.h"
#include "base/prng.h"
#include "gtest/gtest.h"
#include "sockets/hand_peer.h"
#include "sockets/two_stacks.h"
#include "transport/verbs/verbs_fixture.h"

namespace devwire {
namespace {

template <typename T>
T Take(absl::StatusOr<T> value) {
  CHECK(value.ok()) << std::string(value.status().message());
  return *std::move(value);
}

// Where one frag lay.
struct Place {
  bool is_device;
  uint32_t in_slot;  // Device: the offset in its slot.
  uint32_t bytes;
  friend bool operator==(const Place&, const Place&) = default;
};
std::ostream& operator<<(std::ostream& out, const Place& p) {
  return out << (p.is_device ? "device +" : "linear +") << p.in_slot << ": "
             << p.bytes;
}
using Places = std::vector<Place>;

// The stack under test on sn0, the hand-made peer on sn1.
class Wire {
 public:
  struct Options {
    bool timestamps = true;
    uint32_t mtu = 1500;
    uint32_t slot_bytes = 2048;
    uint64_t receive_bytes = 1 << 20;
    std::string nic;
    HandPeer::Shape handshake;
    bool ipv6 = false;       // Of a NIC that verifies it: profile full.
    bool by_dmabuf = false;  // The memory is bound by its descriptor alone.
  };

  explicit Wire(const Options& options);
  // Every slot is free or posted, at last.
  ~Wire();

  HandPeer& peer() { return *peer_; }
  Stream& stream() { return *stream_; }
  Stack& stack() { return *stack_; }
  // The test's from here on; Reconnect() makes another.
  std::unique_ptr<Stream> TakeStream() { return std::move(stream_); }
  void Reconnect(Port from, const HandPeer::Shape& shape = {});

  bool Until(const std::function<bool()>& step, Duration patience = 10_s);
  // Receives what is there, compares it, and gives it back or keeps it.
  void Receive();
  // Until so many bytes of the stream were received, all told.
  bool Received(uint64_t bytes) {
    return Until([&] { return Receive(), received_ >= bytes; });
  }
  // Sends, and receives until it is all there. What lay where.
  Places Exchange(uint32_t bytes, const HandPeer::Shape& shape = {});
  // FIN both ways, all bytes right, nothing held.
  void Finish();

  softnic_counters Nic() const {
    TwoStacks::Side side;
    side.device = "sn0";
    return side.Nic();
  }
  FragPool::Owners Owners(PoolId pool) {
    return Take(stack_->Use(pool)).owners;
  }
  FragPool::Owners Owners() { return Owners(pool_); }
  uint32_t Held() {
    uint32_t held = 0;
    for (const PoolId pool : {kHostPool, pool_}) {
      held += Owners(pool).reassembly + Owners(pool).application;
    }
    return held;
  }
  uint64_t Dropped(const std::string& reason);
  uint64_t AllDrops();
  uint64_t Event(const std::string& name);
  uint64_t received() const { return received_; }

  size_t max_frags = 64;
  bool keeps_tokens = false;  // Into `tokens`.
  std::vector<FragToken> tokens;
  Places places;  // Of all that was received.

 private:
  const Options options_;
  std::unique_ptr<MemfdMemory> memory_;
  std::unique_ptr<Stack> stack_;
  PoolId pool_{};
  std::unique_ptr<Listener> listener_;
  std::unique_ptr<HandPeer> peer_;
  std::unique_ptr<Stream> stream_;
  uint64_t received_ = 0;
  bool at_end_ = false;
};

Wire::Wire(const Options& options) : options_(options) {
  const std::string port =
      ",port=shm:" + CablePath() + ",mtu=" + std::to_string(options.mtu);
  ConfigureSoftnic("dev=sn0,mac=02:00:00:00:00:01" + port + options.nic +
                   (options.ipv6 ? ",profile=full" : "") +
                   ";dev=sn1,mac=02:00:00:00:00:02" + port);
  const IpAddress own =
      options.ipv6 ? *IpAddress::Parse("fd00::1") : IpAddress::V4(10, 0, 0, 1);
  const IpAddress peer =
      options.ipv6 ? *IpAddress::Parse("fd00::2") : IpAddress::V4(10, 0, 0, 2);
  StackOptions o;
  o.verbs_library = SoftnicPath();
  o.device = "sn0";
  o.address = own;
  o.prefix_bits = options.ipv6 ? 64 : 24;
  o.nic_verifies_ipv6 = options.ipv6;
  o.mtu = options.mtu;
  o.rx_ring_frames = 32;
  o.neighbors = {{peer, {2, 0, 0, 0, 0, 2}}};
  o.tcp.time_wait = 1_ms;
  memory_ = Take(MemfdMemory::Allocate(options.receive_bytes));
  stack_ = Take(Stack::Open(o));
  const PoolOptions pool{.slot_bytes = options.slot_bytes};
  pool_ =
      Take(options.by_dmabuf ? stack_->BindMemory(Take(memory_->Export()), pool)
                             : stack_->BindMemory(*memory_, pool));
  listener_ =
      Take(stack_->Listen({stack_->address(), Port{7000}}, {.memory = pool_}));
  peer_ = std::make_unique<HandPeer>(
      HandPeer::Options{.device = "sn1",
                        .ip = peer,
                        .mtu = options.mtu,
                        .remote = listener_->local(),
                        .remote_mac = stack_->mac(),
                        .timestamps = options.timestamps,
                        .poll = [this] { stack_->Poll(); }});
  Reconnect(Port{1000}, options.handshake);
}

Wire::~Wire() {
  stream_.reset();
  EXPECT_TRUE(Until([&] { return Held() == 0; }));
  const MemoryUse use = Take(stack_->Use(pool_));
  EXPECT_EQ(use.owners.free + use.owners.posted, use.slots);
}

void Wire::Reconnect(Port from, const HandPeer::Shape& shape) {
  received_ = 0;
  at_end_ = false;
  CHECK(peer_->Connect(from, shape));
  CHECK(Until([&] {
    stream_ = Take(listener_->TryAccept());
    return stream_ != nullptr;
  }));
}

bool Wire::Until(const std::function<bool()>& step, Duration patience) {
  const MonotonicClock clock;
  const Instant deadline = clock.Now() + patience;
  while (true) {
    stack_->Poll();
    peer_->Poll();
    if (step()) return true;
    if (clock.Now() > deadline) return false;
  }
}

void Wire::Receive() {
  std::vector<StreamFrag> frags(max_frags);
  while (true) {
    const devwire::Received got =
        Take(stream_->ReceiveFrags(frags, UINT64_MAX));
    memory_->MakeVisible();
    for (size_t i = 0; i < got.frags; ++i) {
      const StreamFrag& frag = frags[i];
      std::vector<std::byte> bytes(frag.length);
      if (frag.host != nullptr) {
        std::copy_n(frag.host, frag.length, bytes.begin());
      } else {
        ASSERT_TRUE(memory_->CopyOut(frag.offset, bytes).ok());
      }
      for (uint32_t k = 0; k < frag.length; ++k) {
        ASSERT_EQ(bytes[k], PatternByte(0, received_ + k)) << received_ + k;
      }
      received_ += frag.length;
      const bool is_device = frag.host == nullptr;
      places.push_back(
          {is_device,
           is_device ? static_cast<uint32_t>(frag.offset % options_.slot_bytes)
                     : 0,
           frag.length});
      tokens.push_back(frag.token);
    }
    if (!keeps_tokens) {
      ASSERT_EQ(stream_->ReturnTokens(tokens), ReturnResult::kReturned);
      tokens.clear();
    }
    at_end_ = got.end_of_stream;
    if (at_end_ || got.frags == 0) return;
  }
}

Places Wire::Exchange(uint32_t bytes, const HandPeer::Shape& shape) {
  places.clear();
  const uint64_t end = received_ + bytes;
  peer_->Send(received_, bytes, shape);
  EXPECT_TRUE(Received(end)) << received_ << " of " << end;
  return places;
}

void Wire::Finish() {
  const uint64_t bytes = received_;
  peer_->Send(bytes, 0, {.flags = kAck | kFin});
  EXPECT_TRUE(Until([&] { return Receive(), at_end_; }));
  EXPECT_EQ(received_, bytes);
  EXPECT_TRUE(stream_->CloseSend().ok());
  EXPECT_TRUE(Until([&] { return peer_->saw_fin(); }));
  EXPECT_EQ(peer_->acked(), bytes + 1);
  peer_->Send(bytes + 1, 0);
  stream_.reset();
  EXPECT_TRUE(Until([&] { return Held() == 0; }));
  EXPECT_FALSE(peer_->was_reset());
}

uint64_t Wire::Dropped(const std::string& reason) {
  for (const auto& drop : Take(stack_->Counters()).drops) {
    if (drop.name == reason) return drop.value;
  }
  return 0;
}

uint64_t Wire::AllDrops() {
  uint64_t all = 0;
  for (const auto& drop : Take(stack_->Counters()).drops) all += drop.value;
  return all;
}

uint64_t Wire::Event(const std::string& name) {
  for (const auto& event : Take(stack_->Counters()).events) {
    if (event.name == name) return event.value;
  }
  return 0;
}

// -- where the split falls ----------------------------------------------------

// The split of a header with timestamps is 66 bytes, plain 54; of IPv6 86 and
// 74. What holds of one family holds of both.
class SplitOf : public ::testing::TestWithParam<bool> {
 protected:
  static bool ipv6() { return GetParam(); }
};
INSTANTIATE_TEST_SUITE_P(Ipv4, SplitOf, ::testing::Values(false));
INSTANTIATE_TEST_SUITE_P(Ipv6, SplitOf, ::testing::Values(true));

TEST_P(SplitOf, HeaderEqualIsOneDeviceFrag) {
  for (const bool timestamps : {true, false}) {
    SCOPED_TRACE(timestamps);
    Wire wire({.timestamps = timestamps, .ipv6 = ipv6()});
    EXPECT_EQ(wire.Exchange(1000), (Places{{true, 0, 1000}}));
    EXPECT_EQ(wire.Exchange(1), (Places{{true, 0, 1}}));
    EXPECT_TRUE(Take(wire.stream().Info()).steered);
    wire.Finish();
    EXPECT_EQ(Take(wire.stack().Counters()).linear_bytes, 0u);
    EXPECT_EQ(wire.Nic().payload_landed_host_bytes, 0u);
  }
}

// Timestamps agreed on and left out: the first 12 bytes of payload lie in the
// header slot.
TEST_P(SplitOf, HeaderShorterLeavesTwelveLinearBytes) {
  Wire wire({.ipv6 = ipv6()});
  const HandPeer::Shape bare{.timestamps = false};
  EXPECT_EQ(wire.Exchange(1000, bare),
            (Places{{false, 0, 12}, {true, 0, 988}}));
  EXPECT_EQ(wire.Exchange(13, bare), (Places{{false, 0, 12}, {true, 0, 1}}));
  for (uint32_t bytes = 1; bytes <= 12; ++bytes) {
    EXPECT_EQ(wire.Exchange(bytes, bare), (Places{{false, 0, bytes}}));
  }
  EXPECT_EQ(wire.Exchange(1000), (Places{{true, 0, 1000}}));
  EXPECT_TRUE(Take(wire.stream().Info()).steered);
  EXPECT_EQ(Take(wire.stack().Counters()).linear_bytes, 12u + 12 + 78);
  wire.Finish();
}

// Ethernet pads what is shorter than 60 bytes: payload of 1 to 5 bytes behind
// a header of 54. IPv6 headers are longer, and nothing is padded.
TEST_P(SplitOf, PaddingIsNoPayload) {
  Wire wire({.timestamps = false, .ipv6 = ipv6()});
  for (uint32_t bytes = 1; bytes <= 7; ++bytes) {
    EXPECT_EQ(wire.Exchange(bytes), (Places{{true, 0, bytes}}));
  }
  wire.Finish();
}

// SACK blocks on a segment with text: they lie in front of it in the slot.
TEST_P(SplitOf, HeaderLongerBySackBlocks) {
  for (const bool timestamps : {true, false}) {
    Wire wire({.timestamps = timestamps, .ipv6 = ipv6()});
    wire.Exchange(500);
    // A SYN that came again may have been the first.
    const uint64_t before = wire.Event("kOptionTailsRead");
    const uint8_t most = timestamps ? 3 : 4;
    for (uint8_t blocks = 1; blocks <= most; ++blocks) {
      SCOPED_TRACE(int{blocks});
      const uint32_t option_bytes = 4 + 8u * blocks;
      for (const uint32_t bytes : {1u, 5u, 1000u}) {
        EXPECT_EQ(wire.Exchange(bytes, {.sack_blocks = blocks}),
                  (Places{{true, option_bytes, bytes}}));
      }
    }
    EXPECT_EQ(wire.Event("kOptionTailsRead") - before, 3u * most);
    EXPECT_TRUE(Take(wire.stream().Info()).steered);
    wire.Finish();
  }
}

// Bound by a descriptor: option bytes are fetched through a duplicate of it,
// which no program that is started later inherits.
TEST(Split, MemoryBoundByItsDescriptorGivesItsOptionTails) {
  Wire wire({.by_dmabuf = true});
  EXPECT_EQ(wire.Exchange(1000, {.sack_blocks = 3}),
            (Places{{true, 28, 1000}}));
  EXPECT_GE(wire.Event("kOptionTailsRead"), 1u);
  int of_memory = 0;
  for (const auto& entry :
       std::filesystem::directory_iterator("/proc/self/fd")) {
    std::error_code gone;
    const std::string link = std::filesystem::read_symlink(entry, gone);
    if (link.find("devwire-device-memory") == std::string::npos) continue;
    const int fd = std::stoi(entry.path().filename());
    EXPECT_NE(fcntl(fd, F_GETFD) & FD_CLOEXEC, 0) << fd;
    ++of_memory;
  }
  EXPECT_GE(of_memory, 2);
  wire.Finish();
}

// Headers of this shape do not fit the queue: they are dropped under `reason`,
// the third moves the stream to the control queue, where nothing is lost.
void ExpectMove(Wire& wire, const HandPeer::Shape& shape,
                const std::string& reason) {
  EXPECT_EQ(wire.Exchange(500), (Places{{true, 0, 500}}));
  const uint64_t in_order = wire.received();
  for (uint64_t strike = 1; strike <= 3; ++strike) {
    EXPECT_TRUE(Take(wire.stream().Info()).steered) << strike;
    wire.peer().Send(in_order, 500, shape);
    ASSERT_TRUE(wire.Until([&] { return wire.Dropped(reason) == strike; }))
        << reason << " " << wire.Dropped(reason);
  }
  EXPECT_EQ(wire.peer().acked(), in_order);
  EXPECT_FALSE(Take(wire.stream().Info()).steered);
  EXPECT_EQ(wire.Event("kMovedToControlQueue"), 1u);
  // Retransmitted until the NIC has forgotten the rule.
  wire.places.clear();
  ASSERT_TRUE(wire.Until([&] {
    wire.peer().Send(in_order, 500, shape);
    wire.Receive();
    return wire.received() == in_order + 500;
  }));
  EXPECT_EQ(wire.places, (Places{{false, 0, 500}}));
  for (const uint32_t bytes : {1u, 5u, 12u, 13u, 900u}) {
    EXPECT_EQ(wire.Exchange(bytes, shape), (Places{{false, 0, bytes}}));
    EXPECT_EQ(wire.Exchange(bytes), (Places{{false, 0, bytes}}));
  }
  wire.Finish();
}

// IHL 6 to 15 on a stream that is steered.
TEST(Split, IpOptionsMoveTheStream) {
  for (uint8_t words = 1; words <= 10; ++words) {
    SCOPED_TRACE(5 + words);
    // 66 bytes hold the fixed TCP header up to IHL 8, the ports up to 12.
    const char* reason = words <= 3   ? "kTimestampsCut"
                         : words <= 7 ? "tcp_header_cut"
                                      : "ports_cut";
    Wire wire({});
    const uint8_t bytes = static_cast<uint8_t>(4 * words);
    ExpectMove(wire, {.ip_option_bytes = bytes}, reason);
  }
}

// 54 bytes hold the ports up to IHL 9, and never the fixed TCP header.
TEST(Split, IpOptionsMoveTheStreamWithoutTimestamps) {
  for (uint8_t words = 1; words <= 10; ++words) {
    SCOPED_TRACE(5 + words);
    Wire wire({.timestamps = false});
    const uint8_t bytes = static_cast<uint8_t>(4 * words);
    ExpectMove(wire, {.ip_option_bytes = bytes},
               words <= 4 ? "tcp_header_cut" : "ports_cut");
  }
}

TEST(Split, IpOptionsInTheHandshakeKeepTheStreamOnTheControlQueue) {
  const HandPeer::Shape shape{.ip_option_bytes = 8};
  Wire wire({.handshake = shape});
  EXPECT_EQ(wire.Exchange(500, shape), (Places{{false, 0, 500}}));
  EXPECT_EQ(wire.Exchange(500), (Places{{false, 0, 500}}));
  EXPECT_EQ(wire.Event("kMovedToControlQueue"), 0u);
  wire.Finish();
}

TEST(Split, ATagThatTheNicStripsIsNotSeen) {
  Wire wire({.nic = ",vlan_strip=1"});
  EXPECT_EQ(wire.Exchange(1000, {.vlan = true}), (Places{{true, 0, 1000}}));
  EXPECT_EQ(wire.Exchange(1, {.vlan = true}), (Places{{true, 0, 1}}));
  EXPECT_TRUE(Take(wire.stream().Info()).steered);
  wire.Finish();
}

// The queues of such a NIC split four bytes later: a tagged header is equal, an
// untagged one shorter.
TEST(Split, ATagThatTheNicCannotStripHasRoom) {
  for (const bool timestamps : {true, false}) {
    SCOPED_TRACE(timestamps);
    Wire wire({.timestamps = timestamps, .nic = ",vlan_strip=0"});
    EXPECT_EQ(wire.Exchange(500), (Places{{false, 0, 4}, {true, 0, 496}}));
    for (const uint32_t bytes : {1u, 5u, 1000u}) {
      EXPECT_EQ(wire.Exchange(bytes, {.vlan = true}),
                (Places{{true, 0, bytes}}));
    }
    EXPECT_EQ(wire.Exchange(4), (Places{{false, 0, 4}}));
    EXPECT_TRUE(Take(wire.stream().Info()).steered);
    wire.Finish();
  }
}

TEST(Split, ATagInTheHandshakeKeepsTheStreamOnTheControlQueue) {
  const HandPeer::Shape tagged{.vlan = true};
  Wire wire({.nic = ",vlan_strip=0", .handshake = tagged});
  EXPECT_EQ(wire.Exchange(500, tagged), (Places{{false, 0, 500}}));
  EXPECT_EQ(wire.Event("kMovedToControlQueue"), 0u);
  wire.Finish();
}

// One segment of each size, at an MTU that holds them; of IPv6 some.
TEST_P(SplitOf, EveryPayloadSizeFromOneTo8192) {
  const uint32_t step = ipv6() ? 61 : 1;
  for (const bool timestamps : {true, false}) {
    SCOPED_TRACE(timestamps);
    Wire wire({.timestamps = timestamps,
               .mtu = 9000,
               .slot_bytes = 9216,
               .receive_bytes = 8 << 20,
               .ipv6 = ipv6()});
    for (uint32_t bytes = 1; bytes <= 8192; bytes += bytes < 80 ? 1 : step) {
      ASSERT_EQ(wire.Exchange(bytes), (Places{{true, 0, bytes}}));
    }
    wire.Finish();
    EXPECT_EQ(wire.Nic().payload_landed_host_bytes, 0u);
  }
}

// -- no segment keeps a slot for nothing --------------------------------------

TEST(Slots, RetransmittedDuplicateAndOutOfWindowSegmentsGiveTheirsBack) {
  Wire wire({});
  wire.Exchange(1000);
  const auto dropped = [&] {
    return wire.Dropped("kOutsideWindow") + wire.Dropped("kDuplicateText");
  };
  const uint64_t before = dropped();  // SYNs that came again.
  constexpr uint64_t kRounds = 200;   // Some times the ring's length.
  for (uint64_t i = 0; i < kRounds; ++i) {
    wire.peer().Send(0, 1000);                      // All of it again.
    wire.peer().Send(300, 200);                     // A part.
    wire.peer().Send(0, 7, {.timestamps = false});  // Linear.
    wire.peer().Send(1000 + (64u << 20), 1000);     // Beyond the window.
    ASSERT_EQ(wire.Held(), 0u) << i;
  }
  EXPECT_EQ(dropped() - before, 4 * kRounds);
  // Half of it new: the slot is kept for that half.
  wire.places.clear();
  wire.peer().Send(500, 1000);
  ASSERT_TRUE(wire.Received(1500));
  EXPECT_EQ(wire.places, (Places{{true, 500, 500}}));
  wire.Finish();
}

TEST(Slots, DuplicatesOutOfOrderHoldOneSlot) {
  Wire wire({});
  for (int i = 0; i < 100; ++i) {
    wire.peer().Send(1000, 1000);
    ASSERT_TRUE(wire.Until([&] { return wire.Held() == 1; })) << i;
  }
  wire.peer().Send(1200, 300);
  EXPECT_EQ(wire.Held(), 1u);
  EXPECT_EQ(wire.peer().acked(), 0u);
  wire.peer().Send(0, 1400);  // Overlaps: no byte comes twice.
  ASSERT_TRUE(wire.Received(2000));
  wire.Finish();
}

// The reader reads nothing: fills the window, in segments of `bytes` at most.
// Returns how many bytes that took.
uint64_t FillWindow(Wire& wire, uint32_t bytes) {
  uint64_t at = 0;
  EXPECT_TRUE(wire.Until([&] {
    if (wire.peer().window() == 0) return true;
    // Of what is not acknowledged yet nothing is sent again.
    const uint64_t edge = wire.peer().acked() + wire.peer().window();
    const uint64_t n = std::min<uint64_t>(bytes, edge - std::min(edge, at));
    wire.peer().Send(at, static_cast<uint32_t>(n));
    at += n;
    return false;
  }));
  EXPECT_TRUE(wire.Until([&] { return wire.peer().acked() == at; }));
  return at;
}

TEST(Slots, ZeroWindowProbesGiveTheirsBack) {
  Wire wire({.receive_bytes = 128 << 10});
  const uint64_t full = FillWindow(wire, 1400);
  const uint32_t held = wire.Held();
  EXPECT_GT(held, 0u);
  const uint64_t answers = wire.peer().segments_in();
  for (int i = 0; i < 200; ++i) {
    wire.peer().Send(full, 1);      // Linux 2.2's and BSD's probe: a new byte.
    wire.peer().Send(full - 1, 0);  // Linux's: an old number.
    wire.peer().Send(full - 1, 1);
    ASSERT_EQ(wire.Held(), held) << i;
  }
  EXPECT_GT(wire.peer().segments_in(), answers);
  EXPECT_EQ(wire.peer().acked(), full);
  EXPECT_EQ(wire.peer().window(), 0u);
  ASSERT_TRUE(wire.Received(full));
  ASSERT_TRUE(wire.Until([&] { return wire.peer().window() > 0; }));
  wire.Exchange(1000);
  wire.Finish();
}

// A slot for each byte: the pool is used up long before the window is.
TEST(Slots, OneByteSegmentsAgainstAFullWindow) {
  Wire wire({.receive_bytes = 128 << 10});
  constexpr uint64_t kBytes = 3000;
  for (uint64_t at = 0; at < 300; ++at) wire.peer().Send(at, 1);
  const FragPool::Owners full = wire.Owners();
  EXPECT_EQ(full.free + full.posted + full.reassembly, 64u);
  EXPECT_GT(full.posted, 0u) << "whoever fills the pool stops nobody";
  EXPECT_LT(wire.peer().acked(), 300u);
  // What is not acknowledged comes again, while the reader reads now and then.
  uint64_t turns = 0;
  EXPECT_TRUE(wire.Until([&] {
    for (uint32_t i = 0; i < 4; ++i) {
      const uint64_t at = wire.peer().acked() + i;
      if (at < kBytes) wire.peer().Send(at, 1);
    }
    if (++turns % 16 == 0) wire.Receive();
    return wire.received() == kBytes;
  })) << wire.received();
  wire.Finish();
}

// A closed stream's reader still holds slots, so that the next stream's share
// is not there: text is dropped, unacknowledged, and comes again later.
TEST(Slots, ThePoolAtItsReserveRecovers) {
  Wire wire({.receive_bytes = 128 << 10});
  wire.keeps_tokens = true;
  for (int i = 0; i < 30; ++i) wire.Exchange(100);
  const std::unique_ptr<Stream> hoarder = wire.TakeStream();
  hoarder->Close({.keep_frags = true});
  const std::vector<FragToken> hoard = std::move(wire.tokens);
  wire.tokens.clear();
  EXPECT_EQ(wire.Owners().application, 30u);

  wire.Reconnect(Port{1001});
  wire.keeps_tokens = false;
  for (uint64_t i = 1; i <= 30; ++i) wire.peer().Send(100 * i, 100);
  EXPECT_GT(wire.Event("kTextDroppedAtReserve"), 0u);
  EXPECT_EQ(wire.peer().acked(), 0u);
  const FragPool::Owners low = wire.Owners();
  EXPECT_GT(low.free + low.posted, 0u);
  EXPECT_EQ(low.application, 30u);
  EXPECT_LT(low.reassembly, 30u);

  ASSERT_EQ(hoarder->ReturnTokens(hoard), ReturnResult::kReturned);
  ASSERT_TRUE(wire.Until([&] { return wire.Owners().application == 0; }));
  const uint64_t dropped = wire.Event("kTextDroppedAtReserve");
  EXPECT_TRUE(wire.Until([&] {
    const uint64_t at = wire.peer().acked();
    if (at < 3100) wire.peer().Send(at, 100);
    wire.Receive();
    return wire.received() == 3100;
  }));
  EXPECT_EQ(wire.Event("kTextDroppedAtReserve"), dropped);
  wire.Finish();
}

// What comes out of order leaves the last slots alone: the next in order finds
// one, though nobody gives any back.
TEST(Slots, AtTheReserveTheNextTextHasRoom) {
  Wire wire({.receive_bytes = 128 << 10});
  wire.keeps_tokens = true;
  for (int i = 0; i < 30; ++i) wire.Exchange(100);
  const std::unique_ptr<Stream> hoarder = wire.TakeStream();
  hoarder->Close({.keep_frags = true});
  const std::vector<FragToken> hoard = std::move(wire.tokens);
  wire.tokens.clear();
  wire.Reconnect(Port{1001});
  for (uint64_t i = 1; i <= 30; ++i) wire.peer().Send(100 * i, 100);
  ASSERT_GT(wire.Event("kTextDroppedAtReserve"), 0u);
  EXPECT_EQ(wire.peer().acked(), 0u);
  wire.peer().Send(0, 100);
  EXPECT_TRUE(wire.Until([&] { return wire.peer().acked() >= 100; }));
  ASSERT_EQ(hoarder->ReturnTokens(hoard), ReturnResult::kReturned);
  uint64_t sent = wire.peer().acked();
  wire.keeps_tokens = false;
  EXPECT_TRUE(wire.Until([&] {
    if (sent < 3100) wire.peer().Send(wire.peer().acked(), 100);
    sent = wire.peer().acked();
    wire.Receive();
    return wire.received() == 3100;
  }));
  wire.Finish();
}

// Twenty segments of two frags each, received one frag at a time.
TEST(Slots, AFullFragArrayLosesNothing) {
  for (const size_t max_frags : {1u, 2u, 3u, 39u}) {
    SCOPED_TRACE(max_frags);
    Wire wire({});
    wire.max_frags = max_frags;
    for (uint64_t i = 0; i < 20; ++i) {
      wire.peer().Send(500 * i, 500, {.timestamps = false});
    }
    ASSERT_TRUE(wire.Until([&] { return wire.peer().acked() == 10'000; }));
    EXPECT_EQ(wire.Owners().reassembly, 20u);
    ASSERT_TRUE(wire.Received(10'000));
    EXPECT_EQ(wire.places.size(), 40u);
    wire.Finish();
  }
}

// Frags lent, readable and out of order: the close takes all of them back.
TEST(Slots, AStreamClosedWithFragsLentFreesThem) {
  Wire wire({});
  wire.keeps_tokens = true;
  const HandPeer::Shape bare{.timestamps = false};
  for (int i = 0; i < 5; ++i) wire.Exchange(500, bare);
  for (uint64_t i = 5; i < 8; ++i) wire.peer().Send(500 * i, 500, bare);
  for (uint64_t i = 9; i < 12; ++i) wire.peer().Send(500 * i, 500, bare);
  ASSERT_TRUE(wire.Until([&] { return wire.peer().acked() == 4000; }));
  EXPECT_EQ(wire.Owners().application, 5u);
  EXPECT_EQ(wire.Owners().reassembly, 6u);
  const std::unique_ptr<Stream> closed = wire.TakeStream();
  closed->Close();
  EXPECT_TRUE(wire.Until([&] { return wire.Held() == 0; }));
  // RFC 2525 2.17: what was not read is not passed over in silence.
  EXPECT_TRUE(wire.Until([&] { return wire.peer().was_reset(); }));
  for (const FragToken& token : wire.tokens) {
    EXPECT_EQ(closed->ReturnTokens({&token, 1}), ReturnResult::kStale);
  }
  // What comes late finds nobody, and keeps no slot.
  wire.peer().Send(4000, 500, bare);
  EXPECT_EQ(wire.Held(), 0u);
}

// -- garbage ------------------------------------------------------------------

// Noise behind an Ethernet header that is ours to look at.
std::vector<std::byte> Noise(Prng& prng, const MacAddress& to,
                             const MacAddress& from) {
  constexpr uint16_t kTypes[] = {0x0800, 0x86dd, 0x0806, 0x8100};
  std::vector<std::byte> frame(14 + prng.Below(200));
  for (std::byte& b : frame) b = static_cast<std::byte>(prng.Next32());
  std::memcpy(frame.data(), to.data(), to.size());
  std::memcpy(frame.data() + 6, from.data(), from.size());
  if (prng.Chance(0.9)) StoreBe16(frame.data() + 12, kTypes[prng.Below(4)]);
  if (frame.size() > 34 && prng.Chance(0.5)) {  // Well-formed IP, so far.
    StoreBe16(frame.data() + 12, 0x0800);
    frame[14] = std::byte{0x45};
    StoreBe16(frame.data() + 16, static_cast<uint16_t>(frame.size() - 14));
    StoreBe16(frame.data() + 20, 0x4000);
    WriteIpv4Checksum(frame.data() + 14, 20);
  }
  return frame;
}

// What does not verify changes nothing: the stream goes on between the frames.
TEST(Garbage, ThatFailsItsChecksumsIsDropped) {
  Wire wire({});
  Prng prng(20261125);
  const uint64_t drops_before = wire.AllDrops();
  constexpr int kFrames = 2000;
  for (int i = 0; i < kFrames; ++i) {
    if (prng.Chance(0.5)) {
      wire.peer().SendRaw(Noise(prng, wire.stack().mac(), wire.peer().mac()));
    } else {
      // The next segment, one bit of it wrong; not of the MAC addresses.
      std::vector<std::byte> frame =
          wire.peer().FrameOf(wire.received(), 700, {});
      const size_t at = 14 + prng.Below(frame.size() - 14);
      frame[at] ^= static_cast<std::byte>(1u << prng.Below(8));
      wire.peer().SendRaw(frame);
    }
    if (i % 100 == 0) wire.Exchange(700);
  }
  EXPECT_GE(wire.AllDrops() - drops_before, kFrames * 9 / 10);
  wire.Finish();
}

// What verifies may end a stream, as RFC 9293 says, but not the stack: the
// next stream finds it whole, and no slot is lost.
TEST(Garbage, ThatVerifiesMayEndTheStreamAlone) {
  Wire wire({});
  Prng prng(20261126);
  for (uint16_t stream = 0; stream < 20; ++stream) {
    SCOPED_TRACE(stream);
    if (stream > 0) wire.Reconnect(Port{static_cast<uint16_t>(2000 + stream)});
    wire.Exchange(700);
    for (int i = 0; i < 100; ++i) {
      TcpHeader tcp;
      // Mostly near what could be right.
      tcp.seq = wire.peer().iss() + 1 +
                static_cast<uint32_t>(
                    wire.received() +
                    prng.Below(prng.Chance(0.5) ? 3000 : UINT32_MAX));
      tcp.ack =
          wire.peer().rcv_nxt() +
          static_cast<uint32_t>(prng.Below(prng.Chance(0.7) ? 2 : UINT32_MAX));
      tcp.flags = static_cast<uint8_t>(prng.Next32());
      tcp.wnd = static_cast<uint16_t>(prng.Next32());
      tcp.urgent_pointer = static_cast<uint16_t>(prng.Next32());
      if (prng.Chance(0.5)) tcp.options.timestamps = {prng.Next32(), 0};
      if (prng.Chance(0.2)) tcp.options.mss = prng.Next32() & 0xffff;
      tcp.options.sack_block_count = static_cast<uint8_t>(prng.Below(3));
      for (SackBlock& block : tcp.options.sack_blocks) {
        block = {SeqNum(prng.Next32()), SeqNum(prng.Next32())};
      }
      wire.peer().SendSegment(tcp, static_cast<uint32_t>(prng.Below(1400)));
    }
    wire.TakeStream()->Close();
    ASSERT_TRUE(wire.Until([&] { return wire.Held() == 0; }));
  }
  wire.Reconnect(Port{3000});
  wire.Exchange(1400);
  wire.Finish();
}

}  // namespace
}  // namespace devwire
