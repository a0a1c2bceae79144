// Completion channels: ibv_create_comp_channel(3), ibv_get_cq_event(3),
// ibv_ack_cq_events(3).
#include <sys/eventfd.h>
#include <unistd.h>

#include <cerrno>
#include <memory>

#include "softnic/front.h"

using namespace softnic;  // NOLINT: this file is the C ABI

extern "C" {

ibv_comp_channel* ibv_create_comp_channel(ibv_context* context) {
  FrontDevice* device = ContextOf(context)->device;
  const std::lock_guard<std::mutex> lock(device->mutex);
  Arena* arena = device->backend->arena();
  auto channel = std::make_unique<FrontChannel>();
  channel->device = device;
  channel->events_at = arena->Allocate(sizeof(EventRing));
  if (channel->events_at == 0) return Fail(ENOMEM);
  // EFD_SEMAPHORE: one read, one event.
  const int fd = eventfd(0, EFD_CLOEXEC | EFD_SEMAPHORE);
  Reply reply;
  reply.error = errno;
  if (fd >= 0) {
    Command command;
    command.op = Op::kOpenChannel;
    command.events_at = channel->events_at;
    reply = device->backend->Execute(command, fd);
  }
  if (reply.error != 0) {
    if (fd >= 0) close(fd);
    arena->Free(channel->events_at, sizeof(EventRing));
    return Fail(reply.error);
  }
  channel->object = reply.object;
  channel->base.context = context;
  channel->base.fd = fd;
  return &channel.release()->base;
}

int ibv_destroy_comp_channel(ibv_comp_channel* handle) {
  FrontChannel* channel = ChannelOf(handle);
  FrontDevice* device = channel->device;
  const std::lock_guard<std::mutex> lock(device->mutex);
  if (handle->refcnt > 0) return EBUSY;
  Command command;
  command.op = Op::kCloseChannel;
  command.object = channel->object;
  const int error = device->backend->Execute(command, -1).error;
  if (!IsDestroyed(error)) return error;
  device->backend->arena()->Free(channel->events_at, sizeof(EventRing));
  close(handle->fd);
  delete channel;
  return error;
}

int ibv_get_cq_event(ibv_comp_channel* handle, ibv_cq** cq, void** cq_context) {
  FrontDevice* device = ChannelOf(handle)->device;
  EventRing* ring =
      device->backend->arena()->At<EventRing>(ChannelOf(handle)->events_at);
  for (;;) {
    uint64_t one = 0;
    // Blocks, unless the application has made the descriptor non-blocking.
    if (read(handle->fd, &one, sizeof(one)) < 0) return -1;
    EventRecord record = {};
    if (!ring->Take(&record)) continue;
    const std::lock_guard<std::mutex> device_lock(device->mutex);
    const auto it = device->cqs.find(record.object);
    if (it == device->cqs.end()) continue;  // Destroyed meanwhile.
    const std::lock_guard<std::mutex> lock(EventMutex());
    ++it->second->comp_events_given;
    *cq = it->second->cq();
    *cq_context = (*cq)->cq_context;
    return 0;
  }
}

void ibv_ack_cq_events(ibv_cq* cq, unsigned int count) {
  const std::lock_guard<std::mutex> lock(EventMutex());
  cq->comp_events_completed += count;
  OnAck();
}

}  // extern "C"
