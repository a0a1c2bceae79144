#include "transport/engine/counters.h"

namespace devwire {
namespace {

const char* EngineDropName(EngineDrop drop) {
  switch (drop) {
    case EngineDrop::kOtherMac:
      return "kOtherMac";
    case EngineDrop::kOtherAddress:
      return "kOtherAddress";
    case EngineDrop::kBadSource:
      return "kBadSource";
    case EngineDrop::kBadChecksum:
      return "kBadChecksum";
    case EngineDrop::kNoChecksumFlag:
      return "kNoChecksumFlag";
    case EngineDrop::kTimestampsCut:
      return "kTimestampsCut";
    case EngineDrop::kSeenInOtherQueue:
      return "kSeenInOtherQueue";
    case EngineDrop::kNoConnection:
      return "kNoConnection";
    case EngineDrop::kNoConnectionQuiet:
      return "kNoConnectionQuiet";
    case EngineDrop::kBacklogFull:
      return "kBacklogFull";
    case EngineDrop::kConnectionsFull:
      return "kConnectionsFull";
    case EngineDrop::kMemoryRevoked:
      return "kMemoryRevoked";
    case EngineDrop::kNoRoute:
      return "kNoRoute";
    case EngineDrop::kNoNeighborRoom:
      return "kNoNeighborRoom";
    case EngineDrop::kBadArp:
      return "kBadArp";
    case EngineDrop::kBadNd:
      return "kBadNd";
    case EngineDrop::kBadIcmp:
      return "kBadIcmp";
    case EngineDrop::kCount:
      break;
  }
  return "?";
}

}  // namespace

const char* DropCode::Name(int index) {
  if (index < kEngine) {
    return ParseResultName(static_cast<ParseResult>(index - kParse));
  }
  if (index < kTcp) {
    return EngineDropName(static_cast<EngineDrop>(index - kEngine));
  }
  return DropReasonName(static_cast<DropReason>(index - kTcp));
}

const char* EngineEventName(EngineEvent event) {
  switch (event) {
    case EngineEvent::kResetsSent:
      return "kResetsSent";
    case EngineEvent::kArpRequestsSent:
      return "kArpRequestsSent";
    case EngineEvent::kArpRepliesSent:
      return "kArpRepliesSent";
    case EngineEvent::kSolicitationsSent:
      return "kSolicitationsSent";
    case EngineEvent::kAdvertisementsSent:
      return "kAdvertisementsSent";
    case EngineEvent::kEchoRepliesSent:
      return "kEchoRepliesSent";
    case EngineEvent::kIcmpErrorsReceived:
      return "kIcmpErrorsReceived";
    case EngineEvent::kPathMtusLowered:
      return "kPathMtusLowered";
    case EngineEvent::kRulesInstalled:
      return "kRulesInstalled";
    case EngineEvent::kRulesRefused:
      return "kRulesRefused";
    case EngineEvent::kQueuesRefused:
      return "kQueuesRefused";
    case EngineEvent::kRulesRemoved:
      return "kRulesRemoved";
    case EngineEvent::kHandshakesWithoutRule:
      return "kHandshakesWithoutRule";
    case EngineEvent::kMovedToControlQueue:
      return "kMovedToControlQueue";
    case EngineEvent::kOptionTailsRead:
      return "kOptionTailsRead";
    case EngineEvent::kTextDroppedAtReserve:
      return "kTextDroppedAtReserve";
    case EngineEvent::kLinearPoolDry:
      return "kLinearPoolDry";
    case EngineEvent::kCookiesSent:
      return "kCookiesSent";
    case EngineEvent::kCookiesAccepted:
      return "kCookiesAccepted";
    case EngineEvent::kRulesDeferred:
      return "kRulesDeferred";
    case EngineEvent::kShareUsedUp:
      return "kShareUsedUp";
    case EngineEvent::kTxRingFull:
      return "kTxRingFull";
    case EngineEvent::kLendRefused:
      return "kLendRefused";
    case EngineEvent::kRegionsRevoked:
      return "kRegionsRevoked";
    case EngineEvent::kDeviceFailed:
      return "kDeviceFailed";
    case EngineEvent::kTimeWaitsReopened:
      return "kTimeWaitsReopened";
    case EngineEvent::kTimeWaitsEvicted:
      return "kTimeWaitsEvicted";
    case EngineEvent::kOrphansReset:
      return "kOrphansReset";
    case EngineEvent::kCount:
      break;
  }
  return "?";
}

}  // namespace devwire
