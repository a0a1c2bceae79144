// A whole device on a TAP, used through verbs, with Linux at the other end:
// checksums, segmentation and the split, both ways, inline and with the device
// in a process of its own, with and without offloads; and what tshark says of
// the capture.
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <netinet/in.h>
#include <poll.h>
#include <sys/socket.h>
#include <unistd.h>

#include <array>
#include <cstdlib>
#include <cstring>
#include <fstream>
#include <iterator>
#include <memory>
#include <string>
#include <tuple>
#include <vector>

#include "base/prng.h"
#include "softnic/linux_namespace.h"
#include "softnic/packet.h"
#include "softnic/verbs_fixture.h"

namespace softnic {
namespace {

using Bytes = std::vector<std::byte>;

constexpr uint32_t kOurIp = 0x0a090002;
constexpr uint32_t kLinuxIp = 0x0a090001;
constexpr uint32_t kSplit = 54;
constexpr uint32_t kReceives = 256;
constexpr uint32_t kSlotBytes = 2048;
const std::vector<uint8_t> kLinuxMac = {2, 0, 0, 0, 9, 1};

// A frame as it lies in memory: headers from the host, the rest from the
// device.
struct Arrived {
  Bytes bytes;
  ParsedFrame parsed;
  bool is_checksum_ok = false;

  const std::byte* l4() const { return &bytes[parsed.layout.l4_offset]; }
  Bytes payload() const {
    const size_t end = parsed.layout.l3_offset + parsed.ip_total_length;
    return Bytes(bytes.begin() + parsed.layout.payload_offset,
                 bytes.begin() + static_cast<ptrdiff_t>(end));
  }
};

class LinuxPeer : public testing::TestWithParam<std::tuple<bool, const char*>> {
 protected:
  // `faults` begins with a comma or is empty.
  void Plug(const std::string& faults) {
    ASSERT_TRUE(EnterNamespace()) << strerror(errno);
    const auto [vnet, mode] = GetParam();
    const std::string text = "dev=sn0,port=tap:t0,mac=02:00:00:00:09:02,vnet=" +
                             std::to_string(vnet) + ",mode=" + mode + faults;
    ASSERT_EQ(Verbs().configure(text.c_str()), 0) << Verbs().last_error();
    nic_ = std::make_unique<Nic>("sn0");
    ASSERT_TRUE(Shell("ip link set t0 address 02:00:00:00:09:01"));
    ASSERT_TRUE(Shell("ip link set t0 mtu 1500 up"));
    ASSERT_TRUE(Shell("ip addr add 10.9.0.1/24 dev t0"));
    ASSERT_TRUE(
        Shell("ip neigh replace 10.9.0.2 lladdr 02:00:00:00:09:02 dev t0"));
    qp_ = nic_->Qp({.depth = 2 * kReceives, .max_tso_header = 128});
    nic_->TakeAll(qp_);
    headers_ = nic_->Host(kReceives * kSplit);
    slots_ = nic_->Device(kReceives * kSlotBytes);
    header_ = nic_->Host(128);
    payload_ = nic_->Device(1 << 20);
    for (uint32_t i = 0; i < kReceives; ++i) Post(i);
  }
  void TearDown() override {
    nic_ = nullptr;
    Verbs().configure(nullptr);
  }

  void Post(uint64_t i) {
    ASSERT_EQ(nic_->Recv(qp_, i,
                         {headers_.Sge(i * kSplit, kSplit),
                          slots_.Sge(i * kSlotBytes, kSlotBytes)}),
              0);
  }

  // Polls once; takes in what arrived and counts what was sent.
  void Poll() {
    for (const ibv_wc& wc : nic_->Poll()) {
      ASSERT_EQ(wc.status, IBV_WC_SUCCESS);
      if (wc.opcode != IBV_WC_RECV) {
        ++sends_done_;
        continue;
      }
      ASSERT_LE(wc.byte_len, 1514u);
      Arrived a;
      const auto* header = &headers_.bytes[wc.wr_id * kSplit];
      a.bytes.assign(header, header + std::min(wc.byte_len, kSplit));
      if (wc.byte_len > kSplit) {
        const Bytes rest =
            slots_.Read(wc.wr_id * kSlotBytes, wc.byte_len - kSplit);
        a.bytes.insert(a.bytes.end(), rest.begin(), rest.end());
      }
      a.parsed = ParseFrame(a.bytes, wc.byte_len);
      a.is_checksum_ok = (wc.wc_flags & IBV_WC_IP_CSUM_OK) != 0;
      Post(wc.wr_id);
      if (a.parsed.layout.l4_offset == 0) continue;
      if (Load16(a.l4() + 2) == our_port_) arrived_.push_back(a);
    }
  }
  // The next frame to our port.
  bool Next(Arrived* out) {
    if (!Eventually([this] {
          Poll();
          return !arrived_.empty() || HasFatalFailure();
        }) ||
        arrived_.empty()) {
      return false;
    }
    *out = arrived_.front();
    arrived_.erase(arrived_.begin());
    return true;
  }

  Bytes Header(uint8_t protocol, uint32_t payload_bytes) const {
    Bytes h = MakeHeader(kLinuxMac, nic_->mac(), protocol == IPPROTO_TCP,
                         payload_bytes);
    Store32(&h[26], kOurIp);
    Store32(&h[30], kLinuxIp);
    Store16(&h[34], our_port_);
    Store16(&h[36], linux_port_);
    return h;
  }
  Bytes TcpHeader(uint8_t flags, uint32_t payload_bytes) const {
    Bytes h = Header(IPPROTO_TCP, payload_bytes);
    Store32(&h[38], seq_);
    Store32(&h[42], ack_);
    h[47] = static_cast<std::byte>(flags);
    return h;
  }

  // Header from the host, payload from the device; mss > 0: TSO. Waits until
  // the memory is ours again.
  void Send(const Bytes& header, const Bytes& payload, uint16_t mss = 0) {
    memcpy(header_.bytes.data(), header.data(), header.size());
    const auto header_bytes = static_cast<uint32_t>(header.size());
    const auto payload_bytes = static_cast<uint32_t>(payload.size());
    if (!payload.empty()) payload_.Write(0, payload.data(), payload.size());
    std::array<ibv_sge, 2> sges = {header_.Sge(0, header_bytes),
                                   payload_.Sge(0, payload_bytes)};
    ibv_send_wr wr = {};
    wr.sg_list = sges.data();
    wr.num_sge = payload.empty() ? 1 : 2;
    wr.opcode = IBV_WR_SEND;
    wr.send_flags = IBV_SEND_SIGNALED | IBV_SEND_IP_CSUM;
    if (mss > 0) {
      wr.opcode = IBV_WR_TSO;
      wr.sg_list = &sges[1];
      wr.num_sge = 1;
      wr.tso.hdr = header_.bytes.data();
      wr.tso.hdr_sz = static_cast<uint16_t>(header_bytes);
      wr.tso.mss = mss;
    }
    ibv_send_wr* bad = nullptr;
    ASSERT_EQ(ibv_post_send(qp_, &wr, &bad), 0);
    const int done = sends_done_;
    ASSERT_TRUE(Eventually([&] {
      Poll();
      return sends_done_ > done || HasFatalFailure();
    }));
  }
  void SendTcp(uint8_t flags) { Send(TcpHeader(flags, 0), {}); }

  // A Linux socket that has accepted a connection of ours.
  int Connect() {
    const int listener = socket(AF_INET, SOCK_STREAM, 0);
    sockaddr_in any = {};
    any.sin_family = AF_INET;
    socklen_t size = sizeof(any);
    EXPECT_EQ(bind(listener, reinterpret_cast<sockaddr*>(&any), size), 0);
    EXPECT_EQ(listen(listener, 1), 0);
    getsockname(listener, reinterpret_cast<sockaddr*>(&any), &size);
    linux_port_ = ntohs(any.sin_port);
    SendTcp(0x02);
    Arrived syn_ack;
    EXPECT_TRUE(Next(&syn_ack)) << "no SYN-ACK";
    if (syn_ack.bytes.empty()) return -1;
    ++seq_;
    ack_ = Load32(syn_ack.l4() + 4) + 1;
    SendTcp(0x10);
    pollfd wait = {listener, POLLIN, 0};
    EXPECT_EQ(poll(&wait, 1, 10'000), 1) << "Linux did not take our ACK";
    const int fd = accept4(listener, nullptr, nullptr, SOCK_NONBLOCK);
    close(listener);
    return fd;
  }

  void LinuxSends(int fd, size_t bytes);
  void WeSend(int fd, size_t bytes, uint16_t mss);

  static inline uint16_t next_port_ = 4000;
  const uint16_t our_port_ = next_port_++;
  uint16_t linux_port_ = 0;
  uint32_t seq_ = 1000;
  uint32_t ack_ = 0;
  devwire::Prng prng_{1};
  std::unique_ptr<Nic> nic_;
  ibv_qp* qp_ = nullptr;
  HostBuffer headers_, header_;
  DeviceBuffer slots_, payload_;
  std::vector<Arrived> arrived_;
  int sends_done_ = 0;
};

std::string ModeName(
    const testing::TestParamInfo<std::tuple<bool, const char*>>& info) {
  return std::string(std::get<0>(info.param) ? "vnet_" : "plain_") +
         std::get<1>(info.param);
}
INSTANTIATE_TEST_SUITE_P(Modes, LinuxPeer,
                         testing::Combine(testing::Bool(),
                                          testing::Values("inline", "thread",
                                                          "process")),
                         ModeName);

TEST_P(LinuxPeer, DatagramsBothWays) {
  Plug("");
  const int fd = socket(AF_INET, SOCK_DGRAM, 0);
  sockaddr_in peer = {};
  peer.sin_family = AF_INET;
  peer.sin_port = htons(our_port_);
  peer.sin_addr.s_addr = htonl(kOurIp);
  ASSERT_EQ(connect(fd, reinterpret_cast<sockaddr*>(&peer), sizeof(peer)), 0);
  for (size_t bytes : {1u, 11u, 12u, 13u, 18u, 1471u, 1472u}) {
    Bytes data(bytes);
    for (std::byte& b : data) b = static_cast<std::byte>(prng_.Next64());
    ASSERT_EQ(send(fd, data.data(), bytes, 0), static_cast<ssize_t>(bytes));
    Arrived got;
    ASSERT_TRUE(Next(&got)) << bytes;
    EXPECT_EQ(got.payload(), data);
    EXPECT_TRUE(got.is_checksum_ok);
    EXPECT_GE(got.bytes.size(), kMinFrameBytes);

    linux_port_ = Load16(got.l4());
    Send(Header(IPPROTO_UDP, static_cast<uint32_t>(bytes)), data);
    pollfd wait = {fd, POLLIN, 0};
    ASSERT_EQ(poll(&wait, 1, 10'000), 1) << "Linux dropped it";
    Bytes back(2000);
    const ssize_t n = recv(fd, back.data(), back.size(), 0);
    ASSERT_EQ(n, static_cast<ssize_t>(bytes));
    back.resize(bytes);
    EXPECT_EQ(back, data);
  }
  close(fd);
}

void LinuxPeer::LinuxSends(int fd, size_t bytes) {
  Bytes data(bytes);
  for (std::byte& b : data) b = static_cast<std::byte>(prng_.Next64());
  size_t written = 0;
  Bytes got;
  while (got.size() < bytes) {
    const ssize_t n = write(fd, data.data() + written, bytes - written);
    if (n > 0) written += static_cast<size_t>(n);
    Arrived segment;
    ASSERT_TRUE(Next(&segment)) << "after " << got.size() << " bytes";
    ASSERT_TRUE(segment.is_checksum_ok);
    if (Load32(segment.l4() + 4) != ack_) continue;  // sent again
    const Bytes payload = segment.payload();
    got.insert(got.end(), payload.begin(), payload.end());
    ack_ += static_cast<uint32_t>(payload.size());
    SendTcp(0x10);
  }
  EXPECT_EQ(got, data);
}

void LinuxPeer::WeSend(int fd, size_t bytes, uint16_t mss) {
  Bytes data(bytes);
  for (std::byte& b : data) b = static_cast<std::byte>(prng_.Next64());
  // A template's length field means nothing.
  Bytes header = TcpHeader(0x18, 0);
  if (mss == 0) header = TcpHeader(0x18, static_cast<uint32_t>(bytes));
  Send(header, data, mss);
  seq_ += static_cast<uint32_t>(bytes);
  Bytes got;
  EXPECT_TRUE(Eventually([&] {
    Bytes part(bytes);
    const ssize_t n = read(fd, part.data(), bytes);
    if (n > 0) got.insert(got.end(), part.begin(), part.begin() + n);
    Poll();
    return got.size() >= bytes;
  })) << got.size()
      << " of " << bytes;
  EXPECT_EQ(got, data);
}

TEST_P(LinuxPeer, StreamsBothWays) {
  Plug("");
  const int fd = Connect();
  ASSERT_GE(fd, 0);
  LinuxSends(fd, 200'000);
  WeSend(fd, 1, 0);
  WeSend(fd, 1460, 0);
  WeSend(fd, 1, 1460);
  WeSend(fd, 1461, 1460);
  WeSend(fd, 60'000, 1460);
  WeSend(fd, 60'000, 536);
  EXPECT_EQ(LinuxTcpErrors(), "0 0");
  const softnic_counters c = nic_->counters();
  EXPECT_EQ(c.rx_bad_checksum, 0u);
  EXPECT_EQ(c.rx_too_long, 0u);
  EXPECT_EQ(c.payload_landed_host_bytes, 0u);
  EXPECT_EQ(c.payload_gathered_dmabuf_bytes, 122'923u);
  close(fd);
}

// A frame of Linux's that is longer than the device's MTU reaches no queue.
TEST_P(LinuxPeer, FramesLongerThanOurMtuAreDroppedAndCounted) {
  Plug(",mtu=1000");
  const int fd = socket(AF_INET, SOCK_DGRAM, 0);
  sockaddr_in peer = {};
  peer.sin_family = AF_INET;
  peer.sin_port = htons(our_port_);
  peer.sin_addr.s_addr = htonl(kOurIp);
  const Bytes data(1472);
  for (size_t bytes : {973u, 1472u, 972u}) {  // 28 bytes of IP and UDP
    ASSERT_EQ(sendto(fd, data.data(), bytes, 0,
                     reinterpret_cast<sockaddr*>(&peer), sizeof(peer)),
              static_cast<ssize_t>(bytes));
  }
  Arrived got;
  ASSERT_TRUE(Next(&got));
  EXPECT_EQ(got.payload().size(), 972u);
  EXPECT_EQ(nic_->counters().rx_too_long, 2u);
  close(fd);
}

// Runs tshark over the capture with all checksums checked; the packets for
// which `filter` holds, a line each. What goes over `port` is data, and not to
// be taken for some application's.
std::string Tshark(const std::string& file, uint16_t port,
                   const std::string& filter) {
  const std::string number = std::to_string(port);
  const std::string command =
      "tshark -r " + file +
      " -o tcp.check_checksum:TRUE -o ip.check_checksum:TRUE"
      " -o udp.check_checksum:TRUE -d tcp.port==" +
      number + ",data -d udp.port==" + number + ",data -Y '" + filter +
      "' 2>/dev/null";
  FILE* pipe = popen(command.c_str(), "r");
  std::string out;
  char line[512];
  while (fgets(line, sizeof(line), pipe) != nullptr) out += line;
  EXPECT_EQ(pclose(pipe), 0) << command;
  return out;
}

constexpr char kUnsound[] =
    "tcp.checksum.status == \"Bad\" or ip.checksum.status == \"Bad\" or "
    "_ws.malformed or _ws.expert.severity == error";

using LinuxPeerCapture = LinuxPeer;
INSTANTIATE_TEST_SUITE_P(Modes, LinuxPeerCapture,
                         testing::Values(std::make_tuple(true, "inline"),
                                         std::make_tuple(false, "process")),
                         ModeName);

// The capture of a clean run is clean, with every frame of both directions in
// it; one changed byte shows.
TEST_P(LinuxPeerCapture, IsSound) {
  if (!Shell("command -v tshark >/dev/null")) {
    GTEST_SKIP() << "tshark is not installed";
  }
  const char* dir = getenv("TEST_TMPDIR");
  const std::string file =
      std::string(dir == nullptr ? "/tmp" : dir) + "/linux_peer.pcapng";
  Plug(",pcap=" + file);
  const int fd = Connect();
  ASSERT_GE(fd, 0);
  LinuxSends(fd, 100'000);
  WeSend(fd, 60'000, 1460);
  close(fd);
  nic_ = nullptr;  // flushes
  EXPECT_EQ(Tshark(file, our_port_, kUnsound), "");
  const std::string segments =
      Tshark(file, our_port_,
             "tcp.len == 1460 and tcp.srcport == " + std::to_string(our_port_));
  EXPECT_EQ(std::count(segments.begin(), segments.end(), '\n'), 60'000 / 1460);

  // A byte that is changed on the wire, anywhere: now and then where UDP's
  // checksum shows it.
  Plug(",corrupt=1,fault_side=rx,pcap=" + file);
  const int udp = socket(AF_INET, SOCK_DGRAM, 0);
  sockaddr_in peer = {};
  peer.sin_family = AF_INET;
  peer.sin_port = htons(our_port_);
  peer.sin_addr.s_addr = htonl(kOurIp);
  const Bytes data(1000);
  ASSERT_TRUE(Eventually([&] {
    EXPECT_EQ(sendto(udp, data.data(), data.size(), 0,
                     reinterpret_cast<sockaddr*>(&peer), sizeof(peer)),
              1000);
    Poll();
    return nic_->counters().rx_bad_checksum > 0;
  }));
  close(udp);
  nic_ = nullptr;
  const std::string bad =
      Tshark(file, our_port_, "udp.checksum.status == \"Bad\"");
  EXPECT_NE(bad, "");
}

}  // namespace
}  // namespace softnic
