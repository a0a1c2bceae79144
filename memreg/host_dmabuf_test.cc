// Dmabufs of host memory, where the kernel has none: every refusal. What works
// is tested in the guest (dmabuf_guest_test.cc).
#include "memreg/host_dmabuf.h"

#include <errno.h>
#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <array>
#include <string>
#include <utility>

#include "base/errno_status.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "memreg/providers.h"

namespace devwire {
namespace {

using ::testing::HasSubstr;

std::string Text(const absl::Status& status) {
  return std::string(status.message());
}

TEST(HostDmabuf, NoSuchDevice) {
  absl::Status status = HostDmabuf::AllocateUdmabuf(4096, "/dev/none").status();
  EXPECT_EQ(ErrnoOf(status), ENOENT);
  EXPECT_THAT(Text(status), HasSubstr("modprobe udmabuf"));
  status = HostDmabuf::AllocateDmaHeap(4096, "/dev/none").status();
  EXPECT_EQ(ErrnoOf(status), ENOENT);
  EXPECT_THAT(Text(status), HasSubstr("CONFIG_DMABUF_HEAPS_SYSTEM"));
  status = HostDmabuf::AllocateVgem(4096, "/dev/none").status();
  EXPECT_EQ(ErrnoOf(status), ENODEV);
  EXPECT_THAT(Text(status), HasSubstr("modprobe vgem"));
}

// A device that is another one: its refusal is told.
TEST(HostDmabuf, TheKernelRefuses) {
  absl::Status status = HostDmabuf::AllocateUdmabuf(5000, "/dev/null").status();
  EXPECT_EQ(ErrnoOf(status), ENOTTY);
  EXPECT_THAT(Text(status), HasSubstr("/dev/null refuses a buffer of 8192"));
  status = HostDmabuf::AllocateDmaHeap(4096, "/dev/null").status();
  EXPECT_EQ(ErrnoOf(status), ENOTTY);
  const std::string folder = std::string(getenv("TEST_TMPDIR")) + "/dri";
  mkdir(folder.c_str(), 0755);
  ASSERT_EQ(symlink("/dev/null", (folder + "/card0").c_str()), 0);
  EXPECT_EQ(ErrnoOf(HostDmabuf::AllocateVgem(4096, folder).status()), ENODEV);
}

TEST(HostDmabuf, SizesThatAreNone) {
  for (const size_t bytes : {size_t{0}, SIZE_MAX}) {
    EXPECT_EQ(ErrnoOf(HostDmabuf::AllocateUdmabuf(bytes).status()), EINVAL);
    EXPECT_EQ(ErrnoOf(HostDmabuf::AllocateDmaHeap(bytes).status()), EINVAL);
    EXPECT_EQ(ErrnoOf(HostDmabuf::AllocateVgem(bytes).status()), EINVAL);
  }
}

TEST(HostDmabuf, AdoptsNothingElse) {
  const int null = open("/dev/null", O_RDWR | O_CLOEXEC);
  EXPECT_FALSE(HostDmabuf::CanAdopt(null));
  const absl::Status status =
      HostDmabuf::Adopt(DmaBuf(null, 4096, "dmabuf")).status();
  EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument);
  EXPECT_THAT(Text(status), HasSubstr("is no dmabuf"));
}

TEST(Providers, ByName) {
  EXPECT_TRUE(IsMemoryProvider("memfd"));
  EXPECT_FALSE(IsMemoryProvider("gpu"));
  const auto memory = AllocateDeviceMemory("memfd", 100);
  ASSERT_TRUE(memory.ok());
  EXPECT_EQ((*memory)->name(), "memfd");
  const absl::Status status = AllocateDeviceMemory("gpu", 100).status();
  EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument);
  EXPECT_THAT(Text(status), HasSubstr("\"gpu\": use one of memfd, udmabuf, "
                                      "dma-heap, vgem"));
}

TEST(Providers, AdoptByWhatItIs) {
  DmaBuf memfd(memfd_create("test", MFD_CLOEXEC), 4096, "dmabuf");
  ASSERT_EQ(ftruncate(memfd.fd(), 4096), 0);
  auto adopted = AdoptDeviceMemory(memfd);
  ASSERT_TRUE(adopted.ok());
  ASSERT_NE(*adopted, nullptr);
  EXPECT_EQ(memfd.fd(), -1) << "taken over";
  std::array<std::byte, 4> bytes = {};
  EXPECT_TRUE((*adopted)->CopyOut(4092, bytes).ok());

  DmaBuf small(memfd_create("test", MFD_CLOEXEC), 4096, "dmabuf");
  EXPECT_FALSE(AdoptDeviceMemory(small).ok()) << "an empty one";

  DmaBuf other(open("/dev/null", O_RDWR | O_CLOEXEC), 4096, "dmabuf");
  adopted = AdoptDeviceMemory(other);
  ASSERT_TRUE(adopted.ok());
  EXPECT_EQ(*adopted, nullptr);
  EXPECT_GE(other.fd(), 0) << "still the caller's";
}

}  // namespace
}  // namespace devwire
