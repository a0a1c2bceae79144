#include "transport/engine/path_mtu.h"

#include <algorithm>

namespace devwire {
namespace {

// RFC 1191 7.1, table 7-1: MTUs of links that exist, down to IPv4's 576 and
// below our floor, which ends the search.
constexpr uint32_t kPlateaus[] = {32000, 17914, 8166, 4352,
                                  2002,  1492,  1006, 508};

uint32_t PlateauBelow(uint32_t mtu) {
  for (const uint32_t plateau : kPlateaus) {
    if (plateau < mtu) return plateau;
  }
  return 0;
}

}  // namespace

uint32_t PathMtuTable::Mtu(const IpAddress& destination) const {
  for (const Path& path : paths_) {
    if (path.destination == destination) return path.mtu;
  }
  return options_.link_mtu;
}

std::optional<uint32_t> PathMtuTable::OnTooBig(const IpAddress& destination,
                                               uint32_t mtu, Instant now) {
  const uint32_t known = Mtu(destination);
  // RFC 8201 4: no IPv6 link has a smaller one, so no router reports it.
  if (!destination.is_v4() && mtu < kMinIpv6) return std::nullopt;
  if (mtu == 0) mtu = PlateauBelow(known);
  mtu = std::max(mtu, kMinIpv4);
  if (mtu >= known) return std::nullopt;
  const Path path{destination, mtu, now + options_.lifetime};
  for (Path& old : paths_) {
    if (old.destination == destination) {
      old = path;
      return mtu;
    }
  }
  if (paths_.size() < options_.max_paths) {
    paths_.push_back(path);
  } else {
    *std::min_element(paths_.begin(), paths_.end(),
                      [](const Path& a, const Path& b) {
                        return a.expires < b.expires;
                      }) = path;
  }
  return mtu;
}

std::optional<IpAddress> PathMtuTable::PollExpired(Instant now) {
  for (Path& path : paths_) {
    if (path.expires > now) continue;
    const IpAddress destination = path.destination;
    path = paths_.back();
    paths_.pop_back();
    return destination;
  }
  return std::nullopt;
}

Instant PathMtuTable::NextDeadline() const {
  Instant next = Instant::Never();
  for (const Path& path : paths_) next = std::min(next, path.expires);
  return next;
}

}  // namespace devwire
