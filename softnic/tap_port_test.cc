// The TAP port against the Linux kernel: ARP, UDP and TCP both ways, with and
// without offloads. Each test is a process that puts itself into a user and
// network namespace of its own, so nothing of the machine is touched.
#include "softnic/tap_port.h"

#include <arpa/inet.h>
#include <linux/capability.h>
#include <netinet/in.h>
#include <poll.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cstring>
#include <deque>
#include <optional>
#include <string>
#include <vector>

#include "base/clock.h"
#include "base/prng.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "softnic/frame_checksum.h"
#include "softnic/linux_namespace.h"
#include "softnic/packet.h"

namespace softnic {
namespace {

using devwire::Duration;
using devwire::Instant;
using ::testing::HasSubstr;
using namespace devwire::time_literals;
using Bytes = std::vector<std::byte>;

constexpr uint32_t kMtu = 1500;

Bytes FromInts(std::initializer_list<int> ints) {
  Bytes out;
  for (int i : ints) out.push_back(static_cast<std::byte>(i));
  return out;
}
void Append(Bytes* to, const Bytes& more) {
  to->insert(to->end(), more.begin(), more.end());
}

const Bytes kOurMac = FromInts({2, 0, 0, 0, 9, 2});
const Bytes kLinuxMac = FromInts({2, 0, 0, 0, 9, 1});
const Bytes kOurIp = FromInts({10, 9, 0, 2});
const Bytes kOurIp6 =
    FromInts({0xfd, 9, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 2});
const Bytes kLinuxIp6 =
    FromInts({0xfd, 9, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1});
const Bytes kLinuxIp = FromInts({10, 9, 0, 1});

// What arrived, its checksum finished where it was owed.
class Inbox final : public Receiver {
 public:
  struct Frame {
    Bytes bytes;
    ParsedFrame parsed;
    RxChecksum checksum;
  };
  void OnFrame(const RxFrame& frame) override {
    Frame f = {Bytes(frame.length), {}, frame.checksum};
    FrameBytes{{}, frame.pieces}.Copy(0, frame.length, f.bytes.data());
    f.parsed = ParseFrame(f.bytes, frame.length);
    // The first piece holds all headers.
    if (f.parsed.layout.payload_offset > 0) {
      EXPECT_GE(frame.pieces[0].length, f.parsed.layout.payload_offset);
    }
    EXPECT_LE(frame.length, kMtu + kEthernetBytes);
    if (frame.checksum == RxChecksum::kOwed) {
      FinishOwedChecksum(f.parsed, f.bytes.data(), {f.bytes, {}});
    }
    EXPECT_NE(VerifyFrame(f.parsed, f.bytes.data(), {f.bytes, {}}),
              ChecksumState::kBad);
    frames.push_back(std::move(f));
  }
  std::deque<Frame> frames;
};

class TapPortTest : public testing::TestWithParam<bool> {
 protected:
  void SetUp() override {
    ASSERT_TRUE(EnterNamespace()) << strerror(errno);
    absl::StatusOr<std::unique_ptr<TapPort>> port =
        TapPort::Open("t0", GetParam());
    ASSERT_TRUE(port.ok()) << port.status();
    port_ = *std::move(port);
    ASSERT_TRUE(Shell("ip link set t0 address 02:00:00:00:09:01"));
    ASSERT_TRUE(Shell("ip link set t0 mtu 1500 up"));
    ASSERT_TRUE(Shell("ip addr add 10.9.0.1/24 dev t0"));
    // IPv6 with a static neighbour: no discovery to answer.
    ASSERT_TRUE(Shell("ip addr add fd09::1/64 dev t0 nodad"));
    ASSERT_TRUE(
        Shell("ip neigh replace fd09::2 lladdr 02:00:00:00:09:02 dev t0"));
  }

  // The next frame for which `wanted` is true, within `patience`; earlier ones
  // are dropped (IPv6 neighbour discovery and the like).
  template <typename F>
  std::optional<Inbox::Frame> Next(F wanted, uint32_t budget = 16,
                                   Duration patience = 10_s) {
    const Instant end = clock_.Now() + patience;
    while (clock_.Now() < end) {
      const size_t before = inbox_.frames.size();
      port_->Progress(budget, inbox_);
      EXPECT_LE(inbox_.frames.size(), before + budget);
      while (!inbox_.frames.empty()) {
        Inbox::Frame frame = std::move(inbox_.frames.front());
        inbox_.frames.pop_front();
        if (wanted(frame)) return frame;
      }
      pollfd wait = {port_->wait_fd(), POLLIN, 0};
      poll(&wait, 1, 10);
    }
    return std::nullopt;
  }
  std::optional<Inbox::Frame> NextOf(uint8_t protocol, uint32_t budget = 16,
                                     Duration patience = 10_s) {
    return Next(
        [this, protocol](const Inbox::Frame& f) {
          const Layout& layout = f.parsed.layout;
          return layout.protocol == protocol &&
                 Load16(&f.bytes[layout.l4_offset + 2]) == our_port_;
        },
        budget, patience);
  }

  void Send(const Bytes& bytes, uint16_t mss = 0, bool owed = false) {
    const ParsedFrame parsed =
        ParseFrame(bytes, static_cast<uint32_t>(bytes.size()));
    Layout layout = parsed.layout;
    uint32_t header = kEthernetBytes;
    if (mss != 0) {
      // A template's length means nothing, so its layout is what we built.
      const uint16_t ip_bytes = is_ipv6_ ? 40 : 20;
      layout = {.l3_offset = 14,
                .l4_offset = static_cast<uint16_t>(14 + ip_bytes),
                .payload_offset = static_cast<uint16_t>(34 + ip_bytes),
                .ip_version = static_cast<uint8_t>(is_ipv6_ ? 6 : 4),
                .protocol = IPPROTO_TCP};
      header = layout.payload_offset;
    }
    // Three pieces, the second of one byte: nothing is aligned.
    const std::byte* rest = bytes.data() + header;
    const auto length = static_cast<uint32_t>(bytes.size()) - header;
    std::vector<Piece> pieces = {{rest, length}};
    if (length > 6) {
      pieces = {{rest, 5}, {rest + 5, 1}, {rest + 6, length - 6}};
    }
    const uint64_t before = port_->sent();
    const Instant end = clock_.Now() + 10_s;
    while (!port_->Send({.header = std::span(bytes).first(header),
                         .pieces = pieces,
                         .length = static_cast<uint32_t>(bytes.size()),
                         .layout = layout,
                         .l4_checksum_owed = owed,
                         .mss = mss})) {
      ASSERT_LT(clock_.Now(), end) << "Linux has no room for ten seconds";
    }
    EXPECT_EQ(port_->sent(), before + 1);
    EXPECT_EQ(port_->completed(), before + 1);
  }

  void AnswerArp() {
    auto request = Next([](const Inbox::Frame& f) {
      return f.parsed.ethertype == 0x0806 && Load16(&f.bytes[20]) == 1;
    });
    ASSERT_TRUE(request.has_value()) << "no ARP request";
    Bytes reply = kLinuxMac;
    Append(&reply, kOurMac);
    Append(&reply, FromInts({8, 6, 0, 1, 8, 0, 6, 4, 0, 2}));
    Append(&reply, kOurMac);
    Append(&reply, kOurIp);
    Append(&reply, kLinuxMac);
    Append(&reply, kLinuxIp);
    reply.resize(60);
    Send(reply);
  }

  // Ethernet, IP and `l4`, with the IPv4 checksum.
  Bytes Ip(uint8_t protocol, const Bytes& l4) const {
    Bytes out = kLinuxMac;
    Append(&out, kOurMac);
    if (is_ipv6_) {
      Append(&out, FromInts({0x86, 0xdd, 0x60, 0, 0, 0, 0, 0, protocol, 64}));
      Append(&out, kOurIp6);
      Append(&out, kLinuxIp6);
      Append(&out, l4);
      Store16(&out[18], static_cast<uint16_t>(l4.size()));
      return out;
    }
    Append(&out,
           FromInts({8, 0, 0x45, 0, 0, 0, 0, 7, 0x40, 0, 64, protocol, 0, 0}));
    Append(&out, kOurIp);
    Append(&out, kLinuxIp);
    Append(&out, l4);
    Store16(&out[16], static_cast<uint16_t>(out.size() - 14));
    const ParsedFrame f = ParseFrame(out, static_cast<uint32_t>(out.size()));
    if (f.layout.ip_version == 4) WriteIpChecksum(f, out.data());
    return out;
  }
  static void FillL4Checksum(Bytes* frame) {
    const ParsedFrame f =
        ParseFrame(*frame, static_cast<uint32_t>(frame->size()));
    WriteL4Checksum(f, frame->data(), {*frame, {}});
  }

  struct TcpSide {
    uint16_t linux_port = 0;
    uint32_t seq = 1000;
    uint32_t ack = 0;
  };
  Bytes Tcp(const TcpSide& side, uint8_t flags, const Bytes& payload) const {
    Bytes tcp(20);
    Store16(&tcp[0], our_port_);
    Store16(&tcp[2], side.linux_port);
    Store32(&tcp[4], side.seq);
    Store32(&tcp[8], side.ack);
    tcp[12] = std::byte{0x50};
    tcp[13] = static_cast<std::byte>(flags);
    Store16(&tcp[14], 65535);
    Append(&tcp, payload);
    return Ip(IPPROTO_TCP, tcp);
  }
  void SendTcp(const TcpSide& side, uint8_t flags) {
    Bytes frame = Tcp(side, flags, {});
    FillL4Checksum(&frame);
    Send(frame);
  }

  // A Linux socket that has accepted a connection of ours.
  int Connect(TcpSide* side) {
    // An IPv6 listener takes both families.
    const int listener = socket(AF_INET6, SOCK_STREAM | SOCK_NONBLOCK, 0);
    sockaddr_in6 any = {};
    any.sin6_family = AF_INET6;
    socklen_t size = sizeof(any);
    EXPECT_EQ(bind(listener, reinterpret_cast<sockaddr*>(&any), size), 0);
    EXPECT_EQ(listen(listener, 1), 0);
    getsockname(listener, reinterpret_cast<sockaddr*>(&any), &size);
    side->linux_port = ntohs(any.sin6_port);
    // Linux takes up an IPv6 address some time after the interface is up, and
    // drops what comes before.
    std::optional<Inbox::Frame> syn_ack;
    int tries = is_ipv6_ ? 20 : 1;
    while (!syn_ack && tries-- > 0) {
      SendTcp(*side, 0x02);
      if (!is_ipv6_) AnswerArp();
      syn_ack = NextOf(IPPROTO_TCP, 16, is_ipv6_ ? 500_ms : 10_s);
    }
    EXPECT_TRUE(syn_ack.has_value()) << "no SYN-ACK";
    if (!syn_ack) return -1;
    const std::byte* tcp = &syn_ack->bytes[syn_ack->parsed.layout.l4_offset];
    EXPECT_EQ(static_cast<uint8_t>(tcp[13]), 0x12);
    EXPECT_EQ(Load32(tcp + 8), side->seq + 1);
    ++side->seq;
    side->ack = Load32(tcp + 4) + 1;
    SendTcp(*side, 0x10);
    pollfd wait = {listener, POLLIN, 0};
    EXPECT_EQ(poll(&wait, 1, 10'000), 1) << "Linux did not take our ACK";
    const int fd = accept4(listener, nullptr, nullptr, SOCK_NONBLOCK);
    EXPECT_GE(fd, 0);
    close(listener);
    return fd;
  }

  void LinuxSendsInBulk();
  void WeSendInBulk();

  // One for each test: Linux may still be closing the last one's connection.
  static inline uint16_t next_port_ = 4000;
  const uint16_t our_port_ = next_port_++;
  bool is_ipv6_ = false;
  devwire::MonotonicClock clock_;
  Inbox inbox_;
  std::unique_ptr<TapPort> port_;
};

INSTANTIATE_TEST_SUITE_P(Vnet, TapPortTest, testing::Bool(),
                         [](const testing::TestParamInfo<bool>& info) {
                           return info.param ? "on" : "off";
                         });

TEST_P(TapPortTest, ArpAndUdpBothWays) {
  const int fd = socket(AF_INET, SOCK_DGRAM | SOCK_NONBLOCK, 0);
  sockaddr_in peer = {};
  peer.sin_family = AF_INET;
  peer.sin_port = htons(our_port_);
  memcpy(&peer.sin_addr, kOurIp.data(), 4);
  ASSERT_EQ(connect(fd, reinterpret_cast<sockaddr*>(&peer), sizeof(peer)), 0);
  ASSERT_EQ(send(fd, "hello", 5, 0), 5);
  AnswerArp();
  auto datagram = NextOf(IPPROTO_UDP);
  ASSERT_TRUE(datagram.has_value());
  EXPECT_EQ(memcmp(&datagram->bytes[42], "hello", 5), 0);
  EXPECT_EQ(datagram->checksum,
            GetParam() ? RxChecksum::kOwed : RxChecksum::kUnknown);

  // And back; with vnet once with the checksum owed.
  for (bool owed : {false, true}) {
    if (owed && !port_->offloads().checksum) continue;
    Bytes udp =
        FromInts({0, 0, 0, 0, 0, 15, 0, 0, 'a', 'n', 's', 'w', 'e', 'r', '!'});
    Store16(&udp[0], our_port_);
    Store16(&udp[2], datagram->parsed.layout.l4_offset == 0
                         ? 0
                         : Load16(&datagram->bytes[34]));
    Bytes frame = Ip(IPPROTO_UDP, udp);
    FillL4Checksum(&frame);
    if (owed) {
      const ParsedFrame f =
          ParseFrame(frame, static_cast<uint32_t>(frame.size()));
      WriteOwedL4Checksum(f, frame.data());
    }
    Send(frame, 0, owed);
    pollfd wait = {fd, POLLIN, 0};
    ASSERT_EQ(poll(&wait, 1, 10'000), 1) << "Linux dropped it";
    char text[32];
    ASSERT_EQ(recv(fd, text, sizeof(text), 0), 7);
    EXPECT_EQ(memcmp(text, "answer!", 7), 0);
  }
  close(fd);
}

// Linux sends in bulk: with vnet in super-frames, which are cut here.
TEST_P(TapPortTest, LinuxSendsInBulkOverIpv4) { LinuxSendsInBulk(); }
TEST_P(TapPortTest, LinuxSendsInBulkOverIpv6) {
  is_ipv6_ = true;
  LinuxSendsInBulk();
}
void TapPortTest::LinuxSendsInBulk() {
  TcpSide side;
  const int fd = Connect(&side);
  ASSERT_GE(fd, 0);
  devwire::Prng prng(1);
  std::string text(300'000, 0);
  for (char& c : text) c = static_cast<char>(prng.Next64());
  size_t written = 0;
  std::string got;
  while (got.size() < text.size()) {
    const ssize_t n = write(fd, text.data() + written, text.size() - written);
    if (n > 0) written += static_cast<size_t>(n);
    // A budget of 3 stops in the middle of super-frames.
    auto segment = NextOf(IPPROTO_TCP, 3);
    ASSERT_TRUE(segment.has_value()) << "after " << got.size();
    const Layout& layout = segment->parsed.layout;
    const size_t end = layout.l3_offset + segment->parsed.ip_total_length;
    const uint32_t seq = Load32(&segment->bytes[layout.l4_offset + 4]);
    if (seq != side.ack) continue;  // sent again
    got.append(reinterpret_cast<const char*>(segment->bytes.data()) +
                   layout.payload_offset,
               end - layout.payload_offset);
    side.ack += static_cast<uint32_t>(end - layout.payload_offset);
    SendTcp(side, 0x10);
  }
  EXPECT_EQ(got, text);
  EXPECT_EQ(port_->counters().super_frames_cut.value() > 0, GetParam());
  EXPECT_EQ(port_->counters().bad_offload.value(), 0u);
  close(fd);
}

// A TSO send: Linux takes it as one large frame or two, and reads every byte.
TEST_P(TapPortTest, WeSendInBulkOverIpv4) { WeSendInBulk(); }
TEST_P(TapPortTest, WeSendInBulkOverIpv6) {
  is_ipv6_ = true;
  WeSendInBulk();
}
void TapPortTest::WeSendInBulk() {
  TcpSide side;
  const int fd = Connect(&side);
  ASSERT_GE(fd, 0);
  devwire::Prng prng(2);
  for (size_t bytes : {1u, 1459u, 1460u, 1461u, 40'000u, 60'000u}) {
    Bytes payload(bytes);
    for (std::byte& b : payload) b = static_cast<std::byte>(prng.Next64());
    if (port_->offloads().segmentation) {
      Bytes frame = Tcp(side, 0x18, payload);
      Store16(&frame[is_ipv6_ ? 18 : 16], 0x7777);
      Send(frame, 1460);
    } else {
      Segmenter cut;
      const Bytes header = Tcp(side, 0x18, {});
      ASSERT_TRUE(cut.Start(header, static_cast<uint32_t>(bytes), 1460));
      for (uint32_t i = 0; i < cut.count(); ++i) {
        Bytes segment(cut.header_bytes());
        cut.WriteHeader(i, segment.data());
        const std::byte* from = payload.data() + cut.PayloadFrom(i);
        segment.insert(segment.end(), from, from + cut.PayloadBytes(i));
        FinishOwedChecksum(
            ParseFrame(segment, static_cast<uint32_t>(segment.size())),
            segment.data(), {segment, {}});
        Send(segment);
      }
    }
    side.seq += static_cast<uint32_t>(bytes);
    Bytes got;
    const Instant end = clock_.Now() + 10_s;
    while (got.size() < bytes && clock_.Now() < end) {
      Bytes part(bytes);
      const ssize_t n = read(fd, part.data(), part.size());
      if (n > 0) got.insert(got.end(), part.begin(), part.begin() + n);
      inbox_.frames.clear();
      port_->Progress(16, inbox_);
    }
    EXPECT_EQ(got, payload) << bytes;
  }
  EXPECT_EQ(LinuxTcpErrors(), "0 0");
  close(fd);
}

// More than an IP length can say goes as several frames; the window of Linux
// here takes them all.
TEST_P(TapPortTest, ASuperFrameBeyond64KilobytesIsSplit) {
  if (!GetParam()) {
    EXPECT_FALSE(port_->offloads().segmentation);  // Nothing larger is sent.
    return;
  }
  TcpSide side;
  const int fd = Connect(&side);
  ASSERT_GE(fd, 0);
  Bytes payload(70'000);
  for (size_t i = 0; i < payload.size(); ++i) payload[i] = std::byte(i * 7);
  Bytes frame = Tcp(side, 0x18, payload);
  Send(frame, 1000);
  Bytes got;
  const Instant end = clock_.Now() + 10_s;
  while (got.size() < 65'000 && clock_.Now() < end) {
    Bytes part(payload.size());
    const ssize_t n = read(fd, part.data(), part.size());
    if (n > 0) got.insert(got.end(), part.begin(), part.begin() + n);
    inbox_.frames.clear();
    port_->Progress(16, inbox_);
  }
  // What did not fit into the first window is Linux's to drop.
  ASSERT_GE(got.size(), 65'000u);
  EXPECT_EQ(memcmp(got.data(), payload.data(), got.size()), 0);
  EXPECT_EQ(port_->counters().refused.value(), 0u);
  close(fd);
}

TEST_P(TapPortTest, FramesToAnInterfaceThatIsDownAreLostAndCounted) {
  ASSERT_TRUE(Shell("ip link set t0 down"));
  Send(Bytes(60));
  EXPECT_EQ(port_->counters().refused.value(), 1u);
}

TEST_P(TapPortTest, TheInterfaceIsTaken) {
  absl::StatusOr<std::unique_ptr<TapPort>> second =
      TapPort::Open("t0", GetParam());
  EXPECT_EQ(second.status().code(), absl::StatusCode::kAlreadyExists);
  EXPECT_THAT(std::string(second.status().message()),
              HasSubstr("port=tap:t0: TUNSETIFF"));
}

TEST_P(TapPortTest, ANameTooLongIsRefused) {
  EXPECT_EQ(TapPort::Open(std::string(16, 'x'), GetParam()).status().code(),
            absl::StatusCode::kInvalidArgument);
  EXPECT_FALSE(TapPort::Open("", GetParam()).ok());
}

// Making an interface takes CAP_NET_ADMIN, which the child gives away.
TEST_P(TapPortTest, WithoutTheRightThereIsANextStep) {
  const pid_t child = fork();
  if (child == 0) {
    __user_cap_header_struct header = {_LINUX_CAPABILITY_VERSION_3, 0};
    __user_cap_data_struct none[_LINUX_CAPABILITY_U32S_3] = {};
    if (syscall(SYS_capset, &header, none) != 0) _exit(2);
    const absl::Status status = TapPort::Open("t1", GetParam()).status();
    const std::string text(status.message());
    _exit(status.code() == absl::StatusCode::kPermissionDenied &&
                  text.find("unshare -Urn") != std::string::npos
              ? 0
              : 1);
  }
  int status = 0;
  ASSERT_EQ(waitpid(child, &status, 0), child);
  EXPECT_EQ(WEXITSTATUS(status), 0);
}

}  // namespace
}  // namespace softnic
