// What the tests of this room share: softnic, loaded as production code loads
// a verbs library, and two hosts of one process with a cable in between.
//
// Threads:  one. A failing set-up is a CHECK: there is no test without it.
#ifndef TRANSPORT_VERBS_VERBS_FIXTURE_H_
#define TRANSPORT_VERBS_VERBS_FIXTURE_H_

#include <linux/capability.h>

#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "base/time.h"
#include "memreg/frag_pool.h"
#include "memreg/host_memory.h"
#include "memreg/registered_region.h"
#include "softnic/softnic.h"
#include "transport/address.h"
#include "transport/verbs/device.h"
#include "transport/verbs/verbs_packet_io.h"

namespace devwire {

// The library's path, from a test's working directory.
std::string SoftnicPath();
// Loads it, forgets all devices, and configures anew.
void ConfigureSoftnic(const std::string& text);
// Changes what may change while devices are open: faults.
void ChangeSoftnic(const std::string& text);
// A fresh path for a cable between two devices.
std::string CablePath();

inline constexpr PoolId kControlPoolId{0};
inline constexpr PoolId kDevicePoolId{1};

struct HostOptions {
  std::string device;
  IpAddress ip;
  uint32_t mtu = 9000;
  uint32_t slot_bytes = 9216;
  uint32_t slot_count = 256;
  uint32_t control_slots = 256;
  uint32_t ring_wrs = 32;
  bool rx_checksum_ipv6 = false;
};

// One host: a device, device memory with a pool, and its PacketIo. Members in
// order of creation.
class TestHost {
 public:
  explicit TestHost(const HostOptions& options);
  ~TestHost();

  // Closes the PacketIo; the device and the memory stay.
  void Stop() { io_.reset(); }
  VerbsPacketIo& io() { return *io_; }
  const VerbsPacketIo& io() const { return *io_; }
  FragPool& pool() { return *pool_; }
  FragPool& control_pool() { return *control_pool_; }
  MemfdMemory& memory() { return *memory_; }
  const RegisteredRegion& region() const { return *region_; }
  VerbsDevice& device() { return *device_; }
  const IpAddress& ip() const { return options_.ip; }
  softnic_counters NicCounters() const;

  // Bytes of a slot, by way of the provider.
  std::vector<std::byte> ReadSlot(SlotIndex slot, uint32_t bytes) const;

  // Sends one TCP segment from device memory: `payload_bytes` at `offset`,
  // timestamps in its header, numbered `seq`. Not flushed. Returns the ticket.
  struct Segment {
    TestHost* to = nullptr;
    Port from_port{1000};
    Port to_port{2000};
    uint32_t seq = 1;
    uint64_t offset = 0;
    uint32_t payload_bytes = 0;
    uint16_t tso_mss = 0;
    bool timestamps = true;
  };
  std::optional<uint64_t> Send(const Segment& segment);

  // Has `rule` installed, or not: its error. Polls both queues meanwhile.
  int AwaitRule(RuleId rule);
  RuleId Steer(const TestHost& from, Port from_port, Port to_port, QueueId to);

 private:
  uint32_t EmitHeader(const Segment& segment, std::byte* at) const;

  const HostOptions options_;
  std::unique_ptr<VerbsDevice> device_;
  std::optional<HostArena> control_memory_;
  std::unique_ptr<FragPool> control_pool_;
  std::unique_ptr<MemfdMemory> memory_;
  std::optional<RegisteredRegion> region_;
  std::unique_ptr<FragPool> pool_;
  std::unique_ptr<VerbsPacketIo> io_;
};

// Takes CAP_NET_RAW from this thread, and from those it starts, for a while.
class WithoutNetRaw {
 public:
  WithoutNetRaw();
  ~WithoutNetRaw();

 private:
  __user_cap_header_struct header_;
  __user_cap_data_struct before_[2];
};

// Runs `step` until it answers true; false after ten seconds.
bool Eventually(const std::function<bool()>& step);

}  // namespace devwire

#endif  // TRANSPORT_VERBS_VERBS_FIXTURE_H_
