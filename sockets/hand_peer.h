// A TCP peer made by hand: it writes frames itself, header and all, onto the
// cable of a softnic device, and reads what comes back. It does what the test
// says and nothing more: it retransmits nothing, acknowledges nothing, and
// respects no window.
//
// Threads:  one. A failure of the set-up is a CHECK: there is no test without.
// Lifetime: the device is opened by the constructor, closed by the destructor.
#ifndef SOCKETS_HAND_PEER_H_
#define SOCKETS_HAND_PEER_H_

#include <cstdint>
#include <functional>
#include <span>
#include <vector>

#include "transport/address.h"
#include "transport/seq.h"
#include "transport/verbs/verbs_fixture.h"
#include "transport/wire/frame.h"

namespace devwire {

class HandPeer {
 public:
  struct Options {
    std::string device;
    IpAddress ip;  // Of `remote`'s family.
    uint32_t mtu = 9000;
    Endpoint remote;
    MacAddress remote_mac{};
    bool timestamps = true;  // Offered in the SYN.
    bool sack = true;
    bool ecn = false;
    // A router on the way drops longer IP packets to it; 0: none does.
    uint32_t path_mtu = 0;
    // Drives the other end: a frame is only sent when somebody takes it.
    std::function<void()> poll;
  };
  // How the header of one segment looks.
  struct Shape {
    uint8_t flags = kAck;
    uint8_t ip_option_bytes = 0;  // IPv4: 0 to 40, NOPs: IHL 5 to 15.
    bool vlan = false;            // One tag.
    bool timestamps = true;
    uint8_t sack_blocks = 0;  // Of bytes acknowledged long ago: D-SACK.
  };

  explicit HandPeer(const Options& options);

  // A new connection from `from`: SYN, SYN-ACK, ACK, headers as `shape` says.
  // False when no SYN-ACK came.
  bool Connect(Port from, const Shape& shape);

  // Sends bytes [offset, offset + bytes) of the pattern of stream 0, which
  // begins after the SYN. FIN (in shape.flags) follows them.
  void Send(uint64_t offset, uint32_t bytes, const Shape& shape);
  void Send(uint64_t offset, uint32_t bytes) { Send(offset, bytes, Shape()); }
  // The frame that Send() would put on the wire.
  std::vector<std::byte> FrameOf(uint64_t offset, uint32_t bytes,
                                 const Shape& shape);
  // A segment of the connection with whatever header, its checksum right; the
  // payload is zeros.
  void SendSegment(const TcpHeader& tcp, uint32_t payload_bytes);
  // Any bytes, as they are. At least an Ethernet header.
  void SendRaw(std::span<const std::byte> frame);

  // Reads what arrived.
  void Poll();

  // Of the bytes sent, those that were acknowledged; a FIN counts as one.
  uint64_t acked() const { return acked_; }
  // The window of the last segment that came, in bytes.
  uint64_t window() const { return uint64_t{last_.wnd} << window_scale_; }
  uint64_t segments_in() const { return segments_in_; }
  bool was_reset() const { return was_reset_; }
  bool saw_fin() const { return saw_fin_; }
  const TcpHeader& last() const { return last_; }
  // Of the same segment: what the control queue holds of its frame.
  const std::vector<std::byte>& last_frame() const { return last_frame_; }
  // The bytes that came in order.
  const std::vector<std::byte>& text() const { return text_; }
  // Frames that were longer than path_mtu.
  const std::vector<std::vector<std::byte>>& too_long() const {
    return too_long_;
  }
  // Neighbour discovery's messages that came (IPv6), whole frames.
  const std::vector<std::vector<std::byte>>& nd_frames() const {
    return nd_frames_;
  }
  // The router's word about one of them. RFC 1191 4, RFC 4443 3.2.
  void SendTooBig(const std::vector<std::byte>& dropped);
  SeqNum iss() const { return iss_; }
  SeqNum rcv_nxt() const { return rcv_nxt_; }
  MacAddress mac() const { return host_.io().limits().mac; }

 private:
  // The whole frame, checksums made in software: softnic leaves such alone.
  std::vector<std::byte> Build(const TcpHeader& tcp, const Shape& shape,
                               std::span<const std::byte> payload) const;

  const Options options_;
  TestHost host_;
  HeaderTemplate plain_;
  HeaderTemplate tagged_;
  Port port_{};
  SeqNum iss_;
  SeqNum rcv_nxt_;
  TcpHeader last_;
  std::vector<std::byte> last_frame_;
  std::vector<std::byte> text_;
  std::vector<std::vector<std::byte>> too_long_;
  std::vector<std::vector<std::byte>> nd_frames_;
  uint64_t acked_ = 0;
  uint64_t segments_in_ = 0;
  uint32_t ticks_ = 1000;  // Our timestamp clock: one per segment.
  uint32_t ts_recent_ = 0;
  uint8_t window_scale_ = 0;
  bool is_connected_ = false;
  bool was_reset_ = false;
  bool saw_fin_ = false;
};

}  // namespace devwire

#endif  // SOCKETS_HAND_PEER_H_
