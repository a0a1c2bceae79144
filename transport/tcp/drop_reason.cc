#include "transport/tcp/drop_reason.h"

namespace devwire {

const char* DropReasonName(DropReason reason) {
#define DEVWIRE_NAME(name) \
  case DropReason::name:   \
    return #name
  switch (reason) {
    DEVWIRE_NAME(kNone);
    DEVWIRE_NAME(kClosed);
    DEVWIRE_NAME(kListenReset);
    DEVWIRE_NAME(kListenAck);
    DEVWIRE_NAME(kListenWithoutSyn);
    DEVWIRE_NAME(kAckOutsideSynSent);
    DEVWIRE_NAME(kResetWithoutAck);
    DEVWIRE_NAME(kNotSynNorRst);
    DEVWIRE_NAME(kPaws);
    DEVWIRE_NAME(kOutsideWindow);
    DEVWIRE_NAME(kResetOutsideWindow);
    DEVWIRE_NAME(kResetChallenged);
    DEVWIRE_NAME(kSynChallenged);
    DEVWIRE_NAME(kWithoutAck);
    DEVWIRE_NAME(kAckTooOld);
    DEVWIRE_NAME(kAckOfUnsent);
    DEVWIRE_NAME(kDuplicateText);
    DEVWIRE_NAME(kOutOfSlots);
    DEVWIRE_NAME(kTooManyHoles);
    DEVWIRE_NAME(kPoolReserve);
    DEVWIRE_NAME(kTextAfterFin);
    DEVWIRE_NAME(kTextAfterClose);
    DEVWIRE_NAME(kTextUnread);
    DEVWIRE_NAME(kTextOnSyn);
  }
#undef DEVWIRE_NAME
  return "?";
}

}  // namespace devwire
