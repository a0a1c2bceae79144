// CancelFlag: ends a call that waits, from any thread.
#ifndef SOCKETS_CANCEL_H_
#define SOCKETS_CANCEL_H_

#include <atomic>

namespace devwire {

// The waiting call answers Cancelled within one poll (a millisecond where a
// library thread polls). Once cancelled, stays so. Outlives the call.
class CancelFlag {
 public:
  void Cancel() { cancelled_.store(true, std::memory_order_release); }
  bool is_cancelled() const {
    return cancelled_.load(std::memory_order_acquire);
  }

 private:
  std::atomic<bool> cancelled_{false};
};

}  // namespace devwire

#endif  // SOCKETS_CANCEL_H_
