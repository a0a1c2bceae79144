// Trace: a test that reads like a packet trace. One Connection, its peer
// played by the test; every segment written in wire/notation's spelling.
//
//   Trace t = Trace::Established({.mss = 1000});
//   t.At(5_ms).In("P. 1:1001(1000) ack 1", Slot{7});
//   t.Out(".  1:1(0) ack 1001").Expect(State::kEstablished);
//
// Sequence numbers are relative: our SYN and the peer's are both 0, whatever
// the real ones (Setup::iss, peer_iss). Left out of an expected segment, the
// window and the options are not compared. Times count from the start.
//
// Every call checks Connection::CheckInvariants(), that each byte of each slot
// is lent or discarded at most once, and Out() that no deadline is due.
#ifndef TRANSPORT_TCP_TRACE_H_
#define TRANSPORT_TCP_TRACE_H_

#include <map>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "base/time.h"
#include "transport/tcp/connection.h"

namespace devwire {

struct Slot {
  uint32_t index;
};

// A FragSink that knows every byte of every slot given to the connection, and
// CHECKs that none goes two ways.
class SlotLedger final : public FragSink {
 public:
  // The slot holds `bytes` bytes from now on; it must be free.
  void Arrive(SlotIndex slot, uint32_t bytes);
  void Discard(const Frag& frag) override;
  // The application got these bytes.
  void Lend(const Frag& frag);
  // The application gives its bytes back. True when that freed the slot.
  bool Return(const Frag& frag);
  // Slots with bytes that are neither discarded nor returned.
  size_t slots_in_use() const { return slots_.size(); }
  uint64_t discarded_bytes() const { return discarded_bytes_; }

 private:
  enum class Byte : uint8_t { kWithTcp, kLent, kGone };
  bool Move(const Frag& frag, Byte from, Byte to);
  std::map<uint32_t, std::vector<Byte>> slots_;
  uint64_t discarded_bytes_ = 0;
};

class Trace {
 public:
  struct Setup {
    uint16_t mss = 1000;  // Both ways.
    bool timestamps = false;
    bool sack = false;
    std::optional<uint8_t> peer_scale;  // Set: scaling is negotiated.
    uint16_t peer_wnd = 65535;          // As on the wire.
    SeqNum iss = SeqNum(1'000'000);
    SeqNum peer_iss = SeqNum(2'000'000);
    Connection::Options options;  // mss, iss and the three uses are set here.
  };

  // A new Connection in CLOSED.
  explicit Trace(const Setup& setup);
  Trace(Trace&&) = default;
  ~Trace();
  // After our SYN and the peer's SYN-ACK, which agrees to ECN if we asked for
  // it. Both next sequence numbers are 1.
  static Trace Established(const Setup& setup);
  static Trace Established() { return Established(Setup()); }
  // After the peer's SYN came to a listener, and our SYN-ACK was sent.
  static Trace SynReceived(const Setup& setup);

  Trace& At(Duration time);
  // An arrival; its text in `slot`, or in the next unused one. Without a
  // window, Setup::peer_wnd; with Setup::timestamps and no options, plausible
  // ones. `first_bytes`: so many of the text lie in a slot of their own.
  Trace& In(std::string_view segment, std::optional<Slot> slot = {},
            uint32_t first_bytes = 0);
  // As In, with CE in the IP header: the network marked it. RFC 3168 5.
  Trace& InMarked(std::string_view segment);
  // As In, the engine having dropped the text.
  Trace& InTextDropped(std::string_view segment);
  // Exactly these segments are due now.
  template <typename... Rest>
  Trace& Out(const Rest&... segments) {
    return OutAll({std::string_view(segments)...});
  }
  Trace& OutNothing() { return OutAll({}); }
  // So many segments are due now, whatever they are.
  Trace& OutCount(size_t segments);
  // The same, at the time of the next deadline(s) that makes something due,
  // which must be `time`.
  Trace& OutAt(Duration time, std::string_view segment);
  // One segment, now or when a deadline within `wait` brings it.
  Trace& ExpectOneWithin(Duration wait);
  // Nothing is sent up to and including `time`, whatever expires.
  Trace& ExpectQuietUntil(Duration time);

  Trace& OpenActive();
  // The peer's SYN came to a listener.
  Trace& OpenPassive(std::string_view syn);
  // By an ACK that brought a SYN cookie back: `syn` is what the cookie kept.
  Trace& OpenByCookie(std::string_view syn, std::string_view ack);
  Trace& Send(uint64_t bytes);
  Trace& Close();
  Trace& ShutdownReceive();
  Trace& Abort();
  // All readable frags, up to max_bytes. The test holds them.
  std::vector<Frag> Recv(uint64_t max_bytes = UINT64_MAX);
  // Gives back what Recv() returned and was not given back yet, oldest first,
  // up to `frags` of them.
  Trace& Release(size_t frags = SIZE_MAX);

  Trace& Expect(State state);
  Trace& ExpectReadable(uint64_t bytes);
  Trace& ExpectDrop(DropReason reason);  // Of the latest In().
  // Kinds since the last call, as "connected acked readable".
  Trace& ExpectEvents(std::string_view events);
  // Every slot that arrived was discarded or returned.
  Trace& ExpectNoSlotsInUse();

  // As In() would hand it over, without text.
  Segment Parse(std::string_view text);

  Connection& connection() { return *connection_; }
  const SlotLedger& ledger() const { return *ledger_; }
  Instant now() const { return now_; }
  const TxSegment& last_out() const { return last_out_; }
  TxLimits& limits() { return limits_; }

 private:
  Trace& OutAll(std::vector<std::string_view> expected);
  std::vector<std::string> PollAll();
  std::string Print(const TxSegment& out) const;
  bool Matches(const TxSegment& out, std::string_view expected) const;
  void Log(std::string_view what);
  void Check();

  Setup setup_;
  std::unique_ptr<SlotLedger> ledger_;
  std::unique_ptr<Connection> connection_;
  Instant now_ = Instant::FromNanoseconds(1'000'000'000);
  Instant start_ = now_;
  uint32_t next_slot_ = 1000;
  uint8_t next_ecn_ = kEcnNotEct;  // Of the IP header of the next arrival.
  Verdict last_verdict_;
  std::vector<TxSegment> polled_;
  TxSegment last_out_;
  uint32_t last_tsval_ = 0;
  TxLimits limits_;
  std::vector<Frag> lent_;
  std::string log_;
};

}  // namespace devwire

#endif  // TRANSPORT_TCP_TRACE_H_
