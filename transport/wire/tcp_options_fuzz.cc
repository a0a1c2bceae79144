// Option bytes from anybody, cut anywhere.
//
// Input: one byte chooses the cut, up to 40 more are the options.
#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <vector>

#include "base/check.h"
#include "transport/wire/tcp_options.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using namespace devwire;
  if (size < 1) return 0;
  const auto bytes =
      static_cast<uint32_t>(std::min<size_t>(size - 1, kMaxTcpOptionBytes));
  const uint32_t available = std::min<uint32_t>(data[0], bytes);
  const auto* at = reinterpret_cast<const std::byte*>(data + 1);
  // Copies of exactly what may be read, for the sanitizer to watch.
  const std::vector<std::byte> visible(at, at + available);
  TcpOptions cut;
  ParseTcpOptions(visible.data(), available, bytes, &cut);

  const std::vector<std::byte> all(at, at + bytes);
  TcpOptions whole;
  ParseTcpOptions(all.data(), bytes, bytes, &whole);
  // The cut one knows nothing that the whole does not.
  CHECK(!cut.mss || whole.mss);
  CHECK(!cut.timestamps || whole.timestamps);
  CHECK_LE(cut.sack_permitted, whole.sack_permitted);
  CHECK_LE(int{whole.sack_block_count}, kMaxSackBlocks);

  if (TcpOptionsBytes(whole) > kMaxTcpOptionBytes) return 0;
  std::byte out[kMaxTcpOptionBytes];
  const uint32_t written = EmitTcpOptions(whole, out);
  TcpOptions again;
  CHECK_EQ(ParseTcpOptions(out, written, written, &again),
           TcpOptionsResult::kOk);
  CHECK(again == whole);
  return 0;
}
