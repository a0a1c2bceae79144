// Trouble on order: what config.h's FaultConfig says about the device itself
// (the wire's trouble is FaultyPort's).
#include <cerrno>
#include <cstdio>
#include <cstring>

#include "softnic/device_core.h"

namespace softnic {

bool DeviceCore::HitsFault(double probability, uint64_t* countdown) {
  if (*countdown > 0 && --*countdown == 0) return true;
  return probability > 0 && prng_.Chance(probability);
}

bool DeviceCore::HitsQpError(QueuePair& qp) {
  FaultConfig& faults = config_.faults;
  if (!HitsFault(faults.qp_error, &faults.qp_error_at)) return false;
  MoveToError(qp);
  Raise(qp.spec().context, IBV_EVENT_QP_FATAL, qp.number());
  return true;
}

bool DeviceCore::IsTooEarly(const SendWqe& wqe) const {
  const devwire::Duration late = config_.faults.late_gather;
  if (late <= devwire::Duration() || wqe.posted_ns == 0) return false;
  const auto posted = devwire::Instant::FromNanoseconds(wqe.posted_ns);
  return clock_->Now() < posted + late;
}

// What becomes of a receive that would end in `status`.
ibv_wc_status DeviceCore::FaultOnReceive(ibv_wc_status status) {
  FaultConfig& faults = config_.faults;
  if (status == IBV_WC_SUCCESS && HitsFault(0, &faults.revoke_at)) {
    RevokeOne({landing_.sges.data(), landing_.count});
    status = IBV_WC_LOC_PROT_ERR;
  }
  if (HitsFault(faults.cqe_error, &faults.cqe_error_at)) {
    status = IBV_WC_LOC_QP_OP_ERR;
  }
  return status;
}

// The send at hand, in gathered_, finds its dmabuf gone.
bool DeviceCore::HitsSendRevocation() {
  const std::span<const ResolvedSge> sges = {gathered_.sges.data(),
                                             gathered_.count};
  if (sges.empty() || sges.back().mr == nullptr ||
      !sges.back().mr->spec.is_dmabuf ||
      !HitsFault(0, &config_.faults.revoke_send_at)) {
    return false;
  }
  RevokeOne(sges);
  return true;
}

// The last region of the list: the payload's.
void DeviceCore::RevokeOne(std::span<const ResolvedSge> sges) {
  if (sges.empty()) return;
  mrs_.Find(sges.back().mr->lkey)->is_revoked = true;
}

void DeviceCore::RunLateWrites(bool all) {
  if (late_writes_.empty()) return;
  const devwire::Instant now = clock_->Now();
  while (!late_writes_.empty() && (all || late_writes_.front().due <= now)) {
    const LateWrite& late = late_writes_.front();
    const Mr* mr = mrs_.Find(late.lkey);
    // The region may be gone by now; then nobody waits for the bytes.
    if (mr != nullptr) {
      memcpy(mr->base + late.offset, late.bytes.data(), late.bytes.size());
    }
    late_writes_.pop_front();
  }
}

// From the port, which has them in memory of its own.
void DeviceCore::CopyWireCounters() {
  const auto copy = [](const devwire::Counter& from, devwire::Counter* to) {
    to->Add(from.value() - to->value());
  };
  const FaultCounters& tx = port_->tx_counters();
  copy(tx.doubled, &shared_->wire_tx_doubled);
  copy(tx.corrupted, &shared_->wire_tx_corrupted);
  copy(tx.overtaken, &shared_->wire_tx_overtaken);
  const FaultCounters& rx = port_->rx_counters();
  copy(rx.doubled, &shared_->wire_rx_doubled);
  copy(rx.corrupted, &shared_->wire_rx_corrupted);
  copy(rx.overtaken, &shared_->wire_rx_overtaken);
  const uint64_t tx_lost = tx.lost.value() + tx.no_slot.value();
  shared_->wire_tx_lost.Add(tx_lost - shared_->wire_tx_lost.value());
  const uint64_t rx_lost = rx.lost.value() + rx.no_slot.value();
  shared_->wire_rx_lost.Add(rx_lost - shared_->wire_rx_lost.value());
}

void DeviceCore::ApplyFaults() {
  const FaultConfig& faults = config_.faults;
  has_work_faults_ = faults.cqe_error > 0 || faults.cqe_error_at > 0 ||
                     faults.qp_error > 0 || faults.qp_error_at > 0 ||
                     faults.revoke_at > 0 || faults.revoke_send_at > 0;
  has_wire_faults_ = has_wire_faults_ || faults.loss > 0 ||
                     faults.path_mtu > 0 || faults.dup > 0 ||
                     faults.corrupt > 0 || faults.reorder > 0 ||
                     faults.delay > devwire::Duration() ||
                     faults.delay_jitter > devwire::Duration();
  if (Mr* mr = mrs_.Find(faults.revoke_lkey); mr != nullptr) {
    mr->is_revoked = true;
  }
  if (faults.late_scatter <= devwire::Duration()) RunLateWrites(/*all=*/true);
  flows_.set_capacity(config_.rules);
  if (port_ == nullptr) return;
  port_->Configure(faults);
  RaisePortEvents();
}

int DeviceCore::Configure(std::string_view text, Reply* reply) {
  std::vector<DeviceConfig> devices = {config_};
  const absl::Status status = ChangeConfig(
      text, [](std::string_view) { return true; }, &devices);
  if (!status.ok()) {
    const absl::string_view why = status.message();
    snprintf(reply->message, sizeof(reply->message), "%.*s",
             static_cast<int>(why.size()), why.data());
    return EINVAL;
  }
  if (devices[0].faults.seed_given != config_.faults.seed_given) {
    prng_ = devwire::Prng(devices[0].faults.seed);
  }
  config_ = devices[0];
  ApplyFaults();
  return 0;
}

}  // namespace softnic
