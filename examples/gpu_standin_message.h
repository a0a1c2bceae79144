// What an example and its GPU stand-in say to each other: datagrams on a
// socket pair, both ends from one build.
#ifndef EXAMPLES_GPU_STANDIN_MESSAGE_H_
#define EXAMPLES_GPU_STANDIN_MESSAGE_H_

#include <array>
#include <cstddef>
#include <cstdint>

namespace devwire::examples {

inline constexpr char kStandinArgument[] = "--play-the-gpu";
inline constexpr int kStandinSocketFd = 3;
inline constexpr int kStandinDmabufFd = 4;

enum class WorkKind : uint32_t { kFill, kConsume, kConsumeHost, kFinish };

// A datagram to the stand-in is up to kBatch works of device memory; or one
// kConsumeHost followed by its bytes; or one kFinish.
struct Work {
  WorkKind kind{};
  uint32_t length = 0;
  uint64_t offset = 0;
  uint64_t tag = 0;
};
inline constexpr size_t kBatch = 64;
inline constexpr size_t kMaxHostBytes = 64 << 10;

// What it answers to kFinish; to works it answers arrays of GpuStandin::Done.
struct Digest {
  std::array<char, 64> sha256_hex{};
};

}  // namespace devwire::examples

#endif  // EXAMPLES_GPU_STANDIN_MESSAGE_H_
