#include "sockets/preload/port_table.h"

namespace devwire::preload {
namespace {

void DropExpired(std::vector<std::weak_ptr<PortClaim>>* claims) {
  std::erase_if(*claims, [](const auto& claim) { return claim.expired(); });
}

}  // namespace

bool PortTable::IsFree(uint16_t port, bool reuses_address, bool reuses_port) {
  const auto found = claims_.find(port);
  if (found == claims_.end()) return true;
  auto& claims = found->second;
  DropExpired(&claims);
  for (const auto& weak : claims) {
    const auto other = weak.lock();
    if (other == nullptr) continue;
    if (reuses_address && other->reuses_address && !other->is_listening) {
      continue;
    }
    if (reuses_port && other->reuses_port) continue;
    return false;
  }
  if (claims.empty()) claims_.erase(found);
  return true;
}

std::shared_ptr<PortClaim> PortTable::Claim(Port port, bool reuses_address,
                                            bool reuses_port) {
  const std::lock_guard lock(mutex_);
  auto number = static_cast<uint16_t>(port);
  if (number == 0) {
    constexpr uint16_t kPorts = kLast - kFirst + 1;
    const auto start = static_cast<uint16_t>(prng_.Below(kPorts));
    for (uint16_t i = 0; i < kPorts && number == 0; ++i) {
      const auto tried = static_cast<uint16_t>(kFirst + (start + i) % kPorts);
      if (IsFree(tried, false, false)) number = tried;
    }
    if (number == 0) return nullptr;
  } else if (!IsFree(number, reuses_address, reuses_port)) {
    return nullptr;
  }
  auto claim = std::make_shared<PortClaim>();
  claim->port = Port{number};
  claim->reuses_address = reuses_address;
  claim->reuses_port = reuses_port;
  claims_[number].push_back(claim);
  return claim;
}

std::shared_ptr<PortClaim> PortTable::ClaimBeside(const PortClaim& listener) {
  const std::lock_guard lock(mutex_);
  auto claim = std::make_shared<PortClaim>();
  claim->port = listener.port;
  claim->reuses_address = listener.reuses_address.load();
  claim->reuses_port = listener.reuses_port.load();
  auto& claims = claims_[static_cast<uint16_t>(listener.port)];
  DropExpired(&claims);
  claims.push_back(claim);
  return claim;
}

}  // namespace devwire::preload
