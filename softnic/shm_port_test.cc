// The cable by itself: what a broken or hostile other end can do.
#include "softnic/shm_port.h"

#include <gtest/gtest.h>
#include <sys/mman.h>
#include <unistd.h>

#include <cstring>
#include <fstream>

#include "base/clock.h"
#include "base/prng.h"
#include "softnic/shm_link.h"
#include "softnic/shm_ring.h"
#include "softnic/verbs_fixture.h"

namespace softnic {
namespace {

using devwire::ManualClock;

// Reads every byte of every frame, as a device would.
class Sink final : public Receiver {
 public:
  void OnFrame(const RxFrame& frame) override {
    ++frames;
    uint32_t length = 0;
    for (const Piece& piece : frame.pieces) {
      for (uint32_t i = 0; i < piece.length; ++i) {
        sum += static_cast<uint8_t>(piece.data[i]);
      }
      length += piece.length;
    }
    EXPECT_EQ(length, frame.length);
    EXPECT_FALSE(frame.pieces.empty());
  }
  uint64_t frames = 0;
  uint64_t sum = 0;
};

// A port that listens, and this test at the other end by hand.
class HostilePeer : public testing::Test {
 protected:
  void SetUp() override {
    path_ = CablePath("hostile");
    auto port = ShmPort::Create(path_, &clock_);
    ASSERT_TRUE(port.ok()) << port.status();
    port_ = *std::move(port);
    ASSERT_TRUE(link_.Plug(path_).ok());
    ASSERT_FALSE(link_.is_listener());
    ASSERT_TRUE(link_.TryConnect());
  }
  void TearDown() override {
    if (cable_ != nullptr) munmap(cable_, sizeof(ShmCable));
  }

  void Progress(int times = 100) {
    for (int i = 0; i < times; ++i) {
      clock_.Advance(devwire::Duration::Nanoseconds(100'000));
      port_->Progress(64, sink_);
    }
  }
  // Shakes hands and maps the rings.
  void Join() {
    ASSERT_TRUE(link_.Send(ShmMessage(), -1));
    Progress();
    ShmMessage welcome;
    int fd = -1;
    ASSERT_EQ(link_.Receive(&welcome, &fd), ShmLink::Poll::kMessage);
    ASSERT_EQ(welcome.kind, ShmMessage::Kind::kWelcome);
    void* at = mmap(nullptr, sizeof(ShmCable), PROT_READ | PROT_WRITE,
                    MAP_SHARED, fd, 0);
    ASSERT_NE(at, MAP_FAILED);
    close(fd);
    cable_ = static_cast<ShmCable*>(at);
    out_ = &cable_->direction[1];
  }
  ShmDescriptor& Next() {
    return out_->descriptors[tail_ % ShmDirection::kDepth];
  }
  void Publish() { out_->producer.tail.store(++tail_); }
  uint32_t consumed() const { return out_->consumer.head.load(); }

  ManualClock clock_;
  Sink sink_;
  std::string path_;
  std::unique_ptr<ShmPort> port_;
  ShmLink link_;
  ShmCable* cable_ = nullptr;
  ShmDirection* out_ = nullptr;
  uint32_t tail_ = 0;
};

// Descriptors that point anywhere are dropped, and consumed: the cable goes on.
TEST_F(HostilePeer, BadDescriptorsAreDropped) {
  Join();
  constexpr uint64_t kStaging = ShmDirection::kStagingBytes;
  const ShmPiece bad[] = {
      {kNoRegion, 0, 0},
      {kNoRegion, 64, kStaging - 63},
      {kNoRegion, 64, ~uint64_t{0} - 10},
      {kNoRegion, 0xffffffff, 0},
      {kNoRegion, kStaging + 1, 0},
  };
  for (const ShmPiece& piece : bad) {
    Next() = ShmDescriptor{};
    Next().piece_count = 1;
    Next().pieces[0] = piece;
    Publish();
  }
  for (const uint16_t count : {0, 7, 65535}) {
    Next() = ShmDescriptor{};
    Next().piece_count = count;
    Next().pieces[0] = {kNoRegion, 64, 0};
    Publish();
  }
  Next() = ShmDescriptor{};
  Next().piece_count = 1;
  Next().pieces[0] = {kNoRegion, 64, kStaging - 64};
  Publish();
  Progress();
  EXPECT_EQ(consumed(), tail_);
  EXPECT_EQ(sink_.frames, 1u);
  EXPECT_TRUE(port_->link_up());
}

// A region shorter than it says, or none at all: frames that need it are lost.
TEST_F(HostilePeer, BadRegionsAreNotMapped) {
  Join();
  const int fd = memfd_create("short", MFD_CLOEXEC);
  ASSERT_EQ(ftruncate(fd, 4096), 0);
  uint32_t messages = 0;
  const auto announce = [&](uint32_t region, uint64_t offset, uint64_t length,
                            int f) {
    ShmMessage m;
    m.kind = ShmMessage::Kind::kRegion;
    m.region = region;
    m.offset = offset;
    m.length = length;
    ASSERT_TRUE(link_.Send(m, f));
    out_->producer.messages.store(++messages);
  };
  announce(0, 0, 8192, fd);
  announce(1, 4096, 1, fd);
  announce(2, ~uint64_t{0} - 100, 200, fd);
  announce(3, 0, 4096, -1);
  announce(4, 0, 4096, fd);
  close(fd);
  for (uint32_t region = 0; region < 5; ++region) {
    Next() = ShmDescriptor{};
    Next().piece_count = 2;
    Next().pieces[0] = {kNoRegion, 64, 0};
    Next().pieces[1] = {region, 1, 0};
    Publish();
  }
  Next() = ShmDescriptor{};
  Next().piece_count = 2;
  Next().pieces[0] = {kNoRegion, 64, 0};
  Next().pieces[1] = {4, 2, 4095};  // one byte too far
  Publish();
  Progress();
  EXPECT_EQ(consumed(), tail_);
  EXPECT_EQ(sink_.frames, 1u);

  // A region that was never announced: its message may be on the way, so the
  // frame waits; when the other end goes, it is dropped.
  Next() = ShmDescriptor{};
  Next().piece_count = 1;
  Next().pieces[0] = {99, 1, 0};
  Publish();
  Progress();
  EXPECT_EQ(consumed(), tail_ - 1);
  link_.Disconnect();
  Progress(2000);
  EXPECT_FALSE(port_->link_up());
}

// A ring index that cannot be, messages that are none: the link is given up.
TEST_F(HostilePeer, ImpossibleIndexEndsTheLink) {
  Join();
  out_->producer.tail.store(ShmDirection::kDepth + 1);
  Progress();
  EXPECT_FALSE(port_->link_up());
}

// Who knocks and goes, as a process that dies may, does not bring a lost link
// back; a handshake does.
TEST_F(HostilePeer, KnocksDoNotBringALostLinkBack) {
  Join();
  EXPECT_TRUE(port_->link_up());
  link_.Disconnect();
  Progress();
  EXPECT_FALSE(port_->link_up());
  ASSERT_TRUE(link_.TryConnect());
  Progress();
  EXPECT_FALSE(port_->link_up());
  link_.Disconnect();
  Progress();
  EXPECT_FALSE(port_->link_up());
  ASSERT_TRUE(link_.TryConnect());
  munmap(cable_, sizeof(ShmCable));
  Join();
  EXPECT_TRUE(port_->link_up());
}

TEST_F(HostilePeer, WrongVersionEndsTheLink) {
  Join();
  ShmMessage m;
  m.magic ^= 1;
  ASSERT_TRUE(link_.Send(m, -1));
  Progress(2000);
  EXPECT_FALSE(port_->link_up());
}

// Random bytes everywhere: nothing is read that is not ours, nothing hangs.
TEST_F(HostilePeer, RandomRings) {
  constexpr uint64_t kSeed = 4711;
  printf("seed %llu\n", static_cast<unsigned long long>(kSeed));
  devwire::Prng prng(kSeed);
  Join();
  for (int i = 0; i < 20'000; ++i) {
    auto* bytes = reinterpret_cast<uint8_t*>(&Next());
    for (size_t b = 0; b < sizeof(ShmDescriptor); ++b) {
      bytes[b] = static_cast<uint8_t>(prng.Next32());
    }
    Next().piece_count %= 9;
    for (ShmPiece& piece : Next().pieces) {
      if (prng.Chance(0.9)) piece.region = kNoRegion;
      if (prng.Chance(0.9)) piece.length %= 2048;
      if (prng.Chance(0.9)) piece.offset %= ShmDirection::kStagingBytes + 99;
    }
    for (ShmPiece& piece : Next().pieces) {
      // Regions nobody will announce would only make the cable wait.
      if (piece.region != kNoRegion) piece = {kNoRegion, 0xffffffff, 1};
    }
    Publish();
    port_->Progress(64, sink_);
  }
  EXPECT_EQ(consumed(), tail_);
  EXPECT_GT(sink_.frames, 1000u);
}

// The socket of an end that died is taken over; a folder that is not there is
// an error in words.
TEST(ShmPortSetup, StaleSocketsAndBadPaths) {
  ManualClock clock;
  const std::string path = CablePath("stale");
  std::ofstream(path) << "not even a socket";
  auto port = ShmPort::Create(path, &clock);
  EXPECT_TRUE(port.ok()) << port.status();
  const auto bad = ShmPort::Create("/nonexistent/cable", &clock);
  EXPECT_EQ(bad.status().code(), absl::StatusCode::kUnavailable);
}

// The first frame sent after both ends are there arrives, whoever sends it and
// whether or not the other has done anything yet.
TEST(ShmPortSetup, FirstFrameArrives) {
  for (const bool listener_sends : {true, false}) {
    ManualClock clock;
    const std::string path = CablePath(listener_sends ? "first1" : "first2");
    auto a = ShmPort::Create(path, &clock);
    ASSERT_TRUE(a.ok());
    Sink none;
    (*a)->Progress(64, none);  // it has just looked, and found nobody
    auto b = ShmPort::Create(path, &clock);
    ASSERT_TRUE(b.ok());
    ShmPort& from = listener_sends ? **a : **b;
    ShmPort& to = listener_sends ? **b : **a;
    const std::byte bytes[64] = {};
    TxFrame frame;
    frame.header = bytes;
    frame.length = sizeof(bytes);
    Sink sink;
    bool is_taken = false;
    for (int i = 0; i < 100 && sink.frames == 0; ++i) {
      if (!is_taken) is_taken = from.Send(frame);
      from.Flush();
      clock.Advance(devwire::Duration::Nanoseconds(100'000));
      to.Progress(64, sink);
      from.Progress(64, none);
    }
    EXPECT_EQ(sink.frames, 1u);
    EXPECT_EQ(from.completed(), 1u);
  }
}

}  // namespace
}  // namespace softnic
