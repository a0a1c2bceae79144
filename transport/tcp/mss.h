// Numbers of RFC 9293 3.7.1 that more than one file needs.
#ifndef TRANSPORT_TCP_MSS_H_
#define TRANSPORT_TCP_MSS_H_

#include <algorithm>
#include <cstdint>

#include "base/time.h"

namespace devwire {

// A smaller MSS would make us send mostly headers. Linux's tcp_min_snd_mss.
inline constexpr uint32_t kMinSndMss = 48;
// Of every segment, once agreed on; with two nops. RFC 7323 appendix A.
inline constexpr uint32_t kTimestampsBytes = 12;

// What a segment may carry, timestamps included: by the peer's MSS option, by
// what is known of the path, and by what seems to get through it.
struct SndMss {
  uint32_t peer = 0;
  uint32_t path = 0;
  uint32_t black_hole = UINT32_MAX;
  Instant black_hole_until = Instant::Never();  // Never(): none is suspected.

  uint32_t least() const {
    return std::max(std::min({peer, path, black_hole}), kMinSndMss);
  }
};

}  // namespace devwire

#endif  // TRANSPORT_TCP_MSS_H_
