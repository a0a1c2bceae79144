// A cable between two devices, in two processes or in one.
//
// Payload crosses with one copy: a frame's pieces that lie in a dmabuf region
// are named in its descriptor, the other end has the region mapped (read-only,
// once) and copies from there into the receiver's memory. Headers and host
// payload are staged in the ring. A frame counts as completed when the other
// end has consumed or dropped it: that is when its memory is the sender's
// again. A full ring refuses, so that the send queue waits.
//
// The link: an end that nobody has joined yet is up (a cable into a silent
// switch: frames are lost). While a handshake is under way frames wait, for a
// second at most. When the other end goes away the link is down, frames in
// flight count as completed, and it comes back when somebody plugs in again.
//
// Threads, blocking: as Port. Cost: no system call and no allocation for a
// frame, but one that wakes an end that sleeps; an idle port looks at its
// socket once in kLookPeriod.
#ifndef SOFTNIC_SHM_PORT_H_
#define SOFTNIC_SHM_PORT_H_

#include <array>
#include <cstdint>
#include <map>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "base/clock.h"
#include "base/time.h"
#include "softnic/port.h"
#include "softnic/shm_link.h"
#include "softnic/shm_ring.h"

namespace softnic {

class ShmPort final : public Port {
 public:
  static constexpr devwire::Duration kLookPeriod =
      devwire::Duration::Nanoseconds(1'000'000);
  static constexpr devwire::Duration kHandshakeMax =
      devwire::Duration::Nanoseconds(1'000'000'000);

  // `clock` outlives it. AlreadyExists: the cable has two ends already.
  static absl::StatusOr<std::unique_ptr<ShmPort>> Create(
      const std::string& path, const devwire::Clock* clock);
  ~ShmPort() override;

  Offloads offloads() const override { return {.checksum = true}; }
  bool Send(const TxFrame& frame) override;
  void Flush() override;
  uint64_t sent() const override { return sent_; }
  uint64_t completed() const override;
  void Progress(uint32_t budget, Receiver& receiver) override;
  bool link_up() const override {
    const bool is_trying = state_ == State::kHandshake;
    return (is_trying ? before_handshake_ : state_) != State::kLost;
  }
  void AddRegion(uint32_t region, int fd, uint64_t offset,
                 uint64_t length) override;
  void RemoveRegion(uint32_t region) override;
  int wait_fd() const override { return link_.wait_fd(); }
  bool PrepareToSleep() override;

 private:
  enum class State {
    kAlone,      // nobody has ever been at the other end
    kHandshake,  // connected, the rings are not there yet
    kUp,
    kLost,  // somebody was there
  };
  struct OwnRegion {
    int fd = -1;
    uint64_t offset = 0;
    uint64_t length = 0;
    bool is_announced = false;
  };
  struct PeerRegion {
    void* mapping = nullptr;
    size_t mapping_bytes = 0;
    const std::byte* base = nullptr;
    uint64_t length = 0;
    bool is_forgotten = false;  // unmapped once head reaches `until`
    uint32_t until = 0;
  };

  explicit ShmPort(const devwire::Clock* clock) : clock_(clock) {}

  // The handshake, messages, the peer's death. Makes system calls.
  void Look();
  void ReadMessages();
  void OnMessage(const ShmMessage& message, int fd);
  void OnRegion(const ShmMessage& message, int fd);
  bool MakeRings();
  bool UseRings(int fd);
  // Tells the other end of regions that came or went.
  void Announce();
  bool Tell(const ShmMessage& message, int fd);
  void LoseLink();
  void UnmapForgotten();
  bool IsTimeToLook();
  bool is_connecting() const { return state_ == State::kHandshake; }

  // Sending. False: no room.
  bool Fill(const TxFrame& frame, ShmDescriptor* d);
  bool Stage(std::span<const Piece> pieces, ShmDescriptor* d);
  bool IsMappable(const Piece& piece);
  void ReloadHead();

  // Receiving.
  enum class Verdict { kDone, kWait };
  Verdict Receive(const ShmDescriptor& d, Receiver& receiver);
  // Null: no such bytes. *is_unknown: the region has never been heard of.
  const std::byte* Find(const ShmPiece& piece, bool* is_unknown);
  const PeerRegion* FindPeerRegion(uint32_t number);

  const devwire::Clock* const clock_;
  ShmLink link_;
  State state_ = State::kAlone;
  // Somebody who was lost is not back before the handshake is complete: a
  // process that dies may still accept.
  State before_handshake_ = State::kAlone;
  devwire::Instant next_look_;
  devwire::Instant handshake_until_;
  uint32_t idle_polls_ = 0;
  uint32_t idle_head_ = 0;     // the other end had consumed so much then
  bool peer_is_gone_ = false;  // but frames of its may be left in the ring

  ShmCable* cable_ = nullptr;
  ShmDirection* out_ = nullptr;
  ShmDirection* in_ = nullptr;

  // Sending. Staging offsets only grow; place is offset % kStagingBytes.
  uint64_t sent_ = 0;
  uint32_t tail_ = 0;
  uint32_t published_ = 0;
  uint32_t head_ = 0;  // as last seen
  uint64_t staging_tail_ = 0;
  uint64_t staging_head_ = 0;
  std::array<uint64_t, ShmDirection::kDepth> staging_end_;
  std::map<uint32_t, OwnRegion> own_;
  bool is_all_announced_ = true;
  std::vector<ShmMessage> forget_;  // that found no room in the socket
  uint32_t messages_sent_ = 0;

  // Receiving.
  uint32_t in_head_ = 0;
  uint32_t messages_read_ = 0;
  std::map<uint32_t, PeerRegion> peer_;
  bool has_forgotten_ = false;
  uint32_t last_number_ = kNoRegion;
  const PeerRegion* last_region_ = nullptr;
};

}  // namespace softnic

#endif  // SOFTNIC_SHM_PORT_H_
