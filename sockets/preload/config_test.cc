// The shim's configuration: what is taken, and what is said to the rest.
#include "sockets/preload/config.h"

#include <unistd.h>

#include <cerrno>
#include <fstream>
#include <string>

#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "sockets/errno_map.h"

namespace devwire::preload {
namespace {

constexpr char kAddress[] = "[stack]\naddress = \"10.0.0.2/24\"\n";

TEST(ShimConfig, EveryKey) {
  const auto config = ParseShimConfig(
      "[stack]\n"
      "verbs_library = \"libsoftnic.so\"\n"
      "softnic = \"dev=sn0\"\n"
      "device = \"sn0\"\n"
      "address = \"10.0.0.2/16\"\n"
      "gateway = \"10.0.0.1\"\n"
      "mtu = 9000\n"
      "[take]\n"
      "listen = false\n"
      "connect = false\n");
  ASSERT_TRUE(config.ok()) << config.status();
  EXPECT_EQ(config->stack.verbs_library, "libsoftnic.so");
  EXPECT_EQ(config->softnic, "dev=sn0");
  EXPECT_EQ(config->stack.device, "sn0");
  EXPECT_EQ(config->stack.address, IpAddress::V4(10, 0, 0, 2));
  EXPECT_EQ(config->stack.prefix_bits, 16);
  EXPECT_EQ(config->stack.gateway, IpAddress::V4(10, 0, 0, 1));
  EXPECT_EQ(config->stack.mtu, 9000u);
  EXPECT_FALSE(config->take_listen);
  EXPECT_FALSE(config->take_connect);
}

TEST(ShimConfig, Defaults) {
  const auto config = ParseShimConfig(kAddress);
  ASSERT_TRUE(config.ok()) << config.status();
  EXPECT_TRUE(config->take_listen);
  EXPECT_TRUE(config->take_connect);
  EXPECT_EQ(config->stack.mtu, 1500u);
  EXPECT_EQ(config->stack.gateway, std::nullopt);
}

TEST(ShimConfig, WhatIsWrongIsNamed) {
  const struct {
    std::string text;
    std::string said;
  } rows[] = {
      {"", "stack.address: accepted is an address with its prefix"},
      {"[stack]\naddress = \"10.0.0.2\"\n", "stack.address: accepted is"},
      {"[stack]\naddress = \"10.0.0.2/33\"\n", "stack.address: accepted is"},
      {"[stack]\naddress = \"here/24\"\n", "stack.address: accepted is"},
      {"[stack]\naddress = 7\n", "stack.address: accepted is"},
      {std::string(kAddress) + "gateway = \"x\"\n",
       "stack.gateway: accepted is an IP address"},
      {std::string(kAddress) + "mtu = 100\n",
       "stack.mtu: accepted is bytes from 576 to 9978"},
      {std::string(kAddress) + "device = 1\n",
       "stack.device: accepted is a string"},
      {std::string(kAddress) + "[take]\nlisten = 1\n",
       "take.listen: accepted is true or false"},
      {std::string(kAddress) + "colour = 1\n",
       "unknown key stack.colour: there are stack.verbs_library, "},
      {"mtu = 1500\n", "unknown key mtu: there are"},
      {"[stack\n", "line 1: "},
  };
  for (const auto& row : rows) {
    const auto config = ParseShimConfig(row.text);
    EXPECT_EQ(ErrnoOf(config.status()), EINVAL) << row.text;
    EXPECT_THAT(std::string(config.status().message()),
                testing::HasSubstr(row.said))
        << row.text;
  }
}

TEST(ShimConfig, Files) {
  const auto none = ReadShimConfig("/nonesuch");
  EXPECT_EQ(ErrnoOf(none.status()), ENOENT);
  EXPECT_THAT(std::string(none.status().message()),
              testing::HasSubstr("cannot read /nonesuch: see DEVWIRE_CONFIG"));
  const std::string path = testing::TempDir() + "/devwire.toml";
  std::ofstream(path) << kAddress;
  EXPECT_TRUE(ReadShimConfig(path).ok());
  std::ofstream(path) << "mtu = 1\n";
  EXPECT_THAT(std::string(ReadShimConfig(path).status().message()),
              testing::StartsWith(path + ": unknown key mtu"));
  unlink(path.c_str());
}

}  // namespace
}  // namespace devwire::preload
