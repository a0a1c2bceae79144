// Opening a verbs library and a device, and every refusal on the way.
//
// A process has one verbs library: what needs another, or none yet, runs in a
// child (EXPECT_EXIT), before or beside the one that this process loads.
#include "transport/verbs/device.h"

#include <dlfcn.h>
#include <errno.h>
#include <stdlib.h>
#include <sys/resource.h>
#include <unistd.h>

#include <cstdio>
#include <string>

#include "gtest/gtest.h"
#include "memreg/host_memory.h"
#include "memreg/registered_region.h"
#include "memreg/verbs_library.h"
#include "transport/verbs/raw_qp.h"
#include "transport/verbs/verbs_fixture.h"

namespace devwire {
namespace {

// In a child: says how loading went, and ends it.
[[noreturn]] void LoadAndExit(const std::string& name) {
  const absl::Status status = LoadVerbsLibrary(name);
  std::fprintf(stderr, "%s\n", std::string(status.ToString()).c_str());
  std::fprintf(stderr, "loaded %s\n", VerbsLibraryName().c_str());
  std::_Exit(0);
}

#define EXPECT_LOAD(name, says) \
  EXPECT_EXIT(LoadAndExit(name), ::testing::ExitedWithCode(0), says)

TEST(VerbsLibraryDeathTest, NameIsArgumentThenEnvironmentThenSystem) {
  unsetenv("DEVWIRE_VERBS_LIBRARY");
  EXPECT_LOAD("", "loaded libibverbs.so.1");
  setenv("DEVWIRE_VERBS_LIBRARY", SoftnicPath().c_str(), 1);
  EXPECT_LOAD("", "loaded ./softnic/libsoftnic.so");
  EXPECT_LOAD("libibverbs.so.1", "loaded libibverbs.so.1");
  unsetenv("DEVWIRE_VERBS_LIBRARY");
}

TEST(VerbsLibraryDeathTest, MissingLibraryAndMissingSymbol) {
  EXPECT_LOAD("libnotthere.so.7",
              "NOT_FOUND: cannot load verbs library libnotthere.so.7: .*No "
              "such file.*Install libibverbs1.*DEVWIRE_VERBS_LIBRARY");
  EXPECT_LOAD("libm.so.6",
              "UNIMPLEMENTED: verbs library libm.so.6 has no symbol "
              "ibv_get_device_list.*rdma-core 34");
}

// The system's library, where there is no NIC, and softnic beside it.
TEST(VerbsLibraryDeathTest, SystemLibraryWithoutDevices) {
  EXPECT_EXIT(
      {
        if (!LoadVerbsLibrary("libibverbs.so.1").ok()) std::_Exit(1);
        const auto device = VerbsDevice::Open({.name = "mlx5_99"});
        std::fprintf(stderr, "%s\n",
                     std::string(device.status().ToString()).c_str());
        std::_Exit(0);
      },
      ::testing::ExitedWithCode(0), "NOT_FOUND: .*(shows no device|mlx5_99)");
}

TEST(VerbsLibraryDeathTest, EntryPointsBeforeLoadingAreABug) {
  EXPECT_EXIT(
      {
        if (verbs_if_loaded() == nullptr) verbs();
      },
      ::testing::KilledBySignal(SIGABRT), "LoadVerbsLibrary first");
}

class Device : public ::testing::Test {
 protected:
  static std::string OpenError(const VerbsDevice::Options& options) {
    const auto device = VerbsDevice::Open(options);
    return device.ok() ? "opened" : std::string(device.status().ToString());
  }
  static std::string OpenErrorWith(const std::string& config) {
    ConfigureSoftnic("dev=sn0," + config);
    return OpenError({.name = "sn0"});
  }
};

TEST_F(Device, OneLibraryPerProcess) {
  ConfigureSoftnic("dev=sn0");
  EXPECT_TRUE(LoadVerbsLibrary(SoftnicPath()).ok());
  EXPECT_TRUE(LoadVerbsLibrary().ok());
  EXPECT_EQ(LoadVerbsLibrary("libibverbs.so.1").ToString(),
            "FAILED_PRECONDITION: verbs library libibverbs.so.1 asked for, but "
            "this process has already loaded ./softnic/libsoftnic.so: a "
            "process has one; use the same name for every stack");
  // A live system library in the same process is nothing to us, and we are
  // nothing to it.
  void* const system = dlopen("libibverbs.so.1", RTLD_NOW | RTLD_GLOBAL);
  ASSERT_NE(system, nullptr);
  const auto device = VerbsDevice::Open({.name = "sn0"});
  EXPECT_TRUE(device.ok()) << device.status();
  EXPECT_NE(dlsym(system, "ibv_open_device"),
            reinterpret_cast<void*>(verbs().open_device));
}

TEST_F(Device, NamedByNameOrAddressOrAlone) {
  ConfigureSoftnic(
      "dev=sn0,mac=02:00:00:00:00:0a,ip=10.0.0.1+fd00::1,mtu=9000;dev=sn1,ip="
      "10.0.0.2");
  auto device = VerbsDevice::Open({.name = "sn0"});
  ASSERT_TRUE(device.ok()) << device.status();
  EXPECT_EQ(MacToString((*device)->mac()), "02:00:00:00:00:0a");
  ASSERT_EQ((*device)->addresses().size(), 2u);
  EXPECT_EQ((*device)->addresses()[0].ToString(), "10.0.0.1");
  EXPECT_EQ((*device)->addresses()[1].ToString(), "fd00::1");
  EXPECT_FALSE((*device)->LinkIsUp());  // No cable.
  EXPECT_GE((*device)->max_sge(), 2u);
  EXPECT_EQ((*device)->link_header_bytes(), 14u);

  const auto by_ip = VerbsDevice::Open({.local = IpAddress::V4(10, 0, 0, 2)});
  ASSERT_TRUE(by_ip.ok()) << by_ip.status();
  EXPECT_EQ((*by_ip)->name(), "sn1");

  EXPECT_EQ(OpenError({.name = "sn7"}),
            "NOT_FOUND: no verbs device named sn7; there are: sn0, sn1");
  EXPECT_EQ(OpenError({.local = IpAddress::V4(10, 0, 0, 9)}),
            "NOT_FOUND: no verbs device has the address 10.0.0.9; there are: "
            "sn0, sn1. Name one, or give the address to the interface of one");
  EXPECT_EQ(OpenError({}),
            "INVALID_ARGUMENT: several verbs devices: say which by name or "
            "address; there are: sn0, sn1");
  EXPECT_EQ(OpenError({.name = "sn0", .port = 2}),
            "NOT_FOUND: sn0: port 2: Invalid argument (EINVAL). Ports count "
            "from 1; ibv_devinfo lists them");
}

TEST_F(Device, TheOnlyOneNeedsNoName) {
  ConfigureSoftnic("dev=alone");
  EXPECT_EQ(OpenError({}), "opened");
  EXPECT_EQ(OpenError({.local = IpAddress::V4(10, 0, 0, 9)}), "opened");
}

TEST_F(Device, NoDevices) {
  ConfigureSoftnic("");
  EXPECT_EQ(OpenError({.name = "sn0"}),
            "NOT_FOUND: verbs library ./softnic/libsoftnic.so shows no device. "
            "Check that a NIC and its kernel module are there (ibv_devices), "
            "or configure softnic");
}

TEST_F(Device, WithheldCapabilitiesAreNamed) {
  const std::string lacks =
      "UNIMPLEMENTED: verbs device sn0 cannot carry device memory streams; it "
      "lacks: ";
  const std::string sge =
      "two scatter entries per receive (max_sge is 1), to part headers from "
      "payload";
  const std::string rx =
      "receive checksums (IBV_RAW_PACKET_CAP_IP_CSUM): nobody else may read "
      "the payload";
  const std::string tx = "send checksums (IBV_DEVICE_RAW_IP_CSUM)";
  const std::string next =
      ". Choose another device: ibv_devinfo -v shows what each has";
  EXPECT_EQ(OpenErrorWith("max_sge=1"), lacks + sge + next);
  EXPECT_EQ(OpenErrorWith("rx_csum=0"), lacks + rx + next);
  EXPECT_EQ(OpenErrorWith("tx_csum=0"), lacks + tx + next);
  EXPECT_EQ(OpenErrorWith("max_sge=1,rx_csum=0,tx_csum=0"),
            lacks + sge + "; " + rx + "; " + tx + next);
}

TEST_F(Device, NoRawPacketQueues) {
  // Without raw packets a device has none of their offloads, either.
  const std::string error = OpenErrorWith("raw=0");
  EXPECT_EQ(error.rfind("UNIMPLEMENTED: ", 0), 0u) << error;
  EXPECT_EQ(RawQpStatus("sn0", "ibv_create_qp", EOPNOTSUPP).ToString(),
            "UNIMPLEMENTED: sn0: ibv_create_qp of a raw packet queue: "
            "Operation not supported (EOPNOTSUPP). The device has no raw "
            "packet queues; mlx5, mlx4, mana and newer bnxt_re have");
  EXPECT_EQ(RawQpStatus("sn0", "ibv_create_qp", ENOMEM).code(),
            absl::StatusCode::kResourceExhausted);
  EXPECT_EQ(RawQpStatus("sn0", "ibv_modify_qp", EINVAL).code(),
            absl::StatusCode::kInternal);
}

TEST_F(Device, WithoutCapNetRaw) {
  const WithoutNetRaw dropped;
  EXPECT_EQ(OpenErrorWith("require_cap_net_raw=1"),
            "PERMISSION_DENIED: sn0: ibv_create_qp of a raw packet queue: "
            "Operation not permitted (EPERM). It needs CAP_NET_RAW: run as "
            "root, or setcap cap_net_raw=ep on the program (before Linux 6.17 "
            "not inside a user namespace)");
}

TEST_F(Device, DeviceWithoutVlanStripping) {
  ConfigureSoftnic("dev=sn0,vlan_strip=0");
  const auto device = VerbsDevice::Open({.name = "sn0"});
  ASSERT_TRUE(device.ok()) << device.status();
  EXPECT_EQ((*device)->link_header_bytes(), 18u);
}

// -- registration -------------------------------------------------------------

absl::Status RegisterWith(const std::string& config,
                          const RegisteredRegion::Options& options = {},
                          int fd = -1) {
  ConfigureSoftnic("dev=sn0" + config);
  const auto device = VerbsDevice::Open({.name = "sn0"});
  if (!device.ok()) return device.status();
  const auto memory = MemfdMemory::Allocate(65536);
  const auto exported = (*memory)->Export();
  const DmaBuf other(fd, 65536, "pipe");
  return RegisteredRegion::Register((*device)->pd(), fd < 0 ? *exported : other,
                                    options)
      .status();
}

TEST_F(Device, DmabufRegistrationUnsupportedOrRefused) {
  EXPECT_TRUE(RegisterWith("").ok());
  EXPECT_EQ(RegisterWith(",dmabuf=0").ToString(),
            "UNIMPLEMENTED: ibv_reg_dmabuf_mr of 65536 bytes (memfd): "
            "Operation not supported (EOPNOTSUPP). The device or kernel cannot "
            "register dmabufs: it takes Linux 5.12 with "
            "CONFIG_INFINIBAND_ON_DEMAND_PAGING, and a provider that has it, "
            "such as mlx5");
  EXPECT_EQ(RegisterWith(",dmabuf_refuse=1").ToString(),
            "FAILED_PRECONDITION: ibv_reg_dmabuf_mr of 65536 bytes (memfd): "
            "Invalid argument (EINVAL). Only a real dmabuf can be registered "
            "with a real NIC; a memfd works with softnic alone");
  int pipe_fds[2];
  ASSERT_EQ(pipe(pipe_fds), 0);
  EXPECT_FALSE(RegisterWith("", {}, pipe_fds[0]).ok());
  close(pipe_fds[1]);
}

TEST_F(Device, RegionsOutsideTheDmabuf) {
  for (const RegisteredRegion::Options& bad :
       {RegisteredRegion::Options{.offset = 65537},
        RegisteredRegion::Options{.offset = 65536},
        RegisteredRegion::Options{.offset = 4096, .bytes = 65536},
        RegisteredRegion::Options{.bytes = SIZE_MAX}}) {
    EXPECT_EQ(RegisterWith("", bad).code(), absl::StatusCode::kInvalidArgument);
  }
}

// Two regions of one dmabuf: distinct addresses, each with the page offset of
// its memory (ibv_reg_dmabuf_mr(3)), no canonical one of x86-64.
TEST_F(Device, IovaIsNoAddressOfAnyProcess) {
  ConfigureSoftnic("dev=sn0");
  const auto device = VerbsDevice::Open({.name = "sn0"});
  const auto memory = MemfdMemory::Allocate(65536);
  const auto dmabuf = (*memory)->Export();
  const auto one =
      RegisteredRegion::Register((*device)->pd(), *dmabuf, {.bytes = 8192});
  const auto two = RegisteredRegion::Register(
      (*device)->pd(), *dmabuf,
      {.offset = 8192 + 100, .relaxed_ordering = true});
  ASSERT_TRUE(one.ok()) << one.status();
  ASSERT_TRUE(two.ok()) << two.status();
  EXPECT_EQ(two->iova() % 4096, 100u);
  EXPECT_EQ(two->bytes(), 65536u - 8292);
  EXPECT_NE(one->lkey(), two->lkey());
  EXPECT_TRUE(one->Contains(one->iova() + 8191, 1));
  EXPECT_FALSE(one->Contains(one->iova() + 8191, 2));
  EXPECT_FALSE(one->Contains(two->iova(), 1));
  EXPECT_FALSE(one->Contains(one->iova() - 1, 1));
  EXPECT_FALSE(one->Contains(one->iova(), UINT64_MAX));
  for (const auto& region : {&*one, &*two}) {
    EXPECT_EQ(region->iova() >> 56, 1u);
  }
}

TEST_F(Device, HostArenaSizes) {
  ConfigureSoftnic("dev=sn0");
  const auto device = VerbsDevice::Open({.name = "sn0"});
  const auto arena = HostArena::Create((*device)->pd(), 100);
  ASSERT_TRUE(arena.ok()) << arena.status();
  EXPECT_EQ(arena->bytes(), 4096u);
  EXPECT_EQ(HostArena::Create((*device)->pd(), 0).status().code(),
            absl::StatusCode::kInvalidArgument);
  EXPECT_EQ(HostArena::Create((*device)->pd(), SIZE_MAX / 2).status().code(),
            absl::StatusCode::kResourceExhausted);
}

}  // namespace
}  // namespace devwire
