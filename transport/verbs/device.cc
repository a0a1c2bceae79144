#include "transport/verbs/device.h"

#include <errno.h>
#include <ifaddrs.h>
#include <net/if.h>
#include <netinet/in.h>
#include <string.h>

#include <algorithm>
#include <utility>

#include "absl/strings/str_format.h"
#include "absl/strings/str_join.h"
#include "base/errno_status.h"
#include "memreg/verbs_library.h"
#include "transport/verbs/raw_qp.h"

namespace devwire {
namespace {

// ::ffff:0:0/96, how a GID holds an IPv4 address (RFC 4291 2.5.5.2).
constexpr std::array<uint8_t, 12> kMappedPrefix = {0, 0, 0, 0, 0,    0,
                                                   0, 0, 0, 0, 0xff, 0xff};

IpAddress FromGid(const ibv_gid& gid) {
  IpAddress ip;
  if (std::equal(kMappedPrefix.begin(), kMappedPrefix.end(), gid.raw)) {
    ip.family = IpFamily::kIpv4;
    std::copy(gid.raw + 12, gid.raw + 16, ip.bytes.begin());
  } else {
    ip.family = IpFamily::kIpv6;
    std::copy(gid.raw, gid.raw + 16, ip.bytes.begin());
  }
  return ip;
}

// fe80::/64 with the modified EUI-64 of a MAC (RFC 4291 2.5.6, appendix A).
bool IsLinkLocal(const ibv_gid& gid) {
  return gid.raw[0] == 0xfe && gid.raw[1] == 0x80;
}
std::optional<MacAddress> MacOf(const ibv_gid& gid) {
  if (!IsLinkLocal(gid) || gid.raw[11] != 0xff || gid.raw[12] != 0xfe) {
    return std::nullopt;
  }
  return MacAddress{static_cast<uint8_t>(gid.raw[8] ^ 2),
                    gid.raw[9],
                    gid.raw[10],
                    gid.raw[13],
                    gid.raw[14],
                    gid.raw[15]};
}

bool IsZero(const ibv_gid& gid) {
  return std::all_of(gid.raw, gid.raw + 16, [](uint8_t b) { return b == 0; });
}

// The index of the kernel interface that has `ip`; 0: none.
unsigned InterfaceWith(const IpAddress& ip) {
  ifaddrs* list = nullptr;
  if (getifaddrs(&list) != 0) return 0;
  unsigned index = 0;
  for (ifaddrs* a = list; a != nullptr && index == 0; a = a->ifa_next) {
    if (a->ifa_addr == nullptr) continue;
    const void* bytes = nullptr;
    if (a->ifa_addr->sa_family == AF_INET && ip.is_v4()) {
      bytes = &reinterpret_cast<sockaddr_in*>(a->ifa_addr)->sin_addr;
    } else if (a->ifa_addr->sa_family == AF_INET6 && !ip.is_v4()) {
      bytes = &reinterpret_cast<sockaddr_in6*>(a->ifa_addr)->sin6_addr;
    }
    if (bytes != nullptr &&
        memcmp(bytes, ip.bytes.data(), ip.is_v4() ? 4 : 16) == 0) {
      index = if_nametoindex(a->ifa_name);
    }
  }
  freeifaddrs(list);
  return index;
}

// Does the port's GID table name the address, or the interface that has it?
bool HasAddress(ibv_context* context, uint8_t port, const IpAddress& ip) {
  ibv_port_attr attr;
  if (VerbsTable::QueryPort(context, port, &attr) != 0) return false;
  const unsigned wanted_interface = InterfaceWith(ip);
  for (int i = 0; i < attr.gid_tbl_len; ++i) {
    ibv_gid gid;
    if (verbs().query_gid(context, port, i, &gid) != 0 || IsZero(gid)) continue;
    if (FromGid(gid) == ip) return true;
    ibv_gid_entry entry = {};
    if (wanted_interface != 0 && verbs().query_gid_ex != nullptr &&
        verbs().query_gid_ex(context, port, static_cast<uint32_t>(i), &entry, 0,
                             sizeof(entry)) == 0 &&
        entry.ndev_ifindex == wanted_interface) {
      return true;
    }
  }
  return false;
}

// ibv_get_device_list(3), freed again.
class DeviceList {
 public:
  DeviceList() {
    errno = 0;
    list_ = verbs().get_device_list(&count_);
    error_ = list_ == nullptr ? errno : 0;
  }
  ~DeviceList() {
    if (list_ != nullptr) verbs().free_device_list(list_);
  }
  DeviceList(const DeviceList&) = delete;
  DeviceList& operator=(const DeviceList&) = delete;

  int error() const { return error_; }
  int count() const { return count_; }
  ibv_device* operator[](int i) const { return list_[i]; }
  std::string Name(int i) const { return verbs().get_device_name(list_[i]); }
  std::string Names() const {
    std::vector<std::string> names;
    for (int i = 0; i < count_; ++i) names.push_back(Name(i));
    return names.empty() ? "there are none"
                         : "there are: " + absl::StrJoin(names, ", ");
  }

 private:
  ibv_device** list_ = nullptr;
  int count_ = 0;
  int error_ = 0;
};

absl::Status CannotOpen(const std::string& name, int error) {
  return WithErrno(
      error,
      absl::UnavailableError(absl::StrFormat(
          "cannot open verbs device %s: %s. See the rights of /dev/infiniband",
          name, VerbsErrorText(error))));
}

absl::StatusOr<UniqueContext> OpenNamed(const DeviceList& list,
                                        const std::string& name) {
  for (int i = 0; i < list.count(); ++i) {
    if (list.Name(i) != name) continue;
    errno = 0;
    UniqueContext context(verbs().open_device(list[i]));
    if (context == nullptr) return CannotOpen(name, errno);
    return context;
  }
  return absl::NotFoundError(
      absl::StrFormat("no verbs device named %s; %s", name, list.Names()));
}

absl::StatusOr<UniqueContext> OpenByAddress(const DeviceList& list,
                                            const IpAddress& ip, uint8_t port,
                                            std::string* name) {
  for (int i = 0; i < list.count(); ++i) {
    UniqueContext context(verbs().open_device(list[i]));
    if (context == nullptr || !HasAddress(context.get(), port, ip)) continue;
    *name = list.Name(i);
    return context;
  }
  if (list.count() == 1) {
    *name = list.Name(0);
    return OpenNamed(list, *name);
  }
  return absl::NotFoundError(absl::StrFormat(
      "no verbs device has the address %s; %s. Name one, or give the address "
      "to the interface of one",
      ip.ToString(), list.Names()));
}

}  // namespace

absl::StatusOr<std::unique_ptr<VerbsDevice>> VerbsDevice::Open(
    const Options& options) {
  const DeviceList list;
  if (list.error() != 0 || list.count() == 0) {
    return absl::NotFoundError(absl::StrFormat(
        "verbs library %s shows no device%s. Check that a NIC and its kernel "
        "module are there (ibv_devices), or configure softnic",
        VerbsLibraryName(),
        list.error() != 0 ? ": " + VerbsErrorText(list.error()) : ""));
  }
  std::unique_ptr<VerbsDevice> device(new VerbsDevice);
  device->port_ = options.port;
  absl::StatusOr<UniqueContext> context;
  if (!options.name.empty()) {
    device->name_ = options.name;
    context = OpenNamed(list, options.name);
  } else if (options.local.has_value()) {
    context = OpenByAddress(list, *options.local, options.port, &device->name_);
  } else if (list.count() == 1) {
    device->name_ = list.Name(0);
    context = OpenNamed(list, device->name_);
  } else {
    return absl::InvalidArgumentError(
        "several verbs devices: say which by name or address; " + list.Names());
  }
  if (!context.ok()) return context.status();
  device->context_ = *std::move(context);
  device->pd_.reset(verbs().alloc_pd(device->context_.get()));
  if (device->pd_ == nullptr) return CannotOpen(device->name_, errno);
  if (absl::Status s = device->QueryCapabilities(); !s.ok()) return s;
  if (absl::Status s = device->QueryAddresses(); !s.ok()) return s;
  if (absl::Status s = device->ProbeRawQp(); !s.ok()) return s;
  return device;
}

absl::Status VerbsDevice::QueryCapabilities() {
  ibv_device_attr_ex ex;
  if (int e = VerbsTable::QueryDeviceEx(context_.get(), &ex)) {
    return absl::UnimplementedError(absl::StrFormat(
        "%s: ibv_query_device_ex: %s. Its driver cannot say what the device "
        "has: update rdma-core and the kernel",
        name_, VerbsErrorText(e)));
  }
  const ibv_device_attr& attr = ex.orig_attr;
  max_sge_ = static_cast<uint32_t>(std::max(attr.max_sge, 0));
  max_qp_wr_ = static_cast<uint32_t>(std::max(attr.max_qp_wr, 0));
  max_cqe_ = static_cast<uint32_t>(std::max(attr.max_cqe, 0));
  strips_vlan_ = (ex.raw_packet_caps & IBV_RAW_PACKET_CAP_CVLAN_STRIPPING) != 0;
  if ((ex.tso_caps.supported_qpts & (1u << IBV_QPT_RAW_PACKET)) != 0) {
    max_tso_bytes_ = ex.tso_caps.max_tso;
  }

  std::vector<std::string> missing;
  if (max_sge_ < 2) {
    missing.push_back(absl::StrFormat(
        "two scatter entries per receive (max_sge is %u), to part headers from "
        "payload",
        max_sge_));
  }
  if ((ex.raw_packet_caps & IBV_RAW_PACKET_CAP_IP_CSUM) == 0) {
    missing.push_back(
        "receive checksums (IBV_RAW_PACKET_CAP_IP_CSUM): nobody else may read "
        "the payload");
  }
  if ((attr.device_cap_flags & IBV_DEVICE_RAW_IP_CSUM) == 0) {
    missing.push_back("send checksums (IBV_DEVICE_RAW_IP_CSUM)");
  }
  ibv_port_attr port;
  if (int e = VerbsTable::QueryPort(context_.get(), port_, &port)) {
    return absl::NotFoundError(
        absl::StrFormat("%s: port %u: %s. Ports count from 1; ibv_devinfo "
                        "lists them",
                        name_, port_, VerbsErrorText(e)));
  }
  if (port.link_layer != IBV_LINK_LAYER_ETHERNET) {
    missing.push_back(absl::StrFormat(
        "Ethernet on port %u (its link layer is another; mlxconfig can change "
        "it)",
        port_));
  }
  if (missing.empty()) return absl::OkStatus();
  return absl::UnimplementedError(
      absl::StrFormat("verbs device %s cannot carry device memory streams; it "
                      "lacks: %s. Choose another device: ibv_devinfo -v shows "
                      "what each has",
                      name_, absl::StrJoin(missing, "; ")));
}

absl::Status VerbsDevice::QueryAddresses() {
  ibv_port_attr port;
  if (int e = VerbsTable::QueryPort(context_.get(), port_, &port)) {
    return absl::InternalError(VerbsErrorText(e));
  }
  bool has_mac = false;
  for (int i = 0; i < port.gid_tbl_len; ++i) {
    ibv_gid gid;
    if (verbs().query_gid(context_.get(), port_, i, &gid) != 0) continue;
    if (IsZero(gid)) continue;
    if (const std::optional<MacAddress> mac = MacOf(gid);
        mac.has_value() && !has_mac) {
      mac_ = *mac;
      has_mac = true;
    }
    const IpAddress ip = FromGid(gid);
    if (!IsLinkLocal(gid) && std::find(addresses_.begin(), addresses_.end(),
                                       ip) == addresses_.end()) {
      addresses_.push_back(ip);  // RoCE v1 and v2 list each address twice.
    }
  }
  if (has_mac) return absl::OkStatus();
  return absl::FailedPreconditionError(absl::StrFormat(
      "%s: no link-local GID on port %u to take the MAC address from: set its "
      "interface up",
      name_, port_));
}

// Whether raw queues may be made at all cannot be asked, only tried.
absl::Status VerbsDevice::ProbeRawQp() {
  UniqueCq cq(
      verbs().create_cq(context_.get(), 16, nullptr, nullptr, /*vector=*/0));
  if (cq == nullptr) {
    return absl::ResourceExhaustedError(
        absl::StrFormat("%s: ibv_create_cq: %s", name_, VerbsErrorText(errno)));
  }
  RawQpOptions options;
  options.pd = pd_.get();
  options.cq = cq.get();
  options.port = port_;
  options.recv_wrs = 1;
  options.recv_sges = 2;
  UniqueQp qp;
  const char* failed_call = nullptr;
  if (int e = CreateRawQp(options, &qp, &failed_call)) {
    return RawQpStatus(name_, failed_call, e);
  }
  return absl::OkStatus();
}

bool VerbsDevice::LinkIsUp() const {
  ibv_port_attr port;
  return VerbsTable::QueryPort(context_.get(), port_, &port) == 0 &&
         port.state == IBV_PORT_ACTIVE;
}

}  // namespace devwire
