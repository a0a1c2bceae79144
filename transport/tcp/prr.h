// Proportional Rate Reduction: how much each ACK lets out in fast recovery, so
// that what is in flight comes down to ssthresh by the end, neither at once nor
// too late.
//
//   pipe
//    |--._                 above ssthresh: ssthresh / RecoverFS bytes out for
//    |    `--._            each byte delivered
//    |         `--.______  ssthresh
//    |   `.     ,'         below it (many losses): as much as was delivered,
//    |     `---'           and one SMSS more while things go well
//
// Source:   RFC 9937 6.1 to 6.4 (was 6937bis), terms as there.
// Threads:  none of its own; belongs to one Connection.
// Cost:     no allocation, no clock; one division per ACK in recovery.
#ifndef TRANSPORT_TCP_PRR_H_
#define TRANSPORT_TCP_PRR_H_

#include <algorithm>
#include <cstdint>

namespace devwire {

class Prr {
 public:
  // Recovery begins. `recover_fs`: bytes in flight before the ACK that
  // started it, without those SACKed before it.
  void Start(uint32_t recover_fs, uint32_t ssthresh) {
    recover_fs_ = std::max(recover_fs, 1u);
    ssthresh_ = ssthresh;
    delivered_ = out_ = snd_cnt_ = 0;
  }

  struct Ack {
    uint32_t delivered = 0;  // DeliveredData: newly acknowledged or SACKed.
    uint32_t pipe = 0;       // Bytes in flight, after this ACK.
    bool is_safe = false;    // SafeACK: SND.UNA advanced, and no further loss.
    uint32_t smss = 0;
  };
  // An ACK in recovery, or the timer that started it (nothing delivered).
  void OnAck(const Ack& ack) {
    if (ack.delivered > 0) SetSndCnt(ack);
    // Force a fast retransmit upon entering recovery; a part of a segment is
    // as little of one as none.
    if (out_ == 0 && snd_cnt_ < ack.smss) snd_cnt_ = ack.smss;
  }
  // Text was sent, new or again.
  void OnSent(uint32_t bytes) {
    out_ += bytes;
    snd_cnt_ -= std::min(snd_cnt_, bytes);
  }

  // Of what was in flight when recovery began, what is not delivered yet.
  uint32_t undelivered() const {
    return recover_fs_ -
           static_cast<uint32_t>(std::min<uint64_t>(delivered_, recover_fs_));
  }

  // What may be sent now, in bytes. (cwnd is pipe + snd_cnt.)
  uint32_t snd_cnt() const { return snd_cnt_; }

 private:
  void SetSndCnt(const Ack& ack) {
    delivered_ += ack.delivered;
    int64_t count;
    if (ack.pipe > ssthresh_) {  // Proportional rate reduction, rounded up
      // to whole segments, which is what is sent: else a small window, kept
      // from its last part of a segment, has none to show what was lost again.
      const uint64_t step = uint64_t{recover_fs_} * ack.smss;
      const uint64_t target =
          (delivered_ * ssthresh_ + step - 1) / step * ack.smss;
      count = static_cast<int64_t>(target) - static_cast<int64_t>(out_);
    } else {  // PRR-CRB; with a safe ACK, PRR-SSRB.
      count = std::max(
          static_cast<int64_t>(delivered_) - static_cast<int64_t>(out_),
          static_cast<int64_t>(ack.delivered));
      if (ack.is_safe) count += ack.smss;
      count = std::min<int64_t>(count, ssthresh_ - ack.pipe);
    }
    snd_cnt_ = static_cast<uint32_t>(std::clamp<int64_t>(count, 0, UINT32_MAX));
  }

  uint64_t delivered_ = 0;  // prr_delivered
  uint64_t out_ = 0;        // prr_out
  uint32_t recover_fs_ = 1;
  uint32_t ssthresh_ = 0;
  uint32_t snd_cnt_ = 0;
};

}  // namespace devwire

#endif  // TRANSPORT_TCP_PRR_H_
