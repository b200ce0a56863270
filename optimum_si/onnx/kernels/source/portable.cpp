// The product on any machine: rows are expanded and multiplied as they are. Slow, right, and what the rest is held to.
#include <cstdlib>
#include <memory>

#include "packed.h"

namespace si::portable {

void multiply(const Task& task, int64_t first, int64_t last) {
  const Packed& p = *task.packed;
  const int64_t strip = strip_of(p), columns = p.columns, stride = p.padded_columns();
  std::unique_ptr<float[]> dense(new float[size_t(strip * columns)]);
  for (int64_t start = first; start < last; start += strip) {
    expand(p, start, start + strip, dense.get());
    for (int64_t row = start; row < start + strip && row < p.rows; ++row) {
      const float* weight = dense.get() + (row - start) * columns;
      for (int64_t m = 0; m < task.count; ++m) {
        const float* x = task.x + m * stride;
        float sums[8] = {};
        int64_t column = 0;
        for (; column + 8 <= columns; column += 8)
          for (int lane = 0; lane < 8; ++lane) sums[lane] += weight[column + lane] * x[column + lane];
        for (; column < columns; ++column) sums[0] += weight[column] * x[column];
        float sum = ((sums[0] + sums[4]) + (sums[2] + sums[6])) + ((sums[1] + sums[5]) + (sums[3] + sums[7]));
        task.y[m * task.stride + row] = sum + (task.bias ? task.bias[row] : 0.0f);
      }
    }
  }
}

}  // namespace si::portable
