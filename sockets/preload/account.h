// Which sockets of this process Devwire took, which the kernel kept, and why:
// log.explain says it line by line, log.report when the process ends.
//
// Threads:  any.
// Cost:     two atomic operations a socket, unless it is to be explained.
#ifndef SOCKETS_PRELOAD_ACCOUNT_H_
#define SOCKETS_PRELOAD_ACCOUNT_H_

#include <atomic>
#include <memory>
#include <optional>
#include <string>
#include <string_view>

#include "sockets/preload/log.h"
#include "sockets/preload/process_record.h"
#include "transport/engine/stream_types.h"

namespace devwire::preload {

class Account final : public ConnectionObserver {
 public:
  // Descriptors above are not followed.
  static constexpr int kMaxFds = 1 << 20;

  Account(const ShimConfig& config, const Log* log, std::string program);

  // A TCP socket was made; nobody knows yet whose it will be.
  void Made(int fd);
  void Taken(int fd, std::string_view how);
  void Passed(int fd, std::string_view why);
  void Closed(int fd);

  // The process takes its first socket: from now on what is counted lies in
  // `record`.
  void MoveTo(MappedRecord record);
  // The connections that are to be reset should the process die, from the
  // engine: one thread at a time.
  void OnConnected(uint32_t index, const Endpoint& local,
                   const Endpoint& remote) override;
  void OnEnded(uint32_t index) override;
  // A forked child that goes on by itself counts anew.
  void ForkedChild();
  ProcessRecord& record() const { return *record_.load(); }
  // The report, if one is wanted.
  void Report();

 private:
  void Explain(int fd, std::string_view text) const;

  const bool explains_;
  const std::string report_;
  const std::string program_;
  const Log* const log_;
  // Until MoveTo().
  const std::unique_ptr<ProcessRecord> first_{new ProcessRecord()};
  std::optional<MappedRecord> mapped_;
  std::atomic<ProcessRecord*> record_{first_.get()};
  // By descriptor: made, and not decided. Only when it is to be explained.
  std::unique_ptr<std::atomic<bool>[]> is_undecided_;
};

}  // namespace devwire::preload

#endif  // SOCKETS_PRELOAD_ACCOUNT_H_
