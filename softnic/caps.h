// What a device says that it can do: limits and capabilities, as
// ibv_query_device(3), ibv_query_device_ex(3) and ibv_query_port(3) have them.
// Everything claimed here is done; everything not claimed is refused.
//
// Threads: pure functions of the configuration.
#ifndef SOFTNIC_CAPS_H_
#define SOFTNIC_CAPS_H_

#include <infiniband/verbs.h>

#include <array>
#include <cstdint>

#include "softnic/config.h"

namespace softnic {

inline constexpr uint32_t kMaxCqe = (1u << 22) - 1;
inline constexpr uint32_t kMaxCqs = 1u << 16;
inline constexpr uint32_t kMaxPds = 1u << 16;
inline constexpr uint32_t kMaxInlineBytes = 512;
inline constexpr uint32_t kMaxTsoHeaderBytes = 256;  // Segmenter's limit
// What ConnectX-4 and later report (tso_caps.max_tso).
inline constexpr uint32_t kMaxTsoBytes = 256 * 1024;
static_assert(kMaxTsoHeaderBytes <= kMaxInlineBytes);

void FillDeviceAttr(const DeviceConfig& config, ibv_device_attr* attr);
void FillDeviceAttrEx(const DeviceConfig& config, ibv_device_attr_ex* attr);
void FillPortAttr(const DeviceConfig& config, bool link_is_up,
                  ibv_port_attr* attr);

// EUI-64 of a MAC address, RFC 4291 appendix A; in network order.
std::array<uint8_t, 8> Eui64(const MacAddress& mac);

// The GID table: the link-local address made from the MAC, then the addresses
// of the configuration. All are of type RoCE v2.
inline size_t GidCount(const DeviceConfig& config) {
  return 1 + config.ip.size();
}
// index < GidCount.
union ibv_gid GidAt(const DeviceConfig& config, size_t index);

}  // namespace softnic

#endif  // SOFTNIC_CAPS_H_
