/* Binds a dmabuf to a network interface for Linux's device memory TCP: to
 * receive into (bind-rx), or to send from (bind-tx). Speaks netlink to whoever
 * answers: a kernel that has it, or Devwire's preload shim.
 *
 *   uint32_t queue = 0, id;
 *   int binding = devwire_bind_rx(if_nametoindex("eth0"), dmabuf, &queue, 1,
 *                                 &id);
 *   if (binding < 0) fprintf(stderr, "%s\n", strerror(-binding));
 *   ...       // recvmsg(MSG_SOCK_DEVMEM): frags of dmabuf `id`
 *   close(binding);  // ends it
 *
 * C99 and C++; needs nothing of Devwire's but this file.
 *
 * Source:  Linux Documentation/networking/devmem.rst,
 *          Documentation/netlink/specs/netdev.yaml.
 * Threads: any. Waits for the answer, which comes at once.
 */
#ifndef SOCKETS_DEVMEM_BIND_H_
#define SOCKETS_DEVMEM_BIND_H_

#include <errno.h>
#include <linux/genetlink.h>
#include <linux/netlink.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

/* Of one bind-rx. */
#define DEVWIRE_BIND_MOST_QUEUES 64

#ifdef __cplusplus
extern "C" {
#endif

/* One request. Not for use outside this file. */
struct devwire_netlink_message {
  union {
    struct nlmsghdr header;
    unsigned char bytes[128 + 24 * DEVWIRE_BIND_MOST_QUEUES];
  } u;
  size_t size;
};

static inline void devwire_netlink_begin(struct devwire_netlink_message* m,
                                         uint16_t type, uint8_t command) {
  struct genlmsghdr genl;
  memset(m, 0, sizeof(*m));
  memset(&genl, 0, sizeof(genl));
  m->u.header.nlmsg_type = type;
  m->u.header.nlmsg_flags = NLM_F_REQUEST | NLM_F_ACK;
  m->u.header.nlmsg_seq = 1;
  genl.cmd = command;
  genl.version = 1;
  memcpy(m->u.bytes + NLMSG_HDRLEN, &genl, sizeof(genl));
  m->size = NLMSG_HDRLEN + GENL_HDRLEN;
}

static inline void devwire_netlink_add(struct devwire_netlink_message* m,
                                       uint16_t type, const void* data,
                                       size_t size) {
  struct nlattr attribute;
  attribute.nla_type = type;
  attribute.nla_len = (uint16_t)(NLA_HDRLEN + size);
  memcpy(m->u.bytes + m->size, &attribute, sizeof(attribute));
  memcpy(m->u.bytes + m->size + NLA_HDRLEN, data, size);
  m->size += NLA_ALIGN(NLA_HDRLEN + size);
}

/* Looks for an attribute in one answer. 1: *value is set. 0: no. */
static inline int devwire_netlink_find(const unsigned char* at,
                                       const unsigned char* end, uint16_t type,
                                       uint32_t* value) {
  while (end - at >= (ptrdiff_t)NLA_HDRLEN) {
    struct nlattr attribute;
    memcpy(&attribute, at, sizeof(attribute));
    if (attribute.nla_len < NLA_HDRLEN || attribute.nla_len > end - at) break;
    if ((attribute.nla_type & NLA_TYPE_MASK) == type) {
      const size_t size = attribute.nla_len - NLA_HDRLEN;
      *value = 0;
      memcpy(value, at + NLA_HDRLEN,
             size < sizeof(*value) ? size : sizeof(*value));
      return 1;
    }
    if (NLA_ALIGN(attribute.nla_len) >= end - at) break;
    at += NLA_ALIGN(attribute.nla_len);
  }
  return 0;
}

/* Sends it, and reads up to the acknowledgement. 0, or -errno. */
static inline int devwire_netlink_ask(int fd, struct devwire_netlink_message* m,
                                      uint16_t wanted, uint32_t* value) {
  int found = 0;
  m->u.header.nlmsg_len = (uint32_t)m->size;
  if (send(fd, m->u.bytes, m->size, 0) < 0) return -errno;
  for (;;) {
    union {
      struct nlmsghdr header;
      unsigned char bytes[8192];
    } in;
    const ssize_t got = recv(fd, in.bytes, sizeof(in.bytes), 0);
    size_t at = 0;
    if (got < 0 && errno == EINTR) continue;
    if (got < 0) return -errno;
    while ((size_t)got - at >= sizeof(struct nlmsghdr)) {
      struct nlmsghdr header;
      memcpy(&header, in.bytes + at, sizeof(header));
      if (header.nlmsg_len < sizeof(header) ||
          header.nlmsg_len > (size_t)got - at) {
        return -EBADMSG;
      }
      if (header.nlmsg_type == NLMSG_ERROR) {
        int error = -EBADMSG;
        if (header.nlmsg_len >= NLMSG_HDRLEN + sizeof(error)) {
          memcpy(&error, in.bytes + at + NLMSG_HDRLEN, sizeof(error));
        }
        if (error != 0) return error;
        return found ? 0 : -EBADMSG;
      }
      if (header.nlmsg_len > NLMSG_HDRLEN + GENL_HDRLEN) {
        found |= devwire_netlink_find(
            in.bytes + at + NLMSG_HDRLEN + GENL_HDRLEN,
            in.bytes + at + header.nlmsg_len, wanted, value);
      }
      if (NLMSG_ALIGN(header.nlmsg_len) >= (size_t)got - at) break;
      at += NLMSG_ALIGN(header.nlmsg_len);
    }
  }
}

static inline int devwire_bind(unsigned ifindex, int dmabuf,
                               const uint32_t* queues, size_t queue_count,
                               uint32_t* id) {
  /* NETDEV_CMD_BIND_RX and _TX; NETDEV_A_DMABUF_*; NETDEV_A_QUEUE_*. */
  enum { kBindRx = 13, kBindTx = 15 };
  enum { kIfindex = 1, kQueues = 2, kFd = 3, kId = 4 };
  enum { kQueueId = 1, kQueueType = 3, kQueueTypeRx = 0 };
  struct devwire_netlink_message m;
  uint32_t family = 0;
  const uint32_t interface = ifindex;
  size_t i;
  int result;
  int fd;
  if (queue_count > DEVWIRE_BIND_MOST_QUEUES) return -E2BIG;
  fd = socket(AF_NETLINK, SOCK_RAW | SOCK_CLOEXEC, NETLINK_GENERIC);
  if (fd < 0) return -errno;
  devwire_netlink_begin(&m, GENL_ID_CTRL, CTRL_CMD_GETFAMILY);
  devwire_netlink_add(&m, CTRL_ATTR_FAMILY_NAME, "netdev", sizeof("netdev"));
  result = devwire_netlink_ask(fd, &m, CTRL_ATTR_FAMILY_ID, &family);
  if (result == 0) {
    devwire_netlink_begin(&m, (uint16_t)family,
                          queue_count > 0 ? kBindRx : kBindTx);
    devwire_netlink_add(&m, kIfindex, &interface, sizeof(interface));
    devwire_netlink_add(&m, kFd, &dmabuf, sizeof(dmabuf));
    for (i = 0; i < queue_count; ++i) {
      const uint32_t type = kQueueTypeRx;
      struct devwire_netlink_message queue;
      queue.size = 0;
      devwire_netlink_add(&queue, kQueueId, &queues[i], sizeof(queues[i]));
      devwire_netlink_add(&queue, kQueueType, &type, sizeof(type));
      devwire_netlink_add(&m, kQueues | NLA_F_NESTED, queue.u.bytes,
                          queue.size);
    }
    result = devwire_netlink_ask(fd, &m, kId, id);
  }
  if (result == 0) return fd;
  close(fd);
  return result;
}

/* Binds it to receive queues of the interface, up to 64. *id: what the frags
 * and the rest of the interface call it. Returns a descriptor that holds the
 * binding, close(2) ends it; or -errno: -EOPNOTSUPP, the driver has no such
 * thing; -ENOENT, the kernel has not; -EPERM, it takes CAP_NET_ADMIN; -EEXIST,
 * a queue is bound; -EINVAL, no dmabuf. `dmabuf` stays the caller's. */
static inline int devwire_bind_rx(unsigned ifindex, int dmabuf,
                                  const uint32_t* queues, size_t queue_count,
                                  uint32_t* id) {
  if (queue_count == 0) return -EINVAL;
  return devwire_bind(ifindex, dmabuf, queues, queue_count, id);
}

/* The same, to send from it. */
static inline int devwire_bind_tx(unsigned ifindex, int dmabuf, uint32_t* id) {
  return devwire_bind(ifindex, dmabuf, NULL, 0, id);
}

#ifdef __cplusplus
}
#endif

#endif /* SOCKETS_DEVMEM_BIND_H_ */
