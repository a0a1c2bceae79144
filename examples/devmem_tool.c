// devmem_tool: a netcat for Linux's device memory TCP that checks what arrives.
//
//   devmem_tool -f IF -l ADDRESS PORT            listens and receives
//   devmem_tool -f IF -b 1:8192 ADDRESS PORT     connects and sends
//
// Both ends count the bytes of the stream and know what each must be. The
// sender puts each message into a dmabuf and sends it from there; it uses the
// memory again when a completion has said that it is free. The receiver looks
// at the frags where they landed, in a dmabuf of its own.
//
// Written to the kernel's interface alone (Documentation/networking/devmem.rst,
// netlink's family "netdev"), so it runs on a kernel with devmem TCP, and on
// Devwire through devwire-run. The dmabuf is a udmabuf over a memfd; where
// there is no /dev/udmabuf, or with -d memfd, the memfd itself stands in for
// it, which Devwire takes, and a kernel does not. On a kernel the interface
// must split headers and steer the flow to the queue (-q): see devmem.rst.
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <getopt.h>
#include <linux/genetlink.h>
#include <linux/netlink.h>
#include <linux/udmabuf.h>
#include <net/if.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>
// After the headers whose types it uses.
#include <linux/errqueue.h>

// What the headers of Debian 12 lack: asm-generic/socket.h, linux/socket.h,
// uio.h and netdev.h of newer kernels.
enum {
  kMsgSockDevmem = 0x2000000,
  kScmDevmemLinear = 78,
  kScmDevmemDmabuf = 79,
  kSoDevmemDontneed = 80,
  kNetdevBindRx = 13,
  kNetdevBindTx = 15,
  kDmabufIfindex = 1,
  kDmabufQueues = 2,
  kDmabufFd = 3,
  kDmabufId = 4,
  kQueueId = 1,
  kQueueType = 3,
  kQueueTypeRx = 0,
};
struct dmabuf_cmsg {
  uint64_t frag_offset;
  uint32_t frag_size;
  uint32_t frag_token;
  uint32_t dmabuf_id;
  uint32_t flags;
};
struct dmabuf_token {
  uint32_t token_start;
  uint32_t token_count;
};

static const size_t kDmabufBytes = 4 << 20;
static const size_t kMostFrags = 4096;  // that -k holds

static struct {
  const char* interface;
  const char* dmabuf;  // "udmabuf", "memfd", or whichever there is
  bool listens;
  bool sends;
  bool is_sender_set;
  bool sends_from_host;
  bool holds;
  unsigned queue;
  unsigned first, last;        // sizes
  unsigned count, most, seed;  // random ones
  size_t dmabuf_bytes;
} options;

static void die(const char* what) {
  fprintf(stderr, "devmem_tool: %s: %s\n", what, strerror(errno));
  exit(1);
}

static void fail(const char* what) {
  fprintf(stderr, "devmem_tool: %s\n", what);
  exit(1);
}

// The byte at this place of the stream.
static uint8_t pattern(uint64_t at) {
  return (uint8_t)(at ^ (at >> 8) * 31 ^ (at >> 16) * 17);
}

// -- the dmabuf
// -----------------------------------------------------------------

struct memory {
  uint8_t* bytes;  // the program's view; a GPU's would have none
  size_t size;
  int dmabuf;
};

static struct memory make_memory(size_t size) {
  struct memory m = {.size = size};
  const int memfd =
      memfd_create("devmem_tool", MFD_CLOEXEC | MFD_ALLOW_SEALING);
  if (memfd < 0 || ftruncate(memfd, (off_t)size) != 0) die("memfd");
  if (fcntl(memfd, F_ADD_SEALS, F_SEAL_SHRINK) != 0) die("F_SEAL_SHRINK");
  m.bytes = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_SHARED, memfd, 0);
  if (m.bytes == MAP_FAILED) die("mmap");
  m.dmabuf = memfd;
  const bool is_memfd =
      options.dmabuf != NULL && strcmp(options.dmabuf, "memfd") == 0;
  const int device = is_memfd ? -1 : open("/dev/udmabuf", O_RDWR | O_CLOEXEC);
  if (device < 0) {
    if (options.dmabuf != NULL && !is_memfd) die("/dev/udmabuf");
    return m;
  }
  struct udmabuf_create create = {
      .memfd = (uint32_t)memfd, .flags = UDMABUF_FLAGS_CLOEXEC, .size = size};
  m.dmabuf = ioctl(device, UDMABUF_CREATE, &create);
  if (m.dmabuf < 0) die("UDMABUF_CREATE");
  close(device);
  return m;
}

// -- netlink
// ----------------------------------------------------------------------

struct message {
  _Alignas(8) uint8_t bytes[512];
  size_t size;
};

static struct message request(uint16_t type, uint8_t command) {
  struct message m = {.size = NLMSG_HDRLEN + GENL_HDRLEN};
  struct nlmsghdr* header = (void*)m.bytes;
  header->nlmsg_type = type;
  header->nlmsg_flags = NLM_F_REQUEST | NLM_F_ACK;
  header->nlmsg_seq = 1;
  struct genlmsghdr* genl = (void*)(m.bytes + NLMSG_HDRLEN);
  genl->cmd = command;
  genl->version = 1;
  return m;
}

static struct nlattr* add(struct message* m, uint16_t type, const void* data,
                          size_t size) {
  struct nlattr* attribute = (void*)(m->bytes + m->size);
  attribute->nla_type = type;
  attribute->nla_len = (uint16_t)(NLA_HDRLEN + size);
  if (size > 0) memcpy(m->bytes + m->size + NLA_HDRLEN, data, size);
  m->size += NLA_ALIGN(NLA_HDRLEN + size);
  return attribute;
}

static void add_u32(struct message* m, uint16_t type, uint32_t value) {
  add(m, type, &value, sizeof(value));
}

// Sends it; the attribute `wanted` of the answer, up to its acknowledgement.
static uint32_t ask(int fd, struct message* m, uint16_t wanted) {
  ((struct nlmsghdr*)(void*)m->bytes)->nlmsg_len = (uint32_t)m->size;
  if (send(fd, m->bytes, m->size, 0) < 0) die("netlink send");
  uint32_t value = 0;
  while (true) {
    _Alignas(8) uint8_t bytes[8192];
    const ssize_t got = recv(fd, bytes, sizeof(bytes), 0);
    if (got < 0) die("netlink recv");
    int left = (int)got;
    for (struct nlmsghdr* h = (void*)bytes; NLMSG_OK(h, left);
         h = NLMSG_NEXT(h, left)) {
      if (h->nlmsg_type == NLMSG_ERROR) {
        errno = -((struct nlmsgerr*)NLMSG_DATA(h))->error;
        if (errno != 0) die("netdev");
        return value;
      }
      const uint8_t* end = (uint8_t*)h + h->nlmsg_len;
      for (const uint8_t* at = (uint8_t*)NLMSG_DATA(h) + GENL_HDRLEN;
           at + NLA_HDRLEN <= end;) {
        struct nlattr a;
        memcpy(&a, at, sizeof(a));
        if (a.nla_len < NLA_HDRLEN || a.nla_len > end - at) break;
        const size_t size = a.nla_len - NLA_HDRLEN;
        if (a.nla_type == wanted) {
          memcpy(&value, at + NLA_HDRLEN, size < 4 ? size : 4);
        }
        at += NLA_ALIGN(a.nla_len);
      }
    }
  }
}

// Binds the memory to the interface: to a queue of it to receive into, or to
// send from. The dmabuf's id. The binding lasts as long as the process.
static uint32_t bind_memory(const struct memory* m, bool is_receive) {
  const int fd = socket(AF_NETLINK, SOCK_RAW | SOCK_CLOEXEC, NETLINK_GENERIC);
  if (fd < 0) die("netlink socket");
  struct message family = request(GENL_ID_CTRL, CTRL_CMD_GETFAMILY);
  add(&family, CTRL_ATTR_FAMILY_NAME, "netdev", sizeof("netdev"));
  const uint16_t type = (uint16_t)ask(fd, &family, CTRL_ATTR_FAMILY_ID);
  struct message bind =
      request(type, is_receive ? kNetdevBindRx : kNetdevBindTx);
  add_u32(&bind, kDmabufIfindex, if_nametoindex(options.interface));
  add_u32(&bind, kDmabufFd, (uint32_t)m->dmabuf);
  if (is_receive) {
    struct nlattr* queue = add(&bind, kDmabufQueues | NLA_F_NESTED, NULL, 0);
    add_u32(&bind, kQueueId, options.queue);
    add_u32(&bind, kQueueType, kQueueTypeRx);
    queue->nla_len = (uint16_t)(bind.bytes + bind.size - (uint8_t*)queue);
  }
  return ask(fd, &bind, kDmabufId);
}

// -- receiving
// ----------------------------------------------------------------------

struct counts {
  uint64_t device, linear, ordinary;  // bytes
  uint64_t frags, linear_frags, calls;
  size_t most_held, times_exhausted;
};

static void check(const uint8_t* bytes, size_t size, uint64_t at,
                  const char* where) {
  for (size_t i = 0; i < size; ++i) {
    if (bytes[i] == pattern(at + i)) continue;
    fprintf(stderr,
            "devmem_tool: byte %llu of the stream is %02x instead of %02x "
            "(%s)\n",
            (unsigned long long)(at + i), bytes[i], pattern(at + i), where);
    exit(1);
  }
}

static void give_back(int fd, struct dmabuf_token* tokens, size_t* count) {
  for (size_t i = 0; i < *count; i += 128) {
    const size_t some = *count - i < 128 ? *count - i : 128;
    const int freed = setsockopt(fd, SOL_SOCKET, kSoDevmemDontneed, tokens + i,
                                 (socklen_t)(some * sizeof(*tokens)));
    if (freed < 0) die("SO_DEVMEM_DONTNEED");
    if ((size_t)freed != some) fail("SO_DEVMEM_DONTNEED freed another number");
  }
  *count = 0;
}

static void receive(int fd, const struct memory* m, uint32_t id) {
  static uint8_t linear[1 << 18];
  static struct dmabuf_token held[4096];
  _Alignas(8) static char control[CMSG_SPACE(sizeof(struct dmabuf_cmsg)) * 64];
  struct counts n = {0};
  size_t held_count = 0;
  uint64_t at = 0;
  while (true) {
    if (options.holds && held_count > 0) {
      // What never comes because nothing was given back is what -k waits for.
      struct pollfd wait = {.fd = fd, .events = POLLIN};
      if (poll(&wait, 1, 500) == 0) {
        ++n.times_exhausted;
        give_back(fd, held, &held_count);
      }
    }
    struct iovec iov = {linear, sizeof(linear)};
    struct msghdr message = {.msg_iov = &iov,
                             .msg_iovlen = 1,
                             .msg_control = control,
                             .msg_controllen = sizeof(control)};
    const ssize_t got = recvmsg(fd, &message, kMsgSockDevmem);
    if (got < 0) die("recvmsg");
    if (got == 0) break;
    ++n.calls;
    const uint64_t start = at;
    size_t linear_at = 0;
    struct dmabuf_token fresh[64];
    size_t fresh_count = 0;
    for (struct cmsghdr* c = CMSG_FIRSTHDR(&message); c != NULL;
         c = CMSG_NXTHDR(&message, c)) {
      struct dmabuf_cmsg frag;
      if (c->cmsg_level != SOL_SOCKET) continue;
      memcpy(&frag, CMSG_DATA(c), sizeof(frag));
      if (c->cmsg_type == kScmDevmemLinear) {
        check(linear + linear_at, frag.frag_size, at, "linear");
        linear_at += frag.frag_size;
        n.linear += frag.frag_size;
        ++n.linear_frags;
      } else if (c->cmsg_type == kScmDevmemDmabuf) {
        if (frag.dmabuf_id != id) fail("a frag of another dmabuf");
        if (frag.frag_offset + frag.frag_size > m->size) {
          fail("a frag outside the dmabuf");
        }
        check(m->bytes + frag.frag_offset, frag.frag_size, at, "device");
        fresh[fresh_count++] = (struct dmabuf_token){
            .token_start = frag.frag_token, .token_count = 1};
        n.device += frag.frag_size;
        ++n.frags;
      } else {
        continue;
      }
      at += frag.frag_size;
    }
    if (at == start) {  // Without control messages: ordinary data.
      check(linear, (size_t)got, at, "ordinary");
      n.ordinary += (uint64_t)got;
      at += (uint64_t)got;
    }
    if (at - start != (uint64_t)got) fail("frags and the result differ");
    if (!options.holds) {
      give_back(fd, fresh, &fresh_count);
      continue;
    }
    if (held_count + fresh_count > kMostFrags) give_back(fd, held, &held_count);
    memcpy(held + held_count, fresh, fresh_count * sizeof(*fresh));
    held_count += fresh_count;
    if (held_count > n.most_held) n.most_held = held_count;
  }
  give_back(fd, held, &held_count);
  printf(
      "received %llu bytes: device %llu linear %llu ordinary %llu; "
      "frags %llu linear_frags %llu calls %llu held %zu exhausted %zu\n",
      (unsigned long long)at, (unsigned long long)n.device,
      (unsigned long long)n.linear, (unsigned long long)n.ordinary,
      (unsigned long long)n.frags, (unsigned long long)n.linear_frags,
      (unsigned long long)n.calls, n.most_held, n.times_exhausted);
}

// -- sending
// ----------------------------------------------------------------------

struct completions {
  uint32_t next;  // number of the next send
  uint32_t done;  // all below are complete
  uint32_t notifications, copied;
};

// Waits until at most `most` sends are not complete.
static void await_completions(int fd, struct completions* c, uint32_t most) {
  while (c->next - c->done > most) {
    struct pollfd wait = {.fd = fd};
    if (poll(&wait, 1, 10000) <= 0) fail("no completion within 10 s");
    if ((wait.revents & POLLERR) == 0) fail("poll: not POLLERR");
    char control[128];
    struct msghdr message = {.msg_control = control,
                             .msg_controllen = sizeof(control)};
    if (recvmsg(fd, &message, MSG_ERRQUEUE) < 0) {
      if (errno == EAGAIN) continue;
      die("MSG_ERRQUEUE");
    }
    for (struct cmsghdr* m = CMSG_FIRSTHDR(&message); m != NULL;
         m = CMSG_NXTHDR(&message, m)) {
      struct sock_extended_err error;
      memcpy(&error, CMSG_DATA(m), sizeof(error));
      if (error.ee_origin != SO_EE_ORIGIN_ZEROCOPY) fail("another error");
      if (error.ee_info != c->done) fail("completions out of order");
      c->done = error.ee_data + 1;
      ++c->notifications;
      c->copied += error.ee_code == SO_EE_CODE_ZEROCOPY_COPIED;
    }
  }
}

// One message, in two pieces that do not follow one another, at `slot` bytes
// from the start of the dmabuf.
static void send_message(int fd, const struct memory* m, uint32_t id,
                         size_t slot, uint64_t at, size_t size,
                         struct completions* c) {
  const size_t first = size / 3;
  const size_t first_at = slot + at % 509;
  const size_t second_at = first_at + first + 1 + at % 1021;
  for (size_t i = 0; i < size; ++i) {
    m->bytes[i < first ? first_at + i : second_at + i - first] =
        pattern(at + i);
  }
  // An address, or the offset in the dmabuf.
  uint8_t* const base = options.sends_from_host ? m->bytes : NULL;
  struct iovec iov[2] = {{base + first_at, first},
                         {base + second_at, size - first}};
  _Alignas(8) char control[CMSG_SPACE(sizeof(id))] = {0};
  struct msghdr message = {.msg_iov = iov, .msg_iovlen = 2};
  if (!options.sends_from_host) {
    message.msg_control = control;
    message.msg_controllen = sizeof(control);
    struct cmsghdr* header = CMSG_FIRSTHDR(&message);
    header->cmsg_level = SOL_SOCKET;
    header->cmsg_type = kScmDevmemDmabuf;
    header->cmsg_len = CMSG_LEN(sizeof(id));
    memcpy(CMSG_DATA(header), &id, sizeof(id));
  }
  const ssize_t sent = sendmsg(fd, &message, MSG_ZEROCOPY);
  if (sent < 0) die("sendmsg");
  if ((size_t)sent != size) fail("sendmsg sent less, and might have waited");
  ++c->next;
}

static void send_all(int fd, const struct memory* m, uint32_t id) {
  const int on = 1;
  if (setsockopt(fd, SOL_SOCKET, SO_ZEROCOPY, &on, sizeof(on)) != 0) {
    die("SO_ZEROCOPY");
  }
  // So that each message is a segment of its own, if it is short enough.
  if (setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof(on)) != 0) {
    die("TCP_NODELAY");
  }
  const size_t most = options.last > options.most ? options.last : options.most;
  const size_t slot_bytes = most + 2048;  // and the gaps
  const size_t slots = m->size / slot_bytes;
  struct completions c = {0};
  uint64_t at = 0;
  uint64_t random = options.seed;
  const unsigned ascending =
      options.first > 0 ? options.last - options.first + 1 : 0;
  for (unsigned i = 0; i < ascending + options.count; ++i) {
    size_t size = options.first + i;
    if (i >= ascending) {
      // Knuth, MMIX: any generator will do.
      random = random * 6364136223846793005u + 1442695040888963407u;
      size = 1 + (size_t)(random >> 33) % options.most;
    }
    await_completions(fd, &c, (uint32_t)slots - 1);
    send_message(fd, m, id, i % slots * slot_bytes, at, size, &c);
    at += size;
  }
  await_completions(fd, &c, 0);
  if (shutdown(fd, SHUT_WR) != 0) die("shutdown");
  char byte;
  if (read(fd, &byte, 1) != 0) fail("the receiver did not end the stream");
  printf(
      "sent %llu bytes in %u sends, all complete; notifications %u "
      "copied %u\n",
      (unsigned long long)at, c.next, c.notifications, c.copied);
}

// -- the rest
// ----------------------------------------------------------------------

static int connect_to(const struct sockaddr_in* name) {
  for (int tries = 0;; ++tries) {
    const int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (fd < 0) die("socket");
    if (connect(fd, (const struct sockaddr*)name, sizeof(*name)) == 0) {
      return fd;
    }
    // The other end may not be there yet.
    if (errno != ECONNREFUSED || tries == 100) die("connect");
    close(fd);
    nanosleep(&(struct timespec){.tv_nsec = 100000000}, NULL);
  }
}

static int accept_on(const struct sockaddr_in* name) {
  const int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
  if (fd < 0) die("socket");
  const int on = 1;
  setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof(on));
  if (bind(fd, (const struct sockaddr*)name, sizeof(*name)) != 0) die("bind");
  if (listen(fd, 1) != 0) die("listen");
  fprintf(stderr, "devmem_tool: listening\n");
  const int stream = accept4(fd, NULL, NULL, SOCK_CLOEXEC);
  if (stream < 0) die("accept");
  close(fd);
  return stream;
}

static const char kUsage[] =
    "devmem_tool -f IF [-l] [-s | -r] [OPTION...] ADDRESS PORT\n"
    "  -f IF          the interface whose queue is bound\n"
    "  -l             listens; else connects\n"
    "  -s, -r         sends, or receives; default: who listens receives\n"
    "  -b FIRST:LAST  sends one message of each of these sizes\n"
    "  -n COUNT -m MOST [-e SEED]  and so many of random sizes\n"
    "  -H             sends from host memory (MSG_ZEROCOPY, no dmabuf)\n"
    "  -k             keeps all frags until nothing more comes\n"
    "  -M BYTES       of the dmabuf (4 MiB)\n"
    "  -d udmabuf | memfd   what it is (udmabuf where there is one)\n"
    "  -q QUEUE       receive queue (0)\n";

static void parse(int argc, char** argv) {
  options.dmabuf_bytes = kDmabufBytes;
  options.most = 1;
  options.seed = 1;
  for (int c; (c = getopt(argc, argv, "f:lsrb:n:m:e:HkM:d:q:")) != -1;) {
    switch (c) {
      case 'f':
        options.interface = optarg;
        break;
      case 'l':
        options.listens = true;
        break;
      case 's':
        options.sends = options.is_sender_set = true;
        break;
      case 'r':
        options.is_sender_set = true;
        break;
      case 'b':
        if (sscanf(optarg, "%u:%u", &options.first, &options.last) != 2) {
          fail("-b takes FIRST:LAST");
        }
        break;
      case 'n':
        options.count = (unsigned)atoi(optarg);
        break;
      case 'm':
        options.most = (unsigned)atoi(optarg);
        break;
      case 'e':
        options.seed = (unsigned)atoi(optarg);
        break;
      case 'H':
        options.sends_from_host = true;
        break;
      case 'k':
        options.holds = true;
        break;
      case 'M':
        options.dmabuf_bytes = strtoull(optarg, NULL, 0);
        break;
      case 'd':
        options.dmabuf = optarg;
        break;
      case 'q':
        options.queue = (unsigned)atoi(optarg);
        break;
      default:
        fputs(kUsage, stderr);
        exit(2);
    }
  }
  if (!options.is_sender_set) options.sends = !options.listens;
  const size_t most = options.last > options.most ? options.last : options.most;
  if (argc - optind != 2 || options.interface == NULL || most == 0 ||
      (options.sends && most + 2048 > options.dmabuf_bytes) ||
      (options.first > 0 && options.last < options.first)) {
    fputs(kUsage, stderr);
    exit(2);
  }
}

int main(int argc, char** argv) {
  parse(argc, argv);
  const struct memory memory = make_memory(options.dmabuf_bytes);
  const uint32_t id =
      options.sends_from_host ? 0 : bind_memory(&memory, !options.sends);
  struct sockaddr_in name = {
      .sin_family = AF_INET,
      .sin_port = htons((uint16_t)atoi(argv[optind + 1]))};
  if (inet_pton(AF_INET, argv[optind], &name.sin_addr) != 1) {
    fail("not an address");
  }
  const int fd = options.listens ? accept_on(&name) : connect_to(&name);
  if (options.sends) {
    send_all(fd, &memory, id);
  } else {
    receive(fd, &memory, id);
  }
  close(fd);
  return 0;
}
