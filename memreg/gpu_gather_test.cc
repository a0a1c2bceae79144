// GpuGather over a fake GPU, which runs the kernel's own source on the CPU.
#include "memreg/gpu_gather.h"

#include <cstdlib>
#include <cstring>
#include <fstream>
#include <vector>

#include "base/prng.h"
#include "gmock/gmock.h"
#include "memreg/fake_gpu_loaded.h"
#include "memreg/gather_code.h"

namespace devwire {
namespace {

using testing::HasSubstr;
using testing::StartsWith;

class GpuGatherTest : public OnFakeGpu {
 protected:
  GpuGatherOptions Options() const {
    return {.launches = 2,
            .tiles_per_launch = 64,
            .tile_bytes = 1000,
            .compiler_library = library_};
  }
  std::unique_ptr<GpuGather> Make(const GpuGatherOptions& options) {
    auto gather = GpuGather::Create(*device_, options);
    EXPECT_TRUE(gather.ok()) << gather.status();
    return *std::move(gather);
  }
  // Two pieces of random bytes, at odd addresses.
  std::vector<GatherPiece> Pieces() {
    for (std::byte& b : source_) b = static_cast<std::byte>(prng_.Next32());
    target_.assign(target_.size(), std::byte{0xa5});
    want_ = target_;
    memcpy(want_.data() + 5, source_.data() + 3, 3001);
    memcpy(want_.data() + 5 + 3001, source_.data() + 6001, 1999);
    const uint64_t from = reinterpret_cast<uint64_t>(source_.data());
    const uint64_t to = reinterpret_cast<uint64_t>(target_.data());
    return {{from + 3, to + 5, 3001}, {from + 6001, to + 5 + 3001, 1999}};
  }
  std::string WriteFile(const char* name, const std::string& text) {
    const std::string path = std::string(getenv("TEST_TMPDIR")) + "/" + name;
    std::ofstream(path) << text;
    return path;
  }

  Prng prng_{1};
  std::vector<std::byte> source_ = std::vector<std::byte>(8192);
  std::vector<std::byte> target_ = std::vector<std::byte>(8192), want_;
};
INSTANTIATE_TEST_SUITE_P(Vendors, GpuGatherTest,
                         testing::Values(GpuVendor::kCuda, GpuVendor::kHip));

TEST_P(GpuGatherTest, IsAsynchronousAndRight) {
  auto gather = Make(Options());
  EXPECT_EQ(gather->code_origin(), library_);
  EXPECT_STREQ(fake_->last_image, "code for a fake GPU");
  const std::vector<GatherPiece> pieces = Pieces();
  fake_->is_held = true;
  const auto ticket = gather->Launch(pieces);
  ASSERT_TRUE(ticket.ok()) << ticket.status();
  EXPECT_EQ(*ticket, GatherTicket{1});
  EXPECT_EQ(*gather->IsDone(*ticket), false);
  EXPECT_NE(target_, want_);
  fake_->is_held = false;
  EXPECT_EQ(*gather->IsDone(*ticket), true);
  EXPECT_EQ(target_, want_);
  EXPECT_TRUE(gather->Wait(*ticket).ok());
  EXPECT_EQ(fake_->launches, 1);
}

TEST_P(GpuGatherTest, CompilesForTheDeviceAtHand) {
  GpuGatherOptions options = Options();
  options.compiler_options = {"-DX=1"};
  Make(options);
  EXPECT_THAT(fake_->last_options, HasSubstr("-DX=1"));
  if (is_cuda()) {
    EXPECT_THAT(fake_->last_options, HasSubstr("--gpu-architecture=sm_90 "));
  }
}

TEST_P(GpuGatherTest, TheRingIsUsedAgainAndRefusesMoreThanItHas) {
  auto gather = Make(Options());
  const std::vector<GatherPiece> pieces = Pieces();
  fake_->is_held = true;
  ASSERT_TRUE(gather->Launch(pieces).ok());
  const GatherTicket second = *gather->Launch(pieces);
  const auto third = gather->Launch(pieces);
  EXPECT_EQ(third.status().code(), absl::StatusCode::kResourceExhausted);
  EXPECT_THAT(third.status().message(), HasSubstr("Wait for one"));
  EXPECT_TRUE(gather->Wait(second).ok());
  for (int i = 3; i < 10; ++i) {
    const auto ticket = gather->Launch(pieces);
    ASSERT_TRUE(ticket.ok()) << ticket.status();
    EXPECT_TRUE(gather->Wait(*ticket).ok());
  }
  fake_->is_held = false;
  // Full again, and found out to be free.
  for (int i = 0; i < 5; ++i) ASSERT_TRUE(gather->Launch(pieces).ok());
  EXPECT_EQ(target_, want_);
}

TEST_P(GpuGatherTest, RefusesWhatDoesNotFit) {
  auto gather = Make(Options());
  const std::vector<GatherPiece> many(65, {64, 64, 1});
  const auto refused = gather->Launch(many);
  EXPECT_EQ(refused.status().code(), absl::StatusCode::kInvalidArgument);
  EXPECT_THAT(refused.status().message(), HasSubstr("tiles_per_launch"));
  const GatherPiece beyond = {.from = 0, .to = UINT64_MAX, .bytes = 2};
  EXPECT_EQ(gather->Launch({&beyond, 1}).status().code(),
            absl::StatusCode::kInvalidArgument);
  EXPECT_EQ(gather->Wait(GatherTicket{1}).code(),
            absl::StatusCode::kInvalidArgument);
  EXPECT_EQ(gather->IsDone(GatherTicket{0}).status().code(),
            absl::StatusCode::kInvalidArgument);
  EXPECT_EQ(fake_->launches, 0);
  // No piece at all is a launch, too: its ticket is done in its turn.
  EXPECT_TRUE(gather->Wait(*gather->Launch({})).ok());
  EXPECT_EQ(fake_->launches, 0);

  for (const GpuGatherOptions& none : {GpuGatherOptions{.launches = 0},
                                       GpuGatherOptions{.tiles_per_launch = 0},
                                       GpuGatherOptions{.tile_bytes = 0}}) {
    EXPECT_EQ(GpuGather::Create(*device_, none).status().code(),
              absl::StatusCode::kInvalidArgument);
  }
}

TEST_P(GpuGatherTest, UsesTheApplicationsStream) {
  GpuHandle stream = nullptr;
  ASSERT_EQ(device_->table().stream_create(&stream, 0), 0);
  GpuGatherOptions options = Options();
  options.stream = stream;
  EXPECT_EQ(Make(options)->stream(), stream);
  EXPECT_EQ(fake_->live, is_cuda() ? 2 : 1) << "its stream was destroyed";
  device_->table().stream_destroy(stream);
}

// The device vanishes: the error is told, and told again.
TEST_P(GpuGatherTest, ADeviceErrorIsTheEnd) {
  const struct {
    const char *cuda, *hip;
  } calls[] = {{"cuLaunchKernel", "hipModuleLaunchKernel"},
               {"cuEventRecord", "hipEventRecord"},
               {"cuEventQuery", "hipEventQuery"},
               {"cuEventSynchronize", "hipEventSynchronize"}};
  for (const auto& call : calls) {
    auto gather = Make(Options());
    const std::vector<GatherPiece> pieces = Pieces();
    Fail(call.cuda, call.hip, kGpuLaunchFailed);
    absl::Status seen = gather->Launch(pieces).status();
    if (seen.ok()) {
      seen = call.cuda == std::string("cuEventQuery")
                 ? gather->IsDone(GatherTicket{1}).status()
                 : gather->Wait(GatherTicket{1});
    }
    EXPECT_EQ(seen.code(), absl::StatusCode::kUnavailable) << call.cuda;
    EXPECT_THAT(seen.message(), HasSubstr(is_cuda() ? call.cuda : call.hip));
    FailNothing();
    EXPECT_EQ(gather->Launch(pieces).status(), seen);
    EXPECT_EQ(gather->IsDone(GatherTicket{1}).status(), seen);
    EXPECT_EQ(gather->Wait(GatherTicket{1}), seen);
    // The next gather works.
    auto next = Make(Options());
    EXPECT_TRUE(next->Wait(*next->Launch(pieces)).ok());
    EXPECT_EQ(target_, want_);
  }
}

TEST_P(GpuGatherTest, ANotCurrentDeviceIsTold) {
  auto gather = Make(Options());
  const GatherTicket ticket = *gather->Launch(Pieces());
  Fail("cuCtxPushCurrent_v2", "hipSetDevice", kGpuDeinitialized);
  EXPECT_EQ(gather->Launch({}).status().code(), absl::StatusCode::kUnavailable);
  EXPECT_EQ(gather->IsDone(ticket).status().code(),
            absl::StatusCode::kUnavailable);
  EXPECT_EQ(gather->Wait(ticket).code(), absl::StatusCode::kUnavailable);
  EXPECT_EQ(GpuGather::Create(*device_, Options()).status().code(),
            absl::StatusCode::kUnavailable);
  FailNothing();
}

TEST_P(GpuGatherTest, EveryCallOfMakingItMayFail) {
  const struct {
    const char *cuda, *hip;
  } calls[] = {{"cuMemHostAlloc", "hipHostMalloc"},
               {"cuStreamCreate", "hipStreamCreateWithFlags"},
               {"cuEventCreate", "hipEventCreateWithFlags"}};
  for (const auto& call : calls) {
    Fail(call.cuda, call.hip, kGpuOutOfMemory,
         call.cuda == std::string("cuEventCreate") ? 1 : 0);
    const int before = fake_->live;
    EXPECT_EQ(GpuGather::Create(*device_, Options()).status().code(),
              absl::StatusCode::kResourceExhausted)
        << call.cuda;
    EXPECT_EQ(fake_->live, before) << "leaks after " << call.cuda;
  }
  FailNothing();
}

// Without a compiler CUDA has the PTX of the library, HIP what was named.
TEST_P(GpuGatherTest, PrebuiltWhereTheCompilerIsMissing) {
  GpuGatherOptions options = Options();
  options.compiler_library = "libnot-there.so";
  auto gather = GpuGather::Create(*device_, options);
  if (is_cuda()) {
    ASSERT_TRUE(gather.ok()) << gather.status();
    EXPECT_EQ((*gather)->code_origin(), "PTX of the library");
    EXPECT_THAT(std::string(kGatherKernelPtx),
                HasSubstr(".entry devwire_gather"));
  } else {
    EXPECT_EQ(gather.status().code(), absl::StatusCode::kFailedPrecondition);
    EXPECT_THAT(gather.status().message(), HasSubstr("libnot-there.so"));
    EXPECT_THAT(gather.status().message(), HasSubstr("gather_objects.sh"));
  }
  options.object_file = "not/there";
  gather = GpuGather::Create(*device_, options);
  EXPECT_EQ(gather.status().code(), absl::StatusCode::kFailedPrecondition);
  EXPECT_THAT(gather.status().message(), HasSubstr("cannot read not/there"));
  options.use_compiler = false;
  options.object_file = WriteFile("kernel.hsaco", "an object");
  gather = GpuGather::Create(*device_, options);
  ASSERT_TRUE(gather.ok()) << gather.status();
  EXPECT_EQ((*gather)->code_origin(), options.object_file);
}

TEST_P(GpuGatherTest, ACompilerOrObjectThatFailsIsTold) {
  // The compiled object does not load; nor does the prebuilt one.
  GpuGatherOptions options = Options();
  options.object_file = WriteFile("kernel2.hsaco", "an object");
  Fail("cuModuleLoadData", "hipModuleLoadData", kGpuNoBinary);
  absl::Status s = GpuGather::Create(*device_, options).status();
  EXPECT_EQ(s.code(), absl::StatusCode::kFailedPrecondition);
  EXPECT_THAT(s.message(), HasSubstr("not compiled for this device"));
  EXPECT_THAT(std::string(s.message()),
              StartsWith("no gather kernel for Fake"));
  // It loads, but the kernel is not in it.
  Fail("cuModuleGetFunction", "hipModuleGetFunction", 500);
  s = GpuGather::Create(*device_, options).status();
  EXPECT_EQ(s.code(), absl::StatusCode::kFailedPrecondition);
  EXPECT_THAT(s.message(), HasSubstr("ModuleGetFunction"));
  // The compiler refuses, and the prebuilt object serves.
  Fail("nvrtcCompileProgram", "hiprtcCompileProgram", 6);
  EXPECT_EQ(Make(options)->code_origin(), options.object_file);
  if (!is_cuda()) return;
  for (int skip : {0, 1}) {  // The device does not tell what it is.
    Fail("cuDeviceGetAttribute", "", 999, skip);
    EXPECT_EQ(Make(options)->code_origin(), options.object_file);
  }
}

}  // namespace
}  // namespace devwire
