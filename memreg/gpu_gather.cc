#include "memreg/gpu_gather.h"

#include <algorithm>
#include <fstream>
#include <iterator>
#include <span>
#include <utility>

#include "absl/strings/str_format.h"
#include "memreg/gather_code.h"
#include "memreg/gpu_compiler.h"

namespace devwire {
namespace {

constexpr uint32_t kBlockThreads = 256;  // gather_kernel.cu
constexpr uint32_t kTileThreads = 32;
constexpr uint32_t kTilesPerBlock = kBlockThreads / kTileThreads;
// More tiles come round again: a grid has at most 2^31 - 1 blocks.
constexpr uint32_t kMaxBlocks = 1u << 20;

}  // namespace

absl::StatusOr<std::unique_ptr<GpuGather>> GpuGather::Create(
    const GpuDevice& device, const GpuGatherOptions& options) {
  if (options.launches == 0 || options.tiles_per_launch == 0 ||
      options.tile_bytes == 0) {
    return absl::InvalidArgumentError(
        "a gather needs at least one launch, one tile and one byte a tile");
  }
  const GpuScope scope(device);
  if (!scope.status().ok()) return scope.status();
  std::unique_ptr<GpuGather> gather(new GpuGather(device, options));
  if (absl::Status s = gather->LoadCode(); !s.ok()) return s;
  if (absl::Status s = gather->TakeMemory(); !s.ok()) return s;
  return gather;
}

absl::Status GpuGather::LoadCode() {
  absl::Status compiled = absl::FailedPreconditionError("not asked for");
  if (options_.use_compiler) compiled = LoadCompiled();
  if (compiled.ok()) return compiled;
  const absl::Status prebuilt = LoadPrebuilt();
  if (prebuilt.ok()) return prebuilt;
  return absl::FailedPreconditionError(
      absl::StrFormat("no gather kernel for %s: compiling it: %s; an object "
                      "compiled before: %s",
                      device_.name(), compiled.message(), prebuilt.message()));
}

absl::Status GpuGather::LoadCompiled() {
  const GpuRuntime& runtime = device_.runtime();
  absl::StatusOr<GpuCompiler> compiler =
      LoadGpuCompiler(runtime.vendor, options_.compiler_library);
  if (!compiler.ok()) return compiler.status();
  // hipRTC compiles for the current device when it is told none.
  std::vector<std::string> arguments = {"-std=c++17"};
  if (runtime.vendor == GpuVendor::kCuda) {
    const auto major = device_.Attribute(runtime.attributes.compute_major);
    if (!major.ok()) return major.status();
    const auto minor = device_.Attribute(runtime.attributes.compute_minor);
    if (!minor.ok()) return minor.status();
    arguments.push_back(
        absl::StrFormat("--gpu-architecture=sm_%d%d", *major, *minor));
  }
  arguments.insert(arguments.end(), options_.compiler_options.begin(),
                   options_.compiler_options.end());
  absl::StatusOr<std::string> image =
      compiler->Compile(kGatherKernelSource, arguments);
  if (!image.ok()) return image.status();
  code_origin_ = compiler->library;
  return LoadModule(*image);
}

absl::Status GpuGather::LoadPrebuilt() {
  if (!options_.object_file.empty()) {
    std::ifstream file(options_.object_file, std::ios::binary);
    const std::string image((std::istreambuf_iterator<char>(file)), {});
    if (image.empty()) {
      return absl::NotFoundError(
          absl::StrFormat("cannot read %s", options_.object_file));
    }
    code_origin_ = options_.object_file;
    return LoadModule(image);
  }
  if (device_.runtime().vendor == GpuVendor::kHip) {
    return absl::NotFoundError(
        "none was named; memreg/gather_objects.sh makes them");
  }
  code_origin_ = "PTX of the library";
  return LoadModule(kGatherKernelPtx);
}

absl::Status GpuGather::LoadModule(const std::string& image) {
  GpuHandle module = nullptr;
  absl::Status s =
      device_.Check(device_.table().module_load_data(&module, image.c_str()),
                    "cuModuleLoadData", "hipModuleLoadData");
  if (!s.ok()) return s;
  s = device_.Check(
      device_.table().module_get_function(&function_, module, "devwire_gather"),
      "cuModuleGetFunction", "hipModuleGetFunction");
  if (!s.ok()) {
    device_.table().module_unload(module);
    return s;
  }
  module_ = module;
  return s;
}

absl::Status GpuGather::TakeMemory() {
  const GpuTable& t = device_.table();
  const size_t bytes =
      sizeof(GatherTile) * options_.launches * options_.tiles_per_launch;
  void* ring = nullptr;
  absl::Status s = device_.Check(t.host_alloc(&ring, bytes, 0),
                                 "cuMemHostAlloc", "hipHostMalloc");
  if (!s.ok()) return s;
  ring_ = static_cast<GatherTile*>(ring);
  if (options_.stream != nullptr) {
    stream_ = options_.stream;
  } else {
    GpuHandle stream = nullptr;
    s = device_.Check(t.stream_create(&stream, kGpuStreamNonBlocking),
                      "cuStreamCreate", "hipStreamCreateWithFlags");
    if (!s.ok()) return s;
    stream_ = stream;
  }
  for (uint32_t i = 0; i < options_.launches; ++i) {
    GpuHandle event = nullptr;
    s = device_.Check(t.event_create(&event, kGpuEventDisableTiming),
                      "cuEventCreate", "hipEventCreateWithFlags");
    if (!s.ok()) return s;
    events_.push_back(event);
  }
  return s;
}

GpuGather::~GpuGather() {
  const GpuScope scope(device_);
  if (!scope.status().ok()) return;  // The driver is closed: nothing is left.
  const GpuTable& t = device_.table();
  if (stream_ != nullptr) t.stream_synchronize(stream_);
  for (const GpuHandle event : events_) t.event_destroy(event);
  if (stream_ != nullptr && options_.stream == nullptr) {
    t.stream_destroy(stream_);
  }
  if (ring_ != nullptr) t.host_free(ring_);
  if (module_ != nullptr) t.module_unload(module_);
}

absl::StatusOr<GatherTicket> GpuGather::Launch(
    std::span<const GatherPiece> pieces) {
  if (!failure_.ok()) return failure_;
  if (absl::Status s = CheckPieces(pieces); !s.ok()) return s;
  const GpuScope scope(device_);
  if (!scope.status().ok()) return scope.status();
  if (launched_ - done_ == options_.launches) {
    const absl::StatusOr<bool> is_free = Poll(done_ + 1);
    if (!is_free.ok()) return is_free.status();
    if (!*is_free) {
      return absl::ResourceExhaustedError(absl::StrFormat(
          "%u gather launches are under way, as many as there may be: Wait for "
          "one, or ask for more in GpuGatherOptions::launches",
          options_.launches));
    }
  }
  const uint32_t slot = SlotOf(launched_ + 1);
  const size_t count =
      CutTiles(pieces, options_.tile_bytes,
               std::span(ring_ + size_t{slot} * options_.tiles_per_launch,
                         options_.tiles_per_launch));
  if (count > options_.tiles_per_launch) {
    return absl::InvalidArgumentError(absl::StrFormat(
        "%u pieces are %u tiles, and a launch has %u: launch fewer, or ask for "
        "more in GpuGatherOptions::tiles_per_launch",
        pieces.size(), count, options_.tiles_per_launch));
  }
  if (absl::Status s = Submit(slot, static_cast<uint32_t>(count)); !s.ok()) {
    failure_ = s;
    return s;
  }
  return GatherTicket{++launched_};
}

absl::Status GpuGather::Submit(uint32_t slot, uint32_t count) {
  const GpuTable& t = device_.table();
  if (count > 0) {
    const size_t first = size_t{slot} * options_.tiles_per_launch;
    // Pinned memory has one address for both (unified addressing).
    GpuAddress tiles = reinterpret_cast<GpuAddress>(ring_ + first);
    const uint32_t blocks =
        std::min((count + kTilesPerBlock - 1) / kTilesPerBlock, kMaxBlocks);
    uint32_t groups = blocks * kTilesPerBlock;
    void* parameters[] = {&tiles, &count, &groups};
    const absl::Status s =
        device_.Check(t.launch_kernel(function_, blocks, 1, 1, kBlockThreads, 1,
                                      1, 0, stream_, parameters, nullptr),
                      "cuLaunchKernel", "hipModuleLaunchKernel");
    if (!s.ok()) return s;
  }
  return device_.Check(t.event_record(events_[slot], stream_), "cuEventRecord",
                       "hipEventRecord");
}

absl::StatusOr<bool> GpuGather::Poll(uint64_t number) {
  if (number <= done_) return true;
  const int result = device_.table().event_query(events_[SlotOf(number)]);
  if (result == kGpuNotReady) return false;
  failure_ = device_.Check(result, "cuEventQuery", "hipEventQuery");
  if (!failure_.ok()) return failure_;
  done_ = number;
  return true;
}

absl::StatusOr<bool> GpuGather::IsDone(GatherTicket ticket) {
  if (!failure_.ok()) return failure_;
  if (absl::Status s = CheckTicket(ticket, launched_); !s.ok()) return s;
  const GpuScope scope(device_);
  if (!scope.status().ok()) return scope.status();
  return Poll(static_cast<uint64_t>(ticket));
}

absl::Status GpuGather::Wait(GatherTicket ticket) {
  if (!failure_.ok()) return failure_;
  if (absl::Status s = CheckTicket(ticket, launched_); !s.ok()) return s;
  const uint64_t number = static_cast<uint64_t>(ticket);
  if (number <= done_) return absl::OkStatus();
  const GpuScope scope(device_);
  if (!scope.status().ok()) return scope.status();
  failure_ =
      device_.Check(device_.table().event_synchronize(events_[SlotOf(number)]),
                    "cuEventSynchronize", "hipEventSynchronize");
  if (failure_.ok()) done_ = number;
  return failure_;
}

}  // namespace devwire
