#include "base/clock.h"
#include "softnic/backend.h"
#include "softnic/device_core.h"

namespace softnic {
namespace {

class InlineBackend final : public Backend {
 public:
  InlineBackend(const DeviceConfig& config, std::unique_ptr<Arena> arena)
      : arena_(std::move(arena)),
        shared_at_(arena_->Allocate(sizeof(DeviceShared))),
        core_(config, arena_.get(), shared_at_, /*application=*/0, &clock_) {}

  Reply Execute(const Command& command, int fd,
                std::string_view text) override {
    const std::lock_guard<std::mutex> lock(mutex_);
    return core_.Execute(command, fd, text);
  }
  void OnPost(uint32_t qp_num) override { core_.Send(qp_num); }
  void OnPoll(uint32_t frames) override { core_.Progress(frames); }
  std::mutex* data_mutex() override { return &mutex_; }
  Arena* arena() override { return arena_.get(); }
  DeviceShared* shared() override {
    return arena_->At<DeviceShared>(shared_at_);
  }

 private:
  const devwire::MonotonicClock clock_;
  std::mutex mutex_;
  const std::unique_ptr<Arena> arena_;
  const uint64_t shared_at_;
  DeviceCore core_;
};

}  // namespace

std::unique_ptr<Backend> MakeInlineBackend(const DeviceConfig& config) {
  std::unique_ptr<Arena> arena = Arena::CreatePrivate();
  if (arena == nullptr) return nullptr;
  return std::make_unique<InlineBackend>(config, std::move(arena));
}

}  // namespace softnic
