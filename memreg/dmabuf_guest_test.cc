// Real dmabufs, on a kernel that has them: tools/guest_test.py runs this in a
// guest. Nothing is skipped here: what is missing fails.
#include <sys/mman.h>
#include <unistd.h>

#include <fstream>
#include <memory>
#include <string>
#include <vector>

#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "memreg/host_dmabuf.h"
#include "memreg/providers.h"

namespace devwire {
namespace {

using ::testing::HasSubstr;

class Dmabuf : public testing::TestWithParam<const char*> {
 protected:
  void SetUp() override {
    auto memory = AllocateDeviceMemory(GetParam(), kBytes);
    ASSERT_TRUE(memory.ok()) << memory.status();
    memory_ = *std::move(memory);
  }
  static std::vector<std::byte> Pattern(size_t bytes, uint8_t seed) {
    std::vector<std::byte> pattern(bytes);
    for (size_t i = 0; i < bytes; ++i) {
      pattern[i] = static_cast<std::byte>(i * 31 + i / 251 + seed);
    }
    return pattern;
  }
  static constexpr size_t kBytes = 1 << 20;
  std::unique_ptr<DeviceMemory> memory_;
};

TEST_P(Dmabuf, CopiesAndBounds) {
  EXPECT_EQ(memory_->name(), GetParam());
  EXPECT_EQ(memory_->bytes(), kBytes);
  for (const auto& [offset, size] : {std::pair<size_t, size_t>{0, kBytes},
                                     {4095, 3},
                                     {1, 70'001},
                                     {kBytes - 1, 1},
                                     {kBytes, 0}}) {
    const auto in = Pattern(size, static_cast<uint8_t>(offset));
    ASSERT_TRUE(memory_->CopyIn(offset, in).ok());
    std::vector<std::byte> out(size);
    ASSERT_TRUE(memory_->CopyOut(offset, out).ok());
    EXPECT_EQ(out, in) << offset;
  }
  std::vector<std::byte> two(2);
  EXPECT_EQ(memory_->CopyIn(kBytes - 1, two).code(),
            absl::StatusCode::kOutOfRange);
  EXPECT_EQ(memory_->CopyOut(kBytes + 1, {}).code(),
            absl::StatusCode::kOutOfRange);
}

TEST_P(Dmabuf, IsMappedDuringACopyAlone) {
  ASSERT_TRUE(memory_->CopyIn(0, Pattern(5000, 1)).ok());
  std::ifstream maps("/proc/self/maps");
  for (std::string line; std::getline(maps, line);) {
    EXPECT_THAT(line, Not(HasSubstr("/dmabuf:")));
    EXPECT_THAT(line, Not(HasSubstr("/dev/dri")));
  }
}

// Another process's view of it: by the descriptor alone.
TEST_P(Dmabuf, ExportedAndAdopted) {
  auto exported = memory_->Export();
  ASSERT_TRUE(exported.ok());
  EXPECT_EQ(lseek(exported->fd(), 0, SEEK_END), off_t{kBytes});
  if (GetParam() == std::string("vgem")) {  // DRM's name is any GPU's as well.
    EXPECT_FALSE(HostDmabuf::CanAdopt(exported->fd()));
    const auto refused = HostDmabuf::Adopt(*std::move(exported));
    EXPECT_THAT(std::string(refused.status().message()),
                HasSubstr("a dmabuf of drm"));
    return;
  }
  EXPECT_FALSE(
      HostDmabuf::Adopt(DmaBuf(dup(exported->fd()), kBytes + 1, "x")).ok());
  const auto other = AdoptDeviceMemory(*exported);
  ASSERT_TRUE(other.ok()) << other.status();
  ASSERT_NE(*other, nullptr);
  const auto in = Pattern(10'000, 9);
  ASSERT_TRUE(memory_->CopyIn(777, in).ok());
  std::vector<std::byte> out(in.size());
  ASSERT_TRUE((*other)->CopyOut(777, out).ok());
  EXPECT_EQ(out, in);
  memory_.reset();  // The descriptor keeps it.
  ASSERT_TRUE((*other)->CopyOut(777, out).ok());
  EXPECT_EQ(out, in);
}

TEST_P(Dmabuf, OptionTails) {
  const auto in = Pattern(64, 3);
  ASSERT_TRUE(memory_->CopyIn(4080, in).ok());
  std::vector<std::byte> out(40);
  OptionTail tail = {.offset = 4080, .length = 40, .out = out.data()};
  EXPECT_TRUE(memory_->ReadOptionTails({&tail, 1}));
  EXPECT_TRUE(std::equal(out.begin(), out.end(), in.begin()));
  tail.offset = kBytes - 39;
  EXPECT_FALSE(memory_->ReadOptionTails({&tail, 1}));
}

INSTANTIATE_TEST_SUITE_P(Providers, Dmabuf,
                         testing::Values("udmabuf", "dma-heap", "vgem"),
                         [](const auto& info) {
                           std::string name = info.param;
                           std::erase(name, '-');
                           return name;
                         });

TEST(Udmabuf, TheLimitIsNamed) {
  const auto memory = HostDmabuf::AllocateUdmabuf(size_t{65} << 20);
  ASSERT_FALSE(memory.ok());
  EXPECT_THAT(std::string(memory.status().message()),
              HasSubstr("size_limit_mb"));
}

}  // namespace
}  // namespace devwire
