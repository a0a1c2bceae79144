#include "sockets/preload/inbox.h"

#include <errno.h>

#include <algorithm>
#include <cstring>

namespace devwire::preload {
namespace {

uint64_t SizeOf(std::span<const iovec> out) {
  uint64_t bytes = 0;
  for (const iovec& v : out) bytes += v.iov_len;
  return bytes;
}

}  // namespace

void Inbox::LookForUrgent() {
  const uint64_t bytes = stream_->UrgentBytes().value_or(0);
  if (bytes == 0) {
    if (mark_ && *mark_ < given_) mark_.reset();
    return;
  }
  const uint64_t mark = given_ + ahead_bytes() + bytes - 1;
  if (mark_ == mark) return;
  mark_ = mark;
  urgent_is_read_ = false;
}

absl::Status Inbox::ReadAhead(uint64_t bytes) {
  while (ahead_bytes() < bytes && !has_end_) {
    const uint64_t there = stream_->ReadableBytes().value_or(0);
    const size_t wanted =
        static_cast<size_t>(std::min(bytes - ahead_bytes(), there));
    const size_t size = ahead_.size();
    ahead_.resize(size + wanted);
    const absl::StatusOr<Received> got =
        stream_->Read(std::span(ahead_).subspan(size));
    ahead_.resize(size + (got.ok() ? got->bytes : 0));
    if (!got.ok()) return got.status();
    has_end_ |= got->end_of_stream;
    if (got->bytes == 0) break;
  }
  return absl::OkStatus();
}

void Inbox::DropAhead(uint64_t bytes) {
  ahead_begin_ += bytes;
  given_ += bytes;
  if (ahead_bytes() > 0) return;
  ahead_.clear();
  ahead_begin_ = 0;
}

uint64_t Inbox::CopyAhead(std::span<const iovec> out, uint64_t offset,
                          uint64_t limit, bool discards) {
  const uint64_t total = std::min(
      limit, ahead_bytes() - std::min<uint64_t>(offset, ahead_bytes()));
  const std::byte* from = ahead_.data() + ahead_begin_ + offset;
  uint64_t left = total;
  for (const iovec& v : out) {
    const uint64_t bytes = std::min<uint64_t>(v.iov_len, left);
    if (!discards && bytes > 0) memcpy(v.iov_base, from, bytes);
    from += bytes;
    left -= bytes;
  }
  return total;
}

absl::StatusOr<Received> Inbox::Peek(std::span<const iovec> out, uint64_t skip,
                                     uint64_t limit, How how) {
  const absl::Status status = ReadAhead(skip + limit);
  Received received;
  received.bytes = CopyAhead(out, skip, limit, how.discards);
  if (received.bytes > 0) return received;
  received.end_of_stream = has_end_;
  if (!has_end_ && !status.ok()) return status;
  return received;
}

absl::StatusOr<Received> Inbox::Take(std::span<const iovec> out, uint64_t limit,
                                     How how) {
  Received received;
  received.bytes = CopyAhead(out, 0, limit, how.discards);
  uint64_t skip = received.bytes;  // Of `out`: is filled.
  DropAhead(received.bytes);
  received.end_of_stream = has_end_ && ahead_bytes() == 0;
  std::byte scratch[16 << 10];
  for (const iovec& v : out) {
    uint64_t place = std::min<uint64_t>(skip, v.iov_len);
    skip -= place;
    while (place < v.iov_len && received.bytes < limit && !has_end_) {
      uint64_t wanted = std::min(v.iov_len - place, limit - received.bytes);
      if (how.discards) wanted = std::min<uint64_t>(wanted, sizeof(scratch));
      std::byte* const to =
          how.discards ? scratch : static_cast<std::byte*>(v.iov_base) + place;
      const absl::StatusOr<Received> got = stream_->Read({to, wanted});
      if (!got.ok()) {
        if (received.bytes > 0) return received;
        return got.status();
      }
      received.bytes += got->bytes;
      given_ += got->bytes;
      place += got->bytes;
      has_end_ |= got->end_of_stream;
      received.end_of_stream = has_end_;
      if (got->bytes < wanted) return received;
    }
  }
  return received;
}

absl::StatusOr<Received> Inbox::Read(std::span<const iovec> out, How how) {
  LookForUrgent();
  uint64_t limit = SizeOf(out);
  if (!mark_) [[likely]] {
    return how.peeks ? Peek(out, 0, limit, how) : Take(out, limit, how);
  }
  uint64_t skip = 0;
  if (*mark_ > given_) {
    limit = std::min(limit, *mark_ - given_);
  } else if (!how.urgent_inline && limit > 0) {
    const absl::Status status = ReadAhead(1);
    if (ahead_bytes() == 0) {
      if (!status.ok()) return status;
      return Received{.end_of_stream = has_end_};
    }
    skip = 1;
  }
  if (how.peeks) return Peek(out, skip, limit, how);
  DropAhead(skip);
  if (*mark_ < given_) mark_.reset();
  return Take(out, limit, how);
}

int64_t Inbox::ReadUrgent(std::byte* out, bool peeks, bool urgent_inline) {
  LookForUrgent();
  if (!mark_ || urgent_is_read_ || urgent_inline) return -EINVAL;
  const uint64_t offset = *mark_ - given_;
  (void)ReadAhead(offset + 1);
  if (ahead_bytes() <= offset) return -EAGAIN;
  *out = ahead_[ahead_begin_ + offset];
  urgent_is_read_ = !peeks;
  return 1;
}

uint64_t Inbox::ReadableBytes(bool urgent_inline) {
  LookForUrgent();
  const uint64_t bytes = ahead_bytes() + stream_->ReadableBytes().value_or(0);
  if (!mark_ || urgent_inline) return bytes;
  return std::min(bytes, *mark_ - given_);
}

bool Inbox::IsAtMark() {
  LookForUrgent();
  return mark_ == given_;
}

}  // namespace devwire::preload
