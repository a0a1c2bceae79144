#include "sockets/preload/account.h"

#include <unistd.h>

#include <utility>

#include "absl/strings/str_format.h"

namespace devwire::preload {

Account::Account(const ShimConfig& config, const Log* log, std::string program)
    : explains_(config.explain),
      report_(config.report),
      program_(std::move(program)),
      log_(log) {
  program_.copy(first_->program, sizeof(first_->program) - 1);
  first_->pid = getpid();
  if (explains_ || !report_.empty()) {
    is_undecided_.reset(new std::atomic<bool>[kMaxFds]());
  }
}

void Account::Explain(int fd, std::string_view text) const {
  if (!explains_) return;
  log_->Line(absl::StrFormat("devwire: %s[%d] socket %d %s", program_, getpid(),
                             fd, text));
}

void Account::Made(int fd) {
  if (is_undecided_ != nullptr && fd < kMaxFds) is_undecided_[fd] = true;
}

void Account::Taken(int fd, std::string_view how) {
  ++record().taken;
  if (is_undecided_ != nullptr && fd < kMaxFds) is_undecided_[fd] = false;
  Explain(fd, absl::StrFormat("taken: %s", how));
}

void Account::Passed(int fd, std::string_view why) {
  ++record().passed;
  if (is_undecided_ != nullptr && fd < kMaxFds) is_undecided_[fd] = false;
  Explain(fd, absl::StrFormat("not taken: %s", why));
}

void Account::Closed(int fd) {
  if (is_undecided_ == nullptr || fd < 0 || fd >= kMaxFds ||
      !is_undecided_[fd].exchange(false)) {
    return;
  }
  Passed(fd, "closed before it was connected or listened on");
}

void Account::MoveTo(MappedRecord record) {
  record->taken = first_->taken.load();
  record->passed = first_->passed.load();
  mapped_.emplace(std::move(record));
  record_ = &**mapped_;
}

void Account::OnConnected(uint32_t index, const Endpoint& local,
                          const Endpoint& remote) {
  if (index >= record().connection_count) return;  // There was no memory.
  ProcessRecord::Connection& c = record().connections[index];
  c.local = local;
  c.remote = remote;
  c.is_open.store(true, std::memory_order_release);
}

void Account::OnEnded(uint32_t index) {
  if (index >= record().connection_count) return;
  record().connections[index].is_open = false;
}

void Account::ForkedChild() {
  first_->taken = first_->passed = 0;
  first_->pid = getpid();
}

void Account::Report() {
  if (is_undecided_ != nullptr) {
    for (int fd = 0; fd < kMaxFds; ++fd) Closed(fd);
  }
  if (report_.empty() || record().is_reported.exchange(true)) return;
  log_->Line(ReportLine(record(), "exit"), report_);
}

}  // namespace devwire::preload
