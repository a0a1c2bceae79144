#!/usr/bin/env bash
# Compiles gather_kernel.cu without a GPU and without CUDA's headers.
#
#   memreg/gather_objects.sh KERNEL FOLDER
#
# writes into FOLDER, with the compilers of `./dev setup --gpu`:
#   gather_kernel.ptx   for every NVIDIA card from Pascal on (clang-14); the one
#                       of the tree, which is in the library, is this
#   gather_kernel.hsaco for gfx908, gfx90a and gfx1030 (hipcc), for
#                       GpuGatherOptions::object_file
# A compiler that is missing is a line "SKIP: ...".
set -euo pipefail
kernel="$1"
folder="$2"

if command -v clang-14 >/dev/null; then
  # -Wno-unknown-cuda-version: whatever CUDA is on the machine is not used.
  clang-14 -x cuda -nocudainc -nocudalib --cuda-device-only \
    --cuda-gpu-arch=sm_60 -Wno-unknown-cuda-version -O3 -S \
    -o "$folder/gather_kernel.ptx" "$kernel"
  echo "PASS: clang-14 compiles the gather kernel to PTX"
else
  echo "SKIP: the gather kernel's PTX: no clang-14 (./dev setup --gpu)"
fi

if command -v hipcc >/dev/null; then
  hipcc --genco --offload-arch=gfx908 --offload-arch=gfx90a \
    --offload-arch=gfx1030 -O3 -x hip -o "$folder/gather_kernel.hsaco" "$kernel"
  echo "PASS: hipcc compiles the gather kernel for gfx908, gfx90a and gfx1030"
else
  echo "SKIP: the gather kernel for AMD: no hipcc (./dev setup --gpu)"
fi
