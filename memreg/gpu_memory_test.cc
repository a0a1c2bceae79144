// GpuMemory over a fake GPU.
#include "memreg/gpu_memory.h"

#include <sys/stat.h>

#include <cstring>
#include <vector>

#include "gmock/gmock.h"
#include "memreg/fake_gpu_loaded.h"

namespace devwire {
namespace {

using testing::HasSubstr;

constexpr size_t kMiB = 1u << 20;

class GpuMemoryTest : public OnFakeGpu {
 protected:
  std::unique_ptr<GpuMemory> Make(size_t bytes) {
    auto memory =
        GpuMemory::Allocate(*device_, bytes, {.hsa_library = library_});
    EXPECT_TRUE(memory.ok()) << memory.status();
    return *std::move(memory);
  }
  std::vector<std::byte> Pattern(size_t bytes) {
    std::vector<std::byte> out(bytes);
    for (size_t i = 0; i < bytes; ++i) out[i] = static_cast<std::byte>(i * 7);
    return out;
  }
  // As if the library did not have these calls: what LoadGpuRuntime leaves
  // then (gpu_runtime_test.cc).
  void Reopen() {
    device_.reset();
    Open();
  }
};
INSTANTIATE_TEST_SUITE_P(Vendors, GpuMemoryTest,
                         testing::Values(GpuVendor::kCuda, GpuVendor::kHip));

TEST_P(GpuMemoryTest, AllocatesAndCopies) {
  auto memory = Make(3 * kMiB);
  EXPECT_EQ(memory->name(), is_cuda() ? "cuda" : "hip");
  EXPECT_EQ(memory->bytes(), 4 * kMiB);
  const std::vector<std::byte> data = Pattern(1000);
  ASSERT_TRUE(memory->CopyIn(4 * kMiB - 1000, data).ok());
  std::vector<std::byte> out(1000);
  ASSERT_TRUE(memory->CopyOut(4 * kMiB - 1000, out).ok());
  EXPECT_EQ(out, data);
  EXPECT_EQ(memory->CopyIn(4 * kMiB - 999, data).code(),
            absl::StatusCode::kOutOfRange);
  EXPECT_EQ(memory->CopyOut(UINT64_MAX, out).code(),
            absl::StatusCode::kOutOfRange);
}

TEST_P(GpuMemoryTest, AllocationMayFail) {
  EXPECT_EQ(GpuMemory::Allocate(*device_, 0).status().code(),
            absl::StatusCode::kInvalidArgument);
  EXPECT_EQ(GpuMemory::Allocate(*device_, SIZE_MAX).status().code(),
            absl::StatusCode::kInvalidArgument);
  const struct {
    const char *cuda, *hip;
  } calls[] = {{"cuMemAlloc_v2", "hipMalloc"},
               {"cuMemHostAlloc", "hipHostMalloc"},
               {"cuStreamCreate", "hipStreamCreateWithFlags"}};
  for (const auto& call : calls) {
    Fail(call.cuda, call.hip, kGpuOutOfMemory);
    const int before = fake_->live;
    EXPECT_EQ(GpuMemory::Allocate(*device_, 1).status().code(),
              absl::StatusCode::kResourceExhausted);
    EXPECT_EQ(fake_->live, before) << "leaks after " << call.cuda;
  }
  FailNothing();
}

TEST_P(GpuMemoryTest, RegistersPagesOfOneAllocation) {
  auto whole = Make(2 * kMiB);
  const GpuAddress at = whole->address();
  {
    auto part = GpuMemory::Register(*device_, at + 8192, 4096);
    ASSERT_TRUE(part.ok()) << part.status();
    ASSERT_TRUE((*part)->CopyIn(0, Pattern(4096)).ok());
  }
  std::vector<std::byte> out(4096);
  ASSERT_TRUE(whole->CopyOut(8192, out).ok()) << "it was not ours to free";
  EXPECT_EQ(out, Pattern(4096));
  const struct {
    GpuAddress address;
    size_t bytes;
  } bad[] = {{at, 0},
             {at + 1, 4096},
             {at, 4097},
             {at, 2 * kMiB + 4096},
             {at + 2 * kMiB - 4096, 8192}};
  for (const auto& range : bad) {
    EXPECT_EQ(GpuMemory::Register(*device_, range.address, range.bytes)
                  .status()
                  .code(),
              absl::StatusCode::kInvalidArgument)
        << range.address - at << " " << range.bytes;
  }
  Fail("cuMemGetAddressRange_v2", "hipMemGetAddressRange", 1);
  EXPECT_EQ(GpuMemory::Register(*device_, at, 4096).status().code(),
            absl::StatusCode::kInternal);
  Fail("cuMemHostAlloc", "hipHostMalloc", kGpuOutOfMemory);
  EXPECT_EQ(GpuMemory::Register(*device_, at, 4096).status().code(),
            absl::StatusCode::kResourceExhausted);
  FailNothing();
}

TEST_P(GpuMemoryTest, Exports) {
  auto memory = Make(kMiB);
  const auto buffer = memory->Export();
  ASSERT_TRUE(buffer.ok()) << buffer.status();
  EXPECT_EQ(buffer->bytes(), 2 * kMiB);
  EXPECT_EQ(buffer->origin(), memory->name());
  struct stat info;
  ASSERT_EQ(fstat(buffer->fd(), &info), 0);
  EXPECT_EQ(static_cast<size_t>(info.st_size), 2 * kMiB);
  Fail("cuMemGetHandleForAddressRange", "hipMemGetHandleForAddressRange",
       kGpuNotSupported);
  const absl::Status refused = memory->Export().status();
  EXPECT_EQ(refused.code(), absl::StatusCode::kUnimplemented);
  EXPECT_THAT(refused.message(), HasSubstr("open kernel modules"));
  FailNothing();
}

TEST_P(GpuMemoryTest, ExportSaysWhatIsMissing) {
  if (is_cuda()) {
    fake_->dmabuf_supported = 0;
    EXPECT_THAT(Make(1)->Export().status().message(),
                HasSubstr("DMA_BUF_SUPPORTED 0"));
    Fail("cuDeviceGetAttribute", "", 999, 2);  // The first two at Allocate.
    auto memory = Make(1);
    EXPECT_EQ(memory->Export().status().code(), absl::StatusCode::kUnavailable);
    FailNothing();
  }
  runtime_.table.mem_get_handle_for_address_range = nullptr;
  Reopen();
  auto memory = Make(1);
  if (is_cuda()) {
    const absl::Status s = memory->Export().status();
    EXPECT_EQ(s.code(), absl::StatusCode::kUnimplemented);
    EXPECT_THAT(s.message(), HasSubstr("no cuMemGetHandleForAddressRange"));
    EXPECT_THAT(s.message(), HasSubstr("5.12"));
    return;
  }
  // ROCm before 7: HSA's call.
  EXPECT_EQ(memory->Export()->origin(), "hsa");
  fake_->dmabuf_offset = 4096;
  EXPECT_THAT(memory->Export().status().message(),
              HasSubstr("begins 4096 bytes before"));
  Fail("", "hsa_amd_portable_export_dmabuf", 4096);
  EXPECT_EQ(memory->Export().status().code(), absl::StatusCode::kUnimplemented);
  FailNothing();
  for (const char* library : {"libnot-there.so", "libc.so.6"}) {
    auto other = GpuMemory::Allocate(*device_, 1, {.hsa_library = library});
    ASSERT_TRUE(other.ok());
    const absl::Status s = (*other)->Export().status();
    EXPECT_EQ(s.code(), library[3] == 'n'
                            ? absl::StatusCode::kNotFound
                            : absl::StatusCode::kFailedPrecondition);
    EXPECT_THAT(s.message(), HasSubstr("ROCm 5.6"));
  }
}

// cuda.h: a flush is needed unless the ordering is at least the scope.
TEST_P(GpuMemoryTest, MakesVisibleByAFlushWhereTheDeviceDoesNotOrder) {
  if (!is_cuda()) {
    // HIP 5.2 has neither attribute: nothing is promised.
    auto memory = Make(1);
    EXPECT_TRUE(memory->needs_make_visible());
    EXPECT_EQ(memory->visibility().code(), absl::StatusCode::kUnimplemented);
    memory->MakeVisible();
    EXPECT_EQ(fake_->flushes, 0);
    std::byte out[1];
    const OptionTail tail = {.offset = 0, .length = 1, .out = out};
    EXPECT_FALSE(memory->ReadOptionTails({&tail, 1}));
    return;
  }
  for (int ordering : {0, 100, 200}) {
    fake_->writes_ordering = ordering;
    fake_->flushes = 0;
    auto memory = Make(1);
    EXPECT_TRUE(memory->visibility().ok());
    EXPECT_EQ(memory->needs_make_visible(), ordering == 0);
    memory->MakeVisible();
    EXPECT_EQ(fake_->flushes, ordering == 0 ? 1 : 0);
  }
  fake_->writes_ordering = 0;
  fake_->flush_options = 2;  // Streams can flush, the host cannot.
  EXPECT_EQ(Make(1)->visibility().code(), absl::StatusCode::kUnimplemented);
  fake_->flush_options = 1;
  for (int skip : {0, 1}) {
    Fail("cuDeviceGetAttribute", "", 1, skip);
    EXPECT_EQ(Make(1)->visibility().code(), absl::StatusCode::kUnimplemented);
  }
  FailNothing();
  runtime_.table.flush_gpu_direct_writes = nullptr;
  Reopen();
  EXPECT_EQ(Make(1)->visibility().code(), absl::StatusCode::kUnimplemented);
}

class CudaMemoryTest : public GpuMemoryTest {};
INSTANTIATE_TEST_SUITE_P(Cuda, CudaMemoryTest,
                         testing::Values(GpuVendor::kCuda));

TEST_P(CudaMemoryTest, ReadsOptionTailsInBatches) {
  auto memory = Make(1);
  const std::vector<std::byte> data = Pattern(2 * kMiB);
  ASSERT_TRUE(memory->CopyIn(0, data).ok());
  std::vector<OptionTail> tails;
  std::vector<std::byte> out(150 * kMaxOptionTailBytes);
  for (uint32_t i = 0; i < 150; ++i) {
    tails.push_back({.offset = i * 9001,
                     .length = 1 + i % kMaxOptionTailBytes,
                     .out = out.data() + i * kMaxOptionTailBytes});
  }
  ASSERT_TRUE(memory->ReadOptionTails(tails));
  EXPECT_EQ(fake_->flushes, 1);
  for (const OptionTail& t : tails) {
    EXPECT_EQ(memcmp(t.out, data.data() + t.offset, t.length), 0) << t.offset;
  }
  EXPECT_TRUE(memory->ReadOptionTails({}));
}

TEST_P(CudaMemoryTest, OptionTailsThatCannotBeRead) {
  auto memory = Make(1);
  std::byte out[kMaxOptionTailBytes + 1] = {};
  for (const OptionTail& bad :
       {OptionTail{.offset = 0, .length = 0, .out = out},
        OptionTail{.offset = 0, .length = kMaxOptionTailBytes + 1, .out = out},
        OptionTail{.offset = 2 * kMiB, .length = 1, .out = out}}) {
    EXPECT_FALSE(memory->ReadOptionTails({&bad, 1}));
  }
  ASSERT_TRUE(memory->CopyIn(0, Pattern(40)).ok());
  const OptionTail tail = {.offset = 1, .length = 4, .out = out};
  for (const char* call :
       {"cuMemcpyDtoHAsync_v2", "cuStreamSynchronize", "cuCtxPushCurrent_v2"}) {
    Fail(call, "", 719, call == std::string("cuCtxPushCurrent_v2") ? 1 : 0);
    EXPECT_FALSE(memory->ReadOptionTails({&tail, 1})) << call;
    EXPECT_EQ(out[0], std::byte{0}) << "nothing is written then";
  }
  FailNothing();
  EXPECT_TRUE(memory->ReadOptionTails({&tail, 1}));
  EXPECT_EQ(out[0], std::byte{7});
}

// What fails once is not visible ever after, and the reason is kept.
TEST_P(CudaMemoryTest, AFlushThatFailsIsKept) {
  for (const char* call :
       {"cuFlushGPUDirectRDMAWrites", "cuCtxPushCurrent_v2"}) {
    auto memory = Make(1);
    Fail(call, "", 719);
    memory->MakeVisible();
    FailNothing();
    EXPECT_EQ(memory->visibility().code(), absl::StatusCode::kUnavailable);
    std::byte out[1];
    const OptionTail tail = {.offset = 0, .length = 1, .out = out};
    EXPECT_FALSE(memory->ReadOptionTails({&tail, 1}));
  }
}

TEST_P(GpuMemoryTest, ANotCurrentDeviceIsTold) {
  auto memory = Make(1);
  std::vector<std::byte> bytes(1);
  Fail("cuCtxPushCurrent_v2", "hipGetDevice", kGpuDeinitialized);
  EXPECT_EQ(memory->CopyIn(0, bytes).code(), absl::StatusCode::kUnavailable);
  EXPECT_EQ(memory->CopyOut(0, bytes).code(), absl::StatusCode::kUnavailable);
  EXPECT_EQ(memory->Export().status().code(), absl::StatusCode::kUnavailable);
  EXPECT_EQ(GpuMemory::Allocate(*device_, 1).status().code(),
            absl::StatusCode::kUnavailable);
  EXPECT_EQ(
      GpuMemory::Register(*device_, memory->address(), 4096).status().code(),
      absl::StatusCode::kUnavailable);
  Fail("cuMemcpyHtoD_v2", "hipMemcpyHtoD", 700);
  EXPECT_EQ(memory->CopyIn(0, bytes).code(), absl::StatusCode::kUnavailable);
  Fail("cuMemcpyDtoH_v2", "hipMemcpyDtoH", 700);
  EXPECT_EQ(memory->CopyOut(0, bytes).code(), absl::StatusCode::kUnavailable);
  FailNothing();
}

}  // namespace
}  // namespace devwire
