#include "softnic/make_port.h"

#include "softnic/shm_port.h"
#include "softnic/tap_port.h"

namespace softnic {
namespace {

// port=none: a socket without a cable. The link is down, frames vanish.
class NullPort final : public Port {
 public:
  bool Send(const TxFrame&) override {
    ++sent_;
    return true;
  }
  uint64_t sent() const override { return sent_; }
  uint64_t completed() const override { return sent_; }
  void Progress(uint32_t, Receiver&) override {}
  bool link_up() const override { return false; }

 private:
  uint64_t sent_ = 0;
};

absl::StatusOr<std::unique_ptr<Port>> MakeBarePort(
    const DeviceConfig& config, const devwire::Clock* clock) {
  switch (config.port) {
    case PortKind::kNone:
      return std::make_unique<NullPort>();
    case PortKind::kShm: {
      auto port = ShmPort::Create(config.port_path, clock);
      if (!port.ok()) return port.status();
      return *std::move(port);
    }
    case PortKind::kTap: {
      auto port = TapPort::Open(config.port_path, config.vnet);
      if (!port.ok()) return port.status();
      return *std::move(port);
    }
  }
  return absl::InternalError("no such kind of port");
}

}  // namespace

absl::StatusOr<Wire> MakePort(const DeviceConfig& config,
                              const devwire::Clock* clock) {
  absl::StatusOr<std::unique_ptr<Port>> bare = MakeBarePort(config, clock);
  if (!bare.ok()) return bare.status();
  Wire wire;
  wire.bare = *std::move(bare);
  // The peer's MTU may be larger than ours: frames of any size may come.
  constexpr uint32_t kMaxFrame = 10240;
  wire.port = std::make_unique<FaultyPort>(wire.bare.get(), clock, kMaxFrame,
                                           config.faults);
  return wire;
}

}  // namespace softnic
