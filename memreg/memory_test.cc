// The memory that needs no NIC: dmabufs and the memfd provider.
#include <errno.h>
#include <fcntl.h>
#include <sys/resource.h>
#include <unistd.h>

#include <array>
#include <cstring>
#include <fstream>
#include <memory>
#include <string>
#include <vector>

#include "gtest/gtest.h"
#include "memreg/dmabuf.h"
#include "memreg/host_memory.h"

namespace devwire {
namespace {

std::vector<std::byte> Bytes(std::string_view text) {
  std::vector<std::byte> bytes(text.size());
  memcpy(bytes.data(), text.data(), text.size());
  return bytes;
}

bool IsOpen(int fd) { return fcntl(fd, F_GETFD) >= 0; }

TEST(DmaBuf, ClosesWhatItOwnsOnce) {
  const int fd = open("/dev/null", O_RDONLY | O_CLOEXEC);
  {
    DmaBuf a(fd, 4096, "test");
    DmaBuf b(std::move(a));
    EXPECT_EQ(a.fd(), -1);  // NOLINT: moved from, on purpose.
    EXPECT_EQ(b.fd(), fd);
    EXPECT_EQ(b.bytes(), 4096u);
    EXPECT_EQ(b.origin(), "test");
    auto copy = b.Duplicate();
    ASSERT_TRUE(copy.ok());
    EXPECT_NE(copy->fd(), fd);
    EXPECT_EQ(copy->bytes(), 4096u);
    b = *std::move(copy);
    EXPECT_FALSE(IsOpen(fd));
  }
  EXPECT_FALSE(DmaBuf().Duplicate().ok());
}

TEST(DmaBuf, NoDescriptorsLeft) {
  const DmaBuf buffer(open("/dev/null", O_RDONLY | O_CLOEXEC), 1, "memfd");
  rlimit before;
  ASSERT_EQ(getrlimit(RLIMIT_NOFILE, &before), 0);
  const rlimit none = {.rlim_cur = 3, .rlim_max = before.rlim_max};
  ASSERT_EQ(setrlimit(RLIMIT_NOFILE, &none), 0);
  const auto copy = buffer.Duplicate();
  ASSERT_EQ(setrlimit(RLIMIT_NOFILE, &before), 0);
  EXPECT_EQ(copy.status().code(), absl::StatusCode::kUnavailable);
  EXPECT_NE(copy.status().message().find("ulimit -n"), std::string::npos);
}

TEST(MemfdMemory, CopiesAndBounds) {
  auto memory = MemfdMemory::Allocate(5000);
  ASSERT_TRUE(memory.ok());
  EXPECT_EQ((*memory)->name(), "memfd");
  EXPECT_EQ((*memory)->bytes() % 4096, 0u);
  EXPECT_GE((*memory)->bytes(), 5000u);
  const uint64_t end = (*memory)->bytes();
  ASSERT_TRUE((*memory)->CopyIn(end - 5, Bytes("hello")).ok());
  std::vector<std::byte> out(5);
  ASSERT_TRUE((*memory)->CopyOut(end - 5, out).ok());
  EXPECT_EQ(out, Bytes("hello"));
  EXPECT_EQ((*memory)->CopyIn(end - 4, Bytes("hello")).code(),
            absl::StatusCode::kOutOfRange);
  EXPECT_EQ((*memory)->CopyOut(UINT64_MAX - 2, out).code(),
            absl::StatusCode::kOutOfRange);
  EXPECT_EQ(MemfdMemory::Allocate(0).status().code(),
            absl::StatusCode::kInvalidArgument);
  EXPECT_EQ(MemfdMemory::Allocate(SIZE_MAX).status().code(),
            absl::StatusCode::kInvalidArgument);
  EXPECT_EQ(MemfdMemory::Allocate(SIZE_MAX / 2).status().code(),
            absl::StatusCode::kResourceExhausted);
}

// Another process's memory: the same bytes through its descriptor.
TEST(MemfdMemory, ExportedAndAdopted) {
  const auto memory = MemfdMemory::Allocate(4096);
  ASSERT_TRUE(memory.ok());
  auto exported = (*memory)->Export();
  ASSERT_TRUE(exported.ok());
  EXPECT_EQ(exported->origin(), "memfd");
  const auto other = MemfdMemory::Adopt(dup(exported->fd()));
  ASSERT_TRUE(other.ok());
  ASSERT_TRUE((*other)->CopyIn(7, Bytes("shared")).ok());
  std::vector<std::byte> out(6);
  ASSERT_TRUE((*memory)->CopyOut(7, out).ok());
  EXPECT_EQ(out, Bytes("shared"));
  EXPECT_EQ(MemfdMemory::Adopt(-1).status().code(),
            absl::StatusCode::kInvalidArgument);
  const int null = open("/dev/null", O_RDONLY | O_CLOEXEC);
  EXPECT_FALSE(MemfdMemory::Adopt(null).ok());
  EXPECT_TRUE(IsOpen(null));  // Still the caller's.
  close(null);
  EXPECT_EQ(MemfdMemory::Adopt(DmaBuf(dup(exported->fd()), 4097, "memfd"))
                .status()
                .code(),
            absl::StatusCode::kInvalidArgument);
  const auto third = MemfdMemory::Adopt(*std::move(exported));
  ASSERT_TRUE(third.ok());
  ASSERT_TRUE((*third)->CopyOut(7, out).ok());
  EXPECT_EQ(out, Bytes("shared"));
}

// Copies that the kernel refuses are errors, not crashes.
TEST(MemfdMemory, DescriptorThatCannotBeWritten) {
  const std::string path = std::string(getenv("TEST_TMPDIR")) + "/bytes";
  std::ofstream(path) << "0123456789";
  const auto memory = MemfdMemory::Adopt(open(path.c_str(), O_RDONLY));
  ASSERT_TRUE(memory.ok());
  EXPECT_EQ((*memory)->CopyIn(0, Bytes("x")).code(),
            absl::StatusCode::kInternal);
  // It shrinks behind our back.
  ASSERT_EQ(truncate(path.c_str(), 2), 0);
  std::vector<std::byte> out(10);
  EXPECT_EQ((*memory)->CopyOut(0, out).code(), absl::StatusCode::kInternal);
  const OptionTail tail = {.offset = 0, .length = 10, .out = out.data()};
  EXPECT_FALSE((*memory)->ReadOptionTails({&tail, 1}));
}

TEST(MemfdMemory, OptionTailsInOneBatch) {
  const auto memory = MemfdMemory::Allocate(4096);
  ASSERT_TRUE(memory.ok());
  ASSERT_TRUE((*memory)->CopyIn(100, Bytes("abcdef")).ok());
  std::array<std::byte, 40> first{};
  std::array<std::byte, 3> second{};
  std::array<OptionTail, 2> tails = {
      OptionTail{.offset = 100, .length = 40, .out = first.data()},
      OptionTail{.offset = 103, .length = 3, .out = second.data()}};
  EXPECT_TRUE((*memory)->ReadOptionTails(tails));
  EXPECT_EQ(memcmp(first.data(), "abcdef", 6), 0);
  EXPECT_EQ(memcmp(second.data(), "def", 3), 0);

  // More than options can be, none, or out of bounds: nothing is read.
  second.fill(std::byte{7});
  std::swap(tails[0], tails[1]);
  for (const OptionTail bad :
       {OptionTail{.offset = 0, .length = 41, .out = first.data()},
        OptionTail{.offset = 0, .length = 0, .out = first.data()},
        OptionTail{.offset = 4095, .length = 2, .out = first.data()}}) {
    tails[1] = bad;
    EXPECT_FALSE((*memory)->ReadOptionTails(tails));
    EXPECT_EQ(second[0], std::byte{7});
  }
}

// Nothing of it is mapped here, before or after it was used.
TEST(MemfdMemory, IsNeverMapped) {
  const auto memory = MemfdMemory::Allocate(1 << 20);
  ASSERT_TRUE(memory.ok());
  ASSERT_TRUE((*memory)->CopyIn(0, Bytes("payload")).ok());
  std::ifstream maps("/proc/self/maps");
  for (std::string line; std::getline(maps, line);) {
    EXPECT_EQ(line.find("devwire-device-memory"), std::string::npos) << line;
  }
}

// No verbs library is loaded in this test: nothing to wait for.
TEST(MemfdMemory, MakeVisibleWithoutSoftnic) {
  const auto memory = MemfdMemory::Allocate(4096);
  ASSERT_TRUE(memory.ok());
  EXPECT_FALSE((*memory)->needs_make_visible());
  (*memory)->MakeVisible();
}

}  // namespace
}  // namespace devwire
