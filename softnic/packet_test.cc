// Checksums and segmentation, against sums by the definition and against
// frames that Linux made.
#include "softnic/packet.h"

#include <netinet/in.h>

#include <algorithm>
#include <cstdio>
#include <cstring>
#include <string>
#include <vector>

#include "base/prng.h"
#include "gtest/gtest.h"
#include "softnic/checksum.h"
#include "softnic/frame_checksum.h"
#include "softnic/golden_frames.h"
#include "softnic/segment.h"

namespace softnic {
namespace {

using devwire::Prng;
using Bytes = std::vector<std::byte>;

// RFC 1071 1, word by word as numbers; in memory order.
uint16_t SumByDefinition(const std::byte* p, size_t bytes) {
  uint64_t sum = 0;
  for (size_t i = 0; i < bytes; ++i) {
    sum += static_cast<uint64_t>(p[i]) << (i % 2 == 0 ? 8 : 0);
  }
  while (sum >> 16 != 0) sum = (sum & 0xffff) + (sum >> 16);
  return __builtin_bswap16(static_cast<uint16_t>(sum));
}

// 0 and 0xffff are both zero in one's complement.
bool SameSum(uint16_t a, uint16_t b) { return a % 0xffff == b % 0xffff; }

Bytes RandomBytes(Prng* prng, size_t bytes) {
  Bytes out(bytes);
  for (std::byte& b : out) b = static_cast<std::byte>(prng->Next64());
  return out;
}

TEST(Checksum, AnyLengthAndAlignment) {
  Prng prng(testing::UnitTest::GetInstance()->random_seed());
  SCOPED_TRACE("seed " + std::to_string(prng.seed()));
  const Bytes data = RandomBytes(&prng, 700);
  for (size_t start = 0; start < 9; ++start) {
    for (size_t bytes = 0; bytes + start < 600; ++bytes) {
      ASSERT_TRUE(SameSum(SumBytes(data.data() + start, bytes),
                          SumByDefinition(data.data() + start, bytes)))
          << start << " " << bytes;
    }
  }
}

TEST(Checksum, AllOnesOverflowNothing) {
  const Bytes ones(100'001, std::byte{0xff});
  EXPECT_TRUE(SameSum(SumBytes(ones.data(), ones.size()),
                      SumByDefinition(ones.data(), ones.size())));
}

TEST(Checksum, CopyIsExactAndSumTheSame) {
  Prng prng(5);
  for (size_t bytes :
       {0u, 1u, 7u, 8u, 63u, 64u, 127u, 128u, 129u, 1448u, 8948u, 8949u}) {
    const Bytes from = RandomBytes(&prng, bytes + 1);
    Bytes to(bytes + 9, std::byte{0xa5});
    EXPECT_EQ(CopyAndSum(to.data() + 3, from.data() + 1, bytes),
              SumBytes(from.data() + 1, bytes));
    EXPECT_EQ(memcmp(to.data() + 3, from.data() + 1, bytes), 0);
    EXPECT_EQ(to[2], std::byte{0xa5});
    EXPECT_EQ(to[3 + bytes], std::byte{0xa5});
  }
}

TEST(Checksum, PiecesOfAnyLengthSumToTheWhole) {
  Prng prng(testing::UnitTest::GetInstance()->random_seed());
  SCOPED_TRACE("seed " + std::to_string(prng.seed()));
  const Bytes data = RandomBytes(&prng, 2000);
  for (int round = 0; round < 1000; ++round) {
    InternetSum sum;
    std::vector<Piece> pieces;
    size_t at = 0;
    while (at < data.size()) {
      const size_t n = std::min<size_t>(1 + prng.Below(300), data.size() - at);
      sum.Add(data.data() + at, n);
      pieces.push_back({data.data() + at, static_cast<uint32_t>(n)});
      at += n;
    }
    EXPECT_TRUE(SameSum(sum.Folded(), SumBytes(data.data(), data.size())));
    const size_t from = prng.Below(data.size());
    const size_t to = from + prng.Below(data.size() - from + 1);
    const FrameBytes bytes = {{}, pieces};
    EXPECT_TRUE(SameSum(bytes.Sum(from, to).Folded(),
                        SumBytes(data.data() + from, to - from)));
    Bytes copy(to - from);
    bytes.Copy(from, to, copy.data());
    EXPECT_TRUE(std::equal(copy.begin(), copy.end(), data.begin() + from));
  }
}

TEST(Checksum, UpdateIsTheSameAsSummingAgain) {
  Prng prng(6);
  Bytes data = RandomBytes(&prng, 40);
  for (int round = 0; round < 1000; ++round) {
    const auto before = static_cast<uint16_t>(~SumBytes(data.data(), 40));
    const size_t at = 2 * prng.Below(20);
    uint16_t old_word = 0;
    memcpy(&old_word, data.data() + at, 2);
    const auto new_word = static_cast<uint16_t>(prng.Next64());
    memcpy(data.data() + at, &new_word, 2);
    const auto after = static_cast<uint16_t>(~SumBytes(data.data(), 40));
    EXPECT_TRUE(SameSum(UpdateChecksum(before, old_word, new_word), after));
  }
}

struct Parsed {
  Bytes bytes;
  ParsedFrame frame;
  Piece piece;
  FrameBytes all() const { return {{}, {&piece, 1}}; }
};

Parsed Parse(const GoldenFrame& golden) {
  Parsed p;
  const auto* data = reinterpret_cast<const std::byte*>(golden.bytes.data());
  p.bytes.assign(data, data + golden.bytes.size());
  const auto length = static_cast<uint32_t>(p.bytes.size());
  p.frame = ParseFrame(p.bytes, length);
  p.piece = {p.bytes.data(), length};
  return p;
}

// What Linux sent is right, and writing the checksums again changes nothing.
TEST(GoldenFrames, LinuxChecksumsVerifyAndAreReproduced) {
  ASSERT_GE(GoldenFrames().size(), 10u);
  for (const GoldenFrame& golden : GoldenFrames()) {
    SCOPED_TRACE(golden.name);
    Parsed p = Parse(golden);
    EXPECT_EQ(p.frame.layout.ip_version, golden.ip_version);
    EXPECT_EQ(p.frame.layout.protocol, golden.l4_protocol);
    EXPECT_EQ(p.frame.layout.payload_offset, golden.payload_offset);
    EXPECT_EQ(p.frame.is_fragment, golden.is_fragment);
    const std::byte* head = p.bytes.data();
    EXPECT_EQ(VerifyIpHeader(p.frame, head), golden.ip_version == 4
                                                 ? ChecksumState::kGood
                                                 : ChecksumState::kNone);
    EXPECT_EQ(VerifyL4(p.frame, head, p.all()), golden.l4_protocol == 0
                                                    ? ChecksumState::kNone
                                                    : ChecksumState::kGood);
    Bytes copy = p.bytes;
    if (golden.ip_version == 4) {
      memset(copy.data() + p.frame.layout.l3_offset + 10, 0x5a, 2);
    }
    if (golden.l4_protocol != 0) {
      memset(copy.data() + L4ChecksumOffset(p.frame.layout), 0x5a, 2);
    }
    WriteIpChecksum(p.frame, copy.data());
    WriteL4Checksum(p.frame, copy.data(), p.all());
    EXPECT_EQ(copy, p.bytes);
  }
}

TEST(GoldenFrames, EveryFlippedBitOfTcpOrUdpShows) {
  for (const GoldenFrame& golden : GoldenFrames()) {
    if (golden.l4_protocol == 0) continue;
    SCOPED_TRACE(golden.name);
    Parsed p = Parse(golden);
    const size_t end = p.frame.layout.l3_offset + p.frame.ip_total_length;
    for (size_t at = p.frame.layout.l4_offset; at < end; ++at) {
      p.bytes[at] ^= std::byte{0x10};
      EXPECT_EQ(VerifyL4(p.frame, p.bytes.data(), p.all()),
                ChecksumState::kBad);
      p.bytes[at] ^= std::byte{0x10};
    }
  }
}

TEST(FrameChecksum, UdpWithoutOne) {
  for (const GoldenFrame& golden : GoldenFrames()) {
    if (golden.l4_protocol != IPPROTO_UDP) continue;
    Parsed p = Parse(golden);
    Store16(p.bytes.data() + L4ChecksumOffset(p.frame.layout), 0);
    EXPECT_EQ(
        VerifyL4(p.frame, p.bytes.data(), p.all()),
        golden.ip_version == 4 ? ChecksumState::kGood : ChecksumState::kBad);
  }
}

TEST(FrameChecksum, UdpLengthBeyondIpIsBad) {
  for (const GoldenFrame& golden : GoldenFrames()) {
    if (golden.l4_protocol != IPPROTO_UDP) continue;
    Parsed p = Parse(golden);
    std::byte* udp = p.bytes.data() + p.frame.layout.l4_offset;
    Store16(udp + 4, static_cast<uint16_t>(Load16(udp + 4) + 1));
    EXPECT_EQ(VerifyL4(p.frame, p.bytes.data(), p.all()), ChecksumState::kBad);
    const Bytes before = p.bytes;
    WriteL4Checksum(p.frame, p.bytes.data(), p.all());
    EXPECT_EQ(p.bytes, before);
  }
}

// A UDP checksum that comes out as zero is sent as all ones. RFC 768.
TEST(FrameChecksum, UdpZeroIsSentAsOnes) {
  for (const GoldenFrame& golden : GoldenFrames()) {
    if (golden.l4_protocol != IPPROTO_UDP) continue;
    Parsed p = Parse(golden);
    const size_t field = L4ChecksumOffset(p.frame.layout);
    const size_t payload = p.frame.layout.payload_offset;
    // The present checksum as a word of payload makes the sum all ones.
    uint16_t old_word = 0;
    uint16_t checksum = 0;
    memcpy(&checksum, p.bytes.data() + field, 2);
    memcpy(&old_word, p.bytes.data() + payload, 2);
    uint32_t word = checksum + old_word;
    word = (word & 0xffff) + (word >> 16);
    memcpy(p.bytes.data() + payload, &word, 2);
    WriteL4Checksum(p.frame, p.bytes.data(), p.all());
    EXPECT_EQ(Load16(p.bytes.data() + field), 0xffff);
    EXPECT_EQ(VerifyL4(p.frame, p.bytes.data(), p.all()), ChecksumState::kGood);
  }
}

// Ethernet, optional tag, IP, TCP with 12 bytes of options.
Bytes TcpHeader(int version, bool has_vlan, uint8_t flags) {
  Bytes h(12, std::byte{0x02});
  auto put16 = [&h](uint16_t v) {
    h.resize(h.size() + 2);
    Store16(h.data() + h.size() - 2, v);
  };
  auto put = [&h](std::initializer_list<int> bytes) {
    for (int b : bytes) h.push_back(static_cast<std::byte>(b));
  };
  if (has_vlan) {
    put16(0x8100);
    put16(5);
  }
  if (version == 4) {
    put16(0x0800);
    // Length and checksum hold nonsense; the identification is 0xfffe.
    put({0x45, 0x02, 0x77, 0x77, 0xff, 0xfe, 0x40, 0, 64, 6, 0x99, 0x99});
    put({10, 0, 0, 1, 10, 0, 0, 2});
  } else {
    put16(0x86dd);
    put({0x60, 0, 0, 0, 0x77, 0x77, 6, 64});
    for (int i = 0; i < 32; ++i) put({i});
  }
  put({0x12, 0x34, 0x56, 0x78});              // ports
  put({0xff, 0xff, 0xff, 0x00, 1, 2, 3, 4});  // sequence number, near the end
  put({0x80, flags, 0x10, 0, 0xee, 0xee, 0, 7});
  put({1, 1, 8, 10, 1, 2, 3, 4, 5, 6, 7, 8});
  return h;
}

TEST(Segment, FieldsOfEachSegment) {
  constexpr uint8_t kAll = 0x80 | 0x40 | 0x10 | 0x08 | 0x01;
  for (int version : {4, 6}) {
    for (bool has_vlan : {false, true}) {
      SCOPED_TRACE(version * 10 + (has_vlan ? 1 : 0));
      Prng prng(9);
      const Bytes header = TcpHeader(version, has_vlan, kAll);
      const Bytes payload = RandomBytes(&prng, 2 * 1001 + 300);
      Segmenter cut;
      ASSERT_TRUE(
          cut.Start(header, static_cast<uint32_t>(payload.size()), 1001));
      ASSERT_EQ(cut.count(), 3u);
      Bytes together;
      for (uint32_t i = 0; i < 3; ++i) {
        Bytes wire(cut.header_bytes());
        cut.WriteHeader(i, wire.data());
        const std::byte* text = payload.data() + cut.PayloadFrom(i);
        wire.insert(wire.end(), text, text + cut.PayloadBytes(i));
        const ParsedFrame f =
            ParseFrame(wire, static_cast<uint32_t>(wire.size()));
        ASSERT_EQ(f.layout.payload_offset, header.size());
        EXPECT_EQ(f.layout.l3_offset + f.ip_total_length, wire.size());
        const Piece piece = {wire.data(), static_cast<uint32_t>(wire.size())};
        const FrameBytes bytes = {{}, {&piece, 1}};
        if (version == 4) {
          EXPECT_EQ(VerifyIpHeader(f, wire.data()), ChecksumState::kGood);
          EXPECT_EQ(Load16(wire.data() + f.layout.l3_offset + 4),
                    (0xfffe + i) & 0xffff);
        }
        EXPECT_EQ(VerifyL4(f, wire.data(), bytes), ChecksumState::kBad);
        FinishOwedChecksum(f, wire.data(), bytes);
        EXPECT_EQ(VerifyL4(f, wire.data(), bytes), ChecksumState::kGood);
        const std::byte* tcp = wire.data() + f.layout.l4_offset;
        EXPECT_EQ(Load32(tcp + 4), 0xffffff00u + 1001 * i);
        const uint8_t flags[] = {0x80 | 0x40 | 0x10, 0x40 | 0x10,
                                 0x40 | 0x10 | 0x08 | 0x01};
        EXPECT_EQ(static_cast<uint8_t>(tcp[13]), flags[i]);
        together.insert(together.end(), wire.begin() + cut.header_bytes(),
                        wire.end());
      }
      EXPECT_EQ(together, payload);
    }
  }
}

TEST(Segment, CountsAtTheBoundaries) {
  const Bytes header = TcpHeader(4, false, 0x10);
  Segmenter cut;
  const struct {
    uint32_t payload;
    uint16_t mss;
    uint32_t count;
  } kRows[] = {{0, 1448, 1},     {1, 1448, 1},    {1448, 1448, 1},
               {1449, 1448, 2},  {2896, 1448, 2}, {262144, 1, 262144},
               {65536, 65535, 2}};
  for (const auto& row : kRows) {
    ASSERT_TRUE(cut.Start(header, row.payload, row.mss));
    EXPECT_EQ(cut.count(), row.count);
    uint64_t sum = 0;
    for (uint32_t i = 0; i < cut.count(); ++i) sum += cut.PayloadBytes(i);
    EXPECT_EQ(sum, row.payload);
  }
}

TEST(Segment, RefusesWhatIsNotATcpHeader) {
  Segmenter cut;
  Bytes good = TcpHeader(4, false, 0x10);
  EXPECT_FALSE(cut.Start(good, 100, 0));
  EXPECT_FALSE(cut.Start({}, 100, 10));
  for (size_t n = 0; n < good.size(); ++n) {
    EXPECT_FALSE(cut.Start(std::span(good).first(n), 100, 10)) << n;
  }
  Bytes longer = good;
  longer.push_back({});
  EXPECT_FALSE(cut.Start(longer, 100, 10));
  longer.resize(Segmenter::kMaxHeaderBytes + 1);
  EXPECT_FALSE(cut.Start(longer, 100, 10));
  Bytes udp = good;
  udp[23] = std::byte{17};
  EXPECT_FALSE(cut.Start(udp, 100, 10));
  Bytes fragment = good;
  fragment[20] = std::byte{0x20};
  EXPECT_FALSE(cut.Start(fragment, 100, 10));
  Bytes arp = good;
  Store16(arp.data() + 12, 0x0806);
  EXPECT_FALSE(cut.Start(arp, 100, 10));
  Bytes wrong_version = good;
  wrong_version[14] = std::byte{0x55};
  EXPECT_FALSE(cut.Start(wrong_version, 100, 10));
}

}  // namespace
}  // namespace softnic
