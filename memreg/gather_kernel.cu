// The gather kernel: tiles of bytes from anywhere to anywhere, at the speed of
// a plain copy whatever their alignment.
//
// One source for nvcc, NVRTC, clang (PTX, with neither CUDA's headers nor its
// libraries), hipcc and hipRTC; and for a host compiler, where the tests call
// it thread by thread. So it includes nothing and spells its builtins below.
//
// Reads:  aligned granules of 16 bytes that hold bytes of the tile, and no
//         others. An allocation of a GPU starts on a multiple of 256 and is
//         mapped in whole pages, so its first and last granules can be read
//         too. Bytes of such a granule that are not the tile's may be written
//         meanwhile (by a NIC): they are shifted out.
// Writes: the tile's bytes alone: whole granules, and up to 15 single bytes at
//         each end, because the neighbouring bytes are another tile's.
// Threads: 32 a tile. They share nothing, so the width of a warp or wavefront
//         does not matter.

#if defined(__NVPTX__) || defined(__CUDACC__) || defined(__CUDACC_RTC__)
#define DEVWIRE_NVIDIA 1
#elif defined(__AMDGCN__) || defined(__HIP__)
#define DEVWIRE_AMD 1
#endif

#if defined(DEVWIRE_NVIDIA) || defined(DEVWIRE_AMD)
#ifndef __global__
#define __global__ __attribute__((global))
#endif
#ifndef __device__
#define __device__ __attribute__((device))
#endif
#define DEVWIRE_KERNEL extern "C" __global__
#define DEVWIRE_INLINE static __device__ inline
#else
#define DEVWIRE_KERNEL static inline
#define DEVWIRE_INLINE static inline
#endif

#if defined(__clang__) && defined(__NVPTX__)
#define DEVWIRE_THREAD __nvvm_read_ptx_sreg_tid_x()
#define DEVWIRE_BLOCK __nvvm_read_ptx_sreg_ctaid_x()
#elif defined(__clang__) && defined(__AMDGCN__)
#define DEVWIRE_THREAD __builtin_amdgcn_workitem_id_x()
#define DEVWIRE_BLOCK __builtin_amdgcn_workgroup_id_x()
#elif defined(DEVWIRE_NVIDIA)
#define DEVWIRE_THREAD threadIdx.x
#define DEVWIRE_BLOCK blockIdx.x
#elif defined(DEVWIRE_AMD)  // hipcc's pass for the host: never runs.
#define DEVWIRE_THREAD 0u
#define DEVWIRE_BLOCK 0u
#endif  // A host compiler: the includer's.

// Threads of a block, and granules a thread has in flight. Measured:
// docs/performance.md.
#ifndef DEVWIRE_BLOCK_THREADS
#define DEVWIRE_BLOCK_THREADS 256
#endif
#ifndef DEVWIRE_UNROLL
#define DEVWIRE_UNROLL 4
#endif

// The same layout as devwire::GatherTile.
struct DevwireTile {
  unsigned long long from, to;
  unsigned int bytes, unused;
};

struct alignas(16) DevwireGranule {
  unsigned int word[4];
};

DEVWIRE_INLINE DevwireGranule DevwireLoad(unsigned long long address) {
#if defined(DEVWIRE_NVIDIA) && (defined(__CUDA_ARCH__) || defined(__NVPTX__))
  // Told that it is global memory, and that nobody writes these bytes while the
  // kernel runs: the read-only path. Both halves of a granule that two threads
  // need come from one line of L1.
  DevwireGranule g;
  asm("ld.global.nc.v4.u32 {%0, %1, %2, %3}, [%4];"
      : "=r"(g.word[0]), "=r"(g.word[1]), "=r"(g.word[2]), "=r"(g.word[3])
      : "l"(address));
  return g;
#else
  return *reinterpret_cast<const DevwireGranule*>(address);
#endif
}

DEVWIRE_INLINE void DevwireStore(unsigned long long address,
                                 const DevwireGranule& g) {
#if defined(DEVWIRE_NVIDIA) && (defined(__CUDA_ARCH__) || defined(__NVPTX__))
  asm volatile("st.global.v4.u32 [%0], {%1, %2, %3, %4};"
               ::"l"(address),
               "r"(g.word[0]), "r"(g.word[1]), "r"(g.word[2]), "r"(g.word[3])
               : "memory");
#else
  *reinterpret_cast<DevwireGranule*>(address) = g;
#endif
}

DEVWIRE_INLINE void DevwireCopyByte(unsigned long long from,
                                    unsigned long long to) {
  *reinterpret_cast<unsigned char*>(to) =
      *reinterpret_cast<const unsigned char*>(from);
}

// Bytes `bytes` to `bytes` + 3 of the eight bytes {low, high}; `bytes` is 0 to
// 3.
DEVWIRE_INLINE unsigned int DevwireFunnel(unsigned int low, unsigned int high,
                                          unsigned int bytes) {
#if defined(DEVWIRE_NVIDIA) && (defined(__CUDA_ARCH__) || defined(__NVPTX__))
  unsigned int out;
  asm("shf.r.wrap.b32 %0, %1, %2, %3;"
      : "=r"(out)
      : "r"(low), "r"(high), "r"(bytes * 8));
  return out;
#elif defined(__AMDGCN__)
  return __builtin_amdgcn_alignbyte(high, low, bytes);
#else
  return static_cast<unsigned int>(
      ((static_cast<unsigned long long>(high) << 32) | low) >> (bytes * 8));
#endif
}

// The 16 bytes that start `skew` bytes into `a`; `b` follows it. `skew` is 0 to
// 15 and the same for all threads of a tile.
DEVWIRE_INLINE DevwireGranule DevwireShift(const DevwireGranule& a,
                                           const DevwireGranule& b,
                                           unsigned int skew) {
  // Whole words first, by two selections: an index that is known only at run
  // time would put the words into memory.
  const bool two = (skew & 8) != 0, one = (skew & 4) != 0;
  const unsigned int p0 = two ? a.word[2] : a.word[0];
  const unsigned int p1 = two ? a.word[3] : a.word[1];
  const unsigned int p2 = two ? b.word[0] : a.word[2];
  const unsigned int p3 = two ? b.word[1] : a.word[3];
  const unsigned int p4 = two ? b.word[2] : b.word[0];
  const unsigned int p5 = two ? b.word[3] : b.word[1];
  const unsigned int q0 = one ? p1 : p0;
  const unsigned int q1 = one ? p2 : p1;
  const unsigned int q2 = one ? p3 : p2;
  const unsigned int q3 = one ? p4 : p3;
  const unsigned int q4 = one ? p5 : p4;
  const unsigned int left = skew & 3;
  return {{DevwireFunnel(q0, q1, left), DevwireFunnel(q1, q2, left),
           DevwireFunnel(q2, q3, left), DevwireFunnel(q3, q4, left)}};
}

// Whole granules at `to`, which is aligned, from `from`, which is not: each is
// cut from the two granules that hold its bytes.
DEVWIRE_INLINE void DevwireCopyShifted(unsigned long long from,
                                       unsigned long long to,
                                       unsigned int granules,
                                       unsigned int lane) {
  const unsigned int skew = static_cast<unsigned int>(from & 15);
  const unsigned long long aligned = from - skew;
  for (unsigned int first = lane; first < granules;
       first += 32 * DEVWIRE_UNROLL) {
    DevwireGranule low[DEVWIRE_UNROLL], high[DEVWIRE_UNROLL];
#pragma unroll
    for (unsigned int k = 0; k < DEVWIRE_UNROLL; ++k) {
      const unsigned int i = first + 32 * k;
      if (i < granules) {
        low[k] = DevwireLoad(aligned + i * 16ull);
        high[k] = DevwireLoad(aligned + i * 16ull + 16);
      }
    }
#pragma unroll
    for (unsigned int k = 0; k < DEVWIRE_UNROLL; ++k) {
      const unsigned int i = first + 32 * k;
      if (i < granules) {
        DevwireStore(to + i * 16ull, DevwireShift(low[k], high[k], skew));
      }
    }
  }
}

DEVWIRE_INLINE void DevwireCopyAligned(unsigned long long from,
                                       unsigned long long to,
                                       unsigned int granules,
                                       unsigned int lane) {
  for (unsigned int first = lane; first < granules;
       first += 32 * DEVWIRE_UNROLL) {
    DevwireGranule g[DEVWIRE_UNROLL];
#pragma unroll
    for (unsigned int k = 0; k < DEVWIRE_UNROLL; ++k) {
      const unsigned int i = first + 32 * k;
      if (i < granules) g[k] = DevwireLoad(from + i * 16ull);
    }
#pragma unroll
    for (unsigned int k = 0; k < DEVWIRE_UNROLL; ++k) {
      const unsigned int i = first + 32 * k;
      if (i < granules) DevwireStore(to + i * 16ull, g[k]);
    }
  }
}

DEVWIRE_INLINE void DevwireCopyTile(unsigned long long from,
                                    unsigned long long to, unsigned int bytes,
                                    unsigned int lane) {
  unsigned int head = static_cast<unsigned int>((0 - to) & 15);
  if (head > bytes) head = bytes;
  if (lane < head) DevwireCopyByte(from + lane, to + lane);
  from += head;
  to += head;
  bytes -= head;

  const unsigned int granules = bytes / 16;
  const unsigned int tail = bytes & 15;
  if (lane < tail) {
    const unsigned int at = granules * 16 + lane;
    DevwireCopyByte(from + at, to + at);
  }
  if ((from & 15) == 0) {
    DevwireCopyAligned(from, to, granules, lane);
  } else {
    DevwireCopyShifted(from, to, granules, lane);
  }
}

// `groups`: how many groups of 32 threads the grid has; tiles beyond that come
// round again.
DEVWIRE_KERNEL void devwire_gather(const DevwireTile* tiles, unsigned int count,
                                   unsigned int groups) {
  const unsigned int thread = DEVWIRE_BLOCK * DEVWIRE_BLOCK_THREADS +
                              DEVWIRE_THREAD;
  const unsigned int lane = thread & 31;
  for (unsigned int i = thread / 32; i < count; i += groups) {
    DevwireCopyTile(tiles[i].from, tiles[i].to, tiles[i].bytes, lane);
  }
}
