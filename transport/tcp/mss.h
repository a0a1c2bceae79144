// Numbers of RFC 9293 3.7.1 that more than one file needs.
#ifndef TRANSPORT_TCP_MSS_H_
#define TRANSPORT_TCP_MSS_H_

#include <algorithm>
#include <cstdint>
#include <optional>

#include "base/time.h"
#include "transport/seq.h"

namespace devwire {

// Timeouts in a row after which long segments may be dying on the path: Linux's
// tcp_retries1, at which tcp_mtu_probing = 1 begins.
inline constexpr int kBlackHoleTimeouts = 3;

// A smaller MSS would make us send mostly headers. Linux's tcp_min_snd_mss.
inline constexpr uint32_t kMinSndMss = 48;
// Of every segment, once agreed on; with two nops. RFC 7323 appendix A.
inline constexpr uint32_t kTimestampsBytes = 12;

// What a segment may carry, timestamps included: by the peer's MSS option, by
// what is known of the path, and by what gets through where longer segments die
// without a word. RFC 4821's search_low and search_high:
//
//   known to get through     may be tried        does not, or is not allowed
//   ------------------- low ]------------- high ]---------------------------
struct SndMss {
  uint32_t peer = 0;
  uint32_t path = 0;

  bool is_searching = false;  // A black hole is suspected; else all is open.
  uint32_t low = UINT32_MAX;
  uint32_t high = UINT32_MAX;
  // `high` is tried first, and then the middle.
  bool starts_high = false;
  Instant search_again = Instant::Never();  // The path may have grown.
  // The segment of more than `low` that is in flight, if one is.
  std::optional<SeqNum> probe_end;
  uint32_t probe = 0;  // What it carries, counted as the others.

  uint32_t allowed() const { return std::min(peer, path); }
  uint32_t least() const {
    return std::max(std::min(allowed(), low), kMinSndMss);
  }
};

}  // namespace devwire

#endif  // TRANSPORT_TCP_MSS_H_
