// The completions of a socket's MSG_ZEROCOPY sends: which of its sends no
// longer need their memory, as its error queue tells it.
//
// Sends are numbered from 0, as long as they go; notifications that follow one
// another become one.
//
// Source:   Linux Documentation/networking/msg_zerocopy.rst; net/core/skbuff.c,
//           msg_zerocopy_realloc() and skb_zerocopy_notify_extend().
// Threads:  every call with Shim::mutex held.
#ifndef SOCKETS_PRELOAD_ZEROCOPY_H_
#define SOCKETS_PRELOAD_ZEROCOPY_H_

#include <sys/socket.h>

#include <cstdint>
#include <deque>
#include <map>
#include <optional>

namespace devwire::preload {

class ZeroCopySends {
 public:
  // SO_ZEROCOPY.
  void set_is_on(bool is_on) { is_on_ = is_on; }
  bool is_on() const { return is_on_; }

  // A send of host memory, which was copied: complete at once.
  void AddCopied() { Notify(next_++, /*was_copied=*/true); }

  // A send of device memory, in one part or several: its number.
  uint32_t Begin();
  // One more part of it is under way.
  void AddPart(uint32_t number) {
    ++open_[number].parts;
    open_[number].is_begun = true;
  }
  // No more will follow. A send without parts was none, and its number is the
  // next one's.
  void End(uint32_t number);
  // One part of send `number` is complete.
  void OnPartDone(uint32_t number);

  struct Notification {
    uint32_t first = 0;
    uint32_t last = 0;
    bool was_copied = false;
  };
  bool has_notification() const { return !done_.empty(); }
  // The oldest, which is then gone.
  std::optional<Notification> Take();

 private:
  struct Send {
    uint32_t parts = 0;  // not complete
    bool is_begun = false;
    bool is_whole = false;
  };
  using Sends = std::map<uint32_t, Send>;

  void CompleteIfDone(Sends::iterator send);
  void Notify(uint32_t number, bool was_copied);

  bool is_on_ = false;
  uint32_t next_ = 0;  // sk_zckey of Linux
  Sends open_;
  std::deque<Notification> done_;
};

// Writes a notification as a control message of the error queue, with what
// room there is, and says in msg_flags when it does not fit: recvmsg(2),
// MSG_ERRQUEUE.
void PutNotification(const ZeroCopySends::Notification& notification,
                     bool is_ipv6, msghdr* message);

}  // namespace devwire::preload

#endif  // SOCKETS_PRELOAD_ZEROCOPY_H_
