#include "sockets/preload/devmem_receive.h"

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <utility>

#include "sockets/errno_map.h"

namespace devwire::preload {
namespace {

// Tokens are positive as int, as those of Linux (xa_limit_31b).
constexpr uint32_t kLastToken = INT32_MAX;

// No frame is longer: StackOptions::mtu.
constexpr uint64_t kMostFragBytes = 9978;

bool IsOrdinary(const StreamFrag& frag) {
  return frag.host != nullptr && FragPool::PoolOf(frag.token) == kHostPool;
}

}  // namespace

DevmemReceiver::Call::Call(const msghdr& message, int flags)
    : iov_(message.msg_iov, message.msg_iovlen),
      control_(static_cast<char*>(message.msg_control)),
      control_size_(message.msg_control == nullptr ? 0
                                                   : message.msg_controllen),
      flags_(flags) {
  for (const iovec& v : iov_) wanted_ += v.iov_len;
}

void DevmemReceiver::Call::Copy(const std::byte* from, size_t size) {
  while (size > 0) {
    const iovec& v = iov_.front();
    const size_t take = std::min(size, v.iov_len - iov_at_);
    if (take > 0) {
      memcpy(static_cast<std::byte*>(v.iov_base) + iov_at_, from, take);
    }
    from += take;
    size -= take;
    iov_at_ += take;
    if (iov_at_ < v.iov_len) continue;
    iov_ = iov_.subspan(1);
    iov_at_ = 0;
  }
}

bool DevmemReceiver::Call::AddControl(int type, const DmabufCmsg& cmsg) {
  const size_t length = CMSG_LEN(sizeof(cmsg));
  if (control_size_ - control_used_ < length) return false;
  cmsghdr header = {};
  header.cmsg_len = length;
  header.cmsg_level = SOL_SOCKET;
  header.cmsg_type = type;
  char* const at = control_ + control_used_;
  memcpy(at, &header, sizeof(header));
  memcpy(at + CMSG_LEN(0), &cmsg, sizeof(cmsg));
  control_used_ +=
      std::min(CMSG_SPACE(sizeof(cmsg)), control_size_ - control_used_);
  return true;
}

absl::Status DevmemReceiver::TakeIn(uint64_t bytes) {
  StreamFrag frags[32];
  // Whole frags, at most one more than is wanted: what is read of one in
  // several calls stays one lent piece.
  const size_t count = std::min<uint64_t>(bytes / kMostFragBytes + 1, 32);
  const absl::StatusOr<Received> got =
      stream_.ReceiveFrags(std::span(frags).first(count), UINT64_MAX);
  if (!got.ok()) return got.status();
  has_end_ |= got->end_of_stream;
  held_bytes_ += got->bytes;
  if (got->frags > 0 && binding_->memory != nullptr) {
    binding_->memory->MakeVisible();
  }
  for (const StreamFrag& frag : std::span(frags).first(got->frags)) {
    const auto give_back = [&stream = stream_](const StreamFrag* f) {
      // Stale, if the stream was closed: then the close has taken it back.
      (void)stream.ReturnTokens({&f->token, 1});
      delete f;
    };
    queue_.push_back({Lent(new StreamFrag(frag), give_back)});
  }
  return absl::OkStatus();
}

int64_t DevmemReceiver::Look(Call& call, bool* may_go_on) {
  const uint64_t before = call.total_;
  *may_go_on = true;
  while (call.total_ < call.wanted_) {
    if (call.piece_ == queue_.size()) {
      const absl::Status status = TakeIn(call.wanted_ - call.total_);
      if (call.piece_ == queue_.size()) {
        if (!status.ok() && call.total_ == before) return -ErrnoOf(status);
        break;
      }
    }
    const Piece piece = queue_[call.piece_];
    const auto bytes = static_cast<uint32_t>(std::min<uint64_t>(
        piece.frag->length - piece.at, call.wanted_ - call.total_));
    const int64_t error = DeliverPiece(call, piece, bytes);
    if (error != 0) {
      *may_go_on = false;
      if (call.total_ == 0) return error;
      break;
    }
    call.total_ += bytes;
    if (call.has(MSG_PEEK)) {
      ++call.piece_;
    } else {
      Consume(bytes);
    }
  }
  *may_go_on &= call.total_ < call.wanted_ && !is_at_end();
  return static_cast<int64_t>(call.total_ - before);
}

// 0, or a negative errno: it stays where it is.
int64_t DevmemReceiver::DeliverPiece(Call& call, const Piece& piece,
                                     uint32_t bytes) {
  const StreamFrag& frag = *piece.frag;
  const auto kind =
      IsOrdinary(frag) ? Call::Kind::kOrdinary : Call::Kind::kDevmem;
  if (!call.has(MSG_TRUNC)) {
    if (call.kind_.value_or(kind) != kind) return -EAGAIN;
    if (kind == Call::Kind::kOrdinary) {
      call.Copy(frag.host + piece.at, bytes);
    } else if (!call.has(kMsgSockDevmem)) {
      return -EFAULT;
    } else if (frag.host != nullptr) {
      if (!call.AddControl(kScmDevmemLinear, {.frag_size = bytes})) {
        return -kErrnoTooSmall;
      }
      call.Copy(frag.host + piece.at, bytes);
    } else {
      const DmabufCmsg cmsg = {.frag_offset = frag.offset + piece.at,
                               .frag_size = bytes,
                               .frag_token = next_token_,
                               .dmabuf_id = binding_->id};
      if (!call.AddControl(kScmDevmemDmabuf, cmsg)) return -kErrnoTooSmall;
      NewToken(piece.frag);
    }
  }
  call.kind_ = kind;
  return 0;
}

void DevmemReceiver::Consume(uint32_t bytes) {
  Piece& piece = queue_.front();
  piece.at += bytes;
  held_bytes_ -= bytes;
  if (piece.at == piece.frag->length) queue_.pop_front();
}

uint32_t DevmemReceiver::NewToken(const Lent& frag) {
  const uint32_t token = next_token_;
  tokens_[token] = frag;
  do {
    next_token_ = next_token_ == kLastToken ? 1 : next_token_ + 1;
  } while (tokens_.contains(next_token_));
  return token;
}

int64_t DevmemReceiver::DontNeed(std::span<const DmabufToken> tokens) {
  int64_t released = 0;
  uint32_t seen = 0;
  for (const DmabufToken& t : tokens) {
    for (uint32_t i = 0; i < t.token_count; ++i) {
      if (seen++ == kMaxDontneedFrags) return released;
      released += static_cast<int64_t>(tokens_.erase(t.token_start + i));
    }
  }
  return released;
}

}  // namespace devwire::preload
