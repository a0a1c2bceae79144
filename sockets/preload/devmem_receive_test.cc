// recvmsg(2) and SO_DEVMEM_DONTNEED of a stream into device memory, and the
// bindings of that memory, against segments made by hand.
#include "sockets/preload/devmem_receive.h"

#include <fcntl.h>
#include <sys/mman.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>
#include <functional>
#include <memory>
#include <ostream>
#include <string>
#include <utility>
#include <vector>

#include "base/check.h"
#include "base/clock.h"
#include "gtest/gtest.h"
#include "sockets/hand_peer.h"
#include "sockets/stack.h"
#include "sockets/two_stacks.h"
#include "transport/verbs/verbs_fixture.h"

namespace devwire::preload {
namespace {

template <typename T>
T Take(absl::StatusOr<T> value) {
  CHECK(value.ok()) << std::string(value.status().message());
  return *std::move(value);
}

constexpr size_t kMemoryBytes = 1 << 20;
constexpr size_t kCmsg = CMSG_SPACE(sizeof(DmabufCmsg));

int SealedMemfd(size_t bytes) {
  const int fd = memfd_create("test", MFD_CLOEXEC | MFD_ALLOW_SEALING);
  CHECK_EQ(ftruncate(fd, static_cast<off_t>(bytes)), 0);
  CHECK_EQ(fcntl(fd, F_ADD_SEALS, F_SEAL_SHRINK), 0);
  return fd;
}

// What one control message says.
struct Part {
  int type = 0;
  uint32_t bytes = 0;
  friend bool operator==(const Part&, const Part&) = default;
};
std::ostream& operator<<(std::ostream& out, const Part& p) {
  return out << (p.type == kScmDevmemLinear ? "linear " : "device ") << p.bytes;
}
using Parts = std::vector<Part>;
Part Linear(uint32_t bytes) { return {kScmDevmemLinear, bytes}; }
Part Device(uint32_t bytes) { return {kScmDevmemDmabuf, bytes}; }

// The stack under test on sn0, the hand-made peer on sn1.
class DevmemReceiveTest : public testing::Test {
 protected:
  struct Got {
    int64_t result = 0;
    bool may_go_on = false;
    Parts parts;
    std::vector<uint32_t> tokens;
    std::vector<uint64_t> offsets;
    size_t control_bytes = 0;
  };

  ~DevmemReceiveTest() override {
    receiver_.reset();
    stream_.reset();
    if (stack_ == nullptr) return;
    EXPECT_TRUE(Until([&] { return SlotsHeld() == 0; }));
    close(fd_);
  }

  void Open(const std::string& nic = "", Duration rule_wait = 1_s) {
    const std::string port = ",port=shm:" + CablePath();
    ConfigureSoftnic("dev=sn0,mac=02:00:00:00:00:01" + port + nic +
                     ";dev=sn1,mac=02:00:00:00:00:02" + port);
    StackOptions o;
    o.verbs_library = SoftnicPath();
    o.device = "sn0";
    o.address = IpAddress::V4(10, 0, 0, 1);
    o.rx_ring_frames = 32;
    o.neighbors = {{IpAddress::V4(10, 0, 0, 2), {2, 0, 0, 0, 0, 2}}};
    o.tcp.time_wait = 1_ms;
    o.rule_wait = rule_wait;
    stack_ = Take(Stack::Open(o));
    fd_ = SealedMemfd(kMemoryBytes);
    ASSERT_EQ(bindings_.BindReceive(*stack_, fd_, {0}, {}), 1);
  }
  void Connect() {
    const auto binding = bindings_.receive();
    ASSERT_NE(binding, nullptr);
    listener_ = Take(stack_->Listen({stack_->address(), Port{7000}},
                                    {.memory = binding->pool}));
    peer_ = std::make_unique<HandPeer>(
        HandPeer::Options{.device = "sn1",
                          .ip = IpAddress::V4(10, 0, 0, 2),
                          .mtu = 1500,
                          .remote = listener_->local(),
                          .remote_mac = stack_->mac(),
                          .poll = [this] { stack_->Poll(); }});
    ASSERT_TRUE(peer_->Connect(Port{1000}, {}));
    ASSERT_TRUE(Until([&] {
      stream_ = Take(listener_->TryAccept());
      return stream_ != nullptr;
    }));
    receiver_ = std::make_unique<DevmemReceiver>(*stream_, binding);
  }

  bool Until(const std::function<bool()>& step) {
    const MonotonicClock clock;
    const Instant deadline = clock.Now() + 10_s;
    while (true) {
      stack_->Poll();
      if (peer_ != nullptr) peer_->Poll();
      if (step()) return true;
      if (clock.Now() > deadline) return false;
    }
  }
  uint32_t SlotsHeld() {
    const auto owners = Take(stack_->Use(bindings_.receive()->pool)).owners;
    return owners.reassembly + owners.application;
  }
  // Sends, and waits until it can be received.
  void Arrive(uint32_t bytes, const HandPeer::Shape& shape = {}) {
    peer_->Send(arrived_, bytes, shape);
    arrived_ += bytes;
    ASSERT_TRUE(Until([&] {
      return receiver_->held_bytes() + Take(stream_->ReadableBytes()) >=
             arrived_ - taken_;
    }));
  }

  // One look, whose bytes are compared with the pattern.
  Got Receive(size_t room, size_t control_room, int flags) {
    std::vector<std::byte> bytes(room);
    std::vector<char> control(control_room);
    // Two iovs, and an empty one.
    const size_t first = room / 3;
    iovec iov[3] = {{bytes.data(), first},
                    {bytes.data(), 0},
                    {bytes.data() + first, room - first}};
    msghdr message = {};
    message.msg_iov = iov;
    message.msg_iovlen = 3;
    message.msg_control = control_room == 0 ? nullptr : control.data();
    message.msg_controllen = control_room;
    DevmemReceiver::Call call(message, flags);
    Got got;
    got.result = receiver_->Look(call, &got.may_go_on);
    got.control_bytes = call.control_bytes();
    if (got.result <= 0) return got;
    EXPECT_EQ(call.total(), static_cast<uint64_t>(got.result));
    Compare(bytes, control, &got, (flags & MSG_TRUNC) != 0);
    if ((flags & MSG_PEEK) == 0) taken_ += call.total();
    return got;
  }
  Got Receive(int flags = kMsgSockDevmem) {
    return Receive(64 << 10, 64 * kCmsg, flags);
  }

  void Compare(const std::vector<std::byte>& bytes,
               const std::vector<char>& control, Got* got, bool is_discarded) {
    uint64_t at = taken_;
    size_t copied = 0;
    const auto compare = [&](const std::byte* from, size_t size) {
      for (size_t i = 0; i < size; ++i, ++at) {
        ASSERT_EQ(from[i], PatternByte(0, at)) << at;
      }
    };
    for (size_t c = 0; c + CMSG_LEN(sizeof(DmabufCmsg)) <= got->control_bytes;
         c += kCmsg) {
      cmsghdr header;
      DmabufCmsg cmsg;
      memcpy(&header, control.data() + c, sizeof(header));
      memcpy(&cmsg, control.data() + c + CMSG_LEN(0), sizeof(cmsg));
      EXPECT_EQ(header.cmsg_level, SOL_SOCKET);
      EXPECT_EQ(header.cmsg_len, CMSG_LEN(sizeof(cmsg)));
      EXPECT_EQ(cmsg.flags, 0u);
      got->parts.push_back({header.cmsg_type, cmsg.frag_size});
      if (header.cmsg_type == kScmDevmemLinear) {
        EXPECT_EQ(cmsg.frag_offset, 0u);
        EXPECT_EQ(cmsg.dmabuf_id, 0u);
        EXPECT_EQ(cmsg.frag_token, 0u);
        compare(bytes.data() + copied, cmsg.frag_size);
        copied += cmsg.frag_size;
        continue;
      }
      EXPECT_EQ(cmsg.dmabuf_id, bindings_.receive()->id);
      got->tokens.push_back(cmsg.frag_token);
      got->offsets.push_back(cmsg.frag_offset);
      std::vector<std::byte> device(cmsg.frag_size);
      EXPECT_EQ(pread(fd_, device.data(), device.size(),
                      static_cast<off_t>(cmsg.frag_offset)),
                static_cast<ssize_t>(device.size()));
      compare(device.data(), device.size());
    }
    if (got->parts.empty() && !is_discarded) {
      compare(bytes.data(), static_cast<size_t>(got->result));
    }
  }

  int64_t GiveBack(const std::vector<uint32_t>& tokens) {
    std::vector<DmabufToken> all;
    for (const uint32_t token : tokens) all.push_back({token, 1});
    return receiver_->DontNeed(all);
  }

  DevmemBindings bindings_;
  std::unique_ptr<Stack> stack_;
  std::unique_ptr<Listener> listener_;
  std::unique_ptr<HandPeer> peer_;
  std::unique_ptr<Stream> stream_;
  std::unique_ptr<DevmemReceiver> receiver_;
  int fd_ = -1;
  uint64_t arrived_ = 0;
  uint64_t taken_ = 0;
};

// A segment without the timestamps that were agreed on has a header of 12 bytes
// less: so much of its payload lies in the header's slot.
constexpr HandPeer::Shape kBare = {.timestamps = false};

TEST_F(DevmemReceiveTest, LinearAndDeviceBytesInTheOrderOfTheStream) {
  Open();
  Connect();
  Arrive(1000, kBare);
  Arrive(500);
  Arrive(7, kBare);
  Arrive(20, kBare);
  const Got got = Receive();
  EXPECT_EQ(got.result, 1527);
  EXPECT_EQ(got.parts, (Parts{Linear(12), Device(988), Device(500), Linear(7),
                              Linear(12), Device(8)}));
  EXPECT_EQ(got.control_bytes, 6 * kCmsg);
  EXPECT_TRUE(got.may_go_on);
  // Contiguous: one {start, count} gives them all back.
  EXPECT_EQ(got.tokens, (std::vector<uint32_t>{1, 2, 3}));
  const DmabufToken all = {got.tokens[0], 3};
  EXPECT_EQ(receiver_->DontNeed({&all, 1}), 3);
  EXPECT_TRUE(Until([&] { return SlotsHeld() == 0; }));
  EXPECT_EQ(Receive().result, 0) << "nothing more";
}

TEST_F(DevmemReceiveTest, DeviceBytesNeedTheFlag) {
  Open();
  Connect();
  Arrive(100);
  for (const int flags : {0, int{MSG_PEEK}}) {
    const Got refused = Receive(flags);
    EXPECT_EQ(refused.result, -EFAULT);
    EXPECT_FALSE(refused.may_go_on);
  }
  EXPECT_EQ(Receive().parts, Parts{Device(100)});
}

TEST_F(DevmemReceiveTest, AControlMessageIsWholeOrNotThere) {
  Open();
  Connect();
  Arrive(1000, kBare);
  Arrive(1000, kBare);
  const size_t whole = CMSG_LEN(sizeof(DmabufCmsg));
  for (const size_t room : {size_t{0}, size_t{1}, whole - 1}) {
    const Got none = Receive(64 << 10, room, kMsgSockDevmem);
    EXPECT_EQ(none.result, -kErrnoTooSmall) << room;
    EXPECT_FALSE(none.may_go_on);
  }
  Got got = Receive(64 << 10, whole, kMsgSockDevmem);
  EXPECT_EQ(got.result, 12);
  EXPECT_EQ(got.parts, Parts{Linear(12)});
  EXPECT_FALSE(got.may_go_on) << "there is no room for the next";
  EXPECT_EQ(Receive(64 << 10, whole - 1, kMsgSockDevmem).result,
            -kErrnoTooSmall);
  got = Receive(64 << 10, kCmsg + whole, kMsgSockDevmem);
  EXPECT_EQ(got.parts, (Parts{Device(988), Linear(12)}));
  EXPECT_EQ(Receive().parts, Parts{Device(988)});
}

TEST_F(DevmemReceiveTest, AFragIsDeliveredInPieces) {
  Open();
  Connect();
  Arrive(1000, kBare);
  EXPECT_EQ(Receive(0, kCmsg, kMsgSockDevmem).result, 0);
  EXPECT_EQ(Receive(5, kCmsg, kMsgSockDevmem).parts, Parts{Linear(5)});
  const Got first = Receive(307, 9 * kCmsg, kMsgSockDevmem);
  EXPECT_EQ(first.parts, (Parts{Linear(7), Device(300)}));
  EXPECT_FALSE(first.may_go_on) << "full";
  const Got second = Receive(400, kCmsg, kMsgSockDevmem);
  EXPECT_EQ(second.parts, Parts{Device(400)});
  EXPECT_EQ(second.offsets[0], first.offsets[0] + 300);
  EXPECT_NE(second.tokens, first.tokens);
  const Got third = Receive();
  EXPECT_EQ(third.parts, Parts{Device(288)});
  // The slot is free with the last of its tokens.
  EXPECT_EQ(GiveBack(third.tokens), 1);
  EXPECT_EQ(GiveBack(first.tokens), 1);
  stack_->Poll();
  EXPECT_EQ(SlotsHeld(), 1u);
  EXPECT_EQ(GiveBack(second.tokens), 1);
  EXPECT_TRUE(Until([&] { return SlotsHeld() == 0; }));
}

TEST_F(DevmemReceiveTest, PeekingLendsTheSameBytesAgain) {
  Open();
  Connect();
  Arrive(1000, kBare);
  Arrive(100);
  const int peek = kMsgSockDevmem | MSG_PEEK;
  EXPECT_EQ(Receive(500, 9 * kCmsg, peek).parts,
            (Parts{Linear(12), Device(488)}));
  const Got peeked = Receive(peek);
  EXPECT_EQ(peeked.parts, (Parts{Linear(12), Device(988), Device(100)}));
  EXPECT_EQ(receiver_->held_bytes(), 1100u);
  const Got got = Receive();
  EXPECT_EQ(got.parts, peeked.parts);
  EXPECT_EQ(got.offsets, peeked.offsets);
  EXPECT_EQ(receiver_->held_bytes(), 0u);
  EXPECT_EQ(GiveBack(got.tokens), 2);
  stack_->Poll();
  EXPECT_EQ(SlotsHeld(), 2u) << "those that were peeked at";
  const DmabufToken all = {1, 3};
  EXPECT_EQ(receiver_->DontNeed({&all, 1}), 3);
  EXPECT_TRUE(Until([&] { return SlotsHeld() == 0; }));
}

TEST_F(DevmemReceiveTest, WhatIsDiscardedNeedsNoFlagAndNoToken) {
  Open();
  Connect();
  Arrive(1000, kBare);
  Arrive(50);
  EXPECT_EQ(Receive(1010, 0, MSG_TRUNC).result, 1010);
  EXPECT_EQ(Receive().parts, Parts{Device(40)});
  const DmabufToken all = {1, 10};
  EXPECT_EQ(receiver_->DontNeed({&all, 1}), 1);
  EXPECT_TRUE(Until([&] { return SlotsHeld() == 0; }));
}

TEST_F(DevmemReceiveTest, WholeFramesInHostMemoryAreOrdinary) {
  Open(",rules=3");  // For the host's own; none is left for the stream.
  Connect();
  Arrive(1000);
  Arrive(500, kBare);
  Got got = Receive(600, 0, MSG_PEEK);
  EXPECT_EQ(got.result, 600);
  got = Receive(kMsgSockDevmem);
  EXPECT_EQ(got.result, 1500);
  EXPECT_TRUE(got.parts.empty());
  EXPECT_EQ(got.control_bytes, 0u);
}

TEST_F(DevmemReceiveTest, OneCallDeliversOrdinaryBytesOrTheOthers) {
  Open(",rule_latency_us=200000", 1_ms);
  Connect();
  Arrive(100);  // Before the rule is there.
  ASSERT_TRUE(Until([&] { return Take(stream_->Info()).steered; }));
  Arrive(200);
  Got got = Receive();
  EXPECT_EQ(got.result, 100);
  EXPECT_TRUE(got.parts.empty());
  EXPECT_FALSE(got.may_go_on) << "what follows is of the other kind";
  EXPECT_EQ(Receive(0).result, -EFAULT);
  EXPECT_EQ(Receive().parts, Parts{Device(200)});
}

TEST_F(DevmemReceiveTest, TokensGivenBackOnceAndWithinLimits) {
  Open();
  Connect();
  for (int i = 0; i < 4; ++i) Arrive(100);
  const Got got = Receive();
  ASSERT_EQ(got.tokens, (std::vector<uint32_t>{1, 2, 3, 4}));
  EXPECT_EQ(GiveBack({0, 5, 77, UINT32_MAX}), 0) << "never given out";
  EXPECT_EQ(GiveBack({1, 1}), 1) << "once";
  EXPECT_EQ(GiveBack({1}), 0);
  // 1024 are looked at, whether they are there or not.
  std::vector<DmabufToken> many = {{1000, 1023}, {2, 1}, {3, 1}};
  EXPECT_EQ(receiver_->DontNeed(many), 1);
  many = {{1000, UINT32_MAX}};
  EXPECT_EQ(receiver_->DontNeed(many), 0);
  many = {{2, 3}};
  EXPECT_EQ(receiver_->DontNeed(many), 2);
  EXPECT_TRUE(Until([&] { return SlotsHeld() == 0; }));
}

TEST_F(DevmemReceiveTest, TheEndOfTheStream) {
  Open();
  Connect();
  Arrive(100);
  EXPECT_EQ(Receive(MSG_PEEK | kMsgSockDevmem).result, 100);
  peer_->Send(100, 0, {.flags = kAck | kFin});
  ASSERT_TRUE(Until([&] {
    Receive(MSG_PEEK | kMsgSockDevmem | MSG_TRUNC);
    return peer_->acked() == 101;
  }));
  EXPECT_FALSE(receiver_->is_at_end()) << "100 bytes come before it";
  EXPECT_EQ(Receive().parts, Parts{Device(100)});
  const Got end = Receive();
  EXPECT_EQ(end.result, 0);
  EXPECT_TRUE(receiver_->is_at_end());
  EXPECT_FALSE(end.may_go_on);
}

TEST_F(DevmemReceiveTest, AnErrorComesAfterTheBytes) {
  Open();
  Connect();
  Arrive(100);
  peer_->Send(100, 0, {.flags = kRst | kAck});
  ASSERT_TRUE(Until([&] {
    return !stream_->ConnectStatus().ok() ||
           Take(stream_->Info()).state == "CLOSED";
  }));
  EXPECT_EQ(Receive().parts, Parts{Device(100)});
  const Got got = Receive();
  EXPECT_EQ(got.result, -ECONNRESET);
  EXPECT_TRUE(got.may_go_on);
}

TEST_F(DevmemReceiveTest, ReceiversMayEndWithTokensOut) {
  Open();
  Connect();
  for (int i = 0; i < 3; ++i) Arrive(100);
  EXPECT_EQ(Receive(150, kCmsg * 2, kMsgSockDevmem).parts,
            (Parts{Device(100), Device(50)}));
  receiver_.reset();
  EXPECT_TRUE(Until([&] { return SlotsHeld() == 1; })) << "the third";
}

// -- bindings -----------------------------------------------------------------

TEST_F(DevmemReceiveTest, MemoryThatCannotBeBound) {
  Open();
  EXPECT_EQ(bindings_.BindReceive(*stack_, -1, {1}, {}), -EBADF);
  EXPECT_EQ(bindings_.BindSend(*stack_, 10'000), -EBADF);
  int pipe_ends[2];
  ASSERT_EQ(pipe(pipe_ends), 0);
  EXPECT_EQ(bindings_.BindSend(*stack_, pipe_ends[0]), -EINVAL);
  const int empty = SealedMemfd(0);
  EXPECT_EQ(bindings_.BindSend(*stack_, empty), -EINVAL);
  const int small = SealedMemfd(4096);
  EXPECT_EQ(bindings_.BindReceive(*stack_, small, {1}, {}), -EINVAL);
  EXPECT_GT(bindings_.BindSend(*stack_, small), 0) << "large enough for that";
  const int unsealed = memfd_create("unsealed", MFD_ALLOW_SEALING);
  ASSERT_EQ(ftruncate(unsealed, kMemoryBytes), 0);
  EXPECT_EQ(bindings_.BindReceive(*stack_, unsealed, {1}, {}), -EINVAL);
  const int file = open("/proc/self/exe", O_RDONLY | O_CLOEXEC);
  EXPECT_EQ(bindings_.BindReceive(*stack_, file, {1}, {}), -EINVAL);
  for (const int fd :
       {pipe_ends[0], pipe_ends[1], empty, small, unsealed, file}) {
    close(fd);
  }
}

TEST_F(DevmemReceiveTest, BindingsComeAndGo) {
  Open();
  const PoolId pool = bindings_.receive()->pool;
  EXPECT_EQ(bindings_.BindReceive(*stack_, fd_, {3, 0}, {}), -EEXIST);
  EXPECT_EQ(bindings_.FindSend(1), nullptr) << "bound to receive";
  EXPECT_EQ(bindings_.FindSend(9), nullptr);
  EXPECT_EQ(bindings_.BindSend(*stack_, fd_), 2);
  ASSERT_NE(bindings_.FindSend(2), nullptr);
  EXPECT_EQ(bindings_.FindSend(2)->bytes, kMemoryBytes);
  EXPECT_NE(bindings_.FindSend(2)->pool, pool);
  // The newest decides.
  const int other = SealedMemfd(kMemoryBytes);
  EXPECT_EQ(bindings_.BindReceive(*stack_, other, {3}, {}), 3);
  EXPECT_EQ(bindings_.receive()->id, 3u);
  bindings_.Unbind(3);
  EXPECT_EQ(bindings_.receive()->id, 1u);
  bindings_.Unbind(1);
  EXPECT_EQ(bindings_.receive(), nullptr);
  bindings_.Unbind(1);
  // The same memory is registered once: it can be bound for ever.
  for (int i = 0; i < 100; ++i) {
    const int64_t id = bindings_.BindReceive(*stack_, fd_, {0}, {});
    ASSERT_EQ(id, 4 + i);
    EXPECT_EQ(bindings_.receive()->pool, pool);
    bindings_.Unbind(static_cast<uint32_t>(id));
  }
  // Different memory is not.
  int64_t last = 0;
  std::vector<int> more;
  while (last >= 0 && more.size() < 100) {
    more.push_back(SealedMemfd(kMemoryBytes));
    last = bindings_.BindReceive(
        *stack_, more.back(), {static_cast<uint32_t>(100 + more.size())}, {});
  }
  EXPECT_EQ(last, -ENOBUFS);
  for (const int fd : more) close(fd);
  close(other);
}

}  // namespace
}  // namespace devwire::preload
