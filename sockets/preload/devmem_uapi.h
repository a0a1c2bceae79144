// Names of Linux's devmem TCP interface that Debian's headers lack.
//
// Source: Linux Documentation/networking/devmem.rst, include/linux/socket.h,
//         include/uapi/asm-generic/socket.h, uapi/linux/uio.h and
//         uapi/linux/netdev.h.
#ifndef SOCKETS_PRELOAD_DEVMEM_UAPI_H_
#define SOCKETS_PRELOAD_DEVMEM_UAPI_H_

#include <cstdint>

namespace devwire::preload {

inline constexpr int kMsgSockDevmem = 0x2000000;  // MSG_SOCK_DEVMEM
// Of a message, and of options with the same number.
inline constexpr int kScmDevmemLinear = 78;
inline constexpr int kScmDevmemDmabuf = 79;
inline constexpr int kSoDevmemDontneed = 80;
// What recvmsg(2) answers when a control message does not fit; no name in
// errno(3).
inline constexpr int kErrnoTooSmall = 525;

struct DmabufCmsg {
  uint64_t frag_offset;
  uint32_t frag_size;
  uint32_t frag_token;
  uint32_t dmabuf_id;
  uint32_t flags;
};
static_assert(sizeof(DmabufCmsg) == 24);

struct DmabufToken {
  uint32_t token_start;
  uint32_t token_count;
};
static_assert(sizeof(DmabufToken) == 8);

// Of one SO_DEVMEM_DONTNEED.
inline constexpr uint32_t kMaxDontneedTokens = 128;
inline constexpr uint32_t kMaxDontneedFrags = 1024;

// The generic-netlink family "netdev".
inline constexpr char kNetdevFamily[] = "netdev";
inline constexpr uint8_t kNetdevBindRx = 13;   // NETDEV_CMD_BIND_RX
inline constexpr uint8_t kNetdevBindTx = 15;   // NETDEV_CMD_BIND_TX
inline constexpr uint16_t kDmabufIfindex = 1;  // NETDEV_A_DMABUF_*
inline constexpr uint16_t kDmabufQueues = 2;
inline constexpr uint16_t kDmabufFd = 3;
inline constexpr uint16_t kDmabufId = 4;
inline constexpr uint16_t kQueueId = 1;  // NETDEV_A_QUEUE_*
inline constexpr uint16_t kQueueType = 3;
inline constexpr uint32_t kQueueTypeRx = 0;

}  // namespace devwire::preload

#endif  // SOCKETS_PRELOAD_DEVMEM_UAPI_H_
