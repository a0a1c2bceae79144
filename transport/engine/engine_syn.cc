// Engine: what comes to a listener. RFC 9293 3.10.7.2, and RFC 4987 for what a
// flood of SYNs must not do.
//
//   SYN ---> room among the half-open streams? --yes--> a stream, SYN-ACK
//                         | no
//                         v
//            a cookie: SYN-ACK, and nothing is kept
//   ACK ---> of a cookie? --yes--> a stream, ESTABLISHED
//                         | no
//                         v
//                       reset
//
// Whoever sends a SYN is not known to be there. So a SYN costs at most one
// stream out of half_open_limit_ and synack_retries answers of its own size,
// takes no share of a pool from streams that are established, and under SYN
// pressure has no rule installed for it.
#include <algorithm>

#include "base/check.h"
#include "transport/engine/engine.h"
#include "transport/engine/syn_cookie.h"

namespace devwire {
namespace {

constexpr uint8_t kEcnSetupFlags = kEce | kCwr;  // RFC 3168 6.1.1.

uint32_t TicksAt(Instant now) {  // As Connection counts them.
  return static_cast<uint32_t>(now.nanoseconds() / 1'000'000);
}

// Why a SYN opened no stream.
EngineDrop RefusalOf(OpenError error) {
  if (error == OpenError::kTooMany) return EngineDrop::kConnectionsFull;
  if (error == OpenError::kNoRoute) return EngineDrop::kNoRoute;
  return EngineDrop::kNoNeighborRoom;
}

}  // namespace

// LISTEN has no Connection: the SYN makes one.
void Engine::OnSegmentToListener(const RxFrame& frame,
                                 const ParsedFrame& parsed,
                                 const Segment& segment, uint32_t listener) {
  // First, an RST is ignored.
  if (segment.has_rst()) return DropFrame(frame, DropReason::kListenReset);
  // Second, an ACK.
  if (segment.has_ack()) {
    return OnAckToListener(frame, parsed, segment, listener);
  }
  // Third, a SYN; fourth, anything else is dropped.
  if (!segment.has_syn()) {
    return DropFrame(frame, DropReason::kListenWithoutSyn);
  }
  const Listening& l = listeners_[listener];
  if (IsRevoked(l.pool)) {
    return OnUnknown(frame, parsed, segment, EngineDrop::kMemoryRevoked);
  }
  if (l.acceptable >= l.backlog) {  // As Linux: it comes again.
    return DropFrame(frame, EngineDrop::kBacklogFull);
  }
  if (!HasHalfOpenRoom(l)) {
    return AnswerByCookie(frame, parsed, segment, l);
  }
  OpenHalf(frame, parsed, segment, listener);
}

void Engine::OpenHalf(const RxFrame& frame, const ParsedFrame& parsed,
                      const Segment& segment, uint32_t listener) {
  Listening& l = listeners_[listener];
  OpenError error;
  EngineStream* s = NewStream({.tuple = parsed.tuple,
                               .pool = l.pool,
                               .settings = l.settings,
                               .takes_share = false},
                              &error);
  if (s == nullptr) {
    return DropFrame(frame, RefusalOf(error));
  }
  s->listener = listener;
  s->is_half_open = true;
  ++l.half_open;
  ++half_open_;
  s->starts_on_control_queue =
      parsed.ip_option_bytes > 0 || parsed.vlan_tci.has_value();
  Segment syn = segment;
  TakeText(frame, parsed, *s, &syn);
  const Verdict verdict = s->connection.OpenPassive(syn, now_);
  CountOpening(frame, verdict);
  if (s->pool.has_value() && is_under_syn_pressure()) {
    counters_.Count(EngineEvent::kRulesDeferred);
  } else if (verdict.is_accepted()) {
    StartSteering(*s, /*hold_handshake=*/true);
  }
  MarkDirty(*s);
}

void Engine::CountOpening(const RxFrame& frame, Verdict verdict) {
  const DropCode code(verdict.reason);
  if (verdict.is_accepted()) {
    counters_.segments_in.Add();
  } else {
    counters_.drops[static_cast<size_t>(code.index())].Add();
  }
  if (capture_ != nullptr) {
    RecordFrame(frame, verdict.is_accepted() ? nullptr : code.name());
  }
}

// Straight back to where the SYN came from: no neighbour is looked up, and no
// ARP request sent, for a stranger.
void Engine::AnswerByCookie(const RxFrame& frame, const ParsedFrame& parsed,
                            const Segment& syn, const Listening& l) {
  std::byte* at = options_.syn_cookies ? io_.TxHeader() : nullptr;
  if (at == nullptr) return DropFrame(frame, EngineDrop::kBacklogFull);
  const PoolId home = l.pool.value_or(kHostPool);
  const Connection::Options ours =
      ConnectionOptions(parsed.tuple, home, l.settings);
  const uint64_t budget = l.settings.receive_budget_bytes;
  ReceiveWindow window({.limits = LimitsOf(home, 1, budget),
                        .slot_bytes = ours.slot_bytes,
                        .slot_reserve = ours.slot_reserve,
                        .mss = ours.mss,
                        .use_scaling = ours.use_window_scale});
  TcpHeader tcp;
  tcp.seq = MakeSynCookie(parsed.tuple, options_.secret, syn.seq,
                          syn.options.mss.value_or(ours.default_mss), now_);
  tcp.ack = syn.seq + 1;
  tcp.flags = kSyn | kAck;
  window.Start(tcp.ack, 0);
  tcp.wnd = window.Advertise(tcp.ack, /*is_syn=*/true);
  tcp.options.mss = ours.mss;
  if (ours.use_timestamps && syn.options.timestamps) {
    SynFacts facts;
    if (ours.use_window_scale) facts.window_scale = syn.options.window_scale;
    facts.sack_permitted = ours.use_sack && syn.options.sack_permitted;
    facts.ecn = ours.ecn != EcnMode::kOff &&
                (syn.flags & kEcnSetupFlags) == kEcnSetupFlags;
    if (facts.ecn) tcp.flags |= kEce;
    tcp.options.timestamps = {
        ours.ts_offset + MakeCookieTicks(TicksAt(now_), facts),
        syn.options.timestamps->val};
    tcp.options.sack_permitted = facts.sack_permitted;
    if (facts.window_scale) tcp.options.window_scale = window.wanted_shift();
  }
  const HeaderTemplate headers =
      HeadersTo(parsed.source_mac, parsed.tuple, l.settings.ip);
  const uint32_t bytes = headers.Emit(tcp, {}, at);
  if (capture_ != nullptr) {
    RecordFrame(frame, nullptr);
    Record(true, {at, bytes}, bytes, nullptr);
  }
  io_.TxPost({.header_bytes = bytes});
  last_cookie_ = now_;
  counters_.frames_out.Add();
  counters_.Count(EngineEvent::kCookiesSent);
  FinishFrame(frame);
}

// Only while cookies are in use is a cookie looked for: at other times nobody
// can guess one.
void Engine::OnAckToListener(const RxFrame& frame, const ParsedFrame& parsed,
                             const Segment& segment, uint32_t listener) {
  std::optional<uint16_t> mss;
  if (!segment.has_syn() && last_cookie_ &&
      now_ - *last_cookie_ < kCookieLifetime) {
    mss = CheckSynCookie(parsed.tuple, options_.secret, segment.seq - 1,
                         segment.ack - 1, now_);
  }
  if (!mss.has_value() || IsRevoked(listeners_[listener].pool)) {
    return OnUnknown(frame, parsed, segment, DropReason::kListenAck);
  }
  const Listening& l = listeners_[listener];
  if (l.acceptable >= l.backlog) {  // What it carries comes again, and with it
    return DropFrame(frame, EngineDrop::kBacklogFull);  // the cookie.
  }
  OpenByCookie(frame, parsed, segment, listener, *mss);
}

void Engine::OpenByCookie(const RxFrame& frame, const ParsedFrame& parsed,
                          const Segment& segment, uint32_t listener,
                          uint16_t mss) {
  Listening& l = listeners_[listener];
  OpenError error;
  EngineStream* s = NewStream({.tuple = parsed.tuple,
                               .pool = l.pool,
                               .settings = l.settings,
                               .takes_share = false,
                               .cookie = segment.ack - 1},
                              &error);
  if (s == nullptr) {
    return DropFrame(frame, RefusalOf(error));
  }
  s->listener = listener;
  ++l.acceptable;
  s->starts_on_control_queue =
      parsed.ip_option_bytes > 0 || parsed.vlan_tci.has_value();
  Segment syn;
  syn.seq = segment.seq - 1;
  syn.flags = kSyn;
  syn.wnd = segment.wnd;
  syn.arrival = now_;
  syn.options.mss = mss;
  if (segment.options.timestamps && l.settings.tcp.use_timestamps) {
    const Timestamps& ts = *segment.options.timestamps;
    SynFacts facts;
    ReadCookieTicks(ts.ecr - TimestampOffset(parsed.tuple, options_.secret),
                    &facts);
    syn.options.timestamps = {ts.val, 0};
    syn.options.window_scale = facts.window_scale;
    syn.options.sack_permitted = facts.sack_permitted;
    if (facts.ecn) syn.flags |= kEcnSetupFlags;
  }
  Segment ack = segment;
  TakeText(frame, parsed, *s, &ack);
  CountOpening(frame, s->connection.OpenByCookie(syn, ack, now_));
  TakeShare(*s);  // Until now its limits were those of one alone.
  counters_.Count(EngineEvent::kCookiesAccepted);
  if (s->connection.state() != State::kClosed) {
    StartSteering(*s, /*hold_handshake=*/false);
  }
  MarkDirty(*s);
}

// A half-open stream is one no more: its peer is there.
void Engine::OnHandshakeComplete(EngineStream& s) {
  Listening& l = listeners_[*s.listener];
  s.is_half_open = false;
  --l.half_open;
  --half_open_;
  ++l.acceptable;
  TakeShare(s);
  StartSteering(s, /*hold_handshake=*/false);  // If it was deferred.
}

// Established. A listener that defers wants text first, as Linux does
// (TCP_DEFER_ACCEPT). Unlike there the handshake is over: the peer gets no
// SYN-ACK again, and whoever stays silent has a place in the backlog.
void Engine::DeferOrOffer(EngineStream& s) {
  const Duration defer = listeners_[*s.listener].defer_accept;
  if (defer > Duration() && s.connection.readable_bytes() == 0) {
    s.accept_deadline = now_ + defer;
  } else {
    Offer(s);
  }
}

void Engine::Offer(EngineStream& s) {
  s.accept_deadline = Instant::Never();
  listeners_[*s.listener].ready.PushBack(&s);
  PublishListener(*s.listener);
}

// Accepted, or ended before.
void Engine::LeaveListener(EngineStream& s) {
  Listening& l = listeners_[*s.listener];
  if (s.is_half_open) {
    s.is_half_open = false;
    --l.half_open;
    --half_open_;
  } else {
    --l.acceptable;
  }
  s.ListNode<EngineStream, AcceptTag>::Unlink();
  s.accept_deadline = Instant::Never();
  s.listener.reset();
}

}  // namespace devwire
