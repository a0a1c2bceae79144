// Engine: neighbour discovery of an owned IPv6 address. RFC 4861 7.2, with the
// states of NeighborTable. Duplicate address detection is not ours to do: the
// address was given to the stack (docs/rfc_coverage.md).
#include "base/check.h"
#include "transport/engine/engine.h"
#include "transport/wire/nd.h"

namespace devwire {

void Engine::OnNd(const RxFrame& frame, const ParsedFrame& parsed) {
  NdMessage message;
  if (!ParseNd(frame.header, parsed, &message)) {
    return DropFrame(frame, EngineDrop::kBadNd);
  }
  if (!ChecksumsAreRight(frame.header, parsed)) {
    return DropFrame(frame, EngineDrop::kBadChecksum);
  }
  if (parsed.tuple.remote.ip.bytes[0] == 0xff ||
      (parsed.source_mac[0] & 1) != 0) {
    return DropFrame(frame, EngineDrop::kBadSource);  // A group's.
  }
  const IpAddress& us = options_.route.address;
  const IpAddress& destination = parsed.tuple.local.ip;
  const bool is_for_us = destination == us || destination == AllNodes() ||
                         destination == SolicitedNode(us);
  const bool is_solicitation = message.type == NdMessage::Type::kSolicitation;
  // Nobody else advertises our address, or it is a duplicate.
  if (!is_for_us || is_solicitation != (message.target == us)) {
    return DropFrame(frame, EngineDrop::kOtherAddress);
  }
  if (is_solicitation) {
    OnSolicitation(message, parsed);
  } else if (neighbors_.OnAdvertisement(message.target, message.link_address,
                                        message.is_solicited, message.overrides,
                                        now_)) {
    AdoptNeighbor(message.target);
  }
  if (capture_ != nullptr) RecordFrame(frame, nullptr);
  FinishFrame(frame);
}

// RFC 4861 7.2.3 and 7.2.4.
void Engine::OnSolicitation(const NdMessage& message,
                            const ParsedFrame& parsed) {
  IpAddress asker = parsed.tuple.remote.ip;
  IpAddress nobody;
  nobody.family = IpFamily::kIpv6;
  const bool is_detection = asker == nobody;  // Of a duplicate: tell everybody.
  if (is_detection) {
    asker = AllNodes();
  } else if (message.link_address.has_value() &&
             neighbors_.OnSolicitation(asker, *message.link_address, now_)) {
    AdoptNeighbor(asker);
  }
  SendNd({.type = NdMessage::Type::kAdvertisement,
          .target = options_.route.address,
          .link_address = io_.limits().mac,
          .is_solicited = !is_detection,
          .overrides = true},
         asker,
         is_detection ? MulticastMac(asker)
                      : message.link_address.value_or(parsed.source_mac));
}

// To the one who may have moved alone, when its MAC is known; else to the group
// of all whose address ends as this one.
void Engine::SendSolicitation(const NeighborTable::Request& request) {
  const IpAddress group = SolicitedNode(request.ip);
  SendNd({.type = NdMessage::Type::kSolicitation,
          .target = request.ip,
          .link_address = io_.limits().mac},
         request.mac.has_value() ? request.ip : group,
         request.mac.value_or(MulticastMac(group)));
}

void Engine::SendNd(const NdMessage& message, const IpAddress& to,
                    const MacAddress& to_mac) {
  std::byte* at = io_.TxHeader();
  if (at == nullptr) return;  // Asked again: by the peer, or by our timer.
  EmitNd(message,
         {.source_mac = io_.limits().mac,
          .destination_mac = to_mac,
          .source = options_.route.address,
          .destination = to},
         at);
  if (capture_ != nullptr) {
    Record(true, {at, kNdFrameBytes}, kNdFrameBytes, nullptr);
  }
  io_.TxPost({.header_bytes = kNdFrameBytes, .insert_checksums = false});
  counters_.frames_out.Add();
  counters_.Count(message.type == NdMessage::Type::kSolicitation
                      ? EngineEvent::kSolicitationsSent
                      : EngineEvent::kAdvertisementsSent);
}

// The MAC of a neighbour is known, or changed.
void Engine::AdoptNeighbor(const IpAddress& ip) {
  for (auto& s : streams_) {
    if (s == nullptr) continue;
    const NeighborTable::Entry& entry = neighbors_.entry(s->neighbor);
    if (entry.ip != ip || !entry.has_mac()) continue;
    s->has_mac = true;
    s->headers.set_destination_mac(entry.mac);
    MarkDirty(*s);
  }
}

}  // namespace devwire
