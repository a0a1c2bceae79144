// The configuration string: every key, every refusal, and what may change
// while a device is open.
#include "softnic/config.h"

#include <cstdio>
#include <cstdlib>
#include <fstream>
#include <iterator>
#include <string>

#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "softnic/config_value.h"

namespace softnic {
namespace {

using devwire::Duration;
using ::testing::HasSubstr;
using namespace devwire::time_literals;

DeviceConfig One(std::string_view text) {
  absl::StatusOr<std::vector<DeviceConfig>> devices = ParseConfig(text);
  EXPECT_TRUE(devices.ok()) << devices.status();
  if (!devices.ok() || devices->size() != 1) return {};
  return devices->front();
}

std::string Error(std::string_view text) {
  absl::StatusOr<std::vector<DeviceConfig>> devices = ParseConfig(text);
  return devices.ok() ? "no error" : std::string(devices.status().message());
}

std::string TempFile(const std::string& text) {
  const char* dir = std::getenv("TEST_TMPDIR");
  const std::string path =
      std::string(dir == nullptr ? "/tmp" : dir) + "/softnic.conf";
  std::ofstream(path) << text;
  return path;
}

TEST(Config, NothingIsNoDevice) {
  for (std::string_view text : {"", "  ", ";", ";;\n;"}) {
    auto devices = ParseConfig(text);
    ASSERT_TRUE(devices.ok());
    EXPECT_TRUE(devices->empty());
  }
}

TEST(Config, ANameAloneHasTheDefaults) {
  const DeviceConfig c = One("dev=sn0");
  EXPECT_EQ(c.name, "sn0");
  EXPECT_EQ(c.port, PortKind::kNone);
  EXPECT_EQ(c.mtu, 1500u);
  EXPECT_EQ(c.profile, Profile::kMlx5);
  EXPECT_EQ(c.mac[0], 0x02);
  EXPECT_EQ(c.faults, FaultConfig());
  EXPECT_EQ(One("dev=sn0").mac, c.mac);
  EXPECT_NE(One("dev=sn1").mac, c.mac);
}

TEST(Config, EveryKeyReachesItsField) {
  const DeviceConfig c =
      One("dev=sn0, port=shm:/tmp/c ,mac=02:00:00:00:00:0a,ip=10.0.0.1+fd00::1,"
          "mtu=9000,profile=full,mode=process,max_sge=3,max_qp_wr=64,rx_csum=0,"
          "tx_csum=0,tso=0,dmabuf=0,dmabuf_refuse=1,raw=0,vlan_strip=0,"
          "require_cap_net_raw=1,rules=64,rule_latency_us=5000,loopback=0,"
          "verify=1,pcap=/tmp/x.pcap,counters=/tmp/c,"
          "seed=7,fault_side=rx,loss=0.01,path_mtu=1280,dup=0.02,"
          "corrupt=0.03,reorder=0.04,reorder_depth=5,delay=250us,"
          "delay_jitter=1.5ms,hold_frames=9,rate=2.5G,link=down,cqe_error=0.05,"
          "cqe_error_at=11,qp_error=0.06,qp_error_at=12,revoke_at=13,revoke_"
          "send_at=15,"
          "revoke_lkey=14,late_scatter=1ms,late_gather=2s");
  EXPECT_EQ(c.port, PortKind::kShm);
  EXPECT_EQ(c.port_path, "/tmp/c");
  EXPECT_EQ(c.mac, (MacAddress{2, 0, 0, 0, 0, 0x0a}));
  ASSERT_EQ(c.ip.size(), 2u);
  EXPECT_EQ(c.ip[0],
            (IpAddress{0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff, 10, 0, 0, 1}));
  EXPECT_EQ(c.ip[1][0], 0xfd);
  EXPECT_EQ(c.mtu, 9000u);
  EXPECT_EQ(c.profile, Profile::kFull);
  EXPECT_EQ(c.mode, Mode::kProcess);
  EXPECT_EQ(c.max_sge, 3u);
  EXPECT_EQ(c.max_qp_wr, 64u);
  EXPECT_FALSE(c.rx_csum || c.tx_csum || c.tso || c.dmabuf || c.raw ||
               c.vlan_strip || c.loopback);
  EXPECT_TRUE(c.verify);
  EXPECT_TRUE(c.dmabuf_refuse && c.require_cap_net_raw);
  EXPECT_EQ(c.rules, 64u);
  EXPECT_EQ(c.rule_latency, 5_ms);
  EXPECT_EQ(c.pcap, "/tmp/x.pcap");
  EXPECT_EQ(c.counters, "/tmp/c");
  FaultConfig f;
  f.seed = 7;
  f.seed_given = 1;
  f.side = FaultSide::kRx;
  f.loss = 0.01;
  f.path_mtu = 1280;
  f.dup = 0.02;
  f.corrupt = 0.03;
  f.reorder = 0.04;
  f.reorder_depth = 5;
  f.delay = 250_us;
  f.delay_jitter = 1500_us;
  f.hold_frames = 9;
  f.rate = 2'500'000'000;
  f.link_up = false;
  f.cqe_error = 0.05;
  f.cqe_error_at = 11;
  f.qp_error = 0.06;
  f.qp_error_at = 12;
  f.revoke_at = 13;
  f.revoke_send_at = 15;
  f.revoke_lkey = 14;
  f.late_scatter = 1_ms;
  f.late_gather = 2_s;
  EXPECT_EQ(c.faults, f);
}

TEST(Config, AFileNameMayBeNothing) {
  const DeviceConfig c = One("dev=a,pcap=,counters=");
  EXPECT_TRUE(c.pcap.empty());
  EXPECT_THAT(Error("dev=a,pcap=" + std::string(4096, 'x')),
              HasSubstr("accepted is a file name"));
}

TEST(Config, TapPort) {
  const DeviceConfig c = One("dev=sn0,port=tap:tap0,vnet=1");
  EXPECT_EQ(c.port, PortKind::kTap);
  EXPECT_EQ(c.port_path, "tap0");
  EXPECT_TRUE(c.vnet);
}

TEST(Config, DevicesComeInTheOrderOfTheText) {
  auto devices = ParseConfig("dev=b;dev=a,mtu=9000;;dev=c;");
  ASSERT_TRUE(devices.ok()) << devices.status();
  ASSERT_EQ(devices->size(), 3u);
  EXPECT_EQ((*devices)[0].name, "b");
  EXPECT_EQ((*devices)[1].mtu, 9000u);
  EXPECT_EQ((*devices)[2].name, "c");
}

TEST(Config, AFileHasLinesAndComments) {
  const std::string path = TempFile(
      "# two devices\n"
      "dev=a,mtu=9000   # the first\n"
      "\n"
      "  dev=b ; dev=c,loss=0.5\n");
  auto devices = ParseConfig("@" + path);
  ASSERT_TRUE(devices.ok()) << devices.status();
  ASSERT_EQ(devices->size(), 3u);
  EXPECT_EQ((*devices)[2].faults.loss, 0.5);
}

TEST(Config, AMissingFileIsNamed) {
  auto devices = ParseConfig("@/nonexistent/file");
  EXPECT_EQ(devices.status().code(), absl::StatusCode::kNotFound);
  EXPECT_THAT(std::string(devices.status().message()),
              HasSubstr("/nonexistent/file"));
  EXPECT_EQ(ParseConfig("@/").status().code(), absl::StatusCode::kNotFound);
}

struct Refusal {
  const char* text;
  const char* says;  // The key, the value, and what is accepted.
};

TEST(Config, EveryRefusalNamesKeyValueAndWhatIsAccepted) {
  const Refusal kRefusals[] = {
      {"mtu=9000", "dev=NAME must come first"},
      {"mtu=9000,dev=a", "begins with mtu=\"9000\"; dev=NAME must come first"},
      {"dev=", "dev=\"\"; accepted is 1 to 63 letters"},
      {"dev=a b", "dev=\"a b\"; accepted is"},
      {"dev=a,mtu", "\"mtu\" is not KEY=VALUE"},
      {"dev=a,mtuu=1",
       "device a: unknown key \"mtuu\", perhaps mtu; keys are: "
       "dev port "},
      {"dev=a,zebra=1", "unknown key \"zebra\"; keys are"},
      {"dev=a,=1", "unknown key \"\""},
      {"dev=a,mtu=1500,mtu=1500", "mtu is given twice"},
      {"dev=a,mtu=67",
       "mtu=\"67\"; accepted is a whole number of bytes from "
       "68 to 9978"},
      {"dev=a,mtu=9979", "mtu=\"9979\""},
      {"dev=a,mtu=-1", "mtu=\"-1\""},
      {"dev=a,mtu=", "mtu=\"\""},
      {"dev=a,mtu=1500x", "mtu=\"1500x\""},
      {"dev=a,mtu=99999999999999999999999", "mtu="},
      {"dev=a,mac=02:00:00:00:00",
       "mac=\"02:00:00:00:00\"; accepted is a "
       "unicast address"},
      {"dev=a,mac=01:00:00:00:00:00", "mac="},
      {"dev=a,mac=00:00:00:00:00:00", "mac="},
      {"dev=a,mac=02-00-00-00-00-00", "mac="},
      {"dev=a,mac=0g:00:00:00:00:00", "mac="},
      {"dev=a,ip=10.0.0", "ip=\"10.0.0\"; accepted is IPv4"},
      {"dev=a,ip=::1+", "ip="},
      {"dev=a,ip=::1+::1+::1+::1+::1+::1+::1+::1+::1+::1+::1+::1+::1+::1+::1",
       "ip="},
      {"dev=a,port=eth0", "port=\"eth0\"; accepted is shm:PATH"},
      {"dev=a,port=shm:", "port="},
      {"dev=a,port=tap:a234567890123456", "port="},
      {"dev=a,port=tap:a/b", "port="},
      {"dev=a,profile=mlx4", "accepted is mlx5 or full"},
      {"dev=a,mode=none", "accepted is inline, thread or process"},
      {"dev=a,fault_side=left", "accepted is both, tx or rx"},
      {"dev=a,link=1", "accepted is up or down"},
      {"dev=a,tso=yes", "tso=\"yes\"; accepted is 0 or 1"},
      {"dev=a,loss=1.01", "loss=\"1.01\"; accepted is a probability"},
      {"dev=a,loss=-0.1", "loss="},
      {"dev=a,loss=nan", "loss="},
      {"dev=a,loss=inf", "loss="},
      {"dev=a,loss=1e-3", "loss="},
      {"dev=a,loss=.", "loss="},
      {"dev=a,loss=0.1.1", "loss="},
      {"dev=a,delay=5", "delay=\"5\"; accepted is a time with its unit"},
      {"dev=a,delay=ms", "delay="},
      {"dev=a,delay=3601s", "delay="},
      {"dev=a,rate=10", "rate=\"10\"; accepted is bits per second"},
      {"dev=a,rate=10T", "rate="},
      {"dev=a,rate=G", "rate="},
      {"dev=a,rate=1001G", "rate="},
      {"dev=a,seed=18446744073709551616", "seed="},
      {"dev=a,rules=65537", "rules="},
      {"dev=a,rule_latency_us=1ms", "rule_latency_us="},
      {"dev=a,hold_frames=0", "hold_frames="},
      {"dev=a,max_sge=0", "max_sge="},
      {"dev=a;dev=a", "device a: dev=a is taken by device a"},
      {"dev=a,mac=02:00:00:00:00:01;dev=b,mac=02:00:00:00:00:01",
       "device b: mac=02:00:00:00:00:01 is taken by device a"},
      {"dev=a,port=tap:t;dev=b,port=tap:t", "device b: port=tap:t is taken"},
      {"dev=a,port=shm:c;dev=b,port=shm:c;dev=d,port=shm:c",
       "accepted is a cable with a free end"},
      {"dev=a,vnet=1", "vnet=\"1\" without port=tap:NAME"},
  };
  for (const Refusal& row : kRefusals) {
    EXPECT_THAT(Error(row.text), HasSubstr(row.says)) << row.text;
  }
}

TEST(Config, AMessageShowsNoRawBytesAndNoEndlessText) {
  const std::string error =
      Error("dev=a,mtu=\x01\xff" + std::string(5000, 'x'));
  EXPECT_THAT(error, HasSubstr("\\x01\\xff"));
  EXPECT_LT(error.size(), 400u);
}

TEST(Config, Limits) {
  std::string text;
  for (size_t i = 0; i < kMaxDevices; ++i) {
    text += "dev=d" + std::to_string(i) + ";";
  }
  EXPECT_TRUE(ParseConfig(text).ok());
  EXPECT_THAT(Error(text + "dev=one-more"), HasSubstr("accepted are up to 64"));
  EXPECT_THAT(Error(std::string(kMaxConfigBytes + 1, ';')),
              HasSubstr("too long"));
  EXPECT_THAT(Error("@" + TempFile(std::string(kMaxConfigBytes + 1, ';'))),
              HasSubstr("too long"));
}

class Change : public testing::Test {
 protected:
  absl::Status Give(std::string_view text) {
    return ChangeConfig(
        text, [this](std::string_view name) { return name == open_; },
        &devices_);
  }
  std::string open_ = "a";
  std::vector<DeviceConfig> devices_ =
      *ParseConfig("dev=a,mtu=9000,loss=0.5;dev=b");
};

// A fault may change under a running device; what is not named stays.
TEST_F(Change, LiveKeysOfAnOpenDevice) {
  EXPECT_TRUE(Give("dev=a,dup=0.25,link=down").ok());
  EXPECT_EQ(devices_[0].faults.dup, 0.25);
  EXPECT_EQ(devices_[0].faults.loss, 0.5);
  EXPECT_FALSE(devices_[0].faults.link_up);
  EXPECT_EQ(devices_[0].mtu, 9000u);
}

TEST_F(Change, FixedKeysOnlyWhileClosed) {
  const std::vector<DeviceConfig> before = devices_;
  absl::Status status = Give("dev=a,loss=0.1,mtu=1500");
  EXPECT_EQ(status.code(), absl::StatusCode::kFailedPrecondition);
  EXPECT_THAT(std::string(status.message()), HasSubstr("mtu=\"1500\""));
  EXPECT_EQ(devices_, before);
  EXPECT_TRUE(Give("dev=a,mtu=9000").ok());  // as it is: no change
  EXPECT_TRUE(Give("dev=b,mtu=1400").ok());
  EXPECT_EQ(devices_[1].mtu, 1400u);
}

TEST_F(Change, ADeviceCanBeAdded) {
  EXPECT_TRUE(Give("dev=c,mtu=1280").ok());
  ASSERT_EQ(devices_.size(), 3u);
  EXPECT_EQ(devices_[2].mtu, 1280u);
}

TEST_F(Change, SettingTheSeedAgainShows) {
  EXPECT_TRUE(Give("dev=a,seed=1").ok());
  EXPECT_EQ(devices_[0].faults.seed_given, 1u);
  EXPECT_TRUE(Give("dev=a,seed=1").ok());
  EXPECT_EQ(devices_[0].faults.seed_given, 2u);
}

TEST_F(Change, RefusalsLeaveEverything) {
  const std::vector<DeviceConfig> before = devices_;
  EXPECT_FALSE(Give("dev=a,loss=2").ok());
  EXPECT_FALSE(Give("dev=a,loss=0.1;dev=a,loss=0.2").ok());
  EXPECT_FALSE(Give("dev=a,loss=0.1;dev=b,mac=01:00:00:00:00:00").ok());
  EXPECT_FALSE(Give("dev=c,mac=" + MacToString(devices_[0].mac)).ok());
  EXPECT_EQ(devices_, before);
}

// The document holds the table as the code has it.
TEST(ConfigHelp, StandsInTheDocument) {
  std::ifstream in("docs/softnic.md");
  const std::string document((std::istreambuf_iterator<char>(in)),
                             std::istreambuf_iterator<char>());
  EXPECT_THAT(document, HasSubstr(ConfigHelp()));
}

TEST(ConfigValue, Rates) {
  uint64_t rate = 1;
  EXPECT_TRUE(ParseRate("0", &rate));
  EXPECT_EQ(rate, 0u);
  EXPECT_TRUE(ParseRate("1k", &rate));
  EXPECT_EQ(rate, 1000u);
  EXPECT_TRUE(ParseRate("1000G", &rate));
  EXPECT_EQ(rate, 1'000'000'000'000u);
  EXPECT_FALSE(ParseRate("", &rate));
}

TEST(ConfigValue, Numbers) {
  uint64_t n = 0;
  EXPECT_TRUE(ParseNumber("18446744073709551615", 0, UINT64_MAX, &n));
  EXPECT_EQ(n, UINT64_MAX);
  EXPECT_FALSE(ParseNumber("", 0, 9, &n));
  EXPECT_FALSE(ParseNumber("+1", 0, 9, &n));
  EXPECT_FALSE(ParseNumber(" 1", 0, 9, &n));
}

}  // namespace
}  // namespace softnic
