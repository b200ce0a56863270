// Kernels for AVX2.
#define SI_TARGET avx2
#include "avx2-inl.h"
#include "blocks-inl.h"
#include "csr-inl.h"
#include "four_of_eight-inl.h"
#include "masks-inl.h"
#include "pairs-inl.h"
#include "quantize-inl.h"
#include "tiles-inl.h"

namespace si::avx2 {

void multiply(const Task& task, int64_t first, int64_t last) {
  const Packed& p = *task.packed;
  if (task.dense) return portable::multiply(task, first, last);
  if (task.transposed.data) return multiply_tiles<Avx2>(task, first, last);
  if (p.in_blocks()) return multiply_blocks<Avx2>(task, first, last);
  if (p.format == Format::kTwoOfFour) return multiply_pairs<Avx2>(task, first, last);
  if (p.format == Format::kCsr) return multiply_csr(task, first, last);
  if (p.format == Format::kFourOfEight && task.count == 1) return multiply_four_of_eight(task, first, last);
  multiply_masks<Avx2>(task, first, last);
}

}  // namespace si::avx2
