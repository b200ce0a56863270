// The product on any machine: rows are expanded and multiplied as they are. Slow, right, and what the rest is held to,
// which is why it shares no algorithm with it.
#include <memory>

#include "packed-inl.h"
#include "task.h"

namespace si::portable {
namespace {

float from_half(uint16_t half) {
  const uint32_t sign = uint32_t(half & 0x8000) << 16;
  uint32_t exponent = (half >> 10) & 31, fraction = half & 0x3ff, bits;
  if (exponent == 31) {
    bits = sign | 0x7f800000 | fraction << 13;
  } else if (exponent) {
    bits = sign | (exponent + 112) << 23 | fraction << 13;
  } else if (fraction) {  // a denormal half is a normal float
    exponent = 113;
    while (!(fraction & 0x400)) fraction <<= 1, --exponent;
    bits = sign | exponent << 23 | (fraction & 0x3ff) << 13;
  } else {
    bits = sign;
  }
  float value;
  std::memcpy(&value, &bits, 4);
  return value;
}

float half_at(const uint8_t* data, int64_t index) {
  uint16_t half;
  std::memcpy(&half, data + 2 * index, 2);
  return from_half(half);
}

// Value `index` of the stream, without its scale.
float value_at(const Packed& p, int64_t index) {
  const uint8_t* data = p.values.data;
  float value;
  switch (p.dtype) {
    case DType::kFp32: std::memcpy(&value, data + 4 * index, 4); return value;
    case DType::kFp16: return half_at(data, index);
    case DType::kInt8: return float(int8_t(data[index]));
    default: return float((data[index / 2] >> (index % 2 ? 4 : 0) & 15) - 8);
  }
}

// Scale of a value, 1 for floating point.
float scale_of(const Packed& p, int64_t row, int64_t group) {
  if (!p.group) return 1.0f;
  const int64_t groups = p.groups();
  const int64_t at = p.format == Format::kCsr ? row * groups + group : (row / 4 * groups + group) * 4 + row % 4;
  if (p.dtype == DType::kInt4) return half_at(p.scales.data, at);
  float scale;
  std::memcpy(&scale, p.scales.data + 4 * at, 4);
  return scale;
}

// Dense [last - first, columns] rows of a weight, filled value by value.
class DenseRows {
 public:
  DenseRows(const Packed& packed, int64_t first, int64_t last, float* out)
      : p(packed), first_(first), last_(last), out_(out) {
    std::memset(out, 0, size_t(last - first) * size_t(p.columns) * sizeof(float));
  }

  void blocks() {
    const bool nibbles = p.dtype == DType::kInt4;
    const int64_t chunks = p.padded_columns() / kBlockColumns;
    for (int64_t strip = first_ / kBlockStrip; strip * kBlockStrip < last_; ++strip)
      for (int64_t chunk = 0; chunk < chunks; ++chunk)
        for (int block = 0; block < 4; ++block)
          for (int slot = 0; slot < 32; ++slot) {
            const int64_t base = strip * chunks + chunk;
            const int64_t at = nibbles ? 64 * base + 32 * (block / 2) + slot : 128 * base + 32 * block + slot;
            const uint8_t byte = p.values.data[at];
            const float value = nibbles ? float((byte >> (block % 2 ? 4 : 0) & 15) - 8) : float(int8_t(byte));
            const int position = p.indices.data[32 * base + slot] >> (2 * block) & 3;
            const int64_t column = chunk * kBlockColumns + block * 16 + slot % 8 / 2 * 4 + position;
            store(strip * kBlockStrip + slot / 8, column, value);
          }
  }

  void pairs() {
    const int64_t steps = p.padded_columns() / kStep;
    for (int64_t strip = first_ / kPairStrip; strip * kPairStrip < last_; ++strip)
      for (int64_t step = 0; step < steps; ++step)
        for (int pair = 0; pair < 4; ++pair)
          for (int slot = 0; slot < 8; ++slot) {
            const int64_t at = (strip * steps + step) * 4 + pair;
            const uint8_t bits = kShuffles.positions[p.indices.data[at * 2 + slot / 4] / 2];
            const int row = 2 * pair + (slot >> 1 & 1), column = slot / 4 * 4 + (bits >> (2 * (slot % 4)) & 3);
            store(strip * kPairStrip + row, step * kStep + column, value_at(p, at * 8 + slot));
          }
  }

  void masks() {
    const int64_t steps = p.padded_columns() / kStep;
    for (int64_t strip = first_ / kMaskStrip; strip * kMaskStrip < last_; ++strip) {
      int64_t index = first_value(p, strip, steps);
      for (int64_t step = 0; step < steps; ++step)
        for (int row = 0; row < kMaskStrip; ++row) {
          const unsigned mask = mask_of(p, p.indices.data[(strip * steps + step) * kMaskStrip + row]);
          for (int column = 0; column < kStep; ++column)
            if (mask >> column & 1) store(strip * kMaskStrip + row, step * kStep + column, value_at(p, index++));
        }
    }
  }

  void csr() {
    for (int64_t row = first_; row < last_ && row < p.rows; ++row)
      for (uint32_t index = start_at(p, row); index < start_at(p, row + 1); ++index)
        store(row, column_at(p, index), value_at(p, index));
  }

 private:
  void store(int64_t row, int64_t column, float value) {
    if (row < last_ && row < p.rows && column < p.columns)
      out_[(row - first_) * p.columns + column] = value * (p.group ? scale_of(p, row, column / p.group) : 1.0f);
  }

  const Packed& p;
  const int64_t first_, last_;
  float* const out_;
};

void expand(const Packed& p, int64_t first, int64_t last, float* out) {
  DenseRows rows(p, first, last, out);
  if (p.in_blocks()) return rows.blocks();
  if (p.format == Format::kTwoOfFour) return rows.pairs();
  p.in_masks() ? rows.masks() : rows.csr();
}

}  // namespace

void multiply(const Task& task, int64_t first, int64_t last) {
  const Packed& p = *task.packed;
  const int64_t strip = p.strip(), columns = p.columns, stride = p.padded_columns();
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
