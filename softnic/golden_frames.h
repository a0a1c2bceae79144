// Frames that Linux made: what a parser and a checksum are judged by.
//
// Read from two TAP devices without offloads, one in each of two network
// namespaces, while two Linux 6.18 stacks talked through them: so the checksums
// are Linux's, in full. What each row says of its frame was read with tshark.
// For tests only.
#ifndef SOFTNIC_GOLDEN_FRAMES_H_
#define SOFTNIC_GOLDEN_FRAMES_H_

#include <cstdint>
#include <string>
#include <vector>

namespace softnic {

struct GoldenFrame {
  std::string name;
  std::string bytes;
  int ip_version = 0;   // 4, 6, or 0: not IP
  int l4_protocol = 0;  // 6 TCP, 17 UDP, or 0: another, or a fragment
  uint32_t payload_offset = 0;
  bool is_fragment = false;
};

const std::vector<GoldenFrame>& GoldenFrames();

}  // namespace softnic

#endif  // SOFTNIC_GOLDEN_FRAMES_H_
