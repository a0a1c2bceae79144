// The option bytes of one burst that lie behind the split, fetched together.
#ifndef TRANSPORT_ENGINE_ENGINE_TAILS_H_
#define TRANSPORT_ENGINE_ENGINE_TAILS_H_

#include <array>
#include <cstddef>
#include <cstdint>

#include "memreg/device_memory.h"
#include "transport/engine/engine.h"

namespace devwire {

struct Engine::TailBatch {
  enum class State : uint8_t { kNone, kFetched, kUnreadable };
  struct Tail {
    State state = State::kNone;
    std::array<std::byte, kMaxOptionTailBytes> bytes;
  };
  // By position in the burst. Of frames before burst_at_ they mean nothing.
  std::array<Tail, kBurst> tails;
  std::array<OptionTail, kBurst> requests;
};

}  // namespace devwire

#endif  // TRANSPORT_ENGINE_ENGINE_TAILS_H_
