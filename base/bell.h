// How other threads wake one that sleeps on descriptors, at no cost while it is
// awake.
//
//   sleeper                              others
//     Arm()                                publish work
//     look for work once more              Ring()
//     poll(fd()) when there is none
//     Disarm()
//
// Threads:  one sleeper; Ring() from any.
// Cost:     Ring() is a locked instruction; one that wakes is a system call.
#ifndef BASE_BELL_H_
#define BASE_BELL_H_

#include <atomic>

namespace devwire {

class Bell {
 public:
  Bell() = default;
  ~Bell();
  Bell(const Bell&) = delete;
  Bell& operator=(const Bell&) = delete;

  // Before all other calls: 0 or an errno.
  [[nodiscard]] int Open();
  int fd() const { return fd_; }

  // From now on a Ring() makes fd() readable. What was published before an
  // earlier one is found by looking once more.
  void Arm();
  // Awake: fd() is not readable any more.
  void Disarm();

  void Ring() {
    // Either we see that the sleeper has armed, or it sees our work: one of
    // the two exchanges comes after the other.
    if (is_armed_.exchange(false, std::memory_order_acq_rel)) Wake();
  }

 private:
  void Wake();

  int fd_ = -1;  // eventfd(2)
  std::atomic<bool> is_armed_{false};
};

}  // namespace devwire

#endif  // BASE_BELL_H_
