#include "transport/wire/notation.h"

#include <charconv>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"

namespace devwire {
namespace {

struct FlagLetter {
  char letter;
  uint8_t flag;
};
constexpr FlagLetter kFlagLetters[] = {
    {'F', kFin}, {'S', kSyn}, {'R', kRst}, {'P', kPsh},
    {'.', kAck}, {'U', kUrg}, {'E', kEce}, {'W', kCwr},
};

// Reads a line from its start; after the first mistake everything answers
// false and `status` tells of that mistake.
class Reader {
 public:
  explicit Reader(std::string_view text) : whole_(text), rest_(text) {}

  absl::StatusOr<NotatedSegment> Read() {
    NotatedSegment segment;
    ReadFlags(&segment.header.flags);
    ReadSequence(&segment);
    ReadFields(&segment);
    if (Skip("<")) {
      segment.has_options = true;
      ReadOptions(&segment.header.options);
    }
    SkipSpaces();
    if (!rest_.empty()) Fail("the end");
    if (!error_.empty()) return absl::InvalidArgumentError(error_);
    return segment;
  }

 private:
  void SkipSpaces() {
    while (!rest_.empty() && rest_.front() == ' ') rest_.remove_prefix(1);
  }
  // Takes `word` if it is next.
  bool Skip(std::string_view word) {
    SkipSpaces();
    if (!error_.empty() || rest_.substr(0, word.size()) != word) return false;
    rest_.remove_prefix(word.size());
    return true;
  }
  void Expect(std::string_view word) {
    if (!Skip(word)) Fail("'" + std::string(word) + "'");
  }
  // Debian's absl::string_view is a type of its own, hence the strings.
  void Fail(const std::string& wanted) {
    if (!error_.empty()) return;
    error_ = "segment '" + std::string(whole_) + "': expected " + wanted +
             " at '" + std::string(rest_) + "'";
  }
  template <typename T>
  T Number() {
    SkipSpaces();
    T value = 0;
    const char* end = rest_.data() + rest_.size();
    const auto [next, ec] = std::from_chars(rest_.data(), end, value);
    if (ec != std::errc()) {
      Fail(absl::StrCat("a number of ", 8 * sizeof(T), " bits"));
      return 0;
    }
    rest_.remove_prefix(static_cast<size_t>(next - rest_.data()));
    return value;
  }

  void ReadFlags(uint8_t* flags) {
    if (Skip("-")) return;
    SkipSpaces();
    while (!rest_.empty() && rest_.front() != ' ') {
      uint8_t flag = 0;
      for (const FlagLetter& f : kFlagLetters) {
        if (f.letter == rest_.front()) flag = f.flag;
      }
      if (flag == 0) return Fail("flags (FSRP.UEW or -)");
      *flags |= flag;
      rest_.remove_prefix(1);
    }
    if (*flags == 0) Fail("flags (FSRP.UEW or -)");
  }

  void ReadSequence(NotatedSegment* segment) {
    const auto seq = Number<uint32_t>();
    Expect(":");
    const auto end = Number<uint32_t>();
    Expect("(");
    const auto bytes = Number<uint32_t>();
    Expect(")");
    if (end - seq != bytes) Fail("the length to be the end less the start");
    segment->header.seq = SeqNum(seq);
    segment->payload_bytes = bytes;
  }

  void ReadFields(NotatedSegment* segment) {
    TcpHeader& header = segment->header;
    const bool has_ack = Skip("ack ");
    if (has_ack != ((header.flags & kAck) != 0)) {
      return Fail("'ack' if and only if the flags hold '.'");
    }
    if (has_ack) header.ack = SeqNum(Number<uint32_t>());
    if (Skip("win ")) {
      segment->has_wnd = true;
      header.wnd = Number<uint16_t>();
    }
    if (Skip("urg ")) header.urgent_pointer = Number<uint16_t>();
  }

  void ReadOptions(TcpOptions* options) {
    if (Skip(">")) return;
    do {
      ReadOption(options);
    } while (Skip(","));
    Expect(">");
  }

  void ReadOption(TcpOptions* options) {
    if (Skip("nop") || Skip("eol")) return;
    if (Skip("mss ")) {
      options->mss = Number<uint16_t>();
    } else if (Skip("wscale ")) {
      options->window_scale = Number<uint8_t>();
    } else if (Skip("sackOK")) {
      options->sack_permitted = true;
    } else if (Skip("TS val ")) {
      Timestamps timestamps;
      timestamps.val = Number<uint32_t>();
      Expect("ecr ");
      timestamps.ecr = Number<uint32_t>();
      options->timestamps = timestamps;
    } else if (Skip("sack ")) {
      ReadSackBlocks(options);
    } else {
      Fail("an option (mss, wscale, sackOK, TS, sack, nop, eol)");
    }
  }

  void ReadSackBlocks(TcpOptions* options) {
    do {
      if (options->sack_block_count == kMaxSackBlocks) {
        return Fail("no more than four SACK blocks");
      }
      SackBlock& block = options->sack_blocks[options->sack_block_count++];
      block.left = SeqNum(Number<uint32_t>());
      Expect(":");
      block.right = SeqNum(Number<uint32_t>());
      SkipSpaces();
    } while (error_.empty() && !rest_.empty() && rest_.front() >= '0' &&
             rest_.front() <= '9');
  }

  const std::string_view whole_;
  std::string_view rest_;
  std::string error_;
};

}  // namespace

std::string FormatFlags(uint8_t flags) {
  std::string text;
  for (const FlagLetter& f : kFlagLetters) {
    if ((flags & f.flag) != 0) text += f.letter;
  }
  return text.empty() ? "-" : text;
}

std::string FormatOptions(const TcpOptions& options) {
  std::string text;
  auto add = [&text](const auto&... parts) {
    absl::StrAppend(&text, text.empty() ? "<" : ",", parts...);
  };
  if (options.mss) add("mss ", *options.mss);
  if (options.sack_permitted) {
    if (!options.timestamps) add("nop,nop");
    add("sackOK");
  } else if (options.timestamps) {
    add("nop,nop");
  }
  if (options.timestamps) {
    add("TS val ", options.timestamps->val, " ecr ", options.timestamps->ecr);
  }
  if (options.window_scale) add("nop,wscale ", int{*options.window_scale});
  if (options.sack_block_count > 0) {
    add("nop,nop,sack");
    for (int i = 0; i < options.sack_block_count; ++i) {
      absl::StrAppend(&text, " ", options.sack_blocks[i].left.raw(), ":",
                      options.sack_blocks[i].right.raw());
    }
  }
  if (!text.empty()) text += '>';
  return text;
}

std::string FormatSegment(const TcpHeader& header, uint32_t payload_bytes) {
  std::string text =
      absl::StrCat(FormatFlags(header.flags), " ", header.seq.raw(), ":",
                   (header.seq + payload_bytes).raw(), "(", payload_bytes, ")");
  if ((header.flags & kAck) != 0) {
    absl::StrAppend(&text, " ack ", header.ack.raw());
  }
  absl::StrAppend(&text, " win ", header.wnd);
  if ((header.flags & kUrg) != 0) {
    absl::StrAppend(&text, " urg ", header.urgent_pointer);
  }
  const std::string options = FormatOptions(header.options);
  if (!options.empty()) absl::StrAppend(&text, " ", options);
  return text;
}

absl::StatusOr<NotatedSegment> ParseSegment(std::string_view text) {
  return Reader(text).Read();
}

}  // namespace devwire
