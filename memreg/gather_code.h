// gather_kernel.cu, in the library: its source and what clang makes of it for
// any NVIDIA card. Written by the rule gather_code of memreg/BUILD.
#ifndef MEMREG_GATHER_CODE_H_
#define MEMREG_GATHER_CODE_H_

namespace devwire {

extern const char kGatherKernelSource[];
extern const char kGatherKernelPtx[];

}  // namespace devwire

#endif  // MEMREG_GATHER_CODE_H_
