// The paths that need a GPU: what it is, allocation and export, the gather
// against a reference, and how fast it is beside the vendor's own copies.
//
//   gpu_test [--vendor cuda|hip] [--runtime LIBRARY] [--compiler LIBRARY]
//            [--object FILE] [--seed N] [--runs N] [--json FILE] [--tune]
//
// Exit status: 0 all is right; 1 wrong data or an error; 77 there is no GPU,
// and the last line says what is missing. --tune times variants of the kernel.
#include <getopt.h>

#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <fstream>
#include <functional>
#include <memory>
#include <nlohmann/json.hpp>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include "absl/strings/str_format.h"
#include "base/prng.h"
#include "memreg/gather.h"
#include "memreg/gpu_device.h"
#include "memreg/gpu_gather.h"
#include "memreg/gpu_memory.h"
#include "memreg/symbol_loader.h"

namespace devwire {
namespace {

constexpr int kSkipped = 77;  // As Automake's tests say it.
constexpr uint64_t kMiB = 1u << 20;
constexpr std::byte kPoison{0xa5};

struct Settings {
  GpuVendor vendor = GpuVendor::kCuda;
  std::string runtime, json_file;
  GpuGatherOptions gather;
  uint64_t seed = 1;
  int runs = 31;
  bool tune = false;
};

void Must(const absl::Status& status) {
  if (status.ok()) return;
  absl::FPrintF(stderr, "gpu_test: %s\n", status.message());
  std::exit(1);
}
template <typename T>
T Must(absl::StatusOr<T> result) {
  Must(result.status());
  return *std::move(result);
}

// Memory of the device; must be there, so no Status.
class Buffer {
 public:
  Buffer(const GpuDevice& device, uint64_t bytes)
      : device_(device), bytes_(bytes) {
    Must(device.Check(device.table().mem_alloc(&address_, bytes), "cuMemAlloc",
                      "hipMalloc"));
  }
  Buffer(const Buffer&) = delete;
  Buffer& operator=(const Buffer&) = delete;
  ~Buffer() { device_.table().mem_free(address_); }

  uint64_t address() const { return address_; }
  uint64_t bytes() const { return bytes_; }
  void Write(uint64_t offset, const std::vector<std::byte>& from) {
    Must(device_.Check(device_.table().memcpy_htod(address_ + offset,
                                                   from.data(), from.size()),
                       "cuMemcpyHtoD", "hipMemcpyHtoD"));
  }
  std::vector<std::byte> Read(uint64_t offset, uint64_t bytes) const {
    std::vector<std::byte> out(bytes);
    Must(device_.Check(
        device_.table().memcpy_dtoh(out.data(), address_ + offset, bytes),
        "cuMemcpyDtoH", "hipMemcpyDtoH"));
    return out;
  }
  // `pattern` again and again, up to `bytes`.
  void Fill(const std::vector<std::byte>& pattern, uint64_t bytes) {
    for (uint64_t at = 0; at < bytes; at += pattern.size()) {
      const uint64_t n = std::min<uint64_t>(pattern.size(), bytes - at);
      Must(device_.Check(
          device_.table().memcpy_htod(address_ + at, pattern.data(), n),
          "cuMemcpyHtoD", "hipMemcpyHtoD"));
    }
  }

 private:
  const GpuDevice& device_;
  const uint64_t bytes_;
  GpuAddress address_ = 0;
};

std::vector<std::byte> RandomBytes(Prng& prng, uint64_t bytes) {
  std::vector<std::byte> out(bytes);
  for (std::byte& b : out) b = static_cast<std::byte>(prng.Next32());
  return out;
}

// -- correctness --------------------------------------------------------------

struct Layout {
  std::vector<GatherPiece> pieces;  // Offsets, not addresses.
};

// Pieces of several streams: each stream has a destination of its own, pieces
// follow one another there with a gap now and then.
Layout RandomLayout(Prng& prng, uint64_t source_bytes, uint64_t target_bytes) {
  Layout layout;
  const bool has_large = prng.Chance(0.3);
  const int streams = static_cast<int>(prng.Between(1, 5));
  for (int s = 0; s < streams; ++s) {
    uint64_t to = target_bytes / streams * s + prng.Below(64);
    const uint64_t end = target_bytes / streams * (s + 1);
    const int64_t most = has_large && prng.Chance(0.5) ? kMiB : 9216;
    for (int i = 0; i < 400; ++i) {
      const uint32_t bytes = static_cast<uint32_t>(
          prng.Chance(0.2) ? prng.Between(1, 40) : prng.Between(1, most));
      if (prng.Chance(0.1)) to += prng.Below(300);
      if (to + bytes > end) break;
      layout.pieces.push_back({.from = prng.Below(source_bytes - bytes + 1),
                               .to = to,
                               .bytes = bytes});
      to += bytes;
    }
  }
  return layout;
}

uint64_t CheckGather(const GpuDevice& device, const Settings& settings,
                     const GpuGatherOptions& options, int rounds) {
  Prng prng(settings.seed);
  constexpr uint64_t kSource = 16 * kMiB + 48, kTarget = 16 * kMiB + 16;
  const std::vector<std::byte> data = RandomBytes(prng, kSource);
  Buffer source(device, kSource), target(device, kTarget);
  source.Write(0, data);
  auto gather = Must(GpuGather::Create(device, options));
  uint64_t checked = 0;
  for (int round = 0; round < rounds; ++round) {
    const Layout layout = RandomLayout(prng, kSource, kTarget);
    std::vector<std::byte> want(kTarget, kPoison);
    target.Write(0, want);
    std::vector<GatherPiece> pieces = layout.pieces;
    for (GatherPiece& p : pieces) {
      memcpy(want.data() + p.to, data.data() + p.from, p.bytes);
      checked += p.bytes;
      p.from += source.address();
      p.to += target.address();
    }
    // In two launches, so that they are under way together.
    const size_t half = pieces.size() / 2;
    Must(gather->Launch(std::span(pieces).first(half)).status());
    Must(gather->Wait(Must(gather->Launch(std::span(pieces).subspan(half)))));
    const std::vector<std::byte> got = target.Read(0, kTarget);
    if (got == want) continue;
    const auto at =
        std::mismatch(got.begin(), got.end(), want.begin()).first - got.begin();
    absl::FPrintF(stderr, "gpu_test: WRONG DATA: seed %u round %d byte %d\n",
                  settings.seed, round, at);
    std::exit(1);
  }
  return checked;
}

// -- memory
// --------------------------------------------------------------------

// The provider: copies, option tails and what export answers. A refusal is no
// error: many virtual machines and drivers cannot export.
nlohmann::json CheckMemory(const GpuDevice& device, const Settings& settings) {
  Prng prng(settings.seed);
  auto memory = Must(GpuMemory::Allocate(device, 64 * kMiB));
  const std::vector<std::byte> data = RandomBytes(prng, 64 * kMiB);
  Must(memory->CopyIn(0, data));
  std::vector<std::byte> out(1 * kMiB + 1);
  Must(memory->CopyOut(12345, out));
  bool is_right = memcmp(out.data(), data.data() + 12345, out.size()) == 0;
  std::vector<OptionTail> tails;
  std::vector<std::byte> tail_bytes(200 * kMaxOptionTailBytes);
  for (uint32_t i = 0; i < 200; ++i) {
    tails.push_back({.offset = prng.Below(60 * kMiB),
                     .length = 1 + i % kMaxOptionTailBytes,
                     .out = tail_bytes.data() + i * kMaxOptionTailBytes});
  }
  const bool reads_tails = memory->ReadOptionTails(tails);
  for (const OptionTail& t : tails) {
    is_right =
        is_right &&
        (!reads_tails || memcmp(t.out, data.data() + t.offset, t.length) == 0);
  }
  if (!is_right) {
    absl::FPrintF(stderr, "gpu_test: WRONG DATA copied\n");
    std::exit(1);
  }
  const absl::StatusOr<DmaBuf> buffer = memory->Export();
  if (!buffer.ok() && !absl::IsUnimplemented(buffer.status())) {
    Must(buffer.status());
  }
  const std::string exported =
      buffer.ok() ? absl::StrFormat("a dmabuf of %u bytes", buffer->bytes())
                  : std::string(buffer.status().message());
  const std::string visible =
      !memory->needs_make_visible() ? "ordered by the device"
      : memory->visibility().ok()   ? "by a flush"
                                  : std::string(memory->visibility().message());
  const auto part =
      GpuMemory::Register(device, memory->address() + 65536, 2 * kMiB);
  Must(part.status());
  absl::PrintF(
      "memory: copies are right; option tails %s; a NIC's writes: %s\n",
      reads_tails ? "are right" : "cannot be read", visible);
  absl::PrintF("export: %s\n", exported);
  return {{"export", exported},
          {"exported", buffer.ok()},
          {"visible", visible},
          {"reads_option_tails", reads_tails}};
}

// -- speed --------------------------------------------------------------------

// One way to move the frags, timed with events around it.
struct Sample {
  std::string name;
  uint64_t bytes = 0;
  std::vector<double> gigabytes_per_second;  // Sorted; bytes moved once.

  double median() const {
    return gigabytes_per_second[gigabytes_per_second.size() / 2];
  }
};

class Stopwatch {
 public:
  explicit Stopwatch(const GpuDevice& device) : device_(device) {
    for (GpuHandle* e : {&start_, &end_}) {
      Must(device.Check(device.table().event_create(e, 0), "cuEventCreate",
                        "hipEventCreateWithFlags"));
    }
  }
  Stopwatch(const Stopwatch&) = delete;
  Stopwatch& operator=(const Stopwatch&) = delete;
  ~Stopwatch() {
    device_.table().event_destroy(start_);
    device_.table().event_destroy(end_);
  }

  // `work` is called once for warming up, then `runs` times. What `before` puts
  // on the stream goes first and is not timed: when it takes longer than the
  // CPU needs for `work`, the time is the device's alone.
  Sample Time(std::string name, uint64_t bytes, int runs, GpuHandle stream,
              const std::function<void()>& before,
              const std::function<void()>& work) {
    Sample sample = {.name = std::move(name), .bytes = bytes};
    const GpuTable& t = device_.table();
    for (int i = -1; i < runs; ++i) {
      before();
      t.event_record(start_, stream);
      work();
      t.event_record(end_, stream);
      Must(device_.Check(t.event_synchronize(end_), "cuEventSynchronize",
                         "hipEventSynchronize"));
      float ms = 0;
      Must(device_.Check(t.event_elapsed_time(&ms, start_, end_),
                         "cuEventElapsedTime", "hipEventElapsedTime"));
      if (i >= 0) {
        sample.gigabytes_per_second.push_back(static_cast<double>(bytes) / ms /
                                              1e6);
      }
    }
    std::sort(sample.gigabytes_per_second.begin(),
              sample.gigabytes_per_second.end());
    return sample;
  }

 private:
  const GpuDevice& device_;
  GpuHandle start_ = nullptr, end_ = nullptr;
};

// Frags of one size at odd offsets in slots that follow one another in no
// order; the destination is contiguous.
struct Bench {
  uint32_t frag_bytes, slot_bytes;
  uint64_t frags;
};

std::vector<GatherPiece> BenchPieces(Prng& prng, const Bench& bench,
                                     uint64_t from, uint64_t to) {
  std::vector<uint64_t> order(bench.frags);
  for (uint64_t i = 0; i < bench.frags; ++i) order[i] = i;
  for (uint64_t i = bench.frags; i > 1; --i) {
    std::swap(order[i - 1], order[prng.Below(i)]);
  }
  std::vector<GatherPiece> pieces(bench.frags);
  for (uint64_t i = 0; i < bench.frags; ++i) {
    const uint64_t odd =
        prng.Below((bench.slot_bytes - bench.frag_bytes) / 2) * 2 + 1;
    pieces[i] = {.from = from + order[i] * bench.slot_bytes + odd,
                 .to = to + i * bench.frag_bytes,
                 .bytes = bench.frag_bytes};
  }
  return pieces;
}

// The target holds what the pieces say; source is `pattern` again and again.
void VerifyBench(std::span<const GatherPiece> pieces, const Buffer& source,
                 const Buffer& target, const std::vector<std::byte>& pattern) {
  const uint64_t total = pieces.size() * pieces[0].bytes;
  const std::vector<std::byte> got = target.Read(0, total);
  for (const GatherPiece& p : pieces) {
    const std::byte* at = got.data() + (p.to - target.address());
    uint64_t in_pattern = (p.from - source.address()) % pattern.size();
    for (uint32_t done = 0; done < p.bytes;) {
      const uint64_t n =
          std::min<uint64_t>(p.bytes - done, pattern.size() - in_pattern);
      if (memcmp(at + done, pattern.data() + in_pattern, n) != 0) {
        absl::FPrintF(stderr, "gpu_test: WRONG DATA in the bench's target\n");
        std::exit(1);
      }
      done += static_cast<uint32_t>(n);
      in_pattern = 0;
    }
  }
}

using MemcpyBatch = int (*)(GpuAddress* to, GpuAddress* from, size_t* bytes,
                            size_t count, void* attributes,
                            size_t* attribute_indexes, size_t attribute_count,
                            GpuHandle stream);

// cuMemcpyBatchAsync of CUDA 13, null before it; its attributes are as
// <cuda.h> has them: source access order, two locations, flags.
MemcpyBatch LoadMemcpyBatch(const GpuRuntime& runtime) {
  const std::string names[] = {runtime.library};
  auto loader = SymbolLoader::Open(names, "");
  int (*call)(GpuAddress*, GpuAddress*, size_t*, size_t, void*, size_t*, size_t,
              GpuHandle) = nullptr;
  if (loader.ok()) loader->Optional("cuMemcpyBatchAsync_v2", &call);
  return call;
}

struct BatchAttributes {
  int source_access_order = 1;  // CU_MEMCPY_SRC_ACCESS_ORDER_STREAM
  int locations[4] = {};
  unsigned flags = 0;
};

class SpeedTest {
 public:
  SpeedTest(const GpuDevice& device, const Settings& settings)
      : device_(device),
        settings_(settings),
        prng_(settings.seed),
        watch_(device),
        pattern_(RandomBytes(prng_, 32 * kMiB - 40)),
        source_(device, 3072 * kMiB),
        target_(device, 2304 * kMiB) {
    source_.Fill(pattern_, source_.bytes());
  }

  // One line a way: rate, spread and ratio to the plain copy of as many bytes.
  void Run(const Bench& bench, const std::vector<GpuGatherOptions>& variants) {
    const uint64_t bytes = bench.frags * bench.frag_bytes;
    absl::PrintF("\n%u frags of %u bytes, %.1f MB a launch\n", bench.frags,
                 bench.frag_bytes, static_cast<double>(bytes) / 1e6);
    GpuHandle stream = nullptr;
    Must(device_.Check(device_.table().stream_create(&stream, 1),
                       "cuStreamCreate", "hipStreamCreateWithFlags"));
    const auto pieces =
        BenchPieces(prng_, bench, source_.address(), target_.address());
    const auto copy = [&](uint64_t n) {
      Must(device_.Check(device_.table().memcpy_dtod_async(
                             target_.address(), source_.address(), n, stream),
                         "cuMemcpyDtoDAsync", "hipMemcpyDtoDAsync"));
    };
    const auto plain = [&] { copy(bytes); };
    const auto nothing = [] {};
    // About 8 ms on a card of 2019 or later. It also evicts the caches.
    const auto busy = [&] {
      for (int i = 0; i < 8; ++i) copy(target_.bytes());
    };
    plain_ = 0;
    Report(bench, watch_.Time("plain copy", bytes, settings_.runs, stream, busy,
                              plain));
    for (GpuGatherOptions options : variants) {
      options.stream = stream;
      options.tiles_per_launch = 3u << 20;
      options.launches = 2;
      auto gather = Must(GpuGather::Create(device_, options));
      const auto launch = [&] { Must(gather->Launch(pieces).status()); };
      Report(bench, watch_.Time(Name(options), bytes, settings_.runs, stream,
                                busy, launch));
      target_.Fill(std::vector<std::byte>(64 * kMiB, kPoison), bytes);
      Report(bench, watch_.Time(Name(options) + " with the host's part", bytes,
                                settings_.runs, stream, nothing, launch));
      const uint64_t first = settings_.tune ? 4096 : pieces.size();
      VerifyBench(std::span(pieces).first(std::min(first, bench.frags)),
                  source_, target_, pattern_);
    }
    Vendors(bench, pieces, stream);
    Report(bench, watch_.Time("plain copy again", bytes, settings_.runs, stream,
                              busy, plain));
    device_.table().stream_destroy(stream);
  }

  const nlohmann::json& results() const { return results_; }

 private:
  static std::string Name(const GpuGatherOptions& o) {
    std::string name = absl::StrFormat("gather tile %u", o.tile_bytes);
    for (const std::string& option : o.compiler_options) name += " " + option;
    return name;
  }

  // One call a frag, and the vendor's batch: fewer frags, they are slow.
  void Vendors(const Bench& bench, const std::vector<GatherPiece>& pieces,
               GpuHandle stream) {
    const uint64_t count = std::min<uint64_t>(pieces.size(), 16384);
    const uint64_t bytes = count * bench.frag_bytes;
    Report(bench, watch_.Time(
                      "one copy call a frag", bytes, 5, stream, [] {},
                      [&] {
                        for (uint64_t i = 0; i < count; ++i) {
                          Must(device_.Check(device_.table().memcpy_dtod_async(
                                                 pieces[i].to, pieces[i].from,
                                                 pieces[i].bytes, stream),
                                             "cuMemcpyDtoDAsync",
                                             "hipMemcpyDtoDAsync"));
                        }
                      }));
    const MemcpyBatch batch = LoadMemcpyBatch(device_.runtime());
    if (batch == nullptr) {
      absl::PrintF("  %-44s this driver has none\n", "cuMemcpyBatchAsync");
      return;
    }
    std::vector<GpuAddress> to, from;
    std::vector<size_t> sizes;
    for (uint64_t i = 0; i < count; ++i) {
      to.push_back(pieces[i].to);
      from.push_back(pieces[i].from);
      sizes.push_back(pieces[i].bytes);
    }
    BatchAttributes attributes;
    size_t first = 0;
    Report(bench, watch_.Time(
                      "cuMemcpyBatchAsync", bytes, 5, stream, [] {},
                      [&] {
                        Must(device_.runtime().Check(
                            batch(to.data(), from.data(), sizes.data(), count,
                                  &attributes, &first, 1, stream),
                            "cuMemcpyBatchAsync"));
                      }));
  }

  void Report(const Bench& bench, const Sample& sample) {
    if (plain_ == 0) plain_ = sample.median();
    const auto& all = sample.gigabytes_per_second;
    absl::PrintF("  %-44s %8.1f GB/s (%.1f to %.1f)  %.3f of a plain copy\n",
                 sample.name, sample.median(), all.front(), all.back(),
                 sample.median() / plain_);
    results_.push_back({{"what", sample.name},
                        {"frag_bytes", bench.frag_bytes},
                        {"bytes", sample.bytes},
                        {"runs", all.size()},
                        {"gigabytes_per_second",
                         {{"median", sample.median()},
                          {"minimum", all.front()},
                          {"maximum", all.back()}}},
                        {"of_plain_copy", sample.median() / plain_}});
  }

  const GpuDevice& device_;
  const Settings& settings_;
  Prng prng_;
  Stopwatch watch_;
  const std::vector<std::byte> pattern_;
  Buffer source_, target_;
  double plain_ = 0;  // The plain copy's median, before the gathers.
  nlohmann::json results_ = nlohmann::json::array();
};

std::vector<GpuGatherOptions> Variants(const Settings& settings) {
  std::vector<GpuGatherOptions> all = {settings.gather};
  if (!settings.tune) return all;
  for (const uint32_t tile_bytes : {2048u, 4096u, 16384u}) {
    all.push_back(settings.gather);
    all.back().tile_bytes = tile_bytes;
  }
  for (const char* define : {"-DDEVWIRE_UNROLL=2", "-DDEVWIRE_UNROLL=8"}) {
    all.push_back(settings.gather);
    all.back().compiler_options.push_back(define);
  }
  return all;
}

Settings Parse(int argc, char** argv) {
  Settings s;
  const option flags[] = {{"vendor", required_argument, nullptr, 'v'},
                          {"runtime", required_argument, nullptr, 'r'},
                          {"compiler", required_argument, nullptr, 'c'},
                          {"object", required_argument, nullptr, 'o'},
                          {"seed", required_argument, nullptr, 's'},
                          {"runs", required_argument, nullptr, 'n'},
                          {"json", required_argument, nullptr, 'j'},
                          {"tune", no_argument, nullptr, 't'},
                          {}};
  for (int c; (c = getopt_long(argc, argv, "", flags, nullptr)) != -1;) {
    const std::string value = optarg != nullptr ? optarg : "";
    switch (c) {
      case 'v':
        s.vendor = value == "hip" ? GpuVendor::kHip : GpuVendor::kCuda;
        break;
      case 'r':
        s.runtime = value;
        break;
      case 'c':
        s.gather.compiler_library = value;
        break;
      case 'o':
        s.gather.object_file = value;
        break;
      case 's':
        s.seed = std::stoull(value);
        break;
      case 'n':
        s.runs = std::max(1, std::stoi(value));
        break;
      case 'j':
        s.json_file = value;
        break;
      case 't':
        s.tune = true;
        break;
      default:
        std::exit(2);
    }
  }
  return s;
}

int Main(int argc, char** argv) {
  const Settings settings = Parse(argc, argv);
  auto runtime = LoadGpuRuntime(settings.vendor, settings.runtime);
  auto device =
      runtime.ok()
          ? GpuDevice::Open(*runtime, 0)
          : absl::StatusOr<std::unique_ptr<GpuDevice>>(runtime.status());
  if (absl::IsNotFound(device.status())) {
    absl::PrintF("SKIP: gpu_test: %s\n", device.status().message());
    return kSkipped;
  }
  Must(device.status());
  const GpuScope scope(**device);
  Must(scope.status());
  absl::PrintF("card: %s, driver %d, %s\n", (*device)->name(),
               (*device)->driver_version(), runtime->library);
  nlohmann::json all = {{"card", (*device)->name()},
                        {"driver", (*device)->driver_version()},
                        {"library", runtime->library}};

  all["memory"] = CheckMemory(**device, settings);
  uint64_t checked = CheckGather(**device, settings, settings.gather, 40);
  absl::PrintF("gather: %.1f MB of random layouts are right (compiled)\n",
               static_cast<double>(checked) / 1e6);
  GpuGatherOptions prebuilt = settings.gather;
  prebuilt.use_compiler = false;
  if (settings.vendor == GpuVendor::kCuda || !prebuilt.object_file.empty()) {
    checked = CheckGather(**device, settings, prebuilt, 10);
    absl::PrintF("gather: %.1f MB of random layouts are right (prebuilt)\n",
                 static_cast<double>(checked) / 1e6);
  }

  SpeedTest speed(**device, settings);
  const std::vector<GpuGatherOptions> variants = Variants(settings);
  speed.Run({.frag_bytes = 4096, .slot_bytes = 4608, .frags = 1u << 19},
            variants);
  speed.Run({.frag_bytes = 8948, .slot_bytes = 9216, .frags = 240000},
            variants);
  // What a poll loop hands over: small launches.
  speed.Run({.frag_bytes = 4096, .slot_bytes = 4608, .frags = 16384}, variants);
  speed.Run({.frag_bytes = 8948, .slot_bytes = 9216, .frags = 256}, variants);
  all["results"] = speed.results();
  if (!settings.json_file.empty()) {
    std::ofstream(settings.json_file) << all.dump(2) << "\n";
  } else {
    absl::PrintF("%s\n", all.dump());
  }
  return 0;
}

}  // namespace
}  // namespace devwire

int main(int argc, char** argv) { return devwire::Main(argc, argv); }
