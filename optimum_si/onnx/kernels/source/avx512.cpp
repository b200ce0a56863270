// Kernels for AVX-512; what gains nothing by it is left to those for AVX2.
#define SI_TARGET avx512
#include "avx512-inl.h"
#include "blocks-inl.h"
#include "masks-inl.h"
#include "pairs-inl.h"
#include "tiles-inl.h"

namespace si::avx512 {

void multiply(const Task& task, int64_t first, int64_t last) {
  const Packed& p = *task.packed;
  // Few rows of x do not fill a register; several rows share what AVX2 decodes of blocks; CSR waits for x, not for sums.
  const bool wide = task.transposed.data ? task.transposed.lanes == Avx512::kLanes
                                         : p.format != Format::kCsr && !(p.in_blocks() && task.count > 2);
  if (task.dense || !wide) return avx2::multiply(task, first, last);
  if (task.transposed.data) return multiply_tiles<Avx512>(task, first, last);
  if (p.in_blocks()) return multiply_blocks<Avx512>(task, first, last);
  p.in_masks() ? multiply_masks<Avx512>(task, first, last) : multiply_pairs<Avx512>(task, first, last);
}

}  // namespace si::avx512
