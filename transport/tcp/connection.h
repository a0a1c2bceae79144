// One TCP connection: a machine without I/O.
//
//   OnSegment  OnDeadline  user calls          inputs: they record, never send
//        \         |        /
//         [   Connection    ]
//        /         |        \                                               .
//   PollTransmit PollEvent NextDeadline        outputs
//
// The engine feeds arrivals and time, then polls: PollTransmit until it says
// false (the only place that builds segments), PollEvent until empty, and asks
// NextDeadline for when to call OnDeadline.
//
// Invariant: after PollTransmit(now) said false, NextDeadline() > now.
//
// Payload is named, never seen: received text is frags, text to send is a
// range of stream offsets. The stream's first byte each way has offset 0.
//
// Source:   RFC 9293; 7323 (scaling, timestamps, PAWS); 6298; 5681 and 6582;
//           2018, 2883, 6675, 8985, 9937, 5682 (SACK and loss recovery); 5961.
//           docs/rfc_coverage.md.
// Threads:  one at a time; the engine's.
// Lifetime: from the engine's set-up to after kClosed was polled and
//           PollTransmit said false. The FragSink outlives it. Destroying it
//           discards the frags it holds; those that Receive handed over are
//           the caller's.
// Cost:     all memory is taken in the constructor. Nothing allocates later.
#ifndef TRANSPORT_TCP_CONNECTION_H_
#define TRANSPORT_TCP_CONNECTION_H_

#include <algorithm>
#include <cstdint>
#include <memory>
#include <optional>
#include <span>

#include "base/check.h"
#include "base/ring.h"
#include "base/time.h"
#include "memreg/frag.h"
#include "transport/seq.h"
#include "transport/tcp/challenge_budget.h"
#include "transport/tcp/congestion.h"
#include "transport/tcp/connection_options.h"
#include "transport/tcp/connection_stats.h"
#include "transport/tcp/delivery_rate.h"
#include "transport/tcp/drop_reason.h"
#include "transport/tcp/ecn.h"
#include "transport/tcp/error.h"
#include "transport/tcp/event.h"
#include "transport/tcp/keepalive.h"
#include "transport/tcp/mss.h"
#include "transport/tcp/newreno.h"
#include "transport/tcp/pacer.h"
#include "transport/tcp/prr.h"
#include "transport/tcp/rack.h"
#include "transport/tcp/reassembly.h"
#include "transport/tcp/receive_window.h"
#include "transport/tcp/retransmit_queue.h"
#include "transport/tcp/rtt.h"
#include "transport/tcp/sack_scoreboard.h"
#include "transport/tcp/segment.h"
#include "transport/tcp/send_source.h"
#include "transport/tcp/sender_time.h"
#include "transport/tcp/state.h"
#include "transport/tcp/tcb.h"
#include "transport/tcp/timers.h"
#include "transport/tcp/undo.h"
#include "transport/tcp/window_tuner.h"

namespace devwire {

class Connection {
 public:
  using Options = ConnectionOptions;
  using Stats = ConnectionStats;

  Connection(const Options& options, FragSink& sink);
  ~Connection();
  Connection(const Connection&) = delete;
  Connection& operator=(const Connection&) = delete;

  // -- user calls, RFC 9293 3.10 ---------------------------------------------
  // Active OPEN. Only on a new Connection.
  void OpenActive(Instant now);
  // Passive OPEN by the segment that a listener got. Unless it was a SYN that
  // opens (state() is SYN-RECEIVED then), the Connection is CLOSED at once and
  // PollTransmit gives the reset, if one is due.
  Verdict OpenPassive(const Segment& syn, Instant now);
  // Passive OPEN by an ACK that brought back a SYN cookie: `syn` is the SYN as
  // far as the cookie kept it, Options::iss the cookie. ESTABLISHED at once.
  Verdict OpenByCookie(const Segment& syn, const Segment& ack, Instant now);
  // While held, PollTransmit gives no SYN-ACK, no ACK of one, and no text: the
  // flow rule is not in yet. Retransmission timers wait with it. The engine
  // releases it in bounded time whatever becomes of the rule.
  void HoldHandshake(bool is_held);

  // SEND: `bytes` more were appended to what the application wants sent.
  // Returns how many of them were taken (send_queue_limit_bytes); the rest is
  // to be offered again after kWritable. 0 after Close() or the end. Allowed
  // before ESTABLISHED: it is sent then.
  uint64_t Send(uint64_t bytes);
  // Where the caller keeps the limit itself: the user had more than there is
  // room for; and there is room again. For SenderTime alone.
  void OnSendRefused(Instant now) {
    user_waits_ = true;
    if (NeedsSendRoom()) counts_.sender_time.Enter(Phase::kSendBuffer, now);
  }
  bool user_waits() const { return user_waits_; }
  void OnSendRoom(Instant now) {
    user_waits_ = false;
    if (counts_.sender_time.phase() == Phase::kSendBuffer) {
      counts_.sender_time.Enter(Phase::kBusy, now);
    }
  }
  void SetNoDelay(bool is_on) { nodelay_ = is_on; }
  // What Send() took so far is urgent. A mark in the stream, nothing more; new
  // applications should have no use for it (RFC 6093 5, SHLD-13).
  void MarkUrgent() { send_urgent_end_ = queued_offset_; }
  // Holds back a last partial segment, for up to cork_time.
  void SetCork(bool is_on) { is_corked_ = is_on; }

  // Probes a peer that says nothing for long; empty turns it off. From
  // ESTABLISHED on. RFC 9293 MUST-24.
  void SetKeepAlive(const std::optional<KeepAlive::Options>& options,
                    Instant now);
  // From the next text sent on. Empty: data_retries alone decide. MUST-21.
  void SetUserTimeout(std::optional<Duration> timeout, Instant now);
  // Every segment with text is acknowledged at once, as long as this is on.
  void SetQuickAck(bool is_on) { always_quick_ack_ = is_on; }

  // RECEIVE: hands over up to out.size() frags and `max_bytes` bytes in stream
  // order; splits the frag at max_bytes. Returns how many frags. They count as
  // held until OnReleased().
  size_t Receive(std::span<Frag> out, uint64_t max_bytes);
  // The first readable frag, to be lent before it is taken; null when none.
  const Frag* PeekReadable() const {
    return ready_.empty() ? nullptr : &ready_.front();
  }
  // The application gave back frags of `bytes` bytes, by which `slots` slots
  // became free: the peer may send more.
  void OnReleased(uint64_t bytes, uint32_t slots);
  // The quota changed because other streams of the pool came or went.
  // slot_quota is cut to max_slot_quota.
  void SetReceiveLimits(const ReceiveLimits& limits);
  // Its slots are wanted for text in order: gives up the highest frag that came
  // out of order. False: there is none. RFC 2018 8 allows it.
  bool GiveUpOutOfOrder();

  // CLOSE: no more Send; a FIN follows what was queued. Reading goes on.
  void Close(Instant now);
  // No more Receive: what is readable is discarded, and so is what comes;
  // after Close() too, further text is answered with a reset.
  void ShutdownReceive(Instant now);
  // RFC 6191 2: whether `syn`, come in TIME-WAIT, begins a new incarnation; and
  // whether our own SYN may now. EndTimeWait() makes room for it.
  bool MayBeReopenedBy(const Segment& syn) const;
  bool MayBeReopened(Instant now) const;
  void EndTimeWait();
  // ABORT: a reset goes out if the state asks for one; CLOSED with `reason`.
  void Abort(TcpError reason);

  // -- network and time ------------------------------------------------------
  // `segment` was parsed, its checksums verified, and its 4-tuple is ours.
  Verdict OnSegment(const Segment& segment, Instant now);
  // To be called when now >= NextDeadline(); harmless earlier.
  void OnDeadline(Instant now);
  // The path carries segments of this MSS: its MTU less the fixed headers.
  // Text in flight that is too long for it goes again, cut anew.
  void OnPathMss(uint32_t mss);

  // -- outputs ---------------------------------------------------------------
  // The next segment to send, if one is due. The caller must be able to send
  // it: it counts as sent.
  [[nodiscard]] bool PollTransmit(Instant now, const TxLimits& limits,
                                  TxSegment* out) {
    if (is_plain_ && !ack_is_due_ && unsent_bytes() == 0 &&
        retransmit_queue_.lost_bytes() == 0 && now < NextDeadline()) {
      return false;
    }
    return PollOwed(now, limits, out);
  }
  // The next event, each kind at most once until it happens again.
  std::optional<Event> PollEvent();
  Instant NextDeadline() const { return timers_.NextDeadline(); }

  // -- status ----------------------------------------------------------------
  State state() const { return state_; }
  TcpError error() const { return error_; }
  // Bytes acknowledged: their memory is the application's again, once no
  // posted send refers to it.
  uint64_t acked_offset() const { return acked_offset_; }
  // The offset of the first byte never sent.
  uint64_t sent_offset() const { return sent_offset_; }
  // The offset after the last byte taken by Send().
  uint64_t queued_offset() const { return queued_offset_; }
  uint64_t readable_bytes() const { return readable_bytes_; }
  size_t readable_frags() const { return ready_.size(); }
  // Of the bytes to be received next, those up to the end of urgent data, come
  // in or not. RFC 9293 MUST-33. Urgent data is read in line, RFC 6093 2.1.
  uint64_t urgent_bytes() const {
    const uint64_t taken = counts_.bytes_received - readable_bytes_;
    return urgent_end_ > taken ? urgent_end_ - taken : 0;
  }
  // The peer's FIN was taken in and everything before it was received.
  bool is_at_end() const { return fin_received_ && ready_.empty(); }
  // The Connection can be destroyed as soon as its events were polled.
  bool is_finished() const {
    return state_ == State::kClosed && !reset_owed_.has_value();
  }
  Stats stats() const;
  uint32_t cwnd() const { return congestion_->cwnd(); }  // Bytes.
  const char* congestion_name() const { return congestion_->name(); }
  const Tcb& tcb() const { return tcb_; }
  // CHECKs every stated invariant. O(frags and segments held); tests.
  void CheckInvariants() const;

 private:
  using Phase = SenderTime::Phase;
  enum class Recovery : uint8_t {
    kOpen,          // Nothing known to be lost.
    kFastRecovery,  // RFC 6582, 6675: until `recover_` is acknowledged.
    kLoss,          // After a timeout: likewise.
  };
  // ACKs sent at once at the start of a connection and after a pause, so that
  // the peer's slow start is not held up by delayed ones. Linux's
  // TCP_MAX_QUICKACKS.
  static constexpr uint8_t kQuickAcks = 16;
  // What Timer::kRetransmit is set for. RFC 8985 8: one at a time.
  enum class RetransmitTimer : uint8_t { kRto, kReordering, kProbe };
  // F-RTO, RFC 5682: which ACK after a timeout will tell whether it was one.
  enum class FRto : uint8_t { kOff, kFirstAck, kSecondAck };
  struct OwedReset {
    SeqNum seq;
    SeqNum ack;
    uint8_t flags;
  };

  // connection.cc
  void SetState(State next);
  void Raise(Event::Kind kind) {
    events_ |= static_cast<uint16_t>(1u << static_cast<int>(kind));
  }
  Verdict Drop(const Segment& seg, DropReason reason);
  void EnterClosed(TcpError error);
  void UpdatePrediction();
  bool IsPredicted(const Segment& seg) const;
  Verdict ArrivePredicted(const Segment& seg, Instant now);
  Verdict ArriveUnpredicted(const Segment& seg, Instant now);

  void FillFlight(Stats* s) const;

  // invariants.cc
  void CheckSendInvariants() const;
  void CheckReceiveInvariants() const;

  // arrive_listen.cc, arrive_syn_sent.cc, arrive_synchronized.cc
  Verdict ArriveInListen(const Segment& seg, Instant now);
  Verdict ArriveInSynSent(const Segment& seg, Instant now);
  void AdoptSyn(const Segment& seg, Instant now);
  void EnterEstablished(Instant now);
  Verdict ArriveInSynchronized(const Segment& seg, Instant now);
  bool IsAcceptable(const Segment& seg) const;
  bool FailsPaws(const Segment& seg, Instant now) const;
  void UpdateTsRecent(const Segment& seg, Instant now);
  Verdict ArriveUnacceptable(const Segment& seg, DropReason reason,
                             Instant now);
  Verdict ArriveSynAgain(const Segment& seg, Instant now);
  Verdict ArriveReset(const Segment& seg, Instant now);
  Verdict ArriveSyn(const Segment& seg, Instant now);
  Verdict ArriveFromFifthStep(const Segment& seg, Instant now);
  Verdict ArriveFromSixthStep(const Segment& seg, Instant now);
  void ArriveUrgent(const Segment& seg);
  void ArriveAckOfFin(Instant now);
  void ArriveFin(Instant now);
  void EnterTimeWait(Instant now);
  void ChallengeAck(Instant now);

  // arrive_ack.cc: the ESTABLISHED part of the fifth step.
  enum class AckResult : uint8_t { kUseful, kOld, kTooOld, kUnsent };
  // What one ACK brought.
  struct AckNews {
    Rack::Arrival arrival;
    uint32_t flight_before = 0;  // Bytes in flight, and
    uint32_t sacked_before = 0;  // of them SACKed, before it.
    SeqLen advance = 0;          // SND.UNA moved so far.
    uint32_t delivered = 0;      // DeliveredData, RFC 9937.
    uint32_t lost = 0;           // Bytes found lost by it.
    std::optional<Duration> rtt;
    bool acks_syn = false;
    // RFC 5681 2, and without SACK blocks.
    bool is_duplicate = false;
    bool has_ece = false;
    std::optional<SackBlock> dsack;
  };
  AckResult ProcessAck(const Segment& seg, Instant now);
  void AdvanceSndUna(const Segment& seg, Instant now);
  void AdvanceSndUna(const Segment& seg, Instant now, AckNews* news);
  AckNews NewsOf(const Segment& seg, Instant now) const;
  bool IsDuplicateAck(const Segment& seg) const;
  void OnEce(uint32_t flight_before, Instant now);
  void TakeRateSample(const AckNews& news, Instant now);
  void GrowWindow(const AckNews& news, uint32_t bytes, Instant now);
  void ForgetLongAgo();
  std::optional<Duration> RttSample(const RetransmitQueue::Acked& acked,
                                    const Segment& seg) const;
  void UpdateSndWnd(const Segment& seg, bool is_advance);
  SeqNum snd_max() const { return tcb_.snd_nxt + (probe_is_out_ ? 1u : 0u); }

  // recovery.cc: ACKs while something is lost, SACKed or sent again.
  bool IsDisturbed(const Segment& seg) const {
    return recovery_ != Recovery::kOpen || !retransmit_queue_.is_calm() ||
           tlp_.is_pending() ||
           (tcb_.sack_permitted && seg.options.sack_block_count > 0);
  }
  void OnDisturbedAck(const Segment& seg, AckNews* news, Instant now);
  void TakeSackBlocks(const Segment& seg, AckNews* news);
  void CountDelivered(AckNews* news);
  void CheckProbe(AckNews* news, Instant now);
  bool IsSpurious(const AckNews& news);
  void UndoRecovery(Instant now);
  void DetectLoss(AckNews* news, Instant now);
  void EnterFastRecovery(const AckNews& news, Instant now);
  void ContinueFastRecovery(AckNews* news, Instant now);
  void EnterLossRecovery(Instant now);
  void ContinueLossRecovery(const AckNews& news, Instant now);
  void StepFRto(const AckNews& news, Instant now);
  RateMark NoteRetransmitted(uint32_t bytes, Instant now);
  void NoteReordering(SeqNum overtaken);
  void NoteDsack(const SackBlock& dsack);
  void LeaveRtoRecovery(Instant now);

  // arrive_text.cc: the seventh step.
  DropReason ArriveText(const Segment& seg, Instant now);
  DropReason TakeInOrder(Text text, Instant now);
  DropReason TakeOutOfOrder(const Text& text);
  DropReason RefuseForSlots(Text text);
  void Deliver(const Frag& frag);
  void ScheduleAck(Instant now);
  void NoteTextArrival(const Segment& seg, Instant now);
  bool IsPushReadUp() const;
  void TuneWindow(const Segment& seg, Instant now);
  void EndTuningRound(const Segment& seg, Instant now);
  void NoteFullSegment(const Segment& seg) {
    if (seg.payload_bytes != rcv_mss_) [[unlikely]]
      EstimateFullSegment(seg);
  }
  void EstimateFullSegment(const Segment& seg);
  void NoteDuplicate(SeqNum left, SeqNum right);
  void DiscardReceived();

  // path_mtu.cc
  uint32_t EffectiveSndMss() const;
  void ApplyPathMss();
  void NoteTimeoutForPath(Instant now);
  bool StepPathSearch(Instant now, const TxLimits& limits, TxSegment* out);
  bool PollPathProbe(Instant now, const TxLimits& limits, TxSegment* out);
  bool IsOnlyProbeLost();
  void OnProbeLost();

  // deadlines.cc
  void OnRetransmitDeadline(Instant now);
  void OnRetransmitTimer(Instant now);
  void OnReorderingTimer(Instant now);
  void OnProbeTimer(Instant now);
  void OnPersistTimer(Instant now);
  int RetryLimit() const;  // R2.
  bool IsOrphan() const { return close_requested_ && receive_is_shut_down_; }
  void RestartRetransmitTimer(Instant now);
  void SetRetransmitTimer(RetransmitTimer what, Instant deadline) {
    retransmit_timer_is_ = what;
    timers_.Set(Timer::kRetransmit, deadline);
  }
  // RFC 8985 7.2.
  bool MayProbe() const {
    return tcb_.sack_permitted && recovery_ == Recovery::kOpen &&
           state_ >= State::kEstablished &&
           retransmit_queue_.sacked_segments() == 0 &&
           retransmit_queue_.lost_bytes() == 0;
  }
  void SetProbeTimer(Instant now);
  void SetPersistTimer(Instant now);
  Duration PersistWait() const;

  // keepalive.cc
  void OnKeepAliveTimer(Instant now);

  // output.cc
  bool PollOwed(Instant now, const TxLimits& limits, TxSegment* out);
  bool PollSyn(Instant now, TxSegment* out);
  bool PollLost(Instant now, const TxLimits& limits, TxSegment* out);
  size_t JoinLost(const TxLimits& limits, SentSegment* lost) const;
  bool PollProbe(Instant now, const TxLimits& limits, TxSegment* out);
  RateMark FillRetransmission(const SentSegment& sent, Instant now,
                              TxSegment* out);
  void FillNewText(uint32_t bytes, bool with_fin, Instant now, TxSegment* out);
  bool PollNewText(Instant now, const TxLimits& limits, TxSegment* out);
  bool PollWindowProbe(Instant now, TxSegment* out);
  void PollKeepAlive(Instant now, TxSegment* out);
  bool PollReset(TxSegment* out);
  uint32_t NextTextBytes(const TxLimits& limits, Instant now);
  bool IsSmallSendAllowed(uint32_t bytes, bool is_all) const;
  void RecordSent(SeqNum seq, uint32_t payload, uint8_t flags, Instant now);
  void Fill(SeqNum seq, uint8_t flags, Instant now, TxSegment* out);
  void FillAck(SeqNum ack, uint8_t ecn_flags, TxSegment* out);
  bool PollPriorAck(Instant now, TxSegment* out);
  uint32_t PacedBytes(uint32_t bytes, Instant now);
  void FillUrgent(TxSegment* out) const;
  void FillSackBlocks(TxSegment* out);

  // Small derived values.
  uint32_t flight_size() const { return tcb_.snd_nxt - tcb_.snd_una; }
  uint32_t pipe() const {
    uint32_t gone = retransmit_queue_.lost_bytes() +
                    retransmit_queue_.sacked_bytes() + duplicate_ack_bytes_;
    return gone < flight_size() ? flight_size() - gone : 0;
  }
  // What congestion control lets out now, in bytes.
  uint32_t cwnd_room() const {
    if (recovery_ == Recovery::kFastRecovery) return prr_.snd_cnt();
    const uint32_t cwnd = congestion_->cwnd();
    return cwnd > pipe() ? cwnd - pipe() : 0;
  }
  uint64_t unsent_bytes() const { return queued_offset_ - sent_offset_; }
  // All is sent, nothing else holds text back, and the user has more of it.
  bool NeedsSendRoom() const {
    return user_waits_ && unsent_bytes() == 0 && flight_size() > 0 &&
           cwnd_room() >= smss_;
  }
  // The next segment may leave but for the peer's window.
  bool IsWindowLimited() const {
    const uint64_t next = std::min<uint64_t>(unsent_bytes(), smss_);
    return flight_size() + next > tcb_.snd_wnd && cwnd_room() >= next;
  }
  bool fin_is_due() const {
    return close_requested_ && !fin_sent_ && unsent_bytes() == 0;
  }
  // Of a sequence number in flight.
  uint64_t OffsetOf(SeqNum seq) const {
    return sent_offset_ - (tcb_.snd_nxt - (fin_sent_ ? 1u : 0u) - seq);
  }
  uint32_t TicksAt(Instant now) const {
    return static_cast<uint32_t>(now.nanoseconds() / 1'000'000) +
           options_.ts_offset;
  }

  // -- touched per segment ---------------------------------------------------
  FragSink& sink_;
  Tcb tcb_;
  State state_ = State::kClosed;
  TcpError error_ = TcpError::kNone;
  uint16_t events_ = 0;
  // ESTABLISHED or FIN-WAIT-2, no hole, no FIN seen, nothing owed but text and
  // ACKs: what the short paths are for.
  bool is_plain_ = false;
  bool ack_is_due_ = false;  // Now; else the delayed-ACK timer says when.
  bool nodelay_;
  bool is_corked_ = false;
  bool always_quick_ack_ = false;
  bool is_held_ = false;
  bool close_requested_ = false;
  bool fin_sent_ = false;
  bool fin_received_ = false;
  bool receive_is_shut_down_ = false;
  bool front_is_split_ = false;  // A part of ready_.front() was handed over.
  bool was_pushed_ = false;      // Text with PSH came since our last ACK.
  bool is_answering_ = false;    // Our text follows the peer's at once.
  bool is_passive_ = false;
  bool send_was_short_ = false;    // kWritable is owed when room comes.
  bool user_waits_ = false;        // For room to queue more.
  bool override_is_due_ = false;   // The persist timer fired.
  bool cwnd_is_limiting_ = false;  // Up to cwnd_limited_to_.
  bool keepalive_probe_is_due_ = false;
  bool loss_probe_is_due_ = false;
  bool probe_is_out_ = false;  // A byte at snd_nxt that snd_nxt leaves out.
  Recovery recovery_ = Recovery::kOpen;
  RetransmitTimer retransmit_timer_is_ = RetransmitTimer::kRto;
  uint8_t quick_acks_left_ = 0;      // See kQuickAcks.
  uint8_t duplicate_acks_ = 0;       // In a row, from the peer.
  uint8_t duplicate_acks_owed_ = 0;  // To the peer: one per segment.
  uint8_t persist_backoffs_ = 0;
  uint8_t retries_ = 0;            // Timeouts in a row without progress.
  uint8_t unanswered_probes_ = 0;  // Of a closed window, in a row.
  uint32_t smss_;                  // Payload of a full segment out.
  uint32_t tso_payload_ = 0;       // Limits seen last, and
  uint32_t tso_bytes_ = 0;         // the whole segments they allow at once.
  // Of full segments in, as estimated, from 536 (RFC 9293 MUST-15) on; and of
  // the latest of another length.
  uint32_t rcv_mss_ = 536;
  uint32_t other_text_bytes_ = 0;
  // RFC 6582's recover, 6675's RecoveryPoint: SND.NXT when loss was found.
  SeqNum recover_;
  SeqNum cwnd_limited_to_;
  SeqNum round_end_;                  // SND.NXT when the last round ended.
  SeqNum small_end_;                  // Of the latest partial segment (Nagle).
  uint32_t duplicate_ack_bytes_ = 0;  // Left the network, by duplicate ACKs.
  uint64_t acked_offset_ = 0;
  uint64_t sent_offset_ = 0;
  uint64_t queued_offset_ = 0;
  uint64_t send_urgent_end_ = 0;  // SND.UP, as an offset.
  uint64_t readable_bytes_ = 0;
  TimerTable timers_;
  ReceiveWindow window_;
  WindowTuner tuner_;
  Ring<Frag> ready_;
  Reassembly reassembly_;
  RetransmitQueue retransmit_queue_;
  Rack rack_;
  Tlp tlp_;
  std::unique_ptr<CongestionControl> congestion_;
  EcnState ecn_;
  Pacer pacer_;
  RttEstimator rtt_;
  DeliveryRate rate_;
  Instant last_send_;  // Of text, for RFC 5681 4.1.
  Instant last_text_arrival_;
  Instant last_arrival_;  // Of an acceptable ACK: what keep-alives wait for.
  Instant rto_deadline_;  // Whatever the retransmission timer is set for.

  // -- touched in recovery ---------------------------------------------------
  SackScoreboard scoreboard_;
  Prr prr_;
  Undo undo_;
  FRto frto_ = FRto::kOff;
  SeqNum frto_end_;                   // Of what the timeout sent again.
  std::optional<SeqNum> cwr_end_;     // SND.NXT when a mark made cwnd smaller.
  std::optional<Instant> rto_since_;  // Of the timeout not yet recovered from.

  // -- touched rarely --------------------------------------------------------
  std::optional<OwedReset> reset_owed_;
  std::optional<SeqNum> fin_seq_;   // The peer's FIN, seen, maybe early.
  std::optional<SackBlock> dsack_;  // To report once. RFC 2883.
  std::optional<Instant> last_challenge_ack_;
  SndMss snd_mss_;
  uint8_t syn_retransmissions_ = 0;
  bool peer_scales_ = false;  // Its SYN had the option.
  std::optional<Duration> user_timeout_;
  std::optional<KeepAlive> keepalive_;
  uint64_t urgent_end_ = 0;  // RCV.UP, as an offset of the stream received.
  Stats counts_;
  const Options options_;
};

// -- inline, because each is on the path of every segment ---------------------

// RFC 7323 4.3 (2).
inline void Connection::UpdateTsRecent(const Segment& seg, Instant now) {
  if (!tcb_.snd_ts_ok || !seg.options.timestamps) return;
  if (SeqLe(seg.seq, tcb_.last_ack_sent)) {
    tcb_.ts_recent = seg.options.timestamps->val;
    tcb_.ts_recent_age = now;
  }
}

// RCV.NXT advances over one frag; it becomes readable.
inline void Connection::Deliver(const Frag& frag) {
  CHECK(ready_.Push(frag)) << "more frags than slots";
  tcb_.rcv_nxt += frag.length;
  duplicate_acks_owed_ = 0;
  readable_bytes_ += frag.length;
  counts_.bytes_received += frag.length;
  window_.Hold(frag.length, 1);
  window_.Measure(frag.length);
  Raise(Event::Kind::kReadable);
}

// A peer that said nothing for longer than our RTO begins anew, with a window
// that delayed ACKs would hold up: after its own timeout with one segment. As
// Linux's tcp_event_data_recv().
inline void Connection::NoteTextArrival(const Segment& seg, Instant now) {
  if (now - last_text_arrival_ > rtt_.rto()) quick_acks_left_ = kQuickAcks;
  last_text_arrival_ = now;
  was_pushed_ |= seg.has_psh();
}

// Text came in order: may the window grow?
inline void Connection::TuneWindow(const Segment& seg, Instant now) {
  if (tuner_.IsRoundOver(now)) [[unlikely]]
    EndTuningRound(seg, now);
}

// In-order text came: acknowledge now, or with the next one, or by the timer.
inline void Connection::ScheduleAck(Instant now) {
  // Full segments that may wait for one ACK. RFC 9293 3.8.6.3, SHLD-19.
  constexpr uint32_t kSegmentsPerAck = 2;
  if (ack_is_due_) return;
  if (always_quick_ack_) {
    ack_is_due_ = true;
  } else if (quick_acks_left_ > 0) {
    --quick_acks_left_;
    ack_is_due_ = true;
  } else if (tcb_.rcv_nxt - tcb_.last_ack_sent >= kSegmentsPerAck * rcv_mss_) {
    ack_is_due_ = true;
  } else if (!timers_.IsSet(Timer::kDelayedAck)) {
    timers_.Set(Timer::kDelayedAck, now + options_.delayed_ack_time);
  }
}

}  // namespace devwire

#endif  // TRANSPORT_TCP_CONNECTION_H_
