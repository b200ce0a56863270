// CSR times one row of x.
#include "avx2.h"

namespace si::avx2 {
namespace {

// Inputs of 4 columns. One by one: the gather instruction of Zen 1 takes twice as long.
inline __m128 inputs(const float* x, const uint8_t* columns) {
  uint64_t four;
  std::memcpy(&four, columns, 8);
  __m128 picked = _mm_load_ss(x + (four & 0xffff));
  picked = _mm_insert_ps(picked, _mm_load_ss(x + (four >> 16 & 0xffff)), 0x10);
  picked = _mm_insert_ps(picked, _mm_load_ss(x + (four >> 32 & 0xffff)), 0x20);
  return _mm_insert_ps(picked, _mm_load_ss(x + (four >> 48)), 0x30);
}

template <class Value>
void rows_of(const Task& task, int64_t first, int64_t last) {
  const Packed& p = *task.packed;
  const Scales scales(p);
  const uint8_t *values = p.values.data, *columns = p.indices.data;
  for (int64_t row = first; row < last; ++row) {
    int64_t at = start_at(p, row);
    const int64_t stop = start_at(p, row + 1);
    __m128 one = _mm_setzero_ps(), other = _mm_setzero_ps(), weights[2];
    for (; at + 8 <= stop; at += 8) {
      ask_ahead<8 * Value::kBits / 8>(values + at * Value::kBits / 8);
      Value::fours(values, at, weights[0], weights[1]);
      one = _mm_fmadd_ps(inputs(task.x, columns + 2 * at), weights[0], one);
      other = _mm_fmadd_ps(inputs(task.x, columns + 2 * at + 8), weights[1], other);
    }
    __m128 sums = _mm_add_ps(one, other);
    sums = _mm_hadd_ps(sums, sums);
    float sum = _mm_cvtss_f32(_mm_hadd_ps(sums, sums));
    alignas(32) float left[8];
    _mm256_store_ps(left, Value::eight(values, at));
    for (int64_t number = 0; number < stop - at; ++number) {
      uint16_t column;
      std::memcpy(&column, columns + 2 * (at + number), 2);
      sum += task.x[column] * left[number];
    }
    put(task, 0, row, sum * scales.one(row, 0));
  }
}

}  // namespace

void csr(const Task& task, int64_t first, int64_t last) {
  switch (task.packed->values_kind) {
    case Values::kFp32: return rows_of<Fp32>(task, first, last);
    case Values::kFp16: return rows_of<Fp16>(task, first, last);
    case Values::kInt8: return rows_of<Int8>(task, first, last);
    default: return rows_of<Int4>(task, first, last);
  }
}

}  // namespace si::avx2
