#include "transport/wire/tcp_options.h"

#include <algorithm>

#include "base/check.h"
#include "transport/wire/byte_order.h"

namespace devwire {
namespace {

// One option at `at`, `length` bytes with kind and length byte. False when the
// length is wrong for a kind we know.
bool TakeOption(uint8_t kind, const std::byte* at, uint32_t length,
                TcpOptions* out) {
  switch (kind) {
    case kOptionMss:
      if (length != 4) return false;
      out->mss = LoadBe16(at + 2);
      return true;
    case kOptionWindowScale:
      if (length != 3) return false;
      out->window_scale = Load8(at + 2);
      return true;
    case kOptionSackPermitted:
      if (length != 2) return false;
      out->sack_permitted = true;
      return true;
    case kOptionTimestamps:
      if (length != 10) return false;
      out->timestamps = Timestamps{LoadBe32(at + 2), LoadBe32(at + 6)};
      return true;
    case kOptionSack: {
      // 40 bytes of options cannot hold more than four blocks.
      if (length < 10 || (length - 2) % 8 != 0) return false;
      const uint32_t count = std::min<uint32_t>((length - 2) / 8, 4);
      for (uint32_t i = 0; i < count; ++i) {
        out->sack_blocks[i] = {SeqNum(LoadBe32(at + 2 + 8 * i)),
                               SeqNum(LoadBe32(at + 6 + 8 * i))};
      }
      out->sack_block_count = static_cast<uint8_t>(count);
      return true;
    }
    default:
      return true;
  }
}

std::byte* PutKind(std::byte* at, uint8_t kind, uint8_t length) {
  Store8(at, kind);
  Store8(at + 1, length);
  return at + 2;
}

std::byte* PutNops(std::byte* at, int count) {
  for (int i = 0; i < count; ++i) Store8(at++, kOptionNop);
  return at;
}

std::byte* PutTimestamps(std::byte* at, const Timestamps& timestamps) {
  at = PutKind(at, kOptionTimestamps, 10);
  StoreBe32(at, timestamps.val);
  StoreBe32(at + 4, timestamps.ecr);
  return at + 8;
}

}  // namespace

bool operator==(const TcpOptions& a, const TcpOptions& b) {
  return a.mss == b.mss && a.window_scale == b.window_scale &&
         a.sack_permitted == b.sack_permitted && a.timestamps == b.timestamps &&
         a.sack_block_count == b.sack_block_count &&
         std::equal(a.sack_blocks.begin(),
                    a.sack_blocks.begin() + a.sack_block_count,
                    b.sack_blocks.begin());
}

TcpOptionsResult ParseTcpOptions(const std::byte* at, uint32_t available,
                                 uint32_t option_bytes, TcpOptions* out) {
  *out = TcpOptions();
  uint32_t i = 0;
  while (i < option_bytes) {
    if (i >= available) return TcpOptionsResult::kCut;
    const uint8_t kind = Load8(at + i);
    if (kind == kOptionEnd) return TcpOptionsResult::kOk;
    if (kind == kOptionNop) {
      ++i;
      continue;
    }
    if (i + 1 >= option_bytes) return TcpOptionsResult::kMalformed;
    if (i + 1 >= available) return TcpOptionsResult::kCut;
    const uint32_t length = Load8(at + i + 1);
    if (length < 2 || length > option_bytes - i) {
      return TcpOptionsResult::kMalformed;
    }
    if (length > available - i) return TcpOptionsResult::kCut;
    if (!TakeOption(kind, at + i, length, out)) {
      return TcpOptionsResult::kMalformed;
    }
    i += length;
  }
  return TcpOptionsResult::kOk;
}

uint32_t TcpOptionsBytes(const TcpOptions& options) {
  uint32_t n = 0;
  if (options.mss) n += 4;
  if (options.timestamps) n += 12;
  if (options.sack_permitted && !options.timestamps) n += 4;
  if (options.window_scale) n += 4;
  if (options.sack_block_count > 0) n += 4 + 8u * options.sack_block_count;
  return n;
}

uint32_t EmitTcpOptions(const TcpOptions& options, std::byte* const start) {
  DCHECK_LE(TcpOptionsBytes(options), kMaxTcpOptionBytes);
  std::byte* at = start;
  if (options.mss) {
    at = PutKind(at, kOptionMss, 4);
    StoreBe16(at, *options.mss);
    at += 2;
  }
  // sackOK fills the two bytes before the timestamps that are nops otherwise.
  if (options.sack_permitted) {
    if (!options.timestamps) at = PutNops(at, 2);
    at = PutKind(at, kOptionSackPermitted, 2);
  } else if (options.timestamps) {
    at = PutNops(at, 2);
  }
  if (options.timestamps) at = PutTimestamps(at, *options.timestamps);
  if (options.window_scale) {
    at = PutNops(at, 1);
    at = PutKind(at, kOptionWindowScale, 3);
    Store8(at++, *options.window_scale);
  }
  if (options.sack_block_count > 0) {
    at = PutNops(at, 2);
    at = PutKind(at, kOptionSack,
                 static_cast<uint8_t>(2 + 8 * options.sack_block_count));
    for (int i = 0; i < options.sack_block_count; ++i) {
      StoreBe32(at, options.sack_blocks[i].left.raw());
      StoreBe32(at + 4, options.sack_blocks[i].right.raw());
      at += 8;
    }
  }
  return static_cast<uint32_t>(at - start);
}

}  // namespace devwire
