// The engine's side of all pollers of a stack: who waits for what, and what is
// ready. Everything but Poller::Wait()'s sleep happens on the engine's thread.
#ifndef SOCKETS_POLL_SET_H_
#define SOCKETS_POLL_SET_H_

#include <atomic>
#include <condition_variable>
#include <cstdint>
#include <memory>
#include <mutex>
#include <optional>
#include <span>
#include <vector>

#include "absl/container/flat_hash_map.h"
#include "base/list.h"
#include "base/time.h"
#include "sockets/poller.h"
#include "transport/engine/engine.h"

namespace devwire {

class PollSet final : public Engine::ReadySink {
 public:
  struct Entry : ListNode<Entry> {
    uint32_t poller = 0;
    Readiness interest = 0;
    Readiness ready = 0;
    bool is_edge = false;
    bool edge_owed = false;
    uint64_t user_data = 0;
    std::optional<StreamId> stream;  // Else a listener.
  };
  using Ready = Poller::Ready;

  explicit PollSet(uint32_t max_entries);
  ~PollSet();

  // Engine's thread. The id of a dropped poller is given out again.
  uint32_t NewPoller();
  void DropPoller(uint32_t poller);
  // False when it is in a poller already.
  bool AddStream(StreamId stream, const Entry& entry);
  bool AddListener(ListenerId listener, const Entry& entry);
  bool RemoveStream(StreamId stream, std::optional<uint32_t> poller);
  bool RemoveListener(ListenerId listener, std::optional<uint32_t> poller);
  // What is ready now. `refresh` answers a stream's readiness of this moment.
  // Levels that are told go to the back, so that those that did not fit into
  // `out` are told first next time.
  template <typename F>
  size_t Collect(uint32_t poller, std::span<Ready> out, F&& refresh);

  // What a poller sleeps on; lives as long as the set. One left over from a
  // dropped poller may wake its successor once, for nothing.
  class Bell {
   public:
    // The caller's thread: sleeps until something became ready since the last
    // empty Collect, at most `timeout`.
    void Sleep(Duration timeout);

    ~Bell();
    // Engine's thread. A descriptor that is readable when something became
    // ready, until an empty Collect; -1: there is none left.
    int OpenFd();

   private:
    friend class PollSet;
    std::atomic<bool> is_armed_{false};
    std::mutex mutex_;
    std::condition_variable signal_;
    bool is_rung_ = false;  // Guarded by mutex_.
    // Engine's thread.
    void Ring();
    void Silence();
    int fd_ = -1;  // eventfd(2)
    bool fd_is_readable_ = false;
  };
  Bell* bell(uint32_t poller) { return &pollers_[poller]->bell; }

  // ReadySink.
  void OnStreamReady(StreamId stream, Readiness now_ready,
                     bool is_new) override;
  void OnListenerReady(ListenerId listener, bool is_ready,
                       bool is_new) override;

 private:
  struct PollerState {
    bool is_used = false;
    List<Entry> ready;
    Bell bell;
  };
  void Update(Entry& entry, Readiness ready, bool is_new);
  static uint64_t KeyOf(StreamId id) { return static_cast<uint32_t>(id); }
  static uint64_t KeyOf(ListenerId id) {
    return uint64_t{1} << 32 | static_cast<uint32_t>(id);
  }
  bool Add(uint64_t key, const Entry& entry);
  bool Remove(uint64_t key, std::optional<uint32_t> poller);

  absl::flat_hash_map<uint64_t, std::unique_ptr<Entry>> entries_;
  std::vector<std::unique_ptr<PollerState>> pollers_;
};

template <typename F>
size_t PollSet::Collect(uint32_t poller, std::span<Ready> out, F&& refresh) {
  PollerState& p = *pollers_[poller];
  size_t count = 0;
  const Entry* first_again = nullptr;  // Of those that went to the back.
  while (count < out.size()) {
    Entry* const e = p.ready.front();
    if (e == nullptr || e == first_again) break;
    e->Unlink();
    const Readiness ready = refresh(*e) & (e->interest | kFailed);
    if (ready != 0 && (!e->is_edge || e->edge_owed)) {
      out[count++] = {e->user_data, ready};
    }
    e->edge_owed = false;
    if (ready == 0 || e->is_edge) continue;
    p.ready.PushBack(e);
    if (first_again == nullptr) first_again = e;
  }
  if (count == 0) p.bell.Silence();
  p.bell.is_armed_.store(count == 0, std::memory_order_release);
  return count;
}

}  // namespace devwire

#endif  // SOCKETS_POLL_SET_H_
