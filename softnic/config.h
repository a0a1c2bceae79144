// The one string that configures softnic: from the environment, a file, or
// softnic_configure.
//
//   dev=sn0,port=shm:/run/cable,mtu=9000,loss=0.01,seed=7;dev=sn1,port=tap:t0
//   @/etc/softnic.conf      the same in a file: `;` or a new line ends a
//                           device, `#` starts a comment
//
// Every key is one row of a table (config.cc), which holds its parser, what it
// accepts, its meaning and whether it may change while the device runs; the
// errors and ConfigHelp() are written from that table.
//
// Threads:  pure functions, no state of their own.
// Cost:     set-up path only; allocates.
// Errors:   InvalidArgument that names the device, the key, the value and what
//           is accepted; NotFound for a file that cannot be read.
#ifndef SOFTNIC_CONFIG_H_
#define SOFTNIC_CONFIG_H_

#include <array>
#include <cstdint>
#include <functional>
#include <string>
#include <string_view>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "base/time.h"

namespace softnic {

using MacAddress = std::array<uint8_t, 6>;
// As a GID holds it: IPv4 as ::ffff:a.b.c.d (RFC 4291 2.5.5.2).
using IpAddress = std::array<uint8_t, 16>;

enum class Profile { kMlx5, kFull };  // behave as mlx5 does, or have everything
// Where the device's work is done: in the verbs calls, there and in a thread,
// or in a process of its own.
enum class Mode { kInline, kThread, kProcess };
enum class PortKind { kNone, kShm, kTap };
enum class FaultSide { kBoth, kTx, kRx };  // frames we send, receive, or both

// What goes wrong on the link and in the device. The default is nothing.
struct FaultConfig {
  uint64_t seed = 1;
  uint32_t seed_given = 0;  // times that `seed` was set: each starts it again
  FaultSide side = FaultSide::kBoth;  // of the frame faults, up to delay_jitter
  // Probabilities per frame, 0 to 1.
  double loss = 0;
  // Longer frames, without their Ethernet header, are lost: a router whose word
  // of it is lost too. 0: none.
  uint32_t path_mtu = 0;
  double dup = 0;
  double corrupt = 0;  // one byte is changed
  double reorder = 0;  // the frame is overtaken by 1 to reorder_depth others
  uint32_t reorder_depth = 3;
  devwire::Duration delay;
  devwire::Duration delay_jitter;  // uniform, added to delay
  uint32_t hold_frames = 1024;     // room for delayed frames; more are dropped
  uint64_t rate = 0;               // bits per second on the wire; 0: no limit
  bool link_up = true;
  // Trouble inside the device. Probabilities per work request; the `_at` forms
  // hit exactly the N-th from now on, N >= 1; 0: never. The device sets one
  // back to 0 when it has hit.
  double cqe_error = 0;  // a completion in error, the QP goes to ERR
  uint64_t cqe_error_at = 0;
  double lost_event = 0;  // a completion event is not raised; per event
  double qp_error = 0;    // the QP goes to ERR between two requests
  uint64_t qp_error_at = 0;
  uint64_t revoke_at = 0;  // the region of the N-th scattered frame's payload
  uint64_t revoke_send_at = 0;     // the dmabuf of the N-th send from one
  uint32_t revoke_lkey = 0;        // this region, at once; 0: none
  devwire::Duration late_scatter;  // payload written this long after its WC
  devwire::Duration late_gather;   // a send is read only this long after post

  bool operator==(const FaultConfig&) const = default;
};

struct DeviceConfig {
  std::string name;  // `dev`
  PortKind port = PortKind::kNone;
  std::string port_path;  // shm: path of the cable; tap: interface name
  bool vnet = false;      // tap: IFF_VNET_HDR, offloads with Linux
  // Made from the name where not given: 02: and five bytes of its hash.
  MacAddress mac = {};
  std::vector<IpAddress> ip;  // further entries of the GID table
  uint32_t mtu = 1500;        // bytes behind the Ethernet header
  Profile profile = Profile::kMlx5;
  Mode mode = Mode::kInline;

  // Capabilities, to withhold or bound.
  uint32_t max_sge = 30;
  uint32_t max_qp_wr = 32768;
  bool rx_csum = true;
  bool tx_csum = true;
  bool tso = true;
  bool dmabuf = true;          // false: EOPNOTSUPP, as a provider without it
  bool dmabuf_refuse = false;  // there, but every registration is refused
  bool raw = true;
  bool vlan_strip = true;
  bool require_cap_net_raw = false;
  uint32_t rules = 65536;          // room in the flow table
  devwire::Duration rule_latency;  // of one insertion or removal
  bool loopback = true;            // frames to our own MAC come back
  // Checksums of received frames are computed in full even where the sender
  // at the other end of a cable was a softnic and vouches for them.
  bool verify = false;
  std::string pcap;      // finished frames go here; empty: nowhere
  std::string counters;  // the counters, as text; empty: nowhere

  FaultConfig faults;

  bool operator==(const DeviceConfig&) const = default;
};

// Limits, so that no string makes us allocate without bound.
inline constexpr size_t kMaxConfigBytes = 64 * 1024;
inline constexpr size_t kMaxDevices = 64;
inline constexpr size_t kMaxIpPerDevice = 14;  // GID table minus link-local
inline constexpr size_t kMaxNameBytes = 63;    // IBV_SYSFS_NAME_MAX - 1

// Parses the text itself, or what stands in FILE for "@FILE". No text at all
// is no device. The devices come in the order of the text.
absl::StatusOr<std::vector<DeviceConfig>> ParseConfig(std::string_view text);

// What softnic_configure does to devices that exist: each device of `text`
// that is in `devices` gets the keys that are given, the others keep their
// values; a device that is not there is added. A device whose name `is_open`
// says yes to may only change the keys that ConfigHelp() has a "yes" for. On an
// error nothing is changed.
absl::Status ChangeConfig(std::string_view text,
                          const std::function<bool(std::string_view)>& is_open,
                          std::vector<DeviceConfig>* devices);

// The table of keys as Markdown, one key a line: name, what is accepted,
// default, whether it may change while the device is open, meaning.
// docs/softnic.md holds it word for word.
std::string ConfigHelp();

std::string MacToString(const MacAddress& mac);

}  // namespace softnic

#endif  // SOFTNIC_CONFIG_H_
