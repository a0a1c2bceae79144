// What a taken socket has received and its application has not read: the
// stream's own buffer, and bytes read ahead of the application, because it
// peeked (MSG_PEEK) or reads urgent data out of turn (MSG_OOB).
//
//   given ----> | ahead, here      | the stream's           | not arrived
//               ^ the application  ^ Stream::Read           ^
//                 reads here
//
// Urgent data is one byte, as in Linux: the last before the urgent pointer.
// Reading stops at it, and skips it, unless SO_OOBINLINE. tcp(7)
//
// Threads:  one at a time. Lifetime: ends before its stream.
// Cost:     nothing is copied twice unless something was read ahead.
#ifndef SOCKETS_PRELOAD_INBOX_H_
#define SOCKETS_PRELOAD_INBOX_H_

#include <sys/uio.h>

#include <cstddef>
#include <cstdint>
#include <optional>
#include <span>
#include <vector>

#include "absl/status/statusor.h"
#include "sockets/stream.h"

namespace devwire::preload {

class Inbox {
 public:
  struct How {
    bool peeks = false;          // MSG_PEEK
    bool discards = false;       // MSG_TRUNC: `out` is not written to
    bool urgent_inline = false;  // SO_OOBINLINE
  };

  explicit Inbox(Stream* stream) : stream_(stream) {}

  // Copies what there is, at most as much as `out` holds. The stream's failure
  // when there is nothing before it.
  absl::StatusOr<Received> Read(std::span<const iovec> out, How how);

  // The urgent byte: 1, -EAGAIN (it was announced and has not arrived), -EINVAL
  // (there is none, or it was read, or urgent data is in line).
  int64_t ReadUrgent(std::byte* out, bool peeks, bool urgent_inline);

  // FIONREAD: up to the urgent byte, unless it is in line.
  uint64_t ReadableBytes(bool urgent_inline);
  // SIOCATMARK: the next byte is the urgent one.
  bool IsAtMark();
  // Of ReadableBytes(), those that the stream does not know any more.
  uint64_t ahead_bytes() const { return ahead_.size() - ahead_begin_; }

 private:
  void LookForUrgent();
  // Reads ahead until `bytes` are, as far as they have arrived.
  absl::Status ReadAhead(uint64_t bytes);
  void DropAhead(uint64_t bytes);
  // Of what is ahead, from `offset` on.
  uint64_t CopyAhead(std::span<const iovec> out, uint64_t offset,
                     uint64_t limit, bool discards);
  absl::StatusOr<Received> Peek(std::span<const iovec> out, uint64_t skip,
                                uint64_t limit, How how);
  absl::StatusOr<Received> Take(std::span<const iovec> out, uint64_t limit,
                                How how);

  Stream* const stream_;
  uint64_t given_ = 0;  // Bytes of the stream that the application has.
  std::vector<std::byte> ahead_;
  size_t ahead_begin_ = 0;
  bool has_end_ = false;          // The stream's end was read ahead.
  std::optional<uint64_t> mark_;  // The urgent byte's place in the stream.
  bool urgent_is_read_ = false;
};

}  // namespace devwire::preload

#endif  // SOCKETS_PRELOAD_INBOX_H_
