// Asynchronous events: ibv_get_async_event(3).
#include <unistd.h>

#include <cerrno>

#include "softnic/front.h"

namespace softnic {
namespace {

std::mutex g_event_mutex;  // After FrontDevice::mutex.
std::condition_variable g_acked;

// The handle of a QP number; null: it is gone.
FrontQp* FindQp(FrontDevice* device, uint32_t number) {
  const uint32_t index = number - DeviceCore::kFirstQpNumber;
  return index < DeviceCore::kMaxQps ? device->qps[index].load() : nullptr;
}

// Translates a record; false: its object is gone.
bool Translate(FrontContext* context, const EventRecord& record,
               ibv_async_event* event) {
  event->event_type = static_cast<ibv_event_type>(record.type);
  switch (event->event_type) {
    case IBV_EVENT_QP_FATAL: {
      const std::lock_guard<std::mutex> device_lock(context->device->mutex);
      FrontQp* qp = FindQp(context->device, record.object);
      if (qp == nullptr) return false;
      event->element.qp = qp->qp();
      const std::lock_guard<std::mutex> lock(g_event_mutex);
      ++qp->qp()->events_completed;
      return true;
    }
    case IBV_EVENT_CQ_ERR: {
      const std::lock_guard<std::mutex> device_lock(context->device->mutex);
      const auto it = context->device->cqs.find(record.object);
      if (it == context->device->cqs.end()) return false;
      FrontCq* cq = it->second;
      event->element.cq = cq->cq();
      const std::lock_guard<std::mutex> lock(g_event_mutex);
      ++cq->cq()->async_events_completed;
      return true;
    }
    default:
      event->element.port_num = static_cast<int>(record.object);
      return true;
  }
}

}  // namespace

std::mutex& EventMutex() { return g_event_mutex; }
void OnAck() { g_acked.notify_all(); }

void WaitForAcks(const uint32_t* acked, const uint32_t* given) {
  std::unique_lock<std::mutex> lock(g_event_mutex);
  g_acked.wait(lock, [&] { return *acked == *given; });
}

}  // namespace softnic

using namespace softnic;  // NOLINT: this file is the C ABI

extern "C" {

int ibv_get_async_event(ibv_context* handle, ibv_async_event* event) {
  FrontContext* context = ContextOf(handle);
  EventRing* ring =
      context->device->backend->arena()->At<EventRing>(context->events_at);
  for (;;) {
    uint64_t one = 0;
    // Blocks, unless the application has made async_fd non-blocking.
    if (read(handle->async_fd, &one, sizeof(one)) < 0) return -1;
    EventRecord record = {};
    if (!ring->Take(&record)) continue;
    if (Translate(context, record, event)) return 0;
  }
}

void ibv_ack_async_event(ibv_async_event* event) {
  const std::lock_guard<std::mutex> lock(g_event_mutex);
  switch (event->event_type) {
    case IBV_EVENT_QP_FATAL:
      ++QpOf(event->element.qp)->events_acked;
      break;
    case IBV_EVENT_CQ_ERR:
      ++CqOf(event->element.cq)->events_acked;
      break;
    default:
      break;
  }
  OnAck();
}

}  // extern "C"
