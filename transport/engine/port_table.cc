#include "transport/engine/port_table.h"

#include "base/check.h"

namespace devwire {
namespace {

constexpr uint32_t kPorts = 65536;

}  // namespace

PortTable::PortTable(uint16_t first, uint8_t block_bits, uint64_t seed)
    : block_bits_(block_bits), prng_(seed), listeners_(kPorts, kNobody) {
  CHECK_LE(block_bits, 15);
  const uint32_t size = 1u << block_bits;
  next_block_ = (first + size - 1) / size * size;
}

bool PortTable::AddListener(Port port, uint32_t listener) {
  CHECK_LT(listener, kNobody);
  uint16_t& entry = listeners_[static_cast<uint16_t>(port)];
  if (entry != kNobody) return false;
  entry = static_cast<uint16_t>(listener);
  return true;
}

void PortTable::RemoveListener(Port port) {
  listeners_[static_cast<uint16_t>(port)] = kNobody;
}

std::optional<uint32_t> PortTable::FindListener(Port port) const {
  const uint16_t listener = listeners_[static_cast<uint16_t>(port)];
  if (listener == kNobody) return std::nullopt;
  return listener;
}

std::optional<Port> PortTable::FreeListenPort() const {
  constexpr uint32_t kFirstUserPort = 1024;  // RFC 6335 6.
  // Below the blocks where there is room, so that a block's rule does not
  // cover it; else any: both rules lead to the control queue.
  const uint32_t blocks_begin = blocks_.empty() ? next_block_ : blocks_[0];
  for (const uint32_t end : {blocks_begin, kPorts}) {
    for (uint32_t port = end - 1; port >= kFirstUserPort; --port) {
      if (!IsListening(port)) return Port{static_cast<uint16_t>(port)};
    }
  }
  return std::nullopt;
}

std::optional<Port> PortTable::ChooseIn(
    uint32_t start, const std::function<bool(Port)>& is_taken) {
  const uint32_t size = 1u << block_bits_;
  const uint32_t offset = static_cast<uint32_t>(prng_.Below(size));
  for (uint32_t i = 0; i < size; ++i) {
    const uint32_t number = start + ((offset + i) & (size - 1));
    const Port port{static_cast<uint16_t>(number)};
    if (number != 0 && !IsListening(number) && !is_taken(port)) return port;
  }
  return std::nullopt;
}

std::optional<PortTable::Choice> PortTable::Choose(
    const std::function<bool(Port)>& is_taken) {
  for (uint32_t start : blocks_) {
    if (const auto port = ChooseIn(start, is_taken)) {
      return Choice{*port, false, Port{static_cast<uint16_t>(start)}};
    }
  }
  while (next_block_ + (1u << block_bits_) <= kPorts) {
    const uint32_t start = next_block_;
    next_block_ += 1u << block_bits_;
    blocks_.push_back(start);
    if (const auto port = ChooseIn(start, is_taken)) {
      return Choice{*port, true, Port{static_cast<uint16_t>(start)}};
    }
  }
  return std::nullopt;
}

}  // namespace devwire
