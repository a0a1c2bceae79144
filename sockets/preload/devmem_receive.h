// What recvmsg(2) does for a stream into device memory, and what
// SO_DEVMEM_DONTNEED gives back.
//
//   stream (StreamFrag) --> taken in --> described by control messages
//                              |              token -> the same frag
//                              v
//                    returned to the pool when it is consumed and no token
//                    of it is out
//
// A stream's bytes come in three kinds. *Ordinary* ones came before the NIC
// steered the stream, as whole frames in host memory: they are copied, without
// a control message. Of frames that were split, bytes lie in device memory, or
// (linear ones) in the header's slot: control messages tell which, in the order
// of the stream. One call delivers ordinary bytes or the others, not both.
//
// Source:   Linux Documentation/networking/devmem.rst; net/ipv4/tcp.c,
//           tcp_recvmsg_locked() and tcp_recvmsg_dmabuf(); net/core/sock.c,
//           sock_devmem_dontneed().
// Differs:  tokens count up and are not used again at once (Linux hands out the
//           least that is free): one given back twice frees nobody else's frag.
// Threads:  every call with Shim::mutex held.
// Lifetime: borrows the stream, which outlives it.
#ifndef SOCKETS_PRELOAD_DEVMEM_RECEIVE_H_
#define SOCKETS_PRELOAD_DEVMEM_RECEIVE_H_

#include <sys/socket.h>

#include <cstdint>
#include <deque>
#include <memory>
#include <optional>
#include <span>
#include <unordered_map>

#include "sockets/preload/devmem_bindings.h"
#include "sockets/preload/devmem_uapi.h"
#include "sockets/stream.h"

namespace devwire::preload {

class DevmemReceiver {
 public:
  // `message` as the application gave it; its control buffer and its iovs are
  // filled, no other field. Kept over several looks of one recvmsg(2).
  class Call {
   public:
    Call(const msghdr& message, int flags);
    uint64_t total() const { return total_; }  // bytes delivered
    size_t wanted() const { return wanted_; }  // bytes there is room for
    size_t control_bytes() const { return control_used_; }

   private:
    friend class DevmemReceiver;
    enum class Kind : uint8_t { kOrdinary, kDevmem };

    bool has(int flag) const { return (flags_ & flag) != 0; }
    // Copies behind what was copied before.
    void Copy(const std::byte* from, size_t size);
    // False: there is no room for it.
    bool AddControl(int type, const DmabufCmsg& cmsg);

    std::span<const iovec> iov_;
    size_t iov_at_ = 0;
    char* const control_;
    const size_t control_size_;
    size_t control_used_ = 0;
    const int flags_;
    size_t wanted_ = 0;
    uint64_t total_ = 0;
    std::optional<Kind> kind_;
    size_t piece_ = 0;  // MSG_PEEK: where in the queue
  };

  DevmemReceiver(Stream& stream, std::shared_ptr<const DevmemBinding> binding)
      : stream_(stream), binding_(std::move(binding)) {}

  // Delivers what is there. 0: nothing is there (any more, is_at_end());
  // bytes; or a negative errno, when nothing was delivered by this look:
  // -EFAULT, device data without MSG_SOCK_DEVMEM; -525, a control message does
  // not fit. `may_go_on` is false when more must wait for the next call.
  int64_t Look(Call& call, bool* may_go_on);

  // SO_DEVMEM_DONTNEED: frags given back, or a negative errno.
  int64_t DontNeed(std::span<const DmabufToken> tokens);

  // All bytes have been taken in, and the peer's FIN.
  bool is_at_end() const { return has_end_ && queue_.empty(); }
  // Taken in and not delivered.
  uint64_t held_bytes() const { return held_bytes_; }

 private:
  // Back to the pool with its last holder.
  using Lent = std::shared_ptr<const StreamFrag>;
  struct Piece {
    Lent frag;
    uint32_t at = 0;  // bytes consumed
  };

  // Some frags of the stream, towards `bytes`. OK, or why it has ended.
  absl::Status TakeIn(uint64_t bytes);
  int64_t DeliverPiece(Call& call, const Piece& piece, uint32_t bytes);
  void Consume(uint32_t bytes);
  uint32_t NewToken(const Lent& frag);

  Stream& stream_;
  const std::shared_ptr<const DevmemBinding> binding_;
  std::deque<Piece> queue_;
  uint64_t held_bytes_ = 0;
  std::unordered_map<uint32_t, Lent> tokens_;
  uint32_t next_token_ = 1;
  bool has_end_ = false;
};

}  // namespace devwire::preload

#endif  // SOCKETS_PRELOAD_DEVMEM_RECEIVE_H_
