#include "avx2.h"

namespace si::avx2 {

void multiply(const Task& task, int64_t first, int64_t last) {
  const Packed& p = *task.packed;
  if (task.dense) return portable::multiply(task, first, last);
  if (task.turned.data) return many(task, first, last);
  if (p.in_blocks()) return blocks(task, first, last);
  if (p.format == Format::kTwoOfFour) return pairs(task, first, last);
  if (p.in_masks()) return masks(task, first, last);
  csr(task, first, last);
}

}  // namespace si::avx2
