#include "softnic/caps.h"

#include <cstdio>
#include <cstring>

#include "softnic/device_core.h"

namespace softnic {
namespace {

// IBTA PortInfo: LinkWidthActive 4x, LinkSpeedActive EDR: 100 Gb/s.
constexpr uint8_t kWidth4x = 2;
constexpr uint8_t kSpeedEdr = 32;
constexpr uint8_t kPhysLinkUp = 5;
constexpr uint8_t kPhysDisabled = 3;

ibv_mtu MtuEnum(uint32_t mtu) {
  if (mtu >= 4096) return IBV_MTU_4096;
  if (mtu >= 2048) return IBV_MTU_2048;
  if (mtu >= 1024) return IBV_MTU_1024;
  return mtu >= 512 ? IBV_MTU_512 : IBV_MTU_256;
}

}  // namespace

std::array<uint8_t, 8> Eui64(const MacAddress& mac) {
  return {static_cast<uint8_t>(mac[0] ^ 2),
          mac[1],
          mac[2],
          0xff,
          0xfe,
          mac[3],
          mac[4],
          mac[5]};
}

ibv_gid GidAt(const DeviceConfig& config, size_t index) {
  ibv_gid gid = {};
  if (index > 0) {
    memcpy(gid.raw, config.ip[index - 1].data(), sizeof(gid.raw));
    return gid;
  }
  gid.raw[0] = 0xfe;
  gid.raw[1] = 0x80;
  memcpy(gid.raw + 8, Eui64(config.mac).data(), 8);
  return gid;
}

void FillDeviceAttr(const DeviceConfig& config, ibv_device_attr* attr) {
  *attr = {};
  snprintf(attr->fw_ver, sizeof(attr->fw_ver), "softnic-1.0");
  memcpy(&attr->node_guid, Eui64(config.mac).data(), 8);
  attr->sys_image_guid = attr->node_guid;
  attr->max_mr_size = UINT64_MAX;
  attr->page_size_cap = ~uint64_t{4095};
  attr->max_qp = DeviceCore::kMaxQps;
  attr->max_qp_wr = static_cast<int>(config.max_qp_wr);
  attr->max_sge = static_cast<int>(config.max_sge);
  attr->max_cq = kMaxCqs;
  attr->max_cqe = kMaxCqe;
  attr->max_mr = MrTable::kMaxMrs;
  attr->max_pd = kMaxPds;
  attr->atomic_cap = IBV_ATOMIC_NONE;
  attr->max_raw_ethy_qp = config.raw ? DeviceCore::kMaxQps : 0;
  attr->max_pkeys = 1;
  attr->phys_port_cnt = 1;
  if (config.tx_csum) attr->device_cap_flags |= IBV_DEVICE_RAW_IP_CSUM;
}

void FillDeviceAttrEx(const DeviceConfig& config, ibv_device_attr_ex* attr) {
  *attr = {};
  FillDeviceAttr(config, &attr->orig_attr);
  attr->device_cap_flags_ex = attr->orig_attr.device_cap_flags;
  attr->phys_port_cnt_ex = 1;
  if (!config.raw) return;
  if (config.tso && config.tx_csum) {
    attr->tso_caps.max_tso = kMaxTsoBytes;
    attr->tso_caps.supported_qpts = 1u << IBV_QPT_RAW_PACKET;
  }
  if (config.vlan_strip) {
    attr->raw_packet_caps |= IBV_RAW_PACKET_CAP_CVLAN_STRIPPING;
  }
  if (config.rx_csum) attr->raw_packet_caps |= IBV_RAW_PACKET_CAP_IP_CSUM;
}

void FillPortAttr(const DeviceConfig& config, bool link_is_up,
                  ibv_port_attr* attr) {
  *attr = {};
  attr->state = link_is_up ? IBV_PORT_ACTIVE : IBV_PORT_DOWN;
  attr->phys_state = link_is_up ? kPhysLinkUp : kPhysDisabled;
  attr->max_mtu = IBV_MTU_4096;
  attr->active_mtu = MtuEnum(config.mtu);
  attr->gid_tbl_len = static_cast<int>(GidCount(config));
  attr->pkey_tbl_len = 1;
  attr->max_msg_sz = 1u << 30;
  attr->max_vl_num = 1;
  attr->active_width = kWidth4x;
  attr->active_speed = kSpeedEdr;
  attr->link_layer = IBV_LINK_LAYER_ETHERNET;
}

}  // namespace softnic
