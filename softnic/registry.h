// All devices of this process, as the configuration has them.
//
// Threads: any; one lock.
#ifndef SOFTNIC_REGISTRY_H_
#define SOFTNIC_REGISTRY_H_

#include <string>
#include <string_view>
#include <vector>

#include "softnic/front.h"

namespace softnic {

// Reads SOFTNIC again, unless softnic_configure has taken its place. 0, or an
// errno with LastError set. `devices`: those that are configured now, in order.
int ListDevices(std::vector<FrontDevice*>* devices);
// The body of softnic_configure.
int ConfigureDevices(const char* text);
// Null: no device of that name was ever configured.
FrontDevice* FindDevice(std::string_view name);
// Every device there ever was.
std::vector<FrontDevice*> AllDevices();

// Some device was ever told to scatter late: softnic_make_visible has work.
bool AnyLateScatter();

// Of the calling thread; see softnic_last_error.
void SetLastError(std::string_view message);
const char* LastError();

}  // namespace softnic

#endif  // SOFTNIC_REGISTRY_H_
