// What the device does to frames: checksums, TSO, VLAN, loopback; and which
// frames go where.
#include <gtest/gtest.h>

#include <algorithm>
#include <cerrno>
#include <cstring>

#include "base/clock.h"
#include "softnic/cable_fixture.h"
#include "softnic/frame_checksum.h"
#include "softnic/packet.h"
#include "softnic/verbs_fixture.h"

namespace softnic {
namespace {

INSTANTIATE_TEST_SUITE_P(Modes, Cable,
                         testing::Values("inline", "thread", "process"),
                         ModeName);

constexpr unsigned kOk = IBV_WC_IP_CSUM_OK;

std::vector<std::byte> Join(std::vector<std::byte> head,
                            const std::vector<std::byte>& tail) {
  head.insert(head.end(), tail.begin(), tail.end());
  return head;
}

// Both checksums of a frame in one piece of memory.
ChecksumState Verify(const std::byte* frame, uint32_t bytes) {
  const Piece piece = {frame, bytes, kNoRegion, 0};
  return VerifyFrame(ParseFrame({frame, bytes}, bytes), frame,
                     {{}, {&piece, 1}});
}

// An Ethernet, IPv6 and TCP header.
std::vector<std::byte> MakeHeader6(const std::vector<uint8_t>& dst,
                                   const std::vector<uint8_t>& src,
                                   uint32_t payload_bytes) {
  std::vector<std::byte> h = MakeHeader(dst, src, true, payload_bytes);
  const std::vector<std::byte> tcp(h.begin() + 34, h.end());
  h.resize(14 + 40);
  std::fill(h.begin() + 14, h.end(), std::byte{0});
  Store16(h.data() + 12, 0x86dd);
  std::byte* ip = h.data() + 14;
  ip[0] = std::byte{0x60};
  Store16(ip + 4, static_cast<uint16_t>(20 + payload_bytes));
  ip[6] = std::byte{6};
  ip[7] = std::byte{64};
  Store32(ip + 8, 0xfd000000);
  Store32(ip + 24, 0xfd000000);
  ip[23] = std::byte{1};
  ip[39] = std::byte{2};
  return Join(h, tcp);
}

// A receiving queue pair with one slot of 16 KiB for each of `depth` receives.
struct Receiver {
  Receiver(Nic* nic_in, uint32_t depth, const Nic::QpOptions& options = {})
      : nic(nic_in),
        qp(nic->Qp(options)),
        memory(nic->Host(size_t{kSlot} * depth)) {
    nic->TakeAll(qp);
    for (uint32_t i = 0; i < depth; ++i) {
      EXPECT_EQ(nic->Recv(qp, i, {memory.Sge(size_t{kSlot} * i, kSlot)}), 0);
    }
  }
  static constexpr uint32_t kSlot = 16384;
  const std::byte* At(uint64_t wr_id) const {
    return memory.bytes.data() + kSlot * wr_id;
  }
  Nic* nic;
  ibv_qp* qp;
  HostBuffer memory;
};

// The flag comes for IPv4 TCP and UDP: by trust over the cable, or by summing.
TEST_P(Cable, ReportsGoodChecksums) {
  Plug("", "");
  ibv_qp* tx = a_->Qp();
  Receiver rx(b_.get(), 8);
  const std::vector<std::byte> data = Pattern(333);
  for (const bool is_tcp : {true, false}) {
    ASSERT_EQ(SendFrame(tx, is_tcp, data), 0);  // inserted by the device
    std::vector<std::byte> whole =
        Join(MakeHeader(b_->mac(), a_->mac(), is_tcp, 333), data);
    const ParsedFrame parsed = ParseFrame(whole, 375 + (is_tcp ? 12 : 0));
    WriteIpChecksum(parsed, whole.data());
    WriteL4Checksum(parsed, whole.data(), {whole, {}});
    ASSERT_EQ(SendBytes(tx, whole, {}, IBV_SEND_SIGNALED), 0);  // by us
    whole.back() ^= std::byte{1};
    ASSERT_EQ(SendBytes(tx, whole, {}, IBV_SEND_SIGNALED), 0);  // wrong
  }
  const std::vector<ibv_wc> got = b_->Await(6);
  ASSERT_EQ(got.size(), 6u);
  for (size_t i = 0; i < 6; ++i) {
    EXPECT_EQ(got[i].wc_flags, i % 3 == 2 ? 0 : kOk) << i;
  }
  EXPECT_EQ(b_->counters().rx_bad_checksum, 2u);
}

// verify=1 on either side: every byte is summed, and the fields are filled in.
TEST_P(Cable, VerifyFillsChecksumsIn) {
  Plug("", "verify=1");
  ibv_qp* tx = a_->Qp();
  Receiver rx(b_.get(), 2);
  ASSERT_EQ(SendFrame(tx, true, Pattern(999)), 0);
  ASSERT_EQ(b_->Await(1).size(), 1u);
  Configure("dev=a,verify=1;dev=b,verify=0");
  ASSERT_EQ(SendFrame(tx, false, Pattern(998)), 0);
  const std::vector<ibv_wc> got = b_->Await(1);
  ASSERT_EQ(got.size(), 1u);
  EXPECT_EQ(got[0].wc_flags, kOk);
  EXPECT_EQ(Verify(rx.At(0), 54 + 999), ChecksumState::kGood);
  EXPECT_EQ(Verify(rx.At(1), 42 + 998), ChecksumState::kGood);
}

// mlx5 reports nothing for IPv6; what the application must verify itself is
// there in full.
TEST_P(Cable, Mlx5SaysNothingOfIpv6) {
  Plug("");
  ibv_qp* tx = a_->Qp();
  Receiver rx(b_.get(), 2);
  ASSERT_EQ(SendBytes(tx, MakeHeader6(b_->mac(), a_->mac(), 500), Pattern(500)),
            0);
  const std::vector<ibv_wc> got = b_->Await(1);
  ASSERT_EQ(got.size(), 1u);
  EXPECT_EQ(got[0].wc_flags, 0u);
  EXPECT_EQ(Verify(rx.At(0), 74 + 500), ChecksumState::kGood);
}

TEST_P(Cable, FullReportsIpv6Too) {
  Plug("profile=full");
  ibv_qp* tx = a_->Qp();
  Receiver rx(b_.get(), 2);
  ASSERT_EQ(SendBytes(tx, MakeHeader6(b_->mac(), a_->mac(), 500), Pattern(500)),
            0);
  const std::vector<ibv_wc> got = b_->Await(1);
  ASSERT_EQ(got.size(), 1u);
  EXPECT_EQ(got[0].wc_flags, kOk);
}

// Never for fragments, nor where the capability is withheld.
TEST_P(Cable, SaysNothingOfFragments) {
  Plug("", "");
  ibv_qp* tx = a_->Qp();
  Receiver rx(b_.get(), 2);
  std::vector<std::byte> h = MakeHeader(b_->mac(), a_->mac(), false, 64);
  Store16(h.data() + 20, 0x2000);  // more fragments
  ASSERT_EQ(SendBytes(tx, h, Pattern(64)), 0);
  const std::vector<ibv_wc> got = b_->Await(1);
  ASSERT_EQ(got.size(), 1u);
  EXPECT_EQ(got[0].wc_flags, 0u);
}

TEST_P(Cable, WithoutRxChecksumNothingIsReported) {
  Plug("", "rx_csum=0");
  ibv_qp* tx = a_->Qp();
  Receiver rx(b_.get(), 2);
  ASSERT_EQ(SendFrame(tx, true, Pattern(100)), 0);
  const std::vector<ibv_wc> got = b_->Await(1);
  ASSERT_EQ(got.size(), 1u);
  EXPECT_EQ(got[0].wc_flags, 0u);
  EXPECT_EQ(Verify(rx.At(0), 154), ChecksumState::kGood);
}

// 20,000 bytes become segments of the MSS, each a receive of its own.
TEST_P(Cable, CutsTso) {
  Plug("mtu=1500", "mtu=1500,verify=1");
  ibv_qp* tx = a_->Qp({.max_tso_header = 128});
  Receiver rx(b_.get(), 16);
  const std::vector<std::byte> data = Pattern(20000);
  const DeviceBuffer out = a_->Device(data.size());
  out.Write(0, data.data(), data.size());
  std::vector<std::byte> header = MakeHeader(b_->mac(), a_->mac(), true, 0);
  header[47] |= std::byte{1};  // FIN, with PSH: on the last alone
  ibv_sge sges[2] = {out.Sge(0, 7000), out.Sge(7000, 13000)};
  ibv_send_wr wr = {};
  wr.wr_id = 9;
  wr.sg_list = sges;
  wr.num_sge = 2;
  wr.opcode = IBV_WR_TSO;
  wr.send_flags = IBV_SEND_SIGNALED | IBV_SEND_IP_CSUM;
  wr.tso.hdr = header.data();
  wr.tso.hdr_sz = static_cast<uint16_t>(header.size());
  wr.tso.mss = 1446;
  ibv_send_wr* bad = nullptr;
  ASSERT_EQ(ibv_post_send(tx, &wr, &bad), 0);
  std::fill(header.begin(), header.end(), std::byte{0});  // it was copied

  const std::vector<ibv_wc> got = b_->Await(14);
  ASSERT_EQ(got.size(), 14u);
  std::vector<std::byte> joined;
  for (const ibv_wc& wc : got) {
    const std::byte* f = rx.At(wc.wr_id);
    EXPECT_EQ(wc.wc_flags, kOk);
    EXPECT_EQ(Load32(f + 38), 1 + joined.size());
    EXPECT_EQ(Load16(f + 16), wc.byte_len - 14);
    const bool is_last = &wc == &got.back();
    EXPECT_EQ(f[47], is_last ? std::byte{0x19} : std::byte{0x10});
    EXPECT_EQ(wc.byte_len, is_last ? 54 + 20000 - 13 * 1446 : 1500u);
    joined.insert(joined.end(), f + 54, f + wc.byte_len);
  }
  EXPECT_EQ(joined, data);
  const std::vector<ibv_wc> sent = a_->Await(1);
  ASSERT_EQ(sent.size(), 1u);
  EXPECT_EQ(sent[0].opcode, IBV_WC_TSO);
  EXPECT_EQ(sent[0].wr_id, 9u);
  EXPECT_EQ(a_->counters().tx_frames, 14u);
  EXPECT_EQ(a_->counters().payload_gathered_dmabuf_bytes, 20000u);
}

TEST_P(Cable, RefusesUnsoundTso) {
  Plug("");
  ibv_qp* tx = a_->Qp({.max_tso_header = 64});
  std::vector<std::byte> header = MakeHeader(b_->mac(), a_->mac(), true, 0);
  header.resize(65);
  const HostBuffer from = a_->Host(1 << 19);
  ibv_sge sge = from.Sge(0, 3000);
  ibv_send_wr wr = {};
  wr.sg_list = &sge;
  wr.num_sge = 1;
  wr.opcode = IBV_WR_TSO;
  wr.send_flags = IBV_SEND_IP_CSUM;
  wr.tso.hdr = header.data();
  wr.tso.hdr_sz = 54;
  wr.tso.mss = 1000;
  ibv_send_wr* bad = nullptr;
  const auto post = [&](ibv_qp* qp) {
    bad = nullptr;
    const int error = ibv_post_send(qp, &wr, &bad);
    EXPECT_EQ(bad, error == 0 ? nullptr : &wr);
    return error;
  };
  EXPECT_EQ(post(a_->Qp()), EINVAL);  // made without a TSO header
  wr.tso.hdr_sz = 65;
  EXPECT_EQ(post(tx), EINVAL);
  wr.tso.hdr_sz = 13;
  EXPECT_EQ(post(tx), EINVAL);
  wr.tso.hdr_sz = 54;
  wr.tso.mss = 0;
  EXPECT_EQ(post(tx), EINVAL);
  wr.tso.mss = 1000;
  sge.length = (256 << 10) + 1;
  EXPECT_EQ(post(tx), EINVAL);
  sge.length = 3000;
  // Not the header of a TCP segment: the hardware finds out.
  header[23] = std::byte{17};
  EXPECT_EQ(post(tx), 0);
  const std::vector<ibv_wc> got = a_->Await(1);
  ASSERT_EQ(got.size(), 1u);
  EXPECT_EQ(got[0].status, IBV_WC_LOC_QP_OP_ERR);
}

// The outer 802.1Q tag goes when the queue pair was made so, and stays when it
// was not; a tagged frame may be four bytes longer.
TEST_P(Cable, StripsVlanWhereAsked) {
  Plug("");
  ibv_qp* tx = a_->Qp();
  std::vector<std::byte> frame =
      Join(MakeHeader(b_->mac(), a_->mac(), true, 1460), Pattern(1460));
  const std::byte tag[4] = {std::byte{0x81}, std::byte{0}, std::byte{0x20},
                            std::byte{5}};
  std::vector<std::byte> tagged = frame;
  tagged.insert(tagged.begin() + 12, tag, tag + 4);
  {
    Receiver rx(b_.get(), 1);
    ASSERT_EQ(SendBytes(tx, tagged), 0);
    const std::vector<ibv_wc> got = b_->Await(1);
    ASSERT_EQ(got.size(), 1u);
    EXPECT_EQ(got[0].byte_len, 1518u);
    EXPECT_EQ(got[0].wc_flags, kOk);
    EXPECT_EQ(memcmp(rx.At(0) + 12, tag, 4), 0);
  }
  b_ = nullptr;
  EXPECT_TRUE(Eventually([&] {
    a_->Poll();
    return a_->PortState() == IBV_PORT_DOWN;
  }));
  b_ = std::make_unique<Nic>("b");
  Receiver rx(b_.get(), 1, {.create_flags = IBV_QP_CREATE_CVLAN_STRIPPING});
  EXPECT_TRUE(Eventually([&] {
    a_->Poll();
    b_->Poll();
    return a_->PortState() == IBV_PORT_ACTIVE;
  }));
  ASSERT_EQ(SendBytes(tx, tagged), 0);
  const std::vector<ibv_wc> got = b_->Await(1);
  ASSERT_EQ(got.size(), 1u);
  EXPECT_EQ(got[0].byte_len, 1514u);
  EXPECT_EQ(got[0].wc_flags, kOk);
  EXPECT_EQ(Load16(rx.At(0) + 12), 0x0800);
  EXPECT_EQ(memcmp(rx.At(0) + 54, frame.data() + 54, 1460), 0);
}

// Frames to our own address come back, or go out and are lost.
TEST_P(Cable, LoopsFramesToItself) {
  Plug("", "loopback=0");
  for (Nic* nic : {a_.get(), b_.get()}) {
    Receiver rx(nic, 1);
    HostBuffer& out = host_.emplace_back(nic->Host(300));
    const std::vector<std::byte> frame =
        Join(MakeHeader(nic->mac(), nic->mac(), true, 246), Pattern(246));
    memcpy(out.bytes.data(), frame.data(), frame.size());
    ASSERT_EQ(nic->Send(rx.qp, 3, {out.Sge(0, 300)}), 0);
    std::vector<ibv_wc> got;
    const size_t expected = nic == a_.get() ? 2 : 1;
    EXPECT_TRUE(Eventually([&] {
      (nic == a_.get() ? b_ : a_)->Poll();
      for (const ibv_wc& wc : nic->Poll()) got.push_back(wc);
      return got.size() == expected;
    }));
    ASSERT_EQ(got.size(), expected);
    EXPECT_EQ(nic->counters().tx_looped, expected - 1);
    if (expected == 2) {
      EXPECT_EQ(got[0].opcode, IBV_WC_RECV);
      EXPECT_EQ(got[0].wc_flags, kOk);
      EXPECT_EQ(memcmp(rx.At(0) + 54, frame.data() + 54, 246), 0);
    }
  }
  EXPECT_EQ(a_->counters().rx_foreign_mac, 1u);
}

// ---- Flow rules.

struct Rule {
  ibv_flow_attr attr;
  std::byte specs[256];
};

// Builds rules from specs.
class RuleBuilder {
 public:
  explicit RuleBuilder(uint16_t priority) {
    rule_.attr.port = 1;
    rule_.attr.priority = priority;
  }
  template <typename Spec>
  RuleBuilder& Add(Spec spec, ibv_flow_spec_type type) {
    spec.type = type;
    spec.size = sizeof(spec);
    memcpy(rule_.specs + bytes_, &spec, sizeof(spec));
    bytes_ += sizeof(spec);
    ++rule_.attr.num_of_specs;
    rule_.attr.size = static_cast<uint16_t>(sizeof(ibv_flow_attr) + bytes_);
    return *this;
  }
  RuleBuilder& Ipv4(uint32_t src, uint32_t dst) {
    ibv_flow_spec_ipv4_ext s = {};
    s.val.src_ip = htobe32(src);
    s.val.dst_ip = htobe32(dst);
    s.mask.src_ip = src == 0 ? 0 : 0xffffffff;
    s.mask.dst_ip = dst == 0 ? 0 : 0xffffffff;
    return Add(s, IBV_FLOW_SPEC_IPV4_EXT);
  }
  RuleBuilder& Ports(ibv_flow_spec_type type, uint16_t dst, uint16_t mask,
                     uint16_t src = 0) {
    ibv_flow_spec_tcp_udp s = {};
    s.val.dst_port = htobe16(dst);
    s.mask.dst_port = htobe16(mask);
    s.val.src_port = htobe16(src);
    s.mask.src_port = src == 0 ? 0 : 0xffff;
    return Add(s, type);
  }
  RuleBuilder& Flags(uint32_t flags) {
    rule_.attr.flags = flags;
    return *this;
  }
  RuleBuilder& Type(ibv_flow_attr_type type) {
    rule_.attr.type = type;
    return *this;
  }
  RuleBuilder& Port(uint8_t port) {
    rule_.attr.port = port;
    return *this;
  }
  ibv_flow* Try(ibv_qp* qp) { return ibv_create_flow(qp, &rule_.attr); }

 private:
  Rule rule_ = {};
  size_t bytes_ = 0;
};

class Flow : public Cable {
 protected:
  // Four queue pairs of b, many receives each, no rules.
  void Start(const std::string& options = "") {
    Plug("", options);
    tx_ = a_->Qp();
    memory_ = std::make_unique<HostBuffer>(b_->Host(2048));
    for (ibv_qp*& qp : q_) {
      qp = b_->Qp();
      for (int i = 0; i < 60; ++i) {
        ASSERT_EQ(b_->Recv(qp, i, {memory_->Sge(0, 2048)}), 0);
      }
    }
  }
  // Which queue pairs get this frame, as a string of digits in order.
  std::string Whither(const std::vector<std::byte>& frame) {
    const softnic_counters before = b_->counters();
    EXPECT_EQ(SendBytes(tx_, frame), 0);
    std::string out;
    EXPECT_TRUE(Eventually([&] {
      for (const ibv_wc& wc : b_->Poll()) {
        for (int i = 0; i < 4; ++i) {
          if (wc.qp_num == q_[i]->qp_num) out += static_cast<char>('0' + i);
        }
      }
      a_->Poll();
      const softnic_counters now = b_->counters();
      const uint64_t seen = now.rx_delivered - before.rx_delivered;
      if (now.rx_no_rule + now.rx_foreign_mac >
          before.rx_no_rule + before.rx_foreign_mac) {
        out = "-";
        return true;
      }
      return seen > 0 && seen == out.size();
    }));
    std::sort(out.begin(), out.end());
    return out;
  }
  std::vector<std::byte> Frame(bool is_tcp) {
    return Join(MakeHeader(b_->mac(), a_->mac(), is_tcp, 64), Pattern(64));
  }
  ibv_flow* Must(RuleBuilder builder, int qp) {
    ibv_flow* flow = builder.Try(q_[qp]);
    EXPECT_NE(flow, nullptr) << strerror(errno);
    flows_.push_back(flow);
    return flow;
  }
  void Destroy(ibv_flow* flow) {
    EXPECT_EQ(ibv_destroy_flow(flow), 0);
    std::erase(flows_, flow);
  }
  void TearDown() override {
    for (ibv_flow* flow : flows_) EXPECT_EQ(ibv_destroy_flow(flow), 0);
    flows_.clear();
    Cable::TearDown();
  }

  ibv_qp* tx_ = nullptr;
  ibv_qp* q_[4] = {};
  std::unique_ptr<HostBuffer> memory_;
  std::vector<ibv_flow*> flows_;
};

INSTANTIATE_TEST_SUITE_P(Modes, Flow,
                         testing::Values("inline", "thread", "process"),
                         ModeName);

// MakeHeader's frames are 10.0.0.1:1000 to 10.0.0.2:2000.
TEST_P(Flow, NarrowRulesOfLowerNumberWin) {
  Start();
  EXPECT_EQ(Whither(Frame(true)), "-");
  Must(RuleBuilder(2).Ipv4(0, 0x0a000002), 0);
  EXPECT_EQ(Whither(Frame(true)), "0");
  EXPECT_EQ(Whither(Frame(false)), "0");
  Must(
      RuleBuilder(1).Ipv4(0, 0x0a000002).Ports(IBV_FLOW_SPEC_TCP, 2000, 0xffff),
      1);
  EXPECT_EQ(Whither(Frame(true)), "1");
  EXPECT_EQ(Whither(Frame(false)), "0");
  ibv_flow* narrow = Must(RuleBuilder(0)
                              .Ipv4(0x0a000001, 0x0a000002)
                              .Ports(IBV_FLOW_SPEC_TCP, 2000, 0xffff, 1000),
                          2);
  EXPECT_EQ(Whither(Frame(true)), "2");
  // A move back: removing the narrow rule uncovers the wider one.
  Destroy(narrow);
  EXPECT_EQ(Whither(Frame(true)), "1");
  EXPECT_EQ(b_->counters().rules, 2u);
  EXPECT_EQ(b_->counters().rx_no_rule, 1u);
}

TEST_P(Flow, PortBlocksAreMasked) {
  Start();
  // 2000 lies in [1984, 2047], and not in [1920, 1983].
  Must(RuleBuilder(1).Ports(IBV_FLOW_SPEC_UDP, 1920, 0xffc0), 0);
  EXPECT_EQ(Whither(Frame(false)), "-");
  Must(RuleBuilder(1).Ports(IBV_FLOW_SPEC_UDP, 1984, 0xffc0), 1);
  EXPECT_EQ(Whither(Frame(false)), "1");
  EXPECT_EQ(Whither(Frame(true)), "-");
  // A fragment has no ports.
  std::vector<std::byte> fragment = Frame(false);
  Store16(fragment.data() + 20, 0x2000);
  EXPECT_EQ(Whither(fragment), "-");
}

// As on mlx5: two rules of equal match and priority both get the frame.
TEST_P(Flow, EqualRulesBothDeliver) {
  Start();
  Must(RuleBuilder(1).Ipv4(0, 0x0a000002), 1);
  Must(RuleBuilder(1).Ipv4(0, 0x0a000002), 3);
  EXPECT_EQ(Whither(Frame(true)), "13");
  EXPECT_EQ(b_->counters().rx_delivered, 2u);
}

TEST_P(Flow, DontTrapLetsTheFrameGoOn) {
  Start();
  Must(RuleBuilder(1).Ipv4(0, 0x0a000002).Flags(IBV_FLOW_ATTR_FLAGS_DONT_TRAP),
       0);
  Must(RuleBuilder(1).Ipv4(0, 0x0a000002), 1);
  EXPECT_EQ(Whither(Frame(true)), "01");
}

TEST_P(Flow, EthernetVlanAndIpv6Specs) {
  Start();
  ibv_flow_spec_eth eth = {};
  eth.val.ether_type = htobe16(0x86dd);
  eth.mask.ether_type = 0xffff;
  Must(RuleBuilder(3).Add(eth, IBV_FLOW_SPEC_ETH), 0);
  const std::vector<std::byte> frame6 =
      Join(MakeHeader6(b_->mac(), a_->mac(), 64), Pattern(64));
  EXPECT_EQ(Whither(frame6), "0");
  EXPECT_EQ(Whither(Frame(true)), "-");
  ibv_flow_spec_ipv6 six = {};
  six.val.dst_ip[0] = 0xfd;
  six.val.dst_ip[15] = 2;
  memset(six.mask.dst_ip, 0xff, 16);
  Must(RuleBuilder(2).Add(six, IBV_FLOW_SPEC_IPV6), 1);
  EXPECT_EQ(Whither(frame6), "1");
  Must(RuleBuilder(1)
           .Add(six, IBV_FLOW_SPEC_IPV6)
           .Ports(IBV_FLOW_SPEC_TCP, 2000, 0xffff),
       2);
  EXPECT_EQ(Whither(frame6), "2");
  ibv_flow_spec_eth vlan = {};
  vlan.val.vlan_tag = htobe16(5);
  vlan.mask.vlan_tag = htobe16(0xfff);
  Must(RuleBuilder(0).Add(vlan, IBV_FLOW_SPEC_ETH), 3);
  std::vector<std::byte> tagged = frame6;
  const std::byte tag[4] = {std::byte{0x81}, std::byte{0}, std::byte{0x20},
                            std::byte{5}};
  tagged.insert(tagged.begin() + 12, tag, tag + 4);
  EXPECT_EQ(Whither(tagged), "3");
  EXPECT_EQ(Whither(frame6), "2");
}

// Unicast to others does not reach us, groups do; the default rules take what
// nobody else does, from any address.
TEST_P(Flow, AddressesAndDefaultRules) {
  Start();
  Must(RuleBuilder(5).Ipv4(0, 0x0a000002), 0);
  std::vector<std::byte> foreign = Frame(true);
  foreign[5] ^= std::byte{0x55};
  EXPECT_EQ(Whither(foreign), "-");
  EXPECT_EQ(b_->counters().rx_foreign_mac, 1u);
  std::vector<std::byte> broadcast = Frame(true);
  std::fill(broadcast.begin(), broadcast.begin() + 6, std::byte{0xff});
  EXPECT_EQ(Whither(broadcast), "0");
  std::vector<std::byte> arp = broadcast;
  Store16(arp.data() + 12, 0x0806);
  EXPECT_EQ(Whither(arp), "-");
  Must(RuleBuilder(0).Type(IBV_FLOW_ATTR_MC_DEFAULT), 1);
  EXPECT_EQ(Whither(arp), "1");
  Must(RuleBuilder(0).Type(IBV_FLOW_ATTR_ALL_DEFAULT), 2);
  EXPECT_EQ(Whither(foreign), "0");  // now it gets as far as the rules
  Store16(foreign.data() + 12, 0x88b5);
  EXPECT_EQ(Whither(foreign), "2");
}

TEST_P(Flow, RefusesAsMlx5Does) {
  Start("rules=3");
  const auto fails = [&](RuleBuilder builder) {
    errno = 0;
    EXPECT_EQ(builder.Try(q_[0]), nullptr);
    return errno;
  };
  EXPECT_EQ(fails(RuleBuilder(16).Ipv4(0, 1)), ENOMEM);  // no such priority
  EXPECT_EQ(fails(RuleBuilder(0).Ipv4(0, 1).Port(2)), EINVAL);
  EXPECT_EQ(fails(RuleBuilder(0).Ipv4(0, 1).Ipv4(0, 1)), EINVAL);
  EXPECT_EQ(fails(RuleBuilder(0).Ipv4(0, 1).Flags(IBV_FLOW_ATTR_FLAGS_EGRESS)),
            EOPNOTSUPP);
  EXPECT_EQ(fails(RuleBuilder(0).Type(IBV_FLOW_ATTR_SNIFFER)), EOPNOTSUPP);
  ibv_flow_spec_ipv4_ext ttl = {};
  ttl.mask.ttl = 0xff;
  EXPECT_EQ(fails(RuleBuilder(0).Add(ttl, IBV_FLOW_SPEC_IPV4_EXT)), EOPNOTSUPP);
  ibv_flow_spec_eth half = {};
  half.mask.ether_type = htobe16(0xff00);
  EXPECT_EQ(fails(RuleBuilder(0).Add(half, IBV_FLOW_SPEC_ETH)), EINVAL);
  ibv_flow_spec_eth arp = {};
  arp.val.ether_type = htobe16(0x0806);
  arp.mask.ether_type = 0xffff;
  EXPECT_EQ(fails(RuleBuilder(0).Add(arp, IBV_FLOW_SPEC_ETH).Ipv4(0, 1)),
            EINVAL);
  ibv_flow_spec_ipv4_ext udp = {};
  udp.val.proto = 17;
  udp.mask.proto = 0xff;
  EXPECT_EQ(fails(RuleBuilder(0)
                      .Add(udp, IBV_FLOW_SPEC_IPV4_EXT)
                      .Ports(IBV_FLOW_SPEC_TCP, 1, 0xffff)),
            EINVAL);
  ibv_flow_spec_gre gre = {};
  EXPECT_EQ(fails(RuleBuilder(0).Add(gre, IBV_FLOW_SPEC_GRE)), EOPNOTSUPP);

  // Room for three rules, whatever their priority.
  for (uint16_t i = 0; i < 3; ++i) Must(RuleBuilder(i).Ipv4(0, 1u + i), 0);
  EXPECT_EQ(fails(RuleBuilder(0).Ipv4(0, 9)), ENOMEM);
  // A queue pair with rules is busy.
  EXPECT_EQ(Verbs().destroy_qp(q_[0]), EBUSY);
  Destroy(flows_.back());
  Must(RuleBuilder(0).Ipv4(0, 9), 0);
}

// An insertion takes the firmware its time; frames go on meanwhile.
TEST_P(Flow, RulesTakeTheirTime) {
  Start("rule_latency_us=20000");
  const devwire::MonotonicClock clock;
  const devwire::Instant start = clock.Now();
  Must(RuleBuilder(0).Ipv4(0, 0x0a000002), 0);
  EXPECT_GE((clock.Now() - start).milliseconds(), 20);
  Configure("dev=b,rule_latency_us=0");
  EXPECT_EQ(Whither(Frame(true)), "0");
}

}  // namespace
}  // namespace softnic
