// A NIC port: opened, asked what it can do, refused by name where that is not
// enough.
//
// Threads:  the set-up path; read-only afterwards.
// Lifetime: outlives every region, ring and rule made on it. Takes the
//           context's asynchronous events (VerbsPacketIo reads them), so one
//           VerbsPacketIo per device object.
// Errors:   NotFound: no such device, with those there are. Unimplemented: it
//           lacks something, which is named. PermissionDenied: CAP_NET_RAW.
#ifndef TRANSPORT_VERBS_DEVICE_H_
#define TRANSPORT_VERBS_DEVICE_H_

#include <infiniband/verbs.h>

#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "transport/address.h"
#include "transport/verbs/handles.h"

namespace devwire {

class VerbsDevice {
 public:
  struct Options {
    std::string name;  // "mlx5_0"; empty: by address, or the only one there is.
    // The device that has this address, or whose interface has; failing that,
    // the only one there is: an address that we own alone is in no table.
    std::optional<IpAddress> local;
    uint8_t port = 1;
  };

  // LoadVerbsLibrary() has succeeded before.
  static absl::StatusOr<std::unique_ptr<VerbsDevice>> Open(
      const Options& options);

  const std::string& name() const { return name_; }
  ibv_context* context() const { return context_.get(); }
  ibv_pd* pd() const { return pd_.get(); }
  uint8_t port() const { return port_; }

  const MacAddress& mac() const { return mac_; }
  // The IP addresses of its GID table, IPv6 link-local ones left out.
  const std::vector<IpAddress>& addresses() const { return addresses_; }

  // As asked from the port just now.
  bool LinkIsUp() const;

  // Limits of the device.
  uint32_t max_sge() const { return max_sge_; }
  uint32_t max_qp_wr() const { return max_qp_wr_; }
  uint32_t max_cqe() const { return max_cqe_; }
  uint32_t max_tso_bytes() const { return max_tso_bytes_; }  // 0: no TSO
  bool strips_vlan() const { return strips_vlan_; }
  // Bytes of a frame that stand before its IP header at most.
  uint32_t link_header_bytes() const { return strips_vlan_ ? 14 : 18; }

 private:
  VerbsDevice() = default;
  absl::Status QueryCapabilities();
  absl::Status QueryAddresses();
  absl::Status ProbeRawQp();

  std::string name_;
  UniqueContext context_;
  UniquePd pd_;
  uint8_t port_ = 1;
  MacAddress mac_{};
  std::vector<IpAddress> addresses_;
  uint32_t max_sge_ = 0;
  uint32_t max_qp_wr_ = 0;
  uint32_t max_cqe_ = 0;
  uint32_t max_tso_bytes_ = 0;
  bool strips_vlan_ = false;
};

}  // namespace devwire

#endif  // TRANSPORT_VERBS_DEVICE_H_
